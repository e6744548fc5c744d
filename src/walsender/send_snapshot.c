/* Sends a snapshot, chunk by chunk, as far as the snapshot process has written it. Runs in walsenders. A chunk is
 * read into the place in the output buffer that it is sent from. */
#include "walsender/send_snapshot.h"

#include "common/bytes.h"
#include "common/crc32.h"
#include "common/failpoint.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/snapshot_job.h"
#include "storage/file_io.h"
#include "storage/snapshot_files.h"
#include "walsender/walsender.h"

#include <inttypes.h>
#include <string.h>

/* Bytes of a SnapshotChunk's payload before its data: variant, id with its length, index, data's length. */
#define CHUNK_HEAD (4 + 8 + NX_UUID_TEXT - 1 + 4 + 8)
#define CHUNK_TAIL 4

/* The job that makes the snapshot. False: it has become another one, or that begins just now. */
static bool own_job(struct nx_walsender *ws, struct nx_snapshot_look *ret_look)
{
    return nx_snapshot_job_look(ws->shm, ret_look) && ret_look->job == ws->sync.job;
}

static void know_size(struct nx_full_sync *sync, uint64_t total_size, uint32_t checksum)
{
    sync->size_known = true;
    sync->total_size = total_size;
    sync->checksum = checksum;
}

static void job_failed(struct nx_walsender *ws)
{
    struct nx_msg_snapshot_complete complete = {
        .snapshot_id = nx_slice_text(ws->sync.pin.snapshot_id), .success = false};

    if (ws->sync.phase == NX_FULL_SYNC_SEND) {
        (void)nx_frame_io_put_snapshot_complete(&ws->io, &complete);
    }
    nx_walsender_end(ws, NX_ENDING_REFUSED, NX_WIRE_ERROR_SNAPSHOT_FAILED,
                     "full sync: the snapshot failed: %s", ws->shm->snapshot.text);
}

/* Bytes of the file that can be read; with the job's end the whole size becomes known. */
static uint64_t available(struct nx_walsender *ws, bool *ret_failed)
{
    struct nx_full_sync *sync = &ws->sync;
    struct nx_snapshot_info info;
    struct nx_snapshot_look look;

    *ret_failed = false;
    if (sync->size_known) {
        return sync->total_size;
    }
    if (own_job(ws, &look) && look.stage < NX_SNAPSHOT_CLOSING) {
        return look.written;
    }
    if (own_job(ws, &look) && look.stage != NX_SNAPSHOT_FAILED) {
        know_size(sync, look.total_size, look.checksum);
    } else if (nx_snapshot_find(sync->dir_fd, sync->pin.snapshot_id, &info) == 0) {
        know_size(sync, info.compressed_size, info.checksum); /* it has ended well before */
    } else {
        *ret_failed = true;
        return 0;
    }
    return sync->total_size;
}

static uint32_t chunk_count(const struct nx_full_sync *sync)
{
    return (uint32_t)((sync->total_size + sync->pin.chunk_size - 1) / sync->pin.chunk_size);
}

bool nx_send_snapshot_begin(struct nx_walsender *ws)
{
    struct nx_full_sync *sync = &ws->sync;
    bool failed;
    struct nx_msg_snapshot_meta meta = {
        .snapshot_id = nx_slice_text(sync->pin.snapshot_id),
        .wal_offset = sync->pin.snapshot_offset,
        .epoch = sync->epoch,
    };

    (void)available(ws, &failed);
    if (failed) {
        job_failed(ws);
        return true;
    }
    if (sync->size_known) {
        if (sync->sent > sync->total_size) { /* it has all, or counts other chunks than ours */
            sync->sent = sync->resume_chunk == chunk_count(sync) ? sync->total_size : 0;
            sync->resumed_at = sync->sent;
        }
        meta.total_size = sync->total_size;
        meta.chunk_count = chunk_count(sync);
        meta.checksum = sync->checksum;
    }
    if (nx_frame_io_put_snapshot_meta(&ws->io, &meta) < 0) {
        return false;
    }
    sync->phase = NX_FULL_SYNC_SEND;
    nx_info("full sync of replica %s: sending snapshot %s of offset %" PRIu64
            "%s, from byte %" PRIu64,
            ws->replica_id, sync->pin.snapshot_id, sync->pin.snapshot_offset,
            sync->size_known ? "" : " (while it is being made)", sync->sent);
    return true;
}

