/* The snapshot process: makes one archive and ends. It asks the checkpointer to bring the state to the
 * committed offset, reads that in one read transaction, and writes it to DATA_DIR/snapshots, where
 * walsenders read it as it grows. It owns shm->snapshot and the file; it touches no log. When it is asked
 * to stop, or fails, nothing of the archive is left. */
#include "common/crc32.h"
#include "common/error_codes.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/process.h"
#include "common/quorum.h"
#include "common/snapshot_job.h"
#include "snapshot/archive_write.h"
#include "snapshot/manifest.h"
#include "snapshot/record.h"
#include "storage/file_io.h"
#include "storage/snapshot_files.h"
#include "storage/view.h"
#include "storage/warming.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_BYTES    ((size_t)8 << 20) /* a kv file ends with the first record above this */
#define RING_BYTES    ((uint64_t)256 << 10)
#define MERGE_WAIT_MS 60000                /* without progress of the checkpointer */
#define FAST_LEVEL    (-1)                 /* zstd's, while a replica waits for bytes */
#define HUNGRY_BYTES  ((uint64_t)16 << 20) /* a replica that lacks fewer waits, or is about to */
#define DISK_MARGIN \
    ((uint64_t)16 << 20) /* beyond the reserve: what may be on its way to the disk */
#define FETCH_PIECES 4   /* of the state's file, for each kv file */
#define TITLE_MS     500

struct job {
    struct nx_process *process;
    struct nx_shm *shm;
    struct nx_snapshot_state *published; /* in shm; ours */
    int dir_fd;
    int fd; /* of the file; -1: none */
    char temporary[NX_SNAPSHOT_NAME];
    struct nx_state *state;
    struct nx_archive_writer *archive;
    struct nx_manifest manifest;
    struct nx_epochs epochs; /* up to its position */
    uint8_t *buffer;         /* the kv file that is gathered */
    size_t filled;
    size_t cap;
    uint64_t began_ms;
    uint64_t titled_ms;
    uint64_t rung; /* written, when others were last rung */
    struct nx_passing passing;
    struct nx_warming warming;
};

static uint64_t load(const nx_atomic_u64 *field)
{
    return atomic_load_explicit(field, memory_order_acquire);
}

static void publish(nx_atomic_u64 *field, uint64_t value)
{
    atomic_store_explicit(field, value, memory_order_release);
}

static void publish_stage(struct job *job, enum nx_snapshot_stage stage)
{
    atomic_store_explicit(&job->published->stage, (uint32_t)stage, memory_order_release);
    nx_snapshot_job_ring(job->shm);
}

/* A smart stop waits for what a person asked for, as for any open request. */
static bool must_stop(const struct job *job)
{
    const struct nx_control *control = &job->process->control;
    bool asked = load(&job->shm->control.snapshot_asked) == load(&job->published->job);

    return nx_process_stopping(job->process) &&
           !(control->told && control->stop_mode == NX_STOP_SMART && asked);
}

/* ---- failure ---- */

/* Notes why, for whoever waits and for the log. Returns -1, "it is said". */
__attribute__((format(printf, 3, 4))) static int fail(struct job *job,
                                                      enum nx_error code,
                                                      const char *format,
                                                      ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(job->published->text, sizeof job->published->text, format, args);
    va_end(args);
    atomic_store_explicit(&job->published->code, (uint32_t)code, memory_order_relaxed);
    return -1;
}

static int fail_write(struct job *job, int rc)
{
    uint64_t max_size = job->process->config->snapshot.max_size;

    switch (rc) {
    case -EFBIG:
        if (load(&job->published->written) < max_size / 2) {
            return fail(job, NX_ERROR_INTERNAL,
                        "A limit of the size of files (ulimit -f, LimitFSIZE) ends the snapshot.");
        }
        return fail(job, NX_ERROR_SNAPSHOT_TOO_LARGE,
                    "The snapshot would become larger than snapshot.max_size (%" PRIu64
                    " bytes, compressed); raise it and reload.",
                    max_size);
    case -ENOSPC:
    case -EDQUOT:
        return fail(job, NX_ERROR_DISK_FULL,
                    "The disk of %s/" NX_SNAPSHOT_DIR
                    " has no room for the snapshot; free some space, or delete older snapshots.",
                    job->process->data_dir);
    case -ECANCELED:
        return fail(job, NX_ERROR_OVERLOADED, "This node stops, and the snapshot with it.");
    default:
        return fail(job, NX_ERROR_INTERNAL, "The snapshot can't be written to %s/%s: %s.",
                    job->process->data_dir, NX_SNAPSHOT_DIR, nx_errno_text(rc));
    }
}

