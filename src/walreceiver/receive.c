/* Entries on their way from the socket to our own walwriter. Runs in the walreceiver, the one producer
 * of frames. An entry is checked here before it is submitted (the frame's CRC was checked as it came
 * in), and once more by the walwriter, which alone decides. What is submitted can't be taken back: so a
 * new session first waits until the log's end is known. */
#include "common/failpoint.h"
#include "common/latch.h"
#include "common/shared_log.h"
#include "walreceiver/walreceiver.h"

#include <errno.h>
#include <string.h>

/* ---- the log's end ---- */

/* Submits a write that can't happen: its condition never holds, and a replica refuses writes anyway. It
 * is answered when all that was submitted before it has been decided and is durable. 0 or -EAGAIN. */
static int submit_barrier(struct nx_walreceiver *r, uint64_t ticket)
{
    static const uint8_t key[] = {'-'};
    const struct nx_condition never = {
        .kind = NX_CONDITION_ANY_OF, .key = key, .key_length = sizeof key};
    const struct nx_op op = {.kind = NX_OP_DELETE, .key = {key, sizeof key}};
    uint8_t condition[32];
    uint8_t body[32];
    struct nx_writer writer = nx_writer_of(body, sizeof body);
    size_t progress = 0;
    struct nx_submission submission = {
        .kind = NX_SUBMIT_WRITE,
        .ticket = ticket,
        .conditions = condition,
        .conditions_length = nx_condition_encode(condition, &never),
        .condition_count = 1,
        .body = body,
        .op_count = 1,
    };

    (void)nx_op_encode(&writer, &op);
    submission.body_length = writer.used;
    return nx_submit(&r->producer, &submission, &progress);
}

/* True when the barrier has been answered. */
static bool barrier_answered(struct nx_walreceiver *r)
{
    struct nx_completion completion;

    while (nx_completion_next(&r->producer, &completion)) {
        if (completion.ticket == r->ticket) {
            return true;
        }
    }
    return false;
}

/* Has the log synced (wal.fsync other than always): the position in Hello counts as acknowledged. */
static void sync_log(struct nx_walreceiver *r)
{
    uint64_t durable = nx_receiver_durable(r);

    while (nx_receive_ackable(r) < durable && !nx_receiver_ended(r)) {
        atomic_store_explicit(&r->shm->receiver.sync_wanted, durable, memory_order_release);
        nx_latch_ring(r->shm, nx_process_slot(NX_KIND_WALWRITER, 0));
        nx_latch_prepare(r->shm, r->process->slot, NX_WAKE_NEVER);
        if (nx_receive_ackable(r) >= durable) {
            nx_latch_cancel(r->shm, r->process->slot);
        } else {
            nx_receiver_sleep(r, -1, 0, -1, NULL);
        }
    }
}

void nx_receive_settle(struct nx_walreceiver *r)
{
    bool submitted = false;
    bool answered = false;

    r->ticket++;
    r->health.held = true; /* our own log is busy */
    while (!answered && !nx_receiver_ended(r)) {
        nx_latch_prepare(r->shm, r->process->slot, NX_WAKE_NEVER);
        submitted = submitted || submit_barrier(r, r->ticket) == 0;
        answered = barrier_answered(r);
        if (answered) {
            nx_latch_cancel(r->shm, r->process->slot);
        } else {
            nx_receiver_sleep(r, -1, 0, -1, NULL);
        }
    }
    sync_log(r);
    r->health.held = false;
    nx_log_position(r->shm, &r->last.offset, &r->last.epoch, &r->last.crc);
    r->holding = false;
    r->progress = 0;
}

/* ---- one entry ---- */