/* Puts n bytes from the file as one SnapshotChunk. 0 or -errno. */
static int put_chunk(struct nx_walsender *ws, size_t n)
{
    struct nx_full_sync *sync = &ws->sync;
    size_t payload = CHUNK_HEAD + n + CHUNK_TAIL;
    uint8_t *place;
    int rc = nx_frame_io_room(&ws->io, payload + NX_FRAME_OVERHEAD, &place);

    if (rc < 0) {
        return rc;
    }
    struct nx_writer writer = nx_writer_of(place + NX_FRAME_HEADER, payload);

    nx_write_u32(&writer, NX_VARIANT_SNAPSHOT_CHUNK);
    nx_write_slice(&writer, nx_slice_text(sync->pin.snapshot_id));
    nx_write_u32(&writer, (uint32_t)(sync->sent / sync->pin.chunk_size));
    nx_write_u64(&writer, n);
    uint8_t *data = nx_write_raw(&writer, n);

    rc = nx_read_at(sync->fd, data, n, sync->sent);
    if (rc < 0) {
        return rc;
    }
    nx_write_u32(&writer, nx_crc32(0, data, n));
    (void)nx_frame_seal(place, NX_MSG_SNAPSHOT_CHUNK, payload);
    nx_frame_io_commit(&ws->io, payload + NX_FRAME_OVERHEAD);
    sync->sent += n;
    (void)NX_FAILPOINT(chunk_sent);
    return 0;
}

/* Once a snapshot and replica, however often its end has to be said again. */
static void count_transfer(struct nx_walsender *ws)
{
    struct nx_full_sync *sync = &ws->sync;
    nx_atomic_u64 *transfers = &ws->slot->snapshot_transfers;

    if (sync->pin.sent != 0) {
        return;
    }
    sync->pin.sent = 1;
    (void)nx_pin_write(sync->dir_fd, &sync->pin);
    atomic_store_explicit(transfers, atomic_load_explicit(transfers, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* All chunks are out: what follows is the log behind the snapshot. */
static bool complete(struct nx_walsender *ws)
{
    struct nx_full_sync *sync = &ws->sync;
    struct nx_replica_slot *slot = ws->slot;
    uint64_t ms = nx_now_ms() - sync->began_ms;
    uint64_t bytes = sync->total_size - sync->resumed_at;
    struct nx_msg_snapshot_complete message = {
        .snapshot_id = nx_slice_text(sync->pin.snapshot_id),
        .success = true,
        .total_size = sync->total_size,
        .chunk_count = chunk_count(sync),
        .checksum = sync->checksum,
    };

    if (nx_frame_io_put_snapshot_complete(&ws->io, &message) < 0) {
        return false;
    }
    sync->phase = NX_FULL_SYNC_NONE;
    sync->restoring = true;
    nx_walsender_start_at(ws, sync->pin.snapshot_offset);
    atomic_store_explicit(&slot->snapshot_progress, 1000, memory_order_relaxed);
    count_transfer(ws);
    nx_info("full sync of replica %s: snapshot %s is sent: %" PRIu64 " bytes in %" PRIu64
            " ms, %" PRIu64 " MB/s; entries follow from %" PRIu64,
            ws->replica_id, sync->pin.snapshot_id, bytes, ms, ms > 0 ? bytes / 1000 / ms : 0,
            sync->pin.snapshot_offset + 1);
    return true;
}

bool nx_send_snapshot_step(struct nx_walsender *ws)
{
    struct nx_full_sync *sync = &ws->sync;
    bool failed;
    uint64_t there = available(ws, &failed);
    uint64_t left = there > sync->sent ? there - sync->sent : 0;
    int rc;

    if (failed) {
        job_failed(ws);
        return true;
    }
    if (sync->size_known && left == 0) {
        return complete(ws);
    }
    if (!sync->size_known && left < sync->pin.chunk_size) {
        return false; /* only the last one may be shorter */
    }
    rc = put_chunk(ws, (size_t)(left < sync->pin.chunk_size ? left : sync->pin.chunk_size));
    if (rc < 0) {
        nx_walsender_end(ws, NX_ENDING_REFUSED, NX_WIRE_ERROR_SNAPSHOT_FAILED,
                         "full sync: snapshot %s can't be read at byte %" PRIu64 ": %s",
                         sync->pin.snapshot_id, sync->sent, nx_errno_text(rc));
    }
    return true;
}

bool nx_send_snapshot_ready(struct nx_walsender *ws)
{
    bool failed;
    uint64_t there = available(ws, &failed);

    return failed || ws->sync.size_known || there >= ws->sync.sent + ws->sync.pin.chunk_size;
}