static int fail_read(struct job *job, int rc)
{
    return fail(job, NX_ERROR_INTERNAL, "The state in %s/state can't be read: %s.",
                job->process->state_root,
                rc == -EBADMSG ? "a record of it is damaged" : nx_errno_text(rc));
}

/* ---- the offset ---- */

/* Waits for the checkpointer. False: it is said why not. */
static bool merge(struct job *job, uint64_t wanted)
{
    const struct nx_checkpoint_state *checkpoint = &job->shm->checkpoint;
    struct pollfd control = {.fd = job->process->control.fd, .events = POLLIN};
    unsigned slot = job->process->slot;
    uint64_t merged = load(&checkpoint->checkpoint_offset);
    uint64_t moved_ms = nx_now_ms();

    publish(&job->published->merge_wanted, wanted);
    nx_latch_ring(job->shm, nx_process_slot(NX_KIND_CHECKPOINTER, 0));
    while (merged < wanted) {
        uint64_t before = merged;

        nx_latch_prepare(job->shm, slot, NX_WAKE_NEVER);
        if (load(&checkpoint->checkpoint_offset) == before) {
            (void)nx_latch_poll(slot, &control, 1, 1000);
        }
        nx_latch_cancel(job->shm, slot);
        (void)nx_process_control(job->process, NULL, 0);
        merged = load(&checkpoint->checkpoint_offset);
        moved_ms = merged > before ? nx_now_ms() : moved_ms;
        if (must_stop(job)) {
            return fail_write(job, -ECANCELED) == 0;
        }
        if (load(&checkpoint->failures) > 0 || nx_now_ms() - moved_ms > MERGE_WAIT_MS) {
            return fail(job, NX_ERROR_OVERLOADED,
                        "A snapshot needs the newest entries merged into the state, which does "
                        "not go on at the moment; see this node's log.") == 0;
        }
    }
    return true;
}

static int open_state(struct job *job)
{
    struct nx_state_options options = {.map_size = job->process->config->state.map_size,
                                       .max_readers = NX_MAX_SLOTS};
    char dir[NX_PATH_SIZE + sizeof "/state"];
    char error[512] = "";
    int rc;

    (void)snprintf(dir, sizeof dir, "%s/state", job->process->state_root);
    rc = nx_state_open(dir, &options, &job->state, error, sizeof error);
    rc = rc < 0 ? rc : nx_state_read_begin(job->state, &job->manifest.position);
    rc = rc < 0 ? rc : nx_state_epochs(job->state, &job->epochs);
    return rc < 0 ? fail_read(job, rc) : 0;
}

/* ---- the archive ---- */

static void show(struct job *job)
{
    uint64_t now = nx_now_ms();
    uint64_t total = load(&job->published->keys_total);
    uint64_t done = load(&job->published->keys_done);
    uint64_t written = load(&job->published->written);
    uint64_t ms = now - job->began_ms;

    if (now - job->titled_ms >= TITLE_MS) {
        job->titled_ms = now;
        nx_process_title(job->process, "%" PRIu64 " %" PRIu64 "%% %" PRIu64 " MB/s",
                         job->manifest.position.offset, total > 0 ? done * 100 / total : 100,
                         ms > 0 ? written / 1000 / ms : 0);
    }
}

/* The reserve is not a snapshot's to use: it ends before that, so that writes go on. */
static bool disk_is_full(const struct job *job)
{
    return nx_disk_below(job->fd, load(&job->shm->checkpoint.disk_reserve) + DISK_MARGIN);
}

