/* The walwriter's start: replays the log behind LMDB's position into the shared log and the skip lists,
 * then takes over where it ends. The rules of what belongs to the log are storage/wal_recovery.h's. */
#include "common/failpoint.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/quorum.h"
#include "storage/data_dir.h"
#include "storage/wal_note.h"
#include "storage/wal_recovery.h"
#include "storage/wal_segment.h"
#include "walwriter/walwriter.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

/* Waits for the checkpointer to merge a generation: the log is larger than the memory it is replayed
 * into, because that has shrunk since. What was replayed is on disk. */
static int wait_for_merge(void *arg)
{
    struct walwriter *w = arg;
    unsigned slot = w->process->slot;
    struct pollfd control = {.fd = w->process->control.fd, .events = POLLIN};

    if (atomic_load_explicit(&w->shm->log.synced_offset, memory_order_relaxed) < w->log.newest) {
        nx_info("the log behind the checkpoint is larger than wal.shm_size: entries up to %llu are "
                "merged into the state before recovery goes on",
                (unsigned long long)w->log.newest);
    }
    atomic_store_explicit(&w->shm->log.synced_offset, w->log.newest, memory_order_release);
    atomic_store_explicit(&w->shm->log.merge_forced, 1, memory_order_release);
    nx_latch_ring(w->shm, nx_process_slot(NX_KIND_CHECKPOINTER, 0));
    nx_latch_prepare(w->shm, slot, NX_WAKE_NEVER);
    if (atomic_load_explicit(&w->shm->checkpoint.merged_generation, memory_order_acquire) <
        w->oldest_generation) {
        nx_latch_poll(slot, &control, 1, 1000);
    }
    nx_latch_cancel(w->shm, slot);
    (void)nx_process_control(w->process, NULL, 0);
    return nx_process_stopping(w->process) ? -ECANCELED : 0;
}

static int replay_entry(void *arg, const uint8_t *frame, size_t length)
{
    struct walwriter *w = arg;
    struct nx_entry_header header;
    uint64_t pos;
    uint8_t *place;

    if (nx_entry_decode(frame, length, false, &header) < 0) {
        return -EBADMSG;
    }
    place = nx_room_make(w, length, header.op_count, &pos);
    if (place == NULL) {
        return -EAGAIN;
    }
    memcpy(place, frame, length);
    nx_group_append(w, place, pos, &header);
    (void)NX_FAILPOINT(recovery_replay);
    if (w->log.next_pos - w->generation_start_pos >= w->shm->generation_bytes) {
        nx_room_seal_if_due(w);
    }
    return 0;
}

static void replay_progress(void *arg, uint64_t offset, uint64_t goal)
{
    struct walwriter *w = arg;
    struct nx_log_state *log = &w->shm->log;

    atomic_store_explicit(&log->recovery_done, offset, memory_order_relaxed);
    atomic_store_explicit(&log->recovery_goal, goal, memory_order_relaxed);
    nx_process_title(w->process, "recovering %llu of %llu", (unsigned long long)offset,
                     (unsigned long long)goal);
}

/* A small state is looked through before anybody reads it; a large one meanwhile (checkpointer/scrub.c). */
static int check_state(struct walwriter *w)
{
    struct nx_state_check *check = NULL;
    char why[160] = "";
    int rc;

    if (!nx_state_check_is_quick(w->state)) {
        return 0;
    }
    rc = nx_state_check_begin(w->state, &check);
    if (rc == 0) {
        while ((rc = nx_state_check_step(check, why, sizeof why)) == -EAGAIN) {
        }
    }
    nx_state_check_end(check);
    if (rc == -EBADMSG) {
        nx_process_fatal(w->process, NX_STATE_DAMAGED_TEXT, w->process->state_root, why);
    }
    return rc;
}

/* LMDB's position, read once; the checkpointer makes sure that it is disk and not page cache before
 * anything is freed by it. */
