/* nexus-bench's keys and values: each order has the frequencies that it should have, a seed repeats them, and
 * values are what every protocol can write as it is. */
#include "nexus-bench/keys.h"

#include <check.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define KEYS  1000
#define DRAWS 200000

static atomic_uint_fast64_t next;

static struct bench_keys keys_of(enum bench_order order, uint64_t count, uint64_t seed)
{
    struct bench_keys keys = {
        .order = order, .count = count, .next = &next, .random = bench_random_of(seed, 0)};

    if (order == BENCH_ZIPF) {
        keys.zipf = bench_zipf_of(count, 0.99);
    }
    return keys;
}

static double zeta(uint64_t count, double theta)
{
    double sum = 0;

    for (uint64_t r = 1; r <= count; r++) {
        sum += 1 / pow((double)r, theta);
    }
    return sum;
}

/* ---- orders ---- */

START_TEST(uniform_keys_are_each_as_frequent)
{
    struct bench_keys keys = keys_of(BENCH_UNIFORM, KEYS, 1);
    unsigned seen[KEYS] = {0};
    uint64_t key;

    for (int i = 0; i < DRAWS; i++) {
        ck_assert_uint_eq(bench_keys_take(&keys, &key, 1), 1);
        ck_assert_uint_lt(key, KEYS);
        seen[key]++;
    }
    for (size_t i = 0; i < KEYS; i++) { /* 200 of each, give or take six deviations */
        ck_assert_uint_gt(seen[i], 115);
        ck_assert_uint_lt(seen[i], 285);
    }
}
END_TEST

START_TEST(zipf_has_the_frequencies_of_its_formula)
{
    static unsigned seen[KEYS];
    struct bench_zipf zipf = bench_zipf_of(KEYS, 0.99);
    struct bench_random random = bench_random_of(7, 0);
    double sum = zeta(KEYS, 0.99);
    unsigned tail = 0;
    double expected_tail = 0;

    for (int i = 0; i < DRAWS; i++) {
        uint64_t number = bench_zipf_at(&zipf, bench_random_share(&random));

        ck_assert_uint_lt(number, KEYS);
        seen[number]++;
    }
    for (unsigned r = 0; r < 2; r++) { /* these two are exact in the method, the rest approximate */
        double expected = DRAWS / pow(r + 1, 0.99) / sum;

        ck_assert_double_eq_tol(seen[r], expected, 6 * sqrt(expected));
    }
    for (unsigned r = 100; r < KEYS; r++) {
        tail += seen[r];
        expected_tail += DRAWS / pow(r + 1, 0.99) / sum;
    }
    ck_assert_double_eq_tol(tail, expected_tail, expected_tail / 20);
}
END_TEST

START_TEST(zipf_stays_within_its_keys)
{
    static const uint64_t counts[] = {1, 2, 3, 1000, 20000000, BENCH_MOST_KEYS};

    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct bench_zipf zipf = bench_zipf_of(counts[i], 0.5);

        ck_assert_uint_eq(bench_zipf_at(&zipf, 0), 0);
        ck_assert_uint_lt(bench_zipf_at(&zipf, 0.5), counts[i]);
        ck_assert_uint_lt(bench_zipf_at(&zipf, 1 - 0x1p-53), counts[i]);
    }
}
END_TEST

START_TEST(the_sum_of_many_terms_is_near_the_exact_one)
{
    static const double thetas[] = {0.01, 0.5, 0.99};

    for (size_t i = 0; i < sizeof thetas / sizeof thetas[0]; i++) {
        double exact = zeta(1000000, thetas[i]);

        ck_assert_double_eq_tol(bench_zipf_of(1000000, thetas[i]).zeta_n, exact, exact * 1e-9);
    }
}
END_TEST

START_TEST(scrambled_zipf_spreads_the_frequent_ones)
{
    struct bench_keys keys = keys_of(BENCH_ZIPF, KEYS, 3);
    unsigned first_half = 0;
    unsigned frequent = 0;
    static unsigned seen[KEYS];
    uint64_t key;

    for (int i = 0; i < DRAWS; i++) {
        (void)bench_keys_take(&keys, &key, 1);
        seen[key]++;
        first_half += key < KEYS / 2 ? 1 : 0;
    }
    for (size_t i = 0; i < KEYS; i++) {
        frequent = seen[i] > frequent ? seen[i] : frequent;
    }
    ck_assert_uint_gt(frequent, DRAWS / 9); /* 1/7.6 and what shares its key */
    ck_assert_uint_gt(first_half, DRAWS / 4);
    ck_assert_uint_lt(first_half, DRAWS * 3 / 4);
}
END_TEST

