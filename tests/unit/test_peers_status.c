/* What the peers process believes of other nodes' answers. */
#include "peers/status.h"

#include <check.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODE    "550e8400-e29b-41d4-a716-446655440000"
#define CLUSTER "6ba7b810-9dad-11d1-80b4-00c04fd430c8"

#define STATUS(role, id, cluster, epoch, state, addr)                                        \
    "{\"role\": \"" role "\", \"node_id\": \"" id "\", \"wal_offset\": 7, \"epoch\": " epoch \
    ", \"cluster_id\": \"" cluster "\", \"state\": \"" state "\", \"durable_offset\": 7, "   \
    "\"last_crc\": 4294967295, \"replication_addr\": \"" addr                                \
    "\", \"processes\": [{\"pid\": 1}]}\n"

static struct nx_peer_status status;

static int parse(const char *text)
{
    return nx_status_parse(text, strlen(text), "10.0.0.9:15474", &status);
}

START_TEST(a_master)
{
    ck_assert_int_eq(parse(STATUS("master", NODE, CLUSTER, "3", "streaming", "10.0.0.1:15475")), 0);
    ck_assert_int_eq(status.role, NX_NODE_MASTER);
    ck_assert(!status.fenced);
    ck_assert_str_eq(status.node_id, NODE);
    ck_assert_str_eq(status.cluster_id, CLUSTER);
    ck_assert_uint_eq(status.epoch, 3);
    ck_assert_uint_eq(status.position.epoch, 3);
    ck_assert_uint_eq(status.position.offset, 7);
    ck_assert_uint_eq(status.position.crc, UINT32_MAX);
    ck_assert_str_eq(status.replication_addr, "10.0.0.1:15475");
}
END_TEST

START_TEST(other_roles_and_states)
{
    ck_assert_int_eq(parse(STATUS("replica", NODE, "", "3", "connecting", "")), 0);
    ck_assert_int_eq(status.role, NX_NODE_REPLICA);
    ck_assert_str_eq(status.cluster_id, "");
    ck_assert_str_eq(status.replication_addr, "");
    ck_assert_int_eq(parse(STATUS("master", NODE, CLUSTER, "3", "fenced", "")), 0);
    ck_assert(status.fenced);
    ck_assert_int_eq(parse(STATUS("standalone", NODE, CLUSTER, "3", "stopped", "")), 0);
    ck_assert_int_eq(status.role, NX_NODE_STANDALONE);
}
END_TEST

START_TEST(ids_are_compared_in_one_form)
{
    ck_assert_int_eq(parse(STATUS("master", "550E8400-E29B-41D4-A716-446655440000", CLUSTER, "3",
                                  "streaming", "")),
                     0);
    ck_assert_str_eq(status.node_id, NODE);
}
END_TEST

START_TEST(a_wildcard_is_the_host_that_was_asked)
{
    ck_assert_int_eq(parse(STATUS("master", NODE, CLUSTER, "3", "streaming", ":15475")), 0);
    ck_assert_str_eq(status.replication_addr, "10.0.0.9:15475");
}
END_TEST

START_TEST(an_address_that_is_none)
{
    ck_assert_int_eq(parse(STATUS("master", NODE, CLUSTER, "3", "streaming", "a b:1")), 0);
    ck_assert_str_eq(status.replication_addr, "");
    ck_assert_int_eq(parse(STATUS("master", NODE, CLUSTER, "3", "streaming", "[fe80::1%a b]:1")),
                     0);
    ck_assert_str_eq(status.replication_addr, "");
    ck_assert_int_eq(parse(STATUS("master", NODE, CLUSTER, "3", "streaming", "a\\u0000b:1")), 0);
    ck_assert_str_eq(status.replication_addr, "");
}
END_TEST

static const char *const nonsense[] = {
    "",
    "{",
    "[]",
    "null",
    "{}",
    "<html>",
    "\"" NODE "\"",
    STATUS("king", NODE, CLUSTER, "3", "streaming", ""),
    STATUS("master", "me", CLUSTER, "3", "streaming", ""),
    STATUS("master", "", CLUSTER, "3", "streaming", ""),
    STATUS("master", NODE, "ours", "3", "streaming", ""),
    STATUS("master", NODE, CLUSTER, "-3", "streaming", ""),
    STATUS("master", NODE, CLUSTER, "3.5", "streaming", ""),
    STATUS("master", NODE, CLUSTER, "\"3\"", "streaming", ""),
    STATUS("master", NODE, CLUSTER, "null", "streaming", ""),
    STATUS("master", NODE, CLUSTER, "18446744073709551615", "streaming", ""),
    STATUS("master", NODE, CLUSTER, "99999999999999999999999", "streaming", ""),
    STATUS("master\\u0000", NODE, CLUSTER, "3", "streaming", ""),
    "{\"role\": \"master\", \"node_id\": \"" NODE "\", \"cluster_id\": \"" CLUSTER
    "\", \"state\": 1, \"epoch\": 3, \"durable_offset\": 7, \"last_crc\": 0}",
    "{\"role\": \"master\", \"node_id\": \"" NODE "\", \"cluster_id\": \"" CLUSTER
    "\", \"state\": \"x\", \"epoch\": 3, \"durable_offset\": 7, \"last_crc\": 4294967296}",
};

