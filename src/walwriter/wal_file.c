/* The segment being written, and the mark. Runs in the walwriter, the only process that writes frames
 * to disk. An error here means that what the disk holds is unknown; the caller dies and recovery reads
 * it again (a failed fdatasync is never tried again as if nothing had happened). */
#include "common/failpoint.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/quorum.h"
#include "storage/data_dir.h"
#include "storage/file_io.h"
#include "storage/wal_segment.h"
#include "walwriter/walwriter.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/uio.h>
#include <unistd.h>

#define EVERYSEC_MS   1000
#define NOTE_FIRST_MS 500
#define NOTE_MOST_MS  60000 /* a quorum that doesn't come back shall not keep an idle node awake */

bool nx_wal_file_fits(const struct walwriter *w, size_t length)
{
    return w->file.fd >= 0 && w->file.at + w->group_bytes + length <= w->file.size;
}

int nx_wal_file_switch(struct walwriter *w, size_t length)
{
    struct nx_segment_header header = {.first_offset = w->log.newest + 1, .epoch = w->epoch};
    uint64_t size = w->process->config->wal.segment_size;
    int fd = -1;
    int rc = nx_uuid_parse(w->shm->control.cluster_id, header.cluster_id);

    if (rc < 0) {
        return rc;
    }
    if (size < NX_SEGMENT_HEADER + length) {
        size = NX_SEGMENT_HEADER + length;
    }
    if (w->file.unsynced) {
        rc = nx_wal_file_sync(w);
    }
    rc = rc < 0 ? rc : nx_segment_begin(w->file.dir_fd, &header, size, &fd);
    if (rc < 0) {
        return rc;
    }
    if (w->file.fd >= 0) {
        close(w->file.fd);
    }
    off_t end = lseek(fd, 0, SEEK_END);

    w->file.fd = fd;
    w->file.at = NX_SEGMENT_HEADER;
    w->file.size = end > 0 ? (uint64_t)end : size;
    atomic_store_explicit(&w->shm->log.segment_first, header.first_offset, memory_order_release);
    nx_latch_ring(w->shm, nx_process_slot(NX_KIND_CHECKPOINTER, 0)); /* prepare the next one */
    return 0;
}

/* pwritev until all is out: a signal or a full page may cut a write short. */
static int write_runs(int fd, struct iovec *runs, int count, uint64_t at)
{
    while (count > 0) {
        ssize_t n = pwritev(fd, runs, count, (off_t)at);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -errno : -EIO;
        }
        at += (uint64_t)n;
        while (count > 0 && (size_t)n >= runs->iov_len) {
            n -= (ssize_t)runs->iov_len;
            runs++;
            count--;
        }
        if (count > 0) {
            runs->iov_base = (char *)runs->iov_base + n;
            runs->iov_len -= (size_t)n;
        }
    }
    return 0;
}

int nx_wal_file_write(struct walwriter *w, uint64_t first, uint64_t last)
{
    struct iovec runs[2];
    int count = nx_log_runs(w->shm, first, last, runs);
    int rc;

    if (NX_PLANTED(ack_before_fsync) && fdatasync(w->file.fd) != 0) { /* of the group before */
        return -errno;
    }
    rc = write_runs(w->file.fd, runs, count, w->file.at);
    rc = rc < 0 ? rc : NX_FAILPOINT(group_unsynced);
    if (rc < 0) {
        return rc;
    }
    w->file.at += w->group_bytes;
    if (w->process->config->wal.fsync == NX_FSYNC_ALWAYS) {
        return nx_wal_file_sync(w);
    }
    if (!w->file.unsynced) {
        w->file.unsynced = true;
        w->file.sync_due_ms = nx_now_ms() + EVERYSEC_MS;
    }
    return 0;
}

int nx_wal_file_sync(struct walwriter *w)
{
    if (w->file.fd >= 0 && !NX_PLANTED(ack_before_fsync) && fdatasync(w->file.fd) != 0) {
        /* -ENOSPC would be taken for a segment that can't be begun yet, which is waited for. */
        return errno == ENOSPC ? -EIO : -errno;
    }
    w->file.unsynced = false;
    atomic_store_explicit(&w->shm->log.synced_offset, w->log.newest, memory_order_release);
    return 0;
}

int nx_wal_file_mark(struct walwriter *w)
{
    const struct nx_quorum_state *quorum = &w->shm->quorum;
    struct nx_mark mark = {
        .position = w->last,
        .mode = nx_quorum_rules(w->shm) ? 1 : 0,
        .quorum_epoch = atomic_load_explicit(&quorum->epoch, memory_order_relaxed),
        .quorum_offset = nx_quorum_offset(w->shm),
    };
    uint8_t bytes[NX_MARK_SIZE];

    w->file.noted_quorum = mark.quorum_offset;
    w->file.note_after_ms = mark.mode == 1 ? NOTE_FIRST_MS : 0;
    w->file.note_due_ms = 0;
    if (w->file.mark_fd < 0) {
        return nx_mark_open(w->file.dir_fd, &mark, &w->file.mark_fd);
    }
    nx_mark_encode(&mark, bytes);
    /* Whole, also where one call comes short: half a mark can't be judged by. */
    return nx_write_at(w->file.mark_fd, bytes, sizeof bytes, 0);
}

int nx_wal_file_sync_wait(const struct walwriter *w)
{
    uint64_t now;

    if (!w->file.unsynced || w->process->config->wal.fsync != NX_FSYNC_EVERYSEC) {
        return -1;
    }
    now = nx_now_ms();
    return now >= w->file.sync_due_ms ? 0 : (int)(w->file.sync_due_ms - now);
}

int nx_wal_file_note_wait(struct walwriter *w)
{
    struct wal_file *file = &w->file;
    uint64_t now;

    if (file->note_after_ms == 0 || file->noted_quorum >= w->last.offset) {
        return -1;
    }
    now = nx_now_ms();
    if (file->note_due_ms == 0) {
        file->note_due_ms = now + file->note_after_ms;
    }
    return now >= file->note_due_ms ? 0 : (int)(file->note_due_ms - now);
}

int nx_wal_file_note_quorum(struct walwriter *w)
{
    struct wal_file *file = &w->file;

    if (file->note_due_ms == 0 || nx_now_ms() < file->note_due_ms) {
        return 0;
    }
    file->note_due_ms = 0;
    if (nx_quorum_offset(w->shm) > file->noted_quorum && !file->unsynced) {
        return nx_wal_file_mark(w);
    }
    /* Nothing yet: each further look comes twice as late. */
    file->note_after_ms =
        file->note_after_ms < NOTE_MOST_MS ? 2 * file->note_after_ms : NOTE_MOST_MS;
    return 0;
}
