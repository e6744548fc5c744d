/* nexus-bench reads answers of each protocol: the same, wherever the network parts them; refuses what is none. Each
 * part lies in memory of its own size, so that a read beyond it is seen. */
#include "nexus-bench/http_answer.h"
#include "nexus-bench/options.h"
#include "nexus-bench/protocol.h"

#include <check.h>

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static _Alignas(max_align_t) uint8_t state[4096];
static struct text out;

static void begin(void)
{
    memset(state, 0, sizeof state);
    out = (struct text){.data = NULL};
}

static void end(void)
{
    nx_text_free(&out);
}

/* ---- feeding ---- */

struct told {
    int rc;
    enum bench_result result;
    unsigned status;
    uint64_t value_bytes;
    char text[64];
};

static void tell(struct told *told, const struct bench_answer *answer)
{
    size_t n =
        answer->text.length < sizeof told->text - 1 ? answer->text.length : sizeof told->text - 1;

    told->result = answer->result;
    told->status = answer->status;
    told->value_bytes = answer->value_bytes;
    if (n > 0) {
        memcpy(told->text, answer->text.data, n);
    }
    told->text[n] = '\0';
}

/* Reads up to `count` answers to such requests from bytes that come `piece` at a time; what told the last. */
static struct told feed(const struct bench_protocol *protocol,
                        const struct bench_request *request,
                        struct nx_slice bytes,
                        size_t piece,
                        unsigned count)
{
    struct told told = {.rc = 0};
    size_t from = 0;
    size_t to = 0;

    while (told.rc >= 0 && count > 0 && (to < bytes.length || from < to)) {
        size_t before = from;

        to = bytes.length - to < piece ? bytes.length : to + piece;
        do {
            uint8_t *part = malloc(to - from);
            struct bench_answer answer;
            size_t used = 0;

            ck_assert_ptr_nonnull(part);
            memcpy(part, bytes.data + from, to - from);
            told.rc =
                protocol->read(state, request, nx_slice_of(part, to - from), &used, &answer, &out);
            ck_assert_uint_le(used, to - from);
            from += used;
            if (told.rc > 0) {
                tell(&told, &answer);
                count--;
            }
            free(part);
        } while (told.rc > 0 && from < to && count > 0);
        if (to == bytes.length && from == before) {
            break; /* there is no more, and it waits for more */
        }
    }
    if (told.rc > 0) {
        ck_assert_uint_eq(from, bytes.length);
    }
    return told;
}

static struct bench_request one(enum bench_operation operation)
{
    return (struct bench_request){.operation = operation, .count = 1};
}

/* ---- HTTP ---- */

#define CREATED                                                                          \
    "HTTP/1.1 201 Created\r\nDate: Sat, 28 Nov 2026 11:42:54 GMT\r\nNexus-Offset: 1\r\n" \
    "Content-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"offset\":1}\n"
#define CHUNKED                                                           \
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n" \
    "0a;name=value\r\n0123456789\r\n0\r\nTrailer: 1\r\n\r\n"

static const struct {
    const char *bytes;
    enum bench_operation operation;
    int rc;
    enum bench_result result;
    unsigned status;
    uint64_t value_bytes;
    const char *text; /* NULL: depends on the parts */
} http_cases[] = {
    {CREATED, BENCH_PUT, 1, BENCH_DONE, 201, 0, "{\"offset\":1}\n"},
    {CREATED, BENCH_GET, 1, BENCH_DONE, 201, 13, "{\"offset\":1}\n"},
    {CHUNKED, BENCH_GET, 1, BENCH_DONE, 200, 15, NULL},
    {CHUNKED, BENCH_PROBE, 1, BENCH_DONE, 200, 15, NULL},
    {"HTTP/1.1 404 Not Found\r\ncontent-length:2\r\n\r\n{}", BENCH_GET, 1, BENCH_ABSENT, 404, 0,
     "{}"},
    {"HTTP/1.1 404 Not Found\r\nCONTENT-LENGTH: 2\r\n\r\n{}", BENCH_PUT, 1, BENCH_FAILED, 404, 0,
     "{}"},
    {"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", BENCH_GET, 1, BENCH_FAILED, 503, 0, ""},
    {"HTTP/1.1 204 No Content\r\n\r\n", BENCH_DELETE, 1, BENCH_DONE, 204, 0, ""},
    {"HTTP/1.1 100 Continue\r\n\r\n" CREATED, BENCH_PUT, 1, BENCH_DONE, 201, 0, "{\"offset\":1}\n"},
    {"HTTP/1.0 200 OK\nContent-Length: 1\n\nx", BENCH_GET, 1, BENCH_DONE, 200, 1, "x"},
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", BENCH_GET, 0, BENCH_DONE, 0, 0, NULL},
    {"HTTP/1.1 200 OK\r\nContent-Type: none\r\n\r\nuntil its end", BENCH_GET, -EPROTO, BENCH_DONE,
     0, 0, NULL},
    {"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", BENCH_GET, -EPROTO, BENCH_DONE, 0, 0, NULL},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", BENCH_GET, -EPROTO, BENCH_DONE,
     0, 0, NULL},
    {"HTTP/1.1 abc OK\r\n\r\n", BENCH_GET, -EPROTO, BENCH_DONE, 0, 0, NULL},
    {"-ERR unknown command\r\n", BENCH_GET, -EPROTO, BENCH_DONE, 0, 0, NULL},
};