/* Whether a replica takes all that is written at once: then compressing is what it waits for. */
static bool replica_waits(const struct job *job, uint64_t written)
{
    uint64_t number = load(&job->published->job);

    for (unsigned i = 0; i < NX_MAX_WALSENDERS; i++) {
        const struct nx_replica_slot *replica = &job->shm->replicas[i];

        if (load(&replica->snapshot_job) == number &&
            load(&replica->snapshot_sent) + HUNGRY_BYTES > written) {
            return true;
        }
    }
    return false;
}

/* The configured level is for backups and for links that are slower than it; on faster ones compressing less
 * brings the data there sooner. */
static int level_now(const struct job *job, uint64_t written)
{
    int level = (int)job->process->config->snapshot.compression_level;
    bool full_sync = atomic_load_explicit(&job->published->reason, memory_order_relaxed) ==
                     NX_SNAPSHOT_FULL_SYNC;
    bool waits = replica_waits(job, written) || (full_sync && written < HUNGRY_BYTES);

    return waits ? FAST_LEVEL : level;
}

/* So many bytes of the file stand: others may read them. */
static int progress(void *arg, uint64_t written)
{
    struct job *job = arg;

    publish(&job->published->written, written);
    if (written - job->rung < RING_BYTES) {
        return 0;
    }
    job->rung = written;
    nx_snapshot_job_ring(job->shm);
    nx_pass(&job->passing, job->fd, written);
    nx_archive_writer_level(job->archive, level_now(job, written));
    show(job);
    (void)nx_process_control(job->process, NULL, 0);
    if (must_stop(job)) {
        return -ECANCELED;
    }
    return disk_is_full(job) ? -ENOSPC : 0;
}

