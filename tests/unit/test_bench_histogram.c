/* nexus-bench's histogram: buckets without a gap and never wider than 0.4 %, quantiles by rank, and that merged ones
 * tell what one of all values would. */
#include "nexus-bench/histogram.h"

#include <check.h>

#include <stdlib.h>
#include <string.h>

static struct bench_histogram one;
static struct bench_histogram other;

static void begin(void)
{
    memset(&one, 0, sizeof one);
    memset(&other, 0, sizeof other);
}

START_TEST(buckets_follow_each_other)
{
    ck_assert_uint_eq(bench_bucket(0), 0);
    for (uint32_t i = 0; i + 1 < BENCH_BUCKETS; i++) {
        uint64_t top = bench_bucket_top(i);

        ck_assert_uint_eq(bench_bucket(top), i);
        ck_assert_uint_eq(bench_bucket(top + 1), i + 1);
    }
}
END_TEST

START_TEST(a_bucket_is_at_most_four_thousandths_wide)
{
    for (uint32_t i = 1; i < BENCH_BUCKETS; i++) {
        uint64_t bottom = bench_bucket_top(i - 1) + 1;

        ck_assert_uint_le((bench_bucket_top(i) - bottom) * 250, bottom);
    }
}
END_TEST

START_TEST(what_is_larger_than_all_is_in_the_last_bucket)
{
    ck_assert_uint_eq(bench_bucket(((uint64_t)1 << BENCH_LARGEST_BITS) - 1), BENCH_BUCKETS - 1);
    ck_assert_uint_eq(bench_bucket((uint64_t)1 << BENCH_LARGEST_BITS), BENCH_BUCKETS - 1);
    ck_assert_uint_eq(bench_bucket(UINT64_MAX), BENCH_BUCKETS - 1);
    bench_histogram_add(&one, (uint64_t)1 << 50);
    ck_assert_uint_eq(bench_histogram_at(&one, 0.5), (uint64_t)1 << 50);
}
END_TEST

START_TEST(quantiles_are_ranks)
{
    for (uint64_t value = 1; value <= 100; value++) {
        bench_histogram_add(&one, value);
    }
    ck_assert_uint_eq(bench_histogram_at(&one, 0), 1);
    ck_assert_uint_eq(bench_histogram_at(&one, 0.5), 50);
    ck_assert_uint_eq(bench_histogram_at(&one, 0.99), 99);
    ck_assert_uint_eq(bench_histogram_at(&one, 0.991), 100);
    ck_assert_uint_eq(bench_histogram_at(&one, 1), 100);
    ck_assert_uint_eq(bench_histogram_mean(&one), 50);
    ck_assert_uint_eq(one.max, 100);
}
END_TEST

START_TEST(large_values_are_told_within_a_bucket)
{
    for (uint64_t i = 0; i < 1000; i++) {
        bench_histogram_add(&one, 1000000 + i * 1000);
    }
    for (uint64_t permille = 1; permille <= 1000; permille++) {
        uint64_t exact = 1000000 + (permille - 1) * 1000;
        uint64_t told = bench_histogram_at(&one, ((double)permille - 0.5) / 1000);

        ck_assert_uint_ge(told, exact);
        ck_assert_uint_le(told, exact + exact / 250);
    }
    ck_assert_uint_eq(bench_histogram_at(&one, 1), 1999000); /* never above the largest */
}
END_TEST

START_TEST(an_empty_one_tells_zeros)
{
    ck_assert_uint_eq(bench_histogram_at(&one, 0.5), 0);
    ck_assert_uint_eq(bench_histogram_mean(&one), 0);
}
END_TEST

START_TEST(merged_is_as_counted_together)
{
    struct bench_histogram together = {.total = 0};

    for (uint64_t i = 0; i < 10000; i++) {
        uint64_t value = i * i * 977 % 5000000;

        bench_histogram_add(i % 3 == 0 ? &one : &other, value);
        bench_histogram_add(&together, value);
    }
    bench_histogram_merge(&one, &other);
    ck_assert_mem_eq(&one, &together, sizeof one);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bench_histogram");
    TCase *tests = tcase_create("histogram");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, begin, NULL);
    tcase_add_test(tests, buckets_follow_each_other);
    tcase_add_test(tests, a_bucket_is_at_most_four_thousandths_wide);
    tcase_add_test(tests, what_is_larger_than_all_is_in_the_last_bucket);
    tcase_add_test(tests, quantiles_are_ranks);
    tcase_add_test(tests, large_values_are_told_within_a_bucket);
    tcase_add_test(tests, an_empty_one_tells_zeros);
    tcase_add_test(tests, merged_is_as_counted_together);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
