/* The checkpointer: moves sealed generations of the log into LMDB, each in one durable transaction with
 * its position, and keeps the WAL directory. It alone writes the state and shm->checkpoint, makes
 * free-<n> files and removes old segments; it never touches the segment being written, the log or the
 * skip lists. It asks the walwriter to seal or to sync and is rung back.
 *
 * A position found at a start may be page cache, not disk: nothing is freed by it before one durable
 * transaction has rewritten it. A full map or disk lets it begin again through that door, each second;
 * any other error of the state ends it, and the postmaster starts it again. On STOP it finishes the
 * merge at hand: what is not merged is in the log. */
#include "checkpointer/merge.h"
#include "checkpointer/pace.h"
#include "checkpointer/scrub.h"
#include "checkpointer/segments.h"
#include "checkpointer/tidy.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/order.h"
#include "common/process.h"
#include "common/quorum.h"
#include "storage/state.h"
#include "storage/wal_note.h"
#include "storage/warming.h"

#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define RETRY_MS   1000
#define WARMING_MS 20 /* between pieces: others have work to do */

struct checkpointer {
    struct nx_process *process;
    struct nx_shm *shm;
    struct nx_checkpoint_state *published; /* in shm; ours */
    struct nx_segments segments;
    struct nx_pace pace;   /* of merges ... */
    struct nx_pause pause; /* ... and how they pause */
    struct nx_warming warming;
    struct nx_scrub scrub;
    struct nx_state *state;      /* NULL: to be opened */
    bool confirmed;              /* its position is known to be on disk */
    bool merged;                 /* since the state was opened */
    bool short_of_space;         /* the last attempt found map or disk full */
    bool noted;                  /* NX_NOTE_UNCONFIRMED stands */
    struct nx_position position; /* of the state */
    uint64_t retry_ms;           /* map or disk was full: not before this time, monotonic */
    uint64_t unmerged_since_ms;  /* 0: the log holds nothing that the state lacks */
};

static uint64_t load(const nx_atomic_u64 *field)
{
    return atomic_load_explicit(field, memory_order_acquire);
}

static void publish(nx_atomic_u64 *field, uint64_t value)
{
    atomic_store_explicit(field, value, memory_order_release);
}

static void ring_walwriter(struct checkpointer *c)
{
    nx_latch_ring(c->shm, nx_process_slot(NX_KIND_WALWRITER, 0));
}

/* ---- the state's beginning ---- */

static int open_state(struct checkpointer *c)
{
    char dir[NX_PATH_SIZE + sizeof "/state"];
    char error[1024];
    struct nx_state_options options = {.map_size = c->process->config->state.map_size,
                                       .writer = true};
    int rc;

    (void)snprintf(dir, sizeof dir, "%s/state", c->process->state_root);
    rc = nx_state_open(dir, &options, &c->state, error, sizeof error);
    if (rc == -EBADMSG) {
        nx_process_fatal(c->process, "%s", error);
    }
    if (rc < 0 && rc != -ENOSPC) {
        nx_error("%s", error);
    }
    if (rc == 0) {
        nx_state_set_pause(c->state, &c->pause);
    }
    return rc;
}

/* LMDB keeps the memory of a transaction's pages for the next one; closing gives it back. */
static void close_state(struct checkpointer *c)
{
    nx_scrub_drop(&c->scrub);
    nx_state_close(c->state);
    c->state = NULL;
    c->merged = false;
    (void)malloc_trim(0);
}

static void publish_position(struct checkpointer *c)
{
    struct nx_state_room room = nx_state_room(c->state);

    publish(&c->published->map_free, room.map_free);
    publish(&c->published->state_bytes, room.in_use);
    publish(&c->published->checkpoint_offset, c->position.offset);
    publish(&c->published->failures, 0);
    if (c->short_of_space) {
        nx_info("the state in %s/state takes entries again", c->process->state_root);
        c->short_of_space = false;
    }
}

