/* Runs in http workers. Serves those who follow the log: the queues they stand in, what the tail pushes to the
 * live ones, and their end. When they are told where they are: followers_clock.c; how those that aren't live
 * come by the log: followers_fetch.c. See changes.h. */
#include "http/followers.h"

#include "common/latch.h"
#include "common/log.h"
#include "http/changes_event.h"
#include "http/response.h"
#include "storage/file_io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LIVE_BACKLOG   (128u << 10) /* bytes that a live one's client has not taken, at most */
#define FETCHES_A_TURN 4            /* chunks, by all together: others have their turn */
#define PART_MS        1000         /* for taking what is left when this node stops */

/* ---- queues ---- */

static void enter(struct follower *follower, enum follower_state state)
{
    follower->state = state;
    follower->was_live = follower->was_live || state == FOLLOWER_LIVE;
    follower->connection->prompt = state == FOLLOWER_LIVE;
    TAILQ_INSERT_TAIL(&nx_follower_changes(follower)->by_state[state], follower, by_state);
}

void nx_follower_move(struct follower *follower, enum follower_state state)
{
    TAILQ_REMOVE(&nx_follower_changes(follower)->by_state[follower->state], follower, by_state);
    enter(follower, state);
}

enum follower_state nx_follower_place(struct follower *follower)
{
    struct http_worker *worker = follower->connection->worker;
    uint64_t last = nx_tail_last(worker);

    if (follower->at.offset < last) {
        return FOLLOWER_READY;
    }
    nx_stream_close(&follower->stream);
    nx_tail_begin(worker, last + 1);
    return FOLLOWER_LIVE;
}

bool nx_changes_live(const struct http_worker *worker)
{
    return nx_follower_first(worker, FOLLOWER_LIVE) != NULL;
}

bool nx_changes_none(const struct http_worker *worker)
{
    return TAILQ_EMPTY(&worker->changes.by_time);
}

/* ---- coming and going ---- */

struct follower *nx_follower_create(struct connection *connection,
                                    struct client_offset at,
                                    struct nx_slice prefix)
{
    struct follower *follower = calloc(1, sizeof *follower + prefix.length);

    if (follower == NULL) {
        return NULL;
    }
    follower->connection = connection;
    follower->at = at;
    follower->prefix_length = (uint16_t)prefix.length;
    if (prefix.length > 0) {
        memcpy(follower->prefix, prefix.data, prefix.length);
    }
    nx_stream_open(&follower->stream, connection->worker->shm,
                   connection->worker->process->state_root);
    return follower;
}

void nx_follower_free(struct follower *follower)
{
    nx_stream_close(&follower->stream);
    free(follower);
}

void nx_follower_join(struct follower *follower)
{
    nx_follower_enter_clock(follower);
    enter(follower, nx_follower_place(follower));
}

void nx_follower_leave(struct follower *follower)
{
    struct changes *changes = nx_follower_changes(follower);

    TAILQ_REMOVE(&changes->by_state[follower->state], follower, by_state);
    nx_follower_leave_clock(follower);
    if (TAILQ_EMPTY(&changes->by_time)) {
        nx_text_free(&changes->shared);
        nx_text_free(&changes->own);
    }
}

void nx_follower_send(struct follower *follower, const struct text *piece)
{
    struct connection *connection = follower->connection;

    nx_follower_told(follower);
    nx_respond_piece(connection, nx_slice_of(piece->data, piece->length));
    nx_connection_run(connection);
}

void nx_follower_cut(struct follower *follower)
{
    struct connection *connection = follower->connection;

    nx_connection_close(connection);
    nx_connection_run(connection);
}

/* Where it is no longer kept, the client is told so when it comes again. */
void nx_follower_cut_unread(struct follower *follower, int error)
{
    static struct nx_log_limit limit;
    uint64_t offset = follower->at.offset;

    if (error == -ENOENT) {
        nx_log_limited(&limit, NX_LOG_WARNING,
                       "a follower of /changes is cut at offset %" PRIu64
                       ": what follows is no longer kept",
                       offset);
    } else {
        nx_log_limited(&limit, NX_LOG_ERROR,
                       "a follower of /changes is cut at offset %" PRIu64
                       ": what follows can't be read: %s",
                       offset, error == -EBADMSG ? "it is damaged" : nx_errno_text(error));
    }
    nx_follower_cut(follower);
}

/* What it waited for came, and is of another history: its client is told so when it comes again. */
static void end_stale(struct follower *follower)
{
    struct connection *connection = follower->connection;

    connection->keep_alive = false;
    nx_respond_end(connection);
    nx_connection_run(connection);
}

/* ---- those that are live ---- */

