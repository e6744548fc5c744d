/* Gathers a group: takes submissions from all rings, decides each in order, encodes what it decides
 * into the arena and links it. Runs in the walwriter. Nothing here is visible to anybody before
 * commit.c publishes it: readers stop at durable_offset. */
#include "common/failpoint.h"
#include "common/fence.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/log_clock.h"
#include "common/skip_list.h"
#include "storage/data_dir.h"
#include "walwriter/walwriter.h"

#include <errno.h>
#include <string.h>

/* Of LMDB, bytes: a page, and what a record with its row of the expiry index has beside the bytes of its operation. */
#define STATE_PAGE     4096ull
#define STATE_OVERHEAD 96ull

bool nx_group_waiting(const struct walwriter *w)
{
    for (unsigned i = 0; i < NX_PRODUCERS; i++) {
        if (nx_consumer_waiting(&w->consumers[i])) {
            return true;
        }
    }
    return false;
}

/* Notes an answer; it is posted with the group, when all it was judged on is durable. */
static void answer(struct walwriter *w,
                   unsigned producer,
                   const struct nx_received *received,
                   struct nx_completion *completion,
                   enum nx_submit_status status)
{
    completion->ticket = received->ticket;
    completion->generation = received->generation;
    completion->offset = w->log.newest;
    completion->epoch = w->epoch;
    completion->status = status;
    w->answers[w->answer_count++] = (struct answer){producer, *completion};
}

void nx_group_append(struct walwriter *w,
                     uint8_t *frame,
                     uint64_t pos,
                     const struct nx_entry_header *header)
{
    struct nx_op_iter iter;
    struct nx_op op;

    nx_op_iter_init(&iter, frame + NX_ENTRY_HEADER_SIZE, header->ops_length, header->op_count);
    while (nx_op_next(&iter, &op) > 0) {
        uint64_t op_pos = pos + (uint64_t)(iter.at - frame);

        if (op.kind != NX_OP_EPOCH) {
            nx_unlinked_add(w, &(struct nx_skip_version){.key = op.key,
                                                         .op_pos = op_pos,
                                                         .offset = header->offset,
                                                         .op_index = iter.index - 1,
                                                         .kind = (uint8_t)op.kind});
        }
        (void)NX_FAILPOINT(entry_unlinked);
        if (op.expires_at != 0) {
            nx_expire_note(w, op.expires_at, op_pos);
        }
    }
    nx_epoch_note(w, header, frame);
    nx_log_commit(&w->log, pos, header->frame_length);
    w->group_bytes += header->frame_length;
    w->last = (struct nx_position){header->epoch, header->offset, header->crc};
    w->last_timestamp = header->timestamp;
    w->epoch = header->epoch;
}

/* One clock reading a group; a stamp never goes below the one before. */
uint64_t nx_group_stamp(struct walwriter *w)
{
    if (w->group_timestamp == 0) {
        w->group_timestamp = nx_log_clock_us(w->shm);
    }
    return w->group_timestamp > w->last_timestamp ? w->group_timestamp : w->last_timestamp;
}

void nx_group_append_ops(struct walwriter *w,
                         uint8_t *frame,
                         uint64_t pos,
                         size_t ops_length,
                         uint32_t op_count)
{
    struct nx_entry_header header = {
        .offset = w->log.newest + 1,
        .epoch = w->epoch,
        .timestamp = nx_group_stamp(w),
        .prev_crc = w->last.crc,
        .op_count = op_count,
        .ops = frame + NX_ENTRY_HEADER_SIZE,
        .ops_length = ops_length,
        .frame_length = nx_entry_frame_size(ops_length),
    };

    header.crc = nx_entry_finish(frame, &header);
    nx_group_append(w, frame, pos, &header);
}

/* ---- operations of a client's write ---- */

/* What a body holds: how many puts, how many deletes. -EBADMSG: not operations. */
struct body_summary {
    uint32_t puts;
    uint32_t deletes;
};

