/* The manifest and the epoch history: printed, read back, and refused where anything of them is wrong. */
#include "snapshot/manifest.h"

#include <check.h>

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ID      "550e8400-e29b-41d4-a716-446655440003"
#define CLUSTER "550e8400-e29b-41d4-a716-446655440000"
#define LARGEST (UINT64_MAX - 1) /* what is behind it, json-c takes for UINT64_MAX */

static struct nx_manifest manifest;
static const char *why;

static void setup(void)
{
    manifest = (struct nx_manifest){
        .id = ID,
        .cluster_id = CLUSTER,
        .created_at = 1700000000123,
        .position = {.epoch = 3, .offset = 1000, .crc = 0xdeadbeef},
        .records = 42,
    };
    why = "";
}

static void teardown(void)
{
    nx_manifest_free(&manifest);
}

static void same(const struct nx_manifest *a, const struct nx_manifest *b)
{
    ck_assert_str_eq(a->id, b->id);
    ck_assert_str_eq(a->cluster_id, b->cluster_id);
    ck_assert_uint_eq(a->created_at, b->created_at);
    ck_assert_uint_eq(a->position.epoch, b->position.epoch);
    ck_assert_uint_eq(a->position.offset, b->position.offset);
    ck_assert_uint_eq(a->position.crc, b->position.crc);
    ck_assert_uint_eq(a->records, b->records);
    ck_assert_uint_eq(a->file_count, b->file_count);
    for (size_t i = 0; i < a->file_count; i++) {
        ck_assert_uint_eq(a->files[i].size, b->files[i].size);
        ck_assert_uint_eq(a->files[i].crc, b->files[i].crc);
    }
}

static int parse(const char *text, size_t length)
{
    struct nx_manifest parsed;
    int rc = nx_manifest_parse(text, length, &parsed, &why);

    if (rc < 0) {
        ck_assert_ptr_null(parsed.files);
    }
    nx_manifest_free(&parsed);
    return rc;
}

static void refused(const char *text, const char *words)
{
    why = "";
    ck_assert_msg(parse(text, strlen(text)) == -EBADMSG, "taken: %s", text);
    ck_assert_msg(strstr(why, words) != NULL, "\"%s\" is not in \"%s\", of: %s", words, why, text);
}

/* ---- names ---- */

START_TEST(names_follow_from_places)
{
    static const struct {
        size_t n;
        size_t count;
        const char *name;
    } cases[] = {
        {0, 1, "epochs.json"},
        {0, 2, "kv/000000"},
        {1, 2, "epochs.json"},
        {123456, 200000, "kv/123456"},
        {NX_KV_MOST - 1, NX_KV_MOST + 1, "kv/999999"},
        {NX_KV_MOST, NX_KV_MOST + 1, "epochs.json"},
    };
    char name[NX_ARCHIVE_NAME_MAX];

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        nx_archive_file_name(cases[i].n, cases[i].count, name);
        ck_assert_str_eq(name, cases[i].name);
    }
}
END_TEST

/* ---- what is printed ---- */

/* _i files. */
START_TEST(what_is_printed_is_read_back)
{
    struct nx_manifest parsed;
    char *text;

    for (int i = 0; i < _i; i++) {
        ck_assert_int_eq(nx_manifest_add(&manifest, (uint64_t)i << 20, UINT32_MAX - (uint32_t)i),
                         0);
    }
    text = nx_manifest_print(&manifest);
    ck_assert_ptr_nonnull(text);
    ck_assert_int_eq(nx_manifest_parse(text, strlen(text), &parsed, &why), 0);
    same(&parsed, &manifest);
    nx_manifest_free(&parsed);
    free(text);
}
END_TEST

START_TEST(the_largest_numbers_are_read_back)
{
    struct nx_manifest parsed;
    char *text;

    manifest.created_at = LARGEST;
    manifest.position = (struct nx_position){LARGEST, LARGEST, UINT32_MAX};
    manifest.records = LARGEST;
    ck_assert_int_eq(nx_manifest_add(&manifest, LARGEST, UINT32_MAX), 0);
    text = nx_manifest_print(&manifest);
    ck_assert_int_eq(nx_manifest_parse(text, strlen(text), &parsed, &why), 0);
    same(&parsed, &manifest);
    nx_manifest_free(&parsed);
    free(text);
}
END_TEST

