/* GET /changes: those who follow the committed log (changes.c: what is asked; followers.c: how it is served).
 *
 * A follower's life:
 *
 *     READY ──> LIVE            nothing lies between it and the tail of the log (tail.h), which pushes to it
 *      │ ^        │
 *      v │        │             its client takes less than comes
 *     SENDING <───┘
 *
 * One that isn't live fetches the log by itself, from its own position: a chunk when its client has taken the
 * last one (SENDING until then), READY in line with the others. So what is in memory for it is bounded, however
 * far behind and however slow it is. */
#ifndef NX_HTTP_CHANGES_H
#define NX_HTTP_CHANGES_H

#include "common/bytes.h"
#include "common/text.h"
#include "http/conditions.h"
#include "storage/log_stream.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct connection;
struct event;
struct http_worker;

enum follower_state {
    FOLLOWER_LIVE,    /* fed by the tail */
    FOLLOWER_READY,   /* may fetch its next chunk */
    FOLLOWER_SENDING, /* its client has not taken the last one */
    FOLLOWER_LARGE,   /* its next entry is large, and enough of such events are in memory */
    FOLLOWER_STATES
};

struct follower {
    TAILQ_ENTRY(follower) by_state;
    TAILQ_ENTRY(follower) by_time;
    struct connection *connection;
    enum follower_state state;
    struct client_offset at; /* what it has, or waits for; epoch 0: not known */
    struct nx_stream stream; /* while it isn't live */
    uint64_t told_ms;        /* when it was last sent anything */
    uint64_t sent_ms;        /* SENDING: since when */
    uint64_t slow_ms;        /* for so long its client was waited for, far behind */
    size_t large_wanted;     /* LARGE: bytes of its next event; 0: not known */
    bool has_large;          /* SENDING: a large one */
    bool was_live;
    uint16_t prefix_length;
    uint8_t prefix[];
};

TAILQ_HEAD(follower_queue, follower);

/* The event of a large entry: in memory once for all that are sent it whole, until the last one has it. */
struct large_event {
    LIST_ENTRY(large_event) link;
    struct changes *changes;
    struct client_offset at;
    bool whole; /* not what a prefix has left of it */
    unsigned uses;
    struct text text;
};

struct changes {
    struct follower_queue by_state[FOLLOWER_STATES];
    struct follower_queue by_time;  /* by told_ms */
    struct event *timer;            /* for the first of them; stands still when there are none */
    struct text shared;             /* a chunk's events as all get them that filter nothing */
    struct client_offset shared_at; /* behind them; offset 0: not made */
    struct text own;                /* as one of them gets them */
    LIST_HEAD(, large_event) large_events;
    size_t large_bytes; /* of them */
    uint64_t looked_ms; /* for slow clients */
};

bool nx_changes_init(struct http_worker *worker);
void nx_changes_free(struct http_worker *worker);

/* ---- followers, by changes.c ---- */

/* NULL when memory is short. The connection's request has it from now on (request->state). */
struct follower *nx_follower_create(struct connection *connection,
                                    struct client_offset at,
                                    struct nx_slice prefix);
void nx_follower_free(struct follower *follower);

/* Begins to serve it, its answer's head being out; and ends that. */
void nx_follower_join(struct follower *follower);
void nx_follower_leave(struct follower *follower);

/* Its client took all that was sent. */
void nx_follower_drained(struct follower *follower);

/* Its client sends no more. */
void nx_follower_eof(struct follower *follower);

/* ---- by the tail ---- */

bool nx_changes_live(const struct http_worker *worker);
bool nx_changes_none(const struct http_worker *worker);

/* The next entries of the log, for all that are live. */
void nx_changes_push(struct http_worker *worker, struct nx_slice frames);

/* They must fetch this entry, which is the tail's next, by themselves. */
void nx_changes_fall_behind(struct http_worker *worker, uint64_t offset);

/* They can't be served on. */
void nx_changes_cut_live(struct http_worker *worker);

/* ---- by the loop ---- */

/* Has some of those that are ready fetch a chunk each. True when there were any. */
bool nx_changes_poll(struct http_worker *worker);

/* Whether there are. */
bool nx_changes_due(const struct http_worker *worker);

/* This node stops: ends all streams in order. A client that takes nothing is not waited for. */
void nx_changes_end(struct http_worker *worker);

#endif
