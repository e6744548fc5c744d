/* What the replica says once it is welcome. Runs in walsenders. Every frame counts as life; an ack is
 * believed only if it names something that was sent and doesn't go back. */
#include "common/latch.h"
#include "common/log.h"
#include "walsender/walsender.h"

#include <errno.h>
#include <string.h>

#define READS       8   /* at most, before output has its turn */
#define MESSAGE_MAX 512 /* bytes of an Error that are logged */

/* A frame whose payload makes no sense. */
static void end_unreadable(struct nx_walsender *ws, const struct nx_frame *frame)
{
    nx_walsender_end(ws, NX_ENDING_REFUSED, NX_WIRE_ERROR_BAD_FRAME,
                     "%s with a payload of %zu bytes can't be read", nx_wire_type_name(frame->type),
                     frame->payload_length);
}

static void take_ack(struct nx_walsender *ws, const struct nx_frame *frame)
{
    struct nx_replica_slot *slot = ws->slot;
    struct nx_msg_wal_ack ack;

    if (nx_wire_decode_wal_ack(frame->payload, frame->payload_length, &ack) < 0) {
        end_unreadable(ws, frame);
        return;
    }
    if (nx_full_sync_runs(&ws->sync) ||
        (ws->sync.restoring && ack.offset < ws->sync.pin.snapshot_offset)) {
        return; /* of what the replica is about to give up */
    }
    ws->sync.restoring = false;
    if (ack.offset > ws->queued_offset || ack.offset < ws->acked_offset ||
        ack.received > ws->queued_offset || ack.received < ack.offset || ack.applied > ack.offset) {
        nx_walsender_end(ws, NX_ENDING_REFUSED, NX_WIRE_ERROR_BAD_FRAME,
                         "WalAck of offset %llu (received %llu, applied %llu), but %llu was acked "
                         "before and %llu is the last one sent",
                         (unsigned long long)ack.offset, (unsigned long long)ack.received,
                         (unsigned long long)ack.applied, (unsigned long long)ws->acked_offset,
                         (unsigned long long)ws->queued_offset);
        return;
    }
    atomic_store_explicit(&slot->sync_acks,
                          atomic_load_explicit(&slot->sync_acks, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    if (!ack.success) {
        nx_walsender_end(ws, NX_ENDING_NORMAL, 0,
                         "the replica could not store what follows offset %llu",
                         (unsigned long long)ack.offset);
        return;
    }
    ws->acked_offset = ack.offset;
    atomic_store_explicit(&slot->acked_bytes_total, nx_byte_marks_up_to(&ws->marks, ack.offset),
                          memory_order_relaxed);
    atomic_store_explicit(&slot->received_offset, ack.received, memory_order_relaxed);
    atomic_store_explicit(&slot->applied_offset, ack.applied, memory_order_relaxed);
    atomic_store_explicit(&slot->ack_offset, ack.offset, memory_order_release);
}

static void take_ping(struct nx_walsender *ws, const struct nx_frame *frame)
{
    struct nx_msg_ping ping;

    if (nx_wire_decode_ping(frame->payload, frame->payload_length, &ping) < 0) {
        end_unreadable(ws, frame);
        return;
    }
    if (ping.timestamp != 0) {
        ws->pong_due = true;
        ws->pong_timestamp = ping.timestamp;
    }
}

static void take_request(struct nx_walsender *ws, const struct nx_frame *frame)
{
    struct nx_msg_request_snapshot request;

    if (nx_wire_decode_request_snapshot(frame->payload, frame->payload_length, &request) < 0) {
        end_unreadable(ws, frame);
    } else if (!nx_full_sync_runs(&ws->sync)) {
        nx_info("replica %s at %s asks for a full sync", ws->replica_id, ws->peer);
        nx_full_sync_begin(ws, NULL);
    }
}

/* Its reason whole, because the replica is where the matter is to be mended; the log escapes it. */
static void take_error(struct nx_walsender *ws, const struct nx_frame *frame)
{
    struct nx_msg_error error;

    if (nx_wire_decode_error(frame->payload, frame->payload_length, &error) < 0) {
        end_unreadable(ws, frame);
        return;
    }
    nx_walsender_end(ws, NX_ENDING_NORMAL, 0, "the replica says Error %u (%s): %.*s", error.code,
                     nx_wire_error_text(error.code),
                     error.message.length < MESSAGE_MAX ? (int)error.message.length : MESSAGE_MAX,
                     (const char *)error.message.data);
}

/* True when the frame is done with. */
static bool take(struct nx_walsender *ws, const struct nx_frame *frame)
{
    struct nx_msg_pong pong;

    ws->heard_ms = nx_now_ms();
    switch (frame->type) {
    case NX_MSG_HELLO:
        return nx_welcome_hello(ws, frame);
    case NX_MSG_WAL_ACK:
        take_ack(ws, frame);
        return true;
    case NX_MSG_PING:
        take_ping(ws, frame);
        return true;
    case NX_MSG_PONG:
        if (nx_wire_decode_pong(frame->payload, frame->payload_length, &pong) < 0) {
            end_unreadable(ws, frame);
        } else {
            nx_count_pong(ws, pong.timestamp);
        }
        return true;
    case NX_MSG_ERROR:
        take_error(ws, frame);
        return true;
    case NX_MSG_REQUEST_SNAPSHOT:
        take_request(ws, frame);
        return true;
    default: /* nx_frame_peek lets nothing else through */
        end_unreadable(ws, frame);
        return true;
    }
}

/* Handles the whole frames that stand in the buffer. */
static void take_frames(struct nx_walsender *ws)
{
    struct nx_frame frame;
    char text[256];
    int rc = 0;

    while (!nx_walsender_ended(ws) && (rc = nx_frame_io_next(&ws->io, &frame)) == 0) {
        if (!take(ws, &frame)) {
            return;
        }
        nx_frame_io_consume(&ws->io);
    }
    if (rc == -EBADMSG) {
        nx_walsender_end(ws, NX_ENDING_REFUSED, NX_WIRE_ERROR_BAD_FRAME, "%s",
                         nx_frame_fault_text(&frame, text, sizeof text));
    }
}

/* The peer has closed, or the connection is broken. */
static void end_connection(struct nx_walsender *ws, int rc)
{
    char text[160];

    if (rc != -EPIPE) {
        nx_walsender_end(ws, NX_ENDING_NORMAL, 0, "the connection broke: %s",
                         nx_frame_io_error(&ws->io, rc, text, sizeof text));
    } else if (nx_frame_io_partial(&ws->io)) {
        nx_walsender_end(ws, NX_ENDING_REFUSED, NX_WIRE_ERROR_BAD_FRAME,
                         "the connection was closed in the middle of a frame");
    } else {
        nx_walsender_end(ws, ws->io.received == 0 ? NX_ENDING_QUIET : NX_ENDING_NORMAL, 0,
                         "the replica closed the connection");
    }
}

void nx_session_input(struct nx_walsender *ws)
{
    int rc = 0;

    for (int i = 0; i < READS && rc == 0; i++) {
        take_frames(ws);
        if (nx_walsender_ended(ws)) {
            return;
        }
        rc = nx_frame_io_receive(&ws->io);
        if (nx_frame_io_drained(&ws->io)) {
            break;
        }
    }
    if (rc < 0 && rc != -EAGAIN && rc != -ENOBUFS) {
        end_connection(ws, rc);
        return;
    }
    take_frames(ws);
}
