/* Redis's protocol, RESP2 (redis.io/docs/reference/protocol-spec). A request may be several commands in one write: an
 * import is a SET for each key, a wait is SET and WAIT; it is answered when all of them are. */
#include "nexus-bench/keys.h"
#include "nexus-bench/options.h"
#include "nexus-bench/protocol.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define KEPT          8192 /* a bulk string of so many bytes is told as a whole */
#define WAIT_COMMAND  "*3\r\n$4\r\nWAIT\r\n$1\r\n1\r\n$1\r\n0\r\n"
#define LINE_END      "\r\n"
#define LONGEST_LINE  512
#define ERROR_SIZE    128
#define MOST_DIGITS   18
#define LINE_END_SIZE 2

/* A command, its key filled with '#'. */
struct template
{
    struct text head; /* of a SET: all in front of the value */
    size_t key_at;
};

struct templates {
    struct template set;
    struct template get;
    struct template del;
    size_t value;
};

/* Of the request that is answered now. */
struct state {
    uint64_t replies;     /* that were read */
    uint64_t left;        /* of a long bulk string and its line end */
    uint64_t value_bytes; /* of bulk strings */
    enum bench_result result;
    size_t error_length;
    uint8_t error[ERROR_SIZE]; /* the first one's text */
};

/* ---- requests ---- */

static void make_template(struct template *made, const char *words)
{
    struct text *head = &made->head;

    (void)nx_text_puts(head, words);
    (void)nx_text_puts(head, "$16\r\n");
    made->key_at = head->length;
    (void)nx_text_puts(head, "key:############\r\n");
}

static void release(void *prepared)
{
    struct templates *templates = prepared;

    nx_text_free(&templates->set.head);
    nx_text_free(&templates->get.head);
    nx_text_free(&templates->del.head);
    free(templates);
}

static void *prepare(const struct bench_options *options, const struct bench_target *target)
{
    struct templates *templates = calloc(1, sizeof *templates);

    (void)target;
    if (templates == NULL) {
        return NULL;
    }
    templates->value = options->value;
    make_template(&templates->get, "*2\r\n$3\r\nGET\r\n");
    make_template(&templates->del, "*2\r\n$3\r\nDEL\r\n");
    make_template(&templates->set, "*3\r\n$3\r\nSET\r\n");
    (void)nx_text_puts(&templates->set.head, "$");
    (void)nx_text_u64(&templates->set.head, options->value);
    (void)nx_text_puts(&templates->set.head, LINE_END);
    if (templates->get.head.failed || templates->del.head.failed || templates->set.head.failed) {
        release(templates);
        return NULL;
    }
    return templates;
}

/* A command whose template is followed by `more` bytes; where these begin, or NULL. */
static uint8_t *write_command(const struct template *template,
                              uint64_t key,
                              size_t more,
                              struct text *out)
{
    uint8_t *p = bench_room(out, template->head.length + more);

    if (p == NULL) {
        return NULL;
    }
    memcpy(p, template->head.data, template->head.length);
    bench_key_write(p + template->key_at, key);
    return p + template->head.length;
}

static void write_set(const struct templates *templates,
                      uint64_t key,
                      struct bench_random *random,
                      struct text *out)
{
    uint8_t *p = write_command(&templates->set, key, templates->value + LINE_END_SIZE, out);

    if (p != NULL) {
        bench_value_write(p, templates->value, random);
        memcpy(p + templates->value, LINE_END, LINE_END_SIZE);
    }
}

static void write_request(const void *prepared,
                          void *state,
                          const struct bench_request *request,
                          struct bench_random *random,
                          struct text *out)
{
    const struct templates *templates = prepared;

    (void)state;
    switch (request->operation) {
    case BENCH_GET:
    case BENCH_PROBE:
        (void)write_command(&templates->get, request->keys[0], 0, out);
        break;
    case BENCH_DELETE:
        (void)write_command(&templates->del, request->keys[0], 0, out);
        break;
    case BENCH_PUT:
    case BENCH_IMPORT:
    case BENCH_WAIT:
        for (size_t i = 0; i < request->count; i++) {
            write_set(templates, request->keys[i], random, out);
        }
        break;
    }
    if (request->operation == BENCH_WAIT) {
        (void)nx_text_puts(out, WAIT_COMMAND);
    }
}

/* ---- answers ---- */

static uint64_t replies_of(const struct bench_request *request)
{
    return request->operation == BENCH_WAIT ? 2 : request->count;
}

static void fail(struct state *state, struct nx_slice text)
{
    if (state->result != BENCH_FAILED) {
        state->result = BENCH_FAILED;
        state->error_length = text.length < ERROR_SIZE ? text.length : ERROR_SIZE;
        memcpy(state->error, text.data, state->error_length);
    }
}

