/* The walreceiver's own state and the steps of its life. One process, no threads of its own: everything
 * here is private to it, but for its submission ring and what it publishes in shm->receiver.
 *
 *     walreceiver.c  attempts, one after the other: backoff, what is logged of them
 *     connect.c      name and TCP
 *     welcome.c      Hello and Welcome
 *     session.c      the loop of a session
 *     receive.c      entries: checked, submitted, acknowledged
 *     receive_snapshot.c  a snapshot, where entries won't do
 *     health.c       whether the master is alive
 */
#ifndef NX_WALRECEIVER_WALRECEIVER_H
#define NX_WALRECEIVER_WALRECEIVER_H

#include "common/byte_marks.h"
#include "common/entry.h"
#include "common/frame_io.h"
#include "common/lag_mark.h"
#include "common/process.h"
#include "common/submit.h"
#include "storage/position.h"
#include "walreceiver/health.h"
#include "walreceiver/receive_snapshot.h"

#include <stdbool.h>
#include <stdint.h>

/* Why an attempt ended. Kind and detail together are what the log is rate-limited by. */
enum nx_cause_kind {
    NX_CAUSE_NONE = 0,
    NX_CAUSE_STOP,      /* we are asked to stop */
    NX_CAUSE_RESOLVE,   /* detail: what getaddrinfo says */
    NX_CAUSE_CONNECT,   /* detail: errno */
    NX_CAUSE_TIMEOUT,   /* connect_timeout_ms is over */
    NX_CAUSE_ERROR,     /* the master sent Error; detail: its code */
    NX_CAUSE_REFUSED,   /* we can't follow this master; detail: enum nx_wire_error */
    NX_CAUSE_VIOLATION, /* it sent what it must not */
    NX_CAUSE_SILENCE,   /* it appears dead */
    NX_CAUSE_BROKEN,    /* the connection ended; detail: errno, 0 when it was closed */
    NX_CAUSE_OWN,       /* something failed here */
};

struct nx_cause {
    enum nx_cause_kind kind;
    uint32_t detail;
    uint32_t error_code; /* Error to send; 0: none */
    bool slow;           /* trying again soon is no use */
    char text[768];
};

struct nx_walreceiver {
    struct nx_process *process;
    struct nx_shm *shm;
    struct nx_producer producer;
    uint64_t ticket; /* of the last barrier */
    struct nx_frame_io io;
    char peer[NX_ADDR_TEXT];       /* the address we are connected to */
    char cluster_id[NX_UUID_TEXT]; /* the master's, of its Welcome */
    struct nx_cause cause;
    struct nx_health health;
    struct nx_lag_mark lag;

    /* The session. */
    bool welcomed;
    uint64_t deadline_ms;         /* Welcome must be there by then */
    uint64_t master_heartbeat_ms; /* of its Welcome; 0 before */
    uint64_t sent_ms;
    bool pong_due;
    uint64_t pong_timestamp;
    uint64_t session_offset; /* our offset when it began */
    struct nx_position last; /* newest entry submitted */
    uint64_t acked_offset;
    uint64_t durable_seen;
    struct nx_byte_marks marks;
    struct nx_entry_header held; /* of the frame that is being submitted */
    uint64_t master_epoch;       /* of its Welcome */
    uint64_t quorum_heard;     /* of the master in this session: what this node has of it counts */
    uint64_t clock_epoch;      /* in which a Ping has told the log clock last; 0: not yet */
    bool holding;              /* its ring is full: the socket is not read */
    size_t progress;           /* of nx_submit */
    uint64_t counted_received; /* of io.received and io.sent, published already */
    uint64_t counted_sent;
    uint64_t new_entries;   /* received, not published yet ... */
    uint64_t new_bytes;     /* ... and their bytes */
    uint64_t titled_offset; /* in the process title ... */
    uint64_t titled_ms;     /* ... since then */
    struct nx_snapshot_receipt sync;
    bool
        giving_up; /* by force: this node asks for a full sync as if it had nothing (nx_follow.force) */

    /* Between attempts. */
    unsigned failures; /* in a row */
    enum nx_cause_kind logged_kind;
    uint32_t logged_detail;
    uint64_t logged_ms;
};

/* What of the quorum's offset is believed: no more than this node has itself, and in this session only. A false word
 * must not outlive who gave it. */
