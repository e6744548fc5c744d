/* A conversation with the master: after the handshake (welcome.c) entries one way, acknowledgments the
 * other. Runs in the walreceiver. Everything the master sends is checked as a stranger's; while our own log has
 * no room the socket is not read, the master's silence does not count, and our acks and Pings go on. */
#include "common/latch.h"
#include "common/log_clock.h"
#include "common/order.h"
#include "common/quorum.h"
#include "walreceiver/walreceiver.h"

#include <errno.h>
#include <string.h>

#define READS       16   /* at most, before output has its turn */
#define SYNC_LOOK   1000 /* wal.fsync = everysec: how often we look what is synced */
#define MESSAGE_MAX 512  /* bytes of an Error that are logged */
#define LONGEST_MS  3600000
#define TITLE_MS    200 /* between changes of the process title */

static const struct nx_config *config_of(const struct nx_walreceiver *r)
{
    return r->process->config;
}

static void bump(nx_atomic_u64 *counter, uint64_t by)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by,
                          memory_order_relaxed);
}

/* The socket is not read: our own log is full, or a snapshot is being restored. */
static bool deaf(const struct nx_walreceiver *r)
{
    return r->holding || nx_receive_snapshot_holds(&r->sync);
}

/* ---- what others see ---- */

static void publish_stage(struct nx_walreceiver *r)
{
    struct nx_receiver_state *state = &r->shm->receiver;
    uint64_t master = atomic_load_explicit(&state->master_offset, memory_order_relaxed);
    uint64_t goal = atomic_load_explicit(&state->welcome_offset, memory_order_relaxed);

    nx_lag_mark_move(&r->lag, r->durable_seen, master, nx_now_ms());
    atomic_store_explicit(&state->behind_since_ms, r->lag.since_ms, memory_order_relaxed);
    if (r->durable_seen >= goal &&
        atomic_load_explicit(&state->stage, memory_order_relaxed) == NX_RECEIVER_CATCHING_UP) {
        atomic_store_explicit(&state->stage, NX_RECEIVER_STREAMING, memory_order_release);
    }
}

static void publish(struct nx_walreceiver *r)
{
    struct nx_receiver_state *state = &r->shm->receiver;
    uint64_t start = atomic_load_explicit(&r->shm->log.start_offset, memory_order_relaxed);

    bump(&state->bytes_received, r->io.received - r->counted_received);
    bump(&state->bytes_sent, r->io.sent - r->counted_sent);
    r->counted_received = r->io.received;
    r->counted_sent = r->io.sent;
    if (!r->welcomed) {
        return;
    }
    if (r->new_entries > 0) {
        nx_byte_marks_add(&r->marks, r->last.offset, r->new_bytes);
        bump(&state->entries_received, r->new_entries);
        r->new_entries = 0;
        r->new_bytes = 0;
    }
    if (r->durable_seen > start) {
        uint64_t before =
            atomic_load_explicit(&r->shm->control.carried_applied, memory_order_relaxed);

        atomic_store_explicit(&state->entries_applied, before + r->durable_seen - start,
                              memory_order_relaxed);
    }
    atomic_store_explicit(&state->master_bytes,
                          nx_byte_marks_total(&r->marks) -
                              nx_byte_marks_up_to(&r->marks, r->durable_seen),
                          memory_order_relaxed);
    publish_stage(r);
}

/* Whether the title says something that is no longer so. */
static bool title_stale(const struct nx_walreceiver *r)
{
    return r->welcomed && r->sync.phase == NX_INCOMING_IDLE && r->titled_offset != r->durable_seen;
}

/* Not at each entry: between an entry and its confirmation that would be a part of the way. */
static void show_title(struct nx_walreceiver *r)
{
    uint64_t now = nx_now_ms();

    if (title_stale(r) && now - r->titled_ms >= TITLE_MS) {
        r->titled_ms = now;
        r->titled_offset = r->durable_seen;
        nx_process_title(r->process, "streaming %llu from %s", (unsigned long long)r->durable_seen,
                         config_of(r)->replication.master_addr);
    }
}

