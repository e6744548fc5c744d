/* What HTTP clients send: heads, targets, queries, JSON, conditions, ranges (src/http). First byte: which. */
#include "fuzz.h"
#include "http/conditions.h"
#include "http/head_scan.h"
#include "http/json_in.h"
#include "http/json_plain.h"
#include "http/query.h"
#include "http/range.h"
#include "http/request.h"

#include <json-c/json.h>

#define KNOWN "prefix start end limit cursor keys_only since ttl wait"

/* The verdict is the same however the head comes, and a head that is whole is taken apart. */
static void read_head(const char *bytes, size_t n)
{
    struct head_scan whole;
    struct head_scan piecewise;
    enum head_verdict verdict;
    enum head_verdict other = HEAD_MORE;

    nx_head_scan_init(&whole);
    verdict = nx_head_scan(&whole, bytes, n);
    nx_head_scan_init(&piecewise);
    for (size_t i = 1; i <= n && other == HEAD_MORE; i++) {
        other = nx_head_scan(&piecewise, bytes, i);
    }
    HOLDS(n == 0 || verdict == other);
    HOLDS(verdict != HEAD_BAD || whole.why != NULL);
    if (verdict == HEAD_DONE) {
        static struct request request;

        HOLDS(whole.length <= n && whole.length == piecewise.length);
        nx_text_reset(&request.head, 0);
        HOLDS(nx_text_add(&request.head, bytes, whole.length));
        (void)nx_request_parse_head(&request);
        (void)nx_request_header(&request, "Host");
        (void)nx_request_header_count(&request, "Content-Length");
        nx_request_reset(&request);
    }
}

static void read_query(struct nx_slice raw)
{
    static struct query query;
    char message[NX_MESSAGE_SIZE] = "";
    uint64_t number = 0;
    bool flag = false;

    if (nx_query_parse(&query, raw, KNOWN, message) < 0) {
        HOLDS(message[0] != '\0');
        return;
    }
    HOLDS(query.count <= NX_QUERY_MAX_PARAMS);
    (void)nx_query_u64(&query, "limit", 1, 10000, &number, message);
    (void)nx_query_bool(&query, "keys_only", &flag, message);
}

static void read_json(struct nx_slice text)
{
    static struct json_tokener *tokener;
    struct json_object *object = NULL;
    struct json_fault fault = {.message = ""};

    if (tokener == NULL) {
        tokener = nx_json_tokener();
        HOLDS(tokener != NULL);
    }
    if (nx_json_parse(tokener, text, &object, &fault) < 0) {
        HOLDS(fault.message[0] != '\0');
        return;
    }
    HOLDS(json_object_is_type(object, json_type_object));
    (void)nx_json_only(object, "ops if put delete key value ttl", "It", &fault);
    json_object_put(object);
}

/* What the quick reading of a line takes, the thorough one takes for the same. */
static void read_line(struct nx_slice text)
{
    static struct json_tokener *tokener;
    static struct json_put put;
    struct json_put plain = {.ttl_s = 1};
    struct json_object *object = NULL;
    struct json_fault fault = {.message = ""};
    bool deletes = true;

    if (!nx_json_plain_put(text, 100, &plain)) {
        return;
    }
    tokener = tokener != NULL ? tokener : nx_json_tokener();
    HOLDS(nx_json_parse(tokener, text, &object, &fault) == 0);
    HOLDS(nx_json_line_of(object, "It", 100, &put, &deletes, &fault) == 0 && !deletes);
    HOLDS(nx_slice_equal(put.key, plain.key) && nx_slice_equal(put.value, plain.value));
    HOLDS(plain.ttl_s == 0 && plain.expires_at == 0 && put.ttl_s == 0 && put.expires_at == 0);
    json_object_put(object);
}

static void read_values(struct nx_slice text)
{
    static struct text out;
    struct tag_list tags;
    struct client_offset offset;

    nx_text_reset(&out, 0);
    (void)nx_percent_decode(&out, text, true);
    HOLDS(out.length <= text.length);
    if (nx_tags_parse(text, &tags) == 0) {
        (void)nx_tags_match(&tags, 7);
    }
    (void)nx_client_offset_parse(text, &offset);
    (void)nx_tag_listed(text, nx_slice_text("\"7\""), true);
}

static void read_range(struct nx_slice text)
{
    struct byte_range range;

    if (nx_range_parse(text, 1000, &range) == RANGE_PART) {
        HOLDS(range.length > 0 && range.first < 1000 && range.length <= 1000 - range.first);
    }
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > ((size_t)64 << 10)) {
        return 0;
    }
    uint8_t *bytes = malloc(size);
    struct nx_slice text = nx_slice_of(bytes, size - 1);

    HOLDS(bytes != NULL);
    memcpy(bytes, data + 1, size - 1);
    switch (data[0] % 5) {
    case 0:
        read_head((const char *)bytes, size - 1);
        break;
    case 1:
        read_query(text);
        break;
    case 2:
        read_json(text);
        read_line(text);
        break;
    case 3:
        read_values(text);
        break;
    default:
        read_range(text);
        break;
    }
    free(bytes);
    return 0;
}