START_TEST(no_beginning_of_a_manifest_is_one)
{
    char *text;
    size_t length;

    ck_assert_int_eq(nx_manifest_add(&manifest, 1, 2), 0);
    text = nx_manifest_print(&manifest);
    length = strlen(text);
    for (size_t n = 0; n < length; n++) {
        char *exact = malloc(n + 1);

        memcpy(exact, text, n);
        ck_assert_int_eq(parse(exact, n), -EBADMSG);
        free(exact);
    }
    free(text);
}
END_TEST

START_TEST(a_manifest_is_freed_twice_without_harm)
{
    ck_assert_int_eq(nx_manifest_add(&manifest, 1, 2), 0);
    nx_manifest_free(&manifest);
    nx_manifest_free(&manifest);
    ck_assert_uint_eq(manifest.file_count, 0);
    ck_assert_int_eq(nx_manifest_add(&manifest, 3, 4), 0);
    ck_assert_uint_eq(manifest.files[0].size, 3);
}
END_TEST

/* ---- what is read of a text ---- */

#define FILE_0 "{\"name\":\"kv/000000\",\"size\":10,\"crc32\":11}"
#define FILE_1 "{\"name\":\"kv/000001\",\"size\":12,\"crc32\":13}"
#define EPOCHS "{\"name\":\"epochs.json\",\"size\":14,\"crc32\":15}"
#define FILES  "[" FILE_0 "," EPOCHS "]"

struct field {
    const char *name;
    const char *value;
};

static const struct field sound[] = {
    {"id", "\"" ID "\""}, {"format", "1"},     {"cluster_id", "\"" CLUSTER "\""},
    {"created_at", "5"},  {"wal_offset", "6"}, {"epoch", "7"},
    {"records", "9"},     {"wal_crc32", "8"},  {"files", FILES},
};

#define FIELDS (sizeof sound / sizeof sound[0])

/* The sound one, with another value at one field; NULL: without the field. */
static const char *text_with(const char *name, const char *value)
{
    static char text[4096];
    size_t at = 0;
    bool found = false;

    for (size_t i = 0; i < FIELDS; i++) {
        bool is = strcmp(sound[i].name, name) == 0;

        found = found || is;
        if (!is || value != NULL) {
            at += (size_t)snprintf(text + at, sizeof text - at, "%s\"%s\":%s", at == 0 ? "{" : ",",
                                   sound[i].name, is ? value : sound[i].value);
        }
    }
    if (!found && value != NULL) {
        at += (size_t)snprintf(text + at, sizeof text - at, ",\"%s\":%s", name, value);
    }
    (void)snprintf(text + at, sizeof text - at, "}");
    return text;
}

static void taken(const char *text)
{
    ck_assert_msg(parse(text, strlen(text)) == 0, "%s: %s", why, text);
}

START_TEST(a_field_that_is_needed_is_missed)
{
    taken(text_with("", NULL));
    for (size_t i = 0; i < FIELDS; i++) {
        if (strcmp(sound[i].name, "wal_crc32") != 0) {
            refused(text_with(sound[i].name, NULL), "");
        }
    }
}
END_TEST

/* Manifests of the first versions don't tell it. */
START_TEST(a_crc_that_is_not_told_is_0)
{
    const char *text = text_with("wal_crc32", NULL);
    struct nx_manifest parsed;

    ck_assert_int_eq(nx_manifest_parse(text, strlen(text), &parsed, &why), 0);
    ck_assert_uint_eq(parsed.position.offset, 6);
    ck_assert_uint_eq(parsed.position.epoch, 7);
    ck_assert_uint_eq(parsed.position.crc, 0);
    nx_manifest_free(&parsed);
}
END_TEST

START_TEST(a_field_that_nobody_knows_is_passed_over)
{
    taken(text_with("more", "{\"of\":[1,2,{\"it\":null}]}"));
    taken(text_with("more", "-1.5"));
}
END_TEST

static const struct {
    const char *name;
    const char *why;
} numbers[] = {
    {"format", "format is not 1"},          {"created_at", "missing or malformed"},
    {"wal_offset", "missing or malformed"}, {"epoch", "missing or malformed"},
    {"records", "missing or malformed"},
};