/* What failed for want of space is tried again from the beginning, later. Says so once. */
static int space_is_short(struct checkpointer *c)
{
    if (!c->short_of_space) {
        nx_error(
            "the state in %s/state can't take more: its map of %" PRIu64
            " bytes or its disk is full; writes but deletes are refused (507) until it can. Free "
            "disk space, or raise state.map_size and restart",
            c->process->state_root, c->process->config->state.map_size);
    }
    publish(&c->published->failures, load(&c->published->failures) + 1);
    publish(&c->published->map_free, 0);
    c->short_of_space = true;
    c->confirmed = false;
    close_state(c);
    c->retry_ms = nx_now_ms() + RETRY_MS;
    nx_process_title(c->process, "waiting for space at %" PRIu64, c->position.offset);
    return 0;
}

/* The oldest generation that isn't merged, if it is sealed. */
static bool sealed_generation(struct checkpointer *c, uint64_t *ret_number, uint64_t *ret_last)
{
    uint64_t number = load(&c->published->merged_generation) + 1;
    const struct nx_generation *generation = &c->shm->generations[number % NX_GENERATIONS];

    if (load(&generation->number) != number) {
        return false;
    }
    *ret_number = number;
    *ret_last = load(&generation->last_offset);
    return *ret_last != 0;
}

/* Wakes the http workers and the snapshot process that waited for this offset, and the walwriter, which may
 * wait for room. */
static void ring_waiters(struct checkpointer *c, uint64_t before)
{
    for (unsigned i = 0; i < NX_MAX_HTTP_WORKERS; i++) {
        uint64_t wanted = load(&c->shm->http[i].merge_wanted);

        if (wanted > before && wanted <= c->position.offset) {
            nx_latch_ring(c->shm, nx_process_slot(NX_KIND_HTTP, i));
        }
    }
    nx_latch_ring(c->shm, nx_process_slot(NX_KIND_SNAPSHOT, 0));
    ring_walwriter(c);
}

static int confirm(struct checkpointer *c)
{
    uint64_t before = load(&c->published->checkpoint_offset);
    uint64_t number;
    uint64_t last;
    int rc = c->state == NULL ? open_state(c) : 0;

    rc = rc < 0 ? rc : nx_state_confirm(c->state, &c->position);
    if (rc == -ENOSPC || (rc == -EIO && nx_segments_disk_full(&c->segments))) {
        return space_is_short(c);
    }
    if (rc < 0) {
        return rc;
    }
    c->confirmed = true;
    c->retry_ms = 0;
    publish(&c->published->checkpoint_offset, c->position.offset);
    /* After a merge that found no space the walwriter hears of some only when one has succeeded. */
    if (!c->short_of_space || !sealed_generation(c, &number, &last)) {
        publish_position(c);
    }
    ring_waiters(c, before); /* who came before we knew where the state stands */
    nx_process_title(c->process, "idle at %" PRIu64, c->position.offset);
    return 0;
}

/* ---- merging ---- */

static bool retrying(const struct checkpointer *c)
{
    return c->retry_ms != 0 && nx_now_ms() < c->retry_ms;
}

/* How far may be merged: what a failover could take back stays in the log, unless that has no room left. */
static uint64_t mergeable(const struct checkpointer *c)
{
    uint64_t synced = load(&c->shm->log.synced_offset);
    uint64_t committed = nx_committed_offset(c->shm);
    bool forced = atomic_load_explicit(&c->shm->log.merge_forced, memory_order_acquire) != 0;

    return forced || synced < committed ? synced : committed;
}

/* The highest offset that an http worker or the snapshot process wants in the state. */
static uint64_t merge_wanted(const struct checkpointer *c)
{
    uint64_t wanted = load(&c->shm->snapshot.merge_wanted);

    for (unsigned i = 0; i < NX_MAX_HTTP_WORKERS; i++) {
        uint64_t offset = load(&c->shm->http[i].merge_wanted);

        wanted = nx_higher(wanted, offset);
    }
    return wanted;
}

/* The merge at hand is waited for: by somebody who wants it in the state, by who found no room in the log, or soon by
 * the log itself, which has one more generation sealed and no other free. */