/* The master has at least this. */
static void hear_offset(struct nx_walreceiver *r, uint64_t offset)
{
    nx_atomic_u64 *known = &r->shm->receiver.master_offset;

    if (offset > atomic_load_explicit(known, memory_order_relaxed)) {
        atomic_store_explicit(known, offset, memory_order_relaxed);
    }
}

/* ---- what the master sends ---- */

static void take_error(struct nx_walreceiver *r, const struct nx_msg_error *error)
{
    int length = error->message.length < MESSAGE_MAX ? (int)error->message.length : MESSAGE_MAX;

    /* Another node where the master should be is no sign of its life. */
    if (error->code != NX_WIRE_ERROR_NOT_A_MASTER && error->code != NX_WIRE_ERROR_OTHER_CLUSTER) {
        nx_health_heard(r);
    }
    if (error->code == NX_WIRE_ERROR_BEHIND_REPLICA) {
        r->giving_up =
            atomic_load_explicit(&r->shm->control.follow_forced, memory_order_acquire) != 0;
    }
    nx_receiver_end(r, NX_CAUSE_ERROR, error->code, "the master says Error %u (%s): %.*s",
                    error->code, nx_wire_error_text(error->code), length,
                    (const char *)error->message.data);
    r->cause.slow = error->code != NX_WIRE_ERROR_SHUTTING_DOWN &&
                    error->code != NX_WIRE_ERROR_INTERNAL && error->code != NX_WIRE_ERROR_BAD_FRAME;
}

/* offset: of a Ping, or 0: entries have come, of which the master's word was known already. */
static void hear_quorum(struct nx_walreceiver *r, uint64_t offset)
{
    r->quorum_heard = offset > r->quorum_heard ? offset : r->quorum_heard;
    nx_quorum_raise(r->shm, nx_receiver_quorum(r));
}

static void take_ping(struct nx_walreceiver *r, const struct nx_msg_ping *ping)
{
    hear_offset(r, ping->current_wal_offset);
    if (r->sync.phase ==
        NX_INCOMING_IDLE) { /* else it is of what comes, not of what this node has */
        hear_quorum(r, ping->quorum_offset);
    }
    if (ping->log_clock != 0 && ping->log_clock < UINT64_MAX / 1000) {
        nx_log_clock_hear(r->shm, ping->log_clock * 1000, r->clock_epoch != r->master_epoch);
        r->clock_epoch = r->master_epoch;
    }
    if (ping->timestamp != 0) {
        r->pong_due = true;
        r->pong_timestamp = ping->timestamp;
    }
}

/* A frame of a full sync; 0 or -EBADMSG. */
static int take_snapshot(struct nx_walreceiver *r, const struct nx_frame *frame)
{
    union {
        struct nx_msg_snapshot_meta meta;
        struct nx_msg_snapshot_chunk chunk;
        struct nx_msg_snapshot_complete complete;
    } message;
    int rc = -EBADMSG;

    switch (frame->type) {
    case NX_MSG_SNAPSHOT_META:
        rc = nx_wire_decode_snapshot_meta(frame->payload, frame->payload_length, &message.meta);
        if (rc == 0) {
            nx_receive_snapshot_meta(r, &message.meta);
        }
        break;
    case NX_MSG_SNAPSHOT_CHUNK:
        rc = nx_wire_decode_snapshot_chunk(frame->payload, frame->payload_length, &message.chunk);
        if (rc == 0) {
            nx_receive_snapshot_chunk(r, &message.chunk);
        }
        break;
    case NX_MSG_SNAPSHOT_COMPLETE:
        rc = nx_wire_decode_snapshot_complete(frame->payload, frame->payload_length,
                                              &message.complete);
        if (rc == 0) {
            nx_receive_snapshot_complete(r, &message.complete);
        }
        break;
    default: /* nx_frame_peek lets nothing else through */
        break;
    }
    return rc;
}