START_TEST(what_is_no_whole_number_is_refused)
{
    static const char *const values[] = {
        "-1",
        "1.0",
        "0.5",
        "1e0",
        "\"1\"",
        "\"\"",
        "null",
        "true",
        "[]",
        "[1]",
        "{}",
        "18446744073709551616",
        "100000000000000000000000000000",
        "-9223372036854775809",
        "NaN",
        "Infinity",
        "0x1",
        "01",
        "+1",
        "1 2",
        "",
    };

    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        refused(text_with(numbers[_i].name, values[i]), "");
    }
    refused(text_with(numbers[_i].name, "-1"), numbers[_i].why);
    refused(text_with(numbers[_i].name, "1.0"), numbers[_i].why);
}
END_TEST

START_TEST(another_format_is_refused)
{
    refused(text_with("format", "0"), "format is not 1");
    refused(text_with("format", "2"), "format is not 1");
    refused(text_with("format", "4294967297"), "format is not 1");
}
END_TEST

START_TEST(what_is_no_uuid_is_refused)
{
    static const char *const names[] = {"id", "cluster_id"};
    static const char *const values[] = {
        "\"\"",
        "null",
        "1",
        "[\"" ID "\"]",
        "\"550e8400-e29b-41d4-a716-44665544000\"",
        "\"" ID "0\"",
        "\"" ID "\\u0000\"",
        "\"550e8400-e29b-41d4-a716-44665544000g\"",
        "\"550e8400e29b-41d4-a716-4466554400030\"",
        "\"../../../../../../../../../etc/passwd\"",
        "\"550e8400-e29b-41d4-a716-4466554400\\u0000\\u0000\"",
    };

    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        refused(text_with(names[_i], values[i]), "missing or malformed");
    }
}
END_TEST

START_TEST(an_offset_needs_an_epoch)
{
    char text[4096];
    char *at;

    refused(text_with("epoch", "0"), "epoch is 0");
    (void)snprintf(text, sizeof text, "%s", text_with("epoch", "0"));
    at = strstr(text, "\"wal_offset\":6");
    ck_assert_ptr_nonnull(at);
    at[strlen("\"wal_offset\":")] = '0';
    taken(text);
}
END_TEST

/* ---- the list of files ---- */

START_TEST(the_list_of_files_is_read)
{
    static const char *const lists[] = {"[" EPOCHS "]", FILES,
                                        "[" FILE_0 "," FILE_1 "," EPOCHS "]"};
    struct nx_manifest parsed;

    for (size_t i = 0; i < 3; i++) {
        const char *text = text_with("files", lists[i]);

        ck_assert_int_eq(nx_manifest_parse(text, strlen(text), &parsed, &why), 0);
        ck_assert_uint_eq(parsed.file_count, i + 1);
        ck_assert_uint_eq(parsed.files[i].size, 14);
        ck_assert_uint_eq(parsed.files[i].crc, 15);
        ck_assert_uint_eq(parsed.files[0].size, i == 0 ? 14 : 10);
        nx_manifest_free(&parsed);
    }
}
END_TEST

#define ENTRY(name, size, crc) \
    "[{\"name\":" name ",\"size\":" size ",\"crc32\":" crc "}," EPOCHS "]"

static const char *const bad_lists[] = {
    "{}",
    "null",
    "\"kv/000000\"",
    "[[]]",
    "[null]",
    "[1," EPOCHS "]",
    "[" FILE_0 "]",                       /* no epochs.json */
    "[" EPOCHS "," FILE_0 "]",            /* it isn't last */
    "[" FILE_0 "," EPOCHS "," EPOCHS "]", /* twice */
    "[" FILE_1 "," EPOCHS "]",            /* begins with the second */
    "[" FILE_0 "," FILE_0 "," EPOCHS "]", /* twice */
    "[" FILE_1 "," FILE_0 "," EPOCHS "]", /* in another order */
    "[" FILE_0 "," EPOCHS ",{}]",
    "[" FILE_0 "," EPOCHS ",\"manifest.json\"]",
    ENTRY("\"kv/0\"", "1", "1"),
    ENTRY("\"/kv/000000\"", "1", "1"),
    ENTRY("\"../kv/000000\"", "1", "1"),
    ENTRY("\"kv/000000 \"", "1", "1"),
    ENTRY("\"kv/000000\\u0000x\"", "1", "1"),
    ENTRY("\"\"", "1", "1"),
    ENTRY("null", "1", "1"),
    ENTRY("0", "1", "1"),
    ENTRY("\"kv/000000\"", "-1", "1"),
    ENTRY("\"kv/000000\"", "1.0", "1"),
    ENTRY("\"kv/000000\"", "\"1\"", "1"),
    ENTRY("\"kv/000000\"", "null", "1"),
    ENTRY("\"kv/000000\"", "1", "-1"),
    ENTRY("\"kv/000000\"", "1", "1.5"),
    ENTRY("\"kv/000000\"", "1", "\"00000001\""),
    ENTRY("\"kv/000000\"", "1", "4294967296"),
    "[{\"size\":1,\"crc32\":1}," EPOCHS "]",
    "[{\"name\":\"kv/000000\",\"crc32\":1}," EPOCHS "]",
    "[{\"name\":\"kv/000000\",\"size\":1}," EPOCHS "]",
};