START_TEST(http_answers_in_parts_of_any_size)
{
    for (size_t i = 0; i < sizeof http_cases / sizeof http_cases[0]; i++) {
        struct bench_request request = one(http_cases[i].operation);
        struct nx_slice bytes = nx_slice_text(http_cases[i].bytes);

        for (size_t piece = 1; piece <= bytes.length; piece++) {
            struct told told;

            begin();
            told = feed(&bench_http, &request, bytes, piece, 1);
            ck_assert_msg(told.rc == http_cases[i].rc, "case %zu by %zu: %d", i, piece, told.rc);
            if (told.rc <= 0) {
                continue;
            }
            ck_assert_int_eq(told.result, http_cases[i].result);
            ck_assert_uint_eq(told.status, http_cases[i].status);
            ck_assert_uint_eq(told.value_bytes, http_cases[i].value_bytes);
            if (http_cases[i].text != NULL) {
                ck_assert_str_eq(told.text, http_cases[i].text);
            }
        }
    }
}
END_TEST

START_TEST(http_answers_follow_each_other)
{
    static const char bytes[] = CREATED CREATED CHUNKED CREATED;
    struct bench_request request = one(BENCH_GET);

    for (size_t piece = 1; piece <= sizeof bytes; piece++) {
        struct told told;

        begin();
        told = feed(&bench_http, &request, nx_slice_of(bytes, sizeof bytes - 1), piece, 4);
        ck_assert_int_eq(told.rc, 1);
        ck_assert_uint_eq(told.status, 201);
    }
}
END_TEST

