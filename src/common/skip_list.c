/* The skip list of a generation: what is found in it. skip_list.h has the order and the rules for readers;
 * skip_insert.c is how it grows. */
#include "common/skip_walk.h"

/* Versions of a key that are newer than a reader's offset: mostly those of the group that is being
 * written. With more of them the list's search is shorter. */
#define MAX_NEWER 8

struct nx_skip_pool *nx_skip_pool(struct nx_shm *shm, uint64_t number)
{
    return nx_shm_at(shm, shm->pool_at[number % NX_GENERATIONS]);
}

uint64_t nx_skip_nodes_at(uint64_t buckets)
{
    return (sizeof(struct nx_skip_pool) + buckets * sizeof(nx_atomic_u32) + 7) & ~(uint64_t)7;
}

void nx_skip_reset(const struct nx_shm *shm, struct nx_skip_pool *pool)
{
    for (uint64_t i = 0; i < shm->pool_buckets; i++) {
        atomic_store_explicit(&pool->buckets[i], 0, memory_order_relaxed);
    }
    for (unsigned i = 0; i < NX_SKIP_MAX_HEIGHT; i++) {
        atomic_store_explicit(&pool->head[i], 0, memory_order_relaxed);
    }
    pool->random =
        shm->hash_seed | 1; /* nobody shall choose keys by the heights that are to come */
    atomic_store_explicit(&pool->count, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->used, shm->pool_nodes_at, memory_order_release);
}

bool nx_skip_has_room(const struct nx_shm *shm, const struct nx_skip_pool *pool, uint64_t nodes)
{
    uint64_t used = atomic_load_explicit(&pool->used, memory_order_relaxed);

    return nodes * nx_skip_node_size(NX_SKIP_MAX_HEIGHT) <= shm->pool_size - used;
}

const uint8_t *nx_skip_op(struct nx_shm *shm, const struct nx_skip_node *node, size_t *ret_max)
{
    const uint8_t *arena = nx_shm_at(shm, shm->arena_at);
    uint64_t at = node->op_pos % shm->arena_size;

    *ret_max = (size_t)(shm->arena_size - at);
    return arena + at;
}

/* The first node that doesn't stand before `wanted`, or NULL. */
static struct nx_skip_node *search(struct nx_shm *shm,
                                   struct nx_skip_pool *pool,
                                   const struct nx_skip_key *wanted)
{
    struct nx_skip_walk walk;
    struct nx_skip_node *next;

    nx_skip_walk_begin(&walk, pool, *wanted);
    for (unsigned hops = 0;
         (next = nx_skip_walk_next(shm, pool, &walk)) != NULL && hops < NX_SKIP_MAX_HOPS; hops++) {
        nx_skip_walk_look(shm, &walk, next);
    }
    return walk.stop;
}

/* The newest version of the key, by the hash table, or NULL. */
static struct nx_skip_node *newest_of(struct nx_shm *shm,
                                      struct nx_skip_pool *pool,
                                      const struct nx_skip_key *wanted)
{
    nx_atomic_u32 *link = nx_skip_bucket(shm, pool, wanted);

    for (unsigned hops = 0; hops < NX_SKIP_MAX_HOPS; hops++) {
        struct nx_skip_node *node =
            nx_skip_node_at(shm, pool, atomic_load_explicit(link, memory_order_acquire));

        if (node == NULL || nx_skip_compare(shm, node, wanted) == 0) {
            return node;
        }
        link = &node->hash_next;
    }
    return NULL;
}

const struct nx_skip_node *nx_skip_seek(struct nx_shm *shm,
                                        struct nx_skip_pool *pool,
                                        const uint8_t *key,
                                        size_t key_length,
                                        uint64_t read_offset)
{
    struct nx_skip_key wanted = nx_skip_key_of(key, key_length, read_offset);

    return search(shm, pool, &wanted);
}

const struct nx_skip_node *nx_skip_find(struct nx_shm *shm,
                                        struct nx_skip_pool *pool,
                                        const uint8_t *key,
                                        size_t key_length,
                                        uint64_t read_offset)
{
    struct nx_skip_key wanted = nx_skip_key_of(key, key_length, read_offset);
    const struct nx_skip_node *node = newest_of(shm, pool, &wanted);

    for (unsigned newer = 0; node != NULL && node->offset > read_offset; newer++) {
        node = newer < MAX_NEWER ? nx_skip_next(shm, pool, node) : search(shm, pool, &wanted);
        if (node == NULL || nx_skip_compare(shm, node, &wanted) != 0) {
            return NULL;
        }
    }
    return node;
}

const struct nx_skip_node *nx_skip_first(struct nx_shm *shm, struct nx_skip_pool *pool)
{
    return nx_skip_node_at(shm, pool, atomic_load_explicit(&pool->head[0], memory_order_acquire));
}

const struct nx_skip_node *nx_skip_next(struct nx_shm *shm,
                                        struct nx_skip_pool *pool,
                                        const struct nx_skip_node *node)
{
    return nx_skip_node_at(shm, pool, atomic_load_explicit(&node->next[0], memory_order_acquire));
}
