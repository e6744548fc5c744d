/* A skip list of key versions in shared memory: one writer (the walwriter), any number of readers
 * that take no lock (W. Pugh, "Skip Lists: A Probabilistic Alternative to Balanced Trees", 1990).
 *
 * Order: key ascending (memcmp, shorter first), then offset descending, then operation index
 * descending; so the first node at or after (key, R) is the version that a reader at offset R sees.
 * A node is a version, not a place: but for its links it is never changed once linked, and nothing
 * newer than a reader's offset is seen by it. Keys are not copied: a node holds the arena position of
 * its operation and the first 16 bytes of its key, so that most comparisons need no look there.
 *
 * In front of the list stands a hash table of the newest version of each key: whoever wants one key
 * finds it with two or three cache misses, where the walk down the list takes some thirty. The list
 * is for what needs order: ranges, merges, and the place of a new version.
 *
 * Readers may be reading a pool that is being recycled: node indexes are range-checked, hops are
 * bounded, key bytes are checked against the arena's bounds; what is found is meaningless then, and
 * the caller finds that out by the generation's number (view.h). */
#ifndef NX_COMMON_SKIP_LIST_H
#define NX_COMMON_SKIP_LIST_H

#include "common/bytes.h"
#include "common/shm_layout.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NX_SKIP_MAX_HEIGHT 16

#define NX_SKIP_PREFIX 16 /* bytes of a key that its node holds */

/* 32-bit node references count 8-byte units from the pool's start; 0 is nil. */
struct nx_skip_node {
    uint64_t prefix[2]; /* first bytes of the key, big-endian, zero-padded */
    uint64_t offset;    /* WAL offset */
    uint64_t op_pos;    /* arena position of the operation */
    uint32_t op_index;  /* its place in the entry */
    uint16_t key_length;
    uint8_t kind; /* NX_OP_PUT or NX_OP_DELETE */
    uint8_t height;
    nx_atomic_u32 hash_next; /* another key of the same bucket */
    nx_atomic_u32 next[];    /* height of them */
};
static_assert(offsetof(struct nx_skip_node, next) == 44, "most nodes, of one link, have 48 bytes");

/* At the start of a pool; the hash table (shm->pool_buckets references) follows, then the nodes.
 * W:walwriter. */
struct nx_skip_pool {
    alignas(NX_LINE) nx_atomic_u64 used; /* bytes, this header and the hash table included */
    nx_atomic_u64 count;                 /* nodes */
    uint64_t random;                     /* xorshift state of the heights */
    nx_atomic_u32 head[NX_SKIP_MAX_HEIGHT];
    nx_atomic_u32 buckets[];
};

/* Where a pool's nodes begin, bytes from its start, with a hash table of so many references. */
uint64_t nx_skip_nodes_at(uint64_t buckets);

/* Pool of generation `number`. */
struct nx_skip_pool *nx_skip_pool(struct nx_shm *shm, uint64_t number);

/* Empties a pool (walwriter, after the generation's number was set to 0). */
void nx_skip_reset(const struct nx_shm *shm, struct nx_skip_pool *pool);

/* True when `nodes` more nodes of any height fit. */
bool nx_skip_has_room(const struct nx_shm *shm, const struct nx_skip_pool *pool, uint64_t nodes);

/* A version to be linked. Its operation stands at op_pos in the arena, its key there too. */
struct nx_skip_version {
    struct nx_slice key;
    uint64_t op_pos;
    uint64_t offset;
    uint32_t op_index;
    uint8_t kind;
};

#define NX_SKIP_BATCH 16 /* as many are linked at once at most */

/* Links NX_SKIP_BATCH versions at most, of the same key the newest last. The pool has room for them. They walk down the
 * list side by side, each while the others wait for memory (as "group prefetching" does for hash joins: S. Chen and
 * others, "Improving Hash Join Performance through Prefetching", 2004): 16 at once take a third of 16 one by one. */
void nx_skip_insert(struct nx_shm *shm,
                    struct nx_skip_pool *pool,
                    const struct nx_skip_version *versions,
                    size_t count);

/* First node at or after (key, read_offset): the version that read_offset sees, if its key equals.
 * NULL at the end. */
const struct nx_skip_node *nx_skip_seek(struct nx_shm *shm,
                                        struct nx_skip_pool *pool,
                                        const uint8_t *key,
                                        size_t key_length,
                                        uint64_t read_offset);

/* The version of exactly this key that read_offset sees, or NULL. */
const struct nx_skip_node *nx_skip_find(struct nx_shm *shm,
                                        struct nx_skip_pool *pool,
                                        const uint8_t *key,
                                        size_t key_length,
                                        uint64_t read_offset);

/* First node of the list, and the one after `node`; NULL at the end. */
const struct nx_skip_node *nx_skip_first(struct nx_shm *shm, struct nx_skip_pool *pool);
const struct nx_skip_node *nx_skip_next(struct nx_shm *shm,
                                        struct nx_skip_pool *pool,
                                        const struct nx_skip_node *node);

/* The bytes of a node's operation (as in an entry), with how many may be read there without leaving
 * the arena. */
const uint8_t *nx_skip_op(struct nx_shm *shm, const struct nx_skip_node *node, size_t *ret_max);

#endif