/* A frame that is neither an entry nor of a full sync; 0 or -EBADMSG. */
static int take_other(struct nx_walreceiver *r, const struct nx_frame *frame)
{
    union {
        struct nx_msg_welcome welcome;
        struct nx_msg_ping ping;
        struct nx_msg_pong pong;
        struct nx_msg_error error;
    } message;
    int rc;

    switch (frame->type) {
    case NX_MSG_WELCOME:
        rc = nx_wire_decode_welcome(frame->payload, frame->payload_length, &message.welcome);
        if (rc == 0) {
            nx_welcome_take(r, &message.welcome);
        }
        return rc;
    case NX_MSG_PING:
        rc = nx_wire_decode_ping(frame->payload, frame->payload_length, &message.ping);
        if (rc == 0) {
            take_ping(r, &message.ping);
        }
        return rc;
    case NX_MSG_PONG:
        return nx_wire_decode_pong(frame->payload, frame->payload_length, &message.pong);
    case NX_MSG_ERROR:
        rc = nx_wire_decode_error(frame->payload, frame->payload_length, &message.error);
        if (rc == 0) {
            take_error(r, &message.error);
        }
        return rc;
    default:
        return take_snapshot(r, frame);
    }
}

/* Handles one frame. False: it is an entry that finds no room yet. */
static bool take(struct nx_walreceiver *r, const struct nx_frame *frame)
{
    bool entry = frame->type == NX_MSG_WAL_ENTRY;

    if (entry && r->sync.phase == NX_INCOMING_IDLE) {
        return nx_receive_entry(r, frame);
    }
    if (entry && r->sync.phase == NX_INCOMING_EXPECTED && r->sync.asked) {
        return true; /* on its way before the master heard that a full sync is wanted */
    }
    if (entry || take_other(r, frame) < 0) {
        nx_receiver_refuse(
            r, NX_CAUSE_VIOLATION, NX_WIRE_ERROR_BAD_FRAME,
            "the master sent a %s of %zu bytes that was not asked for or can't be read",
            nx_wire_type_name(frame->type), frame->length);
    }
    return true;
}

/* Whether there was a frame. */
static bool take_frames(struct nx_walreceiver *r)
{
    struct nx_frame frame;
    char text[256];
    bool framed = false;
    int rc = 0;

    while (!nx_receiver_ended(r) && !nx_receive_snapshot_holds(&r->sync) &&
           (rc = nx_frame_io_next(&r->io, &frame)) == 0) {
        framed = true;
        if (!take(r, &frame)) {
            break;
        }
        nx_frame_io_consume(&r->io);
    }
    if (r->welcomed && r->new_entries > 0) {
        hear_offset(r, r->last.offset);
        hear_quorum(r, 0);
        /* Not fresh as a Ping's is: perhaps as old as what waits between here and the master. */
        nx_log_clock_hear(r->shm, r->held.timestamp, false);
    }
    if (rc == -EBADMSG) {
        nx_receiver_refuse(
            r, NX_CAUSE_VIOLATION, NX_WIRE_ERROR_BAD_FRAME, "the master sent: %s%s%s%s",
            nx_frame_fault_text(&frame, text, sizeof text), r->welcomed ? "" : "; is ",
            r->welcomed ? "" : config_of(r)->replication.master_addr,
            r->welcomed ? "" : " a master's replication port (15475 by default)?");
    }
    return framed;
}

/* The master, or what is taken for one, has closed its side. */
static void end_closed(struct nx_walreceiver *r)
{
    if (r->welcomed) {
        nx_receiver_end(r, NX_CAUSE_BROKEN, 0, "the master closed the connection%s",
                        nx_frame_io_partial(&r->io) ? " in the middle of a frame" : "");
    } else {
        nx_receiver_end(
            r, NX_CAUSE_BROKEN, 0,
            "%s closed the connection before its Welcome: is %s a master's replication "
            "port (15475 by default)? And replication.tls_cert_file must be set on both nodes, or on "
            "none",
            r->peer, config_of(r)->replication.master_addr);
    }
}