START_TEST(what_is_no_status)
{
    ck_assert_int_eq(parse(nonsense[_i]), -EBADMSG);
}
END_TEST

#define HALF_SYNCED(goal)                                                                  \
    "{\"role\": \"replica\", \"node_id\": \"" NODE "\", \"cluster_id\": \"" CLUSTER        \
    "\", \"state\": \"streaming\", \"epoch\": 1, \"durable_offset\": 7, \"last_crc\": 5, " \
    "\"sync_goal\": " goal "}"

START_TEST(a_full_sync_that_is_not_complete)
{
    ck_assert_int_eq(parse(HALF_SYNCED("{\"epoch\": 2, \"offset\": 9}")), 0);
    ck_assert_uint_eq(status.position.epoch, 1);
    ck_assert_uint_eq(status.position.offset, 7);
    ck_assert_uint_eq(status.vouched.epoch, 2);
    ck_assert_uint_eq(status.vouched.offset, 9);
}
END_TEST

static const char *const no_goals[] = {
    "null",
    "9",
    "{}",
    "{\"epoch\": 2}",
    "{\"epoch\": -2, \"offset\": 9}",
    "{\"epoch\": 2, \"offset\": 7}", /* it has that */
};

START_TEST(what_is_no_goal)
{
    char text[512];

    (void)snprintf(text, sizeof text, HALF_SYNCED("%s"), no_goals[_i]);
    ck_assert_int_eq(parse(text), 0);
    ck_assert_uint_eq(status.vouched.epoch, 1);
    ck_assert_uint_eq(status.vouched.offset, 7);
    ck_assert_uint_eq(status.vouched.crc, 5);
}
END_TEST

START_TEST(a_deep_one)
{
    char text[4096];

    memset(text, '[', sizeof text);
    ck_assert_int_eq(nx_status_parse(text, sizeof text, "10.0.0.9:1", &status), -EBADMSG);
}
END_TEST

START_TEST(a_node_without_data_has_no_epoch_there)
{
    ck_assert_int_eq(parse("{\"role\": \"replica\", \"node_id\": \"" NODE
                           "\", \"cluster_id\": \"\", \"state\": \"connecting\", \"epoch\": 1, "
                           "\"durable_offset\": 0, \"last_crc\": 0}"),
                     0);
    ck_assert_uint_eq(status.epoch, 1);
    ck_assert_uint_eq(status.position.epoch, 0);
}
END_TEST

/* ---- the history that it shows ---- */

static struct nx_epochs epochs;

static int parse_history(const char *text)
{
    epochs.count = 7;
    return nx_history_parse(text, strlen(text), &epochs);
}

#define EPOCH(epoch, first, id, crc)                                                             \
    "{\"epoch\": " epoch ", \"first_offset\": " first ", \"node_id\": \"" id "\", \"crc\": " crc \
    ", \"more\": 1}"
#define HISTORY(list) "{\"role\": \"master\", \"epochs\": " list "}\n"

START_TEST(a_history)
{
    ck_assert_int_eq(parse_history(HISTORY("[]")), 0);
    ck_assert_uint_eq(epochs.count, 0);
    ck_assert_int_eq(parse_history(HISTORY("[" EPOCH("1", "1", NODE, "0") ", " EPOCH(
                         "7", "9000", CLUSTER, "4294967295") "]")),
                     0);
    ck_assert_uint_eq(epochs.count, 2);
    ck_assert_uint_eq(epochs.claim_length, 0);
    ck_assert_uint_eq(epochs.list[0].node_id[0], 0x55);
    ck_assert_uint_eq(epochs.list[1].epoch, 7);
    ck_assert_uint_eq(epochs.list[1].first_offset, 9000);
    ck_assert_uint_eq(epochs.list[1].crc, UINT32_MAX);
}
END_TEST

static const char *const no_histories[] = {
    "",
    "[]",
    "{}",
    HISTORY("null"),
    HISTORY("{}"),
    HISTORY("[1]"),
    HISTORY("[null]"),
    HISTORY("[{}]"),
    HISTORY("[[]]"),
    HISTORY("[" EPOCH("0", "1", NODE, "0") "]"),
    HISTORY("[" EPOCH("-1", "1", NODE, "0") "]"),
    HISTORY("[" EPOCH("1", "1.5", NODE, "0") "]"),
    HISTORY("[" EPOCH("1", "1", "me", "0") "]"),
    HISTORY("[" EPOCH("1", "1", "", "0") "]"),
    HISTORY("[" EPOCH("1", "1", NODE, "4294967296") "]"),
    HISTORY("[" EPOCH("1", "1", NODE, "\"0\"") "]"),
    HISTORY("[" EPOCH("18446744073709551615", "1", NODE, "0") "]"),
    HISTORY("[" EPOCH("2", "5", NODE, "0") ", " EPOCH("1", "9", NODE, "0") "]"),
    HISTORY("[" EPOCH("2", "5", NODE, "0") ", " EPOCH("2", "9", NODE, "0") "]"),
    HISTORY("[" EPOCH("2", "5", NODE, "0") ", " EPOCH("3", "4", NODE, "0") "]"),
};

