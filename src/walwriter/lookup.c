/* What the walwriter must know of a key before it decides: its newest version, durable or not. The
 * skip lists first, newest generation first, then LMDB. Runs in the walwriter, the only process that
 * frees generations, so nothing is recycled under it. */
#include "common/skip_list.h"
#include "walwriter/walwriter.h"

#include <errno.h>

void nx_lookup_end(struct walwriter *w)
{
    if (w->reading) {
        nx_state_read_end(w->state);
        w->reading = false;
    }
}

static int begin_reading(struct walwriter *w)
{
    struct nx_position base;
    int rc = w->reading ? 0 : nx_state_read_begin(w->state, &base);

    w->reading = rc == 0;
    return rc;
}

/* The newest version in the generations, or NULL. */
static const struct nx_skip_node *find_in_generations(struct walwriter *w, struct nx_slice key)
{
    const struct nx_skip_node *node = NULL;

    for (uint64_t number = w->generation; number >= w->oldest_generation && node == NULL;
         number--) {
        node = nx_skip_find(w->shm, nx_skip_pool(w->shm, number), key.data, key.length, UINT64_MAX);
    }
    return node;
}

int nx_lookup_exists(struct walwriter *w, struct nx_slice key, bool *ret_exists)
{
    const struct nx_skip_node *node = find_in_generations(w, key);
    int rc;

    if (node != NULL) {
        *ret_exists = node->kind == NX_OP_PUT;
        return 0;
    }
    rc = begin_reading(w);
    rc = rc < 0 ? rc : nx_state_has(w->state, key.data, key.length);
    if (rc < 0 && rc != -ENOENT) {
        return rc;
    }
    *ret_exists = rc == 0;
    return 0;
}

/* The newest version of a key, durable or not: 0 = absent. 0 or a negative error of the state. */
static int version_of(struct walwriter *w, struct nx_slice key, uint64_t *ret_version)
{
    const struct nx_skip_node *node = find_in_generations(w, key);
    struct nx_record record;
    int rc;

    if (node != NULL) {
        *ret_version = node->kind == NX_OP_PUT ? node->offset : 0;
        return 0;
    }
    rc = begin_reading(w);
    rc = rc < 0 ? rc : nx_state_get(w->state, key.data, key.length, &record);
    if (rc < 0 && rc != -ENOENT) {
        return rc;
    }
    *ret_version = rc == 0 ? record.offset : 0;
    return 0;
}

static bool listed(const struct nx_condition *condition, uint64_t version)
{
    for (uint32_t i = 0; i < condition->version_count; i++) {
        if (nx_load_u64(condition->versions + (size_t)i * 8) == version) {
            return true;
        }
    }
    return false;
}

static bool holds(const struct nx_condition *condition, uint64_t version)
{
    switch (condition->kind) {
    case NX_CONDITION_ANY_OF:
        return listed(condition, version);
    case NX_CONDITION_NONE_OF:
        return !listed(condition, version);
    case NX_CONDITION_EXISTS:
        return version != 0;
    case NX_CONDITION_ABSENT:
        return version == 0;
    }
    return false;
}

int nx_lookup_judge(struct walwriter *w,
                    const struct nx_received *received,
                    struct nx_completion *completion)
{
    const uint8_t *at = received->conditions;
    size_t left = received->conditions_length;

    for (uint32_t i = 0; i < received->condition_count; i++) {
        struct nx_condition condition;
        uint64_t version = 0;
        int rc = nx_condition_decode(&at, &left, &condition);

        if (rc == 0) {
            rc = version_of(w, nx_slice_of(condition.key, condition.key_length), &version);
        }
        if (rc < 0) {
            return rc;
        }
        if (!holds(&condition, version)) {
            completion->failed_index = i;
            completion->actual = version;
            return 1;
        }
    }
    return 0;
}