/* It fetches what follows, when its client has taken what it was sent. */
static void fall_behind(struct follower *follower)
{
    bool sending = nx_connection_backlog(follower->connection) > 0;

    follower->sent_ms = nx_now_ms();
    nx_follower_move(follower, sending ? FOLLOWER_SENDING : FOLLOWER_READY);
}

void nx_changes_fall_behind(struct http_worker *worker, uint64_t offset)
{
    struct follower *follower = nx_follower_first(worker, FOLLOWER_LIVE);

    while (follower != NULL) {
        struct follower *next = TAILQ_NEXT(follower, by_state);

        if (follower->at.offset < offset) {
            fall_behind(follower);
        }
        follower = next;
    }
}

void nx_changes_cut_live(struct http_worker *worker)
{
    struct follower *follower;

    while ((follower = nx_follower_first(worker, FOLLOWER_LIVE)) != NULL) {
        nx_follower_cut(follower);
    }
}

/* The events of the frames as all get them that were level before and filter nothing. */
static int make_shared(struct changes *changes, struct nx_slice frames, uint64_t first)
{
    if (changes->shared_at.offset >= first) {
        return 0; /* made already */
    }
    nx_text_reset(&changes->shared, NX_FOLLOWER_KEEP_TEXT);
    changes->shared_at = (struct client_offset){first - 1, 0};
    int rc =
        nx_changes_put_frames(&changes->shared, &changes->shared_at, frames, nx_slice_of(NULL, 0));

    if (rc < 0) {
        changes->shared_at.offset = 0; /* half of it is nothing for the others */
    }
    return rc;
}

/* The frames' events for this follower, and its position behind them. */
static int make_events(struct follower *follower,
                       struct nx_slice frames,
                       uint64_t first,
                       struct client_offset *ret_at,
                       const struct text **ret_text)
{
    struct changes *changes = nx_follower_changes(follower);
    int rc;

    if (follower->prefix_length == 0 && follower->at.offset + 1 == first) {
        rc = make_shared(changes, frames, first);
        *ret_text = &changes->shared;
        *ret_at = changes->shared_at;
    } else {
        nx_text_reset(&changes->own, NX_FOLLOWER_KEEP_TEXT);
        *ret_text = &changes->own;
        *ret_at = follower->at;
        rc = nx_changes_put_frames(&changes->own, ret_at, frames, nx_follower_prefix(follower));
    }
    return rc == 0 && (*ret_text)->failed ? -ENOMEM : rc;
}

static void push(struct follower *follower, struct nx_slice frames, uint64_t first)
{
    size_t backlog = nx_connection_backlog(follower->connection);
    struct client_offset at;
    const struct text *text;
    int rc = make_events(follower, frames, first, &at, &text);

    if (rc == -ESTALE) {
        end_stale(follower);
    } else if (rc < 0) {
        nx_follower_cut_unread(follower, rc);
    } else if (backlog > 0 && backlog + text->length > LIVE_BACKLOG) {
        fall_behind(follower);
    } else {
        follower->at = at;
        if (text->length > 0) {
            nx_follower_send(follower, text);
        }
    }
}

void nx_changes_push(struct http_worker *worker, struct nx_slice frames)
{
    struct changes *changes = &worker->changes;
    struct follower *follower = nx_follower_first(worker, FOLLOWER_LIVE);
    struct nx_slice rest = frames;
    struct nx_entry_header header;

    if (follower == NULL || nx_tail_frame(&rest, &header) <= 0) {
        return;
    }
    changes->shared_at.offset = 0;
    while (follower != NULL) {
        struct follower *next = TAILQ_NEXT(follower, by_state);

        push(follower, frames, header.offset); /* it may be gone then */
        follower = next;
    }
}

/* ---- the loop's side ---- */

bool nx_changes_poll(struct http_worker *worker)
{
    struct follower *follower;
    int fetches = 0;

    nx_followers_cut_slow(worker);
    while (fetches < FETCHES_A_TURN &&
           (follower = nx_follower_first(worker, FOLLOWER_READY)) != NULL) {
        nx_follower_fetch(follower);
        fetches++;
    }
    return fetches > 0;
}

bool nx_changes_due(const struct http_worker *worker)
{
    return nx_follower_first(worker, FOLLOWER_READY) != NULL;
}

void nx_changes_end(struct http_worker *worker)
{
    const struct follower *follower;

    while ((follower = TAILQ_FIRST(&worker->changes.by_time)) != NULL) {
        struct connection *connection = follower->connection;

        nx_respond_end(connection); /* the follower is gone */
        nx_connection_part(connection, PART_MS);
        nx_connection_run(connection);
    }
}

bool nx_changes_init(struct http_worker *worker)
{
    for (unsigned i = 0; i < FOLLOWER_STATES; i++) {
        TAILQ_INIT(&worker->changes.by_state[i]);
    }
    return nx_followers_begin_clock(worker);
}