START_TEST(what_is_no_history)
{
    ck_assert_int_eq(parse_history(no_histories[_i]), -EBADMSG);
    ck_assert_uint_eq(epochs.count, 0);
}
END_TEST

static struct nx_peer_promise promise;

static int parse_promise(const char *text)
{
    return nx_promise_parse(text, strlen(text), &promise);
}

START_TEST(promises)
{
    ck_assert_int_eq(parse_promise("{\"success\": true, \"epoch\": 2, \"offset\": 9, \"crc\": 5, "
                                   "\"node_id\": \"" NODE "\", \"cluster_id\": \"" CLUSTER "\"}"),
                     0);
    ck_assert_uint_eq(promise.position.epoch, 2);
    ck_assert_uint_eq(promise.position.offset, 9);
    ck_assert_uint_eq(promise.position.crc, 5);
    ck_assert_str_eq(promise.node_id, NODE);
    ck_assert_int_eq(parse_promise("{\"success\": false, \"epoch\": 2, \"offset\": 9, \"crc\": 5, "
                                   "\"node_id\": \"" NODE "\", \"cluster_id\": \"" CLUSTER "\"}"),
                     -EBADMSG);
    ck_assert_int_eq(parse_promise("{\"success\": true, \"epoch\": 2, \"crc\": 5, "
                                   "\"node_id\": \"" NODE "\", \"cluster_id\": \"" CLUSTER "\"}"),
                     -EBADMSG);
    ck_assert_int_eq(parse_promise("{\"success\": true, \"epoch\": 2, \"offset\": 9, \"crc\": 5}"),
                     -EBADMSG);
}
END_TEST

START_TEST(refusals)
{
    static struct nx_peer_refusal refusal;
    const char *text =
        "{\"status\": 409, \"code\": \"wrong_role\", \"epoch\": 8, \"message\": \"No "
        "\\u00fc\\n.\"}";

    nx_refusal_parse(text, strlen(text), &refusal);
    ck_assert_str_eq(refusal.code, "wrong_role");
    ck_assert_str_eq(refusal.message, "No ???.");
    ck_assert_uint_eq(refusal.epoch, 8);
    text = "{\"code\": \"a code with blanks\", \"epoch\": -1}";
    nx_refusal_parse(text, strlen(text), &refusal);
    ck_assert_str_eq(refusal.code, "");
    ck_assert_uint_eq(refusal.epoch, 0);
    nx_refusal_parse("<html>", 6, &refusal);
    ck_assert_str_eq(refusal.message, "");
}
END_TEST

START_TEST(positions_go_by_epoch_first)
{
    struct nx_position a = {.epoch = 2, .offset = 5};
    struct nx_position b = {.epoch = 1, .offset = 9};

    ck_assert_int_gt(nx_position_compare(&a, &b), 0);
    ck_assert_int_lt(nx_position_compare(&b, &a), 0);
    b = (struct nx_position){.epoch = 2, .offset = 6};
    ck_assert_int_lt(nx_position_compare(&a, &b), 0);
    ck_assert_int_eq(nx_position_compare(&a, &a), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("peers_status");
    TCase *tests = tcase_create("answers");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(tests, a_master);
    tcase_add_test(tests, other_roles_and_states);
    tcase_add_test(tests, ids_are_compared_in_one_form);
    tcase_add_test(tests, a_wildcard_is_the_host_that_was_asked);
    tcase_add_test(tests, an_address_that_is_none);
    tcase_add_loop_test(tests, what_is_no_status, 0, (int)(sizeof nonsense / sizeof nonsense[0]));
    tcase_add_test(tests, a_full_sync_that_is_not_complete);
    tcase_add_loop_test(tests, what_is_no_goal, 0, (int)(sizeof no_goals / sizeof no_goals[0]));
    tcase_add_test(tests, a_deep_one);
    tcase_add_test(tests, a_node_without_data_has_no_epoch_there);
    tcase_add_test(tests, a_history);
    tcase_add_loop_test(tests, what_is_no_history, 0,
                        (int)(sizeof no_histories / sizeof no_histories[0]));
    tcase_add_test(tests, promises);
    tcase_add_test(tests, refusals);
    tcase_add_test(tests, positions_go_by_epoch_first);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