/* Where a write's entry is made. */
struct place {
    uint8_t *frame;
    uint64_t pos;
    size_t room;      /* bytes of operations that it may become */
    uint32_t deletes; /* of its body */
};

static int summarize(const struct nx_received *received, struct body_summary *ret_summary)
{
    struct body_summary summary = {0, 0};
    struct nx_op_iter iter;
    struct nx_op op;
    int rc;

    nx_op_iter_init(&iter, received->body, received->body_length, received->op_count);
    while ((rc = nx_op_next(&iter, &op)) > 0) {
        if (op.kind == NX_OP_EPOCH) {
            return -EBADMSG;
        }
        summary.puts += op.kind == NX_OP_PUT ? 1 : 0;
        summary.deletes += op.kind == NX_OP_DELETE ? 1 : 0;
    }
    *ret_summary = summary;
    return rc;
}

/* Copies the operations that do something to `out`: puts, and deletes of keys that exist at that
 * point of the entry. */
static int copy_effective(struct walwriter *w,
                          const struct nx_received *received,
                          uint8_t *out,
                          size_t *ret_length,
                          uint32_t *ret_count,
                          uint32_t *ret_hits)
{
    struct nx_op_iter iter;
    struct nx_op op;
    size_t length = 0;
    uint32_t count = 0;
    uint32_t hits = 0;

    nx_touched_clear();
    nx_op_iter_init(&iter, received->body, received->body_length, received->op_count);
    while (nx_op_next(&iter, &op) > 0) {
        uint8_t *touched = nx_touched_kind(op.key);
        bool exists = true;

        if (op.kind == NX_OP_DELETE) {
            int rc = 0;

            if (*touched != 0) {
                exists = *touched == NX_OP_PUT;
            } else {
                rc = nx_lookup_exists(w, op.key, &exists);
            }
            if (rc < 0) {
                return rc;
            }
            hits += exists ? 1 : 0;
        }
        *touched = op.kind;
        if (exists) {
            size_t size = nx_op_encoded_size(&op);

            memcpy(out + length, iter.at, size);
            length += size;
            count++;
        }
    }
    *ret_length = length;
    *ret_count = count;
    *ret_hits = hits;
    return 0;
}

/* A write as it is: puts only. */
static int copy_puts(struct walwriter *w,
                     const struct nx_received *received,
                     uint8_t *out,
                     uint32_t *ret_hits)
{
    if ((received->flags & NX_SUBMIT_WANT_HITS) != 0 && received->op_count == 1) {
        struct nx_op op;
        bool exists = false;
        int rc = nx_op_decode_at(received->body, received->body_length, &op);

        rc = rc < 0 ? rc : nx_lookup_exists(w, op.key, &exists);
        if (rc < 0) {
            return rc;
        }
        *ret_hits = exists ? 1 : 0;
    }
    memcpy(out, received->body, received->body_length);
    return 0;
}

/* Appends what a write becomes, in `room` bytes for its operations. 1; 0: nothing is to be done; or a negative
 * error. */
static int place_ops(struct walwriter *w,
                     const struct nx_received *received,
                     const struct place *place,
                     struct nx_completion *completion)
{
    uint8_t *out = place->frame + NX_ENTRY_HEADER_SIZE;
    size_t length = received->body_length;
    uint32_t count = received->op_count;
    int rc;

    if ((received->flags & NX_SUBMIT_TOUCH) != 0) {
        rc = nx_touch_place(w, received, out, place->room, &length);
        count = length > 0 ? 1 : 0;
    } else if (place->deletes > 0) {
        rc = copy_effective(w, received, out, &length, &count, &completion->hits);
    } else {
        rc = copy_puts(w, received, out, &completion->hits);
    }
    if (rc == 0 && count > 0) {
        nx_group_append_ops(w, place->frame, place->pos, length, count);
    }
    return rc < 0 ? rc : (int)(count > 0);
}

/* The oldest generation that is not merged; merged ones are freed later, when their place is needed. */
static uint64_t first_unmerged(const struct walwriter *w)
{
    uint64_t merged =
        atomic_load_explicit(&w->shm->checkpoint.merged_generation, memory_order_acquire);

    return merged < w->oldest_generation ? w->oldest_generation : merged + 1;
}

