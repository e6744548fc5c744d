/* Heads and chunked framing: what passes, and what is refused before any parser sees it. */
#include "http/chunk_guard.h"
#include "http/head_scan.h"

#include <check.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct head_case {
    const char *name;
    const char *bytes;
    size_t length; /* 0: strlen */
    enum head_verdict verdict;
};

#define GOOD_END "Host: a\r\n\r\n"

static const struct head_case head_cases[] = {
    {"plain", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", 0, HEAD_DONE},
    {"http 1.0 without headers", "GET / HTTP/1.0\r\n\r\n", 0, HEAD_DONE},
    {"one empty line before it", "\r\nGET / HTTP/1.1\r\n" GOOD_END, 0, HEAD_DONE},
    {"empty value", "GET / HTTP/1.1\r\nX:\r\n" GOOD_END, 0, HEAD_DONE},
    {"tab in a value", "GET / HTTP/1.1\r\nX:\ta\tb\r\n" GOOD_END, 0, HEAD_DONE},
    {"high bytes in a value", "GET / HTTP/1.1\r\nX: \xc3\xa4\r\n" GOOD_END, 0, HEAD_DONE},
    {"high bytes in the target", "GET /kv/\xc3\xa4 HTTP/1.1\r\n" GOOD_END, 0, HEAD_DONE},
    {"unfinished line", "GET / HTTP/1.1\r\nHost: a", 0, HEAD_MORE},
    {"unfinished end", "GET / HTTP/1.1\r\nHost: a\r\n\r", 0, HEAD_MORE},
    {"two empty lines before it", "\r\n\r\nGET / HTTP/1.1\r\n" GOOD_END, 0, HEAD_BAD},
    {"bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 0, HEAD_BAD},
    {"bare LF after a header", "GET / HTTP/1.1\r\nHost: a\n\r\n", 0, HEAD_BAD},
    {"bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 0, HEAD_BAD},
    {"bare CR in a value", "GET / HTTP/1.1\r\nX: a\rb\r\n" GOOD_END, 0, HEAD_BAD},
    {"bare CR after the request line", "GET / HTTP/1.1\rHost: a\r\n\r\n", 0, HEAD_BAD},
    {"folded header", "GET / HTTP/1.1\r\nX: a\r\n b\r\n" GOOD_END, 0, HEAD_BAD},
    {"header folded by a tab", "GET / HTTP/1.1\r\nX: a\r\n\tb\r\n" GOOD_END, 0, HEAD_BAD},
    {"space before the first header", "GET / HTTP/1.1\r\n X: a\r\n" GOOD_END, 0, HEAD_BAD},
    {"space before a colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", 0, HEAD_BAD},
    {"header without a colon", "GET / HTTP/1.1\r\nHost\r\n\r\n", 0, HEAD_BAD},
    {"header without a name", "GET / HTTP/1.1\r\n: a\r\n" GOOD_END, 0, HEAD_BAD},
    {"bad byte in a name", "GET / HTTP/1.1\r\nX(y: a\r\n" GOOD_END, 0, HEAD_BAD},
    {"high byte in a name", "GET / HTTP/1.1\r\nX\xc3: a\r\n" GOOD_END, 0, HEAD_BAD},
    {"NUL in a value", "GET / HTTP/1.1\r\nX: \0\r\n\r\n", 24, HEAD_BAD},
    {"NUL in the target", "GET /\0 HTTP/1.1\r\n\r\n", 19, HEAD_BAD},
    {"NUL in a name", "GET / HTTP/1.1\r\nX\0: a\r\n\r\n", 25, HEAD_BAD},
    {"DEL in a value", "GET / HTTP/1.1\r\nX: \x7f\r\n" GOOD_END, 0, HEAD_BAD},
    {"two spaces after the method", "GET  / HTTP/1.1\r\n" GOOD_END, 0, HEAD_BAD},
    {"two spaces after the target", "GET /  HTTP/1.1\r\n" GOOD_END, 0, HEAD_BAD},
    {"tab after the method", "GET\t/ HTTP/1.1\r\n" GOOD_END, 0, HEAD_BAD},
    {"space before the method", " GET / HTTP/1.1\r\n" GOOD_END, 0, HEAD_BAD},
    {"no target", "GET HTTP/1.1\r\n" GOOD_END, 0, HEAD_BAD},
    {"http 0.9", "GET /\r\n", 0, HEAD_BAD},
    {"http 2", "PRI * HTTP/2.0\r\n\r\n", 0, HEAD_BAD},
    {"http 1.2", "GET / HTTP/1.2\r\n" GOOD_END, 0, HEAD_BAD},
    {"version in small letters", "GET / http/1.1\r\n" GOOD_END, 0, HEAD_BAD},
    {"space after the version", "GET / HTTP/1.1 \r\n" GOOD_END, 0, HEAD_BAD},
    {"longer version", "GET / HTTP/1.11\r\n" GOOD_END, 0, HEAD_BAD},
    {"TLS", "\x16\x03\x01\x02", 0, HEAD_BAD},
    {"method too long", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n", 0, HEAD_BAD},
};

static size_t length_of(const struct head_case *head)
{
    return head->length > 0 ? head->length : strlen(head->bytes);
}

START_TEST(each_head_is_taken_or_refused)
{
    const struct head_case *head = &head_cases[_i];
    struct head_scan scan;

    nx_head_scan_init(&scan);
    ck_assert_msg(nx_head_scan(&scan, head->bytes, length_of(head)) == head->verdict, "%s",
                  head->name);
    ck_assert_msg(head->verdict != HEAD_BAD || scan.why != NULL, "%s", head->name);
}
END_TEST

START_TEST(it_makes_no_difference_how_the_bytes_come)
{
    const struct head_case *head = &head_cases[_i];
    enum head_verdict verdict = HEAD_MORE;
    struct head_scan scan;

    nx_head_scan_init(&scan);
    for (size_t n = 1; n <= length_of(head) && verdict == HEAD_MORE; n++) {
        verdict = nx_head_scan(&scan, head->bytes, n);
    }
    ck_assert_msg(verdict == head->verdict, "%s", head->name);
}
END_TEST

START_TEST(a_head_ends_where_it_ends)
{
    static const char two[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n";
    struct head_scan scan;

    nx_head_scan_init(&scan);
    ck_assert_int_eq(nx_head_scan(&scan, two, sizeof two - 1), HEAD_DONE);
    ck_assert_uint_eq(scan.length, strlen("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
}
END_TEST

/* "GET /aaa... HTTP/1.1\r\n" with a target of n bytes. */
static enum head_verdict scan_target(size_t n)
{
    char *head = malloc(n + 100);
    struct head_scan scan;
    enum head_verdict verdict;

    memcpy(head, "GET ", 4);
    memset(head + 4, 'a', n);
    memcpy(head + 4 + n, " HTTP/1.1\r\n\r\n", 14);
    nx_head_scan_init(&scan);
    verdict = nx_head_scan(&scan, head, 4 + n + 13);
    free(head);
    return verdict;
}

START_TEST(a_target_of_16_kib_passes_and_not_a_byte_more)
{
    ck_assert_int_eq(scan_target(NX_HEAD_MAX_TARGET), HEAD_DONE);
    ck_assert_int_eq(scan_target(NX_HEAD_MAX_TARGET + 1), HEAD_TARGET_TOO_LONG);
    ck_assert_int_eq(scan_target(1u << 20), HEAD_TARGET_TOO_LONG);
}
END_TEST

/* A request line and `count` headers of `size` bytes each (at least 5). */
static enum head_verdict scan_headers(size_t count, size_t size)
{
    static const char line[] = "GET / HTTP/1.1\r\n";
    size_t length = sizeof line - 1 + count * size + 2;
    char *head = malloc(length);
    char *p = head + sizeof line - 1;
    struct head_scan scan;
    enum head_verdict verdict;

    memcpy(head, line, sizeof line - 1);
    for (size_t i = 0; i < count; i++, p += size) {
        memset(p, 'a', size);
        p[1] = ':';
        memcpy(p + size - 2, "\r\n", 2);
    }
    memcpy(p, "\r\n", 2);
    nx_head_scan_init(&scan);
    verdict = nx_head_scan(&scan, head, length);
    free(head);
    return verdict;
}

START_TEST(headers_have_a_bound_in_bytes_and_in_number)
{
    ck_assert_int_eq(scan_headers(1, NX_HEAD_MAX_HEADERS - 2), HEAD_DONE);
    ck_assert_int_eq(scan_headers(1, NX_HEAD_MAX_HEADERS - 1), HEAD_TOO_LARGE);
    ck_assert_int_eq(scan_headers(NX_HEAD_MAX_FIELDS, 10), HEAD_DONE);
    ck_assert_int_eq(scan_headers(NX_HEAD_MAX_FIELDS + 1, 10), HEAD_TOO_LARGE);
    ck_assert_int_eq(scan_headers(10000, 5), HEAD_TOO_LARGE);
}
END_TEST

/* ---- chunks ---- */

struct chunk_case {
    const char *name;
    const char *bytes;
    int used; /* bytes that belong to the body; -1: refused; -2: more is needed */
};

static const struct chunk_case chunk_cases[] = {
    {"one chunk", "5\r\nhello\r\n0\r\n\r\n", 15},
    {"what follows isn't touched", "5\r\nhello\r\n0\r\n\r\nGET /", 15},
    {"empty body", "0\r\n\r\n", 5},
    {"hexadecimal in both cases", "a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", 35},
    {"leading zeros", "0005\r\nhello\r\n0\r\n\r\n", 18},
    {"extension", "5;a=\"b\"\r\nhello\r\n0;x\r\n\r\n", 23},
    {"trailers", "0\r\nX: y\r\nZ: q\r\n\r\n", 17},
    {"CR and LF inside of data", "4\r\n\r\n\r\n\r\n0\r\n\r\n", 14},
    {"unfinished", "5\r\nhel", -2},
    {"unfinished end", "0\r\n\r", -2},
    {"no size", "\r\nhello\r\n0\r\n\r\n", -1},
    {"minus", "-5\r\nhello\r\n", -1},
    {"plus", "+5\r\nhello\r\n", -1},
    {"0x", "0x5\r\nhello\r\n", -1},
    {"space before", " 5\r\nhello\r\n", -1},
    {"space behind", "5 \r\nhello\r\n", -1},
    {"not hexadecimal", "5g\r\nhello\r\n", -1},
    {"bare LF after the size", "5\nhello\r\n", -1},
    {"bare CR after the size", "5\rhello\r\n", -1},
    {"bare LF after the data", "5\r\nhello\n0\r\n\r\n", -1},
    {"longer data than said", "5\r\nhello!\r\n0\r\n\r\n", -1},
    {"shorter data than said", "6\r\nhello\r\n0\r\n\r\n", -1},
    {"overflow", "10000000000000000\r\n", -1},
    {"more than any body", "fffffffffffffffff\r\n", -1},
    {"bare LF in an extension", "5;a\nhello\r\n", -1},
    {"folded trailer", "0\r\nX: y\r\n z\r\n\r\n", -1},
    {"bare LF at the end", "0\r\n\n", -1},
    {"bare LF in a trailer", "0\r\nX: y\n\r\n", -1},
    {"trailer without a colon", "0\r\nX\r\n\r\n", -1},
    {"trailer without a name", "0\r\n: y\r\n\r\n", -1},
    {"space before a trailer's colon", "0\r\nX : y\r\n\r\n", -1},
};

static int guard_all(const char *bytes, size_t step)
{
    size_t length = strlen(bytes);
    size_t total = 0;
    struct chunk_guard guard;

    nx_chunk_guard_init(&guard);
    while (total < length && !guard.done) {
        size_t n = length - total < step ? length - total : step;
        size_t used = 0;

        if (nx_chunk_guard(&guard, (const uint8_t *)bytes + total, n, &used) < 0) {
            ck_assert_ptr_nonnull(guard.why);
            return -1;
        }
        total += used;
    }
    return guard.done ? (int)total : -2;
}

START_TEST(each_framing_is_taken_or_refused)
{
    const struct chunk_case *chunk = &chunk_cases[_i];

    for (size_t step = 1; step <= 64; step++) {
        ck_assert_msg(guard_all(chunk->bytes, step) == chunk->used, "%s in steps of %zu",
                      chunk->name, step);
    }
}
END_TEST

START_TEST(extensions_and_trailers_have_a_bound)
{
    char *bytes = calloc(1, 8192);

    memset(bytes, 'a', 8000);
    memcpy(bytes, "5;", 2);
    ck_assert_int_eq(guard_all(bytes, 8192), -1);
    memset(bytes, 'a', 8000);
    memcpy(bytes, "0\r\nX:", 5);
    ck_assert_int_eq(guard_all(bytes, 8192), -1);
    free(bytes);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("http head");
    TCase *heads = tcase_create("heads");
    TCase *chunks = tcase_create("chunks");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_loop_test(heads, each_head_is_taken_or_refused, 0,
                        (int)(sizeof head_cases / sizeof *head_cases));
    tcase_add_loop_test(heads, it_makes_no_difference_how_the_bytes_come, 0,
                        (int)(sizeof head_cases / sizeof *head_cases));
    tcase_add_test(heads, a_head_ends_where_it_ends);
    tcase_add_test(heads, a_target_of_16_kib_passes_and_not_a_byte_more);
    tcase_add_test(heads, headers_have_a_bound_in_bytes_and_in_number);
    suite_add_tcase(suite, heads);
    tcase_add_loop_test(chunks, each_framing_is_taken_or_refused, 0,
                        (int)(sizeof chunk_cases / sizeof *chunk_cases));
    tcase_add_test(chunks, extensions_and_trailers_have_a_bound);
    suite_add_tcase(suite, chunks);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
