/* JSON in both directions, and base64: what is refused, and that what goes out comes back the same. */
#include "common/base64.h"
#include "common/json_out.h"
#include "common/log_clock.h"
#include "http/json_in.h"
#include "http/json_plain.h"
#include "http/json_scan.h"

#include <check.h>
#include <json-c/json.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct text out;
static struct json_tokener *tokener;
static struct json_put item;
static struct json_fault fault;

static void setup(void)
{
    tokener = nx_json_tokener();
    ck_assert_ptr_nonnull(tokener);
}

static void teardown(void)
{
    json_tokener_free(tokener);
    nx_text_free(&out);
    nx_json_put_free(&item);
}

static void assert_out(const char *expected)
{
    nx_text_add(&out, "", 1);
    ck_assert_str_eq((const char *)out.data, expected);
    out.length = 0;
}

/* ---- base64 ---- */

static const struct {
    const char *bytes;
    const char *plain;
    const char *url;
} base64_cases[] = {
    {"", "", ""},
    {"f", "Zg==", "Zg"},
    {"fo", "Zm8=", "Zm8"},
    {"foo", "Zm9v", "Zm9v"},
    {"foob", "Zm9vYg==", "Zm9vYg"},
    {"\xfb\xff\xfe", "+//+", "-__-"},
};

START_TEST(base64_is_that_of_the_standard)
{
    struct nx_slice bytes = nx_slice_text(base64_cases[_i].bytes);
    const char *plain = base64_cases[_i].plain;
    const char *url = base64_cases[_i].url;

    nx_base64_encode(&out, bytes.data, bytes.length, BASE64_PLAIN);
    assert_out(plain);
    nx_base64_encode(&out, bytes.data, bytes.length, BASE64_URL);
    assert_out(url);
    ck_assert_int_eq(nx_base64_decode(&out, plain, strlen(plain), BASE64_PLAIN), 0);
    ck_assert(nx_slice_equal(nx_slice_of(out.data, out.length), bytes));
    out.length = 0;
    ck_assert_int_eq(nx_base64_decode(&out, url, strlen(url), BASE64_URL), 0);
    ck_assert(nx_slice_equal(nx_slice_of(out.data, out.length), bytes));
}
END_TEST

START_TEST(base64_refuses_what_isnt)
{
    static const char *const bad[] = {"Z",    "Zg=",  "Zg===", "Z===",     "Zm9v=", "Zm9v====", "=",
                                      "Zh==", "Zm9=", "Z g=",  "Zg==Zg==", "-_-_",  "Zm8=\n"};

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_msg(nx_base64_decode(&out, bad[i], strlen(bad[i]), BASE64_PLAIN) == -EINVAL, "%s",
                      bad[i]);
        ck_assert_uint_eq(out.length, 0);
    }
}
END_TEST

/* ---- out ---- */

START_TEST(members_and_elements_have_their_commas)
{
    struct json json = nx_json_of(&out);

    nx_json_open(&json, NULL, '{');
    nx_json_u64(&json, "a", UINT64_MAX);
    nx_json_open(&json, "b", '[');
    nx_json_i64(&json, NULL, -5);
    nx_json_open(&json, NULL, '{');
    nx_json_close(&json, '}');
    nx_json_bool(&json, NULL, true);
    nx_json_null(&json, NULL);
    nx_json_close(&json, ']');
    nx_json_string(&json, "c", "d");
    nx_json_thousandths(&json, "e", 1500);
    nx_json_thousandths(&json, "f", 2000);
    nx_json_thousandths(&json, "g", 1);
    nx_json_close(&json, '}');
    assert_out("{\"a\":18446744073709551615,\"b\":[-5,{},true,null],\"c\":\"d\",\"e\":1.5,\"f\":2,"
               "\"g\":0.001}");
}
END_TEST

START_TEST(strings_are_escaped)
{
    struct json json = nx_json_of(&out);

    nx_json_bytes(&json, "k", nx_slice_of("a\"\\\b\f\n\r\t\0\x1f\x7f/\xc3\xa4", 14));
    assert_out("\"k\":\"a\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f\x7f/\xc3\xa4\"");
    json = nx_json_of(&out);
    nx_json_bytes(&json, "k", nx_slice_of("\xff", 1));
    assert_out("\"k_base64\":\"/w==\"");
    json = nx_json_of(&out);
    nx_json_bytes(&json, "k", nx_slice_of(NULL, 0));
    assert_out("\"k\":\"\"");
}
END_TEST