START_TEST(a_long_body_is_skipped_as_it_comes)
{
    struct text bytes = {.data = NULL};
    struct bench_request request = one(BENCH_GET);
    struct told told;

    (void)nx_text_puts(&bytes, "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
    ck_assert(nx_text_reserve(&bytes, 1000000));
    memset(bytes.data + bytes.length, 'v', 1000000);
    bytes.length += 1000000;
    told = feed(&bench_http, &request, nx_slice_of(bytes.data, bytes.length), 30000, 1);
    ck_assert_int_eq(told.rc, 1);
    ck_assert_uint_eq(told.value_bytes, 1000000);
    nx_text_free(&bytes);
}
END_TEST

/* ---- Redis ---- */

static const struct {
    const char *bytes;
    enum bench_operation operation;
    size_t count;
    int rc;
    enum bench_result result;
    uint64_t value_bytes;
    const char *text;
} redis_cases[] = {
    {"+OK\r\n", BENCH_PUT, 1, 1, BENCH_DONE, 0, ""},
    {"$5\r\nhello\r\n", BENCH_GET, 1, 1, BENCH_DONE, 5, "hello"},
    {"$0\r\n\r\n", BENCH_GET, 1, 1, BENCH_DONE, 0, ""},
    {"$-1\r\n", BENCH_GET, 1, 1, BENCH_ABSENT, 0, ""},
    {":1\r\n", BENCH_DELETE, 1, 1, BENCH_DONE, 0, ""},
    {":0\r\n", BENCH_DELETE, 1, 1, BENCH_DONE, 0, ""},
    {"+OK\r\n:1\r\n", BENCH_WAIT, 1, 1, BENCH_DONE, 0, ""},
    {"+OK\r\n:0\r\n", BENCH_WAIT, 1, 1, BENCH_FAILED, 0, "WAIT: no replica has it"},
    {"+OK\r\n", BENCH_WAIT, 1, 0, BENCH_DONE, 0, ""},
    {"-READONLY no\r\n", BENCH_PUT, 1, 1, BENCH_FAILED, 0, "-READONLY no"},
    {"+OK\r\n-OOM x\r\n-OOM y\r\n", BENCH_IMPORT, 3, 1, BENCH_FAILED, 0, "-OOM x"},
    {"+OK\r\n+OK\r\n", BENCH_IMPORT, 3, 0, BENCH_DONE, 0, ""},
    {"$x\r\n", BENCH_GET, 1, -EPROTO, BENCH_DONE, 0, ""},
    {"$-2\r\n", BENCH_GET, 1, -EPROTO, BENCH_DONE, 0, ""},
    {"HTTP/1.1 400 Bad Request\r\n", BENCH_GET, 1, -EPROTO, BENCH_DONE, 0, ""},
    {"\n", BENCH_GET, 1, -EPROTO, BENCH_DONE, 0, ""},
};

START_TEST(redis_replies_in_parts_of_any_size)
{
    for (size_t i = 0; i < sizeof redis_cases / sizeof redis_cases[0]; i++) {
        struct bench_request request = one(redis_cases[i].operation);
        struct nx_slice bytes = nx_slice_text(redis_cases[i].bytes);

        request.count = redis_cases[i].count;
        for (size_t piece = 1; piece <= bytes.length; piece++) {
            struct told told;

            begin();
            told = feed(&bench_redis, &request, bytes, piece, 1);
            ck_assert_msg(told.rc == redis_cases[i].rc, "case %zu by %zu: %d", i, piece, told.rc);
            if (told.rc > 0) {
                ck_assert_int_eq(told.result, redis_cases[i].result);
                ck_assert_uint_eq(told.value_bytes, redis_cases[i].value_bytes);
                ck_assert_str_eq(told.text, redis_cases[i].text);
            }
        }
    }
}
END_TEST

START_TEST(a_long_redis_string_is_skipped_as_it_comes)
{
    struct text bytes = {.data = NULL};
    struct bench_request request = one(BENCH_GET);
    struct told told;

    (void)nx_text_puts(&bytes, "$1000000\r\n");
    ck_assert(nx_text_reserve(&bytes, 1000000));
    memset(bytes.data + bytes.length, '$', 1000000);
    bytes.length += 1000000;
    (void)nx_text_puts(&bytes, "\r\n$1\r\nx\r\n");
    told = feed(&bench_redis, &request, nx_slice_of(bytes.data, bytes.length), 30000, 2);
    ck_assert_int_eq(told.rc, 1);
    ck_assert_uint_eq(told.value_bytes, 1);
    nx_text_free(&bytes);
}
END_TEST

/* ---- etcd ---- */

/* Frames: length, type, flags, stream; what they hold stands behind each. */
/* clang-format off */
#define SETTINGS     "\0\0\6\4\0\0\0\0\0" "\0\4\0\1\0\0"
#define PING         "\0\0\10\6\0\0\0\0\0" "12345678"
#define HEADERS      "\0\0\1\1\4\0\0\0\1" "\x88"
#define TRAILERS     "\0\0\1\1\5\0\0\0\1" "\x80"
#define GRPC_ALONE   "\0\0\5\0\0\0\0\0\1" "\0\0\0\0\x10"
#define PAIR_ALONE   "\0\0\x10\0\0\0\0\0\1" PAIR
#define GRPC_PAIR    "\0\0\x15\0\0\0\0\0\1" "\0\0\0\0\x10" PAIR
#define GRPC_NOTHING "\0\0\7\0\0\0\0\0\1" "\0\0\0\0\2" "\x0a\0"
/* RangeResponse: an empty header; kvs with key "k", mod_revision 3 and value "hello". */
#define PAIR         "\x0a\0" "\x12\x0c" "\x0a\1k" "\x18\3" "\x2a\5hello"
/* clang-format on */
#define BYTES(frames)                                 \
    {                                                 \
        (const uint8_t *)(frames), sizeof(frames) - 1 \
    }

static const struct {
    struct nx_slice bytes;
    enum bench_operation operation;
    int rc;
    enum bench_result result;
    const char *text;
} etcd_cases[] = {
    {BYTES(SETTINGS PING HEADERS GRPC_NOTHING TRAILERS), BENCH_PUT, 1, BENCH_DONE, ""},
    {BYTES(HEADERS GRPC_NOTHING TRAILERS), BENCH_GET, 1, BENCH_ABSENT, ""},
    {BYTES(HEADERS GRPC_PAIR TRAILERS), BENCH_GET, 1, BENCH_DONE, "hello"},
    {BYTES(HEADERS GRPC_ALONE PAIR_ALONE TRAILERS), BENCH_GET, 1, BENCH_DONE, "hello"},
    {BYTES(HEADERS GRPC_PAIR), BENCH_GET, 0, BENCH_DONE, ""},
    {BYTES(TRAILERS), BENCH_PUT, 1, BENCH_FAILED, NULL},
    {BYTES("\0\0\4\3\0\0\0\0\1\0\0\0\1"), BENCH_PUT, 1, BENCH_FAILED, NULL},
    {BYTES("\0\0\0\7\0\0\0\0\0"), BENCH_PUT, -ECONNRESET, BENCH_FAILED, NULL},
    {BYTES("HTTP/1.1 400 Bad Request\r\n"), BENCH_PUT, -EPROTO, BENCH_FAILED, NULL},
};

/* A connection with a request under way. */
static void begin_etcd(const void *templates, enum bench_operation operation)
{
    static const uint64_t key = 7;
    struct bench_request request = {.operation = operation, .keys = &key, .count = 1};
    struct bench_random random = bench_random_of(1, 0);

    begin();
    bench_etcd.open(state, &out);
    bench_etcd.write(templates, state, &request, &random, &out);
    ck_assert(!out.failed);
}

START_TEST(etcd_answers_in_parts_of_any_size)
{
    struct bench_options options = {.value = 100};
    struct bench_target target = {.text = "localhost:2379"};
    void *templates = bench_etcd.prepare(&options, &target);

    ck_assert_ptr_nonnull(templates);
    for (size_t i = 0; i < sizeof etcd_cases / sizeof etcd_cases[0]; i++) {
        struct bench_request request = one(etcd_cases[i].operation);

        for (size_t piece = 1; piece <= etcd_cases[i].bytes.length; piece++) {
            struct told told;

            begin_etcd(templates, request.operation);
            told = feed(&bench_etcd, &request, etcd_cases[i].bytes, piece, 1);
            ck_assert_msg(told.rc == etcd_cases[i].rc, "case %zu by %zu: %d", i, piece, told.rc);
            if (told.rc > 0) {
                ck_assert_int_eq(told.result, etcd_cases[i].result);
            }
            if (told.rc > 0 && etcd_cases[i].text != NULL) {
                ck_assert_str_eq(told.text, etcd_cases[i].text);
            }
            bench_etcd.close(state);
            end();
        }
    }
    bench_etcd.release(templates);
}
END_TEST

/* ---- all of them ---- */

START_TEST(an_answer_that_nobody_waits_for_is_refused)
{
    static const char http[] = CREATED;
    struct bench_answer answer;
    size_t used = 0;

    ck_assert_int_eq(
        bench_http.read(state, NULL, nx_slice_of(http, sizeof http - 1), &used, &answer, &out),
        -EPROTO);
    ck_assert_int_eq(bench_redis.read(state, NULL, nx_slice_text("+OK\r\n"), &used, &answer, &out),
                     -EPROTO);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bench_answers");
    TCase *tests = tcase_create("answers");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, http_answers_in_parts_of_any_size);
    tcase_add_test(tests, http_answers_follow_each_other);
    tcase_add_test(tests, a_long_body_is_skipped_as_it_comes);
    tcase_add_test(tests, redis_replies_in_parts_of_any_size);
    tcase_add_test(tests, a_long_redis_string_is_skipped_as_it_comes);
    tcase_add_test(tests, etcd_answers_in_parts_of_any_size);
    tcase_add_test(tests, an_answer_that_nobody_waits_for_is_refused);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
