/* Commits a gathered group: write, sync, publish, answer, ring. Runs in the walwriter. The order is the
 * promise: nobody hears of an entry before fdatasync has covered it (wal.fsync = always). */
#include "common/failpoint.h"
#include "common/latch.h"
#include "walwriter/walwriter.h"

#include <stdatomic.h>

/* Posts the answers, then rings each producer once. */
static void post_answers(struct walwriter *w)
{
    bool ring[NX_PRODUCERS] = {false};

    for (size_t i = 0; i < w->answer_count; i++) {
        const struct answer *answer = &w->answers[i];

        nx_completion_post(&w->consumers[answer->producer], &answer->completion);
        ring[answer->producer] = true;
    }
    for (unsigned i = 0; i < NX_PRODUCERS; i++) {
        if (ring[i]) {
            nx_latch_ring(w->shm, nx_producer_slot(i));
        }
    }
    w->answer_count = 0;
}

/* All that a group changes in shared memory: from here on every process sees it. */
static void publish(struct walwriter *w)
{
    struct nx_log_state *log = &w->shm->log;

    nx_unlinked_link(w);
    if (w->epochs_changed) {
        nx_epochs_publish(w->shm, &w->epochs);
        w->epochs_changed = false;
    }
    nx_log_publish(w->shm, w->last.offset, w->last.epoch, w->last.crc);
    atomic_store_explicit(&log->epoch, w->epoch, memory_order_relaxed);
    atomic_store_explicit(&log->groups,
                          atomic_load_explicit(&log->groups, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* Writes the group, and makes it as durable as wal.fsync says. */
static int store(struct walwriter *w)
{
    int rc = NX_FAILPOINT(group_unwritten);

    if (NX_PLANTED(ship_before_sync)) {
        publish(w);
        nx_latch_ring_durable(w->shm, w->log.newest);
    }
    rc = rc < 0 ? rc : nx_wal_file_write(w, w->group_first, w->log.newest);
    if (rc == 0 && !w->file.unsynced) {
        rc = nx_wal_file_mark(w);
    }
    return rc < 0 ? rc : NX_FAILPOINT(group_unpublished);
}

int nx_group_commit(struct walwriter *w)
{
    bool entries = w->group_first <= w->log.newest;

    if (entries) {
        int rc = store(w);

        if (rc < 0) {
            return rc;
        }
        publish(w);
        (void)NX_FAILPOINT(group_unanswered);
    }
    post_answers(w);
    if (entries) {
        nx_latch_ring_durable(w->shm, w->log.newest);
        nx_room_seal_if_due(w);
    }
    w->group_first = w->log.newest + 1;
    w->group_bytes = 0;
    w->group_timestamp = 0;
    return 0;
}