static const struct {
    const char *bytes;
    bool valid;
} utf8_cases[] = {
    {"plain ascii of more than eight bytes", true},
    {"\xc3\xa4", true},
    {"\xe2\x82\xac", true},
    {"\xf0\x9f\x98\x80", true},
    {"\xed\x9f\xbf", true},
    {"\xf4\x8f\xbf\xbf", true},
    {"12345678\xc3\xa4", true},
    {"\xc3", false},
    {"\xc0\xaf", false},
    {"\xc1\xbf", false},
    {"\xe0\x9f\xbf", false},
    {"\xed\xa0\x80", false},
    {"\xf0\x8f\xbf\xbf", false},
    {"\xf4\x90\x80\x80", false},
    {"\xf5\x80\x80\x80", false},
    {"\x80", false},
    {"\xe2\x82", false},
    {"1234567\xff", false},
    {"12345678\xff", false},
    {"\xc3(", false},
};

START_TEST(utf8_is_judged_by_the_standard)
{
    ck_assert_msg(nx_utf8_valid(nx_slice_text(utf8_cases[_i].bytes)) == utf8_cases[_i].valid,
                  "case %d", _i);
}
END_TEST

/* ---- in ---- */

static const char *const good_texts[] = {
    "{}",
    " {\"a\": 1} ",
    "{\"a\":\"\\u00e4\\ud83d\\ude00\\\"\\\\\\/\\b\\f\\n\\r\\t\"}",
    "{\"a\":{\"b\":1},\"b\":{\"a\":1}}",
    "{\"a\":[{\"b\":1},{\"b\":2}]}",
    "{\"a\":\"\xc3\xa4\",\"b\":-1.5e3,\"c\":null,\"d\":true}",
    "{\"a\":\"x\",\"b\":\"a\"}",
};

static const char *const bad_texts[] = {
    "",
    "   ",
    "[]",
    "1",
    "null",
    "\"a\"",
    "{",
    "}",
    "{}}",
    "{} {}",
    "{}x",
    "{\"a\" 1}",
    "{\"a\":}",
    "{a:1}",
    "{'a':1}",
    "{\"a\":'b'}",
    "{\"a\":True}",
    "{\"a\":NaN}",
    "{\"a\":-Infinity}",
    "{\"a\":+1}",
    "{\"a\":nullx}",
    "{\"a\":01}",
    "{\"a\":1 /* c */}",
    "{\"a\":\"b}",
    "{\"a\":\"\\x\"}",
    "{\"a\":\"\\u12\"}",
    "{\"a\":\"\\u12g4\"}",
    "{\"a\":\"\\ud800\"}",
    "{\"a\":\"\\udc00\"}",
    "{\"a\":\"\\ud800\\u0041\"}",
    "{\"a\":\"\\ud800\\ud800\"}",
    "{\"a\":\"\x01\"}",
    "{\"a\":\"\n\"}",
    "{\"a\":\"\xff\"}",
    "{\"a\":1,\"a\":2}",
    "{\"b\":{\"a\":1,\"c\":{},\"a\":2}}",
    "{\"\\u0061\":1}",
    "{\"a\":[[[[[[[[[]]]]]]]]]}",
    "{\"a\":1]",
};

START_TEST(good_texts_are_parsed)
{
    struct json_object *object = NULL;

    ck_assert_msg(nx_json_parse(tokener, nx_slice_text(good_texts[_i]), &object, &fault) == 0,
                  "%s: %s", good_texts[_i], fault.message);
    ck_assert(json_object_is_type(object, json_type_object));
    json_object_put(object);
}
END_TEST

START_TEST(bad_texts_are_refused_with_a_sentence)
{
    struct json_object *object = NULL;

    fault.message[0] = '\0';
    ck_assert_msg(nx_json_parse(tokener, nx_slice_text(bad_texts[_i]), &object, &fault) == -EINVAL,
                  "%s", bad_texts[_i]);
    ck_assert_int_eq(fault.code, NX_ERROR_BAD_JSON);
    ck_assert_str_ne(fault.message, "");
    ck_assert_ptr_null(object);
    /* A refusal leaves nothing behind that the next text trips over. */
    ck_assert_int_eq(nx_json_parse(tokener, nx_slice_text("{}"), &object, &fault), 0);
    json_object_put(object);
}
END_TEST