static bool merge_urgent(void *arg)
{
    struct checkpointer *c = arg;
    const struct nx_log_state *log = &c->shm->log;

    return merge_wanted(c) > c->position.offset ||
           atomic_load_explicit(&log->room_awaited, memory_order_acquire) != 0 ||
           atomic_load_explicit(&log->merge_forced, memory_order_acquire) != 0 ||
           load(&log->generation) >= load(&c->published->merged_generation) + NX_GENERATIONS;
}

/* The segment that is being made is waited for, or the merge behind it is. */
static bool segment_urgent(void *arg)
{
    struct checkpointer *c = arg;

    return nx_segments_urgent(&c->segments) || merge_urgent(c);
}

/* While a merge takes its time. */
static void tend_if_due(void *arg)
{
    struct checkpointer *c = arg;

    if (nx_segments_due(&c->segments)) {
        (void)nx_segments_tend(&c->segments, c->position.offset);
    }
}

/* What can be merged of the oldest sealed generation: all of it; or, where somebody waits for it and its end
 * isn't committed yet, the part that is. */
static bool merge_possible(struct checkpointer *c, uint64_t *ret_number, uint64_t *ret_last)
{
    uint64_t limit = mergeable(c);

    if (!c->confirmed || !sealed_generation(c, ret_number, ret_last)) {
        return false;
    }
    if (*ret_last <= limit) {
        return true;
    }
    *ret_last = limit;
    return limit > c->position.offset && merge_wanted(c) > c->position.offset;
}

/* Before a merge of what the quorum's word has not come of yet: readers must not take the state for
 * committed, also not after a restart. 0 or -errno. */
static int note_unconfirmed(struct checkpointer *c, uint64_t last)
{
    int rc = 0;

    if (last <= nx_committed_offset(c->shm)) {
        return 0;
    }
    if (!c->noted) {
        rc = nx_wal_note_make(c->segments.dir_fd, NX_NOTE_UNCONFIRMED,
                              "the state holds entries that the quorum may lack\n");
    }
    if (rc == 0) {
        c->noted = true;
        publish(&c->published->unconfirmed_offset, last);
    }
    return rc;
}

/* All that the state holds is committed again. */
static void forget_unconfirmed(struct checkpointer *c)
{
    if (c->noted && c->position.offset <= nx_committed_offset(c->shm)) {
        c->noted = nx_wal_note_remove(c->segments.dir_fd, NX_NOTE_UNCONFIRMED) < 0;
    }
}

/* Merges one generation up to `last`; one that an earlier life merged and didn't get to publish is only
 * published. */
static int merge(struct checkpointer *c, uint64_t number, uint64_t last)
{
    struct nx_merge_result result = {.position = c->position};
    uint64_t before = load(&c->published->checkpoint_offset);
    uint64_t began_us = nx_now_us();
    int rc = 0;

    nx_process_title(c->process, "merging generation %" PRIu64, number);
    if (c->state == NULL) {
        rc = open_state(c);
    }
    if (rc == 0) {
        nx_state_clear_dead_readers(c->state);
    }
    if (rc == 0 && last > c->position.offset) {
        nx_pace_begin(&c->pace);
        rc = note_unconfirmed(c, last);
        rc = rc < 0 ? rc : nx_merge_generation(c->shm, c->state, number, last, &result);
    }
    if (rc == -ENOSPC || (rc == -EIO && nx_segments_disk_full(&c->segments))) {
        return space_is_short(c); /* LMDB says EIO of a write that was cut short by a full disk */
    }
    if (rc < 0) {
        nx_error("merging generation %" PRIu64 " (entries up to %" PRIu64
                 ") into %s/state at %" PRIu64 " failed: %s; the log keeps them",
                 number, last, c->process->state_root, c->position.offset, strerrordesc_np(-rc));
        return rc;
    }
    c->position = result.position;
    c->merged = true;
    c->unmerged_since_ms = 0;
    publish_position(c);
    if (last >= load(&c->shm->generations[number % NX_GENERATIONS].last_offset)) {
        publish(&c->published->merged_generation, number);
    }
    forget_unconfirmed(c);
    ring_waiters(c, before);
    nx_debug("merged generation %" PRIu64 " up to %" PRIu64 ": %" PRIu64 " keys of %" PRIu64
             " versions in %" PRIu64 " us",
             number, c->position.offset, result.keys, result.versions, nx_now_us() - began_us);
    nx_process_title(c->process, "idle at %" PRIu64, c->position.offset);
    return 0;
}

