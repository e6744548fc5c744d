/* Chooses a snapshot for a replica and holds what it needs. Runs in walsenders; owns the pin of its replica.
 * The snapshot itself is the snapshot process's, which may still be writing it. Sending is in
 * send_snapshot.c. */
#include "walsender/full_sync.h"

#include "common/entry.h"
#include "common/error_codes.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/shared_log.h"
#include "common/snapshot_job.h"
#include "storage/file_io.h"
#include "storage/snapshot_files.h"
#include "walsender/send_snapshot.h"
#include "walsender/walsender.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of a file that still grows: what its keys have become stands in buffers before, and says too little. */
#define ESTIMATE_FROM ((uint64_t)16 << 20)
#define FRESH_MS      600000 /* an older snapshot is not shared any more */
#define TOO_LARGE_MS  60000  /* so long it is not tried again */
#define ASK_AGAIN_MS  2000
#define LEAST_CHUNK   4096 /* of snapshot.chunk_size */
#define PIN_EVERY_MS  5000 /* a pin is rewritten, or its time noted, at most that often */

static uint64_t load(const nx_atomic_u64 *field)
{
    return atomic_load_explicit(field, memory_order_acquire);
}

void nx_full_sync_init(struct nx_walsender *ws)
{
    ws->sync = (struct nx_full_sync){.dir_fd = -1, .fd = -1};
}

static void close_file(struct nx_full_sync *sync)
{
    if (sync->fd >= 0) {
        close(sync->fd);
        sync->fd = -1;
    }
}

void nx_full_sync_close(struct nx_walsender *ws)
{
    close_file(&ws->sync);
    if (ws->sync.dir_fd >= 0) {
        close(ws->sync.dir_fd);
        ws->sync.dir_fd = -1;
    }
}

static int open_dir(struct nx_walsender *ws)
{
    if (ws->sync.dir_fd < 0) {
        ws->sync.dir_fd = nx_snapshot_dir(ws->process->data_dir);
    }
    return ws->sync.dir_fd < 0 ? ws->sync.dir_fd : 0;
}

/* Something here keeps the full sync from going on. */
static void fail(struct nx_walsender *ws, const char *doing, int rc)
{
    nx_walsender_end(ws, NX_ENDING_REFUSED, NX_WIRE_ERROR_SNAPSHOT_FAILED,
                     "full sync: %s %s/%s: %s", doing, ws->process->data_dir, NX_SNAPSHOT_DIR,
                     nx_errno_text(rc));
}

void nx_full_sync_begin(struct nx_walsender *ws, const struct nx_msg_hello *hello)
{
    struct nx_full_sync *sync = &ws->sync;

    nx_full_sync_close(ws); /* the directory too: a person may have replaced it */
    *sync = (struct nx_full_sync){.phase = NX_FULL_SYNC_CHOOSE, .dir_fd = -1, .fd = -1};
    if (hello != NULL && hello->resume_snapshot_id.length == NX_UUID_TEXT - 1) {
        memcpy(sync->resume_id, hello->resume_snapshot_id.data, NX_UUID_TEXT - 1);
        sync->resume_chunk = hello->resume_chunk;
    }
    sync->began_ms = nx_now_ms();
    atomic_store_explicit(&ws->slot->snapshot_progress, 0, memory_order_relaxed);
    atomic_store_explicit(&ws->slot->state, NX_REPLICA_SNAPSHOT, memory_order_release);
}

/* ---- choosing ---- */

/* Makes this snapshot the one; its pin comes next. */
static void choose(struct nx_walsender *ws,
                   const char *id,
                   const struct nx_position *position,
                   uint64_t chunk_size)
{
    struct nx_full_sync *sync = &ws->sync;

    memcpy(sync->pin.replica_id, ws->replica_id, sizeof sync->pin.replica_id);
    memcpy(sync->pin.snapshot_id, id, sizeof sync->pin.snapshot_id);
    sync->pin.snapshot_offset = position->offset;
    sync->pin.offset = position->offset;
    sync->pin.chunk_size = chunk_size;
    sync->pin.sent = 0;
    sync->epoch = position->epoch;
    sync->crc = position->crc;
    sync->phase = NX_FULL_SYNC_PIN;
    sync->look_wanted = 0;
}

