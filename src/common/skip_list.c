/* The skip list of a generation; skip_list.h has the order and the rules for readers. Writing (reset,
 * insert) runs in the walwriter alone. */
#include "common/skip_list.h"

#include "common/bytes.h"
#include "common/entry.h"

#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* A reader in a pool that is being recycled could be led in circles. */
#define MAX_HOPS (1u << 20)

/* Versions of a key that are newer than a reader's offset: mostly those of the group that is being
 * written. With more of them the list's search is shorter. */
#define MAX_NEWER 8

struct search_key {
    uint64_t prefix[2];
    uint64_t offset;
    const uint8_t *key;
    size_t length;
};

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
    pool->random = 0x9e3779b97f4a7c15ull;
    atomic_store_explicit(&pool->count, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->used, shm->pool_nodes_at, memory_order_release);
}

static size_t node_size(unsigned height)
{
    return (offsetof(struct nx_skip_node, next) + height * sizeof(uint32_t) + 7) & ~(size_t)7;
}

bool nx_skip_has_room(const struct nx_shm *shm, const struct nx_skip_pool *pool, uint64_t nodes)
{
    uint64_t used = atomic_load_explicit(&pool->used, memory_order_relaxed);

    return nodes * node_size(NX_SKIP_MAX_HEIGHT) <= shm->pool_size - used;
}

/* The node a reference names, or NULL for nil and for what can't be one. */
static struct nx_skip_node *node_at(const struct nx_shm *shm,
                                    struct nx_skip_pool *pool,
                                    uint32_t reference)
{
    uint64_t at = (uint64_t)reference * 8;

    if (at < shm->pool_nodes_at || at + node_size(NX_SKIP_MAX_HEIGHT) > shm->pool_size) {
        return NULL;
    }
    return (struct nx_skip_node *)(void *)((char *)pool + at);
}

static struct search_key search_key_of(const uint8_t *key, size_t length, uint64_t offset)
{
    uint8_t bytes[NX_SKIP_PREFIX] = {0};

    memcpy(bytes, key, length < sizeof bytes ? length : sizeof bytes);
    return (struct search_key){
        .prefix = {__builtin_bswap64(nx_load_u64(bytes)),
                   __builtin_bswap64(nx_load_u64(bytes + 8))},
        .offset = offset,
        .key = key,
        .length = length,
    };
}

const uint8_t *nx_skip_op(struct nx_shm *shm, const struct nx_skip_node *node, size_t *ret_max)
{
    const uint8_t *arena = nx_shm_at(shm, shm->arena_at);
    uint64_t at = node->op_pos % shm->arena_size;

    *ret_max = (size_t)(shm->arena_size - at);
    return arena + at;
}

