/* Runs in walsenders (counting), http workers (looking), the walreceiver (hearing) and whoever reads. Owns
 * nothing; see quorum.h. */
#include "common/quorum.h"

#include "common/failpoint.h"
#include "common/latch.h"

#include <string.h>

uint64_t nx_silence_limit_ms(const struct nx_config *config)
{
    return (uint64_t)config->replication.heartbeat_ms *
           config->replication.missed_heartbeats_threshold;
}

/* ---- connected replicas ---- */

/* Copies a slot. False: nobody is there, or another session began meanwhile, which says so itself. */
static bool copy_slot(const struct nx_replica_slot *slot,
                      uint64_t now_ms,
                      uint64_t silence_limit_ms,
                      struct nx_replica_view *ret_view)
{
    uint64_t session = atomic_load_explicit(&slot->session, memory_order_acquire);
    uint32_t state = atomic_load_explicit(&slot->state, memory_order_acquire);
    uint64_t heard = atomic_load_explicit(&slot->heard_ms, memory_order_relaxed);

    if (session == 0 || state == NX_REPLICA_NONE) {
        return false;
    }
    memcpy(ret_view->id, slot->id, sizeof ret_view->id);
    ret_view->id[sizeof ret_view->id - 1] = '\0';
    ret_view->session = session;
    ret_view->ack_offset = atomic_load_explicit(&slot->ack_offset, memory_order_acquire);
    ret_view->confirmed_us = atomic_load_explicit(&slot->confirmed_us, memory_order_relaxed);
    ret_view->counts =
        state == NX_REPLICA_STREAMING && (now_ms <= heard || now_ms - heard <= silence_limit_ms);
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&slot->session, memory_order_relaxed) == session;
}

/* Adds a session, or puts it in the place of an older one of the same replica. */
static void add_view(struct nx_replica_views *views, const struct nx_replica_view *view)
{
    for (unsigned i = 0; i < views->count; i++) {
        if (strcmp(views->list[i].id, view->id) == 0 && !NX_PLANTED(count_replica_twice)) {
            if (view->session > views->list[i].session) {
                views->list[i] = *view;
            }
            return;
        }
    }
    views->list[views->count++] = *view;
}

void nx_replicas_look(const struct nx_shm *shm,
                      uint64_t silence_limit_ms,
                      struct nx_replica_views *ret_views)
{
    uint64_t now = nx_now_ms();
    struct nx_replica_view view;

    ret_views->count = 0;
    for (unsigned i = 0; i < NX_MAX_WALSENDERS; i++) {
        if (copy_slot(&shm->replicas[i], now, silence_limit_ms, &view)) {
            add_view(ret_views, &view);
        }
    }
}

unsigned nx_replicas_counting(const struct nx_replica_views *views)
{
    unsigned count = 0;

    for (unsigned i = 0; i < views->count; i++) {
        count += views->list[i].counts ? 1 : 0;
    }
    return count;
}

unsigned nx_replicas_with(const struct nx_replica_views *views, uint64_t offset)
{
    unsigned count = 0;

    for (unsigned i = 0; i < views->count; i++) {
        count += views->list[i].ack_offset >= offset ? 1 : 0;
    }
    return count;
}

bool nx_replicas_all_have(const struct nx_replica_views *views, uint64_t offset)
{
    for (unsigned i = 0; i < views->count; i++) {
        if (views->list[i].counts && views->list[i].ack_offset < offset) {
            return false;
        }
    }
    return true;
}

static uint64_t ack_of(const struct nx_replica_view *view)
{
    return view->ack_offset;
}

static uint64_t confirmation_of(const struct nx_replica_view *view)
{
    return view->confirmed_us;
}

/* What `quorum` of those that count reach: the quorum-th value from above; 0: fewer count. */
static uint64_t reached_by(const struct nx_replica_views *views,
                           unsigned quorum,
                           uint64_t (*value_of)(const struct nx_replica_view *view))
{
    uint64_t highest[NX_MAX_WALSENDERS]; /* in descending order */
    unsigned count = 0;

    for (unsigned i = 0; i < views->count; i++) {
        uint64_t value = value_of(&views->list[i]);
        unsigned at = count;

        if (!views->list[i].counts) {
            continue;
        }
        for (; at > 0 && highest[at - 1] < value; at--) {
            highest[at] = highest[at - 1];
        }
        highest[at] = value;
        count++;
    }
    return quorum > 0 && count >= quorum ? highest[quorum - 1] : 0;
}

