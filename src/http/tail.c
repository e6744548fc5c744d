/* Runs in http workers. Owns the buffer that a worker reads the log to, and the place that it has come to; see
 * tail.h. Reads shared memory and WAL files, writes neither. */
#include "http/tail.h"

#include "common/latch.h"
#include "common/log.h"
#include "common/quorum.h"
#include "http/worker.h"
#include "storage/file_io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* Small, since what is read is sent: it is about what a slow follower costs, and how long a turn takes. */
#define CHUNK ((size_t)64 << 10)

void nx_tail_init(struct http_worker *worker)
{
    nx_stream_open(&worker->tail.stream, worker->shm, worker->process->state_root);
}

static void free_buffer(struct tail *tail)
{
    free(tail->buf);
    tail->buf = NULL;
    tail->cap = 0;
}

void nx_tail_free(struct http_worker *worker)
{
    nx_stream_close(&worker->tail.stream);
    free_buffer(&worker->tail);
}

/* ---- reading ---- */

/* A buffer of this size: one that was made for a large entry is given back by it. */
static int make_buffer(struct tail *tail, size_t size)
{
    if (tail->cap != size) {
        free_buffer(tail);
        tail->buf = malloc(size);
        tail->cap = tail->buf == NULL ? 0 : size;
    }
    return tail->buf == NULL ? -ENOMEM : 0;
}

int nx_tail_read(struct tail *tail,
                 struct nx_stream *stream,
                 uint64_t from,
                 uint64_t last,
                 bool large,
                 struct nx_log_chunk *ret_chunk)
{
    size_t size = CHUNK;
    int rc;

    do {
        rc = make_buffer(tail, size);
        if (rc < 0) {
            return rc;
        }
        *ret_chunk = (struct nx_log_chunk){.buf = tail->buf, .cap = tail->cap};
        rc = nx_stream_read(stream, from, last, ret_chunk);
        size = ret_chunk->length;
    } while (rc == -EMSGSIZE && large && size > tail->cap);
    return rc;
}

int nx_tail_frame(struct nx_slice *frames, struct nx_entry_header *ret_header)
{
    if (frames->length == 0) {
        return 0;
    }
    if (nx_entry_decode(frames->data, frames->length, false, ret_header) < 0) {
        return -EBADMSG;
    }
    frames->data += ret_header->frame_length;
    frames->length -= ret_header->frame_length;
    return 1;
}

/* ---- running ---- */

static bool is_wanted(const struct http_worker *worker)
{
    return nx_changes_live(worker) || worker->watches.count > 0;
}

uint64_t nx_tail_begin(struct http_worker *worker, uint64_t next)
{
    struct tail *tail = &worker->tail;

    if (tail->next == 0) {
        tail->next = next;
    }
    return tail->next;
}

uint64_t nx_tail_last(const struct http_worker *worker)
{
    return worker->tail.next > 0 ? worker->tail.next - 1 : nx_committed_offset(worker->shm);
}

static void rest(struct http_worker *worker)
{
    nx_stream_close(&worker->tail.stream);
    worker->tail.next = 0;
}

/* The keys that the entries touch, for those who wait for one of them. */
static int touch_keys(struct http_worker *worker, struct nx_slice frames)
{
    struct nx_entry_header header;
    struct nx_op_iter iter;
    struct nx_op op;
    int rc = 0;

    while (rc == 0 && (rc = nx_tail_frame(&frames, &header)) > 0) {
        nx_op_iter_init(&iter, header.ops, header.ops_length, header.op_count);
        while ((rc = nx_op_next(&iter, &op)) > 0) {
            nx_watches_touch(worker, op.key);
        }
    }
    return rc;
}

/* Hands out the next chunk. An entry that is larger than the buffer is not pushed to followers: each fetches
 * it when its client has taken what it was sent before, so that it isn't in memory once for each of them. It is
 * read here for waits, and for followers that have it, or wait for a later one: they look at its epoch. */
static int hand_out(struct http_worker *worker, uint64_t committed)
{
    struct tail *tail = &worker->tail;
    struct nx_log_chunk chunk;
    int rc = nx_tail_read(tail, &tail->stream, tail->next, committed, false, &chunk);

    if (rc == -EMSGSIZE) {
        nx_changes_fall_behind(worker, tail->next);
        chunk.length = 0;
        chunk.last = tail->next;
        rc = 0;
        if (is_wanted(worker)) {
            rc = nx_tail_read(tail, &tail->stream, tail->next, tail->next, true, &chunk);
        }
    }
    if (rc == 0 && worker->watches.count > 0) {
        rc = touch_keys(worker, nx_slice_of(chunk.buf, chunk.length));
    }
    if (rc == 0) {
        nx_changes_push(worker, nx_slice_of(chunk.buf, chunk.length));
        tail->next = chunk.last + 1;
    }
    return rc;
}

/* What comes next can't be read: the worker stood still for so long that it is no longer kept, or memory or
 * descriptors are short. Followers come again and are told; waiting reads look at their keys. */
static void lose(struct http_worker *worker, uint64_t committed, int error)
{
    static struct nx_log_limit limit;

    nx_log_limited(&limit, NX_LOG_ERROR,
                   "entry %" PRIu64
                   " can't be read for those who follow the log here, who are cut: %s",
                   worker->tail.next,
                   error == -ENOENT    ? "it is no longer kept"
                   : error == -EBADMSG ? "it is damaged"
                                       : nx_errno_text(error));
    nx_changes_cut_live(worker);
    nx_watches_touch_all(worker);
    worker->tail.next = committed + 1;
}

bool nx_tail_poll(struct http_worker *worker)
{
    struct tail *tail = &worker->tail;
    uint64_t committed;
    int rc;

    if (tail->cap > CHUNK || (nx_changes_none(worker) && worker->watches.count == 0)) {
        free_buffer(tail);
    }
    if (!is_wanted(worker)) {
        rest(worker);
        return false;
    }
    committed = nx_committed_offset(worker->shm);
    if (tail->next > committed) {
        return false;
    }
    rc = hand_out(worker, committed);
    if (rc < 0) {
        lose(worker, committed, rc);
    }
    nx_watches_wake(worker);
    return true;
}

bool nx_tail_due(const struct http_worker *worker)
{
    return is_wanted(worker) && worker->tail.next <= nx_committed_offset(worker->shm);
}

uint64_t nx_tail_wanted(const struct http_worker *worker)
{
    return is_wanted(worker) ? worker->tail.next : NX_WAKE_NEVER;
}
