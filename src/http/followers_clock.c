/* Runs in http workers. Tells those who follow the log where they are when nothing was sent to them for a while:
 * so they know that the node lives, and from where to go on. One timer for all of them, which stands still where
 * there are none; those whose time comes at nearly the same moment are told at one. See changes.h. */
#include "common/latch.h"
#include "http/changes_event.h"
#include "http/followers.h"
#include "http/response.h"

#include <event2/event.h>

#define TELL_MS  10000 /* without an event */
#define SLACK_MS 500   /* what is due so soon is done with the first */
#define PROBE_MS 1000  /* between two words to a client that has shut its side */

static void plan(struct changes *changes)
{
    const struct follower *first = TAILQ_FIRST(&changes->by_time);
    uint64_t now = nx_now_ms();
    uint64_t wait;
    struct timeval time;

    if (first == NULL) {
        evtimer_del(changes->timer);
        return;
    }
    wait = first->told_ms + TELL_MS > now ? first->told_ms + TELL_MS - now : 0;
    time = (struct timeval){
        .tv_sec = (time_t)(wait / 1000),
        .tv_usec = (suseconds_t)(wait % 1000 * 1000),
    };
    evtimer_add(changes->timer, &time);
}

void nx_follower_enter_clock(struct follower *follower)
{
    struct changes *changes = nx_follower_changes(follower);

    follower->told_ms = nx_now_ms();
    TAILQ_INSERT_TAIL(&changes->by_time, follower, by_time);
    if (evtimer_pending(changes->timer, NULL) == 0) {
        plan(changes);
    }
}

void nx_follower_told(struct follower *follower)
{
    struct changes *changes = nx_follower_changes(follower);

    follower->told_ms = nx_now_ms();
    TAILQ_REMOVE(&changes->by_time, follower, by_time);
    TAILQ_INSERT_TAIL(&changes->by_time, follower, by_time);
}

void nx_follower_leave_clock(struct follower *follower)
{
    struct changes *changes = nx_follower_changes(follower);

    TAILQ_REMOVE(&changes->by_time, follower, by_time);
    if (TAILQ_EMPTY(&changes->by_time)) {
        plan(changes);
    }
}

/* Unless it has something to take already. The connection is to be run then. */
static void tell(struct follower *follower)
{
    struct text *text = &nx_follower_changes(follower)->own;

    nx_follower_told(follower);
    if (nx_connection_backlog(follower->connection) > 0) {
        return;
    }
    nx_text_reset(text, NX_FOLLOWER_KEEP_TEXT);
    nx_changes_put_progress(text, &follower->at);
    if (text->failed) {
        nx_connection_close(follower->connection);
    } else {
        nx_respond_piece(follower->connection, nx_slice_of(text->data, text->length));
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct changes *changes = arg;
    uint64_t due = nx_now_ms() + SLACK_MS;
    struct follower *first;

    (void)fd;
    (void)what;
    while ((first = TAILQ_FIRST(&changes->by_time)) != NULL && first->told_ms + TELL_MS <= due) {
        struct connection *connection = first->connection;

        tell(first);
        nx_connection_run(connection);
    }
    plan(changes);
}

/* Has it told again PROBE_MS from now. */
static void tell_soon(struct follower *follower)
{
    struct changes *changes = nx_follower_changes(follower);
    struct follower *later;

    follower->told_ms = nx_now_ms() - (TELL_MS - PROBE_MS);
    TAILQ_REMOVE(&changes->by_time, follower, by_time);
    TAILQ_FOREACH(later, &changes->by_time, by_time) {
        if (later->told_ms > follower->told_ms) {
            TAILQ_INSERT_BEFORE(later, follower, by_time);
            break;
        }
    }
    if (later == NULL) {
        TAILQ_INSERT_TAIL(&changes->by_time, follower, by_time);
    }
    plan(changes);
}

/* The client has gone, or has shut its side and listens on: that looks the same, and shows only when it is sent
 * something. A first word has the host of one that is gone answer with a reset; the second one meets that. */
void nx_follower_eof(struct follower *follower)
{
    tell(follower);
    tell_soon(follower);
}

bool nx_followers_begin_clock(struct http_worker *worker)
{
    struct changes *changes = &worker->changes;

    TAILQ_INIT(&changes->by_time);
    changes->timer = evtimer_new(worker->base, on_timer, changes);
    return changes->timer != NULL;
}

void nx_changes_free(struct http_worker *worker)
{
    if (worker->changes.timer != NULL) {
        event_free(worker->changes.timer);
    }
}
