/* Keeps the WAL directory. Runs in the checkpointer, which makes free-<n> files and takes old segments
 * away; the walwriter takes free ones and begins segments at the same time (wal_segment.h). Nothing here
 * is ever fatal: without a free segment the walwriter makes its own, which takes longer. */
#include "checkpointer/segments.h"

#include "checkpointer/pins.h"
#include "checkpointer/retention.h"
#include "common/failpoint.h"
#include "common/latch.h"
#include "common/log.h"
#include "storage/file_io.h"
#include "storage/wal_segment.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define RETRY_MS         1000
#define RESERVE_SEGMENTS 2
#define MOST_FREE        2 /* ready at a time while the log grows; one is enough for a quiet node */

int nx_segments_open(struct nx_segments *segments, struct nx_process *process)
{
    char dir[NX_PATH_SIZE + sizeof "/wal"];

    (void)snprintf(dir, sizeof dir, "%s/wal", process->state_root);
    *segments = (struct nx_segments){.process = process, .next_free = 1, .free_bytes = UINT64_MAX};
    segments->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return segments->dir_fd < 0 ? -errno : 0;
}

void nx_segments_close(struct nx_segments *segments)
{
    if (segments->dir_fd >= 0) {
        close(segments->dir_fd);
        segments->dir_fd = -1;
    }
}

static struct nx_checkpoint_state *published(const struct nx_segments *segments)
{
    return &segments->process->shm->checkpoint;
}

static uint64_t segment_size(const struct nx_segments *segments)
{
    return segments->process->config->wal.segment_size;
}

static uint64_t writing_now(const struct nx_segments *segments)
{
    return atomic_load_explicit(&segments->process->shm->log.segment_first, memory_order_acquire);
}

/* ---- space ---- */

static bool disk_is_full(const struct nx_segments *segments)
{
    return atomic_load_explicit(&published(segments)->disk_state, memory_order_relaxed) ==
           NX_DISK_FULL;
}

static void publish_disk(const struct nx_segments *segments, enum nx_disk_state state)
{
    atomic_store_explicit(&published(segments)->disk_state, (uint32_t)state, memory_order_release);
}

static void say_full(const struct nx_segments *segments, uint64_t reserve)
{
    nx_error(
        "the disk of %s/wal is full: %" PRIu64 " bytes free, %" PRIu64
        " are kept in reserve (for WAL segments and merges); writes but deletes are refused (507 "
        "disk_full) until there is more: free some space of other files (deleting keys frees none: "
        "the state's file keeps its size), or lower wal.max_size or replication.max_log_size and "
        "reload",
        segments->process->state_root, segments->free_bytes, reserve);
}

/* What recovery, deletes and merges need: two segments, and as much as a generation that is still to be
 * merged, but on a small disk not more than an eighth of it for that. */
static uint64_t reserve_of(const struct nx_segments *segments, const struct statvfs *fs)
{
    uint64_t merge = segments->process->shm->generation_bytes;
    uint64_t most = (uint64_t)fs->f_blocks * fs->f_frsize / 8;

    return RESERVE_SEGMENTS * segment_size(segments) + (merge < most ? merge : most);
}

/* Full below the reserve; not full again only a segment above it, so that it doesn't flap. */
static void watch_disk(struct nx_segments *segments)
{
    struct statvfs fs;
    uint64_t reserve;

    if (fstatvfs(segments->dir_fd, &fs) != 0 || fs.f_blocks == 0) {
        return; /* a filesystem that doesn't say */
    }
    segments->free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    reserve = reserve_of(segments, &fs);
    atomic_store_explicit(&published(segments)->disk_reserve, reserve, memory_order_relaxed);
    if (!disk_is_full(segments) && segments->free_bytes < reserve) {
        publish_disk(segments, NX_DISK_FULL);
        say_full(segments, reserve);
    } else if (disk_is_full(segments) && segments->free_bytes >= reserve + segment_size(segments)) {
        publish_disk(segments, NX_DISK_OK);
        nx_info("the disk of %s/wal has space again: %" PRIu64 " bytes free; writes are taken",
                segments->process->state_root, segments->free_bytes);
    }
    segments->retry_ms = disk_is_full(segments) ? nx_now_ms() + RETRY_MS : 0;
}