static int read_base(struct walwriter *w, struct nx_position *ret_base)
{
    char dir[NX_PATH_SIZE + 8];
    char error[512];
    struct nx_state_options options = {.map_size = w->process->config->state.map_size,
                                       .max_readers = NX_MAX_SLOTS};

    snprintf(dir, sizeof dir, "%s/state", w->process->state_root);
    int rc = nx_state_open(dir, &options, &w->state, error, sizeof error);

    if (rc < 0) {
        nx_process_fatal(w->process, "%s", error);
    }
    rc = check_state(w);
    rc = rc < 0 ? rc : nx_state_read_begin(w->state, ret_base);
    if (rc == 0) {
        rc = nx_state_epochs(w->state, &w->epochs);
        nx_state_read_end(w->state);
    }
    return rc;
}

static bool is_replica(const struct walwriter *w)
{
    return atomic_load_explicit(&w->shm->control.role, memory_order_relaxed) == NX_NODE_REPLICA &&
           !nx_epoch_noted(w);
}

/* What this node knew of its cluster's mode and quorum when it ran last. What stands there was true then, and
 * stays so in that epoch, which may have ended since; a replica without it waits for its master's word. */
static void recall_quorum(struct walwriter *w)
{
    struct nx_mark mark;
    uint64_t end;

    if (is_replica(w) && nx_mark_read(w->file.dir_fd, &mark) == 0) {
        end = nx_epochs_end_of(&w->epochs, mark.quorum_epoch);
        end = end == 0 || end > w->last.offset ? w->last.offset : end;
        nx_quorum_hear(w->shm, mark.mode == 0 ? NX_COMMIT_DURABLE : NX_COMMIT_QUORUM,
                       mark.quorum_epoch, mark.quorum_offset < end ? mark.quorum_offset : end);
    }
}

static void note_base(struct walwriter *w, uint64_t base)
{
    bool unconfirmed = nx_wal_note_stands(w->file.dir_fd, NX_NOTE_UNCONFIRMED);

    atomic_store_explicit(&w->shm->log.base_offset, base, memory_order_relaxed);
    atomic_store_explicit(&w->shm->log.committed_base, unconfirmed ? 0 : base,
                          memory_order_relaxed);
}

static int open_wal_dir(struct walwriter *w)
{
    char dir[NX_PATH_SIZE + 8];

    snprintf(dir, sizeof dir, "%s/wal", w->process->state_root);
    w->file.dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return w->file.dir_fd < 0 ? -errno : 0;
}

static void adopt_result(struct walwriter *w, const struct nx_recovery_result *result)
{
    struct nx_log_state *log = &w->shm->log;
    uint64_t carried = atomic_load_explicit(&w->shm->control.carried_start, memory_order_relaxed);

    w->file.fd = result->segment_fd;
    w->file.at = result->segment_at;
    w->file.size = result->segment_size;
    w->last = result->end;
    w->last_timestamp = result->end_timestamp;
    w->epoch = result->end.epoch > 0 ? result->end.epoch : 1;
    w->group_first = w->log.newest + 1;
    w->group_bytes = 0;
    atomic_store_explicit(&log->segment_first, result->segment_first, memory_order_relaxed);
    nx_unlinked_link(w);
    nx_epochs_publish(w->shm, &w->epochs);
    w->epochs_changed = false;
    atomic_store_explicit(&log->synced_offset, w->last.offset, memory_order_release);
    nx_log_publish(w->shm, w->last.offset, w->last.epoch, w->last.crc);
    /* Last: who waits for it (peers/look.c) reads the position next. */
    atomic_store_explicit(&log->epoch, w->epoch, memory_order_release);
    atomic_store_explicit(&log->recovered_offset, w->last.offset, memory_order_release);
    atomic_store_explicit(&log->start_offset, carried > 0 ? carried - 1 : w->last.offset,
                          memory_order_release);
}

/* Whether the log is empty, and epoch 1 of its cluster another node's to write. */
static bool begins_beside(const struct walwriter *w)
{
    const struct nx_control_block *control = &w->shm->control;

    return w->last.offset == 0 && control->first_node_id[0] != '\0' &&
           strcasecmp(control->first_node_id, control->node_id) != 0;
}

/* Why a node that isn't a replica must begin an epoch, or NULL. Its log's end may be one that others don't have, or
 * have otherwise: no other history shall be mistaken for its own. */
