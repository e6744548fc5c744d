/* The log clock: it goes on from where it was set, and never goes back for a stamp. Bounds are wide: a test may be held
 * up for long. */
#include "common/log_clock.h"
#include "shm_fixture.h"

#include <stdlib.h>

#define SECOND 1000000ull
#define HOUR   (3600 * SECOND)

static uint64_t now(void)
{
    return nx_log_clock_us(shm);
}

START_TEST(before_it_is_known_it_is_the_wall_clock)
{
    uint64_t before = nx_wall_us();

    ck_assert_uint_ge(now(), before);
    ck_assert_uint_le(now(), nx_wall_us());
}
END_TEST

START_TEST(it_goes_on_from_where_it_was_set)
{
    uint64_t wanted = nx_wall_us() - 5 * HOUR;

    nx_log_clock_set(shm, wanted);
    ck_assert_uint_ge(now(), wanted);
    ck_assert_uint_lt(now(), wanted + HOUR);
    ck_assert_uint_ge(nx_log_clock_ms(shm), wanted / 1000);
}
END_TEST

START_TEST(a_later_stamp_moves_it_on)
{
    uint64_t start = nx_wall_us();

    nx_log_clock_set(shm, start);
    nx_log_clock_hear(shm, start + 5 * HOUR, false);
    ck_assert_uint_ge(now(), start + 5 * HOUR);
}
END_TEST

static uint64_t lead(void)
{
    return atomic_load(&shm->clock.lead_us);
}

START_TEST(an_old_stamp_takes_little_of_it)
{
    uint64_t start = nx_wall_us();
    uint64_t before;

    nx_log_clock_set(shm, start);
    for (unsigned i = 0; i < 1000; i++) {
        before = lead();
        nx_log_clock_hear(shm, start - HOUR, false);
        ck_assert_uint_le(before - lead(), 500);
    }
}
END_TEST

/* However often it hears, what it loses goes by the time between. */
START_TEST(what_it_loses_adds_up)
{
    uint64_t before;

    nx_log_clock_set(shm, nx_wall_us());
    before = lead();
    atomic_store(&shm->clock.heard_us, nx_boot_us() - SECOND / 10);
    nx_log_clock_hear(shm, now() - HOUR, false);
    ck_assert_uint_ge(before - lead(), 50);
    ck_assert_uint_le(before - lead(), 500);
    while (before - lead() < 60) { /* each time too short to lose anything */
        nx_log_clock_hear(shm, now() - HOUR, false);
    }
}
END_TEST

START_TEST(the_first_stamp_of_an_epoch_may_set_it_back)
{
    uint64_t start = nx_wall_us();

    nx_log_clock_set(shm, start);
    nx_log_clock_hear(shm, start - 5 * HOUR, true);
    ck_assert_uint_lt(now(), start - HOUR);
}
END_TEST

START_TEST(but_not_for_what_a_stamp_takes_to_come)
{
    uint64_t start = nx_wall_us();
    uint64_t last;

    nx_log_clock_set(shm, start);
    last = now();
    nx_log_clock_hear(shm, last - SECOND / 1000, true);
    ck_assert_uint_ge(now(), last);
}
END_TEST

START_TEST(what_is_no_time_is_not_heard)
{
    uint64_t start = nx_wall_us();

    nx_log_clock_set(shm, start);
    nx_log_clock_hear(shm, 0, true);
    nx_log_clock_hear(shm, UINT64_MAX, true);
    ck_assert_uint_ge(now(), start);
    ck_assert_uint_lt(now(), start + HOUR);
}
END_TEST

START_TEST(what_expires_at_a_moment_has_expired_then)
{
    ck_assert(!nx_expired(0, UINT64_MAX));
    ck_assert(!nx_expired(1000, 999));
    ck_assert(nx_expired(1000, 1000));
    ck_assert(nx_expired(1000, 1001));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("log_clock");
    TCase *tests = tcase_create("clock");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, shm_setup, shm_teardown);
    tcase_add_test(tests, before_it_is_known_it_is_the_wall_clock);
    tcase_add_test(tests, it_goes_on_from_where_it_was_set);
    tcase_add_test(tests, a_later_stamp_moves_it_on);
    tcase_add_test(tests, an_old_stamp_takes_little_of_it);
    tcase_add_test(tests, what_it_loses_adds_up);
    tcase_add_test(tests, the_first_stamp_of_an_epoch_may_set_it_back);
    tcase_add_test(tests, but_not_for_what_a_stamp_takes_to_come);
    tcase_add_test(tests, what_is_no_time_is_not_heard);
    tcase_add_test(tests, what_expires_at_a_moment_has_expired_then);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
