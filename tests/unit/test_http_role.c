/* What http workers and the postmaster tell each other about the node's role: the bodies of follow and promise, and
 * the postmaster's refusals. */
#include "http/control_refusal.h"
#include "http/role_bodies.h"

#include <check.h>
#include <json-c/json.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ID "550e8400-e29b-41d4-a716-446655440000"

static struct json_tokener *tokener;
static struct json_fault fault;

static void setup(void)
{
    tokener = nx_json_tokener();
    ck_assert_ptr_nonnull(tokener);
}

static void teardown(void)
{
    json_tokener_free(tokener);
}

static struct json_object *object_of(const char *text)
{
    struct json_object *object = NULL;

    ck_assert_msg(nx_json_parse(tokener, nx_slice_text(text), &object, &fault) == 0, "%s: %s", text,
                  fault.message);
    return object;
}

static int follow_of(const char *text, struct follow_body *ret_body)
{
    struct json_object *object = object_of(text);
    int rc = nx_follow_body_of(object, ret_body, &fault);

    json_object_put(object);
    return rc;
}

static int promise_of(const char *text, struct promise_body *ret_body)
{
    struct json_object *object = object_of(text);
    int rc = nx_promise_body_of(object, ret_body, &fault);

    json_object_put(object);
    return rc;
}

/* ---- follow ---- */

START_TEST(follow_takes_an_address_and_force)
{
    static const struct {
        const char *text;
        const char *addr;
        bool force;
    } cases[] = {
        {"{\"master_addr\": \"10.0.0.1:15475\"}", "10.0.0.1:15475", false},
        {"{\"force\": true, \"master_addr\": \"node-2.example:1\"}", "node-2.example:1", true},
        {"{\"master_addr\": \"[fd00::1]:65535\", \"force\": false}", "[fd00::1]:65535", false},
    };
    struct follow_body body;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_assert_msg(follow_of(cases[i].text, &body) == 0, "%s", fault.message);
        ck_assert_str_eq(body.master_addr, cases[i].addr);
        ck_assert(body.force == cases[i].force);
    }
}
END_TEST

START_TEST(follow_refuses_all_else_and_says_why)
{
    static const struct {
        const char *text;
        enum nx_error code;
        const char *says;
    } cases[] = {
        {"{}", NX_ERROR_BAD_JSON, "\"master_addr\""},
        {"{\"master_addr\": null}", NX_ERROR_BAD_JSON, "a string"},
        {"{\"master_addr\": 15475}", NX_ERROR_BAD_JSON, "a string"},
        {"{\"master_addr\": \"h:1\", \"force\": 1}", NX_ERROR_BAD_JSON, "true or false"},
        {"{\"master_addr\": \"h:1\", \"force\": \"true\"}", NX_ERROR_BAD_JSON, "true or false"},
        {"{\"master_addr\": \"h:1\", \"forse\": true}", NX_ERROR_BAD_JSON, "\"forse\""},
        {"{\"master_addr\": \"\"}", NX_ERROR_BAD_PARAMETER, "host:port"},
        {"{\"master_addr\": \"h\"}", NX_ERROR_BAD_PARAMETER, "host:port"},
        {"{\"master_addr\": \"h:0\"}", NX_ERROR_BAD_PARAMETER, "host:port"},
        {"{\"master_addr\": \"h:65536\"}", NX_ERROR_BAD_PARAMETER, "host:port"},
        {"{\"master_addr\": \"http://h:1\"}", NX_ERROR_BAD_PARAMETER, "host:port"},
        {"{\"master_addr\": \"h:1 \"}", NX_ERROR_BAD_PARAMETER, "host:port"},
        {"{\"master_addr\": \"fd00::1\"}", NX_ERROR_BAD_PARAMETER, "host:port"},
        {"{\"master_addr\": \"h:1\\u0000\"}", NX_ERROR_BAD_PARAMETER, "NUL"},
        {"{\"master_addr\": \":1\"}", NX_ERROR_BAD_PARAMETER, "any address"},
        {"{\"master_addr\": \"*:1\"}", NX_ERROR_BAD_PARAMETER, "any address"},
        {"{\"master_addr\": \"0.0.0.0:1\"}", NX_ERROR_BAD_PARAMETER, "any address"},
        {"{\"master_addr\": \"[::]:1\"}", NX_ERROR_BAD_PARAMETER, "any address"},
    };
    struct follow_body body;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_assert_msg(follow_of(cases[i].text, &body) == -EINVAL, "%s", cases[i].text);
        ck_assert_msg(fault.code == cases[i].code, "%s", cases[i].text);
        ck_assert_msg(strstr(fault.message, cases[i].says) != NULL, "%s: %s", cases[i].text,
                      fault.message);
    }
}
END_TEST

