/* See http_answer.h. Pure functions. */
#include "nexus-bench/http_answer.h"

#include <errno.h>
#include <strings.h>

#define STATUS_AT     9 /* behind "HTTP/1.1 " */
#define HEAD_LEAST    (STATUS_AT + 3)
#define NO_LENGTH     UINT64_MAX
#define LONGEST_CHUNK ((uint64_t)1 << 60)

/* What the lines of a head say about the body. */
struct framing {
    uint64_t length; /* NO_LENGTH: nothing */
    bool chunked;
};

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* A decimal number up to the line's end; NO_LENGTH when it is none. */
static uint64_t parse_length(const uint8_t *p, const uint8_t *end)
{
    uint64_t value = 0;

    while (p < end && *p == ' ') {
        p++;
    }
    if (p == end || !is_digit(*p) || end - p > 18) {
        return NO_LENGTH;
    }
    for (; p < end && is_digit(*p); p++) {
        value = value * 10 + (uint64_t)(*p - '0');
    }
    return value;
}

static bool begins(const uint8_t *line, const uint8_t *end, const char *name, size_t length)
{
    return (size_t)(end - line) > length && strncasecmp((const char *)line, name, length) == 0;
}

static void look_at_line(const uint8_t *line, const uint8_t *end, struct framing *framing)
{
    static const char length[] = "content-length:";
    static const char coding[] = "transfer-encoding:";

    /* Most lines are told by one character. */
    if ((*line | 0x20) == 'c' && begins(line, end, length, sizeof length - 1)) {
        framing->length = parse_length(line + sizeof length - 1, end);
    } else if ((*line | 0x20) == 't' && begins(line, end, coding, sizeof coding - 1)) {
        framing->chunked = true;
    }
}

/* The head's length when it is complete, with what it says about the body; else 0. */
static size_t scan_head(struct nx_slice data, struct framing *ret_framing)
{
    const uint8_t *line = data.data;
    const uint8_t *end = data.data + data.length;
    const uint8_t *newline;

    *ret_framing = (struct framing){.length = NO_LENGTH, .chunked = false};
    while ((newline = memchr(line, '\n', (size_t)(end - line))) != NULL) {
        const uint8_t *line_end = newline > line && newline[-1] == '\r' ? newline - 1 : newline;

        if (line_end == line) {
            return (size_t)(newline + 1 - data.data);
        }
        look_at_line(line, line_end, ret_framing);
        line = newline + 1;
    }
    return 0;
}

static bool has_no_body(unsigned status)
{
    return status < 200 || status == 204 || status == 304;
}

static int take_head(struct bench_http_answer *answer, struct nx_slice data, size_t *used)
{
    struct framing framing;
    const uint8_t *p = data.data;
    size_t head;

    if (data.length < HEAD_LEAST) {
        return 0;
    }
    if (memcmp(p, "HTTP/1.", 7) != 0 || !is_digit(p[STATUS_AT]) || !is_digit(p[STATUS_AT + 1]) ||
        !is_digit(p[STATUS_AT + 2])) {
        return -EPROTO;
    }
    head = scan_head(data, &framing);
    if (head == 0) {
        return 0;
    }
    answer->status = (unsigned)(p[STATUS_AT] - '0') * 100 +
                     (unsigned)(p[STATUS_AT + 1] - '0') * 10 + (unsigned)(p[STATUS_AT + 2] - '0');
    if (has_no_body(answer->status)) {
        framing = (struct framing){.length = 0, .chunked = false};
    }
    if (framing.chunked) {
        answer->stage = BENCH_HTTP_CHUNK_SIZE;
    } else if (framing.length == NO_LENGTH) {
        return -EPROTO;
    } else if (framing.length <= BENCH_HTTP_KEPT && data.length - head < framing.length) {
        return 0; /* the head is read again when all is there: rare, and then the text is in one piece */
    } else {
        answer->stage = BENCH_HTTP_BODY;
        answer->left = framing.length;
        answer->body = framing.length;
    }
    *used += head;
    return 1;
}

static int take_body(struct bench_http_answer *answer, struct nx_slice data, size_t *used)
{
    size_t n = data.length < answer->left ? data.length : (size_t)answer->left;

    answer->text = nx_slice_of(data.data, n);
    answer->left -= n;
    *used += n;
    return answer->left == 0;
}

static int hex_digit(uint8_t c)
{
    if (is_digit(c)) {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int take_chunk_size(struct bench_http_answer *answer, struct nx_slice data, size_t *used)
{
    const uint8_t *newline = data.length == 0 ? NULL : memchr(data.data, '\n', data.length);
    const uint8_t *p = data.data;
    uint64_t size = 0;

    if (newline == NULL) {
        return 0;
    }
    for (; hex_digit(*p) >= 0 && size < LONGEST_CHUNK; p++) {
        size = size << 4 | (uint64_t)hex_digit(*p);
    }
    if (p == data.data || size >= LONGEST_CHUNK) {
        return -EPROTO;
    }
    answer->body += size;
    answer->stage = size == 0 ? BENCH_HTTP_TRAILER : BENCH_HTTP_CHUNK;
    answer->left = size + 2;
    *used += (size_t)(newline + 1 - data.data);
    return 1;
}

static int take_chunk(struct bench_http_answer *answer, struct nx_slice data, size_t *used)
{
    if (take_body(answer, data, used) == 0) {
        return 0;
    }
    answer->stage = BENCH_HTTP_CHUNK_SIZE;
    return 1;
}

/* Lines up to an empty one. Whether the answer is over shows in *ret_over. */
static int take_trailer(struct nx_slice data, size_t *used, bool *ret_over)
{
    const uint8_t *newline = data.length == 0 ? NULL : memchr(data.data, '\n', data.length);

    if (newline == NULL) {
        return 0;
    }
    *ret_over = newline == data.data || (newline == data.data + 1 && data.data[0] == '\r');
    *used += (size_t)(newline + 1 - data.data);
    return 1;
}

int bench_http_answer_take(struct bench_http_answer *answer, struct nx_slice data, size_t *ret_used)
{
    size_t used = 0;
    bool over = false;
    int rc = 1;

    answer->text = nx_slice_of(NULL, 0); /* that of the last call may be gone */
    while (rc > 0 && !over) {
        struct nx_slice rest = nx_slice_of(data.data + used, data.length - used);

        switch (answer->stage) {
        case BENCH_HTTP_HEAD:
            rc = take_head(answer, rest, &used);
            break;
        case BENCH_HTTP_BODY:
            rc = take_body(answer, rest, &used);
            over = rc > 0 && answer->status >= 200;
            answer->stage = rc > 0 ? BENCH_HTTP_HEAD : BENCH_HTTP_BODY; /* behind "100 Continue" */
            break;
        case BENCH_HTTP_CHUNK_SIZE:
            rc = take_chunk_size(answer, rest, &used);
            break;
        case BENCH_HTTP_CHUNK:
            rc = take_chunk(answer, rest, &used);
            break;
        case BENCH_HTTP_TRAILER:
            rc = take_trailer(rest, &used, &over);
            break;
        }
    }
    *ret_used = used;
    return rc;
}