/* ---- asking the walwriter ---- */

/* Milliseconds until the checkpoint interval is over, or -1: nothing to merge, or on its way. */
static int interval_wait(const struct checkpointer *c)
{
    uint64_t interval_ms = c->process->config->state.checkpoint_interval * 1000;
    uint64_t now = nx_now_ms();

    if (c->unmerged_since_ms == 0) {
        return -1;
    }
    return now - c->unmerged_since_ms >= interval_ms
               ? 0
               : (int)(c->unmerged_since_ms + interval_ms - now);
}

/* What must be sealed for what is wanted; 0: nothing. */
static uint64_t seal_needed(const struct checkpointer *c, bool sealed_waits)
{
    uint64_t durable = load(&c->shm->log.durable_offset);
    uint64_t wanted = merge_wanted(c);

    if (interval_wait(c) == 0 && !sealed_waits) {
        wanted = durable;
    }
    wanted = nx_lower(wanted, durable);
    return wanted > c->position.offset && wanted > load(&c->published->seal_wanted) ? wanted : 0;
}

static uint64_t sync_needed(const struct checkpointer *c, bool sealed_waits, uint64_t last)
{
    bool needed = sealed_waits && last > load(&c->shm->log.synced_offset) &&
                  last > load(&c->published->sync_wanted);

    return needed ? last : 0;
}

/* The interval runs from the first entry on that the state lacks. */
static void watch_interval(struct checkpointer *c)
{
    bool unmerged = load(&c->shm->log.durable_offset) > c->position.offset;

    if (!unmerged) {
        c->unmerged_since_ms = 0;
    } else if (c->unmerged_since_ms == 0 || interval_wait(c) == 0) {
        c->unmerged_since_ms = nx_now_ms();
    }
}

static void ask_walwriter(struct checkpointer *c)
{
    uint64_t number;
    uint64_t last = 0;
    bool sealed_waits = sealed_generation(c, &number, &last);
    uint64_t seal = seal_needed(c, sealed_waits);
    uint64_t sync = sync_needed(c, sealed_waits, last);

    if (seal > 0) {
        publish(&c->published->seal_wanted, seal);
    }
    if (sync > 0) {
        publish(&c->published->sync_wanted, sync);
    }
    if (seal > 0 || sync > 0) {
        ring_walwriter(c);
    }
}

/* ---- the loop ---- */

/* One turn. *ret_more: there is more to do at once. */
static int turn(struct checkpointer *c, bool *ret_more)
{
    uint64_t number;
    uint64_t last;
    int rc = 0;

    if (!c->confirmed) {
        rc = retrying(c) ? 0 : confirm(c);
    } else if (merge_possible(c, &number, &last)) {
        rc = merge(c, number, last);
    }
    if (rc < 0) {
        return rc;
    }
    if (c->confirmed) {
        ask_walwriter(c);
        watch_interval(c);
        *ret_more = nx_segments_tend(&c->segments, c->position.offset);
    }
    return 0;
}

/* Whether a turn would do something. */
static bool work_waits(struct checkpointer *c)
{
    uint64_t number;
    uint64_t last = 0;
    bool sealed_waits;

    if (!c->confirmed) {
        return !retrying(c);
    }
    sealed_waits = sealed_generation(c, &number, &last);
    return merge_possible(c, &number, &last) || seal_needed(c, sealed_waits) > 0 ||
           sync_needed(c, sealed_waits, last) > 0 || nx_segments_due(&c->segments) ||
           (c->unmerged_since_ms == 0 && load(&c->shm->log.durable_offset) > c->position.offset);
}

static int retry_wait(const struct checkpointer *c)
{
    uint64_t now = nx_now_ms();

    if (c->retry_ms == 0) {
        return -1;
    }
    return now >= c->retry_ms ? 0 : (int)(c->retry_ms - now);
}

