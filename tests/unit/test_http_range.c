/* Ranges and tags of a file's bytes, as RFC 9110 has them. */
#include "http/conditions.h"
#include "http/range.h"

#include <check.h>

#include <stdlib.h>

#define TAG "\"550e8400-e29b-41d4-a716-446655440003\""

START_TEST(one_range_is_honoured)
{
    static const struct {
        const char *value;
        uint64_t first;
        uint64_t length;
    } cases[] = {
        {"bytes=0-0", 0, 1},
        {"bytes=0-99", 0, 100},
        {"bytes=0-100", 0, 100},
        {"bytes=10-19", 10, 10},
        {"bytes=99-", 99, 1},
        {"bytes=0-", 0, 100},
        {"bytes=-1", 99, 1},
        {"bytes=-100", 0, 100},
        {"bytes=-101", 0, 100},
        {"bytes=000-0000000000000000000000000001", 0, 2},
        {"bytes=5-99999999999999999999999999", 5, 95},
        {"bytes=-99999999999999999999999999", 0, 100},
        {"BYTES=1-2", 1, 2},
        {"bytes= 1-2\t", 1, 2},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct byte_range range = {0, 0};

        ck_assert_msg(nx_range_parse(nx_slice_text(cases[i].value), 100, &range) == RANGE_PART,
                      "%s", cases[i].value);
        ck_assert_msg(range.first == cases[i].first && range.length == cases[i].length, "%s",
                      cases[i].value);
    }
}
END_TEST

START_TEST(what_lies_behind_the_end_is_outside)
{
    static const char *const values[] = {
        "bytes=100-",
        "bytes=100-100",
        "bytes=-0",
        "bytes=18446744073709551615-",
        "bytes=99999999999999999999999999-",
        "bytes=99999999999999999999999998-99999999999999999999999999",
    };
    struct byte_range range;

    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        ck_assert_msg(nx_range_parse(nx_slice_text(values[i]), 100, &range) == RANGE_OUTSIDE, "%s",
                      values[i]);
    }
    ck_assert_int_eq(nx_range_parse(nx_slice_text("bytes=0-"), 0, &range), RANGE_OUTSIDE);
    ck_assert_int_eq(nx_range_parse(nx_slice_text("bytes=-1"), 0, &range), RANGE_OUTSIDE);
}
END_TEST

START_TEST(anything_else_is_the_whole)
{
    static const char *const values[] = {
        "",          "bytes",         "bytes=",     "bytes=-",    "bytes=5",
        "bytes=2-1", "bytes=0-1,3-4", "bytes=0-1,", "bytes=,0-1", "bytes=-1-",
        "bytes=--1", "bytes=+1-2",    "bytes=1 -2", "bytes=1- 2", "bytes=0x1-2",
        "bytes=a-b", "bytes =0-1",    "items=0-1",  "0-1",
    };

    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        struct byte_range range;

        ck_assert_msg(nx_range_parse(nx_slice_text(values[i]), 100, &range) == RANGE_WHOLE, "%s",
                      values[i]);
    }
}
END_TEST

START_TEST(a_tag_is_found_in_a_list)
{
    static const struct {
        const char *value;
        bool weak;
        bool listed;
    } cases[] = {
        {TAG, false, true},
        {TAG, true, true},
        {"*", false, true},
        {" * ", true, true},
        {"\"a\", " TAG, false, true},
        {"\"a,b\"," TAG ",\"c\"", false, true},
        {"W/" TAG, true, true},
        {"W/" TAG, false, false},
        {"w/" TAG, true, false},
        {"\"550e8400-e29b-41d4-a716-446655440004\"", true, false},
        {"550e8400-e29b-41d4-a716-446655440003", true, false},
        {"\"*\"", true, false},
        {"\"x, " TAG, true, false},
        {"", true, false},
        {",,", true, false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_msg(nx_tag_listed(nx_slice_text(cases[i].value), nx_slice_text(TAG),
                                    cases[i].weak) == cases[i].listed,
                      "%s", cases[i].value);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http_range");
    TCase *tcase = tcase_create("range");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(tcase, one_range_is_honoured);
    tcase_add_test(tcase, what_lies_behind_the_end_is_outside);
    tcase_add_test(tcase, anything_else_is_the_whole);
    tcase_add_test(tcase, a_tag_is_found_in_a_list);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