static inline uint64_t nx_receiver_quorum(const struct nx_walreceiver *r)
{
    return r->quorum_heard < r->last.offset ? r->quorum_heard : r->last.offset;
}

/* ---- ending.c ---- */

/* Notes why the attempt is over; the first reason stands. */
void nx_receiver_end(struct nx_walreceiver *r,
                     enum nx_cause_kind kind,
                     uint32_t detail,
                     const char *format,
                     ...) __attribute__((format(printf, 4, 5)));

/* The same, with an Error to send. */
void nx_receiver_refuse(struct nx_walreceiver *r,
                        enum nx_cause_kind kind,
                        enum nx_wire_error code,
                        const char *format,
                        ...) __attribute__((format(printf, 4, 5)));

static inline bool nx_receiver_ended(const struct nx_walreceiver *r)
{
    return r->cause.kind != NX_CAUSE_NONE;
}

static inline uint64_t nx_receiver_durable(const struct nx_walreceiver *r)
{
    return atomic_load_explicit(&r->shm->log.durable_offset, memory_order_acquire);
}

/* Reads what the postmaster says; ends the attempt when the process shall stop. */
void nx_receiver_hear(struct nx_walreceiver *r);

/* Sleeps until the doorbell rings, `fd` (-1: none) has one of `events`, the postmaster says something,
 * or timeout_ms are over, or earlier when the master's silence is to be judged. The caller has prepared
 * the latch; this cancels it. What the fd has comes back in *ret_revents (may be NULL). Ends the attempt
 * when the process shall stop. */
void nx_receiver_sleep(struct nx_walreceiver *r,
                       int fd,
                       short events,
                       int timeout_ms,
                       short *ret_revents);

/* ---- connect.c ---- */

/* Connects to replication.master_addr, its name resolved anew, before r->deadline_ms. On success r->io
 * is open and r->peer set; otherwise the attempt has ended. */
void nx_connect(struct nx_walreceiver *r);

/* ---- history.c ---- */

/* Our history up to r->last, and the claim of its last epoch, for the Hello. */
void nx_history_offer(struct nx_walreceiver *r, struct nx_msg_hello *hello);

/* Whether the master's history is one that this node may go on with; else the attempt ends. */
void nx_history_check(struct nx_walreceiver *r, const struct nx_msg_welcome *welcome);

/* A full sync is to replace what this node has: how far the data that comes must get is noted (synced.h), and the entries
 * that the master's history lacks are saved (storage/diverged.h). Ends the attempt where that can't be done. */
void nx_history_save(struct nx_walreceiver *r, const struct nx_msg_welcome *welcome);

/* Whether this node was told to follow whatever that costs. */
bool nx_history_forced(const struct nx_walreceiver *r);

/* Who leads in epoch 1, as the master says; "": not known. */
void nx_history_first_node(const struct nx_msg_welcome *welcome, char ret_id[NX_UUID_TEXT]);

/* ---- welcome.c ---- */

/* Says Hello with the position r->last. */
void nx_welcome_ask(struct nx_walreceiver *r);

/* How much a master that says this has for readers; in sync mode one that has just begun doesn't know, then all that it
 * has. */
uint64_t nx_welcome_readable(const struct nx_msg_welcome *welcome);

/* Judges the Welcome: the session begins, or the attempt ends. */
void nx_welcome_take(struct nx_walreceiver *r, const struct nx_msg_welcome *welcome);

/* ---- session.c ---- */

/* The whole conversation, from Hello to its end. */
void nx_session_run(struct nx_walreceiver *r);

/* ---- receive.c ---- */

/* Waits until everything ever submitted here is durable or refused, so that the durable position is the
 * log's very end, and takes it over as r->last. */
void nx_receive_settle(struct nx_walreceiver *r);

/* Checks an entry and submits it. True when it is done with; false: r->holding, to be tried again. */
bool nx_receive_entry(struct nx_walreceiver *r, const struct nx_frame *frame);

/* Tries again what is held. True when something came of it. */
bool nx_receive_held(struct nx_walreceiver *r);

/* Looks what became of entries: ends the session if one was refused. */
void nx_receive_completions(struct nx_walreceiver *r);

/* The offset that may be acknowledged: durable, and covered by fdatasync. */
uint64_t nx_receive_ackable(const struct nx_walreceiver *r);

#endif
