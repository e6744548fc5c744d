/* Takes a snapshot from the master. Runs in the walreceiver; owns the incoming files and shm->transfer. What the
 * master sends is a stranger's: each chunk is checked before it is written, the whole before it counts, and
 * what is in it by the restore process. The old data serves until all of it is right. */
#include "walreceiver/receive_snapshot.h"

#include "common/crc32.h"
#include "common/failpoint.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/uuid_text.h"
#include "storage/file_io.h"
#include "storage/snapshot_files.h"
#include "walreceiver/walreceiver.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ASK_AGAIN_MS  2000 /* for a restore process that hasn't begun, or has died */
#define MOST_RESTORES 3    /* that die, before the session is given up */
#define ERROR_WAIT_MS 500
#define TITLE_MS      500

static struct nx_transfer_state *published(struct nx_walreceiver *r)
{
    return &r->shm->transfer;
}

static void ring_restore(struct nx_walreceiver *r)
{
    nx_latch_ring(r->shm, nx_process_slot(NX_KIND_RESTORE, 0));
}

void nx_receive_snapshot_init(struct nx_walreceiver *r)
{
    r->sync = (struct nx_snapshot_receipt){.dir_fd = -1, .incoming = NX_INCOMING_NONE};
}

/* "N of M bytes of the snapshot are here"; M isn't known while the master still makes it. */
static void describe_progress(const struct nx_snapshot_receipt *sync, char *buf, size_t cap)
{
    char total[32] = "";

    if (sync->incoming.part_fd < 0) {
        (void)snprintf(buf, cap, "nothing of the snapshot is here yet");
        return;
    }
    if (sync->total_size > 0) {
        (void)snprintf(total, sizeof total, " of %" PRIu64, sync->total_size);
    }
    (void)snprintf(buf, cap, "%" PRIu64 "%s bytes of snapshot %s are here", sync->incoming.bytes,
                   total, sync->incoming.id);
}

/* Something failed here. */
static void fail(struct nx_walreceiver *r, const char *doing, int rc)
{
    char progress[160];

    describe_progress(&r->sync, progress, sizeof progress);
    nx_receiver_refuse(r, NX_CAUSE_OWN, NX_WIRE_ERROR_INTERNAL, "full sync: %s %s/%s: %s; %s%s",
                       doing, r->process->data_dir, NX_SNAPSHOT_DIR, nx_errno_text(rc), progress,
                       rc == -ENOSPC ? ": free disk space on this replica" : "");
    r->cause.slow = true;
}

/* The transfer is worth nothing: the next one begins anew. */
static void drop(struct nx_walreceiver *r)
{
    struct nx_snapshot_receipt *sync = &r->sync;

    atomic_store_explicit(&published(r)->number, 0, memory_order_release);
    ring_restore(r);
    nx_incoming_close(&sync->incoming);
    if (sync->dir_fd >= 0) {
        (void)nx_incoming_remove(sync->dir_fd);
    }
    sync->resumed_at = 0;
}

/* The snapshot is no good, and the master hears so. */
__attribute__((format(printf, 3, 4))) static void refuse(struct nx_walreceiver *r,
                                                         enum nx_wire_error code,
                                                         const char *format,
                                                         ...)
{
    char text[sizeof r->cause.text];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    nx_receiver_refuse(r, NX_CAUSE_VIOLATION, code, "full sync: %s", text);
    r->cause.slow = true;
    drop(r);
}

/* ---- what an earlier session has left ---- */

static bool asked_to_stop(void *arg)
{
    struct nx_walreceiver *r = arg;

    nx_receiver_hear(r);
    return nx_receiver_ended(r);
}

static void look_for_leftover(struct nx_walreceiver *r)
{
    struct nx_snapshot_receipt *sync = &r->sync;
    int rc;

    sync->dir_fd = nx_snapshot_dir(r->process->data_dir);
    rc = sync->dir_fd < 0
             ? sync->dir_fd
             : nx_incoming_resume(sync->dir_fd, &r->last, asked_to_stop, r, &sync->incoming);
    sync->looked = sync->dir_fd >= 0 && rc != -ECANCELED;
    if (rc == 0) {
        nx_info("full sync: %u chunks (%" PRIu64 " bytes) of snapshot %s are here from before",
                sync->incoming.chunks, sync->incoming.bytes, sync->incoming.id);
    } else if (rc != -ENOENT && rc != -ECANCELED) {
        nx_warn("full sync: what came before can't be used: %s", nx_errno_text(rc));
    }
}

