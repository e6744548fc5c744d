/* Records of a snapshot's kv files: their bytes, which are a format, and what is refused of others. */
#include "common/bytes.h"
#include "snapshot/record.h"

#include <check.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define AT_OFFSET  0
#define AT_FLAGS   8
#define AT_KEY     9
#define AT_VALUE   11
#define AT_EXPIRY  15
#define EXPIRES_AT UINT64_C(0x1817161514131211)

static uint8_t *bytes; /* room for the largest record */

static void setup(void)
{
    bytes = calloc(1, NX_RECORD_MAX + 1);
    ck_assert_ptr_nonnull(bytes);
}

static void teardown(void)
{
    free(bytes);
}

static struct nx_record record_of(const char *key, const char *value, uint64_t expires_at)
{
    return (struct nx_record){
        .key = (const uint8_t *)key,
        .key_length = strlen(key),
        .value = (const uint8_t *)value,
        .value_length = strlen(value),
        .offset = UINT64_C(0x0807060504030201),
        .expires_at = expires_at,
    };
}

/* Encodes into `bytes`; returns the size. */
static size_t encode(const struct nx_record *record)
{
    size_t size = nx_record_size(record);

    nx_record_encode(record, bytes);
    return size;
}

static void same(const struct nx_record *a, const struct nx_record *b)
{
    ck_assert_uint_eq(a->offset, b->offset);
    ck_assert_uint_eq(a->expires_at, b->expires_at);
    ck_assert_uint_eq(a->key_length, b->key_length);
    ck_assert_mem_eq(a->key, b->key, b->key_length);
    ck_assert_uint_eq(a->value_length, b->value_length);
    ck_assert_mem_eq(a->value, b->value, b->value_length);
}

/* Whether n of the bytes are a record; an exact copy, so that no byte behind them can be read. */
static int decode(size_t n, size_t *ret_size)
{
    uint8_t *exact = malloc(n > 0 ? n : 1);
    struct nx_record record;
    int rc;

    ck_assert_ptr_nonnull(exact);
    memcpy(exact, bytes, n);
    rc = nx_record_decode(exact, n, &record, ret_size);
    free(exact);
    return rc;
}

/* ---- what is one ---- */

static const struct {
    const char *key;
    const char *value;
    uint64_t expires_at;
    const char *bytes;
    size_t size;
} golden[] = {
    {"key", "value", 0,
     "\x01\x02\x03\x04\x05\x06\x07\x08"
     "\x00"
     "\x03\x00"
     "\x05\x00\x00\x00"
     "keyvalue",
     23},
    {"key", "value", EXPIRES_AT,
     "\x01\x02\x03\x04\x05\x06\x07\x08"
     "\x01"
     "\x03\x00"
     "\x05\x00\x00\x00"
     "\x11\x12\x13\x14\x15\x16\x17\x18"
     "keyvalue",
     31},
    {"k", "", 0,
     "\x01\x02\x03\x04\x05\x06\x07\x08"
     "\x00"
     "\x01\x00"
     "\x00\x00\x00\x00"
     "k",
     16},
};

START_TEST(its_bytes_are_these)
{
    struct nx_record record = record_of(golden[_i].key, golden[_i].value, golden[_i].expires_at);
    struct nx_record decoded;
    size_t size;

    ck_assert_uint_eq(encode(&record), golden[_i].size);
    ck_assert_mem_eq(bytes, golden[_i].bytes, golden[_i].size);
    ck_assert_uint_eq(bytes[golden[_i].size], 0); /* nothing behind it was written */
    ck_assert_int_eq(nx_record_decode(bytes, golden[_i].size, &decoded, &size), 0);
    ck_assert_uint_eq(size, golden[_i].size);
    same(&decoded, &record);
    ck_assert_uint_eq(decoded.op_index, 0);
}
END_TEST

START_TEST(what_stands_behind_it_is_not_looked_at)
{
    struct nx_record record = record_of("key", "value", EXPIRES_AT);
    struct nx_record decoded;
    size_t size = encode(&record);
    size_t whole;

    memset(bytes + size, 0xff, 100);
    ck_assert_int_eq(nx_record_decode(bytes, size + 100, &decoded, &whole), 0);
    ck_assert_uint_eq(whole, size);
    same(&decoded, &record);
}
END_TEST

