/* Runs in http workers, peers, walreceiver and postmaster. See synced.h. */
#include "common/synced.h"

#include "common/epochs.h"
#include "common/order.h"
#include "common/quorum.h"

void nx_sync_goal_publish(struct nx_goal_state *to, const struct nx_sync_goal *goal)
{
    atomic_store_explicit(&to->epoch, goal->epoch, memory_order_relaxed);
    atomic_store_explicit(&to->shown_epoch, goal->shown_epoch, memory_order_relaxed);
    atomic_store_explicit(&to->shown, goal->shown, memory_order_relaxed);
    atomic_store_explicit(&to->offset, goal->offset, memory_order_release);
}

struct nx_sync_goal nx_sync_goal_read(const struct nx_goal_state *from)
{
    struct nx_sync_goal goal = {.offset =
                                    atomic_load_explicit(&from->offset, memory_order_acquire)};

    goal.epoch = atomic_load_explicit(&from->epoch, memory_order_relaxed);
    goal.shown = atomic_load_explicit(&from->shown, memory_order_relaxed);
    goal.shown_epoch = atomic_load_explicit(&from->shown_epoch, memory_order_relaxed);
    return goal;
}

static bool is_replica(const struct nx_shm *shm)
{
    return atomic_load_explicit(&shm->control.role, memory_order_acquire) == NX_NODE_REPLICA;
}

static uint64_t durable(const struct nx_shm *shm)
{
    return atomic_load_explicit(&shm->log.durable_offset, memory_order_acquire);
}

/* What the log still has of the history that the goal is of. */
static uint64_t end_of_epoch(const struct nx_shm *shm, uint64_t epoch)
{
    static struct nx_epochs epochs;

    (void)nx_epochs_read(shm, durable(shm), &epochs); /* if not: nothing is left out */
    return nx_epochs_end_up_to(&epochs, epoch);
}

/* As far as it can be asked for; `has`: what suffices anyway. */
static uint64_t owed(const struct nx_shm *shm, uint64_t goal, uint64_t epoch, uint64_t has)
{
    const struct nx_receiver_state *receiver = &shm->receiver;

    if (has < goal && atomic_load_explicit(&receiver->master_known, memory_order_acquire) != 0) {
        goal =
            nx_lower(goal, atomic_load_explicit(&receiver->welcome_offset, memory_order_relaxed));
    }
    if (has < goal && atomic_load_explicit(&shm->log.epoch, memory_order_acquire) > epoch) {
        goal = nx_lower(goal, end_of_epoch(shm, epoch));
    }
    return has < goal ? goal : 0;
}

struct nx_sync_goal nx_sync_goal(const struct nx_shm *shm)
{
    struct nx_sync_goal goal = nx_sync_goal_read(&shm->control.goal);

    if (!is_replica(shm)) {
        return (struct nx_sync_goal){.offset = 0};
    }
    goal.offset = owed(shm, goal.offset, goal.epoch, durable(shm));
    goal.shown = owed(shm, goal.shown, goal.shown_epoch, nx_committed_offset(shm));
    return goal;
}

bool nx_never_synced(const struct nx_shm *shm)
{
    /* In this order: before the first entry comes the cluster, and before that the goal. */
    uint64_t has = durable(shm);
    bool known = atomic_load_explicit(&shm->control.cluster_known, memory_order_acquire) != 0;
    struct nx_sync_goal goal = nx_sync_goal_read(&shm->control.goal);

    if (!is_replica(shm)) {
        return false;
    }
    if (has == 0 && !known) {
        return true;
    }
    /* Readers were never shown more than the node had: what they are to see beyond that is its first master's. */
    return goal.shown > goal.offset && owed(shm, goal.shown, goal.shown_epoch, has) != 0;
}

bool nx_not_synced(const struct nx_shm *shm)
{
    return nx_never_synced(shm) || nx_sync_goal(shm).offset != 0;
}
