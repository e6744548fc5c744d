/* When a master appears dead: the limit, and which part of a sleep counts as its silence. */
#include "walreceiver/health.h"

#include <check.h>

#include <stdlib.h>

START_TEST(the_longer_heartbeat_counts)
{
    ck_assert_uint_eq(nx_master_silence_limit_ms(5000, 0, 3),
                      15000); /* the master's isn't known yet */
    ck_assert_uint_eq(nx_master_silence_limit_ms(5000, 1000, 3), 15000);
    ck_assert_uint_eq(nx_master_silence_limit_ms(1000, 5000, 3), 15000);
    ck_assert_uint_eq(nx_master_silence_limit_ms(100, 100, 1), 100);
}
END_TEST

START_TEST(a_master_that_claims_an_endless_heartbeat)
{
    ck_assert_uint_eq(nx_master_silence_limit_ms(5000, UINT32_MAX, 3), UINT64_C(3) * 3600000);
    ck_assert_uint_eq(nx_master_silence_limit_ms(5000, UINT64_MAX, 1000), UINT64_C(1000) * 3600000);
}
END_TEST

START_TEST(a_sleep_counts_as_long_as_it_was)
{
    ck_assert_uint_eq(nx_silence_counted_us(100, 100000), 100000);
    ck_assert_uint_eq(nx_silence_counted_us(100, 3), 3); /* woken early */
    ck_assert_uint_eq(nx_silence_counted_us(0, 10), 10);
    ck_assert_uint_eq(nx_silence_counted_us(100, 120000), 120000); /* a busy machine */
}
END_TEST

START_TEST(a_timer_far_too_late_says_that_we_were_stopped)
{
    ck_assert_uint_le(nx_silence_counted_us(100, 60000000), 150000);
    ck_assert_uint_le(nx_silence_counted_us(0, 60000000), 50000);
    ck_assert_uint_le(nx_silence_counted_us(-1, 60000000), 50000); /* nothing was to be judged */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("master_health");
    TCase *tests = tcase_create("silence");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(tests, the_longer_heartbeat_counts);
    tcase_add_test(tests, a_master_that_claims_an_endless_heartbeat);
    tcase_add_test(tests, a_sleep_counts_as_long_as_it_was);
    tcase_add_test(tests, a_timer_far_too_late_says_that_we_were_stopped);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
