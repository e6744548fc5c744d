/* The walsender: one process a connection on the replication port, forked by the postmaster with the
 * accepted socket. It owns that socket and its replica slot, reads the shared log and the WAL files, and
 * writes nothing else. It ends with its connection: when the peer is gone, silent for too long, breaks
 * the protocol or can't be served, or when the node stops, after what is durable has been sent. */
#include "walsender/walsender.h"

#include "common/fence.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/net.h"
#include "common/order.h"
#include "common/quorum.h"
#include "walsender/handshake.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define IN_TYPICAL    ((size_t)8 << 10) /* a replica's frames are small */
#define OUT_TYPICAL   ((size_t)256 << 10)
#define FAREWELL_MS   500
#define LONGEST_MS    3600000
#define TITLE_MS      200 /* between changes of the process title */
#define RECOVERY_LOOK 100 /* ms between looks while the log isn't recovered yet */

/* When this conversation must have gone on: the Hello, or any frame. */
static uint64_t deadline(const struct nx_walsender *ws)
{
    if (!ws->welcomed) {
        return ws->opened_ms + ws->process->config->replication.connect_timeout_ms;
    }
    return ws->heard_ms + nx_silence_limit_ms(ws->process->config);
}

/* Judged right after the socket was read to its end, so that a walsender that was itself stopped for a
 * while hears first what was said meanwhile. */
static void check_silence(struct nx_walsender *ws)
{
    if (nx_now_ms() < deadline(ws)) {
        return;
    }
    if (ws->welcomed) {
        nx_walsender_end(
            ws, NX_ENDING_NORMAL, 0,
            "no frame for %llu ms (heartbeat_ms %llu x missed_heartbeats_threshold "
            "%llu): the replica appears dead",
            (unsigned long long)nx_silence_limit_ms(ws->process->config),
            (unsigned long long)ws->process->config->replication.heartbeat_ms,
            (unsigned long long)ws->process->config->replication.missed_heartbeats_threshold);
    } else if (ws->io.has_frame) {
        nx_walsender_end(ws, NX_ENDING_NORMAL, NX_WIRE_ERROR_INTERNAL,
                         "this master is still recovering its log: try again");
    } else {
        nx_walsender_end(ws, ws->io.received == 0 ? NX_ENDING_QUIET : NX_ENDING_REFUSED, 0,
                         "no Hello within connect_timeout_ms (%llu)",
                         (unsigned long long)ws->process->config->replication.connect_timeout_ms);
    }
}

/* Why a walsender that was told to stop does: the node stops, or replication alone; else it was replaced
 * by a newer connection of its replica. */
static const char *stop_reason(const struct nx_walsender *ws)
{
    if (atomic_load_explicit(&ws->shm->control.phase, memory_order_acquire) == NX_PHASE_DRAINING) {
        return "this master is shutting down";
    }
    return nx_walsender_stopped(ws) ? NX_REPLICATION_STOPPED_TEXT : NULL;
}

/* What is durable goes out and is waited for, within stop_drain_ms. Where replication alone stops, that is
 * what was durable then: the log may go on. */
static void check_stop(struct nx_walsender *ws)
{
    const char *reason = stop_reason(ws);
    uint64_t now = nx_now_ms();

    if (!nx_process_stopping(ws->process)) {
        return;
    }
    if (!ws->welcomed || reason == NULL || nx_full_sync_runs(&ws->sync) || ws->sync.restoring) {
        nx_walsender_end(
            ws, NX_ENDING_NORMAL, NX_WIRE_ERROR_SHUTTING_DOWN, "this connection is given up: %s",
            reason == NULL ? "the node ends, by a crash or a change of its role, or the "
                             "replica has come again on another connection"
                           : reason);
        return;
    }
    if (ws->drain_until_ms == 0) {
        ws->drain_until_ms = now + ws->process->config->replication.stop_drain_ms;
        ws->send_limit = nx_walsender_stopped(ws) ? nx_walsender_durable(ws) : UINT64_MAX;
    }
    uint64_t goal = nx_walsender_sendable(ws);

    if (ws->acked_offset >= goal) {
        nx_walsender_end(ws, NX_ENDING_NORMAL, NX_WIRE_ERROR_SHUTTING_DOWN,
                         "%s; the replica has everything up to offset %llu", reason,
                         (unsigned long long)goal);
    } else if (now >= ws->drain_until_ms) {
        nx_walsender_end(
            ws, NX_ENDING_NORMAL, NX_WIRE_ERROR_SHUTTING_DOWN,
            "%s; the replica has acknowledged %llu, the last offset here is %llu (waited "
            "stop_drain_ms)",
            reason, (unsigned long long)ws->acked_offset, (unsigned long long)goal);
    }
}