void nx_receive_snapshot_prepare(struct nx_walreceiver *r)
{
    if (!r->sync.looked) {
        look_for_leftover(r);
    }
    r->sync.resumed_at = r->sync.incoming.bytes;
}

void nx_receive_snapshot_offer(struct nx_walreceiver *r, struct nx_msg_hello *hello)
{
    struct nx_snapshot_receipt *sync = &r->sync;

    sync->phase = NX_INCOMING_IDLE;
    if (sync->incoming.part_fd >= 0) {
        hello->resume_snapshot_id = nx_slice_text(sync->incoming.id);
        hello->resume_chunk = sync->incoming.chunks;
    }
}

void nx_receive_snapshot_expect(struct nx_walreceiver *r, bool ask)
{
    struct nx_msg_request_snapshot request = {.replica_id = nx_slice_text(r->shm->control.node_id)};

    r->sync.asked = ask;
    if (ask && nx_frame_io_put_request_snapshot(&r->io, &request) < 0) {
        nx_receiver_end(r, NX_CAUSE_OWN, 0, "a full sync can't be asked for: no memory");
    }
    r->sync.phase = NX_INCOMING_EXPECTED;
    r->sync.failed_ms = 0;
    r->sync.began_ms = nx_now_ms();
    atomic_store_explicit(&r->shm->receiver.stage, NX_RECEIVER_SNAPSHOT, memory_order_relaxed);
    nx_process_title(r->process, "waiting for a snapshot from %s",
                     r->process->config->replication.master_addr);
}

void nx_receive_snapshot_forget(struct nx_walreceiver *r)
{
    if (r->sync.incoming.part_fd >= 0) {
        drop(r);
    }
}

/* ---- SnapshotMeta ---- */

static void ask_for_restore(struct nx_walreceiver *r)
{
    r->sync.asked_ms = nx_now_ms();
    (void)nx_control_send(r->process->control.fd, NX_CONTROL_RESTORE, 0, 0, NULL);
}

/* The same snapshot as before goes on; another one begins. */
static int open_incoming(struct nx_walreceiver *r, const struct nx_msg_snapshot_meta *meta)
{
    struct nx_snapshot_receipt *sync = &r->sync;
    struct nx_incoming *incoming = &sync->incoming;
    char id[NX_UUID_TEXT] = "";
    int rc = 0;

    memcpy(id, meta->snapshot_id.data, NX_UUID_LENGTH);
    if (incoming->part_fd < 0 || strcmp(incoming->id, id) != 0 ||
        incoming->wal_offset != meta->wal_offset || incoming->epoch != meta->epoch) {
        nx_incoming_close(incoming);
        atomic_store_explicit(&published(r)->number, 0, memory_order_release);
        rc = nx_incoming_begin(sync->dir_fd, id, meta->wal_offset, meta->epoch, incoming);
        sync->restores = 0;
    }
    sync->resumed_at = rc == 0 ? incoming->bytes : 0;
    return rc;
}

/* What is known of the transfer, for the restore process; another number where it is another one. */
static void publish_transfer(struct nx_walreceiver *r)
{
    static uint64_t last_number;
    struct nx_transfer_state *state = published(r);
    const struct nx_incoming *incoming = &r->sync.incoming;
    uint64_t number = atomic_load_explicit(&state->number, memory_order_relaxed);

    atomic_store_explicit(&state->total, r->sync.total_size, memory_order_relaxed);
    if (number != 0 && strcmp(state->id, incoming->id) == 0) {
        return;
    }
    last_number++;
    number = nx_now_us() + last_number; /* other than that of an earlier walreceiver */
    memcpy(state->id, incoming->id, sizeof state->id);
    memcpy(state->cluster_id, r->cluster_id, sizeof state->cluster_id);
    atomic_store_explicit(&state->wal_offset, incoming->wal_offset, memory_order_relaxed);
    atomic_store_explicit(&state->epoch, incoming->epoch, memory_order_relaxed);
    atomic_store_explicit(&state->received, incoming->bytes, memory_order_relaxed);
    atomic_store_explicit(&state->complete, 0, memory_order_relaxed);
    atomic_store_explicit(&state->number, number, memory_order_release);
    ring_restore(r);
    ask_for_restore(r);
}

