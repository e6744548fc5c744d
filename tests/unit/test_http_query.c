/* Paths, queries, offsets and entity tags as clients write them. */
#include "http/conditions.h"
#include "http/query.h"

#include <check.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct query query;
static char message[NX_MESSAGE_SIZE];

static void teardown(void)
{
    nx_text_free(&query.bytes);
}

static int parse(const char *raw, const char *known)
{
    message[0] = '\0';
    return nx_query_parse(&query, nx_slice_text(raw), known, message);
}

static void assert_param(const char *name, const char *value)
{
    const struct nx_slice *found = nx_query_find(&query, name);

    ck_assert_ptr_nonnull(found);
    ck_assert_msg(nx_slice_equal(*found, nx_slice_text(value)), "%s is not %s", name, value);
}

/* ---- percent ---- */

static const struct {
    const char *raw;
    const char *decoded; /* NULL: refused */
    bool plus;
} percent_cases[] = {
    {"", "", false},
    {"plain", "plain", false},
    {"a%20b", "a b", false},
    {"a%2Fb", "a/b", false},
    {"a%2fb", "a/b", false},
    {"%25", "%", false},
    {"%2525", "%25", false},
    {"a+b", "a+b", false},
    {"a+b", "a b", true},
    {"%2B", "+", true},
    {"../x//y/.", "../x//y/.", false},
    {"%", NULL, false},
    {"%2", NULL, false},
    {"a%2", NULL, false},
    {"%zz", NULL, false},
    {"%2g", NULL, false},
    {"%%20", NULL, false},
    {"%+1", NULL, false},
    {"% 1", NULL, false},
};

START_TEST(percent_signs_are_decoded_once_or_refused)
{
    struct text out = {.data = NULL};
    int rc = nx_percent_decode(&out, nx_slice_text(percent_cases[_i].raw), percent_cases[_i].plus);

    if (percent_cases[_i].decoded == NULL) {
        ck_assert_int_eq(rc, -EINVAL);
        ck_assert_uint_eq(out.length, 0);
    } else {
        ck_assert_int_eq(rc, 0);
        ck_assert(nx_slice_equal(nx_slice_of(out.data, out.length),
                                 nx_slice_text(percent_cases[_i].decoded)));
    }
    nx_text_free(&out);
}
END_TEST

START_TEST(a_zero_byte_can_be_written)
{
    struct text out = {.data = NULL};

    ck_assert_int_eq(nx_percent_decode(&out, nx_slice_text("a%00b"), false), 0);
    ck_assert_uint_eq(out.length, 3);
    ck_assert_int_eq(memcmp(out.data, "a\0b", 3), 0);
    nx_text_free(&out);
}
END_TEST

/* ---- parameters ---- */

START_TEST(parameters_are_found_decoded)
{
    ck_assert_int_eq(parse("prefix=a%20b&limit=5&&end=", "prefix start end limit"), 0);
    ck_assert_uint_eq(query.count, 3);
    assert_param("prefix", "a b");
    assert_param("limit", "5");
    assert_param("end", "");
    ck_assert_ptr_null(nx_query_find(&query, "start"));
    ck_assert_int_eq(parse("keys_only", "keys_only"), 0);
    assert_param("keys_only", "");
    ck_assert_int_eq(parse("a=b=c", "a"), 0);
    assert_param("a", "b=c");
    ck_assert_int_eq(parse("", ""), 0);
}
END_TEST

START_TEST(an_unknown_parameter_is_refused_and_names_the_nearest)
{
    ck_assert_int_eq(parse("tll=60", "ttl"), -EINVAL);
    ck_assert_ptr_nonnull(strstr(message, "'tll'"));
    ck_assert_ptr_nonnull(strstr(message, "did you mean 'ttl'"));
    ck_assert_int_eq(parse("limt=60", "prefix start end limit cursor keys_only"), -EINVAL);
    ck_assert_ptr_nonnull(strstr(message, "did you mean 'limit'"));
    ck_assert_int_eq(parse("x=1", ""), -EINVAL);
    ck_assert_ptr_nonnull(strstr(message, "takes none"));
    ck_assert_int_eq(parse("Limit=1", "limit"), -EINVAL);
    ck_assert_int_eq(parse("=1", "limit"), -EINVAL);
    ck_assert_int_eq(parse("li=1", "limit"), -EINVAL);
    ck_assert_int_eq(parse("a=1", "a b"), 0);
    ck_assert_int_eq(parse("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=1", "a b"),
                     -EINVAL);
}
END_TEST

START_TEST(a_repeated_parameter_is_refused)
{
    ck_assert_int_eq(parse("limit=1&limit=1", "limit"), -EINVAL);
    ck_assert_ptr_nonnull(strstr(message, "twice"));
    ck_assert_int_eq(parse("limit=1&l%69mit=1", "limit"), -EINVAL);
}
END_TEST

