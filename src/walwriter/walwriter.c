/* The walwriter: the one place where the order of writes is decided. It owns the WAL files, the shared
 * log and the generations' skip lists; it reads LMDB and never writes it. It ends on STOP after a last
 * drain, commit and fdatasync, or by dying when the disk fails it: then the postmaster makes fresh
 * shared memory and recovery begins. */
#include "walwriter/walwriter.h"

#include "common/failpoint.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/order.h"
#include "common/quorum.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A hop over a doorbell costs some 30 µs across processors; so it looks about that long for the next
 * submission after a group before it sleeps. An idle node has no groups, so it never spins. */
#define SPIN_US 30

/* Turns without a sleep between looks at the control channel. */
#define CONTROL_EVERY 256

/* How often a replica looks again whether its full disk has space for a segment. */
#define FULL_DISK_RETRY_MS 1000

/* The checkpointer merges, and the walreceiver acknowledges, only what is synced. */
static bool sync_wanted(struct walwriter *w)
{
    uint64_t synced = atomic_load_explicit(&w->shm->log.synced_offset, memory_order_relaxed);

    return w->file.unsynced &&
           (atomic_load_explicit(&w->shm->checkpoint.sync_wanted, memory_order_acquire) > synced ||
            atomic_load_explicit(&w->shm->receiver.sync_wanted, memory_order_acquire) > synced);
}

static bool work_waits(struct walwriter *w)
{
    if (sync_wanted(w) || nx_room_seal_possible(w) || nx_expire_due(w)) {
        return true;
    }
    return w->has_held ? nx_room_free_possible(w) : nx_group_waiting(w);
}

/* Watches the rings for a moment. True when something came. */
static bool spin(struct walwriter *w)
{
    uint64_t end = nx_now_us() + SPIN_US;

    do {
        if (work_waits(w)) {
            return true;
        }
        __builtin_ia32_pause();
    } while (nx_now_us() < end);
    return false;
}

/* How long a stalled submission still waits before it is refused; -1: for ever, or nothing is stalled.
 * A frame from the master is never refused: the walreceiver holds back reading. */
static int stall_wait(struct walwriter *w)
{
    uint64_t limit = w->process->config->http.request_timeout_ms;
    uint64_t now = nx_now_ms();

    if (!w->has_held) {
        return -1;
    }
    if (w->held.kind != NX_SUBMIT_WRITE) {
        return w->held_for == NO_SEGMENT ? FULL_DISK_RETRY_MS : -1;
    }
    if (w->stalled_since_ms == 0) {
        w->stalled_since_ms = now;
    }
    return now - w->stalled_since_ms >= limit ? 0 : (int)(limit - (now - w->stalled_since_ms));
}

/* One order of the postmaster at a time. */
static void hear(struct walwriter *w)
{
    if (w->order.type == 0 && nx_process_control(w->process, &w->order, 1) == 0) {
        w->order.type = 0;
    }
}

static void sleep_until_rung(struct walwriter *w)
{
    struct pollfd control = {.fd = w->process->control.fd, .events = POLLIN};
    int timeout = nx_shorter_wait(stall_wait(w), nx_wal_file_sync_wait(w));

    timeout = nx_shorter_wait(timeout, nx_wal_file_note_wait(w));
    timeout = nx_shorter_wait(timeout, nx_expire_wait(w));
    nx_latch_prepare(w->shm, w->process->slot, NX_WAKE_NEVER);
    if (!work_waits(w) && w->order.type == 0) {
        nx_latch_poll(w->process->slot, &control, 1, timeout);
    }
    nx_latch_cancel(w->shm, w->process->slot);
    if (control.revents != 0) {
        hear(w);
    }
}

/* The held submission needs a new segment; the group before it is committed. */
static int begin_segment(struct walwriter *w, bool *ret_idle)
{
    static struct nx_log_limit full_disk;
    int rc = nx_wal_file_switch(w, w->wanted_length);

    if (rc != -ENOSPC) {
        return rc;
    }
    nx_log_limited(&full_disk, NX_LOG_ERROR,
                   "no space for a new WAL segment in %s/wal: writes wait or are refused (507 "
                   "disk_full) until there is; free some space",
                   w->process->state_root);
    nx_group_refuse(w, NX_SUBMIT_DISK_FULL);
    *ret_idle = true;
    return 0;
}

/* True: it has changed. */
static bool publish_flag(nx_atomic_u32 *flag, bool now)
{
    bool changed = atomic_load_explicit(flag, memory_order_relaxed) != (now ? 1u : 0u);

    if (changed) {
        atomic_store_explicit(flag, now ? 1 : 0, memory_order_release);
    }
    return changed;
}

/* Tells the checkpointer that somebody waits for the room that a merge makes; and of an entry of the master, that it
 * can't be refused: the word that the quorum has what fills the log may stand behind it in the same stream. */
static void publish_stall(struct walwriter *w)
{
    bool stalled = w->has_held && w->held_for == NO_ROOM;
    bool changed = publish_flag(&w->shm->log.room_awaited, stalled);

    if (publish_flag(&w->shm->log.merge_forced, stalled && w->held.kind == NX_SUBMIT_FRAME) ||
        changed) {
        nx_latch_ring(w->shm, nx_process_slot(NX_KIND_CHECKPOINTER, 0));
    }
}

