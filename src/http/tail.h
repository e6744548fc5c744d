/* The tail of the committed log: a worker reads each new entry once, for all who want it there: followers of
 * /changes that are level (changes.h) and reads that wait for another version of their key (watch.h).
 *
 * It runs only while there are such. Then the worker sleeps until the next entry is committed: an idle node's
 * followers cost no wake-up, and nobody looks at the log by the clock. */
#ifndef NX_HTTP_TAIL_H
#define NX_HTTP_TAIL_H

#include "common/entry.h"
#include "storage/log_stream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_worker;

struct tail {
    struct nx_stream stream;
    uint64_t next; /* entry that it hands out next; 0: it rests */
    uint8_t
        *buf; /* where this worker reads the log to, tail and followers alike; NULL: nobody reads */
    size_t cap;
};

void nx_tail_init(struct http_worker *worker);
void nx_tail_free(struct http_worker *worker);

/* Has it run, from entry `next` on if it rests. Returns the entry that it hands out next. */
uint64_t nx_tail_begin(struct http_worker *worker, uint64_t next);

/* The last entry that it has handed out, or, where it rests, the last that is committed. */
uint64_t nx_tail_last(const struct http_worker *worker);

/* Hands out the next entries, one chunk of them. True when there were any. */
bool nx_tail_poll(struct http_worker *worker);

/* Whether there are. */
bool nx_tail_due(const struct http_worker *worker);

/* The offset that it waits for, or NX_WAKE_NEVER. */
uint64_t nx_tail_wanted(const struct http_worker *worker);

/* Reads frames of [from, last] into the worker's one buffer, which holds them until the next call. As
 * nx_stream_read; large: an entry above the buffer's size is read alone, in a larger one. */
int nx_tail_read(struct tail *tail,
                 struct nx_stream *stream,
                 uint64_t from,
                 uint64_t last,
                 bool large,
                 struct nx_log_chunk *ret_chunk);

/* Takes the next frame off the front. 1; 0: there is none; -EBADMSG. */
int nx_tail_frame(struct nx_slice *frames, struct nx_entry_header *ret_header);

#endif