START_TEST(follow_refuses_an_address_that_is_too_long)
{
    char text[NX_ADDR_SIZE + 64];
    char host[NX_ADDR_SIZE];
    struct follow_body body;

    memset(host, 'h', sizeof host - 1);
    host[sizeof host - 1] = '\0';
    snprintf(text, sizeof text, "{\"master_addr\": \"%s:1\"}", host);
    ck_assert_int_eq(follow_of(text, &body), -EINVAL);
    ck_assert_int_eq(fault.code, NX_ERROR_BAD_PARAMETER);
}
END_TEST

/* ---- promise ---- */

START_TEST(promise_takes_an_epoch_and_a_node)
{
    struct promise_body body;

    ck_assert_int_eq(promise_of("{\"epoch\": 7, \"node_id\": \"" ID "\"}", &body), 0);
    ck_assert_uint_eq(body.epoch, 7);
    ck_assert_str_eq(body.node_id, ID);
    ck_assert_int_eq(promise_of("{\"node_id\": \"550E8400-E29B-41D4-A716-446655440000\", "
                                "\"epoch\": 18446744073709551614}",
                                &body),
                     0);
    ck_assert(body.epoch == UINT64_MAX - 1);
    ck_assert_str_eq(body.node_id, ID);
}
END_TEST

START_TEST(promise_refuses_all_else_and_says_why)
{
    static const struct {
        const char *text;
        const char *says;
    } cases[] = {
        {"{}", "\"epoch\""},
        {"{\"epoch\": 7}", "\"node_id\""},
        {"{\"node_id\": \"" ID "\"}", "\"epoch\""},
        {"{\"epoch\": 0, \"node_id\": \"" ID "\"}", "\"epoch\""},
        {"{\"epoch\": -1, \"node_id\": \"" ID "\"}", "\"epoch\""},
        {"{\"epoch\": 1.5, \"node_id\": \"" ID "\"}", "\"epoch\""},
        {"{\"epoch\": \"1\", \"node_id\": \"" ID "\"}", "\"epoch\""},
        {"{\"epoch\": 18446744073709551615, \"node_id\": \"" ID "\"}", "\"epoch\""},
        {"{\"epoch\": 99999999999999999999, \"node_id\": \"" ID "\"}", "\"epoch\""},
        {"{\"epoch\": 1, \"node_id\": \"\"}", "UUID"},
        {"{\"epoch\": 1, \"node_id\": \"" ID "0\"}", "UUID"},
        {"{\"epoch\": 1, \"node_id\": 1}", "a string"},
        {"{\"epoch\": 1, \"node_id\": \"" ID "\", \"force\": true}", "\"force\""},
    };
    struct promise_body body;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_assert_msg(promise_of(cases[i].text, &body) == -EINVAL, "%s", cases[i].text);
        ck_assert_msg(strstr(fault.message, cases[i].says) != NULL, "%s: %s", cases[i].text,
                      fault.message);
    }
}
END_TEST

/* ---- refusals ---- */

START_TEST(a_refusal_is_a_code_and_a_sentence)
{
    struct control_refusal refusal;

    ck_assert(nx_control_refusal_parse("quorum_not_seen Only 1 of 2 peers answered.", &refusal));
    ck_assert_int_eq(refusal.code, NX_ERROR_QUORUM_NOT_SEEN);
    ck_assert(!refusal.has_epoch);
    ck_assert_str_eq(refusal.sentence, "Only 1 of 2 peers answered.");

    ck_assert(nx_control_refusal_parse("fenced epoch=7 Epoch 7 is promised.", &refusal));
    ck_assert_int_eq(refusal.code, NX_ERROR_FENCED);
    ck_assert(refusal.has_epoch);
    ck_assert_uint_eq(refusal.epoch, 7);
    ck_assert_str_eq(refusal.sentence, "Epoch 7 is promised.");
}
END_TEST

START_TEST(anything_else_is_no_refusal)
{
    static const char *const texts[] = {
        "",
        " ",
        "fenced",
        "fenced ",
        "fenced epoch=7",
        "fenced epoch=7 ",
        "fenced epoch= Sentence.",
        "fenced epoch=x Sentence.",
        "fenced epoch=-1 Sentence.",
        "fenced epoch=99999999999999999999 Sentence.",
        "fence Sentence.",
        "fenced_ Sentence.",
        "Fenced Sentence.",
        " fenced Sentence.",
        "No space left on device",
    };
    struct control_refusal refusal;

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        ck_assert_msg(!nx_control_refusal_parse(texts[i], &refusal), "\"%s\"", texts[i]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http_role");
    TCase *tcase = tcase_create("http_role");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, follow_takes_an_address_and_force);
    tcase_add_test(tcase, follow_refuses_all_else_and_says_why);
    tcase_add_test(tcase, follow_refuses_an_address_that_is_too_long);
    tcase_add_test(tcase, promise_takes_an_epoch_and_a_node);
    tcase_add_test(tcase, promise_refuses_all_else_and_says_why);
    tcase_add_test(tcase, a_refusal_is_a_code_and_a_sentence);
    tcase_add_test(tcase, anything_else_is_no_refusal);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
