/* The restore process: loads the snapshot that the walreceiver fetches into a data-N beside the one in use, as
 * it comes, and ends. It owns that data-N and shm->restore. When all of it is right and on disk it tells the
 * postmaster, which alone makes it the node's data. If it dies, is asked to stop, or another transfer has
 * begun, what it has built is worth nothing: the next one begins anew from the file. */
#include "common/latch.h"
#include "common/log.h"
#include "common/process.h"
#include "snapshot/load.h"
#include "storage/data_dir.h"
#include "storage/file_io.h"
#include "storage/incoming.h"
#include "storage/snapshot_files.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TITLE_MS 500

struct restore {
    struct nx_process *process;
    struct nx_shm *shm;
    struct nx_restore_state *published; /* in shm; ours */
    const struct nx_transfer_state *transfer;
    uint64_t number; /* of the transfer that is loaded */
    char id[NX_UUID_TEXT];
    int fd; /* of the file that grows */
    uint64_t consumed;
    struct nx_passing passing;
    uint64_t began_ms;
    uint64_t titled_ms;
    char root[NX_PATH_SIZE];
};

static uint64_t load(const nx_atomic_u64 *field)
{
    return atomic_load_explicit(field, memory_order_acquire);
}

static bool given_up(const struct restore *r)
{
    return nx_process_stopping(r->process) || load(&r->transfer->number) != r->number;
}

static void show(struct restore *r)
{
    uint64_t now = nx_now_ms();
    uint64_t ms = now - r->began_ms;

    if (now - r->titled_ms >= TITLE_MS) {
        r->titled_ms = now;
        nx_process_title(r->process, "%" PRIu64 ", %" PRIu64 " MB at %" PRIu64 " MB/s",
                         load(&r->transfer->wal_offset), r->consumed / 1000000,
                         ms > 0 ? r->consumed / 1000 / ms : 0);
    }
}

/* ---- the file as it comes ---- */

/* Waits for bytes behind those consumed. 0: some are there, or all have come; or -ECANCELED. */
static int wait_for_bytes(struct restore *r)
{
    struct pollfd control = {.fd = r->process->control.fd, .events = POLLIN};
    unsigned slot = r->process->slot;

    for (;;) {
        (void)nx_process_control(r->process, NULL, 0);
        if (given_up(r)) {
            return -ECANCELED;
        }
        nx_latch_prepare(r->shm, slot, NX_WAKE_NEVER);
        if (atomic_load_explicit(&r->transfer->complete, memory_order_acquire) != 0 ||
            load(&r->transfer->received) > r->consumed || given_up(r)) {
            nx_latch_cancel(r->shm, slot);
            return given_up(r) ? -ECANCELED : 0;
        }
        (void)nx_latch_poll(slot, &control, 1, -1);
        nx_latch_cancel(r->shm, slot);
    }
}

static int read_incoming(void *arg, void *buf, size_t cap, size_t *ret_n)
{
    struct restore *r = arg;
    int rc = wait_for_bytes(r);
    uint64_t left = load(&r->transfer->received) - r->consumed;
    size_t n = left < cap ? (size_t)left : cap;

    rc = rc < 0 ? rc : nx_read_at(r->fd, buf, n, r->consumed);
    if (rc < 0) {
        return rc;
    }
    r->consumed += n;
    nx_pass(&r->passing, r->fd, r->consumed);
    atomic_store_explicit(&r->published->consumed, r->consumed, memory_order_relaxed);
    show(r);
    *ret_n = n;
    return 0;
}

/* The old state's log must not run out of disk for the new one. */
static int note_records(void *arg, uint64_t records)
{
    struct restore *r = arg;
    uint64_t reserve = load(&r->shm->checkpoint.disk_reserve);

    atomic_store_explicit(&r->published->records, records, memory_order_relaxed);
    return nx_disk_below(r->fd, reserve) ? -ENOSPC : 0;
}

/* ---- the job ---- */