START_TEST(an_object_has_a_bound_of_members)
{
    char text[512] = "{";
    size_t at = 1;

    for (int i = 0; i <= NX_JSON_MAX_MEMBERS; i++) {
        at += (size_t)snprintf(text + at, sizeof text - at, "\"m%d\":1,", i);
    }
    text[at - 1] = '}';
    ck_assert_int_eq(nx_json_scan(nx_slice_text(text), fault.message), -EINVAL);
}
END_TEST

/* "{"a":[" + item... + "]}" */
static int scan_many(const char *element, size_t count)
{
    size_t length = strlen(element);
    char *text = malloc(count * (length + 1) + 16);
    size_t at = (size_t)sprintf(text, "{\"a\":[");

    for (size_t i = 0; i < count; i++) {
        memcpy(text + at, element, length);
        at += length;
        text[at++] = ',';
    }
    at -= count > 0 ? 1 : 0;
    memcpy(text + at, "]}", 2);
    int rc = nx_json_scan(nx_slice_of(text, at + 2), fault.message);

    free(text);
    return rc;
}

START_TEST(what_json_takes_has_a_bound)
{
    ck_assert_int_eq(scan_many("{\"put\":{\"key\":\"a\",\"value\":\"b\",\"ttl\":1}}", NX_MAX_OPS),
                     0);
    ck_assert_int_eq(scan_many("{}", (size_t)NX_JSON_MAX_NODES - 2), 0);
    ck_assert_int_eq(scan_many("{}", (size_t)NX_JSON_MAX_NODES - 1), -E2BIG);
    ck_assert_int_eq(scan_many("[]", (size_t)NX_JSON_MAX_NODES - 1), -E2BIG);
    ck_assert_int_eq(scan_many("0", (size_t)NX_JSON_MAX_VALUES - 1), 0);
    ck_assert_int_eq(scan_many("0", (size_t)NX_JSON_MAX_VALUES), -E2BIG);
    ck_assert_int_eq(scan_many("\"\"", (size_t)NX_JSON_MAX_VALUES), -E2BIG);
    ck_assert_ptr_nonnull(strstr(fault.message, "10000 operations"));
}
END_TEST

static int read_put(const char *text, size_t max_value)
{
    struct json_object *object = NULL;
    int rc;

    ck_assert_int_eq(nx_json_parse(tokener, nx_slice_text(text), &object, &fault), 0);
    rc = nx_json_put_of(object, "Line 7", max_value, &item, &fault);
    if (rc == 0) {
        /* The slices may point into the object. */
        out.length = 0;
        nx_text_add(&out, item.key.data, item.key.length);
        nx_text_add(&out, "=", 1);
        nx_text_add(&out, item.value.data, item.value.length);
    }
    json_object_put(object);
    return rc;
}

START_TEST(a_put_has_key_and_value_in_either_form)
{
    ck_assert_int_eq(read_put("{\"key\":\"k\",\"value\":\"v\"}", 10), 0);
    assert_out("k=v");
    ck_assert_int_eq(read_put("{\"key_base64\":\"Zg==\",\"value_base64\":\"Zm8\"}", 10), 0);
    assert_out("f=fo");
    ck_assert_int_eq(read_put("{\"value\":\"\",\"key\":\"\\u0000\"}", 10), 0);
    ck_assert_uint_eq(out.length, 2);
    ck_assert_int_eq(memcmp(out.data, "\0=", 2), 0);
}
END_TEST

static const struct {
    const char *text;
    enum nx_error code;
} bad_puts[] = {
    {"{\"value\":\"v\"}", NX_ERROR_BAD_JSON},
    {"{\"key\":\"k\"}", NX_ERROR_BAD_JSON},
    {"{\"key\":1,\"value\":\"v\"}", NX_ERROR_BAD_JSON},
    {"{\"key\":\"k\",\"value\":null}", NX_ERROR_BAD_JSON},
    {"{\"key\":\"k\",\"key_base64\":\"Zg==\",\"value\":\"v\"}", NX_ERROR_BAD_JSON},
    {"{\"key\":\"k\",\"value\":\"v\",\"value_base64\":\"Zg==\"}", NX_ERROR_BAD_JSON},
    {"{\"key\":\"k\",\"value_base64\":\"Z\"}", NX_ERROR_BAD_JSON},
    {"{\"key\":\"k\",\"value\":\"v\",\"vaule\":\"v\"}", NX_ERROR_BAD_JSON},
    {"{\"key\":\"\",\"value\":\"v\"}", NX_ERROR_BAD_KEY},
    {"{\"key\":\"k\",\"value\":\"12345678901\"}", NX_ERROR_VALUE_TOO_LARGE},
    {"{\"key\":\"k\",\"value\":\"v\",\"ttl\":5,\"expires_at\":5}", NX_ERROR_BAD_JSON},
};