START_TEST(a_bad_percent_sign_is_refused)
{
    ck_assert_int_eq(parse("prefix=%", "prefix"), -EINVAL);
    ck_assert_int_eq(parse("pre%fix=1", "prefix"), -EINVAL);
    ck_assert_ptr_nonnull(strstr(message, "%25"));
}
END_TEST

START_TEST(numbers_are_plain_and_within_bounds)
{
    static const char *const bad[] = {"limit=0",   "limit=11",   "limit=-1",
                                      "limit=+1",  "limit=1.",   "limit=",
                                      "limit=0x1", "limit=%201", "limit=99999999999999999999"};
    uint64_t value = 7;

    ck_assert_int_eq(parse("limit=10", "limit"), 0);
    ck_assert_int_eq(nx_query_u64(&query, "limit", 1, 10, &value, message), 0);
    ck_assert_uint_eq(value, 10);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        value = 7;
        ck_assert_int_eq(parse(bad[i], "limit"), 0);
        ck_assert_msg(nx_query_u64(&query, "limit", 1, 10, &value, message) == -EINVAL, "%s",
                      bad[i]);
        ck_assert_uint_eq(value, 7);
        ck_assert_ptr_nonnull(strstr(message, "limit"));
    }
    ck_assert_int_eq(parse("", "limit"), 0);
    ck_assert_int_eq(nx_query_u64(&query, "limit", 1, 10, &value, message), 0);
    ck_assert_uint_eq(value, 7);
}
END_TEST

START_TEST(booleans_have_four_spellings)
{
    bool value = false;

    ck_assert_int_eq(parse("a=1&b=true&c=0&d=false&e=yes&f=", "a b c d e f"), 0);
    ck_assert_int_eq(nx_query_bool(&query, "a", &value, message), 0);
    ck_assert(value);
    ck_assert_int_eq(nx_query_bool(&query, "c", &value, message), 0);
    ck_assert(!value);
    ck_assert_int_eq(nx_query_bool(&query, "b", &value, message), 0);
    ck_assert(value);
    ck_assert_int_eq(nx_query_bool(&query, "d", &value, message), 0);
    ck_assert(!value);
    ck_assert_int_eq(nx_query_bool(&query, "e", &value, message), -EINVAL);
    ck_assert_int_eq(nx_query_bool(&query, "f", &value, message), -EINVAL);
}
END_TEST

/* ---- offsets and tags ---- */

START_TEST(offsets_may_carry_their_epoch)
{
    static const char *const bad[] = {"",
                                      "@",
                                      "1@",
                                      "@1",
                                      "-1",
                                      "1@0",
                                      "1@1@1",
                                      "x",
                                      " 1",
                                      "18446744073709551616",
                                      "1@18446744073709551616"};
    struct client_offset offset = {9, 9};

    ck_assert_int_eq(nx_client_offset_parse(nx_slice_text("12"), &offset), 0);
    ck_assert_uint_eq(offset.offset, 12);
    ck_assert_uint_eq(offset.epoch, 0);
    ck_assert_int_eq(nx_client_offset_parse(nx_slice_text("12@3"), &offset), 0);
    ck_assert_uint_eq(offset.offset, 12);
    ck_assert_uint_eq(offset.epoch, 3);
    ck_assert_int_eq(nx_client_offset_parse(nx_slice_text("18446744073709551615"), &offset), 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_msg(nx_client_offset_parse(nx_slice_text(bad[i]), &offset) == -EINVAL, "%s",
                      bad[i]);
    }
}
END_TEST

static const struct {
    const char *text;
    int rc;
    bool any;
    uint32_t count;
    uint64_t first;
} tag_cases[] = {
    {"\"5\"", 0, false, 1, 5},
    {"5", 0, false, 1, 5},
    {" \"5\" ", 0, false, 1, 5},
    {"W/\"5\"", 0, false, 1, 5},
    {"\"5@2\"", 0, false, 1, 5},
    {"5@2", 0, false, 1, 5},
    {"\"5\", \"6\",7", 0, false, 3, 5},
    {",\"5\",,", 0, false, 1, 5},
    {"*", 0, true, 0, 0},
    {"\"0\"", 0, false, 1, 0},
    {"\"abc\"", 0, false, 1, NX_TAG_FOREIGN},
    {"\"a,b\"", 0, false, 1, NX_TAG_FOREIGN},
    {"", -EINVAL, false, 0, 0},
    {",", -EINVAL, false, 0, 0},
    {"abc", -EINVAL, false, 0, 0},
    {"\"*\"", -EINVAL, false, 0, 0}, /* a slip for * */
    {"\"5", -EINVAL, false, 0, 0},
    {"\"5\"6\"", -EINVAL, false, 0, 0},
    {"5, *", -EINVAL, false, 0, 0},
    {"-5", -EINVAL, false, 0, 0},
};

