/* Runs in http workers, peers and the postmaster, of a replica. See synced.h. */
#include "common/synced.h"

#include "common/quorum.h"

static bool is_replica(const struct nx_shm *shm)
{
    return atomic_load_explicit(&shm->control.role, memory_order_acquire) == NX_NODE_REPLICA;
}

static uint64_t durable(const struct nx_shm *shm)
{
    return atomic_load_explicit(&shm->log.durable_offset, memory_order_acquire);
}

static bool is_master_known(const struct nx_shm *shm)
{
    return atomic_load_explicit(&shm->receiver.master_known, memory_order_acquire) != 0;
}

/* Nobody can ask for more than the master that is followed now had when it welcomed this node. */
static uint64_t at_most_the_master_s(const struct nx_shm *shm, uint64_t goal)
{
    uint64_t most = is_master_known(shm)
                        ? atomic_load_explicit(&shm->receiver.welcome_offset, memory_order_relaxed)
                        : UINT64_MAX;

    return goal < most ? goal : most;
}

/* What a node that began with nothing must get first; 0: it had something, or doesn't know yet. */
static uint64_t first_goal(const struct nx_shm *shm)
{
    uint64_t goal = is_master_known(shm)
                        ? atomic_load_explicit(&shm->receiver.first_offset, memory_order_relaxed)
                        : 0;

    return at_most_the_master_s(shm, goal);
}

static uint64_t goal_of_replaced(const struct nx_shm *shm)
{
    return at_most_the_master_s(
        shm, atomic_load_explicit(&shm->control.replaced_offset, memory_order_acquire));
}

bool nx_never_synced(const struct nx_shm *shm)
{
    if (!is_replica(shm)) {
        return false;
    }
    if (!is_master_known(shm)) {
        return durable(shm) == 0 &&
               atomic_load_explicit(&shm->control.cluster_known, memory_order_acquire) == 0;
    }
    return durable(shm) < first_goal(shm);
}

struct nx_sync_goal nx_sync_goal(const struct nx_shm *shm)
{
    struct nx_sync_goal goal = {.offset = goal_of_replaced(shm)};

    goal.epoch = atomic_load_explicit(&shm->control.replaced_epoch, memory_order_relaxed);
    if (!is_replica(shm) || durable(shm) >= goal.offset ||
        atomic_load_explicit(&shm->log.epoch, memory_order_acquire) > goal.epoch) {
        return (struct nx_sync_goal){.offset = 0};
    }
    return goal;
}

bool nx_not_synced(const struct nx_shm *shm)
{
    return nx_never_synced(shm) || nx_sync_goal(shm).offset != 0;
}

bool nx_shows_less(const struct nx_shm *shm)
{
    uint64_t replaced = goal_of_replaced(shm);
    uint64_t first = first_goal(shm);
    uint64_t has = durable(shm); /* what a later epoch has left is gone */
    uint64_t shown = replaced < has ? replaced : has;

    return is_replica(shm) && nx_committed_offset(shm) < (shown > first ? shown : first);
}