START_TEST(a_bad_put_is_refused_with_its_place)
{
    ck_assert_msg(read_put(bad_puts[_i].text, 10) == -EINVAL, "%s", bad_puts[_i].text);
    ck_assert_int_eq(fault.code, bad_puts[_i].code);
    ck_assert_ptr_nonnull(strstr(fault.message, "Line 7"));
}
END_TEST

/* ---- expiry ---- */

static const struct {
    const char *member;
    uint64_t ttl_s;
    uint64_t expires_at;
} good_expiries[] = {
    {"\"ttl\":1", 1, 0},
    {"\"ttl\":3153600000", 3153600000, 0},
    {"\"expires_at\":1", 0, 1},
    {"\"expires_at\":1732900000123", 0, 1732900000123},
    {"\"expires_at\":253402300799999", 0, 253402300799999},
    {"\"key_base64\":\"Zg==\"", 0, 0},
};

START_TEST(a_put_has_a_ttl_or_a_moment)
{
    bool named = strstr(good_expiries[_i].member, "key") != NULL;
    char text[200];

    snprintf(text, sizeof text, "{%s\"value\":\"v\",%s}", named ? "" : "\"key\":\"k\",",
             good_expiries[_i].member);
    /* Nothing is left of a put that was read before. */
    item.ttl_s = 7;
    item.expires_at = 7;
    ck_assert_msg(read_put(text, 10) == 0, "%s: %s", text, fault.message);
    ck_assert_uint_eq(item.ttl_s, good_expiries[_i].ttl_s);
    ck_assert_uint_eq(item.expires_at, good_expiries[_i].expires_at);
}
END_TEST

START_TEST(a_ttl_is_a_whole_number_of_seconds)
{
    static const char *const bad[] = {"0",   "-1", "1.0", "1e3", "\"5\"",      "null",   "true",
                                      "[1]", "{}", "0.5", "-0",  "3153600001", "-1e400", "1e400"};
    char text[200];

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "{\"key\":\"k\",\"value\":\"v\",\"ttl\":%s}", bad[i]);
        ck_assert_msg(read_put(text, 10) == -EINVAL, "%s", text);
        ck_assert_int_eq(fault.code, NX_ERROR_BAD_JSON);
        ck_assert_msg(strstr(fault.message, "Line 7: \"ttl\" must be a whole number") != NULL, "%s",
                      fault.message);
    }
}
END_TEST

/* One beyond 64 bits is never stored as another one. */
START_TEST(a_moment_is_a_whole_number_of_milliseconds)
{
    static const char *const bad[] = {
        "0",
        "-1732900000123",
        "1732900000.5",
        "1.7329e12",
        "null",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "\"2026\"",
        "false",
        "99999999999999999999999999999999",
    };
    char text[200];

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "{\"key\":\"k\",\"value\":\"v\",\"expires_at\":%s}", bad[i]);
        ck_assert_msg(read_put(text, 10) == -EINVAL, "%s", text);
        ck_assert_int_eq(fault.code, NX_ERROR_BAD_JSON);
        ck_assert_msg(strstr(fault.message, "Line 7: \"expires_at\" must be") != NULL, "%s",
                      fault.message);
    }
}
END_TEST

START_TEST(a_put_expires_as_it_says)
{
    static struct nx_shm shm; /* its log clock has not begun: the wall clock */
    uint64_t now;
    struct nx_op op;

    ck_assert_int_eq(read_put("{\"key\":\"k\",\"value\":\"v\"}", 10), 0);
    op = nx_json_put_op(&item, &shm);
    ck_assert_uint_eq(op.kind, NX_OP_PUT);
    ck_assert_uint_eq(op.flags, 0);
    ck_assert_uint_eq(op.expires_at, 0);

    ck_assert_int_eq(read_put("{\"key\":\"k\",\"value\":\"v\",\"expires_at\":5}", 10), 0);
    op = nx_json_put_op(&item, &shm);
    ck_assert_uint_eq(op.flags, NX_OP_HAS_EXPIRY);
    ck_assert_uint_eq(op.expires_at, 5);

    ck_assert_int_eq(read_put("{\"key\":\"k\",\"value\":\"v\",\"ttl\":60}", 10), 0);
    now = nx_log_clock_ms(&shm);
    op = nx_json_put_op(&item, &shm);
    ck_assert_uint_eq(op.flags, NX_OP_HAS_EXPIRY);
    ck_assert_uint_ge(op.expires_at, now + 60000);
    ck_assert_uint_le(op.expires_at, nx_log_clock_ms(&shm) + 60000);
}
END_TEST

