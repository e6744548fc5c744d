/* Numbers as people write them: units, the end of 64 bits, what is no number; and how they are written
 * back. */
#include "common/units.h"

#include <check.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

typedef int parser(const char *text, uint64_t *ret_value);

static const struct {
    parser *parse;
    const char *text;
    int rc;
    uint64_t value;
} cases[] = {
    {nx_parse_count, "0", 0, 0},
    {nx_parse_count, "18446744073709551615", 0, UINT64_MAX},
    {nx_parse_count, "18446744073709551616", -ERANGE, 0},
    {nx_parse_count, "99999999999999999999", -ERANGE, 0},
    {nx_parse_count, "1kB", -EINVAL, 0},
    {nx_parse_count, " 1", -EINVAL, 0},
    {nx_parse_count, "1\n", -EINVAL, 0},
    {nx_parse_count, "-1", -EINVAL, 0},
    {nx_parse_count, "", -EINVAL, 0},
    {nx_parse_size, "64MiB", 0, (uint64_t)64 << 20},
    {nx_parse_size, "10 gb", 0, (uint64_t)10 << 30},
    {nx_parse_size, "16777215TiB", 0, (uint64_t)16777215 << 40},
    {nx_parse_size, "16777216TiB", -ERANGE, 0}, /* 2^64 */
    {nx_parse_size, "1Mi", -EINVAL, 0},
    {nx_parse_size, "MiB", -EINVAL, 0},
    {nx_parse_ms, "1d", 0, 86400000},
    {nx_parse_ms, "18446744073709552s", -ERANGE, 0},
    {nx_parse_ms, "1m", -EINVAL, 0},
    {nx_parse_seconds, "90", 0, 90},
    {nx_parse_seconds, "2 min", 0, 120},
    {nx_parse_seconds, "3000ms", 0, 3},
    {nx_parse_seconds, "1ms", -EINVAL, 0},
    {nx_parse_seconds, "18446744073709551", 0, 18446744073709551},
    {nx_parse_seconds, "18446744073709552", -ERANGE, 0}, /* counted in milliseconds */
};

START_TEST(numbers_and_units)
{
    uint64_t value = 42;
    int rc = cases[_i].parse(cases[_i].text, &value);

    ck_assert_msg(rc == cases[_i].rc, "\"%s\": %d", cases[_i].text, rc);
    ck_assert_uint_eq(value, rc == 0 ? cases[_i].value : 42);
}
END_TEST

START_TEST(written_in_the_largest_unit_that_loses_nothing)
{
    static const struct {
        uint64_t value;
        const char *size;
        const char *seconds;
    } written[] = {
        {0, "0", "0"},
        {1, "1", "1s"},
        {60, "60", "1min"},
        {3600, "3600", "1h"},
        {3601, "3601", "3601s"},
        {1024, "1kiB", "1024s"},
        {8388608, "8MiB", "8388608s"},
        {UINT64_MAX - 0x3FF, "18014398509481983kiB", NULL},
        {UINT64_MAX, "18446744073709551615", NULL},
    };
    char text[32];
    uint64_t back;

    for (size_t i = 0; i < sizeof written / sizeof written[0]; i++) {
        ck_assert_uint_eq(nx_format_size(written[i].value, text, sizeof text), strlen(text));
        ck_assert_str_eq(text, written[i].size);
        ck_assert_int_eq(nx_parse_size(text, &back), 0);
        ck_assert_uint_eq(back, written[i].value);
        if (written[i].seconds != NULL) {
            ck_assert_uint_eq(nx_format_seconds(written[i].value, text, sizeof text), strlen(text));
            ck_assert_str_eq(text, written[i].seconds);
            ck_assert_int_eq(nx_parse_seconds(text, &back), 0);
            ck_assert_uint_eq(back, written[i].value);
        }
    }
    ck_assert_uint_eq(nx_format_size(8388608, text, 3), 4); /* cut, and says so */
    ck_assert_str_eq(text, "8M");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("units");
    TCase *tcase = tcase_create("units");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_loop_test(tcase, numbers_and_units, 0, (int)(sizeof cases / sizeof cases[0]));
    tcase_add_test(tcase, written_in_the_largest_unit_that_loses_nothing);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
