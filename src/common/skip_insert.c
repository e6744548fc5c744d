/* How a skip list grows: the walks of many versions side by side, then one after another is linked. Runs in
 * the walwriter alone. */
#include "common/skip_walk.h"

#include <assert.h>

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

/* A version on its way into the list. */
struct insertion {
    struct nx_skip_walk walk;
    struct nx_skip_node *ahead; /* the node its walk looks at next; NULL: it has ended */
    nx_atomic_u32 *bucket;
    unsigned height;
};

static void begin(struct nx_shm *shm,
                  struct nx_skip_pool *pool,
                  struct insertion *insertion,
                  const struct nx_skip_version *version)
{
    nx_skip_walk_begin(&insertion->walk, pool,
                       nx_skip_key_of(version->key.data, version->key.length, UINT64_MAX));
    insertion->ahead = nx_skip_walk_next(shm, pool, &insertion->walk);
    insertion->bucket = nx_skip_bucket(shm, pool, &insertion->walk.wanted);
    insertion->height = random_height(pool);
    __builtin_prefetch(insertion->bucket, 1);
}

/* A step of each in turn, until all have ended: while one's node comes from memory, the others look at theirs. */
static void walk_all(struct nx_shm *shm,
                     struct nx_skip_pool *pool,
                     struct insertion *insertions,
                     size_t count)
{
    for (bool walking = true; walking;) {
        walking = false;
        for (size_t i = 0; i < count; i++) {
            struct insertion *insertion = &insertions[i];

            if (insertion->ahead == NULL) {
                continue;
            }
            nx_skip_walk_look(shm, &insertion->walk, insertion->ahead);
            insertion->ahead = nx_skip_walk_next(shm, pool, &insertion->walk);
            __builtin_prefetch(insertion->ahead);
            walking = true;
        }
    }
}

static struct nx_skip_node *behind(struct nx_shm *shm,
                                   struct nx_skip_pool *pool,
                                   nx_atomic_u32 *link)
{
    return nx_skip_node_at(shm, pool, atomic_load_explicit(link, memory_order_relaxed));
}

/* Puts a linked node into its bucket's chain: in the place of the version before it, so that a chain has a node
 * a key; a new key goes first. */
static void hash_in(struct nx_shm *shm,
                    struct nx_skip_pool *pool,
                    const struct insertion *insertion,
                    struct nx_skip_node *node,
                    uint32_t reference)
{
    struct nx_skip_node *next = behind(shm, pool, &node->next[0]);
    nx_atomic_u32 *link = insertion->bucket;
    nx_atomic_u32 *rest = link;

    if (next != NULL && nx_skip_compare(shm, next, &insertion->walk.wanted) == 0) {
        for (struct nx_skip_node *other; (other = behind(shm, pool, link)) != next;) {
            link = &other->hash_next;
        }
        rest = &next->hash_next;
    }
    atomic_store_explicit(&node->hash_next, atomic_load_explicit(rest, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(link, reference, memory_order_release);
}

/* Those of its batch that were linked since its walk may stand before it. */
static void pass_newly_linked(struct nx_shm *shm,
                              struct nx_skip_pool *pool,
                              struct insertion *insertion)
{
    struct nx_skip_walk *walk = &insertion->walk;

    for (unsigned level = 0; level < insertion->height; level++) {
        struct nx_skip_node *next;

        while ((next = behind(shm, pool, walk->links[level])) != NULL &&
               nx_skip_stands_before(shm, next, &walk->wanted)) {
            walk->links[level] = &next->next[level];
        }
    }
}

static void link_in(struct nx_shm *shm,
                    struct nx_skip_pool *pool,
                    struct insertion *insertion,
                    const struct nx_skip_version *version)
{
    struct nx_skip_walk *walk = &insertion->walk;
    unsigned height = insertion->height;
    uint64_t at = atomic_load_explicit(&pool->used, memory_order_relaxed);
    struct nx_skip_node *node = (struct nx_skip_node *)(void *)((char *)pool + at);
    uint32_t reference = (uint32_t)(at / 8);

    memcpy(node->prefix, walk->wanted.prefix, sizeof node->prefix);
    node->offset = version->offset;
    node->op_pos = version->op_pos;
    node->op_index = version->op_index;
    node->key_length = (uint16_t)walk->wanted.length;
    node->kind = version->kind;
    node->height = (uint8_t)height;
    for (unsigned level = 0; level < height; level++) {
        uint32_t next = atomic_load_explicit(walk->links[level], memory_order_relaxed);

        atomic_store_explicit(&node->next[level], next, memory_order_relaxed);
    }
    for (unsigned level = 0; level < height; level++) {
        atomic_store_explicit(walk->links[level], reference, memory_order_release);
    }
    hash_in(shm, pool, insertion, node, reference);
    atomic_store_explicit(&pool->used, at + nx_skip_node_size(height), memory_order_release);
    atomic_store_explicit(&pool->count,
                          atomic_load_explicit(&pool->count, memory_order_relaxed) + 1,
                          memory_order_relaxed);
}

void nx_skip_insert(struct nx_shm *shm,
                    struct nx_skip_pool *pool,
                    const struct nx_skip_version *versions,
                    size_t count)
{
    /* Thousands of bytes, of which one write uses a sixteenth: not zeroed, as the build does by itself. */
    __attribute__((uninitialized)) struct insertion insertions[NX_SKIP_BATCH];

    assert(count <= NX_SKIP_BATCH);
    for (size_t i = 0; i < count; i++) {
        begin(shm, pool, &insertions[i], &versions[i]);
    }
    walk_all(shm, pool, insertions, count);
    for (size_t i = 0; i < count; i++) {
        if (i > 0) {
            pass_newly_linked(shm, pool, &insertions[i]);
        }
        link_in(shm, pool, &insertions[i], &versions[i]);
    }
}