START_TEST(keys_have_up_to_511_bytes)
{
    char key[513];
    char text[600];

    memset(key, 'k', 512);
    key[512] = '\0';
    snprintf(text, sizeof text, "{\"key\":\"%s\",\"value\":\"\"}", key);
    ck_assert_int_eq(read_put(text, 10), -EINVAL);
    ck_assert_int_eq(fault.code, NX_ERROR_BAD_KEY);
    key[511] = '\0';
    snprintf(text, sizeof text, "{\"key\":\"%s\",\"value\":\"\"}", key);
    ck_assert_int_eq(read_put(text, 10), 0);
}
END_TEST

static const struct {
    const char *text;
    const char *key; /* NULL: not plain */
    const char *value;
} plain_cases[] = {
    {"{\"key\":\"k\",\"value\":\"v\"}", "k", "v"},
    {" { \"key\" : \"k\" ,\t\"value\" : \"\" } ", "k", ""},
    {"{\"value\":\"v\",\"key\":\"k\"}", "k", "v"},
    {"{\"key\":\"grün\",\"value\":\"a longer one: €, 0123456789 abcdefgh\"}", "grün",
     "a longer one: €, 0123456789 abcdefgh"},
    {"{\"key\":\"k\x7f\",\"value\":\"{}[],:\"}", "k\x7f", "{}[],:"},
    {"", NULL, NULL},
    {"{}", NULL, NULL},
    {"{\"key\":\"k\"}", NULL, NULL},
    {"{\"key\":\"\",\"value\":\"v\"}", NULL, NULL},
    {"{\"key\":\"k\",\"value\":\"v\"", NULL, NULL},
    {"{\"key\":\"k\",\"value\":\"v", NULL, NULL},
    {"{\"key\":\"k\",\"value\":\"v\"}}", NULL, NULL},
    {"{\"key\":\"k\",\"value\":\"v\",}", NULL, NULL},
    {"{\"key\":\"k\" \"value\":\"v\"}", NULL, NULL},
    {"{\"key\":\"k\",\"key\":\"l\"}", NULL, NULL},
    {"{\"key\":\"k\",\"value\":\"v\",\"ttl\":5}", NULL, NULL},
    {"{\"key\":\"k\",\"value_base64\":\"dg==\"}", NULL, NULL},
    {"{\"key\":\"k\",\"value\":5}", NULL, NULL},
    {"{\"key\":\"k\\n\",\"value\":\"v\"}", NULL, NULL},
    {"{\"key\":\"k\",\"value\":\"0123456789\\u0041\"}", NULL, NULL},
    {"{\"key\":\"k\",\"value\":\"0123456789\x1f\"}", NULL, NULL},
    {"{\"key\":\"k\",\"value\":\"not UTF-8: \xc3\x28\"}", NULL, NULL},
    {"{\"key\":\"k\",\"value\":\"longer than may be: 0123456789 0123456789\"}", NULL, NULL},
};

/* What it takes is what the thorough reading takes; what it leaves is that one's. */
START_TEST(a_plain_line_is_read_at_once)
{
    const char *text = plain_cases[_i].text;
    struct json_put plain = {.ttl_s = 1, .expires_at = 1};
    bool taken = nx_json_plain_put(nx_slice_text(text), 40, &plain);
    char expected[100];

    ck_assert_msg(taken == (plain_cases[_i].key != NULL), "%s", text);
    if (taken) {
        ck_assert(nx_slice_equal(plain.key, nx_slice_text(plain_cases[_i].key)));
        ck_assert(nx_slice_equal(plain.value, nx_slice_text(plain_cases[_i].value)));
        ck_assert_uint_eq(plain.ttl_s + plain.expires_at, 0);
        ck_assert_int_eq(read_put(text, 40), 0);
        snprintf(expected, sizeof expected, "%s=%s", plain_cases[_i].key, plain_cases[_i].value);
        assert_out(expected);
    }
}
END_TEST

