/* Merges a generation. Runs in the checkpointer, which alone writes the state. What it reads of shared
 * memory stands still: the walwriter frees a generation only after it is published as merged. */
#include "checkpointer/merge.h"

#include "common/entry.h"
#include "common/epochs.h"
#include "common/failpoint.h"
#include "common/shared_log.h"
#include "common/skip_list.h"

#include <errno.h>
#include <stdatomic.h>

#define PIECE 512 /* versions between pauses: less than a millisecond's work */

/* The position of an entry, from its frame in the arena. */
static int position_of(struct nx_shm *shm, uint64_t offset, struct nx_position *ret_position)
{
    struct nx_entry_header header;
    struct iovec runs[2];

    if (nx_log_runs(shm, offset, offset, runs) != 1 ||
        nx_entry_decode(runs[0].iov_base, runs[0].iov_len, true, &header) < 0 ||
        header.offset != offset) {
        return -EFAULT;
    }
    *ret_position = (struct nx_position){header.epoch, header.offset, header.crc};
    return 0;
}

static int merge_version(struct nx_state *state,
                         const struct nx_skip_node *node,
                         const struct nx_op *op)
{
    struct nx_record record = {
        .key = op->key.data,
        .key_length = op->key.length,
        .offset = node->offset,
        .expires_at = op->expires_at,
        .op_index = node->op_index,
        .value = op->value.data,
        .value_length = op->value.length,
    };

    return op->kind == NX_OP_PUT ? nx_state_put(state, &record)
                                 : nx_state_delete(state, op->key.data, op->key.length);
}

/* Nodes and operations lie in the order in which they were written, a list goes by key: each is fetched while those
 * before it are merged. Returns the node behind `next`. */
static const struct nx_skip_node *look_ahead(struct nx_shm *shm,
                                             struct nx_skip_pool *pool,
                                             const struct nx_skip_node *next)
{
    size_t max;

    if (next == NULL) {
        return NULL;
    }
    const struct nx_skip_node *after = nx_skip_next(shm, pool, next);

    __builtin_prefetch(after);
    __builtin_prefetch(nx_skip_op(shm, next, &max));
    return after;
}

/* The first version of a key that isn't behind `last` is its newest there; the others are passed. */
static int merge_list(struct nx_shm *shm,
                      struct nx_state *state,
                      uint64_t number,
                      uint64_t last,
                      struct nx_merge_result *result)
{
    struct nx_skip_pool *pool = nx_skip_pool(shm, number);
    const struct nx_skip_node *next = nx_skip_first(shm, pool);
    const struct nx_skip_node *after = look_ahead(shm, pool, next);
    struct nx_slice done = {NULL, 0};
    uint64_t versions = atomic_load_explicit(&pool->count, memory_order_relaxed);

    for (const struct nx_skip_node *node; (node = next) != NULL;) {
        struct nx_op op;
        size_t max;
        const uint8_t *at = nx_skip_op(shm, node, &max);

        next = after;
        after = look_ahead(shm, pool, next);
        if (nx_op_decode_at(at, max, &op) < 0 || op.kind == NX_OP_EPOCH) {
            return -EFAULT;
        }
        if (++result->versions % PIECE == 0) {
            nx_state_write_pause(state, (unsigned)(result->versions / PIECE),
                                 (unsigned)(versions / PIECE));
        }
        if (node->offset > last || nx_slice_equal(op.key, done)) {
            continue;
        }
        done = op.key;
        result->keys++;
        int rc = merge_version(state, node, &op);

        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* The history up to there goes with the position. */
static int merge_epochs(const struct nx_shm *shm, struct nx_state *state, uint64_t last)
{
    static struct nx_epochs epochs;

    int rc = nx_epochs_read(shm, last, &epochs);

    return rc < 0 || epochs.count == 0 ? rc : nx_state_put_epochs(state, &epochs);
}

int nx_merge_generation(struct nx_shm *shm,
                        struct nx_state *state,
                        uint64_t number,
                        uint64_t last,
                        struct nx_merge_result *ret_result)
{
    struct nx_merge_result result = {.keys = 0};
    int rc = position_of(shm, last, &result.position);

    rc = rc < 0 ? rc : nx_state_write_begin(state);
    if (rc < 0) {
        return rc;
    }
    rc = merge_list(shm, state, number, last, &result);
    rc = rc < 0 ? rc : merge_epochs(shm, state, last);
    rc = rc < 0 ? rc : NX_FAILPOINT(merge_uncommitted);
    if (rc < 0) {
        nx_state_write_abort(state);
        return rc;
    }
    rc = nx_state_write_commit(state, &result.position);
    if (rc == 0) {
        (void)NX_FAILPOINT(merge_committed);
        *ret_result = result;
    }
    return rc;
}
