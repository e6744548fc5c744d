/* etcd v3: gRPC over HTTP/2 without TLS, just as much of it as KV/Put, Range, DeleteRange and Txn take. Headers are written
 * without compression (RFC 7541, literals) and not read: an answer that has data is a good one, since an error of gRPC
 * comes as trailers alone. */
#include "nexus-bench/http2.h"
#include "nexus-bench/keys.h"
#include "nexus-bench/options.h"
#include "nexus-bench/protocol.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define GRPC_HEAD 5    /* a zero and the length of the message */
#define KEPT      4096 /* bytes of a value that are told */
#define REFUSED \
    "a gRPC error; a transaction takes 128 puts, if etcd is not told otherwise, and no key twice"

enum wire {
    WIRE_NUMBER = 0,
    WIRE_BYTES = 2
};

struct templates {
    struct text headers[BENCH_KINDS]; /* the block, for each operation */
    size_t value;
};

struct state {
    struct bench_http2 http2;
    uint64_t data;        /* bytes of the answer that came */
    bool found;           /* with a key-value pair */
    uint64_t value_bytes; /* of that one */
    struct text value;    /* its first bytes: the trailers come with another read */
};

static void open_connection(void *of_connection, struct text *out)
{
    struct state *state = of_connection;

    bench_http2_open(&state->http2, out);
}

static void close_connection(void *of_connection)
{
    struct state *state = of_connection;

    bench_http2_close(&state->http2);
    nx_text_free(&state->value);
}

/* ---- templates ---- */

static void add_literal(struct text *block, const char *text)
{
    uint8_t length = (uint8_t)strlen(text); /* below 127, as all here */

    (void)nx_text_add(block, &length, 1);
    (void)nx_text_puts(block, text);
}

/* Fields by their numbers in HPACK's static table: POST, http, :path, :authority, content-type; and "te" by name. */
static void make_headers(struct text *block, const char *path, const char *authority)
{
    (void)nx_text_puts(block, "\x83\x86\x04");
    add_literal(block, path);
    (void)nx_text_puts(block, "\x01");
    add_literal(block, authority);
    (void)nx_text_puts(block, "\x0f\x10");
    add_literal(block, "application/grpc");
    (void)nx_text_add(block, "", 1);
    add_literal(block, "te");
    add_literal(block, "trailers");
}

static void release(void *prepared)
{
    struct templates *templates = prepared;

    for (size_t i = 0; i < BENCH_KINDS; i++) {
        nx_text_free(&templates->headers[i]);
    }
    free(templates);
}

static void *prepare(const struct bench_options *options, const struct bench_target *target)
{
    static const char *const methods[] = {
        [BENCH_GET] = "Range", [BENCH_PROBE] = "Range", [BENCH_DELETE] = "DeleteRange",
        [BENCH_PUT] = "Put",   [BENCH_WAIT] = "Put",    [BENCH_IMPORT] = "Txn",
    };
    struct templates *templates = calloc(1, sizeof *templates);
    const char *authority = strlen(target->text) < 100 ? target->text : "localhost";
    char path[48];

    for (size_t i = 0; templates != NULL && i < BENCH_KINDS; i++) {
        (void)snprintf(path, sizeof path, "/etcdserverpb.KV/%s", methods[i]);
        make_headers(&templates->headers[i], path, authority);
        templates->value = options->value;
        if (templates->headers[i].failed) {
            release(templates);
            return NULL;
        }
    }
    return templates;
}

/* ---- requests, in Protocol Buffers ---- */

static size_t varint_size(uint64_t value)
{
    size_t size = 1;

    for (; value > 127; value >>= 7) {
        size++;
    }
    return size;
}

static void add_varint(struct text *out, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;

    for (; value > 127; value >>= 7) {
        bytes[n++] = (uint8_t)(value | 128);
    }
    bytes[n++] = (uint8_t)value;
    (void)nx_text_add(out, bytes, n);
}

/* Bytes of a field with so many bytes in it; fields here have numbers below 16. */
static size_t field_size(size_t length)
{
    return 1 + varint_size(length) + length;
}

static void add_field(struct text *out, unsigned number, enum wire wire, uint64_t value)
{
    add_varint(out, number << 3 | wire);
    add_varint(out, value); /* of bytes their number: they follow */
}

static void add_key(struct text *out, uint64_t key)
{
    uint8_t *p;

    add_field(out, 1, WIRE_BYTES, BENCH_KEY_LENGTH);
    p = bench_room(out, BENCH_KEY_LENGTH);
    if (p != NULL) {
        bench_key_write(p, key);
    }
}

/* PutRequest: key 1, value 2. */
static void add_put(struct text *out, uint64_t key, size_t value, struct bench_random *random)
{
    uint8_t *p;

    add_key(out, key);
    add_field(out, 2, WIRE_BYTES, value);
    p = bench_room(out, value);
    if (p != NULL) {
        bench_value_write(p, value, random);
    }
}

static size_t put_size(size_t value)
{
    return field_size(BENCH_KEY_LENGTH) + field_size(value);
}