START_TEST(offsets_are_numbers_or_texts)
{
    static const char *const bad[] = {"{}",
                                      "{\"offset\":-1}",
                                      "{\"offset\":1.5}",
                                      "{\"offset\":null}",
                                      "{\"offset\":\"x\"}",
                                      "{\"offset\":[1]}"};
    struct client_offset offset;
    struct json_object *object;

    ck_assert_int_eq(nx_json_parse(tokener,
                                   nx_slice_text("{\"a\":18446744073709551615,\"b\":\"5@2\"}"),
                                   &object, &fault),
                     0);
    ck_assert_int_eq(nx_json_offset_of(object, "a", "if[0]", &offset, &fault), 0);
    ck_assert_uint_eq(offset.offset, UINT64_MAX);
    ck_assert_int_eq(nx_json_offset_of(object, "b", "if[0]", &offset, &fault), 0);
    ck_assert_uint_eq(offset.offset, 5);
    ck_assert_uint_eq(offset.epoch, 2);
    json_object_put(object);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_int_eq(nx_json_parse(tokener, nx_slice_text(bad[i]), &object, &fault), 0);
        ck_assert_msg(nx_json_offset_of(object, "offset", "if[0]", &offset, &fault) == -EINVAL,
                      "%s", bad[i]);
        json_object_put(object);
    }
}
END_TEST

/* Any bytes as key and value, written and read again. */
START_TEST(what_goes_out_comes_back)
{
    struct text line = {.data = NULL};
    struct json json;
    uint8_t bytes[256];

    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * 7 + (size_t)_i * 31);
    }
    for (size_t n = 1; n <= sizeof bytes; n += 5) {
        struct nx_slice key = nx_slice_of(bytes, n);
        struct nx_slice value = nx_slice_of(bytes + sizeof bytes - n, n);

        nx_text_reset(&line, SIZE_MAX);
        json = nx_json_of(&line);
        nx_json_open(&json, NULL, '{');
        nx_json_bytes(&json, "key", key);
        nx_json_bytes(&json, "value", value);
        nx_json_close(&json, '}');
        nx_text_add(&line, "", 1);
        ck_assert_msg(read_put((const char *)line.data, 1000) == 0, "%s", fault.message);
        ck_assert_uint_eq(out.length, 2 * n + 1);
        ck_assert_int_eq(memcmp(out.data, key.data, n), 0);
        ck_assert_int_eq(memcmp(out.data + n + 1, value.data, n), 0);
    }
    nx_text_free(&line);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http json");
    TCase *writing = tcase_create("out");
    TCase *reading = tcase_create("in");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(writing, setup, teardown);
    tcase_add_loop_test(writing, base64_is_that_of_the_standard, 0,
                        (int)(sizeof base64_cases / sizeof *base64_cases));
    tcase_add_test(writing, base64_refuses_what_isnt);
    tcase_add_test(writing, members_and_elements_have_their_commas);
    tcase_add_test(writing, strings_are_escaped);
    tcase_add_loop_test(writing, utf8_is_judged_by_the_standard, 0,
                        (int)(sizeof utf8_cases / sizeof *utf8_cases));
    suite_add_tcase(suite, writing);
    tcase_add_checked_fixture(reading, setup, teardown);
    tcase_add_loop_test(reading, good_texts_are_parsed, 0,
                        (int)(sizeof good_texts / sizeof *good_texts));
    tcase_add_loop_test(reading, bad_texts_are_refused_with_a_sentence, 0,
                        (int)(sizeof bad_texts / sizeof *bad_texts));
    tcase_add_test(reading, an_object_has_a_bound_of_members);
    tcase_add_test(reading, what_json_takes_has_a_bound);
    tcase_add_test(reading, a_put_has_key_and_value_in_either_form);
    tcase_add_loop_test(reading, a_bad_put_is_refused_with_its_place, 0,
                        (int)(sizeof bad_puts / sizeof *bad_puts));
    tcase_add_loop_test(reading, a_put_has_a_ttl_or_a_moment, 0,
                        (int)(sizeof good_expiries / sizeof *good_expiries));
    tcase_add_test(reading, a_ttl_is_a_whole_number_of_seconds);
    tcase_add_test(reading, a_moment_is_a_whole_number_of_milliseconds);
    tcase_add_test(reading, a_put_expires_as_it_says);
    tcase_add_test(reading, keys_have_up_to_511_bytes);
    tcase_add_loop_test(reading, a_plain_line_is_read_at_once, 0,
                        (int)(sizeof plain_cases / sizeof *plain_cases));
    tcase_add_test(reading, offsets_are_numbers_or_texts);
    tcase_add_loop_test(reading, what_goes_out_comes_back, 0, 8);
    suite_add_tcase(suite, reading);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