static int begin(struct restore *r, char *error, size_t cap)
{
    int dir_fd = nx_snapshot_dir(r->process->data_dir);
    int rc = dir_fd < 0 ? dir_fd : 0;

    if (rc == 0) {
        r->fd = nx_incoming_open(dir_fd, r->id);
        rc = r->fd < 0 ? r->fd : 0;
        close(dir_fd);
    }
    rc = rc < 0 ? rc : nx_data_dir_prepare(r->process->data_dir, r->process->state_root, r->root);
    if (rc < 0) {
        (void)snprintf(error, cap, "it can't be restored in this data directory: %s",
                       nx_errno_text(rc));
    }
    return rc;
}

static int load_snapshot(struct restore *r,
                         struct nx_manifest *ret_manifest,
                         char *error,
                         size_t cap)
{
    struct nx_load_options options = {
        .source = {.read = read_incoming, .arg = r},
        .root = r->root,
        .map_size = r->process->config->state.map_size,
        .id = r->id,
        .cluster_id = r->transfer->cluster_id,
        .wal_offset = load(&r->transfer->wal_offset),
        .epoch = load(&r->transfer->epoch),
        .quorum_rules = atomic_load_explicit(&r->transfer->quorum_rules, memory_order_relaxed) != 0,
        .progress = note_records,
        .arg = r,
    };

    (void)snprintf(error, cap, "what came of the snapshot can't be read again");
    return nx_load_archive(&options, ret_manifest, error, cap);
}

/* Tells who waits: the walreceiver, and after success the postmaster. */
static void publish(struct restore *r, enum nx_restore_stage stage, const char *text)
{
    (void)snprintf(r->published->text, sizeof r->published->text, "%s", text);
    atomic_store_explicit(&r->published->stage, (uint32_t)stage, memory_order_release);
    nx_latch_ring(r->shm, nx_process_slot(NX_KIND_WALRECEIVER, 0));
}

static void hand_over(struct restore *r, const struct nx_manifest *manifest)
{
    char text[NX_PATH_SIZE];

    (void)snprintf(text, sizeof text, "%s %s", strrchr(r->root, '/') + 1, manifest->cluster_id);
    nx_info("full sync: snapshot %s of offset %" PRIu64 " is restored: %" PRIu64
            " records in %" PRIu64 " ms",
            r->id, manifest->position.offset, manifest->records, nx_now_ms() - r->began_ms);
    publish(r, NX_RESTORE_READY, "");
    if (nx_control_send(r->process->control.fd, NX_CONTROL_SWITCH, 0, 0, text) < 0) {
        publish(r, NX_RESTORE_FAILED, "the postmaster doesn't hear that the snapshot is restored");
    }
}

static void run(struct restore *r)
{
    struct nx_manifest manifest;
    char error[sizeof r->published->text] = "";
    int rc = begin(r, error, sizeof error);

    rc = rc < 0 ? rc : load_snapshot(r, &manifest, error, sizeof error);
    if (rc == 0 && !given_up(r)) {
        hand_over(r, &manifest);
        return;
    }
    (void)nx_data_dir_discard(r->process->data_dir, r->root); /* it may be large */
    if (rc == -EBADMSG) {
        publish(r, NX_RESTORE_REFUSED, error);
    } else if (rc < 0 && rc != -ECANCELED) {
        publish(r, NX_RESTORE_FAILED, error);
    }
}

int nx_restore_main(struct nx_process *process)
{
    struct restore r = {
        .process = process,
        .shm = process->shm,
        .published = &process->shm->restore,
        .transfer = &process->shm->transfer,
        .fd = -1,
        .began_ms = nx_now_ms(),
    };

    r.number = load(&r.transfer->number);
    memcpy(r.id, r.transfer->id, sizeof r.id);
    atomic_store_explicit(&r.published->number, r.number, memory_order_relaxed);
    atomic_store_explicit(&r.published->consumed, 0, memory_order_relaxed);
    atomic_store_explicit(&r.published->records, 0, memory_order_relaxed);
    atomic_store_explicit(&r.published->stage, NX_RESTORE_LOADING, memory_order_release);
    nx_process_ready(process);
    if (r.number != 0) {
        run(&r);
    }
    return NX_EXIT_OK;
}