uint64_t nx_replicas_quorum_offset(const struct nx_replica_views *views, unsigned quorum)
{
    return reached_by(views, quorum, ack_of);
}

uint64_t nx_replicas_confirmed_us(const struct nx_replica_views *views, unsigned quorum)
{
    return reached_by(views, quorum, confirmation_of);
}

/* ---- the quorum's offset ---- */

unsigned nx_quorum_size(const struct nx_shm *shm)
{
    return (unsigned)atomic_load_explicit(&shm->quorum.size, memory_order_acquire);
}

uint64_t nx_quorum_offset(const struct nx_shm *shm)
{
    return atomic_load_explicit(&shm->quorum.offset, memory_order_acquire);
}

void nx_quorum_raise(struct nx_shm *shm, uint64_t offset)
{
    uint64_t known = atomic_load_explicit(&shm->quorum.offset, memory_order_relaxed);

    while (offset > known) {
        if (atomic_compare_exchange_weak_explicit(&shm->quorum.offset, &known, offset,
                                                  memory_order_acq_rel, memory_order_relaxed)) {
            nx_latch_ring_quorum(shm, offset);
            return;
        }
    }
}

void nx_quorum_hear(struct nx_shm *shm, enum nx_commit_rule rule, uint64_t epoch, uint64_t offset)
{
    bool changed = nx_quorum_rules(shm) != (rule == NX_COMMIT_QUORUM);

    /* The offset first: who sees that the quorum rules sees how far, too. */
    if (atomic_load_explicit(&shm->quorum.epoch, memory_order_relaxed) != epoch) {
        /* In this order: who is killed in between leaves the old epoch, and the next word replaces both. */
        atomic_store_explicit(&shm->quorum.offset, offset, memory_order_relaxed);
        atomic_store_explicit(&shm->quorum.epoch, epoch, memory_order_release);
        nx_latch_ring_quorum(shm, offset);
    } else {
        nx_quorum_raise(shm, offset);
    }
    atomic_store_explicit(&shm->quorum.rule, rule, memory_order_release);
    if (changed) {
        nx_latch_ring_quorum(shm, NX_WAKE_NEVER - 1); /* what they wait for may have come by that */
    }
}

bool nx_quorum_rules(const struct nx_shm *shm)
{
    return atomic_load_explicit(&shm->quorum.rule, memory_order_acquire) == NX_COMMIT_QUORUM;
}

/* What a replica's state was when it started was committed then, whatever it has heard since; but not what
 * was merged before the quorum's word of it had come. */
static uint64_t replica_floor(const struct nx_shm *shm, uint64_t quorum)
{
    uint64_t unconfirmed =
        atomic_load_explicit(&shm->checkpoint.unconfirmed_offset, memory_order_acquire);

    if (atomic_load_explicit(&shm->control.role, memory_order_relaxed) != NX_NODE_REPLICA ||
        unconfirmed > quorum) {
        return 0;
    }
    return atomic_load_explicit(&shm->log.committed_base, memory_order_relaxed);
}

uint64_t nx_committed_offset(const struct nx_shm *shm)
{
    uint64_t durable = atomic_load_explicit(&shm->log.durable_offset, memory_order_acquire);

    if (!nx_quorum_rules(shm)) {
        return durable;
    }
    uint64_t quorum = nx_quorum_offset(shm);
    uint64_t committed = quorum < durable ? quorum : durable;
    uint64_t floor = replica_floor(shm, quorum);

    return committed > floor ? committed : floor;
}

bool nx_quorum_confirmed(const struct nx_shm *shm)
{
    return !nx_quorum_rules(shm) ||
           atomic_load_explicit(&shm->control.role, memory_order_relaxed) != NX_NODE_MASTER ||
           nx_quorum_offset(shm) >=
               atomic_load_explicit(&shm->log.recovered_offset, memory_order_acquire);
}