static const char *reason_for_epoch(const struct walwriter *w, enum nx_boot_note note)
{
    if (nx_wal_note_stands(w->file.dir_fd, NX_NOTE_RESTORED)) {
        return "this node was restored from a snapshot";
    }
    if (note == NX_BOOT_LOST) {
        return "the machine went down while wal.fsync was not always: acknowledged writes may be "
               "lost";
    }
    if (w->epochs.count > 0 && !nx_epochs_led_by(&w->epochs, w->shm->control.node_id)) {
        return "this node's configuration makes it go on alone with a log that another node led";
    }
    if (begins_beside(w)) {
        return "this node's configuration makes it begin a log in a cluster that another node began";
    }
    return NULL;
}

/* What the boot id says counts from here on, and what asked for an epoch is done. */
int nx_walwriter_settle_notes(struct walwriter *w)
{
    int rc = 0;

    w->epoch_reason = NULL;
    if (nx_wal_note_stands(w->file.dir_fd, NX_NOTE_RESTORED)) {
        rc = nx_wal_note_remove(w->file.dir_fd, NX_NOTE_RESTORED);
    }
    if (rc == 0 && w->process->config->wal.fsync != NX_FSYNC_ALWAYS) {
        rc = nx_boot_begin(w->file.dir_fd);
    } else if (rc == 0) {
        nx_boot_end(w->file.dir_fd);
    }
    return rc;
}

/* A replica need not begin an epoch: it asks its master again from what it has, and its note of a restore stands. For
 * any other node the postmaster decides, once it knows whether somebody else leads. */
static int begin_run(struct walwriter *w, enum nx_boot_note note)
{
    if (is_replica(w)) {
        if (w->process->config->wal.fsync != NX_FSYNC_ALWAYS) {
            return nx_boot_begin(w->file.dir_fd);
        }
        nx_boot_end(w->file.dir_fd);
        return 0;
    }
    w->epoch_reason = reason_for_epoch(w, note);
    return w->epoch_reason != NULL ? 0 : nx_walwriter_settle_notes(w);
}

int nx_walwriter_recover(struct walwriter *w)
{
    struct nx_recovery_result result;
    struct nx_position base;
    uint8_t cluster_id[16] = {0};
    char error[1024];
    int rc = open_wal_dir(w);

    rc = rc < 0 ? rc : read_base(w, &base);
    if (rc < 0) {
        return rc;
    }
    enum nx_boot_note note = nx_boot_look(w->file.dir_fd);

    if (w->shm->control.cluster_id[0] != '\0') {
        (void)nx_uuid_parse(w->shm->control.cluster_id, cluster_id);
    }
    note_base(w, base.offset);
    nx_log_writer_init(&w->log, w->shm, base.offset + 1);
    nx_room_start(w);

    struct nx_recovery_options options = {
        .dir_fd = w->file.dir_fd,
        .base = base,
        .cluster_id = cluster_id,
        .unsynced = note != NX_BOOT_CLEAN,
        .entry = replay_entry,
        .wait = wait_for_merge,
        .progress = replay_progress,
        .arg = w,
    };

    (void)NX_FAILPOINT(recovery_begin);
    rc = nx_recovery_run(&options, &result, error, sizeof error);
    if (rc == -ECANCELED) {
        return rc;
    }
    if (rc < 0) {
        nx_process_fatal(w->process, "%s", error);
    }
    if (result.cut_bytes > 0) {
        nx_info("cut %llu bytes of a torn last group behind offset %llu: it was never acknowledged",
                (unsigned long long)result.cut_bytes, (unsigned long long)result.end.offset);
    }
    nx_info("recovered to offset %llu, epoch %llu: %llu entries replayed behind checkpoint %llu",
            (unsigned long long)result.end.offset, (unsigned long long)result.end.epoch,
            (unsigned long long)result.replayed, (unsigned long long)base.offset);
    atomic_store_explicit(&w->shm->log.merge_forced, 0, memory_order_release);
    adopt_result(w, &result);
    nx_clock_begin(w);
    recall_quorum(w);
    return begin_run(w, note);
}
