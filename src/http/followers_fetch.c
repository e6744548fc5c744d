/* Runs in http workers. Those who follow the log and aren't level with its tail: each reads on from its own
 * position, by a stream of its own, a chunk at a time; and the end of those whose clients are too slow for what
 * is written. See changes.h. */
#include "common/latch.h"
#include "common/log.h"
#include "common/quorum.h"
#include "common/shared_log.h"
#include "http/changes_event.h"
#include "http/followers.h"

#include <errno.h>
#include <inttypes.h>

#define LARGE_PIECE (256u << 10)
#define LARGE_BYTES (64u << 20) /* large pieces in memory; one alone may be larger */
#define FAR_BEHIND  (16u << 20) /* bytes of the log */
#define SLOW_MS     2000        /* for so long a client is waited for in all, while far behind */
#define LOOK_MS     250         /* between looks for such */

/* ---- fetching ---- */

/* Reads what comes next for it. 0; -EAGAIN: it is large, and has to wait; or a negative error. */
static int read_next(struct follower *follower, uint64_t last, struct nx_log_chunk *ret_chunk)
{
    const struct changes *changes = nx_follower_changes(follower);
    struct tail *tail = &follower->connection->worker->tail;
    uint64_t next = follower->at.offset + 1;
    int rc = nx_tail_read(tail, &follower->stream, next, last, false, ret_chunk);

    if (rc != -EMSGSIZE) {
        return rc;
    }
    if (changes->large > 0 && changes->large + ret_chunk->length > LARGE_BYTES) {
        return -EAGAIN;
    }
    return nx_tail_read(tail, &follower->stream, next, next, true, ret_chunk);
}

static void send_fetched(struct follower *follower)
{
    struct changes *changes = nx_follower_changes(follower);
    const struct text *text = &changes->own;

    nx_follower_move(follower, FOLLOWER_SENDING);
    follower->sent_ms = nx_now_ms();
    if (text->length > LARGE_PIECE) {
        follower->large = text->length;
        changes->large += text->length;
    }
    nx_follower_send(follower, text);
    nx_text_reset(&changes->own, NX_FOLLOWER_KEEP_TEXT);
}

void nx_follower_fetch(struct follower *follower)
{
    struct http_worker *worker = follower->connection->worker;
    struct text *text = &worker->changes.own;
    uint64_t last = nx_tail_last(worker);
    struct nx_log_chunk chunk;
    int rc;

    if (follower->at.offset >= last) {
        nx_follower_move(follower, nx_follower_place(follower));
        return;
    }
    nx_text_reset(text, NX_FOLLOWER_KEEP_TEXT);
    rc = read_next(follower, last, &chunk);
    if (rc == 0) {
        rc = nx_changes_put_frames(text, &follower->at, nx_slice_of(chunk.buf, chunk.length),
                                   nx_follower_prefix(follower));
    }
    if (rc == -EAGAIN) {
        nx_follower_move(follower, FOLLOWER_LARGE);
    } else if (rc < 0 || text->failed) {
        nx_follower_cut_unread(follower, rc < 0 ? rc : -ENOMEM);
    } else if (text->length > 0) {
        send_fetched(follower);
    } else {
        nx_follower_move(follower, FOLLOWER_READY);
    }
}

void nx_follower_give_back_large(struct follower *follower)
{
    struct changes *changes = nx_follower_changes(follower);
    struct follower *waiting;

    if (follower->large == 0) {
        return;
    }
    changes->large -= follower->large;
    follower->large = 0;
    while ((waiting = TAILQ_FIRST(&changes->by_state[FOLLOWER_LARGE])) != NULL) {
        nx_follower_move(waiting, FOLLOWER_READY);
    }
}

/* ---- slow clients ---- */

/* One that is still catching up from where its client began may be as far behind as it is. */
static bool is_far_behind(const struct follower *follower)
{
    struct nx_shm *shm = follower->connection->worker->shm;

    return follower->was_live &&
           nx_log_bytes_between(shm, follower->at.offset, nx_committed_offset(shm)) > FAR_BEHIND;
}

static void log_slow(const struct follower *follower)
{
    static struct nx_log_limit limit;

    nx_log_limited(&limit, NX_LOG_WARNING,
                   "a follower of /changes is cut at offset %" PRIu64
                   ": it takes less than is written, and is more than %u MiB behind",
                   follower->at.offset, FAR_BEHIND >> 20);
}

void nx_follower_drained(struct follower *follower)
{
    if (follower->state != FOLLOWER_SENDING) {
        return;
    }
    nx_follower_give_back_large(follower);
    follower->slow_ms =
        is_far_behind(follower) ? follower->slow_ms + (nx_now_ms() - follower->sent_ms) : 0;
    if (follower->slow_ms > SLOW_MS) {
        log_slow(follower);
        nx_connection_close(follower->connection);
    } else {
        nx_follower_move(follower, FOLLOWER_READY);
    }
}

void nx_followers_cut_slow(struct http_worker *worker)
{
    struct follower *follower = nx_follower_first(worker, FOLLOWER_SENDING);
    uint64_t now;

    if (follower == NULL) {
        return;
    }
    now = nx_now_ms();
    if (now - worker->changes.looked_ms < LOOK_MS) {
        return;
    }
    worker->changes.looked_ms = now;
    while (follower != NULL) {
        struct follower *next = TAILQ_NEXT(follower, by_state);

        if (follower->slow_ms + (now - follower->sent_ms) > SLOW_MS && is_far_behind(follower)) {
            log_slow(follower);
            nx_follower_cut(follower);
        }
        follower = next;
    }
}