static int open_snapshot(struct nx_full_sync *sync, uint64_t wal_offset, const char *id)
{
    static const char *const suffixes[] = {".tar.zst.tmp", ".tar.zst"};
    char name[NX_SNAPSHOT_NAME];

    close_file(sync);
    for (unsigned i = 0; i < 2 && sync->fd < 0; i++) { /* it may get its name meanwhile */
        nx_snapshot_name(wal_offset, id, suffixes[i], name);
        sync->fd = openat(sync->dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    }
    return sync->fd < 0 ? -errno : 0;
}

/* Takes the running job's, or the one that it has just made. */
static bool choose_job(struct nx_walsender *ws, const struct nx_snapshot_look *look, uint64_t chunk)
{
    struct nx_full_sync *sync = &ws->sync;
    struct nx_position position = {look->epoch, look->wal_offset, look->crc};

    if (open_snapshot(sync, look->wal_offset, look->id) < 0) {
        return false;
    }
    sync->job = look->job;
    sync->size_known = false;
    choose(ws, look->id, &position, chunk);
    return true;
}

static bool choose_finished(struct nx_walsender *ws,
                            const struct nx_snapshot_info *info,
                            uint64_t chunk)
{
    struct nx_full_sync *sync = &ws->sync;

    close_file(sync);
    sync->fd = nx_snapshot_open(sync->dir_fd, info);
    if (sync->fd < 0) {
        return false;
    }
    sync->job = 0;
    sync->size_known = true;
    sync->total_size = info->compressed_size;
    sync->checksum = info->checksum;
    choose(ws, info->id, &info->position, chunk);
    return true;
}

static bool job_has_file(const struct nx_snapshot_look *look)
{
    return look->stage >= NX_SNAPSHOT_WRITING && look->stage <= NX_SNAPSHOT_DONE;
}

/* The transfer that was cut off goes on, if its snapshot is still here and its pin has held the log. */
static bool choose_resumed(struct nx_walsender *ws)
{
    struct nx_full_sync *sync = &ws->sync;
    struct nx_snapshot_info info;
    struct nx_snapshot_look look;
    struct nx_pin pin;
    bool chosen = false;

    if (sync->resume_id[0] == '\0' || nx_pin_read(sync->dir_fd, ws->replica_id, &pin) < 0 ||
        strcasecmp(pin.snapshot_id, sync->resume_id) != 0 || pin.chunk_size < LEAST_CHUNK ||
        pin.chunk_size > NX_WIRE_MAX_PAYLOAD / 2) {
        return false;
    }
    if (nx_snapshot_find(sync->dir_fd, pin.snapshot_id, &info) == 0) {
        chosen = choose_finished(ws, &info, pin.chunk_size);
    } else if (nx_snapshot_job_look(ws->shm, &look) && job_has_file(&look) &&
               strcmp(look.id, pin.snapshot_id) == 0) {
        chosen = choose_job(ws, &look, pin.chunk_size);
    }
    if (chosen) {
        sync->resumed_at = sync->resume_chunk * pin.chunk_size;
        sync->sent = sync->resumed_at;
        sync->pin.sent = pin.sent;
        sync->resumed = true;
    }
    return chosen;
}

/* The newer half of what is kept begins here. */
static uint64_t middle_of_log(uint64_t oldest, uint64_t durable)
{
    return oldest > durable ? durable : oldest + (durable - oldest) / 2;
}

/* Our own frame at an offset, though it be the newest and no longer in any log. */
static bool is_ours(struct nx_walsender *ws, const struct nx_position *position)
{
    struct nx_position own;

    nx_log_position(ws->shm, &own.offset, &own.epoch, &own.crc);
    if (own.offset != position->offset &&
        nx_stream_frame_at(&ws->stream, position->offset, &own.epoch, &own.crc) < 0) {
        return false;
    }
    return own.epoch == position->epoch && own.crc == position->crc;
}

/* True when this finished snapshot is of our history, recent, and the log behind it is not about to go. */
static bool is_fresh(struct nx_walsender *ws, const struct nx_snapshot_info *info)
{
    uint64_t durable = nx_walsender_durable(ws);
    uint64_t oldest = nx_log_oldest_kept(ws->shm, ws->process->config->replication.max_log_size);

    return info->position.offset > 0 && info->position.offset <= durable &&
           info->position.offset >= middle_of_log(oldest, durable) &&
           info->position.offset + 1 >= load(&ws->shm->checkpoint.oldest_unpinned) &&
           nx_wall_ms() - info->created_at < FRESH_MS && is_ours(ws, &info->position);
}

static void ask_for_job(struct nx_walsender *ws)
{
    ws->sync.asked_ms = nx_now_ms();
    (void)nx_control_send(ws->process->control.fd, NX_CONTROL_SNAPSHOT, NX_SNAPSHOT_FULL_SYNC, 0,
                          NULL);
}

/* True when the last job has found not long ago that a snapshot becomes too large, for snapshot.max_size or for the
 * disk: another one would only be made for nothing, and take the disk's last space again. */
static bool too_large_lately(struct nx_walsender *ws)
{
    const struct nx_snapshot_state *state = &ws->shm->snapshot;
    uint32_t code = atomic_load_explicit(&state->code, memory_order_relaxed);

    return atomic_load_explicit(&state->stage, memory_order_acquire) == NX_SNAPSHOT_FAILED &&
           (code == NX_ERROR_DISK_FULL ||
            (code == NX_ERROR_SNAPSHOT_TOO_LARGE &&
             load(&state->failed_size) == ws->process->config->snapshot.max_size)) &&
           nx_now_ms() - load(&state->failed_ms) < TOO_LARGE_MS;
}

static void end_failed(struct nx_walsender *ws)
{
    nx_walsender_end(ws, NX_ENDING_REFUSED, NX_WIRE_ERROR_SNAPSHOT_FAILED,
                     "full sync: the snapshot failed: %s", ws->shm->snapshot.text);
}

/* The running job's, a finished one, or a new one. */
static bool choose_any(struct nx_walsender *ws)
{
    struct nx_full_sync *sync = &ws->sync;
    uint64_t chunk = ws->process->config->snapshot.chunk_size;
    struct nx_snapshot_info info;
    struct nx_snapshot_look look;
    bool job = nx_snapshot_job_look(ws->shm, &look) && look.job > sync->seen_job;

    sync->sent = 0;
    sync->resumed_at = 0;
    sync->resumed = false;
    if (job && job_has_file(&look) && look.stage < NX_SNAPSHOT_DONE &&
        choose_job(ws, &look, chunk)) {
        return true;
    }
    if (!sync->fresh_only && nx_snapshot_find(sync->dir_fd, "last", &info) == 0 &&
        is_fresh(ws, &info) && choose_finished(ws, &info, chunk)) {
        return true;
    }
    if (too_large_lately(ws)) {
        end_failed(ws);
        return false;
    }
    /* What has ended before now is not what was asked for. */
    sync->seen_job = job && look.stage < NX_SNAPSHOT_DONE ? look.job - 1
                     : job                                ? look.job
                                                          : sync->seen_job;
    ask_for_job(ws);
    sync->phase = NX_FULL_SYNC_MAKE;
    return true;
}

static bool step_choose(struct nx_walsender *ws)
{
    int rc = open_dir(ws);

    if (rc < 0) {
        fail(ws, "opening", rc);
        return false;
    }
    return choose_resumed(ws) || choose_any(ws);
}

/* ---- a job that was asked for ---- */

/* The job we wait for. False: it hasn't begun. */
static bool asked_job(struct nx_walsender *ws, struct nx_snapshot_look *ret_look)
{
    return nx_snapshot_job_look(ws->shm, ret_look) && ret_look->job > ws->sync.seen_job;
}

static bool step_make(struct nx_walsender *ws)
{
    struct nx_full_sync *sync = &ws->sync;
    struct nx_snapshot_look look;

    if (!asked_job(ws, &look)) {
        if (nx_now_ms() - sync->asked_ms >= ASK_AGAIN_MS) {
            ask_for_job(ws);
        }
        return false;
    }
    if (look.stage == NX_SNAPSHOT_FAILED) {
        end_failed(ws);
        return false;
    }
    if (look.stage < NX_SNAPSHOT_WRITING) {
        return false;
    }
    /* A scheduled one may have found nothing to do. */
    if (!job_has_file(&look) || !choose_job(ws, &look, ws->process->config->snapshot.chunk_size)) {
        sync->seen_job = look.job;
        sync->phase = NX_FULL_SYNC_CHOOSE;
    }
    return true;
}

/* ---- the pin ---- */

/* Has the pin stand, and wants a look that begins after that. One of a transfer that goes on stays as it is: its
 * time is that of the last progress, and coming again is none. */
static bool hold(struct nx_walsender *ws)
{
    struct nx_full_sync *sync = &ws->sync;
    int rc = sync->resumed ? 0 : nx_pin_write(sync->dir_fd, &sync->pin);

    if (rc < 0) {
        fail(ws, "writing a pin in", rc);
        return false;
    }
    sync->touched_at = sync->sent;
    sync->pinned = true;
    sync->pin_written_ms = nx_now_ms();
    sync->look_wanted = load(&ws->shm->checkpoint.looks_begun) + 1;
    atomic_store_explicit(&ws->slot->look_wanted, sync->look_wanted, memory_order_release);
    nx_latch_ring(ws->shm, nx_process_slot(NX_KIND_CHECKPOINTER, 0));
    return false;
}

static bool look_is_over(const struct nx_walsender *ws)
{
    return load(&ws->shm->checkpoint.looks_ended) >= ws->sync.look_wanted;
}

static bool step_pin(struct nx_walsender *ws)
{
    struct nx_full_sync *sync = &ws->sync;

    if (sync->look_wanted == 0) {
        return hold(ws);
    }
    if (!look_is_over(ws)) {
        return false;
    }
    if (load(&ws->shm->checkpoint.oldest_kept) > sync->pin.offset + 1) {
        nx_info("full sync: the log behind snapshot %s is gone already, another one is made",
                sync->pin.snapshot_id);
        sync->resume_id[0] = '\0';
        sync->fresh_only = true;
        sync->seen_job = sync->job > sync->seen_job ? sync->job : sync->seen_job;
        sync->phase = NX_FULL_SYNC_CHOOSE;
        return true;
    }
    return nx_send_snapshot_begin(ws);
}

bool nx_full_sync_find_pin(struct nx_walsender *ws, uint64_t offset)
{
    struct nx_full_sync *sync = &ws->sync;

    sync->pinned = open_dir(ws) == 0 && nx_pin_read(sync->dir_fd, ws->replica_id, &sync->pin) == 0;
    return sync->pinned && sync->pin.offset <= offset;
}

/* Half of what is kept for everybody is enough of a margin; level with the master is best. */
static bool needs_no_pin(struct nx_walsender *ws)
{
    uint64_t durable = nx_walsender_durable(ws);
    uint64_t oldest = nx_log_oldest_kept(ws->shm, ws->process->config->replication.max_log_size);
    uint64_t unpinned = load(&ws->shm->checkpoint.oldest_unpinned);

    oldest = unpinned > oldest ? unpinned : oldest;
    return ws->acked_offset >= middle_of_log(oldest, durable);
}

static void remove_pin(struct nx_walsender *ws)
{
    static struct nx_log_limit limit;
    struct nx_full_sync *sync = &ws->sync;
    int rc = nx_pin_remove(sync->dir_fd, ws->replica_id);

    if (rc < 0) {
        nx_log_limited(&limit, NX_LOG_ERROR, "the pin of replica %s can't be removed: %s",
                       ws->replica_id, nx_errno_text(rc));
        return;
    }
    sync->pinned = false;
    nx_info("full sync of replica %s is over: it has offset %" PRIu64
            ", and the log is no longer held back for it",
            ws->replica_id, ws->acked_offset);
}

/* Notes progress; a pin that was taken away meanwhile is made again, though what it held may be gone. */
static void touch_pin(struct nx_walsender *ws)
{
    struct nx_full_sync *sync = &ws->sync;

    sync->pin_written_ms = nx_now_ms();
    if (nx_pin_touch(sync->dir_fd, ws->replica_id) == -ENOENT) {
        (void)nx_pin_write(sync->dir_fd, &sync->pin);
    }
}

void nx_full_sync_track_pin(struct nx_walsender *ws)
{
    struct nx_full_sync *sync = &ws->sync;
    uint64_t now = nx_now_ms();

    if (!sync->pinned || nx_full_sync_runs(sync)) {
        return;
    }
    if (sync->restoring) {
        return; /* while it is connected its pin doesn't age (checkpointer/pins.c) */
    }
    if (ws->acked_offset < sync->pin.snapshot_offset) {
        return;
    }
    if (needs_no_pin(ws)) {
        remove_pin(ws);
    } else if (ws->acked_offset > sync->pin.offset && now - sync->pin_written_ms >= PIN_EVERY_MS) {
        sync->pin.offset = ws->acked_offset;
        sync->pin_written_ms = now;
        (void)nx_pin_write(sync->dir_fd, &sync->pin);
    }
}

/* ---- steps ---- */

bool nx_full_sync_step(struct nx_walsender *ws)
{
    struct nx_full_sync *sync = &ws->sync;

    switch (sync->phase) {
    case NX_FULL_SYNC_CHOOSE:
        return step_choose(ws);
    case NX_FULL_SYNC_MAKE:
        return step_make(ws);
    case NX_FULL_SYNC_PIN:
        return step_pin(ws);
    case NX_FULL_SYNC_SEND:
        if (sync->sent > sync->touched_at && nx_now_ms() - sync->pin_written_ms >= PIN_EVERY_MS) {
            sync->touched_at = sync->sent;
            touch_pin(ws);
        }
        return nx_send_snapshot_step(ws);
    case NX_FULL_SYNC_NONE:
        break;
    }
    return false;
}

bool nx_full_sync_ready(struct nx_walsender *ws)
{
    struct nx_snapshot_look look;

    switch (ws->sync.phase) {
    case NX_FULL_SYNC_CHOOSE:
        return true;
    case NX_FULL_SYNC_MAKE:
        return asked_job(ws, &look) && look.stage >= NX_SNAPSHOT_WRITING;
    case NX_FULL_SYNC_PIN:
        return ws->sync.look_wanted == 0 || look_is_over(ws);
    case NX_FULL_SYNC_SEND:
        return nx_send_snapshot_ready(ws);
    case NX_FULL_SYNC_NONE:
        break;
    }
    return false;
}

int nx_full_sync_wait(const struct nx_walsender *ws)
{
    return ws->sync.phase == NX_FULL_SYNC_MAKE ? ASK_AGAIN_MS : -1;
}

/* The size of the file; while that grows, an estimate: as far as its keys have come. 0: it can't be told. */
static uint64_t expected_size(const struct nx_walsender *ws)
{
    const struct nx_full_sync *sync = &ws->sync;
    struct nx_snapshot_look look;

    if (sync->size_known) {
        return sync->total_size;
    }
    if (!nx_snapshot_job_look(ws->shm, &look) || look.job != sync->job ||
        look.written < ESTIMATE_FROM || look.keys_done == 0 || look.keys_total < look.keys_done) {
        return 0;
    }
    return look.written / look.keys_done * look.keys_total;
}

void nx_full_sync_publish(struct nx_walsender *ws)
{
    struct nx_full_sync *sync = &ws->sync;
    uint64_t sent = sync->sent;
    uint64_t total;

    atomic_store_explicit(&ws->slot->snapshot_sent, sent, memory_order_relaxed);
    atomic_store_explicit(&ws->slot->snapshot_job,
                          sync->phase == NX_FULL_SYNC_SEND && !sync->size_known ? sync->job : 0,
                          memory_order_release);
    if (sync->phase != NX_FULL_SYNC_SEND) {
        return;
    }
    total = expected_size(ws);
    if (total > 0) {
        uint64_t shown = atomic_load_explicit(&ws->slot->snapshot_progress, memory_order_relaxed);
        uint64_t most = sync->size_known ? 1000 : 999;
        uint64_t thousandths = sent >= total ? most : sent * 1000 / total;

        if (thousandths < shown) {
            thousandths = shown; /* an estimate was too kind: it waits for the truth */
        }
        atomic_store_explicit(&ws->slot->snapshot_progress, (uint32_t)thousandths,
                              memory_order_relaxed);
    }
}
