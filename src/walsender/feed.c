/* What goes to the replica. Runs in walsenders. Entries leave only when they are durable here, as the
 * very bytes of the log, in writes as large as the buffer; a replica that doesn't read costs that one
 * buffer and nothing else. The next chunk is read when the last one is gone, so what waits to be sent
 * is always the newest word on how far the buffer reaches. */
#include "common/latch.h"
#include "walsender/walsender.h"

#include <errno.h>
#include <string.h>

#define CHUNK  ((size_t)256 << 10)
#define CHUNKS 16 /* at most, before acks are looked at again */

/* Why the log can't be read on; ends the session. */
static void end_unreadable(struct nx_walsender *ws, uint64_t from, int rc)
{
    unsigned long long oldest =
        atomic_load_explicit(&ws->shm->checkpoint.oldest_kept, memory_order_acquire);

    if (rc == -ENOENT) {
        nx_walsender_end(
            ws, NX_ENDING_NORMAL, NX_WIRE_ERROR_INTERNAL,
            "the replica was too slow: entry %llu is next, the oldest kept here is %llu; when it "
            "comes again it gets a full sync (a larger replication.max_log_size, now %llu, or "
            "wal.max_size avoids that)",
            (unsigned long long)from, oldest,
            (unsigned long long)ws->process->config->replication.max_log_size);
        return;
    }
    nx_walsender_end(
        ws, NX_ENDING_REFUSED, NX_WIRE_ERROR_INTERNAL,
        "entry %llu can't be read from %s/wal (oldest kept %llu): %s; a replica that "
        "needs it must begin with an empty data directory (a full sync does without it)",
        (unsigned long long)from, ws->process->state_root, oldest,
        rc == -EBADMSG ? "damaged" : strerrordesc_np(-rc));
}

/* Reads [from, durable] into room of `cap` bytes in the output buffer. */
static int read_into_buffer(struct nx_walsender *ws, uint64_t durable, struct nx_log_chunk *chunk)
{
    int rc = nx_frame_io_room(&ws->io, chunk->cap, &chunk->buf);

    return rc < 0 ? rc : nx_stream_read(&ws->stream, ws->queued_offset + 1, durable, chunk);
}

/* Reads the next chunk into the output buffer, which is empty but for a Ping. False: nothing to read, or the
 * end. */
static bool queue_chunk(struct nx_walsender *ws)
{
    size_t waiting = nx_frame_io_pending(&ws->io); /* a Ping at most */
    struct nx_log_chunk chunk = {.cap = CHUNK - waiting};
    uint64_t durable = nx_walsender_sendable(ws);
    int rc;

    if (ws->queued_offset >= durable) {
        return false;
    }
    rc = read_into_buffer(ws, durable, &chunk);
    if (rc == -EMSGSIZE && waiting > 0) {
        return false; /* an entry that wants the whole buffer: the next turn's */
    }
    if (rc == -EMSGSIZE) {
        chunk.cap = chunk.length;
        rc = read_into_buffer(ws, durable, &chunk);
    }
    if (rc < 0) {
        end_unreadable(ws, ws->queued_offset + 1, rc);
        return false;
    }
    nx_frame_io_commit(&ws->io, chunk.length);
    nx_byte_marks_add(&ws->marks, chunk.last, chunk.length);
    ws->queued_offset = chunk.last;
    return true;
}

/* Sends what waits. True when all of it is out. */
static bool flush(struct nx_walsender *ws)
{
    uint64_t before = ws->io.sent;
    char text[160];
    int rc = nx_frame_io_flush(&ws->io);

    if (ws->io.sent != before) {
        ws->sent_ms = nx_now_ms();
    }
    if (rc < 0 && rc != -EAGAIN) {
        nx_walsender_end(ws, NX_ENDING_NORMAL, 0, "the connection broke: %s",
                         nx_frame_io_error(&ws->io, rc, text, sizeof text));
    }
    return rc == 0;
}