static int open_archive(struct job *job)
{
    const struct nx_config *config = job->process->config;
    struct nx_archive_options options = {
        .level = level_now(job, 0),
        .max_size = config->snapshot.max_size,
        .progress = progress,
        .arg = job,
    };

    nx_snapshot_name(job->manifest.position.offset, job->manifest.id, ".tar.zst.tmp",
                     job->temporary);
    job->fd = openat(job->dir_fd, job->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (job->fd < 0) {
        return fail_write(job, -errno);
    }
    publish_stage(job, NX_SNAPSHOT_WRITING);
    options.fd = job->fd;
    job->cap = FILE_BYTES + NX_RECORD_MAX;
    job->buffer = malloc(job->cap);
    int rc = job->buffer == NULL ? -ENOMEM : nx_archive_writer_open(&options, &job->archive);

    return rc < 0 ? fail_write(job, rc) : 0;
}

/* The state's file comes into memory faster than it is gone through: records needn't lie in its order. */
static void fetch_ahead(struct job *job)
{
    for (int i = 0; i < FETCH_PIECES && nx_warming_step(&job->warming); i++) {
        ; /* a piece is asked for */
    }
}

/* Adds the file that was gathered. */
static int end_file(struct job *job)
{
    char name[NX_ARCHIVE_NAME_MAX];
    int rc;

    if (job->manifest.file_count >= NX_KV_MOST - 1) {
        return fail_write(job, -EFBIG);
    }
    (void)snprintf(name, sizeof name, NX_KV_NAME, job->manifest.file_count);
    rc = nx_manifest_add(&job->manifest, job->filled, nx_crc32(0, job->buffer, job->filled));
    rc = rc < 0 ? rc
                : nx_archive_writer_add(job->archive, name, job->buffer, job->filled,
                                        job->manifest.created_at);
    job->filled = 0;
    fetch_ahead(job);
    publish(&job->published->keys_done, job->manifest.records);
    return rc < 0 ? fail_write(job, rc) : 0;
}

static int add_record(struct job *job, const struct nx_record *record)
{
    nx_record_encode(record, job->buffer + job->filled);
    job->filled += nx_record_size(record);
    job->manifest.records++;
    return job->filled >= FILE_BYTES ? end_file(job) : 0;
}

static int add_records(struct job *job)
{
    struct nx_state_cursor *cursor = NULL;
    struct nx_record record;
    int rc = nx_state_cursor_open(job->state, &cursor);
    int said = 0;

    rc = rc < 0 ? rc : nx_state_cursor_seek(cursor, NULL, 0, &record);
    while (rc == 0 && said == 0) {
        said = add_record(job, &record);
        rc = nx_state_cursor_next(cursor, &record);
    }
    nx_state_cursor_close(cursor);
    if (said == 0 && rc != -ENOENT) {
        said = fail_read(job, rc);
    }
    if (said == 0 && job->filled > 0) {
        said = end_file(job);
    }
    nx_state_read_end(job->state);
    return said;
}

/* Adds a text, and forgets it. */
static int add_text(struct job *job, const char *name, char *text, bool listed)
{
    size_t length = text == NULL ? 0 : strlen(text);
    int rc = text == NULL ? -ENOMEM : 0;

    if (rc == 0 && listed) {
        rc = nx_manifest_add(&job->manifest, length, nx_crc32(0, text, length));
    }
    rc = rc < 0 ? rc
                : nx_archive_writer_add(job->archive, name, text, length, job->manifest.created_at);
    free(text);
    return rc < 0 ? fail_write(job, rc) : 0;
}

static int write_archive(struct job *job, struct nx_archive_totals *ret_totals)
{
    int rc = open_archive(job);

    rc = rc < 0 ? rc : add_records(job);
    rc = rc < 0 ? rc
                : add_text(job, NX_EPOCHS_NAME,
                           nx_epochs_print(&job->manifest.position, &job->epochs), true);
    rc = rc < 0 ? rc : add_text(job, NX_MANIFEST_NAME, nx_manifest_print(&job->manifest), false);
    if (rc == 0) {
        rc = nx_archive_writer_finish(job->archive, ret_totals);
        rc = rc < 0 ? fail_write(job, rc) : 0;
    }
    return rc;
}

/* ---- the end ---- */

/* Whether a person asked for it by now. Said after CLOSING: who comes later has another one made. */
static enum nx_snapshot_reason reason_of(struct job *job)
{
    bool asked;

    atomic_thread_fence(memory_order_seq_cst);
    asked = load(&job->shm->control.snapshot_asked) == load(&job->published->job);
    return asked ? NX_SNAPSHOT_REQUEST
                 : (enum nx_snapshot_reason)atomic_load_explicit(&job->published->reason,
                                                                 memory_order_relaxed);
}

/* Names the archive, durably. The walsenders needn't wait for that. */
static int name_archive(struct job *job, const struct nx_archive_totals *totals)
{
    struct nx_snapshot_info info = {
        .created_at = job->manifest.created_at,
        .position = job->manifest.position,
        .records = job->manifest.records,
        .files_count = totals->files_count,
        .uncompressed_size = totals->uncompressed_size,
        .compressed_size = totals->compressed_size,
        .checksum = totals->checksum,
    };
    int rc;

    memcpy(info.id, job->manifest.id, sizeof info.id);
    publish(&job->published->total_size, totals->compressed_size);
    atomic_store_explicit(&job->published->checksum, totals->checksum, memory_order_relaxed);
    publish_stage(job, NX_SNAPSHOT_CLOSING);
    info.reason = reason_of(job);
    rc = fdatasync(job->fd) == 0 ? 0 : -errno;
    rc = rc < 0 ? rc : nx_snapshot_store_info(job->dir_fd, &info);
    rc = rc < 0 ? rc : nx_snapshot_publish(job->dir_fd, &info);
    if (rc < 0) {
        return fail_write(job, rc);
    }
    nx_info("snapshot %s of offset %" PRIu64 " is done: %" PRIu64 " records, %" PRIu64
            " bytes compressed from %" PRIu64 " in %" PRIu64 " ms",
            info.id, info.position.offset, info.records, info.compressed_size,
            info.uncompressed_size, nx_now_ms() - job->began_ms);
    rc = nx_snapshot_prune(job->dir_fd, job->process->config->snapshot.keep);
    if (rc < 0) {
        nx_warn("older snapshots can't be removed: %s", nx_errno_text(rc));
    }
    return 0;
}

static uint64_t epoch_now(const struct job *job)
{
    return load(&job->shm->log.position_epoch);
}

/* Later than that of the newest there is, though the clock may have been set back: they are told apart by it. */
static uint64_t time_of_creation(const struct job *job)
{
    uint64_t now = nx_wall_ms();
    struct nx_snapshot_info newest;

    return nx_snapshot_find(job->dir_fd, "last", &newest) == 0 && newest.created_at >= now
               ? newest.created_at + 1
               : now;
}

/* Whether a scheduled one would be the same as the newest there is. */
static bool nothing_new(const struct job *job, uint64_t committed)
{
    struct nx_snapshot_info newest;

    return atomic_load_explicit(&job->published->reason, memory_order_relaxed) ==
               NX_SNAPSHOT_SCHEDULE &&
           (committed == 0 ||
            (nx_snapshot_find(job->dir_fd, "last", &newest) == 0 &&
             newest.position.offset == committed && newest.position.epoch == epoch_now(job)));
}

static int run(struct job *job)
{
    struct nx_archive_totals totals = {.files_count = 0};
    uint64_t committed = nx_committed_offset(job->shm);

    if (job->manifest.cluster_id[0] == '\0') {
        return fail(job, NX_ERROR_NOT_SYNCED,
                    "This node belongs to no cluster yet: it has nothing to make a snapshot of.");
    }
    if (nothing_new(job, committed)) {
        nx_debug("nothing was written since the last snapshot: no new one is made");
        return 0;
    }
    nx_process_title(job->process, "merging up to %" PRIu64, committed);
    /* From here on the log behind the state's position stays, for those who will want this snapshot. */
    publish(&job->published->hold_offset, load(&job->shm->checkpoint.checkpoint_offset));
    if (!merge(job, committed) || open_state(job) < 0) {
        return -1;
    }
    publish(&job->published->hold_offset, job->manifest.position.offset);
    publish(&job->published->wal_offset, job->manifest.position.offset);
    publish(&job->published->epoch, job->manifest.position.epoch);
    atomic_store_explicit(&job->published->crc, job->manifest.position.crc, memory_order_relaxed);
    publish(&job->published->keys_total, nx_state_records(job->state));
    nx_info("snapshot %s of offset %" PRIu64 " begins", job->manifest.id,
            job->manifest.position.offset);
    nx_warming_begin(&job->warming, job->process->state_root);
    fetch_ahead(job);
    if (write_archive(job, &totals) < 0) {
        return -1;
    }
    return name_archive(job, &totals);
}

static int begin(struct job *job)
{
    int rc;

    memcpy(job->manifest.id, job->published->id, sizeof job->manifest.id);
    memcpy(job->manifest.cluster_id, job->shm->control.cluster_id, sizeof job->manifest.cluster_id);
    job->began_ms = nx_now_ms();
    job->dir_fd = nx_snapshot_dir(job->process->data_dir);
    rc = job->dir_fd < 0 ? job->dir_fd : nx_snapshot_clean(job->dir_fd);
    job->manifest.created_at = rc < 0 ? 0 : time_of_creation(job);
    return rc < 0 ? fail_write(job, rc) : 0;
}

static void end(struct job *job, int rc)
{
    nx_archive_writer_close(job->archive);
    nx_warming_end(&job->warming);
    nx_state_close(job->state);
    nx_manifest_free(&job->manifest);
    free(job->buffer);
    if (rc < 0 && job->fd >= 0) {
        (void)unlinkat(job->dir_fd, job->temporary, 0);
        (void)nx_snapshot_clean(job->dir_fd);
    }
    if (rc < 0) {
        nx_error("snapshot %s failed: %s", job->manifest.id, job->published->text);
    }
    publish(&job->published->failed_ms, nx_now_ms());
    publish(&job->published->failed_size, job->process->config->snapshot.max_size);
    publish(&job->published->hold_offset, UINT64_MAX);
    publish_stage(job, rc < 0 ? NX_SNAPSHOT_FAILED : NX_SNAPSHOT_DONE);
}

int nx_snapshot_main(struct nx_process *process)
{
    struct job job = {
        .process = process,
        .shm = process->shm,
        .published = &process->shm->snapshot,
        .dir_fd = -1,
        .fd = -1,
        .warming = NX_WARMING_NONE,
    };
    int rc;

    nx_process_ready(process);
    rc = begin(&job);
    rc = rc < 0 ? rc : run(&job);
    end(&job, rc);
    return NX_EXIT_OK;
}
