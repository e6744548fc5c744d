/* How requests are written and answers read: a row and a file for each protocol. What is here is called for every
 * request, so it allocates nothing once its buffers have grown. */
#ifndef NX_BENCH_PROTOCOL_H
#define NX_BENCH_PROTOCOL_H

#include "common/bytes.h"
#include "common/text.h"
#include "nexus-bench/operation.h"
#include "nexus-bench/random.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bench_options;
struct bench_target;

/* One request. */
struct bench_request {
    const uint64_t *keys; /* of BENCH_IMPORT as many as the batch has; else one */
    size_t count;
    enum bench_operation operation;
};

enum bench_result {
    BENCH_DONE,
    BENCH_ABSENT, /* read, and there is no such key */
    BENCH_FAILED
};

/* The answer to one request. */
struct bench_answer {
    enum bench_result result;
    unsigned status;      /* of HTTP; 0 elsewhere */
    uint64_t value_bytes; /* that were read */
    struct nx_slice text; /* of a short answer all of it, of others what there is; borrowed */
};

/* Templates hold what all requests to a target have in common; a state is one connection's. */
struct bench_protocol {
    const char *name;
    bool pipelines;    /* takes a request before the last one is answered */
    bool headers;      /* takes --header and --token-file */
    size_t state_size; /* of a connection's state, which begins as zeros */
    /* What a connection begins with; NULL: nothing. */
    void (*open)(void *state, struct text *out);
    /* Gives back what a state has; NULL: nothing. */
    void (*close)(void *state);
    /* NULL: memory is short. */
    void *(*prepare)(const struct bench_options *options, const struct bench_target *target);
    void (*release)(void *templates);
    /* Appends a request; its values come from `random`. Memory that runs short shows as out->failed. */
    void (*write)(const void *templates,
                  void *state,
                  const struct bench_request *request,
                  struct bench_random *random,
                  struct text *out);
    /* Takes bytes of the answer to `request` (whose keys aren't known any more), the oldest that has none, or NULL
     * when all have: 1 and the
     * answer, once it is complete; 0 when more must come; -EPROTO when this is no answer. *ret_used bytes are done
     * with either way; the others come again, with more behind them. What must be said at once, as a ping's answer,
     * goes to out. */
    int (*read)(void *state,
                const struct bench_request *request,
                struct nx_slice data,
                size_t *ret_used,
                struct bench_answer *ret_answer,
                struct text *out);
};

/* By the name that --protocol gives; NULL: there is none. */
const struct bench_protocol *bench_protocol_find(const char *name);

extern const struct bench_protocol bench_http;
extern const struct bench_protocol bench_redis;
extern const struct bench_protocol bench_etcd;

/* Room for n more bytes of a request, to be filled by the caller; NULL when memory is short. */
static inline uint8_t *bench_room(struct text *out, size_t n)
{
    uint8_t *room;

    if (out->cap - out->length < n && !nx_text_reserve(out, n)) {
        return NULL;
    }
    room = out->data + out->length;
    out->length += n;
    return room;
}

/* The value bytes that a good request has written. */
static inline uint64_t bench_written(const struct bench_request *request, size_t value)
{
    bool writes = request->operation == BENCH_PUT || request->operation == BENCH_WAIT ||
                  request->operation == BENCH_IMPORT;

    return writes ? request->count * value : 0;
}

/* The request reads a key, of which an answer without a value says that it isn't there. */
static inline bool bench_reads(const struct bench_request *request)
{
    return request->operation == BENCH_GET || request->operation == BENCH_PROBE;
}

#endif
