/* Bytes up to an offset: exact at marks, between two in proportion, never more than there are. */
#include "common/byte_marks.h"

#include <check.h>

#include <stdlib.h>

static struct nx_byte_marks marks;

START_TEST(nothing_added)
{
    nx_byte_marks_init(&marks, 100);
    ck_assert_uint_eq(nx_byte_marks_total(&marks), 0);
    ck_assert_uint_eq(nx_byte_marks_up_to(&marks, 100), 0);
    ck_assert_uint_eq(nx_byte_marks_up_to(&marks, 500), 0);
}
END_TEST

START_TEST(exact_at_marks)
{
    nx_byte_marks_init(&marks, 100);
    nx_byte_marks_add(&marks, 110, 1000);
    nx_byte_marks_add(&marks, 111, 7);
    ck_assert_uint_eq(nx_byte_marks_total(&marks), 1007);
    ck_assert_uint_eq(nx_byte_marks_up_to(&marks, 100), 0);
    ck_assert_uint_eq(nx_byte_marks_up_to(&marks, 110), 1000);
    ck_assert_uint_eq(nx_byte_marks_up_to(&marks, 111), 1007);
    ck_assert_uint_eq(nx_byte_marks_total(&marks), 1007);
}
END_TEST

START_TEST(in_proportion_between_marks)
{
    nx_byte_marks_init(&marks, 0);
    nx_byte_marks_add(&marks, 10, 1000);
    ck_assert_uint_eq(nx_byte_marks_up_to(&marks, 3), 300);
    ck_assert_uint_eq(nx_byte_marks_up_to(&marks, 3), 300);
    ck_assert_uint_eq(nx_byte_marks_up_to(&marks, 5), 500);
    ck_assert_uint_eq(nx_byte_marks_up_to(&marks, 10), 1000);
}
END_TEST

START_TEST(a_full_queue_stays_exact_at_its_end)
{
    uint64_t last = 0;

    nx_byte_marks_init(&marks, 0);
    for (uint64_t offset = 1; offset <= (uint64_t)10 * NX_BYTE_MARKS; offset++) {
        nx_byte_marks_add(&marks, offset, 10);
    }
    ck_assert_uint_eq(nx_byte_marks_total(&marks), (uint64_t)100 * NX_BYTE_MARKS);
    for (uint64_t offset = 1; offset <= (uint64_t)10 * NX_BYTE_MARKS; offset++) {
        uint64_t bytes = nx_byte_marks_up_to(&marks, offset);

        ck_assert_uint_ge(bytes, last);
        ck_assert_uint_le(bytes, nx_byte_marks_total(&marks));
        last = bytes;
    }
    ck_assert_uint_eq(last, nx_byte_marks_total(&marks));
    nx_byte_marks_add(&marks, (uint64_t)10 * NX_BYTE_MARKS + 1, 5);
    ck_assert_uint_eq(nx_byte_marks_up_to(&marks, (uint64_t)10 * NX_BYTE_MARKS + 1), last + 5);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("byte_marks");
    TCase *tcase = tcase_create("byte_marks");
    SRunner *runner;
    int failed;

    tcase_add_test(tcase, nothing_added);
    tcase_add_test(tcase, exact_at_marks);
    tcase_add_test(tcase, in_proportion_between_marks);
    tcase_add_test(tcase, a_full_queue_stays_exact_at_its_end);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