static void add_message(struct text *out,
                        const struct bench_request *request,
                        size_t value,
                        struct bench_random *random)
{
    switch (request->operation) {
    case BENCH_PROBE: /* RangeRequest: key 1, serializable 7: what this node has */
        add_key(out, request->keys[0]);
        add_field(out, 7, WIRE_NUMBER, 1);
        break;
    case BENCH_GET:
    case BENCH_DELETE: /* DeleteRangeRequest: key 1 */
        add_key(out, request->keys[0]);
        break;
    case BENCH_PUT:
    case BENCH_WAIT:
        add_put(out, request->keys[0], value, random);
        break;
    case BENCH_IMPORT: /* TxnRequest: success 2, of RequestOp: request_put 2 */
        for (size_t i = 0; i < request->count; i++) {
            add_field(out, 2, WIRE_BYTES, field_size(put_size(value)));
            add_field(out, 2, WIRE_BYTES, put_size(value));
            add_put(out, request->keys[i], value, random);
        }
        break;
    }
}

static void write_request(const void *prepared,
                          void *of_connection,
                          const struct bench_request *request,
                          struct bench_random *random,
                          struct text *out)
{
    const struct templates *templates = prepared;
    struct state *state = of_connection;
    struct text *message = &state->http2.message;
    uint32_t length;

    message->length = 0;
    state->value.length = 0;
    (void)bench_room(message, GRPC_HEAD);
    add_message(message, request, templates->value, random);
    if (message->failed) {
        out->failed = true;
        return;
    }
    length = htobe32((uint32_t)(message->length - GRPC_HEAD));
    message->data[0] = 0;
    memcpy(message->data + 1, &length, sizeof length);
    bench_http2_send(&state->http2, &templates->headers[request->operation], out);
}

/* ---- answers ---- */

static uint64_t take_varint(struct nx_reader *reader)
{
    uint64_t value = 0;
    uint8_t byte = 128;

    for (unsigned shift = 0; byte > 127 && shift < 64; shift += 7) {
        byte = nx_read_u8(reader);
        value |= (uint64_t)(byte & 127) << shift;
    }
    return value;
}

/* The first field of a message that has this number, and bytes: how many it says, and those of them that are here. */
static bool find_bytes(struct nx_slice message,
                       unsigned number,
                       uint64_t *ret_length,
                       struct nx_slice *ret_bytes)
{
    struct nx_reader reader = nx_reader_of(message.data, message.length);

    while (!reader.bad && reader.left > 0) {
        uint64_t tag = take_varint(&reader);
        uint64_t value = take_varint(&reader);

        if (tag == (number << 3 | WIRE_BYTES)) {
            *ret_length = value;
            *ret_bytes = nx_slice_of(reader.p, value < reader.left ? value : reader.left);
            return true;
        }
        if ((tag & 7) == WIRE_BYTES) {
            (void)nx_read_raw(&reader, value);
        }
    }
    return false;
}

/* RangeResponse: kvs 2; KeyValue: value 5. A long value doesn't fit into the frame that begins it. */
static void look_for_value(struct state *state, struct nx_slice message)
{
    uint64_t length;
    struct nx_slice pair;
    struct nx_slice value;

    state->found = find_bytes(message, 2, &length, &pair);
    if (state->found && find_bytes(pair, 5, &state->value_bytes, &value)) {
        (void)nx_text_add(&state->value, value.data, value.length < KEPT ? value.length : KEPT);
    }
}

/* The head of gRPC may come in a frame of its own, or in front of the message. */
static void take_data(struct state *state, struct nx_slice data)
{
    size_t head = state->data < GRPC_HEAD ? (size_t)(GRPC_HEAD - state->data) : 0;

    if (state->data <= GRPC_HEAD && data.length > head) {
        look_for_value(state, nx_slice_of(data.data + head, data.length - head));
    }
    state->data += data.length;
}

/* The stream has ended: what that means for its request. */
static void end(struct state *state,
                const struct bench_request *request,
                struct bench_answer *ret_answer)
{
    bool reads = bench_reads(request);

    *ret_answer = (struct bench_answer){.result = BENCH_DONE};
    if (state->data == 0) {
        ret_answer->result = BENCH_FAILED;
        ret_answer->text = nx_slice_text(REFUSED);
    } else if (reads && !state->found) {
        ret_answer->result = BENCH_ABSENT;
    } else if (reads) {
        ret_answer->value_bytes = state->value_bytes;
        ret_answer->text = nx_slice_of(state->value.data, state->value.length);
    }
    state->data = 0;
    state->found = false;
    state->value_bytes = 0; /* an empty value isn't written at all */
}

static int read_answer(void *of_connection,
                       const struct bench_request *request,
                       struct nx_slice data,
                       size_t *ret_used,
                       struct bench_answer *ret_answer,
                       struct text *out)
{
    struct state *state = of_connection;
    struct bench_http2_frame frame = {.ends = false};
    size_t used = 0;
    int rc = 1;

    while (rc > 0 && !frame.ends) {
        size_t n;

        rc = bench_http2_take(&state->http2, nx_slice_of(data.data + used, data.length - used), &n,
                              &frame, out);
        take_data(state, frame.data);
        state->data = frame.resets ? 0 : state->data;
        used += n;
    }
    *ret_used = used;
    if (rc > 0 && request == NULL) {
        return -EPROTO; /* an answer to nothing */
    }
    if (rc > 0) {
        end(state, request, ret_answer);
    }
    return rc;
}

const struct bench_protocol bench_etcd = {
    .name = "etcd",
    .state_size = sizeof(struct state),
    .open = open_connection,
    .close = close_connection,
    .prepare = prepare,
    .release = release,
    .write = write_request,
    .read = read_answer,
};