/* The quorum's offset that would let a sealed generation be merged. */
static uint64_t quorum_awaited(struct checkpointer *c)
{
    uint64_t number;
    uint64_t last;

    return c->confirmed && nx_quorum_rules(c->shm) && sealed_generation(c, &number, &last)
               ? last
               : NX_WAKE_NEVER;
}

/* The durable offset that there would be work at: the end of a sealed generation, which may have been sealed
 * within the group that is being written; or, while there is nothing to merge, the first entry. */
static uint64_t durable_awaited(struct checkpointer *c)
{
    uint64_t number;
    uint64_t last;

    if (c->confirmed && sealed_generation(c, &number, &last) &&
        last > load(&c->shm->log.durable_offset)) {
        return last;
    }
    return c->confirmed && c->unmerged_since_ms == 0 ? c->position.offset + 1 : NX_WAKE_NEVER;
}

/* True: there is more of it. */
static bool scrub(struct checkpointer *c)
{
    return c->confirmed && c->state != NULL && nx_scrub_step(&c->scrub, c->process, c->state);
}

static void sleep_until_rung(struct checkpointer *c)
{
    struct pollfd control = {.fd = c->process->control.fd, .events = POLLIN};
    int timeout = nx_shorter_wait(retry_wait(c), nx_segments_wait(&c->segments));

    timeout = nx_shorter_wait(timeout, c->confirmed ? interval_wait(c) : -1);
    timeout = nx_shorter_wait(timeout, nx_warming_step(&c->warming) ? WARMING_MS : -1);
    timeout = nx_shorter_wait(timeout, scrub(c) ? WARMING_MS : -1);
    if (c->merged && c->scrub.over) {
        close_state(c);
    }
    nx_latch_prepare_both(c->shm, c->process->slot, durable_awaited(c), quorum_awaited(c));
    if (!work_waits(c)) {
        (void)nx_latch_poll(c->process->slot, &control, 1, timeout);
    }
    nx_latch_cancel(c->shm, c->process->slot);
    if (control.revents != 0) {
        (void)nx_process_control(c->process, NULL, 0);
    }
}

static int run(struct checkpointer *c)
{
    while (!nx_process_stopping(c->process)) {
        bool more = false;
        int rc = turn(c, &more);

        if (rc < 0) {
            return rc;
        }
        /* What took its time may have heard the postmaster meanwhile. */
        if (!more && !nx_process_stopping(c->process)) {
            sleep_until_rung(c);
        }
    }
    return 0;
}

int nx_checkpointer_main(struct nx_process *process)
{
    struct checkpointer c = {
        .process = process,
        .shm = process->shm,
        .published = &process->shm->checkpoint,
        .pace = {.process = process, .urgent = merge_urgent, .meanwhile = tend_if_due, .arg = &c},
        .pause = nx_pace_pause(&c.pace),
        .warming = NX_WARMING_NONE,
    };
    int rc = nx_segments_open(&c.segments, process);

    c.segments.pace = (struct nx_pace){.process = process, .urgent = segment_urgent, .arg = &c};
    if (rc < 0) {
        nx_error("%s/wal can't be opened: %s", process->state_root, strerrordesc_np(-rc));
        return NX_EXIT_FAILURE;
    }
    c.noted = nx_wal_note_stands(c.segments.dir_fd, NX_NOTE_UNCONFIRMED);
    nx_process_title(process, "starting");
    rc = confirm(&c);
    if (rc == 0) {
        nx_process_ready(process);
        nx_tidy(process, &c.warming);
        rc = run(&c);
    }
    nx_state_close(c.state);
    nx_segments_close(&c.segments);
    nx_warming_end(&c.warming);
    if (rc < 0) {
        publish(&c.published->failures, load(&c.published->failures) + 1);
        nx_error("the checkpointer ends: the state in %s/state can't be written: %s",
                 process->state_root, strerrordesc_np(-rc));
        return NX_EXIT_FAILURE;
    }
    return NX_EXIT_OK;
}