/* Another node leads: nobody is served here any more. */
static void check_fence(struct nx_walsender *ws)
{
    struct nx_fence fence;
    char text[NX_FENCED_TEXT];

    if (ws->welcomed && nx_fenced(ws->shm)) {
        nx_fence_read(ws->shm, &fence);
        nx_fenced_text(&fence, text);
        nx_walsender_end(ws, NX_ENDING_NORMAL, NX_WIRE_ERROR_FENCED, "%s", text);
    }
}

static bool streams(const struct nx_walsender *ws)
{
    return atomic_load_explicit(&ws->slot->state, memory_order_relaxed) == NX_REPLICA_STREAMING;
}

/* Whether the title says something that is no longer so. */
static bool title_stale(const struct nx_walsender *ws)
{
    return ws->welcomed &&
           (nx_full_sync_runs(&ws->sync) || ws->titled_offset != ws->queued_offset ||
            ws->titled_streaming != streams(ws));
}

static void show_full_sync(struct nx_walsender *ws, uint64_t now)
{
    const struct nx_full_sync *sync = &ws->sync;
    uint64_t ms = now - sync->began_ms;
    unsigned thousandths = atomic_load_explicit(&ws->slot->snapshot_progress, memory_order_relaxed);

    ws->titled_offset = UINT64_MAX;
    nx_process_title(
        ws->process, "%.8s snapshot %u%% %llu MB/s", ws->replica_id, thousandths / 10,
        (unsigned long long)(ms > 0 ? (sync->sent - sync->resumed_at) / 1000 / ms : 0));
}

/* Not at each entry: between an entry and its confirmation that would be a part of the way. */
static void show_title(struct nx_walsender *ws)
{
    uint64_t now = nx_now_ms();

    if (!title_stale(ws) || now - ws->titled_ms < TITLE_MS) {
        return;
    }
    ws->titled_ms = now;
    if (nx_full_sync_runs(&ws->sync)) {
        show_full_sync(ws, now);
        return;
    }
    ws->titled_offset = ws->queued_offset;
    ws->titled_streaming = streams(ws);
    nx_process_title(ws->process, "%.8s %s %llu", ws->replica_id,
                     ws->titled_streaming ? "streaming" : "catching up",
                     (unsigned long long)ws->queued_offset);
}

/* Milliseconds until the clock alone asks for something. */
static int time_to_sleep(const struct nx_walsender *ws)
{
    uint64_t now = nx_now_ms();
    uint64_t next = deadline(ws);

    if (ws->welcomed && nx_frame_io_pending(&ws->io) == 0) {
        next = nx_lower(next, ws->sent_ms + ws->process->config->replication.heartbeat_ms);
    }
    if (ws->drain_until_ms > 0) {
        next = nx_lower(next, ws->drain_until_ms);
    }
    if (!ws->welcomed && ws->io.has_frame) {
        next = nx_lower(next, now + RECOVERY_LOOK);
    }
    if (nx_full_sync_wait(ws) >= 0) {
        next = nx_lower(next, now + (uint64_t)nx_full_sync_wait(ws));
    }
    if (title_stale(ws)) {
        next = nx_lower(next, ws->titled_ms + TITLE_MS);
    }
    return next <= now ? 0 : (int)nx_lower(next - now, LONGEST_MS);
}

/* Sleeps until the socket, the log, the postmaster or the clock has something. */
static void sleep_until_woken(struct nx_walsender *ws)
{
    unsigned slot = ws->process->slot;
    bool blocked = nx_frame_io_pending(&ws->io) > 0;
    bool syncing = nx_full_sync_runs(&ws->sync);
    bool more = ws->queued_offset < ws->send_limit;
    uint64_t wake =
        ws->welcomed && !blocked && !syncing && more ? ws->queued_offset + 1 : NX_WAKE_NEVER;
    bool telling = ws->welcomed && !blocked && !syncing && nx_quorum_rules(ws->shm);
    struct pollfd fds[2] = {
        {.fd = ws->process->control.fd, .events = POLLIN},
        {.fd = ws->io.fd, .events = nx_frame_io_events(&ws->io, !ws->io.has_frame)},
    };

    nx_latch_prepare_both(ws->shm, slot, wake, telling ? ws->told_quorum + 1 : NX_WAKE_NEVER);
    if (nx_walsender_durable(ws) < wake && !(telling && nx_count_news(ws)) &&
        (blocked || (!nx_full_sync_ready(ws) && !nx_count_ping_due(ws)))) {
        (void)nx_latch_poll(slot, fds, 2, nx_frame_io_buffered(&ws->io) ? 0 : time_to_sleep(ws));
    }
    nx_latch_cancel(ws->shm, slot);
    if (fds[0].revents != 0) {
        (void)nx_process_control(ws->process, NULL, 0);
    }
    if ((fds[1].revents & (POLLERR | POLLHUP | POLLNVAL)) != 0 && ws->io.has_frame) {
        nx_walsender_end(ws, NX_ENDING_NORMAL, 0, "the connection broke");
    }
}

