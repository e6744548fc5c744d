/* Jobs: processes that are started because another one asks, do one thing and end. Runs in the postmaster.
 *
 * A snapshot that is wanted while one is being made joins it, unless that one is about to be named: then the
 * next begins as soon as it has ended. A restore is wanted by the walreceiver; what it has made replaces
 * the node's data by the crash path. */
#include "common/error_codes.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/snapshot_job.h"
#include "postmaster/postmaster.h"
#include "storage/incoming.h"
#include "storage/snapshot_files.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uuid.h>

#define SWITCH_RETRY_MS 2000 /* of a full disk: each attempt ends all processes */

static bool is_running(const struct nx_postmaster *pm, enum nx_process_kind kind)
{
    return pm->children[nx_process_slot(kind, 0)].pid != 0;
}

/* ---- snapshots ---- */

static void answer(struct nx_postmaster *pm, unsigned slot, uint64_t ticket, int rc)
{
    const struct nx_child *child = &pm->children[slot];

    if (child->pid != 0 && child->control_fd >= 0) {
        (void)nx_control_send(child->control_fd, NX_CONTROL_DONE, rc, ticket,
                              rc < 0 ? strerrordesc_np(-rc) : pm->shm->snapshot.id);
    }
}

/* The fields of the job that begins; snapshot_job.h tells how they are read. */
static void fill_job(struct nx_postmaster *pm, enum nx_snapshot_reason reason)
{
    struct nx_snapshot_state *state = &pm->shm->snapshot;
    uuid_t binary;

    atomic_store_explicit(&state->stage, NX_SNAPSHOT_NONE, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    uuid_generate_random(binary);
    uuid_unparse_lower(binary, state->id);
    state->text[0] = '\0';
    atomic_store_explicit(&state->code, 0, memory_order_relaxed);
    atomic_store_explicit(&state->reason, (uint32_t)reason, memory_order_relaxed);
    atomic_store_explicit(&state->wal_offset, 0, memory_order_relaxed);
    atomic_store_explicit(&state->written, 0, memory_order_relaxed);
    atomic_store_explicit(&state->keys_done, 0, memory_order_relaxed);
    atomic_store_explicit(&state->keys_total, 0, memory_order_relaxed);
    atomic_store_explicit(&state->total_size, 0, memory_order_relaxed);
    atomic_store_explicit(&state->job, atomic_load_explicit(&state->job, memory_order_relaxed) + 1,
                          memory_order_relaxed);
    atomic_store_explicit(&state->stage, NX_SNAPSHOT_MERGING, memory_order_release);
}

static void note_asked(struct nx_postmaster *pm, enum nx_snapshot_reason reason)
{
    if (reason == NX_SNAPSHOT_REQUEST) {
        atomic_store_explicit(&pm->shm->control.snapshot_asked,
                              atomic_load_explicit(&pm->shm->snapshot.job, memory_order_relaxed),
                              memory_order_release);
        atomic_thread_fence(memory_order_seq_cst); /* before the stage is looked at */
    }
}

void nx_jobs_end_snapshot(struct nx_postmaster *pm, const char *how)
{
    struct nx_snapshot_state *state = &pm->shm->snapshot;
    uint32_t stage = atomic_load_explicit(&state->stage, memory_order_acquire);

    if (stage != NX_SNAPSHOT_NONE && stage < NX_SNAPSHOT_DONE) {
        (void)snprintf(state->text, sizeof state->text,
                       "The process that made the snapshot %s; try again.", how);
        atomic_store_explicit(&state->code, NX_ERROR_INTERNAL, memory_order_relaxed);
        atomic_store_explicit(&state->stage, NX_SNAPSHOT_FAILED, memory_order_release);
        nx_jobs_clean(pm);
    }
    atomic_store_explicit(&state->hold_offset, UINT64_MAX, memory_order_release);
    nx_snapshot_job_ring(pm->shm);
}

static int begin_snapshot(struct nx_postmaster *pm, enum nx_snapshot_reason reason)
{
    int rc;

    fill_job(pm, reason);
    note_asked(pm, reason);
    rc = nx_launch(pm, nx_process_slot(NX_KIND_SNAPSHOT, 0), -1);
    if (rc < 0) {
        nx_error("no process for a snapshot: %s", strerrordesc_np(-rc));
        nx_jobs_end_snapshot(pm, "could not be started");
    }
    return rc;
}

static int join_snapshot(struct nx_postmaster *pm, enum nx_snapshot_reason reason)
{
    note_asked(pm, reason);
    return atomic_load_explicit(&pm->shm->snapshot.stage, memory_order_acquire) <
                   NX_SNAPSHOT_CLOSING
               ? 0
               : -EALREADY;
}

void nx_jobs_want_snapshot(struct nx_postmaster *pm,
                           unsigned slot,
                           enum nx_snapshot_reason reason,
                           uint64_t ticket)
{
    struct nx_snapshot_wishes *wishes = &pm->wishes;
    int rc;

    if (pm->life != NX_LIFE_SERVING) {
        answer(pm, slot, ticket, -EAGAIN);
        return;
    }
    rc = is_running(pm, NX_KIND_SNAPSHOT) ? join_snapshot(pm, reason) : begin_snapshot(pm, reason);
    if (rc != -EALREADY) {
        answer(pm, slot, ticket, rc);
    } else if (wishes->count == NX_MOST_WISHES) {
        answer(pm, slot, ticket, -EAGAIN);
    } else {
        wishes->list[wishes->count++] = (struct nx_snapshot_wish){slot, reason, ticket};
    }
}

void nx_jobs_run_due(struct nx_postmaster *pm)
{
    struct nx_snapshot_wishes wishes = pm->wishes;
    uint64_t due = nx_jobs_due_ms(pm);

    if (pm->life != NX_LIFE_SERVING || is_running(pm, NX_KIND_SNAPSHOT)) {
        return;
    }
    pm->wishes.count = 0;
    for (unsigned i = 0; i < wishes.count; i++) {
        nx_jobs_want_snapshot(pm, wishes.list[i].slot, wishes.list[i].reason,
                              wishes.list[i].ticket);
    }
    if (wishes.count == 0 && due != 0 && nx_now_ms() >= due) {
        pm->scheduled_ms = nx_now_ms();
        (void)begin_snapshot(pm, NX_SNAPSHOT_SCHEDULE);
    }
}

uint64_t nx_jobs_due_ms(const struct nx_postmaster *pm)
{
    uint64_t interval_ms = pm->config.snapshot.interval * 1000;

    return interval_ms == 0 || is_running(pm, NX_KIND_SNAPSHOT) ? 0
                                                                : pm->scheduled_ms + interval_ms;
}

/* ---- restores ---- */

void nx_jobs_want_restore(struct nx_postmaster *pm)
{
    int rc;

    if (pm->life != NX_LIFE_SERVING || pm->replication_stopped || is_running(pm, NX_KIND_RESTORE) ||
        pm->change.kind != NX_ROLE_CHANGE_NONE || pm->config.replication.role != NX_ROLE_REPLICA) {
        return; /* a running one sees for itself that there is another transfer */
    }
    rc = nx_launch(pm, nx_process_slot(NX_KIND_RESTORE, 0), -1);
    if (rc < 0) {
        nx_error("no process to restore a snapshot: %s", strerrordesc_np(-rc));
    }
}

void nx_jobs_end_restore(struct nx_postmaster *pm)
{
    struct nx_restore_state *state = &pm->shm->restore;
    uint32_t stage = atomic_load_explicit(&state->stage, memory_order_acquire);

    uint64_t transfer = atomic_load_explicit(&pm->shm->transfer.number, memory_order_acquire);

    /* Had it told us that all is ready, that would have been heard before its end. */
    if (stage == NX_RESTORE_LOADING || stage == NX_RESTORE_READY) {
        atomic_store_explicit(&state->stage, NX_RESTORE_NONE, memory_order_release);
    }
    nx_latch_ring(pm->shm, nx_process_slot(NX_KIND_WALRECEIVER, 0));
    if (transfer != 0 && transfer != atomic_load_explicit(&state->number, memory_order_relaxed)) {
        nx_jobs_want_restore(pm); /* asked for while the last one was still ending */
    }
}

/* Whether the transfer that was restored is still wanted: the walreceiver may have found meanwhile that it can go
 * on with what the node has, and may have acknowledged more of it. */
static bool still_wanted(const struct nx_postmaster *pm)
{
    uint64_t number = atomic_load_explicit(&pm->shm->transfer.number, memory_order_acquire);

    return number != 0 &&
           number == atomic_load_explicit(&pm->shm->restore.number, memory_order_relaxed);
}

void nx_jobs_switch(struct nx_postmaster *pm, const char *what)
{
    /* Too early: the walreceiver, which hears of no switch, has it restored once more. */
    if (pm->life != NX_LIFE_SERVING || pm->replication_stopped || !still_wanted(pm) ||
        pm->change.kind != NX_ROLE_CHANGE_NONE || nx_now_ms() < pm->restored.due_ms ||
        sscanf(what, "%31s %36s", pm->restored.root, pm->restored.cluster_id) != 2) {
        return;
    }
    nx_info("the full sync is complete: all processes are ended, %s replaces %s", pm->restored.root,
            pm->dir.root);
    nx_postmaster_crash(pm, 0);
}

/* Of the data that comes. A snapshot is enough for the readers of a node that had nothing; one of offset 0 is none, and
 * the log behind it is to bring all that its first master had. */
static struct nx_sync_goal goal_of_switch(const struct nx_postmaster *pm)
{
    struct nx_sync_goal goal = nx_sync_goal_read(&pm->shm->receiver.goal);
    uint64_t snapshot = atomic_load_explicit(&pm->shm->transfer.wal_offset, memory_order_relaxed);

    if (snapshot != 0 && goal.shown > goal.offset) {
        goal.shown = goal.offset;
        goal.shown_epoch = goal.epoch;
    }
    return goal;
}

/* The snapshot that the new data came by has done its work. */
static void retire_incoming(const struct nx_postmaster *pm)
{
    int rc = nx_snapshot_in_dir(pm->dir.path, nx_incoming_retire);

    if (rc < 0) {
        nx_warn("full sync: its snapshot in %s/" NX_SNAPSHOT_DIR " can't be renamed: %s",
                pm->dir.path, strerrordesc_np(-rc));
    }
}

/* All children are gone. */
bool nx_jobs_finish_switch(struct nx_postmaster *pm)
{
    struct nx_identity identity = pm->dir.identity;
    char error[512] = "";
    int rc;

    if (pm->restored.root[0] == '\0' || !still_wanted(pm)) {
        pm->restored.root[0] = '\0';
        return false;
    }
    memcpy(identity.cluster_id, pm->restored.cluster_id, sizeof identity.cluster_id);
    identity.first_node_id[0] = '\0'; /* the history that comes with the data says it */
    identity.note.epoch = 0;
    identity.follow.force = false;
    identity.goal = goal_of_switch(pm);
    identity.replica_count = 0; /* whoever came to this node as a master had its old history */
    rc = nx_data_dir_switch(&pm->dir, pm->restored.root, &identity, error, sizeof error);
    if (rc == -ENOSPC || rc == -EDQUOT) {
        nx_warn(
            "full sync: %s: free disk space on this replica; the old data is served on, and the "
            "full sync tried again",
            error);
        (void)nx_data_dir_discard(pm->dir.path, pm->restored.root);
        pm->restored.root[0] = '\0';
        pm->restored.due_ms = nx_now_ms() + SWITCH_RETRY_MS;
        return false;
    }
    pm->restored.root[0] = '\0';
    pm->restored.due_ms = 0;
    if (rc < 0) {
        nx_error("the server stops: %s", error);
        nx_postmaster_kill(pm, NX_EXIT_PERSON);
    } else {
        retire_incoming(pm);
        nx_known_load(pm);
    }
    return rc == 0;
}

void nx_jobs_clean(const struct nx_postmaster *pm)
{
    int rc = 0;

    if (!is_running(pm, NX_KIND_SNAPSHOT)) { /* its file is no leftover */
        rc = nx_snapshot_in_dir(pm->dir.path, nx_snapshot_clean);
    }
    if (rc == 0 && pm->config.replication.role != NX_ROLE_REPLICA) {
        rc = nx_snapshot_in_dir(pm->dir.path, nx_incoming_remove);
    }
    if (rc < 0) {
        nx_warn("what is left of snapshots in %s/" NX_SNAPSHOT_DIR " can't be removed: %s",
                pm->dir.path, strerrordesc_np(-rc));
    }
}