START_TEST(tags_are_read_as_clients_write_them)
{
    struct tag_list list = {.any = false};

    ck_assert_msg(nx_tags_parse(nx_slice_text(tag_cases[_i].text), &list) == tag_cases[_i].rc, "%s",
                  tag_cases[_i].text);
    if (tag_cases[_i].rc == 0) {
        ck_assert_int_eq(list.any, tag_cases[_i].any);
        ck_assert_uint_eq(list.count, tag_cases[_i].count);
        ck_assert(list.any || list.tags[0].offset == tag_cases[_i].first);
    }
}
END_TEST

START_TEST(a_list_has_a_bound)
{
    char text[2 * (NX_MAX_TAGS + 1)];
    struct tag_list list;

    for (size_t i = 0; i < sizeof text; i += 2) {
        text[i] = '5';
        text[i + 1] = ',';
    }
    ck_assert_int_eq(nx_tags_parse(nx_slice_of(text, sizeof text - 2), &list), 0);
    ck_assert_int_eq(nx_tags_parse(nx_slice_of(text, sizeof text), &list), -E2BIG);
}
END_TEST

START_TEST(a_star_means_any_version_but_absence)
{
    struct tag_list list;

    ck_assert_int_eq(nx_tags_parse(nx_slice_text("*"), &list), 0);
    ck_assert(nx_tags_match(&list, 1));
    ck_assert(!nx_tags_match(&list, 0));
    ck_assert_int_eq(nx_tags_parse(nx_slice_text("0, 7"), &list), 0);
    ck_assert(nx_tags_match(&list, 0));
    ck_assert(nx_tags_match(&list, 7));
    ck_assert(!nx_tags_match(&list, 1));
}
END_TEST

static enum nx_condition_kind kind_of(const char *text, bool none_match)
{
    struct text out = {.data = NULL};
    struct nx_condition condition;
    struct tag_list list;
    const uint8_t *at;
    size_t left;

    ck_assert_int_eq(nx_tags_parse(nx_slice_text(text), &list), 0);
    ck_assert(nx_tags_condition(&out, nx_slice_text("key"), &list, none_match));
    at = out.data;
    left = out.length;
    ck_assert_int_eq(nx_condition_decode(&at, &left, &condition), 0);
    ck_assert_uint_eq(left, 0);
    ck_assert(
        nx_slice_equal(nx_slice_of(condition.key, condition.key_length), nx_slice_text("key")));
    ck_assert_uint_eq(condition.version_count, list.count);
    ck_assert(list.count < 2 || nx_load_u64(condition.versions + 8) == list.tags[1].offset);
    nx_text_free(&out);
    return condition.kind;
}

START_TEST(tags_become_conditions)
{
    ck_assert_int_eq(kind_of("\"5\", \"6\"", false), NX_CONDITION_ANY_OF);
    ck_assert_int_eq(kind_of("\"5\", \"6\"", true), NX_CONDITION_NONE_OF);
    ck_assert_int_eq(kind_of("*", false), NX_CONDITION_EXISTS);
    ck_assert_int_eq(kind_of("*", true), NX_CONDITION_ABSENT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http query");
    TCase *queries = tcase_create("queries");
    TCase *tags = tcase_create("tags");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(queries, NULL, teardown);
    tcase_add_loop_test(queries, percent_signs_are_decoded_once_or_refused, 0,
                        (int)(sizeof percent_cases / sizeof *percent_cases));
    tcase_add_test(queries, a_zero_byte_can_be_written);
    tcase_add_test(queries, parameters_are_found_decoded);
    tcase_add_test(queries, an_unknown_parameter_is_refused_and_names_the_nearest);
    tcase_add_test(queries, a_repeated_parameter_is_refused);
    tcase_add_test(queries, a_bad_percent_sign_is_refused);
    tcase_add_test(queries, numbers_are_plain_and_within_bounds);
    tcase_add_test(queries, booleans_have_four_spellings);
    suite_add_tcase(suite, queries);
    tcase_add_test(tags, offsets_may_carry_their_epoch);
    tcase_add_loop_test(tags, tags_are_read_as_clients_write_them, 0,
                        (int)(sizeof tag_cases / sizeof *tag_cases));
    tcase_add_test(tags, a_list_has_a_bound);
    tcase_add_test(tags, a_star_means_any_version_but_absence);
    tcase_add_test(tags, tags_become_conditions);
    suite_add_tcase(suite, tags);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
