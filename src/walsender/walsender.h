/* A walsender's own state and the steps of its loop. One process a connection, no threads: everything
 * here is private to it, but for what it publishes in its replica slot.
 *
 *     welcome.c  Hello: facts are gathered, handshake.c judges, Welcome or Error goes out
 *     session.c  what the replica sends afterwards: acks, Pings, Pongs
 *     count.c    what follows from that for the quorum
 *     feed.c     what goes to it: entries up to durable_offset, Pings, Pongs
 *     full_sync.c, send_snapshot.c  a snapshot, where entries won't do
 *     lag_report.c  why a replica stays behind, for the log
 */
#ifndef NX_WALSENDER_WALSENDER_H
#define NX_WALSENDER_WALSENDER_H

#include "common/byte_marks.h"
#include "common/frame_io.h"
#include "common/lag_mark.h"
#include "common/process.h"
#include "storage/log_stream.h"
#include "walsender/full_sync.h"
#include "walsender/lag_report.h"

#include <stdbool.h>
#include <stdint.h>

/* How it ended, for the Error to the peer and the one log line. */
enum nx_ending_kind {
    NX_ENDING_NONE = 0,
    NX_ENDING_QUIET,  /* nobody was ever there: a port check */
    NX_ENDING_NORMAL, /* the other side left, or we stop */
    NX_ENDING_REFUSED /* a violation, or a replica that can't be served */
};

struct nx_ending {
    enum nx_ending_kind kind;
    uint32_t code; /* enum nx_wire_error to send; 0: none */
    char text[768];
};

struct nx_walsender {
    struct nx_process *process;
    struct nx_shm *shm;
    struct nx_replica_slot *slot;
    struct nx_frame_io io;
    struct nx_stream stream;
    struct nx_full_sync sync;
    struct nx_byte_marks marks;    /* bytes of entries, by offset, in this session */
    char peer[NX_ADDR_TEXT];       /* the socket's other end, "host:port" */
    char replica_id[NX_UUID_TEXT]; /* "" before Hello */
    bool welcomed;
    uint64_t queued_offset; /* last entry handed to the output buffer */
    uint64_t acked_offset;
    uint64_t level_offset;  /* acknowledged up to here it is streaming: what we had as it began */
    struct nx_lag_mark lag; /* of acks behind what is durable here */
    uint64_t opened_ms;
    uint64_t heard_ms; /* last frame from the replica */
    uint64_t sent_ms;  /* last bytes to it */
    uint64_t pinged_ms;
    bool pong_due; /* one Pong for all Pings since the last */
    uint64_t pong_timestamp;
    uint64_t told_quorum;   /* the quorum's offset that the replica has heard */
    uint64_t asked_stamp;   /* timestamp of the last Ping: unique, never lower than one before */
    uint64_t asked_us;      /* when it was queued */
    uint64_t awaited_stamp; /* of the Ping whose Pong is awaited for a confirmation; 0: none */
    uint64_t awaited_us;    /* when that was queued */
    struct nx_lag_watch lag_watch;
    uint64_t drain_until_ms; /* 0: not stopping */
    uint64_t send_limit;     /* no entry behind it is sent, once replication was stopped */
    uint64_t titled_offset;  /* in the process title */
    bool titled_streaming;
    uint64_t titled_ms;
    struct nx_ending ending;
};

/* ---- ending.c ---- */

/* Notes why the conversation is over; the first reason stands. */
void nx_walsender_end(struct nx_walsender *ws,
                      enum nx_ending_kind kind,
                      uint32_t code,
                      const char *format,
                      ...) __attribute__((format(printf, 4, 5)));

/* Whether the end of a conversation that came to no Welcome may be logged: a peer that comes again and again mustn't
 * fill the disk with it. Counts it, refusals by themselves. more (cap bytes): what the line is to end with, " (N more were
 * left out)" of the period before, or "". */
bool nx_walsender_may_say(struct nx_walsender *ws, char *more, size_t cap);

static inline bool nx_walsender_ended(const struct nx_walsender *ws)
{
    return ws->ending.kind != NX_ENDING_NONE;
}

static inline uint64_t nx_walsender_durable(const struct nx_walsender *ws)
{
    return atomic_load_explicit(&ws->shm->log.durable_offset, memory_order_acquire);
}

/* The newest entry that this replica gets. */
static inline uint64_t nx_walsender_sendable(const struct nx_walsender *ws)
{
    uint64_t durable = nx_walsender_durable(ws);

    return durable < ws->send_limit ? durable : ws->send_limit;
}

/* Replication was stopped by POST /replication/stop. */
static inline bool nx_walsender_stopped(const struct nx_walsender *ws)
{
    return atomic_load_explicit(&ws->shm->control.replication_stopped, memory_order_acquire) != 0;
}

/* ---- welcome.c ---- */

/* Refuses, before it has said anything, a peer that may not be served without a token. */
void nx_welcome_check_peer(struct nx_walsender *ws);

/* Answers a Hello. False: not yet, recovery is still running; the frame is to be shown again. */
bool nx_welcome_hello(struct nx_walsender *ws, const struct nx_frame *frame);

/* ---- session.c ---- */

/* Reads what the socket has and handles it. */
void nx_session_input(struct nx_walsender *ws);

/* ---- count.c ---- */

/* The replica has acknowledged more, or become streaming: raises the quorum's offset. */
void nx_count_ack(struct nx_walsender *ws);

/* It has answered the Ping with this timestamp. */
void nx_count_pong(struct nx_walsender *ws, uint64_t timestamp);

/* True when somebody wants to know that it still answers, and no Ping that would tell is on its way. */
bool nx_count_ping_due(const struct nx_walsender *ws);

/* A Ping for which a Pong is wanted; 0 or a negative error. */
int nx_count_put_ping(struct nx_walsender *ws);

/* In sync mode, the quorum's offset as the replica should hear it, if it hasn't. */
bool nx_count_news(const struct nx_walsender *ws);
int nx_count_put_news(struct nx_walsender *ws);

/* ---- feed.c ---- */

/* Puts what there is to send into the output buffer, and as much as it takes into the socket. */
void nx_feed_output(struct nx_walsender *ws);

/* Entries go out from behind this offset; nothing of this session is acked yet. */
void nx_walsender_start_at(struct nx_walsender *ws, uint64_t offset);

/* Looks how long the replica's acks are behind, and publishes it. */
void nx_feed_track_lag(struct nx_walsender *ws);

/* Publishes the slot's counters. */
void nx_feed_publish(struct nx_walsender *ws);

#endif