static bool too_large(const struct nx_walreceiver *r, uint64_t size)
{
    return size > r->process->config->snapshot.max_size;
}

static void refuse_too_large(struct nx_walreceiver *r, uint64_t size)
{
    refuse(r, NX_WIRE_ERROR_SNAPSHOT_FAILED,
           "the snapshot has %" PRIu64
           " bytes or more, snapshot.max_size of this replica is %" PRIu64 ": raise it and reload",
           size, r->process->config->snapshot.max_size);
}

void nx_receive_snapshot_meta(struct nx_walreceiver *r, const struct nx_msg_snapshot_meta *meta)
{
    struct nx_snapshot_receipt *sync = &r->sync;
    int rc;

    /* Offset 0: the master's log reaches back to entry 1, and nothing of it is committed since its start. (One
     * without a log is refused at its Welcome.) */
    if (sync->phase != NX_INCOMING_EXPECTED || !nx_slice_is_uuid(meta->snapshot_id)) {
        refuse(r, NX_WIRE_ERROR_BAD_FRAME,
               "the master sent a SnapshotMeta that was not expected, or without id");
        return;
    }
    if (too_large(r, meta->total_size)) {
        refuse_too_large(r, meta->total_size);
        return;
    }
    sync->total_size = meta->total_size;
    sync->chunk_count = meta->chunk_count;
    sync->checksum = meta->checksum;
    rc = open_incoming(r, meta);
    if (rc < 0) {
        fail(r, "writing to", rc);
        return;
    }
    sync->phase = NX_INCOMING_CHUNKS;
    sync->chunk_came = false;
    sync->failed_ms = 0;
    publish_transfer(r);
    nx_info("full sync: snapshot %s of offset %" PRIu64 " of epoch %" PRIu64
            " comes from the master, from chunk %u on",
            sync->incoming.id, meta->wal_offset, meta->epoch, sync->incoming.chunks);
}

/* ---- SnapshotChunk ---- */

static bool same_id(const struct nx_walreceiver *r, struct nx_slice id)
{
    return nx_slice_equal(id, nx_slice_text(r->sync.incoming.id));
}

/* The master begins at the first chunk though some of the same snapshot are here: it no longer knows of them,
 * and they are given up. */
static int begin_anew(struct nx_walreceiver *r)
{
    struct nx_incoming *incoming = &r->sync.incoming;
    struct nx_incoming old = *incoming;
    int rc;

    nx_info("full sync: the master sends snapshot %s from its beginning", old.id);
    nx_incoming_close(incoming);
    atomic_store_explicit(&published(r)->number, 0, memory_order_release);
    rc = nx_incoming_begin(r->sync.dir_fd, old.id, old.wal_offset, old.epoch, incoming);
    r->sync.resumed_at = 0;
    if (rc == 0) {
        publish_transfer(r);
    }
    return rc;
}

/* True when it is the chunk that must come. */
static bool check_chunk(struct nx_walreceiver *r, const struct nx_msg_snapshot_chunk *chunk)
{
    const struct nx_snapshot_receipt *sync = &r->sync;
    const struct nx_incoming *incoming = &sync->incoming;
    uint64_t size = incoming->bytes + chunk->data.length;

    if (sync->phase != NX_INCOMING_CHUNKS || !same_id(r, chunk->snapshot_id) ||
        chunk->chunk_index != incoming->chunks || chunk->data.length == 0) {
        refuse(r, NX_WIRE_ERROR_BAD_FRAME,
               "chunk %u of %zu bytes came, expected was chunk %u of snapshot %s",
               chunk->chunk_index, chunk->data.length, incoming->chunks, incoming->id);
        return false;
    }
    if (nx_crc32(0, chunk->data.data, chunk->data.length) != chunk->checksum) {
        refuse(r, NX_WIRE_ERROR_BAD_FRAME, "chunk %u is damaged: its CRC is not %08x",
               chunk->chunk_index, chunk->checksum);
        return false;
    }
    if (sync->total_size != 0 && size > sync->total_size) {
        refuse(r, NX_WIRE_ERROR_BAD_FRAME,
               "chunk %u makes %" PRIu64 " bytes, announced were %" PRIu64, chunk->chunk_index,
               size, sync->total_size);
        return false;
    }
    if (too_large(r, size)) {
        refuse_too_large(r, size);
        return false;
    }
    return true;
}