START_TEST(sequential_has_each_key_once_and_an_end)
{
    struct bench_keys a = keys_of(BENCH_SEQUENTIAL, 10, 1);
    struct bench_keys b = keys_of(BENCH_SEQUENTIAL, 10, 2);
    uint64_t taken[8];

    atomic_store_explicit(&next, 0, memory_order_relaxed);
    ck_assert_uint_eq(bench_keys_take(&a, taken, 4), 4);
    ck_assert_uint_eq(taken[0], 0);
    ck_assert_uint_eq(taken[3], 3);
    ck_assert_uint_eq(bench_keys_take(&b, taken, 4), 4);
    ck_assert_uint_eq(taken[0], 4);
    ck_assert_uint_eq(bench_keys_take(&a, taken, 4), 2);
    ck_assert_uint_eq(taken[1], 9);
    ck_assert_uint_eq(bench_keys_take(&b, taken, 4), 0);
    ck_assert_uint_eq(bench_keys_take(&a, taken, 1), 0);
}
END_TEST

START_TEST(a_seed_repeats_keys_and_values)
{
    struct bench_keys a = keys_of(BENCH_UNIFORM, BENCH_MOST_KEYS, 5);
    struct bench_keys b = keys_of(BENCH_UNIFORM, BENCH_MOST_KEYS, 5);
    struct bench_keys c = keys_of(BENCH_UNIFORM, BENCH_MOST_KEYS, 6);
    uint64_t of_a[64];
    uint64_t of_b[64];
    uint64_t of_c[64];
    uint8_t value_a[100];
    uint8_t value_b[100];

    (void)bench_keys_take(&a, of_a, 64);
    (void)bench_keys_take(&b, of_b, 64);
    (void)bench_keys_take(&c, of_c, 64);
    ck_assert_mem_eq(of_a, of_b, sizeof of_a);
    ck_assert_mem_ne(of_a, of_c, sizeof of_a);
    bench_value_write(value_a, sizeof value_a, &a.random);
    bench_value_write(value_b, sizeof value_b, &b.random);
    ck_assert_mem_eq(value_a, value_b, sizeof value_a);
    bench_value_write(value_b, sizeof value_b, &b.random);
    ck_assert_mem_ne(value_a, value_b, sizeof value_a);
}
END_TEST

/* ---- bytes ---- */

START_TEST(keys_are_sixteen_bytes)
{
    uint8_t key[BENCH_KEY_LENGTH + 1];

    key[BENCH_KEY_LENGTH] = '#';
    bench_key_write(key, 0);
    ck_assert_mem_eq(key, "key:000000000000#", sizeof key);
    bench_key_write(key, 1234567);
    ck_assert_mem_eq(key, "key:000001234567#", sizeof key);
    bench_key_write(key, BENCH_MOST_KEYS - 1);
    ck_assert_mem_eq(key, "key:999999999999#", sizeof key);
}
END_TEST

START_TEST(values_are_half_random_and_nothing_that_json_escapes)
{
    struct bench_random random = bench_random_of(1, 0);
    unsigned seen[256] = {0};
    unsigned different = 0;

    for (size_t length = 0; length < 300; length++) {
        uint8_t *value = malloc(length + 1); /* a byte too many is for the sanitizer to find */

        ck_assert_ptr_nonnull(value);
        value[length] = '#';
        bench_value_write(value, length, &random);
        ck_assert_uint_eq(value[length], '#');
        for (size_t i = 0; i < length / 2; i++) {
            seen[value[i]]++;
        }
        for (size_t i = length / 2; i < length; i++) {
            ck_assert_uint_eq(value[i], 'x');
        }
        free(value);
    }
    for (int c = 0; c < 256; c++) {
        different += seen[c] > 0 ? 1 : 0;
        ck_assert(seen[c] == 0 || (c > ' ' && c < 127 && c != '"' && c != '\\'));
    }
    ck_assert_uint_eq(different, 64);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bench_keys");
    TCase *orders = tcase_create("orders");
    TCase *bytes = tcase_create("bytes");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(orders, uniform_keys_are_each_as_frequent);
    tcase_add_test(orders, zipf_has_the_frequencies_of_its_formula);
    tcase_add_test(orders, zipf_stays_within_its_keys);
    tcase_add_test(orders, the_sum_of_many_terms_is_near_the_exact_one);
    tcase_add_test(orders, scrambled_zipf_spreads_the_frequent_ones);
    tcase_add_test(orders, sequential_has_each_key_once_and_an_end);
    tcase_add_test(orders, a_seed_repeats_keys_and_values);
    tcase_add_test(bytes, keys_are_sixteen_bytes);
    tcase_add_test(bytes, values_are_half_random_and_nothing_that_json_escapes);
    suite_add_tcase(suite, orders);
    suite_add_tcase(suite, bytes);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
