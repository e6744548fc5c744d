/* Runs in http workers. Those who follow the log and aren't level with its tail: each reads on from its own
 * position, by a stream of its own, a chunk at a time, or one large entry; and the end of those whose clients
 * are too slow for what is written. See changes.h. */
#include "common/latch.h"
#include "common/log.h"
#include "common/quorum.h"
#include "common/shared_log.h"
#include "http/changes_event.h"
#include "http/followers.h"
#include "http/response.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#define LARGE_BYTES (64u << 20) /* of large events in memory; one alone may be larger */
#define FAR_BEHIND  (16u << 20) /* bytes of the log */
#define SLOW_MS     2000        /* for so long a client is waited for in all, while far behind */
#define HOLD_MS     5000 /* for so long one may hold a large event that keeps others waiting */
#define LOOK_MS     250  /* between looks for such */

static void sending(struct follower *follower)
{
    nx_follower_move(follower, FOLLOWER_SENDING);
    follower->sent_ms = nx_now_ms();
}

/* ---- large entries ---- */

static void free_large(struct large_event *event)
{
    nx_text_free(&event->text);
    free(event);
}

/* One client less has to take it. Without any it goes, and those that wait for room look whether that is enough. */
static void release_large(const void *bytes, size_t length, void *arg)
{
    struct large_event *event = arg;
    struct changes *changes = event->changes;
    struct follower *waiting;

    (void)bytes;
    if (--event->uses > 0) {
        return;
    }
    changes->large_bytes -= length;
    LIST_REMOVE(event, link);
    free_large(event);
    while ((waiting = TAILQ_FIRST(&changes->by_state[FOLLOWER_LARGE])) != NULL) {
        nx_follower_move(waiting, FOLLOWER_READY);
    }
}

static void send_large(struct follower *follower, struct large_event *event)
{
    struct connection *connection = follower->connection;

    event->uses++;
    follower->has_large = true;
    follower->at = event->at;
    sending(follower);
    nx_follower_told(follower);
    nx_respond_shared_piece(connection, nx_slice_of(event->text.data, event->text.length),
                            release_large, event);
    nx_connection_run(connection);
}

/* The event of the next entry as others are being sent it, NULL: none, or this one gets less of it. */
static struct large_event *find_large(const struct follower *follower)
{
    struct large_event *event;

    LIST_FOREACH(event, &nx_follower_changes(follower)->large_events, link) {
        if (follower->prefix_length == 0 && event->whole &&
            event->at.offset == follower->at.offset + 1) {
            return event;
        }
    }
    return NULL;
}

/* One alone may be larger. */
static bool has_room(const struct changes *changes, size_t length)
{
    return changes->large_bytes == 0 || changes->large_bytes + length <= LARGE_BYTES;
}

/* Moves the follower over the one frame. 0 and its event, NULL where nothing of it is for this follower; -EAGAIN:
 * it has to wait for room. */
static int make_large(struct follower *follower,
                      struct nx_slice frame,
                      struct large_event **ret_event)
{
    struct changes *changes = nx_follower_changes(follower);
    struct large_event *event = calloc(1, sizeof *event);
    int rc;

    *ret_event = NULL;
    if (event == NULL) {
        return -ENOMEM;
    }
    event->changes = changes;
    event->whole = follower->prefix_length == 0;
    event->at = follower->at;
    rc = nx_changes_put_frames(&event->text, &event->at, frame, nx_follower_prefix(follower));
    if (rc < 0 || event->text.failed) {
        free_large(event);
        return rc < 0 ? rc : -ENOMEM;
    }
    if (event->text.length == 0) {
        follower->at = event->at;
        free_large(event);
        return 0;
    }
    if (!has_room(changes, event->text.length)) {
        follower->large_wanted = event->text.length;
        free_large(event);
        return -EAGAIN;
    }
    follower->at = event->at;
    changes->large_bytes += event->text.length;
    LIST_INSERT_HEAD(&changes->large_events, event, link);
    *ret_event = event;
    return 0;
}

/* The next entry is large. What of it is for this follower, and so how much room that takes, is known only once it was
 * read. */
static void fetch_large(struct follower *follower)
{
    struct tail *tail = &follower->connection->worker->tail;
    uint64_t next = follower->at.offset + 1;
    struct large_event *event = find_large(follower);
    struct nx_log_chunk chunk;
    int rc = 0;

    if (event == NULL) {
        if (!has_room(nx_follower_changes(follower), follower->large_wanted)) {
            nx_follower_move(follower, FOLLOWER_LARGE);
            return;
        }
        rc = nx_tail_read(tail, &follower->stream, next, next, true, &chunk);
        rc = rc < 0 ? rc : make_large(follower, nx_slice_of(chunk.buf, chunk.length), &event);
    }
    if (rc == -EAGAIN) {
        nx_follower_move(follower, FOLLOWER_LARGE);
        return;
    }
    follower->large_wanted = 0;
    if (rc < 0) {
        nx_follower_cut_unread(follower, rc);
    } else if (event != NULL) {
        send_large(follower, event);
    } else {
        nx_follower_move(follower, FOLLOWER_READY);
    }
}

/* ---- others ---- */

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
    rc = nx_tail_read(&worker->tail, &follower->stream, follower->at.offset + 1, last, false,
                      &chunk);
    if (rc == -EMSGSIZE) {
        fetch_large(follower);
        return;
    }
    nx_text_reset(text, NX_FOLLOWER_KEEP_TEXT);
    if (rc == 0) {
        rc = nx_changes_put_frames(text, &follower->at, nx_slice_of(chunk.buf, chunk.length),
                                   nx_follower_prefix(follower));
    }
    if (rc < 0 || text->failed) {
        nx_follower_cut_unread(follower, rc < 0 ? rc : -ENOMEM);
    } else if (text->length > 0) {
        sending(follower);
        nx_follower_send(follower, text);
    } else {
        nx_follower_move(follower, FOLLOWER_READY);
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

/* One takes a large event so slowly that others, who wait for room for theirs, would stand still. */
static bool holds_up(const struct follower *follower, uint64_t now)
{
    return follower->has_large && now - follower->sent_ms > HOLD_MS &&
           !TAILQ_EMPTY(&nx_follower_changes(follower)->by_state[FOLLOWER_LARGE]);
}

static void log_slow(const struct follower *follower)
{
    static struct nx_log_limit limit;

    nx_log_limited(
        &limit, NX_LOG_WARNING,
        "a follower of /changes is cut at offset %" PRIu64
        ": it takes less than is written, and is more than %u MiB behind, or others wait "
        "for the memory of what it takes",
        follower->at.offset, FAR_BEHIND >> 20);
}

void nx_follower_drained(struct follower *follower)
{
    if (follower->state != FOLLOWER_SENDING) {
        return;
    }
    follower->has_large = false;
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

        if (holds_up(follower, now) ||
            (follower->slow_ms + (now - follower->sent_ms) > SLOW_MS && is_far_behind(follower))) {
            log_slow(follower);
            nx_follower_cut(follower);
        }
        follower = next;
    }
}
