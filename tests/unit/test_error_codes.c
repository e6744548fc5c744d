/* The table of problem codes: each row whole and told apart from all others, and what clients build on. */
#include "common/error_codes.h"

#include <check.h>

#include <stdlib.h>
#include <string.h>

START_TEST(each_code_is_whole_and_stands_once)
{
    for (enum nx_error a = 0; a < NX_ERROR_COUNT; a++) {
        const char *name = nx_error_name(a);

        ck_assert_msg(strlen(name) > 0 &&
                          strspn(name, "abcdefghijklmnopqrstuvwxyz_") == strlen(name),
                      "\"%s\"", name);
        ck_assert_msg(nx_error_status(a) >= 400 && nx_error_status(a) <= 599, "%s", name);
        ck_assert_msg(strlen(nx_error_title(a)) > 0, "%s", name);
        ck_assert_msg(strpbrk(nx_error_title(a), "\"\\\n") == NULL, "%s", name);
        for (enum nx_error b = 0; b < a; b++) {
            ck_assert_str_ne(name, nx_error_name(b));
            ck_assert_str_ne(nx_error_title(a), nx_error_title(b));
        }
    }
}
END_TEST

START_TEST(each_is_found_by_its_name)
{
    enum nx_error found;

    for (enum nx_error error = 0; error < NX_ERROR_COUNT; error++) {
        const char *name = nx_error_name(error);

        ck_assert(nx_error_of_name(name, strlen(name), &found));
        ck_assert_msg(found == error, "%s", name);
        ck_assert(!nx_error_of_name(name, strlen(name) - 1, &found));
    }
    ck_assert(!nx_error_of_name("", 0, &found));
    ck_assert(!nx_error_of_name("FENCED", 6, &found));
}
END_TEST

START_TEST(what_clients_build_on)
{
    static const struct {
        enum nx_error error;
        unsigned status;
        const char *name;
        bool retryable;
    } cases[] = {
        {NX_ERROR_BAD_REQUEST, 400, "bad_request", false},
        {NX_ERROR_READ_ONLY_REPLICA, 403, "read_only_replica", false},
        {NX_ERROR_TOKEN_REQUIRED, 403, "token_required", false},
        {NX_ERROR_CROSS_ORIGIN, 403, "cross_origin", false},
        {NX_ERROR_KEY_NOT_FOUND, 404, "key_not_found", false},
        {NX_ERROR_NO_SUCH_REPLICA, 404, "no_such_replica", false},
        {NX_ERROR_METHOD_NOT_ALLOWED, 405, "method_not_allowed", false},
        {NX_ERROR_WRONG_ROLE, 409, "wrong_role", false},
        {NX_ERROR_REPLICA_CONNECTED, 409, "replica_connected", false},
        {NX_ERROR_PRECONDITION_FAILED, 412, "precondition_failed", false},
        {NX_ERROR_VALUE_TOO_LARGE, 413, "value_too_large", false},
        {NX_ERROR_OVERLOADED, 503, "overloaded", true},
        {NX_ERROR_NOT_SYNCED, 503, "not_synced", true},
        {NX_ERROR_QUORUM_UNAVAILABLE, 503, "quorum_unavailable", true},
        /* may have been written: sent again, it could stand twice */
        {NX_ERROR_QUORUM_TIMEOUT, 504, "quorum_timeout", false},
        {NX_ERROR_OUTCOME_UNKNOWN, 504, "outcome_unknown", false},
        {NX_ERROR_DISK_FULL, 507, "disk_full", false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_str_eq(nx_error_name(cases[i].error), cases[i].name);
        ck_assert_uint_eq(nx_error_status(cases[i].error), cases[i].status);
        ck_assert_msg(nx_error_retryable(cases[i].error) == cases[i].retryable, "%s",
                      cases[i].name);
    }
}
END_TEST

START_TEST(retryable_codes_have_a_status_that_says_so)
{
    for (enum nx_error error = 0; error < NX_ERROR_COUNT; error++) {
        unsigned status = nx_error_status(error);

        if (nx_error_retryable(error)) {
            ck_assert_msg(status == 408 || status == 429 || status == 503 || status == 504, "%s",
                          nx_error_name(error));
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("error_codes");
    TCase *tcase = tcase_create("error_codes");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(tcase, each_code_is_whole_and_stands_once);
    tcase_add_test(tcase, each_is_found_by_its_name);
    tcase_add_test(tcase, what_clients_build_on);
    tcase_add_test(tcase, retryable_codes_have_a_status_that_says_so);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