/* A master whose certificate has expired, or that doesn't accept ours, isn't dead: nobody is to take over because of
 * that. A stranger in its place shows nothing. */
static void end_broken(struct nx_walreceiver *r, int rc)
{
    static const char what[] = "the connection to the master broke";
    bool alive = nx_frame_io_shows_life(&r->io, rc);
    char text[160];
    const char *why = nx_frame_io_error(&r->io, rc, text, sizeof text);

    if (alive) {
        nx_health_alive(r);
    }
    if (rc == -EKEYEXPIRED) { /* its own log is to say it too */
        nx_receiver_refuse(r, NX_CAUSE_BROKEN, NX_WIRE_ERROR_NOT_AUTHORISED, "%s: %s", what, why);
    } else {
        nx_receiver_end(r, NX_CAUSE_BROKEN, (uint32_t)-rc, "%s: %s", what, why);
    }
}

static void input(struct nx_walreceiver *r)
{
    bool framed = false;
    int rc = 0;

    for (int i = 0; i < READS && rc == 0 && !deaf(r) && !nx_receiver_ended(r); i++) {
        rc = nx_frame_io_receive(&r->io);
        if (rc == 0 && take_frames(r)) {
            framed = true;
        }
        if (nx_frame_io_drained(&r->io)) {
            break;
        }
    }
    if (r->welcomed && (rc == 0 || rc == -EAGAIN) && (framed || !deaf(r))) {
        nx_health_read(r, framed);
    }
    if (rc == -EPIPE) {
        end_closed(r);
    } else if (rc < 0 && rc != -EAGAIN) {
        end_broken(r, rc);
    }
}

/* ---- what it gets ---- */

static void queue_ack(struct nx_walreceiver *r)
{
    uint64_t offset = nx_receive_ackable(r);
    struct nx_msg_wal_ack ack = {
        .offset = offset, .success = true, .received = r->last.offset, .applied = offset};

    if (offset > r->acked_offset && nx_frame_io_put_wal_ack(&r->io, &ack) == 0) {
        r->acked_offset = offset;
    }
}

/* What is judged by is the longer interval of both nodes (health.c), what is sent the shorter one: the
 * master judges us by its own. Either may change by a reload. */
static uint64_t shorter_heartbeat(const struct nx_walreceiver *r)
{
    uint64_t own = config_of(r)->replication.heartbeat_ms;

    return r->master_heartbeat_ms > 0 && r->master_heartbeat_ms < own ? r->master_heartbeat_ms
                                                                      : own;
}

static void queue_heartbeat(struct nx_walreceiver *r)
{
    if (r->pong_due) {
        struct nx_msg_pong pong = {.timestamp = r->pong_timestamp};

        r->pong_due = nx_frame_io_put_pong(&r->io, &pong) < 0;
    }
    if (nx_now_ms() - r->sent_ms >= shorter_heartbeat(r) && nx_frame_io_pending(&r->io) == 0) {
        struct nx_msg_ping ping = {.timestamp = nx_wall_ms(),
                                   .current_wal_offset = r->durable_seen};

        (void)nx_frame_io_put_ping(&r->io, &ping);
    }
}

/* Acks are cumulative and one Pong answers all Pings, so with bytes still waiting nothing is added: a
 * master that doesn't read makes nothing grow here. */
static void output(struct nx_walreceiver *r)
{
    uint64_t before = r->io.sent;
    int rc;

    if (r->welcomed && nx_frame_io_pending(&r->io) == 0) {
        if (r->sync.phase == NX_INCOMING_IDLE) {
            queue_ack(r); /* else it would be of what a full sync replaces */
        }
        queue_heartbeat(r);
    }
    rc = nx_frame_io_flush(&r->io);
    if (r->io.sent != before) {
        r->sent_ms = nx_now_ms();
    }
    if (rc < 0 && rc != -EAGAIN) {
        end_broken(r, rc);
    }
}

/* ---- the loop ---- */