/* The number behind the first character of a line, -1 for "-1". False: there is none. */
static bool parse_number(struct nx_slice line, int64_t *ret_number)
{
    int64_t number = 0;

    if (line.length == 3 && line.data[1] == '-' && line.data[2] == '1') {
        *ret_number = -1;
        return true;
    }
    if (line.length < 2 || line.length > MOST_DIGITS) {
        return false;
    }
    for (size_t i = 1; i < line.length; i++) {
        if (line.data[i] < '0' || line.data[i] > '9') {
            return false;
        }
        number = number * 10 + (line.data[i] - '0');
    }
    *ret_number = number;
    return true;
}

/* What follows "$5": a short string is taken once all of it is there. 1, 0 or -EPROTO, as read() of a protocol. */
static int take_bulk(struct state *state,
                     struct nx_slice line,
                     struct nx_slice behind,
                     size_t *used,
                     struct nx_slice *ret_text)
{
    int64_t length;
    size_t whole;

    if (!parse_number(line, &length)) {
        return -EPROTO;
    }
    if (length < 0) {
        state->result = state->result == BENCH_FAILED ? BENCH_FAILED : BENCH_ABSENT;
        return 1;
    }
    whole = (size_t)length + LINE_END_SIZE;
    if (length <= KEPT && behind.length < whole) {
        *used = 0; /* the line comes again, with more behind it */
        return 0;
    }
    state->value_bytes += (uint64_t)length;
    if (behind.length < whole) {
        state->left = whole - behind.length;
        *used += behind.length;
        return 0;
    }
    *ret_text = nx_slice_of(behind.data, (size_t)length);
    *used += whole;
    return 1;
}

/* WAIT's number must say that a replica has it. */
static int take_integer(struct state *state,
                        const struct bench_request *request,
                        struct nx_slice line)
{
    int64_t number;

    if (!parse_number(line, &number)) {
        return -EPROTO;
    }
    if (request->operation == BENCH_WAIT && number < 1) {
        fail(state, nx_slice_text("WAIT: no replica has it"));
    }
    return 1;
}

/* One reply: 1, 0 or -EPROTO, as read() of a protocol. */
static int take_reply(struct state *state,
                      const struct bench_request *request,
                      struct nx_slice data,
                      size_t *ret_used,
                      struct nx_slice *ret_text)
{
    const uint8_t *newline = memchr(data.data, '\n', data.length);
    struct nx_slice line;

    *ret_used = 0;
    if (newline == NULL) {
        return data.length > LONGEST_LINE ? -EPROTO : 0;
    }
    *ret_used = (size_t)(newline + 1 - data.data);
    if (*ret_used < 3) {
        return -EPROTO;
    }
    line = nx_slice_of(data.data, *ret_used - LINE_END_SIZE);
    switch (line.data[0]) {
    case '+':
        return 1;
    case '-':
        fail(state, line);
        return 1;
    case ':':
        return take_integer(state, request, line);
    case '$':
        return take_bulk(state, line, nx_slice_of(newline + 1, data.length - *ret_used), ret_used,
                         ret_text);
    default:
        return -EPROTO;
    }
}

/* The rest of a long string. */
static int skip(struct state *state, struct nx_slice data, size_t *ret_used)
{
    *ret_used = data.length < state->left ? data.length : (size_t)state->left;
    state->left -= *ret_used;
    return state->left == 0;
}

static int read_answer(void *of_connection,
                       const struct bench_request *request,
                       struct nx_slice data,
                       size_t *ret_used,
                       struct bench_answer *ret_answer,
                       struct text *out)
{
    struct state *state = of_connection;
    struct nx_slice text = {.data = NULL};
    size_t used = 0;
    int rc = 1;

    (void)out;
    if (request == NULL) {
        return -EPROTO;
    }
    while (rc > 0 && state->replies < replies_of(request) && used < data.length) {
        struct nx_slice rest = nx_slice_of(data.data + used, data.length - used);
        size_t n;

        rc = state->left > 0 ? skip(state, rest, &n) : take_reply(state, request, rest, &n, &text);
        used += n;
        state->replies += rc > 0 ? 1 : 0;
    }
    *ret_used = used;
    if (rc < 0 || state->replies < replies_of(request)) {
        return rc < 0 ? rc : 0;
    }
    *ret_answer = (struct bench_answer){
        .result = state->result, .value_bytes = state->value_bytes, .text = text};
    if (state->result == BENCH_FAILED) {
        ret_answer->text = nx_slice_of(state->error, state->error_length);
    }
    state->replies = 0;
    state->value_bytes = 0;
    state->result = BENCH_DONE;
    return 1;
}

const struct bench_protocol bench_redis = {
    .name = "redis",
    .pipelines = true,
    .state_size = sizeof(struct state),
    .prepare = prepare,
    .release = release,
    .write = write_request,
    .read = read_answer,
};
