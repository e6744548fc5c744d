/* How skip_list.c and skip_insert.c go through a list: its order, its references, the walk down. For these
 * two alone; the functions are here for their speed. */
#ifndef NX_COMMON_SKIP_WALK_H
#define NX_COMMON_SKIP_WALK_H

#include "common/bytes.h"
#include "common/entry.h"
#include "common/skip_list.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* A reader in a pool that is being recycled could be led in circles. */
#define NX_SKIP_MAX_HOPS (1u << 20)

/* What is searched: the first version of the key that is not newer than the offset. */
struct nx_skip_key {
    uint64_t prefix[2];
    uint64_t offset;
    const uint8_t *key;
    size_t length;
};

/* Bytes of a node of so many links. */
static inline size_t nx_skip_node_size(unsigned height)
{
    return (offsetof(struct nx_skip_node, next) + height * sizeof(uint32_t) + 7) & ~(size_t)7;
}

/* The node a reference names, or NULL for nil and for what can't be one. */
static inline struct nx_skip_node *nx_skip_node_at(const struct nx_shm *shm,
                                                   struct nx_skip_pool *pool,
                                                   uint32_t reference)
{
    uint64_t at = (uint64_t)reference * 8;

    if (at < shm->pool_nodes_at || at + nx_skip_node_size(NX_SKIP_MAX_HEIGHT) > shm->pool_size) {
        return NULL;
    }
    return (struct nx_skip_node *)(void *)((char *)pool + at);
}

/* Of the first version of a key that is not newer than the offset. The key is borrowed. */
static inline struct nx_skip_key nx_skip_key_of(const uint8_t *key, size_t length, uint64_t offset)
{
    uint8_t bytes[NX_SKIP_PREFIX] = {0};

    memcpy(bytes, key, length < sizeof bytes ? length : sizeof bytes);
    return (struct nx_skip_key){
        .prefix = {__builtin_bswap64(nx_load_u64(bytes)),
                   __builtin_bswap64(nx_load_u64(bytes + 8))},
        .offset = offset,
        .key = key,
        .length = length,
    };
}

/* Key bytes of a node, or NULL when they would leave the arena (a recycled node). */
static inline const uint8_t *nx_skip_node_key(struct nx_shm *shm,
                                              const struct nx_skip_node *node,
                                              size_t length)
{
    size_t max;
    const uint8_t *op = nx_skip_op(shm, node, &max);

    if (max < NX_OP_HEADER) {
        return NULL;
    }
    size_t header = NX_OP_HEADER + ((op[1] & NX_OP_HAS_EXPIRY) != 0 ? 8u : 0u);

    return header + length <= max ? op + header : NULL;
}

/* Orders a node's key against the searched one: < 0, 0, > 0. */
static inline int nx_skip_compare(struct nx_shm *shm,
                                  const struct nx_skip_node *node,
                                  const struct nx_skip_key *wanted)
{
    size_t length = node->key_length;

    for (unsigned i = 0; i < 2; i++) {
        if (node->prefix[i] != wanted->prefix[i]) {
            return node->prefix[i] < wanted->prefix[i] ? -1 : 1;
        }
    }
    if (length > NX_SKIP_PREFIX && wanted->length > NX_SKIP_PREFIX) {
        size_t common = (length < wanted->length ? length : wanted->length) - NX_SKIP_PREFIX;
        const uint8_t *key = nx_skip_node_key(shm, node, length);
        int order =
            key == NULL ? 0 : memcmp(key + NX_SKIP_PREFIX, wanted->key + NX_SKIP_PREFIX, common);

        if (order != 0) {
            return order;
        }
    }
    /* Zero padding makes "a" and "a\0" alike so far; the shorter one is the smaller. */
    return length == wanted->length ? 0 : (length < wanted->length ? -1 : 1);
}

/* True when the node stands before what is searched: a smaller key, or a newer version than wanted. */
static inline bool nx_skip_stands_before(struct nx_shm *shm,
                                         const struct nx_skip_node *node,
                                         const struct nx_skip_key *wanted)
{
    int order = nx_skip_compare(shm, node, wanted);

    return order < 0 || (order == 0 && node->offset > wanted->offset);
}

/* A walk down the list to the first node that doesn't stand before `wanted`, in steps: nx_skip_walk_next()
 * says which node is to be looked at, nx_skip_walk_look() looks at it. Between the two, others may walk
 * while this node comes from memory. */
struct nx_skip_walk {
    struct nx_skip_key wanted;
    /* Links of the node that it has come to; at first the list's heads. */
    nx_atomic_u32 *tower;
    /* The last one met that doesn't stand before; at the end what was searched. */
    struct nx_skip_node *stop;
    /* Those below are still to be walked. */
    unsigned level;
    /* Of each level walked: the reference that leads past `wanted`. */
    nx_atomic_u32 *links[NX_SKIP_MAX_HEIGHT];
};

/* At the top of the pool's list. */
static inline void nx_skip_walk_begin(struct nx_skip_walk *walk,
                                      struct nx_skip_pool *pool,
                                      struct nx_skip_key wanted)
{
    walk->wanted = wanted;
    walk->tower = pool->head;
    walk->stop = NULL;
    walk->level = NX_SKIP_MAX_HEIGHT;
}

/* The next node to look at, or NULL: the walk is at its end. */
static inline struct nx_skip_node *nx_skip_walk_next(struct nx_shm *shm,
                                                     struct nx_skip_pool *pool,
                                                     struct nx_skip_walk *walk)
{
    while (walk->level > 0) {
        nx_atomic_u32 *link = &walk->tower[walk->level - 1];
        struct nx_skip_node *next =
            nx_skip_node_at(shm, pool, atomic_load_explicit(link, memory_order_acquire));

        if (next != NULL && next != walk->stop) {
            return next;
        }
        walk->stop = next;
        walk->links[--walk->level] = link;
    }
    return NULL;
}

/* Looks at what nx_skip_walk_next() gave: goes to it, or stops before it. */
static inline void nx_skip_walk_look(struct nx_shm *shm,
                                     struct nx_skip_walk *walk,
                                     struct nx_skip_node *next)
{
    if (walk->level <= next->height && nx_skip_stands_before(shm, next, &walk->wanted)) {
        walk->tower = next->next;
    } else {
        walk->stop = next;
    }
}

/* The reference to the first node of the key's bucket. Seeded, so that nobody can send keys of one bucket. */
static inline nx_atomic_u32 *nx_skip_bucket(const struct nx_shm *shm,
                                            struct nx_skip_pool *pool,
                                            const struct nx_skip_key *wanted)
{
    uint64_t hash = XXH3_64bits_withSeed(wanted->key, wanted->length, shm->hash_seed);

    return &pool->buckets[hash & (shm->pool_buckets - 1)];
}

#endif