bool nx_segments_disk_full(struct nx_segments *segments)
{
    watch_disk(segments);
    return disk_is_full(segments);
}

static void complain(const struct nx_segments *segments, const char *doing, int rc)
{
    static struct nx_log_limit limit;

    nx_log_limited(&limit, NX_LOG_ERROR, "%s in %s/wal failed: %s", doing,
                   segments->process->state_root, nx_errno_text(rc));
}

/* ---- old segments ---- */

/* How many free ones should stand ready. */
static size_t free_target(const struct nx_segments *segments)
{
    return segments->begun ? MOST_FREE : 1;
}

bool nx_segments_urgent(const struct nx_segments *segments)
{
    bool taken =
        writing_now(segments) != segments->writing; /* one of them, since the making began */
    bool grows = segments->begun || taken;

    return (grows && segments->ready <= (taken ? 1 : 0)) ||
           nx_pins_look_wanted(segments->process->shm);
}

/* Counts and publishes. */
static size_t count_free(struct nx_segments *segments)
{
    size_t count = 0;
    uint64_t lowest;
    int rc = nx_segment_free_count(segments->dir_fd, segment_size(segments), !segments->cleaned,
                                   &count, &lowest);

    if (rc < 0) {
        complain(segments, "listing free WAL segments", rc);
        return MOST_FREE;
    }
    segments->cleaned = true;
    atomic_store_explicit(&published(segments)->free_segments, count, memory_order_relaxed);
    return count;
}

/* Under the first number that is free: recycles the segment `first`, or with 0 makes a new file. */
static int make_free(struct nx_segments *segments, uint64_t first)
{
    uint64_t n = segments->next_free++;

    while (nx_segment_free_exists(segments->dir_fd, n)) { /* of an earlier run */
        n = segments->next_free++;
    }
    struct nx_pause pause = nx_pace_pause(&segments->pace);

    segments->ready = count_free(segments);
    nx_pace_begin(&segments->pace);
    return first > 0
               ? nx_segment_recycle(segments->dir_fd, first, n, segment_size(segments), &pause)
               : nx_segment_prepare(segments->dir_fd, n, segment_size(segments), &pause);
}

static int unlink_segment(const struct nx_segments *segments, uint64_t first)
{
    char name[NX_SEGMENT_NAME];

    nx_segment_name(first, name);
    if (unlinkat(segments->dir_fd, name, 0) != 0 && errno != ENOENT) {
        return -errno;
    }
    /* One by one and oldest first: a power cut must not leave a hole in the log. */
    return fsync(segments->dir_fd) == 0 ? 0 : -errno;
}

static void publish_oldest(const struct nx_segments *segments, uint64_t oldest)
{
    atomic_store_explicit(&published(segments)->oldest_kept, oldest, memory_order_release);
}

/* Takes the first `expired` segments away, until one was recycled. True: there are more. */
static bool drop(struct nx_segments *segments, const struct nx_segment_info *list, size_t expired)
{
    size_t ready = count_free(segments);

    for (size_t i = 0; i < expired; i++) {
        /* On a full disk one ready segment is enough: the others give their space back. */
        bool recycle = ready < (disk_is_full(segments) ? 1 : MOST_FREE);
        int rc = NX_FAILPOINT(segment_removal);

        if (rc == 0) {
            rc = recycle ? make_free(segments, list[i].first_offset)
                         : unlink_segment(segments, list[i].first_offset);
        }

        if (rc < 0 && rc != -ENOENT) {
            complain(segments, recycle ? "recycling a WAL segment" : "removing a WAL segment", rc);
            return false;
        }
        if (recycle) {
            return i + 1 < expired;
        }
    }
    return false;
}

/* Who waits for a look hears that one is over. */
static void end_look(struct nx_segments *segments)
{
    struct nx_shm *shm = segments->process->shm;
    struct nx_checkpoint_state *checkpoint = published(segments);
    uint64_t begun = atomic_load_explicit(&checkpoint->looks_begun, memory_order_relaxed);
    uint64_t before = atomic_load_explicit(&checkpoint->looks_ended, memory_order_relaxed);

    atomic_store_explicit(&checkpoint->looks_ended, begun, memory_order_release);
    for (unsigned i = 0; i < NX_MAX_WALSENDERS; i++) {
        if (atomic_load_explicit(&shm->replicas[i].look_wanted, memory_order_relaxed) > before) {
            nx_latch_ring(shm, nx_process_slot(NX_KIND_WALSENDER, i));
        }
    }
}