static void show(struct nx_walreceiver *r)
{
    struct nx_snapshot_receipt *sync = &r->sync;
    uint64_t now = nx_now_ms();
    uint64_t ms = now - sync->began_ms;
    uint64_t bytes = sync->incoming.bytes;

    if (now - sync->titled_ms < TITLE_MS) {
        return;
    }
    sync->titled_ms = now;
    nx_process_title(r->process, "snapshot %" PRIu64 " of %" PRIu64 " MB, %" PRIu64 " MB/s",
                     bytes / 1000000, sync->total_size / 1000000,
                     ms > 0 ? (bytes - sync->resumed_at) / 1000 / ms : 0);
}

void nx_receive_snapshot_chunk(struct nx_walreceiver *r, const struct nx_msg_snapshot_chunk *chunk)
{
    struct nx_incoming *incoming = &r->sync.incoming;
    bool first = r->sync.phase == NX_INCOMING_CHUNKS && !r->sync.chunk_came;
    int rc = 0;

    if (first && chunk->chunk_index == 0 && incoming->chunks > 0) {
        rc = begin_anew(r);
    }
    if (rc < 0) {
        fail(r, "writing to", rc);
        return;
    }
    if (!check_chunk(r, chunk)) {
        return;
    }
    r->sync.chunk_came = true;
    if (nx_disk_below(incoming->part_fd,
                      atomic_load_explicit(&r->shm->checkpoint.disk_reserve, memory_order_relaxed) +
                          chunk->data.length)) {
        fail(r, "writing to", -ENOSPC);
        return;
    }
    rc = NX_FAILPOINT(chunk_received);
    rc = rc < 0 ? rc
                : nx_incoming_add(incoming, chunk->data.data, chunk->data.length, chunk->checksum);
    if (rc < 0) {
        fail(r, "writing to", rc);
        return;
    }
    if (incoming->bytes > atomic_load_explicit(&published(r)->received, memory_order_relaxed)) {
        atomic_store_explicit(&published(r)->received, incoming->bytes, memory_order_release);
        ring_restore(r);
    }
    show(r);
}

/* ---- SnapshotComplete ---- */

/* Where SnapshotMeta had totals they must be these, and those of SnapshotComplete, if it has any. */
static bool totals_are(const struct nx_walreceiver *r,
                       uint64_t total_size,
                       uint32_t chunk_count,
                       uint32_t checksum)
{
    const struct nx_incoming *incoming = &r->sync.incoming;

    return total_size == incoming->bytes && chunk_count == incoming->chunks &&
           checksum == incoming->crc;
}

void nx_receive_snapshot_complete(struct nx_walreceiver *r,
                                  const struct nx_msg_snapshot_complete *complete)
{
    struct nx_snapshot_receipt *sync = &r->sync;
    const struct nx_incoming *incoming = &sync->incoming;
    uint64_t ms = nx_now_ms() - sync->began_ms;
    bool by_meta = sync->total_size != 0;
    bool by_complete = complete->total_size != 0 || !by_meta;

    if (sync->phase != NX_INCOMING_CHUNKS || !same_id(r, complete->snapshot_id)) {
        refuse(r, NX_WIRE_ERROR_BAD_FRAME,
               "the master sent a SnapshotComplete that was not expected");
    } else if (!complete->success) {
        sync->failed_ms = nx_now_ms();
        sync->phase = NX_INCOMING_EXPECTED;
        drop(r);
    } else if ((by_meta && !totals_are(r, sync->total_size, sync->chunk_count, sync->checksum)) ||
               (by_complete &&
                !totals_are(r, complete->total_size, complete->chunk_count, complete->checksum))) {
        refuse(r, NX_WIRE_ERROR_BAD_FRAME,
               "%" PRIu64 " bytes in %u chunks with CRC %08x came, announced were %" PRIu64
               " in %u with %08x, and %" PRIu64 " in %u with %08x",
               incoming->bytes, incoming->chunks, incoming->crc, sync->total_size,
               sync->chunk_count, sync->checksum, complete->total_size, complete->chunk_count,
               complete->checksum);
    } else {
        sync->phase = NX_INCOMING_RESTORING;
        atomic_store_explicit(&published(r)->total, incoming->bytes, memory_order_relaxed);
        atomic_store_explicit(&published(r)->complete, 1, memory_order_release);
        ring_restore(r);
        nx_process_title(r->process, "restoring a snapshot of %" PRIu64 " MB",
                         incoming->bytes / 1000000);
        nx_info("full sync: snapshot %s has come: %" PRIu64 " bytes in %" PRIu64 " ms, %" PRIu64
                " MB/s; it is being restored",
                incoming->id, incoming->bytes, ms,
                ms > 0 ? (incoming->bytes - sync->resumed_at) / 1000 / ms : 0);
    }
}

