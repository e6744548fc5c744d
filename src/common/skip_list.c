/* The skip list of a generation; skip_list.h has the order and the rules for readers. Writing (reset,
 * insert) runs in the walwriter alone. */
#include "common/skip_list.h"

#include "common/bytes.h"
#include "common/entry.h"

#include <string.h>

/* A reader in a pool that is being recycled could be led in circles. */
#define MAX_HOPS (1u << 20)

struct search_key {
    uint64_t prefix;
    uint64_t offset;
    const uint8_t *key;
    size_t length;
};

struct nx_skip_pool *nx_skip_pool(struct nx_shm *shm, uint64_t number)
{
    return nx_shm_at(shm, shm->pool_at[number % NX_GENERATIONS]);
}

void nx_skip_reset(struct nx_skip_pool *pool)
{
    for (unsigned i = 0; i < NX_SKIP_MAX_HEIGHT; i++) {
        atomic_store_explicit(&pool->head[i], 0, memory_order_relaxed);
    }
    pool->random = 0x9e3779b97f4a7c15ull;
    atomic_store_explicit(&pool->count, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->used, sizeof *pool, memory_order_release);
}

static size_t node_size(unsigned height)
{
    return (sizeof(struct nx_skip_node) + height * sizeof(uint32_t) + 7) & ~(size_t)7;
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

    if (at < sizeof *pool || at + node_size(NX_SKIP_MAX_HEIGHT) > shm->pool_size) {
        return NULL;
    }
    return (struct nx_skip_node *)(void *)((char *)pool + at);
}

static uint64_t prefix_of(const uint8_t *key, size_t length)
{
    uint8_t bytes[8] = {0};

    memcpy(bytes, key, length < 8 ? length : 8);
    return __builtin_bswap64(nx_load_u64(bytes));
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

    if (node->prefix != wanted->prefix) {
        return node->prefix < wanted->prefix ? -1 : 1;
    }
    if (length > 8 && wanted->length > 8) {
        size_t common = length < wanted->length ? length : wanted->length;
        const uint8_t *key = node_key(shm, node, length);
        int order = key == NULL ? 0 : memcmp(key + 8, wanted->key + 8, common - 8);

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
    struct search_key wanted = {prefix_of(op + header, length), UINT64_MAX, op + header, length};
    nx_atomic_u32 *links[NX_SKIP_MAX_HEIGHT];
    unsigned height = random_height(pool);
    uint64_t at = atomic_load_explicit(&pool->used, memory_order_relaxed);
    struct nx_skip_node *node = (struct nx_skip_node *)(void *)((char *)pool + at);

    search(shm, pool, &wanted, links);
    node->prefix = wanted.prefix;
    node->offset = offset;
    node->op_pos = op_pos;
    node->op_index = op_index;
    node->key_length = (uint16_t)length;
    node->kind = op[0];
    node->height = (uint8_t)height;
    for (unsigned level = 0; level < height; level++) {
        uint32_t next = atomic_load_explicit(links[level], memory_order_relaxed);

        atomic_store_explicit(&node->next[level], next, memory_order_relaxed);
    }
    for (unsigned level = 0; level < height; level++) {
        atomic_store_explicit(links[level], (uint32_t)(at / 8), memory_order_release);
    }
    atomic_store_explicit(&pool->used, at + node_size(height), memory_order_release);
    atomic_store_explicit(&pool->count,
                          atomic_load_explicit(&pool->count, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

const struct nx_skip_node *nx_skip_seek(struct nx_shm *shm,
                                        struct nx_skip_pool *pool,
                                        const uint8_t *key,
                                        size_t key_length,
                                        uint64_t read_offset)
{
    struct search_key wanted = {prefix_of(key, key_length), read_offset, key, key_length};

    return search(shm, pool, &wanted, NULL);
}

const struct nx_skip_node *nx_skip_find(struct nx_shm *shm,
                                        struct nx_skip_pool *pool,
                                        const uint8_t *key,
                                        size_t key_length,
                                        uint64_t read_offset)
{
    struct search_key wanted = {prefix_of(key, key_length), read_offset, key, key_length};
    const struct nx_skip_node *node = search(shm, pool, &wanted, NULL);

    return node != NULL && compare_key(shm, node, &wanted) == 0 ? node : NULL;
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