START_TEST(another_list_of_files_is_refused)
{
    refused(text_with("files", bad_lists[_i]), "files");
}
END_TEST

/* ---- the text itself ---- */

START_TEST(nothing_but_one_object_is_read)
{
    static const char *const texts[] = {
        "",     " ",        "null",     "1",           "\"x\"",          "[]",       "{", "}",
        "{}{}", "{\"id\"}", "{'id':1}", "{\"id\":1,}", "\xef\xbb\xbf{}", "// x\n{}",
    };

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        refused(texts[i], "");
    }
}
END_TEST

START_TEST(nothing_may_stand_behind_it)
{
    static const struct {
        const char *bytes;
        size_t length;
    } tails[] = {{"x", 1}, {"{}", 2}, {"}", 1}, {",", 1}, {"\0", 1}, {"\0x", 2}, {"\n\0\n", 3}};
    const char *text = text_with("", NULL);
    size_t length = strlen(text);
    char longer[4096];

    memcpy(longer, text, length);
    for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
        memcpy(longer + length, tails[i].bytes, tails[i].length);
        ck_assert_int_eq(parse(longer, length + tails[i].length), -EBADMSG);
        ck_assert_str_eq(why, "it is not one JSON object");
    }
    memcpy(longer + length, " \n", 2); /* an editor's */
    ck_assert_int_eq(parse(longer, length + 2), 0);
}
END_TEST

START_TEST(a_text_that_is_too_deep_is_refused)
{
    char value[200001];

    memset(value, '[', 100000);
    memset(value + 100000, ']', 100000);
    value[200000] = '\0';
    ck_assert_int_eq(parse(value, 200000), -EBADMSG);
    refused(text_with("more", "[[[[[[[[[[]]]]]]]]]]"), "not one JSON object");
}
END_TEST

START_TEST(what_is_no_utf_8_is_refused)
{
    refused(text_with("more", "\"\xff\""), "not one JSON object");
}
END_TEST

START_TEST(of_a_field_that_is_there_twice_the_last_counts)
{
    const char *text;
    struct nx_manifest parsed;
    char twice[4096];

    text = text_with("records", "9,\"records\":10");
    ck_assert_int_eq(nx_manifest_parse(text, strlen(text), &parsed, &why), 0);
    ck_assert_uint_eq(parsed.records, 10);
    nx_manifest_free(&parsed);
    (void)snprintf(twice, sizeof twice, "%s", text_with("records", "9,\"records\":-1"));
    refused(twice, "missing or malformed");
    (void)snprintf(twice, sizeof twice, "%s", text_with("files", FILES ",\"files\":{}"));
    refused(twice, "lists no files");
}
END_TEST

/* ---- epochs.json ---- */

static struct nx_epochs history;

static int check_epochs(const char *text, uint64_t epoch)
{
    struct nx_position position = {.epoch = epoch, .offset = 5};

    why = "";
    return nx_epochs_parse(text, strlen(text), &position, &history, &why);
}

START_TEST(the_epochs_printed_are_those_checked)
{
    static const uint64_t epochs[] = {0, 1, 3, LARGEST};

    for (size_t i = 0; i < 4; i++) {
        struct nx_position position = {.epoch = epochs[i], .offset = 5};
        static const struct nx_epochs none;
        char *text = nx_epochs_print(&position, &none);

        ck_assert_ptr_nonnull(text);
        ck_assert_int_eq(check_epochs(text, epochs[i]), 0);
        ck_assert_int_eq(check_epochs(text, epochs[i] - 1), -EBADMSG);
        free(text);
    }
}
END_TEST