static uint64_t count_versions(struct walwriter *w, uint64_t first)
{
    uint64_t count = w->unlinked_count;

    for (uint64_t number = first; number <= w->generation; number++) {
        count += atomic_load_explicit(&nx_skip_pool(w->shm, number)->count, memory_order_relaxed);
    }
    return count;
}

/* Bytes of LMDB's map that it takes to merge all that isn't merged, and `length` more: what the state grows by, pages
 * being half full at worst; and, since a transaction holds old and new pages at once, what it replaces: a page of
 * records and one of the expiry index for each version, but no more than there are. */
static uint64_t map_needed(struct walwriter *w, size_t length)
{
    uint64_t first = first_unmerged(w);
    uint64_t first_pos = atomic_load_explicit(
        &w->shm->generations[first % NX_GENERATIONS].first_pos, memory_order_relaxed);
    uint64_t state = atomic_load_explicit(&w->shm->checkpoint.state_bytes, memory_order_relaxed);
    uint64_t versions = count_versions(w, first);
    uint64_t grows = 2 * (w->log.next_pos - first_pos + length + versions * STATE_OVERHEAD);
    uint64_t touched = 2 * STATE_PAGE * versions;

    return grows + (touched < state + grows ? touched : state + grows);
}

/* Space on disk and in LMDB's map: what can't be stored later is refused now. Deletes may use the
 * reserve, so that a full node can be emptied. */
static enum nx_submit_status storage_refusal(struct walwriter *w,
                                             const struct body_summary *summary,
                                             size_t length)
{
    const struct nx_checkpoint_state *checkpoint = &w->shm->checkpoint;
    uint64_t map_free = atomic_load_explicit(&checkpoint->map_free, memory_order_relaxed);

    if (summary->puts == 0) {
        return NX_SUBMIT_DONE;
    }
    if (atomic_load_explicit(&checkpoint->disk_state, memory_order_relaxed) == NX_DISK_FULL) {
        return NX_SUBMIT_DISK_FULL;
    }
    return map_free < map_needed(w, length) ? NX_SUBMIT_MAP_FULL : NX_SUBMIT_DONE;
}

/* The answer to a write that isn't even looked at, or DONE. */
static enum nx_submit_status early_refusal(struct walwriter *w,
                                           const struct nx_received *received,
                                           struct body_summary *ret_summary)
{
    if (atomic_load_explicit(&w->shm->control.role, memory_order_relaxed) == NX_NODE_REPLICA) {
        return NX_SUBMIT_READ_ONLY;
    }
    if (nx_fenced(w->shm)) {
        return NX_SUBMIT_FENCED;
    }
    if (received->body_length > NX_ENTRY_MAX_OPS_LENGTH || summarize(received, ret_summary) < 0) {
        return NX_SUBMIT_TOO_LARGE;
    }
    return NX_SUBMIT_DONE;
}

bool nx_group_fits(const struct walwriter *w, size_t length)
{
    return w->group_bytes == 0 || w->group_bytes + length <= NX_GROUP_MAX_BYTES;
}

/* Refuses a write whose key can't be looked up. */
static enum taken refuse_unreadable(struct walwriter *w,
                                    unsigned producer,
                                    const struct nx_received *received,
                                    int rc)
{
    static struct nx_log_limit unreadable;
    struct nx_completion completion = {.ticket = 0};

    nx_log_limited(&unreadable, NX_LOG_ERROR,
                   "a write is refused, because a key's version in %s/state can't be read: %s",
                   w->process->state_root,
                   rc == -EBADMSG ? "the record is damaged" : strerrordesc_np(-rc));
    answer(w, producer, received, &completion,
           rc == -EBADMSG ? NX_SUBMIT_DAMAGED : NX_SUBMIT_OVERLOADED);
    return TAKEN;
}

