/* How long a follower has been behind: since a mark that it has not reached, not since it was last level. */
#include "common/lag_mark.h"

#include <check.h>

#include <stdlib.h>

static struct nx_lag_mark mark;

static uint64_t move(uint64_t reached, uint64_t newest, uint64_t now_ms)
{
    nx_lag_mark_move(&mark, reached, newest, now_ms);
    return mark.since_ms;
}

static void begin(void)
{
    mark = (struct nx_lag_mark){.since_ms = 0};
}

START_TEST(level_is_no_lag)
{
    ck_assert_uint_eq(move(0, 0, 100), 0);
    ck_assert_uint_eq(move(7, 7, 200), 0);
    ck_assert_uint_eq(move(8, 7, 300), 0);
}
END_TEST

START_TEST(behind_since_it_was_first_seen)
{
    ck_assert_uint_eq(move(0, 10, 100), 100);
    ck_assert_uint_eq(move(0, 10, 200), 100);
    ck_assert_uint_eq(move(9, 50, 300), 100); /* there is more, but 10 is still awaited */
    ck_assert_uint_eq(move(50, 50, 400), 0);
    ck_assert_uint_eq(move(50, 51, 500), 500);
}
END_TEST

START_TEST(under_a_steady_load_the_mark_moves_on)
{
    ck_assert_uint_eq(move(0, 10, 100), 100);
    ck_assert_uint_eq(move(10, 20, 150), 150);
    ck_assert_uint_eq(move(19, 30, 180), 150);
    ck_assert_uint_eq(move(25, 40, 200), 200);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lag_mark");
    TCase *tests = tcase_create("marks");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, begin, NULL);
    tcase_add_test(tests, level_is_no_lag);
    tcase_add_test(tests, behind_since_it_was_first_seen);
    tcase_add_test(tests, under_a_steady_load_the_mark_moves_on);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