/* Silence later on is judged by health.c. */
static void check_handshake(struct nx_walreceiver *r)
{
    if (!r->welcomed && nx_now_ms() >= r->deadline_ms) {
        nx_receiver_end(r, NX_CAUSE_TIMEOUT, 0,
                        "%s accepted the connection but answered no Welcome within "
                        "connect_timeout_ms (%llu): is it hung, or is %s no master's replication "
                        "port (15475 by default)?",
                        r->peer, (unsigned long long)config_of(r)->replication.connect_timeout_ms,
                        config_of(r)->replication.master_addr);
    }
}

static int time_to_sleep(const struct nx_walreceiver *r)
{
    uint64_t now = nx_now_ms();
    uint64_t next = r->welcomed ? UINT64_MAX : r->deadline_ms;
    uint64_t ping = r->sent_ms + shorter_heartbeat(r);

    if (r->welcomed && nx_frame_io_pending(&r->io) == 0) {
        next = nx_lower(next, ping);
    }
    if (title_stale(r)) {
        next = nx_lower(next, r->titled_ms + TITLE_MS);
    }
    if ((r->durable_seen > nx_receive_ackable(r) || r->sync.phase != NX_INCOMING_IDLE) &&
        now + SYNC_LOOK < next) {
        next = now + SYNC_LOOK;
    }
    if (next <= now) {
        return 0;
    }
    return next - now > LONGEST_MS ? LONGEST_MS : (int)(next - now);
}

/* Sleeps unless there is something to do after all; the second look is part of the latch's rule. */
static void sleep_until_woken(struct nx_walreceiver *r)
{
    uint64_t wake = r->last.offset > r->durable_seen ? r->durable_seen + 1 : NX_WAKE_NEVER;
    short events = nx_frame_io_events(&r->io, !deaf(r));
    int timeout = nx_frame_io_buffered(&r->io) && !deaf(r) ? 0 : time_to_sleep(r);
    short revents = 0;

    nx_latch_prepare(r->shm, r->process->slot, wake);
    if ((r->welcomed && nx_receiver_durable(r) >= wake) || nx_completion_waiting(&r->producer) ||
        nx_receive_held(r)) {
        nx_latch_cancel(r->shm, r->process->slot);
        return;
    }
    r->health.held = deaf(r);
    nx_receiver_sleep(r, r->io.fd, events, timeout, &revents);
    r->health.held = false;
    if (deaf(r) && (revents & (POLLERR | POLLHUP)) != 0) {
        nx_receiver_end(r, NX_CAUSE_BROKEN, 0, "the connection to the master broke");
    }
}

static void turn(struct nx_walreceiver *r)
{
    (void)nx_receive_held(r);
    if (!deaf(r)) {
        (void)take_frames(r);
        input(r);
    }
    nx_receive_completions(r);
    nx_receive_snapshot_watch(r);
    r->durable_seen = r->welcomed ? nx_receiver_durable(r) : 0;
    if (!nx_receiver_ended(r)) {
        output(r);
    }
    publish(r);
    if (!nx_receiver_ended(r)) {
        check_handshake(r);
    }
    if (!nx_receiver_ended(r)) {
        show_title(r);
        sleep_until_woken(r);
    }
}

void nx_session_run(struct nx_walreceiver *r)
{
    r->welcomed = false;
    r->pong_due = false;
    r->counted_received = 0;
    r->counted_sent = 0;
    r->new_entries = 0;
    r->new_bytes = 0;
    r->master_heartbeat_ms = 0;
    r->sent_ms = nx_now_ms();
    nx_welcome_ask(r);
    while (!nx_receiver_ended(r)) {
        turn(r);
    }
    if (r->cause.kind == NX_CAUSE_STOP) {
        output(r); /* the last acknowledgment */
    }
    publish(r);
    nx_receive_snapshot_end_session(r);
    atomic_store_explicit(&r->shm->receiver.connected, 0, memory_order_release);
    atomic_store_explicit(&r->shm->receiver.stage, NX_RECEIVER_CONNECTING, memory_order_relaxed);
}