static void count_look(nx_atomic_u64 *looks)
{
    atomic_store_explicit(looks, atomic_load_explicit(looks, memory_order_relaxed) + 1,
                          memory_order_release);
}

/* Publishes what would be the oldest without pins, too. */
static size_t judge(struct nx_segments *segments,
                    const struct nx_segment_info *list,
                    size_t count,
                    struct nx_retention *retention)
{
    uint64_t pinned = nx_pins_look(segments->process->shm, segments->process->data_dir,
                                   disk_is_full(segments), &segments->pin_due_ms);
    size_t unpinned;

    retention->pinned = NX_UNPINNED;
    unpinned = nx_retention_expired(list, count, retention);
    atomic_store_explicit(&published(segments)->oldest_unpinned,
                          count > 0 ? list[unpinned].first_offset
                                    : retention->checkpoint_offset + 1,
                          memory_order_relaxed);
    retention->pinned = pinned;
    return nx_retention_expired(list, count, retention);
}

static bool retain(struct nx_segments *segments, uint64_t checkpoint_offset)
{
    const struct nx_config *config = segments->process->config;
    const struct nx_log_state *log = &segments->process->shm->log;
    struct nx_retention retention = {
        .checkpoint_offset = checkpoint_offset,
        /* 0 until recovery is over: it still reads segments. */
        .newest = atomic_load_explicit(&log->durable_offset, memory_order_acquire),
        .writing = segments->writing,
        .max_entries = config->replication.max_log_size,
        .max_bytes = config->wal.max_size,
    };
    struct nx_segment_info *list = NULL;
    size_t count = 0;
    int rc;

    count_look(&published(segments)->looks_begun);
    rc = nx_segment_list(segments->dir_fd, &list, &count);
    if (rc < 0) {
        complain(segments, "listing WAL segments", rc);
        end_look(segments); /* nothing was taken away */
        segments->retry_ms = nx_now_ms() + RETRY_MS;
        return false;
    }
    size_t expired = judge(segments, list, count, &retention);

    /* Before it is true: whoever reads there must be able to tell why it fails. */
    publish_oldest(segments, count > 0 ? list[expired].first_offset : checkpoint_offset + 1);
    bool more = drop(segments, list, expired);

    free(list);
    end_look(segments);
    return more;
}

/* ---- free segments ---- */

/* Makes one if fewer than wanted stand ready and the disk has room beyond the reserve. True: still
 * fewer. */
static bool prepare(struct nx_segments *segments)
{
    size_t ready = count_free(segments);
    int rc;

    if (ready >= free_target(segments) ||
        segments->free_bytes < (RESERVE_SEGMENTS + 1) * segment_size(segments)) {
        return false;
    }
    rc = make_free(segments, 0);
    if (rc < 0) {
        complain(segments, "preparing a WAL segment", rc);
        segments->retry_ms = nx_now_ms() + RETRY_MS;
        return false;
    }
    return count_free(segments) < free_target(segments);
}

bool nx_segments_tend(struct nx_segments *segments, uint64_t checkpoint_offset)
{
    uint64_t writing = writing_now(segments);

    if (segments->writing != 0 && writing != segments->writing) {
        segments->begun = true;
    }
    segments->writing = writing;
    watch_disk(segments);
    return retain(segments, checkpoint_offset) || prepare(segments);
}

bool nx_segments_due(const struct nx_segments *segments)
{
    uint64_t now = nx_now_ms();

    return writing_now(segments) != segments->writing ||
           (segments->retry_ms != 0 && now >= segments->retry_ms) ||
           (segments->pin_due_ms != 0 && now >= segments->pin_due_ms) ||
           nx_pins_look_wanted(segments->process->shm);
}

int nx_segments_wait(const struct nx_segments *segments)
{
    uint64_t now = nx_now_ms();
    uint64_t due = segments->retry_ms;

    if (due == 0 || (segments->pin_due_ms != 0 && segments->pin_due_ms < due)) {
        due = segments->pin_due_ms;
    }
    if (due == 0) {
        return -1;
    }
    return now >= due ? 0 : (int)(due - now);
}
