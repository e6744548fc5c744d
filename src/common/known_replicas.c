/* Runs wherever known replicas are looked at, and in the postmaster, the only one to write them. The
 * version is odd while the table changes: what was copied between two looks at the same even one is whole. */
#include "common/known_replicas.h"

#include <string.h>
#include <time.h>

/* A change takes microseconds, but on a busy machine its writer may have to wait for a processor meanwhile. */
#define FIRST_TRIES 20   /* without a pause */
#define MOST_TRIES  1000 /* with one of 0.1 ms */

/* False: it changed meanwhile. */
static bool copy(const struct nx_known_table *table,
                 struct nx_known_replica *ret_list,
                 unsigned *ret_count)
{
    uint32_t version = atomic_load_explicit(&table->version, memory_order_acquire);
    uint32_t count = atomic_load_explicit(&table->count, memory_order_relaxed);

    if ((version & 1) != 0 || count > NX_MAX_REPLICAS) {
        return false;
    }
    memcpy(ret_list, table->list, count * sizeof *ret_list);
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(&table->version, memory_order_relaxed) != version) {
        return false;
    }
    *ret_count = count;
    return true;
}

unsigned nx_known_replicas(const struct nx_shm *shm, struct nx_known_replica *ret_list)
{
    static const struct timespec pause = {.tv_nsec = 100000};
    unsigned count = 0;

    for (unsigned i = 0; i < MOST_TRIES; i++) {
        if (copy(&shm->known, ret_list, &count)) {
            return count;
        }
        if (i >= FIRST_TRIES) {
            (void)nanosleep(&pause, NULL);
        }
    }
    return 0;
}

void nx_known_replicas_publish(struct nx_shm *shm,
                               const struct nx_known_replica *list,
                               unsigned count)
{
    struct nx_known_table *table = &shm->known;
    uint32_t version = atomic_load_explicit(&table->version, memory_order_relaxed);

    atomic_store_explicit(&table->version, version + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&table->count, count, memory_order_relaxed);
    memcpy(table->list, list, count * sizeof *list);
    atomic_store_explicit(&table->version, version + 2, memory_order_release);
}

bool nx_replica_connected(const struct nx_shm *shm, const char *id)
{
    for (unsigned i = 0; i < NX_MAX_WALSENDERS; i++) {
        const struct nx_replica_slot *slot = &shm->replicas[i];

        if (atomic_load_explicit(&slot->state, memory_order_acquire) != NX_REPLICA_NONE &&
            strcmp(slot->id, id) == 0) {
            return true;
        }
    }
    return false;
}