START_TEST(the_last_epoch_counts)
{
    static const char text[] =
        "{\"epochs\":[{\"epoch\":1},{\"epoch\":9,\"more\":1},{\"epoch\":3}]}";

    ck_assert_int_eq(check_epochs(text, 3), 0);
    ck_assert_int_eq(check_epochs(text, 9), -EBADMSG);
    ck_assert_str_eq(why, "its last epoch is not the manifest's");
}
END_TEST

static const struct {
    const char *text;
    const char *why;
} bad_epochs[] = {
    {"", "not one JSON object"},
    {"[]", "not one JSON object"},
    {"{\"epochs\":[{\"epoch\":3}]}x", "not one JSON object"},
    {"{}", "no epochs"},
    {"{\"epochs\":{}}", "no epochs"},
    {"{\"epochs\":null}", "no epochs"},
    {"{\"epochs\":[]}", "no epochs"},
    {"{\"epochs\":[3]}", "last epoch"},
    {"{\"epochs\":[null]}", "last epoch"},
    {"{\"epochs\":[{\"epoch\":3},null]}", "last epoch"},
    {"{\"epochs\":[{\"epoch\":3},[]]}", "last epoch"},
    {"{\"epochs\":[{}]}", "last epoch"},
    {"{\"epochs\":[{\"epoch\":-3}]}", "last epoch"},
    {"{\"epochs\":[{\"epoch\":3.0}]}", "last epoch"},
    {"{\"epochs\":[{\"epoch\":\"3\"}]}", "last epoch"},
    {"{\"epochs\":[{\"epoch\":4}]}", "last epoch"},
};

START_TEST(other_epochs_are_refused)
{
    ck_assert_int_eq(check_epochs(bad_epochs[_i].text, 3), -EBADMSG);
    ck_assert_msg(strstr(why, bad_epochs[_i].why) != NULL, "%s: %s", why, bad_epochs[_i].text);
}
END_TEST

static void add_manifests(TCase *tcase)
{
    tcase_add_test(tcase, names_follow_from_places);
    tcase_add_loop_test(tcase, what_is_printed_is_read_back, 0, 70);
    tcase_add_test(tcase, the_largest_numbers_are_read_back);
    tcase_add_test(tcase, no_beginning_of_a_manifest_is_one);
    tcase_add_test(tcase, a_manifest_is_freed_twice_without_harm);
    tcase_add_test(tcase, a_field_that_is_needed_is_missed);
    tcase_add_test(tcase, a_crc_that_is_not_told_is_0);
    tcase_add_test(tcase, a_field_that_nobody_knows_is_passed_over);
    tcase_add_loop_test(tcase, what_is_no_whole_number_is_refused, 0,
                        (int)(sizeof numbers / sizeof numbers[0]));
    tcase_add_test(tcase, another_format_is_refused);
    tcase_add_loop_test(tcase, what_is_no_uuid_is_refused, 0, 2);
    tcase_add_test(tcase, an_offset_needs_an_epoch);
    tcase_add_test(tcase, the_list_of_files_is_read);
    tcase_add_loop_test(tcase, another_list_of_files_is_refused, 0,
                        (int)(sizeof bad_lists / sizeof bad_lists[0]));
    tcase_add_test(tcase, nothing_but_one_object_is_read);
    tcase_add_test(tcase, nothing_may_stand_behind_it);
    tcase_add_test(tcase, a_text_that_is_too_deep_is_refused);
    tcase_add_test(tcase, what_is_no_utf_8_is_refused);
    tcase_add_test(tcase, of_a_field_that_is_there_twice_the_last_counts);
}

int main(void)
{
    Suite *suite = suite_create("snapshot_manifest");
    TCase *manifests = tcase_create("manifests");
    TCase *epochs = tcase_create("epochs");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(manifests, setup, teardown);
    add_manifests(manifests);
    suite_add_tcase(suite, manifests);
    tcase_add_test(epochs, the_epochs_printed_are_those_checked);
    tcase_add_test(epochs, the_last_epoch_counts);
    tcase_add_loop_test(epochs, other_epochs_are_refused, 0,
                        (int)(sizeof bad_epochs / sizeof bad_epochs[0]));
    suite_add_tcase(suite, epochs);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