START_TEST(the_largest_is_one_of_the_most_bytes)
{
    struct nx_record record = record_of("", "", UINT64_MAX);
    struct nx_record decoded;
    uint8_t *value = malloc(NX_MAX_VALUE);
    uint8_t key[NX_MAX_KEY];
    size_t size;

    ck_assert_ptr_nonnull(value);
    memset(key, 0xff, sizeof key);
    memset(value, 0xee, NX_MAX_VALUE);
    record.offset = UINT64_MAX;
    record.key = key;
    record.key_length = sizeof key;
    record.value = value;
    record.value_length = NX_MAX_VALUE;
    ck_assert_uint_eq(encode(&record), NX_RECORD_MAX);
    ck_assert_int_eq(nx_record_decode(bytes, NX_RECORD_MAX, &decoded, &size), 0);
    ck_assert_uint_eq(size, NX_RECORD_MAX);
    same(&decoded, &record);
    ck_assert_int_eq(nx_record_decode(bytes, NX_RECORD_MAX - 1, &decoded, &size), -EAGAIN);
    ck_assert_uint_eq(size, NX_RECORD_MAX);
    free(value);
}
END_TEST

/* ---- what is not one yet ---- */

START_TEST(each_of_its_beginnings_tells_how_much_is_missing)
{
    struct nx_record record = record_of("key", "value", _i == 0 ? 0 : EXPIRES_AT);
    size_t whole = encode(&record);
    size_t size;

    for (size_t n = 0; n < whole; n++) {
        ck_assert_int_eq(decode(n, &size), -EAGAIN);
        ck_assert_uint_eq(size, n < NX_RECORD_HEADER ? NX_RECORD_HEADER : whole);
    }
    ck_assert_int_eq(decode(whole, &size), 0);
}
END_TEST

START_TEST(a_record_that_is_not_whole_is_not_given)
{
    struct nx_record record = record_of("key", "value", 0);
    struct nx_record decoded = {.offset = 77};
    size_t whole = encode(&record);
    size_t size;

    ck_assert_int_eq(nx_record_decode(bytes, whole - 1, &decoded, &size), -EAGAIN);
    ck_assert_uint_eq(decoded.offset, 77);
}
END_TEST

/* ---- what can't be one ---- */

static const struct {
    const char *what;
    size_t at;
    size_t width;
    uint64_t number;
} damages[] = {
    {"offset 0", AT_OFFSET, 8, 0},
    {"flag 2", AT_FLAGS, 1, 2},
    {"flag 2 beside 1", AT_FLAGS, 1, 3},
    {"flag 128", AT_FLAGS, 1, 0x80},
    {"all flags", AT_FLAGS, 1, 0xff},
    {"no key", AT_KEY, 2, 0},
    {"a key of 512", AT_KEY, 2, NX_MAX_KEY + 1},
    {"the longest key that can be said", AT_KEY, 2, UINT16_MAX},
    {"a value above 15 MiB", AT_VALUE, 4, NX_MAX_VALUE + 1},
    {"the longest value that can be said", AT_VALUE, 4, UINT32_MAX},
};

/* From its header alone: nobody waits for the rest, or makes room for it. */
START_TEST(a_header_that_cannot_be_is_refused_at_once)
{
    struct nx_record record = record_of("key", "value", 0);
    uint8_t number[8];
    size_t whole = encode(&record);
    size_t size;

    nx_store_u64(number, damages[_i].number);
    memcpy(bytes + damages[_i].at, number, damages[_i].width);
    ck_assert_msg(decode(NX_RECORD_HEADER, &size) == -EBADMSG, "%s", damages[_i].what);
    ck_assert_msg(decode(whole, &size) == -EBADMSG, "%s", damages[_i].what);
    ck_assert_int_eq(decode(NX_RECORD_HEADER - 1, &size), -EAGAIN);
}
END_TEST

START_TEST(an_expiry_of_0_is_refused)
{
    struct nx_record record = record_of("key", "value", EXPIRES_AT);
    size_t whole = encode(&record);
    size_t size;

    memset(bytes + AT_EXPIRY, 0, NX_RECORD_EXPIRY);
    ck_assert_int_eq(decode(whole, &size), -EBADMSG);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("snapshot_record");
    TCase *tcase = tcase_create("records");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, its_bytes_are_these, 0, (int)(sizeof golden / sizeof golden[0]));
    tcase_add_test(tcase, what_stands_behind_it_is_not_looked_at);
    tcase_add_test(tcase, the_largest_is_one_of_the_most_bytes);
    tcase_add_loop_test(tcase, each_of_its_beginnings_tells_how_much_is_missing, 0, 2);
    tcase_add_test(tcase, a_record_that_is_not_whole_is_not_given);
    tcase_add_loop_test(tcase, a_header_that_cannot_be_is_refused_at_once, 0,
                        (int)(sizeof damages / sizeof damages[0]));
    tcase_add_test(tcase, an_expiry_of_0_is_refused);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