static void turn(struct nx_walsender *ws)
{
    nx_session_input(ws);
    if (!nx_walsender_ended(ws)) {
        nx_feed_output(ws);
    }
    nx_feed_publish(ws);
    if (!nx_walsender_ended(ws)) {
        check_fence(ws);
        check_stop(ws);
        check_silence(ws);
    }
    if (!nx_walsender_ended(ws)) {
        nx_lag_report(ws);
        show_title(ws);
        sleep_until_woken(ws);
    }
}

/* How far a transfer was that ended with its connection; "" where there was none. */
static void describe_transfer(const struct nx_walsender *ws, char *buf, size_t cap)
{
    char total[32] = "";

    buf[0] = '\0';
    if (ws->sync.size_known) {
        (void)snprintf(total, sizeof total, " of %llu", (unsigned long long)ws->sync.total_size);
    }
    if (ws->sync.phase == NX_FULL_SYNC_SEND) {
        (void)snprintf(buf, cap, "; its full sync had sent %llu%s bytes of snapshot %s",
                       (unsigned long long)ws->sync.sent, total, ws->sync.pin.snapshot_id);
    }
}

static void say_refusal(struct nx_walsender *ws, const char *kind, const char *id)
{
    char more[64];
    char code[96] = "";

    if (!nx_walsender_may_say(ws, more, sizeof more)) {
        return;
    }
    if (ws->ending.code != 0) {
        (void)snprintf(code, sizeof code, ", Error %u (%s)", ws->ending.code,
                       nx_wire_error_text(ws->ending.code));
    }
    nx_warn("%s%s at %s refused%s: %s%s", kind, id, ws->peer, code, ws->ending.text, more);
}

/* One line, and the Error that goes with it. */
static void say_why(struct nx_walsender *ws)
{
    bool known = ws->replica_id[0] != '\0';
    char more[64] = "";
    const char *kind = known ? "replica " : "a peer";
    const char *id = known ? ws->replica_id : "";
    char transfer[160];

    describe_transfer(ws, transfer, sizeof transfer);
    switch (ws->ending.kind) {
    case NX_ENDING_NONE:
    case NX_ENDING_QUIET:
        nx_debug("connection from %s on the replication port ended: %s", ws->peer, ws->ending.text);
        break;
    case NX_ENDING_NORMAL:
        if (ws->welcomed || nx_walsender_may_say(ws, more, sizeof more)) {
            nx_info("%s%s at %s disconnected: %s%s%s", kind, id, ws->peer, ws->ending.text,
                    transfer, more);
        }
        break;
    case NX_ENDING_REFUSED:
        say_refusal(ws, kind, id);
        break;
    }
}

static void begin(struct nx_walsender *ws, struct nx_process *process)
{
    *ws = (struct nx_walsender){
        .process = process,
        .shm = process->shm,
        .slot = &process->shm->replicas[process->instance],
        .send_limit = UINT64_MAX,
    };
    ws->opened_ms = nx_now_ms();
    ws->heard_ms = ws->opened_ms;
    ws->sent_ms = ws->opened_ms;
    ws->titled_offset = UINT64_MAX;
    (void)nx_net_nodelay(process->client_fd);
    /* Silence is judged by heartbeats: the kernel would also count the time in which a living replica holds
     * back reading, because its own log is full. */
    (void)nx_net_detect_dead(process->client_fd, LONGEST_MS);
    nx_frame_io_open(&ws->io, process->client_fd, NX_WIRE_REPLICA, IN_TYPICAL, OUT_TYPICAL);
    nx_stream_open(&ws->stream, process->shm, process->state_root);
    nx_full_sync_init(ws);
    process->client_fd = -1;
}

int nx_walsender_main(struct nx_process *process)
{
    static struct nx_walsender ws;

    begin(&ws, process);
    nx_process_title(process, "handshake");
    nx_process_ready(process);
    if (nx_tls_on(NX_TLS_ACCEPT) && nx_frame_io_secure(&ws.io, NX_TLS_ACCEPT, NULL) < 0) {
        nx_walsender_end(&ws, NX_ENDING_NORMAL, 0, "no memory for TLS");
    }
    nx_welcome_check_peer(&ws);
    while (!nx_walsender_ended(&ws)) {
        turn(&ws);
    }
    atomic_store_explicit(&ws.slot->state, NX_REPLICA_NONE, memory_order_release);
    say_why(&ws);
    nx_frame_io_farewell(&ws.io, ws.ending.code, ws.ending.text, FAREWELL_MS);
    nx_feed_publish(&ws);
    nx_full_sync_close(&ws);
    nx_stream_close(&ws.stream);
    return NX_EXIT_OK;
}