/* Ends the session over an entry that doesn't follow what we have. */
static void refuse_entry(struct nx_walreceiver *r, const struct nx_entry_header *header)
{
    const char *what = "breaks the chain";

    if (header->offset != r->last.offset + 1) {
        what = header->offset <= r->last.offset ? "is a duplicate" : "leaves a gap";
    } else if (header->epoch < r->last.epoch) {
        what = "is of a lower epoch";
    } else if (!nx_entry_epoch_follows(header, r->last.offset, r->last.epoch)) {
        what = "is of a higher epoch, which no entry began";
    }
    nx_receiver_refuse(
        r, NX_CAUSE_VIOLATION, NX_WIRE_ERROR_BAD_FRAME,
        "entry %llu of epoch %llu (prev_crc %08x) %s: offset %llu of epoch %llu (CRC "
        "%08x) is the last one here",
        (unsigned long long)header->offset, (unsigned long long)header->epoch, header->prev_crc,
        what, (unsigned long long)r->last.offset, (unsigned long long)r->last.epoch, r->last.crc);
}

/* True when the frame is the log's next entry. */
static bool check(struct nx_walreceiver *r,
                  const struct nx_frame *frame,
                  struct nx_entry_header *ret_header)
{
    if (nx_entry_decode(frame->bytes, frame->length, false, ret_header) < 0 ||
        nx_entry_validate_ops(ret_header) < 0) {
        nx_receiver_refuse(r, NX_CAUSE_VIOLATION, NX_WIRE_ERROR_BAD_FRAME,
                           "a WalEntry of %zu bytes behind offset %llu can't be read",
                           frame->length, (unsigned long long)r->last.offset);
        return false;
    }
    if (ret_header->offset != r->last.offset + 1 ||
        !nx_entry_epoch_follows(ret_header, r->last.offset, r->last.epoch) ||
        !nx_position_links(&r->last, ret_header->prev_crc)) {
        refuse_entry(r, ret_header);
        return false;
    }
    return true;
}

/* Submits the frame whose header is r->held. */
static bool submit(struct nx_walreceiver *r, const struct nx_frame *frame)
{
    struct nx_submission submission = {
        .kind = NX_SUBMIT_FRAME,
        .body = frame->bytes,
        .body_length = frame->length,
    };
    int rc = nx_submit(&r->producer, &submission, &r->progress);

    if (rc == -EAGAIN) {
        r->holding = true;
        return false;
    }
    r->holding = false;
    r->progress = 0;
    if (rc < 0) {
        nx_receiver_refuse(r, NX_CAUSE_OWN, NX_WIRE_ERROR_INTERNAL,
                           "entry %llu of %zu bytes can't be submitted: %s",
                           (unsigned long long)r->held.offset, frame->length, strerrordesc_np(-rc));
        return true;
    }
    r->last =
        (struct nx_position){.epoch = r->held.epoch, .offset = r->held.offset, .crc = r->held.crc};
    r->new_entries++;
    r->new_bytes += frame->length;
    return true;
}

bool nx_receive_entry(struct nx_walreceiver *r, const struct nx_frame *frame)
{
    if (!r->holding && !check(r, frame, &r->held)) {
        return true;
    }
    return submit(r, frame);
}

bool nx_receive_held(struct nx_walreceiver *r)
{
    struct nx_frame frame;
    size_t before = r->progress;

    if (!r->holding || nx_frame_io_next(&r->io, &frame) != 0) {
        return false;
    }
    if (nx_receive_entry(r, &frame)) {
        nx_frame_io_consume(&r->io);
        return true;
    }
    return r->progress > before;
}

void nx_receive_completions(struct nx_walreceiver *r)
{
    struct nx_completion completion;

    while (nx_completion_next(&r->producer, &completion)) {
        nx_receiver_refuse(
            r, NX_CAUSE_OWN, NX_WIRE_ERROR_BAD_FRAME,
            "this node's log stands at offset %llu of epoch %llu and did not take what "
            "followed there (status %u)",
            (unsigned long long)completion.offset, (unsigned long long)completion.epoch,
            completion.status);
    }
}

uint64_t nx_receive_ackable(const struct nx_walreceiver *r)
{
    uint64_t durable = nx_receiver_durable(r);
    uint64_t synced = atomic_load_explicit(&r->shm->log.synced_offset, memory_order_acquire);

    if (NX_PLANTED(ack_on_receive) && r->welcomed && r->last.offset > durable) {
        return r->last.offset;
    }
    return synced < durable ? synced : durable;
}
