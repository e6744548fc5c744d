/* Room in the shared log: which generation runs, when it is sealed, when a merged one is freed.
 * Runs in the walwriter. A generation is freed lazily, when its pool or its bytes are needed, and
 * always before either is written again, so that readers can tell. */
#include "common/latch.h"
#include "common/skip_list.h"
#include "walwriter/walwriter.h"

#include <stdatomic.h>

static struct nx_generation *generation_at(struct walwriter *w, uint64_t number)
{
    return &w->shm->generations[number % NX_GENERATIONS];
}

static void begin_generation(struct walwriter *w, uint64_t number)
{
    struct nx_generation *generation = generation_at(w, number);

    nx_skip_reset(w->shm, nx_skip_pool(w->shm, number));
    nx_expire_begin(w, number);
    atomic_store_explicit(&generation->first_offset, w->log.newest + 1, memory_order_relaxed);
    atomic_store_explicit(&generation->last_offset, 0, memory_order_relaxed);
    atomic_store_explicit(&generation->first_pos, w->log.next_pos, memory_order_relaxed);
    atomic_store_explicit(&generation->number, number, memory_order_release);
    atomic_store_explicit(&w->shm->log.generation, number, memory_order_release);
    w->generation = number;
    w->generation_start_pos = w->log.next_pos;
}

void nx_room_start(struct walwriter *w)
{
    w->oldest_generation = 1;
    w->log.pinned_offset = w->log.newest + 1;
    begin_generation(w, 1);
}

bool nx_room_free_possible(struct walwriter *w)
{
    return w->oldest_generation < w->generation &&
           atomic_load_explicit(&w->shm->checkpoint.merged_generation, memory_order_acquire) >=
               w->oldest_generation;
}

/* Frees the oldest generation if the checkpointer has merged it. */
static bool free_merged(struct walwriter *w)
{
    uint64_t number = w->oldest_generation;

    if (!nx_room_free_possible(w)) {
        return false;
    }
    /* A read transaction begun before the merge lacks what this generation held. */
    nx_lookup_end(w);
    atomic_store_explicit(&generation_at(w, number)->number, 0, memory_order_release);
    atomic_thread_fence(memory_order_release);
    nx_expire_freed(w, number);
    w->oldest_generation = number + 1;
    w->log.pinned_offset =
        atomic_load_explicit(&generation_at(w, number + 1)->first_offset, memory_order_relaxed);
    return true;
}

/* Seals the running generation and begins the next. False when it is empty or no pool is free. */
static bool seal(struct walwriter *w)
{
    struct nx_generation *running = generation_at(w, w->generation);

    if (atomic_load_explicit(&running->first_offset, memory_order_relaxed) > w->log.newest) {
        return false;
    }
    if (w->generation + 1 - w->oldest_generation >= NX_GENERATIONS && !free_merged(w)) {
        return false;
    }
    nx_unlinked_link(w);
    atomic_store_explicit(&running->last_offset, w->log.newest, memory_order_release);
    begin_generation(w, w->generation + 1);
    nx_latch_ring(w->shm, nx_process_slot(NX_KIND_CHECKPOINTER, 0));
    return true;
}

uint8_t *nx_room_make(struct walwriter *w, size_t length, uint32_t ops, uint64_t *ret_pos)
{
    uint8_t *place;

    while (
        !nx_skip_has_room(w->shm, nx_skip_pool(w->shm, w->generation), w->unlinked_count + ops)) {
        if (!seal(w)) {
            return NULL;
        }
    }
    while ((place = nx_log_reserve(&w->log, length, NX_LOG_RESERVE, ret_pos)) == NULL) {
        /* Free what is merged first; else let the checkpointer have the running one. */
        if (!free_merged(w) && !seal(w)) {
            return NULL;
        }
    }
    return place;
}

static bool seal_asked(struct walwriter *w)
{
    uint64_t wanted = atomic_load_explicit(&w->shm->checkpoint.seal_wanted, memory_order_acquire);

    return wanted >= atomic_load_explicit(&generation_at(w, w->generation)->first_offset,
                                          memory_order_relaxed);
}

bool nx_room_seal_possible(struct walwriter *w)
{
    bool pool = w->generation + 1 - w->oldest_generation < NX_GENERATIONS;

    return seal_asked(w) && (pool || nx_room_free_possible(w));
}

void nx_room_seal_if_due(struct walwriter *w)
{
    if (w->log.next_pos - w->generation_start_pos >= w->shm->generation_bytes || seal_asked(w)) {
        seal(w);
    }
}