/* ---- the restore process ---- */

/* It isn't there: not yet, or it has died. */
static void ask_again(struct nx_walreceiver *r, bool died)
{
    struct nx_snapshot_receipt *sync = &r->sync;

    if (nx_now_ms() - sync->asked_ms < ASK_AGAIN_MS) {
        return;
    }
    if (died && ++sync->restores > MOST_RESTORES) {
        nx_receiver_end(r, NX_CAUSE_OWN, 0,
                        "full sync: the process that restores snapshot %s has died %u times",
                        sync->incoming.id, sync->restores);
        r->cause.slow = true;
        drop(r);
        return;
    }
    ask_for_restore(r);
}

/* The master says why it failed, or doesn't. */
static void await_error(struct nx_walreceiver *r)
{
    if (nx_now_ms() - r->sync.failed_ms >= ERROR_WAIT_MS) {
        nx_receiver_end(r, NX_CAUSE_ERROR, NX_WIRE_ERROR_SNAPSHOT_FAILED,
                        "full sync: the master could not finish the snapshot; its log says why");
        r->cause.slow = true;
    }
}

void nx_receive_snapshot_watch(struct nx_walreceiver *r)
{
    struct nx_snapshot_receipt *sync = &r->sync;
    struct nx_restore_state *state = &r->shm->restore;
    uint64_t number = atomic_load_explicit(&published(r)->number, memory_order_relaxed);
    uint32_t stage = atomic_load_explicit(&state->stage, memory_order_acquire);
    bool ours = atomic_load_explicit(&state->number, memory_order_relaxed) == number;

    if (sync->phase == NX_INCOMING_EXPECTED && sync->failed_ms > 0) {
        await_error(r);
    }
    if (sync->phase < NX_INCOMING_CHUNKS || nx_receiver_ended(r)) {
        return;
    }
    if (!ours || stage == NX_RESTORE_NONE) {
        ask_again(r, ours);
    } else if (stage == NX_RESTORE_REFUSED) {
        refuse(r, NX_WIRE_ERROR_SNAPSHOT_FAILED, "%s", state->text);
    } else if (stage == NX_RESTORE_FAILED) {
        nx_receiver_refuse(r, NX_CAUSE_OWN, NX_WIRE_ERROR_INTERNAL, "full sync: %s", state->text);
        r->cause.slow = true;
    }
}

/* A connection that ended in the middle: how far the transfer is, behind why it ended. */
static void note_progress(struct nx_walreceiver *r)
{
    size_t length = strlen(r->cause.text);
    char progress[160];

    if (r->sync.phase == NX_INCOMING_CHUNKS &&
        (r->cause.kind == NX_CAUSE_BROKEN || r->cause.kind == NX_CAUSE_SILENCE)) {
        describe_progress(&r->sync, progress, sizeof progress);
        (void)snprintf(r->cause.text + length, sizeof r->cause.text - length,
                       " during a full sync: %s, it goes on from there; check network stability",
                       progress);
    }
}

void nx_receive_snapshot_end_session(struct nx_walreceiver *r)
{
    struct nx_snapshot_receipt *sync = &r->sync;
    bool failed =
        atomic_load_explicit(&r->shm->restore.stage, memory_order_acquire) == NX_RESTORE_FAILED;

    note_progress(r);
    if (sync->phase >= NX_INCOMING_CHUNKS && failed) {
        /* Another restore process is to begin when the transfer goes on. */
        atomic_store_explicit(&published(r)->number, 0, memory_order_release);
    }
    sync->phase = NX_INCOMING_IDLE;
}