static enum taken decide(struct walwriter *w,
                         unsigned producer,
                         const struct nx_received *received,
                         const struct place *place)
{
    struct nx_completion completion = {.ticket = 0};
    int rc = nx_lookup_judge(w, received, &completion);

    if (rc > 0) {
        answer(w, producer, received, &completion, NX_SUBMIT_CONDITION);
        return TAKEN;
    }
    rc = rc < 0 ? rc : place_ops(w, received, place, &completion);
    if (rc < 0) {
        return refuse_unreadable(w, producer, received, rc);
    }
    answer(w, producer, received, &completion, rc > 0 ? NX_SUBMIT_DONE : NX_SUBMIT_NOTHING);
    return TAKEN;
}

static enum taken take_write(struct walwriter *w,
                             unsigned producer,
                             const struct nx_received *received)
{
    struct nx_completion completion = {.ticket = 0};
    struct body_summary summary;
    struct place place = {.room = received->body_length};
    enum nx_submit_status status = early_refusal(w, received, &summary);

    if (status == NX_SUBMIT_DONE && (received->flags & NX_SUBMIT_TOUCH) != 0) {
        int rc = nx_touch_size(w, received, &place.room);

        if (rc < 0) {
            return refuse_unreadable(w, producer, received, rc);
        }
    }
    status = status == NX_SUBMIT_DONE ? storage_refusal(w, &summary, place.room) : status;
    if (status != NX_SUBMIT_DONE) {
        answer(w, producer, received, &completion, status);
        return TAKEN;
    }
    /* Room first: a judgment must hold at the very moment of the append. */
    w->wanted_length = nx_entry_frame_size(place.room);
    place.frame = nx_room_make(w, w->wanted_length, received->op_count, &place.pos);
    place.deletes = summary.deletes;
    if (place.frame == NULL) {
        return NO_ROOM;
    }
    if (!nx_group_fits(w, w->wanted_length)) {
        return NO_GROUP;
    }
    return nx_wal_file_fits(w, w->wanted_length) ? decide(w, producer, received, &place)
                                                 : NO_SEGMENT;
}

/* ---- frames from the master ---- */

/* True when a frame is the log's next: its number, its epoch, and the chain of CRCs. */
static bool frame_follows(const struct walwriter *w,
                          const struct nx_received *received,
                          struct nx_entry_header *ret_header)
{
    struct nx_entry_header header;

    if (nx_entry_decode(received->body, received->body_length, false, &header) < 0 ||
        header.frame_length != received->body_length) {
        return false;
    }
    if (header.offset != w->last.offset + 1 || !nx_position_links(&w->last, header.prev_crc) ||
        nx_entry_validate_ops(&header) < 0 ||
        !nx_entry_epoch_follows(&header, w->last.offset, w->last.epoch)) {
        return false;
    }
    *ret_header = header;
    return true;
}

static enum taken take_frame(struct walwriter *w,
                             unsigned producer,
                             const struct nx_received *received)
{
    struct nx_completion completion = {.ticket = 0};
    struct nx_entry_header header;
    uint64_t pos;

    if (atomic_load_explicit(&w->shm->control.role, memory_order_relaxed) != NX_NODE_REPLICA) {
        answer(w, producer, received, &completion, NX_SUBMIT_READ_ONLY);
        return TAKEN;
    }
    if (!frame_follows(w, received, &header)) {
        if (!w->refusing_frames) {
            answer(w, producer, received, &completion, NX_SUBMIT_BAD_FRAME);
        }
        w->refusing_frames = true;
        return TAKEN;
    }
    uint8_t *frame = nx_room_make(w, header.frame_length, header.op_count, &pos);

    w->wanted_length = header.frame_length;
    if (frame == NULL) {
        return NO_ROOM;
    }
    if (!nx_group_fits(w, header.frame_length)) {
        return NO_GROUP;
    }
    if (!nx_wal_file_fits(w, header.frame_length)) {
        return NO_SEGMENT;
    }
    w->refusing_frames = false;
    memcpy(frame, received->body, header.frame_length);
    nx_group_append(w, frame, pos, &header);
    return TAKEN;
}