void nx_walsender_start_at(struct nx_walsender *ws, uint64_t offset)
{
    ws->queued_offset = offset;
    ws->acked_offset = 0;
    ws->level_offset = nx_walsender_durable(ws);
    nx_byte_marks_init(&ws->marks, offset);
    atomic_store_explicit(&ws->slot->ack_offset, 0, memory_order_relaxed);
    atomic_store_explicit(&ws->slot->received_offset, 0, memory_order_relaxed);
    atomic_store_explicit(&ws->slot->applied_offset, 0, memory_order_relaxed);
    atomic_store_explicit(&ws->slot->sent_offset, offset, memory_order_relaxed);
    atomic_store_explicit(&ws->slot->state, NX_REPLICA_CATCHING_UP, memory_order_release);
}

/* Pings and Pongs go only into an empty buffer: behind entries they would say nothing that the entries
 * don't, and so a peer that pings without reading makes nothing grow. */
static void queue_heartbeat(struct nx_walsender *ws)
{
    uint64_t interval = ws->process->config->replication.heartbeat_ms;

    if (ws->pong_due) {
        struct nx_msg_pong pong = {.timestamp = ws->pong_timestamp};

        ws->pong_due = nx_frame_io_put_pong(&ws->io, &pong) < 0;
    }
    /* In a full sync nothing else tells how far this master is: the first one goes out at once. */
    bool busy = nx_full_sync_runs(&ws->sync);
    uint64_t since = busy || ws->pinged_ms > ws->opened_ms ? ws->pinged_ms : ws->opened_ms;
    uint64_t now = nx_now_ms();

    if (nx_frame_io_pending(&ws->io) > 0) {
        return;
    }
    /* Under load too: entries may be old, so that only a Ping sets a replica's log clock. */
    if (nx_count_ping_due(ws) || now - ws->sent_ms >= interval || now - since >= interval) {
        ws->pinged_ms = now;
        (void)nx_count_put_ping(ws);
    }
}

/* Puts what comes next into the empty buffer: of the log, or of a snapshot. False: nothing yet. */
static bool queue_next(struct nx_walsender *ws)
{
    if (!nx_full_sync_runs(&ws->sync)) {
        /* Before the entries, so that it leaves in the same write with them. */
        bool news = nx_count_news(ws) && nx_count_put_news(ws) == 0;

        return queue_chunk(ws) || news;
    }
    queue_heartbeat(ws);
    return nx_frame_io_pending(&ws->io) > 0 || nx_full_sync_step(ws);
}

void nx_feed_output(struct nx_walsender *ws)
{
    bool empty = flush(ws);

    /* Nothing of the log for a peer that has not said who it is. */
    for (int i = 0; i < CHUNKS && empty && ws->welcomed && !nx_walsender_ended(ws); i++) {
        if (!queue_next(ws)) {
            break;
        }
        empty = flush(ws);
    }
    if (empty && ws->welcomed && !nx_walsender_ended(ws)) {
        queue_heartbeat(ws);
        (void)flush(ws);
    }
}

void nx_feed_track_lag(struct nx_walsender *ws)
{
    nx_lag_mark_move(&ws->lag, ws->acked_offset, nx_walsender_durable(ws), nx_now_ms());
    atomic_store_explicit(&ws->slot->behind_since_ms, ws->lag.since_ms, memory_order_relaxed);
}

void nx_feed_publish(struct nx_walsender *ws)
{
    struct nx_replica_slot *slot = ws->slot;

    atomic_store_explicit(&slot->bytes_sent, ws->io.sent, memory_order_relaxed);
    if (!ws->welcomed) {
        return;
    }
    atomic_store_explicit(&slot->heard_ms, ws->heard_ms, memory_order_relaxed);
    nx_count_ack(ws); /* also the last one of a replica that said goodbye */
    if (nx_walsender_ended(ws)) {
        return;
    }
    nx_full_sync_publish(ws);
    nx_full_sync_track_pin(ws);
    if (nx_full_sync_runs(&ws->sync)) {
        return;
    }
    atomic_store_explicit(&slot->sent_bytes_total, nx_byte_marks_total(&ws->marks),
                          memory_order_relaxed);
    atomic_store_explicit(&slot->sent_offset, ws->queued_offset, memory_order_relaxed);
    nx_feed_track_lag(ws);
}