/* What else the checkpointer and the clock ask for. */
static int background(struct walwriter *w)
{
    int rc = nx_wal_file_note_quorum(w);

    if (rc == 0 && (sync_wanted(w) || nx_wal_file_sync_wait(w) == 0)) {
        rc = nx_wal_file_sync(w);
        rc = rc < 0 ? rc : nx_wal_file_mark(w);
        nx_latch_ring(w->shm, nx_process_slot(NX_KIND_CHECKPOINTER, 0));
        nx_latch_ring(w->shm, nx_process_slot(NX_KIND_WALRECEIVER, 0));
    }
    nx_room_seal_if_due(w);
    if (stall_wait(w) == 0) {
        /* What fills the log can't be merged while the quorum lacks it. */
        nx_group_refuse(w, nx_committed_offset(w->shm) < w->last.offset ? NX_SUBMIT_NO_QUORUM
                                                                        : NX_SUBMIT_OVERLOADED);
    }
    return rc;
}

/* One turn: gather what waits, commit it, begin a segment if that is what stopped the gathering.
 * *ret_idle: nothing was done. */
static int turn(struct walwriter *w, bool *ret_idle)
{
    int rc = background(w);

    if (rc < 0) {
        return rc;
    }
    nx_group_drain(w);
    rc = nx_expire_step(w);
    *ret_idle = w->group_first > w->log.newest && w->answer_count == 0;
    rc = rc < 0 ? rc : nx_group_commit(w);
    while (rc == 0 && w->has_held && w->held_for != NO_ROOM) {
        *ret_idle = false;
        if (w->held_for == NO_SEGMENT) {
            rc = begin_segment(w, ret_idle);
        }
        if (rc == 0 && !*ret_idle) {
            nx_group_drain(w); /* at once: nobody would ring for what is held */
        }
        rc = rc < 0 ? rc : nx_group_commit(w); /* a refusal is posted too */
        if (*ret_idle) {
            break;
        }
    }
    publish_stall(w);
    return rc;
}

/* All that the walreceiver has submitted is committed, or finds no room for now. */
static bool settled(const struct walwriter *w)
{
    return w->has_held || !nx_consumer_waiting(&w->consumers[NX_PRODUCERS - 1]);
}

static int run(struct walwriter *w)
{
    unsigned turns = 0;

    while (!nx_process_stopping(w->process)) {
        bool idle = true;
        int rc = turn(w, &idle);

        if (rc == 0 && w->order.type != 0 && settled(w)) {
            rc = nx_epoch_obey(w);
        }
        if (rc < 0) {
            return rc;
        }
        if (idle || !spin(w)) {
            sleep_until_rung(w);
        }
        if (++turns % CONTROL_EVERY == 0) {
            hear(w);
        }
    }
    return 0;
}

/* The last turn: what stands in the rings is committed, and all of it is synced. */
static int finish(struct walwriter *w)
{
    bool idle = false;
    int rc = 0;

    while (rc == 0 && !idle) {
        rc = turn(w, &idle);
    }
    if (rc == 0 && w->file.unsynced) {
        rc = nx_wal_file_sync(w);
    }
    if (rc == 0 && w->last.offset > 0) {
        rc = nx_wal_file_mark(w); /* with what the quorum has by now */
    }
    if (rc == 0) {
        nx_clock_note(w);
        nx_boot_end(w->file.dir_fd);
    }
    return rc;
}

int nx_walwriter_main(struct nx_process *process)
{
    static struct walwriter w;
    int rc;

    w = (struct walwriter){
        .process = process, .shm = process->shm, .file = {.dir_fd = -1, .fd = -1, .mark_fd = -1}};
    w.answers = calloc(NX_GROUP_MAX_ANSWERS, sizeof *w.answers);
    if (w.answers == NULL) {
        nx_error("no memory for the walwriter");
        return NX_EXIT_FAILURE;
    }
    for (unsigned i = 0; i < NX_PRODUCERS; i++) {
        nx_consumer_attach(&w.consumers[i], w.shm, i);
    }
    nx_process_title(process, "recovering");
    rc = NX_FAILPOINT(walwriter_start);
    rc = rc < 0 ? rc : nx_walwriter_recover(&w);
    if (rc == 0) {
        (void)nx_control_send(process->control.fd, NX_CONTROL_READY, 0, w.epoch_reason != NULL,
                              w.epoch_reason);
        nx_process_title(process, "epoch %llu", (unsigned long long)w.epoch);
        rc = run(&w);
        rc = rc < 0 ? rc : finish(&w);
    }
    free(w.answers);
    nx_lookup_end(&w);
    nx_expire_end(&w);
    if (w.state != NULL) {
        nx_state_close(w.state);
    }
    if (rc < 0 && rc != -ECANCELED) {
        nx_error("the log in %s/wal failed: %s; recovery will read what is on disk",
                 process->state_root, strerrordesc_np(-rc));
        return NX_EXIT_FAILURE;
    }
    return NX_EXIT_OK;
}
