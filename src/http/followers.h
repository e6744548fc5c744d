/* What followers.c, followers_clock.c and followers_fetch.c share; nobody else includes it. See changes.h. */
#ifndef NX_HTTP_FOLLOWERS_H
#define NX_HTTP_FOLLOWERS_H

#include "http/changes.h"
#include "http/connection.h"
#include "http/worker.h"

#define NX_FOLLOWER_KEEP_TEXT (256u << 10) /* of the texts of struct changes */

static inline struct changes *nx_follower_changes(const struct follower *follower)
{
    return &follower->connection->worker->changes;
}

static inline struct nx_slice nx_follower_prefix(const struct follower *follower)
{
    return nx_slice_of(follower->prefix, follower->prefix_length);
}

static inline struct follower *nx_follower_first(const struct http_worker *worker,
                                                 enum follower_state state)
{
    return TAILQ_FIRST(&worker->changes.by_state[state]);
}

/* ---- followers.c ---- */

void nx_follower_move(struct follower *follower, enum follower_state state);

/* Where it is served from: by the tail, when nothing lies between them, else it fetches. */
enum follower_state nx_follower_place(struct follower *follower);

/* Sends a piece. The connection may be gone afterwards, and the follower with it; as by all that follow. */
void nx_follower_send(struct follower *follower, const struct text *piece);

/* Ends the connection in the middle of its answer. */
void nx_follower_cut(struct follower *follower);

/* What comes next can't be read for it. */
void nx_follower_cut_unread(struct follower *follower, int error);

/* ---- followers_clock.c ---- */

bool nx_followers_begin_clock(struct http_worker *worker);

/* It comes, it was sent something, it goes. */
void nx_follower_enter_clock(struct follower *follower);
void nx_follower_told(struct follower *follower);
void nx_follower_leave_clock(struct follower *follower);

/* ---- followers_fetch.c ---- */

/* Reads and sends the next chunk for one that is ready. */
void nx_follower_fetch(struct follower *follower);

/* Cuts those that are far behind and for whose clients was waited too long. */
void nx_followers_cut_slow(struct http_worker *worker);

#endif