/* ---- draining ---- */

static enum taken take(struct walwriter *w, unsigned producer, const struct nx_received *received)
{
    return received->kind == NX_SUBMIT_FRAME ? take_frame(w, producer, received)
                                             : take_write(w, producer, received);
}

static bool group_full(const struct walwriter *w)
{
    return w->group_bytes >= NX_GROUP_MAX_BYTES || w->answer_count >= NX_GROUP_MAX_ANSWERS;
}

/* Takes the next submission of one ring. True when there was one and it was taken. */
static bool take_next(struct walwriter *w, unsigned producer)
{
    struct nx_received received;
    int rc = nx_consumer_next(&w->consumers[producer], &received);

    if (rc < 0) {
        static struct nx_log_limit no_memory;
        struct nx_completion completion = {.ticket = 0};

        nx_log_limited(&no_memory, NX_LOG_ERROR, "no memory to put a large write together");
        answer(w, producer, &received, &completion, NX_SUBMIT_OVERLOADED);
        w->refusing_frames = w->refusing_frames || received.kind == NX_SUBMIT_FRAME;
        return true;
    }
    if (rc == 0) {
        return false;
    }
    enum taken taken = take(w, producer, &received);

    if (taken != TAKEN) {
        w->held = received;
        w->has_held = true;
        w->held_producer = producer;
        w->held_for = taken;
        return false;
    }
    w->stalled_since_ms = 0;
    nx_consumer_release(&w->consumers[producer]);
    return true;
}

/* The held submission goes before all others. True when none is held any more. */
static bool take_held(struct walwriter *w)
{
    enum taken taken;

    if (!w->has_held) {
        return true;
    }
    taken = take(w, w->held_producer, &w->held);
    w->held_for = taken;
    if (taken != TAKEN) {
        return false;
    }
    w->has_held = false;
    w->stalled_since_ms = 0;
    nx_consumer_release(&w->consumers[w->held_producer]);
    return true;
}

void nx_group_drain(struct walwriter *w)
{
    bool more = take_held(w);

    while (more) {
        more = false;
        for (unsigned i = 0; i < NX_PRODUCERS && !group_full(w) && !w->has_held; i++) {
            more = take_next(w, i) || more;
        }
    }
    nx_lookup_end(w);
}

void nx_group_refuse(struct walwriter *w, enum nx_submit_status status)
{
    struct nx_completion completion = {.ticket = 0};

    if (w->has_held && w->held.kind == NX_SUBMIT_WRITE && !group_full(w)) {
        answer(w, w->held_producer, &w->held, &completion, status);
        nx_consumer_release(&w->consumers[w->held_producer]);
        w->has_held = false;
    }
}

void nx_group_forget_frame(struct walwriter *w)
{
    if (w->has_held && w->held.kind == NX_SUBMIT_FRAME) {
        nx_consumer_release(&w->consumers[w->held_producer]);
        w->has_held = false;
    }
}

int nx_group_append_epoch(struct walwriter *w, uint64_t epoch)
{
    uint8_t ops[NX_OP_HEADER + NX_OP_NODE_ID];
    uint8_t node_id[NX_OP_NODE_ID];
    struct nx_writer writer = nx_writer_of(ops, sizeof ops);
    struct nx_op op = {.kind = NX_OP_EPOCH, .key = {node_id, sizeof node_id}};
    size_t length = nx_entry_frame_size(sizeof ops);
    uint64_t pos;

    if (nx_uuid_parse(w->shm->control.node_id, node_id) < 0 || nx_op_encode(&writer, &op) < 0) {
        return -EINVAL;
    }
    /* No reserve behind it: it is what the reserve is for. */
    uint8_t *frame = nx_log_reserve(&w->log, length, 0, &pos);

    if (frame == NULL) {
        return -ENOSPC;
    }
    memcpy(frame + NX_ENTRY_HEADER_SIZE, ops, sizeof ops);
    w->epoch = epoch;
    nx_group_append_ops(w, frame, pos, sizeof ops, 1);
    return 0;
}