/* Key bytes of a node, or NULL when they would leave the arena (a recycled node). */
static const uint8_t *node_key(struct nx_shm *shm, const struct nx_skip_node *node, size_t length)
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
static int compare_key(struct nx_shm *shm,
                       const struct nx_skip_node *node,
                       const struct search_key *wanted)
{
    size_t length = node->key_length;

    for (unsigned i = 0; i < 2; i++) {
        if (node->prefix[i] != wanted->prefix[i]) {
            return node->prefix[i] < wanted->prefix[i] ? -1 : 1;
        }
    }
    if (length > NX_SKIP_PREFIX && wanted->length > NX_SKIP_PREFIX) {
        size_t common = (length < wanted->length ? length : wanted->length) - NX_SKIP_PREFIX;
        const uint8_t *key = node_key(shm, node, length);
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
static bool stands_before(struct nx_shm *shm,
                          const struct nx_skip_node *node,
                          const struct search_key *wanted)
{
    int order = compare_key(shm, node, wanted);

    return order < 0 || (order == 0 && node->offset > wanted->offset);
}

/* Walks down to the first node that doesn't stand before `wanted`; fills links[] with the places
 * that point past it, one a level, if given. */
static struct nx_skip_node *search(struct nx_shm *shm,
                                   struct nx_skip_pool *pool,
                                   const struct search_key *wanted,
                                   nx_atomic_u32 *links[NX_SKIP_MAX_HEIGHT])
{
    nx_atomic_u32 *tower = pool->head;
    struct nx_skip_node *next = NULL;
    const struct nx_skip_node *last_compared = NULL;
    unsigned hops = 0;

    for (unsigned level = NX_SKIP_MAX_HEIGHT; level-- > 0;) {
        next = node_at(shm, pool, atomic_load_explicit(&tower[level], memory_order_acquire));
        while (next != NULL && next != last_compared && hops++ < MAX_HOPS && level < next->height &&
               stands_before(shm, next, wanted)) {
            tower = next->next;
            next = node_at(shm, pool, atomic_load_explicit(&tower[level], memory_order_acquire));
        }
        last_compared = next;
        if (links != NULL) {
            links[level] = &tower[level];
        }
    }
    return next;
}

/* ---- the hash table ---- */

/* The reference to the first node of the key's bucket. Seeded, so that nobody can send keys of one bucket. */
static nx_atomic_u32 *bucket_of(const struct nx_shm *shm,
                                struct nx_skip_pool *pool,
                                const struct search_key *wanted)
{
    uint64_t hash = XXH3_64bits_withSeed(wanted->key, wanted->length, shm->hash_seed);

    return &pool->buckets[hash & (shm->pool_buckets - 1)];
}

/* The newest version of the key, or NULL; *ret_link is the reference to it, or to the first node of its bucket. */
static struct nx_skip_node *newest_of(struct nx_shm *shm,
                                      struct nx_skip_pool *pool,
                                      const struct search_key *wanted,
                                      nx_atomic_u32 **ret_link)
{
    nx_atomic_u32 *first = bucket_of(shm, pool, wanted);
    nx_atomic_u32 *link = first;
    struct nx_skip_node *node =
        node_at(shm, pool, atomic_load_explicit(link, memory_order_acquire));

    for (unsigned hops = 0; node != NULL && hops < MAX_HOPS; hops++) {
        if (compare_key(shm, node, wanted) == 0) {
            *ret_link = link;
            return node;
        }
        link = &node->hash_next;
        node = node_at(shm, pool, atomic_load_explicit(link, memory_order_acquire));
    }
    *ret_link = first;
    return NULL;
}

/* ---- inserting ---- */

static unsigned random_height(struct nx_skip_pool *pool)
{
    uint64_t x = pool->random;
    unsigned height = 1;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    pool->random = x;
    while (height < NX_SKIP_MAX_HEIGHT && (x & 3) == 0) {
        height++;
        x >>= 2;
    }
    return height;
}

void nx_skip_insert(struct nx_shm *shm,
                    struct nx_skip_pool *pool,
                    uint64_t op_pos,
                    uint64_t offset,
                    uint32_t op_index)
{
    const uint8_t *op = (const uint8_t *)nx_shm_at(shm, shm->arena_at) + op_pos % shm->arena_size;
    size_t header = NX_OP_HEADER + ((op[1] & NX_OP_HAS_EXPIRY) != 0 ? 8u : 0u);
    size_t length = nx_load_u16(op + 2);
    struct search_key wanted = search_key_of(op + header, length, UINT64_MAX);
    nx_atomic_u32 *links[NX_SKIP_MAX_HEIGHT];
    nx_atomic_u32 *hash_link;
    unsigned height = random_height(pool);
    uint64_t at = atomic_load_explicit(&pool->used, memory_order_relaxed);
    struct nx_skip_node *node = (struct nx_skip_node *)(void *)((char *)pool + at);

    const struct nx_skip_node *previous = newest_of(shm, pool, &wanted, &hash_link);

    search(shm, pool, &wanted, links);
    memcpy(node->prefix, wanted.prefix, sizeof node->prefix);
    node->offset = offset;
    node->op_pos = op_pos;
    node->op_index = op_index;
    node->key_length = (uint16_t)length;
    node->kind = op[0];
    node->height = (uint8_t)height;
    /* It takes the place of the version before it, so that a chain has a node a key; a new key goes first. */
    atomic_store_explicit(&node->hash_next,
                          atomic_load_explicit(previous == NULL ? hash_link : &previous->hash_next,
                                               memory_order_relaxed),
                          memory_order_relaxed);
    for (unsigned level = 0; level < height; level++) {
        uint32_t next = atomic_load_explicit(links[level], memory_order_relaxed);

        atomic_store_explicit(&node->next[level], next, memory_order_relaxed);
    }
    for (unsigned level = 0; level < height; level++) {
        atomic_store_explicit(links[level], (uint32_t)(at / 8), memory_order_release);
    }
    atomic_store_explicit(hash_link, (uint32_t)(at / 8), memory_order_release);
    atomic_store_explicit(&pool->used, at + node_size(height), memory_order_release);
    atomic_store_explicit(&pool->count,
                          atomic_load_explicit(&pool->count, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

/* ---- finding ---- */

const struct nx_skip_node *nx_skip_seek(struct nx_shm *shm,
                                        struct nx_skip_pool *pool,
                                        const uint8_t *key,
                                        size_t key_length,
                                        uint64_t read_offset)
{
    struct search_key wanted = search_key_of(key, key_length, read_offset);

    return search(shm, pool, &wanted, NULL);
}

const struct nx_skip_node *nx_skip_find(struct nx_shm *shm,
                                        struct nx_skip_pool *pool,
                                        const uint8_t *key,
                                        size_t key_length,
                                        uint64_t read_offset)
{
    struct search_key wanted = search_key_of(key, key_length, read_offset);
    nx_atomic_u32 *link;
    const struct nx_skip_node *node = newest_of(shm, pool, &wanted, &link);

    for (unsigned newer = 0; node != NULL && node->offset > read_offset; newer++) {
        node = newer < MAX_NEWER ? nx_skip_next(shm, pool, node) : search(shm, pool, &wanted, NULL);
        if (node == NULL || compare_key(shm, node, &wanted) != 0) {
            return NULL;
        }
    }
    return node;
}

const struct nx_skip_node *nx_skip_first(struct nx_shm *shm, struct nx_skip_pool *pool)
{
    return node_at(shm, pool, atomic_load_explicit(&pool->head[0], memory_order_acquire));
}

const struct nx_skip_node *nx_skip_next(struct nx_shm *shm,
                                        struct nx_skip_pool *pool,
                                        const struct nx_skip_node *node)
{
    return node_at(shm, pool, atomic_load_explicit(&node->next[0], memory_order_acquire));
}
