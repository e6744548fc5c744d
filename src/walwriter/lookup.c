/* What the walwriter must know of a key before it decides: its newest version, durable or not. The
 * skip lists first, newest generation first, then LMDB. Runs in the walwriter, the only process that
 * frees generations, so nothing is recycled under it. */
#include "common/log_clock.h"
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

int nx_lookup_begin(struct walwriter *w)
{
    struct nx_position base;
    int rc = w->reading ? 0 : nx_state_read_begin(w->state, &base);

    w->reading = rc == 0;
    return rc;
}

const struct nx_skip_node *nx_lookup_node(struct walwriter *w, struct nx_slice key)
{
    const struct nx_skip_node *node = NULL;

    nx_unlinked_link_key(w, key);
    for (uint64_t number = w->generation; number >= w->oldest_generation && node == NULL;
         number--) {
        node = nx_skip_find(w->shm, nx_skip_pool(w->shm, number), key.data, key.length, UINT64_MAX);
    }
    return node;
}

int nx_lookup_op(struct walwriter *w, uint64_t op_pos, struct nx_op *ret_op)
{
    uint64_t at = op_pos % w->shm->arena_size;
    const uint8_t *arena = nx_shm_at(w->shm, w->shm->arena_at);

    return nx_op_decode_at(arena + at, (size_t)(w->shm->arena_size - at), ret_op);
}

static bool has_expired(struct walwriter *w, uint64_t expires_at)
{
    return expires_at != 0 && nx_expired(expires_at, nx_group_stamp(w) / 1000);
}

/* What a generation says of a key: 0 and the put, -ENOENT: it is deleted or has expired, -ENODATA: none has it. */
static int find_put(struct walwriter *w,
                    struct nx_slice key,
                    struct nx_op *ret_op,
                    uint64_t *ret_version)
{
    const struct nx_skip_node *node = nx_lookup_node(w, key);

    if (node == NULL) {
        return -ENODATA;
    }
    int rc = node->kind == NX_OP_PUT ? nx_lookup_op(w, node->op_pos, ret_op) : -ENOENT;

    if (rc == 0 && has_expired(w, ret_op->expires_at)) {
        rc = -ENOENT;
    }
    *ret_version = node->offset;
    return rc;
}

int nx_lookup_exists(struct walwriter *w, struct nx_slice key, bool *ret_exists)
{
    struct nx_record record;
    struct nx_op op;
    uint64_t version;
    int rc = find_put(w, key, &op, &version);

    if (rc == -ENODATA) {
        rc = nx_lookup_begin(w);
        rc = rc < 0 ? rc : nx_state_peek(w->state, key.data, key.length, &record);
        if (rc == -EBADMSG) {
            rc = 0; /* damaged, but there */
        } else if (rc == 0 && has_expired(w, record.expires_at)) {
            rc = -ENOENT;
        }
    }
    if (rc < 0 && rc != -ENOENT) {
        return rc;
    }
    *ret_exists = rc == 0;
    return 0;
}

/* The newest version of a key, durable or not, that is a value and has not expired. 0, -ENOENT, or another negative
 * error. */
static int find_live(struct walwriter *w, struct nx_slice key, struct nx_record *ret_record)
{
    struct nx_op op;
    int rc = find_put(w, key, &op, &ret_record->offset);

    if (rc == 0) {
        ret_record->value = op.value.data;
        ret_record->value_length = op.value.length;
    }
    if (rc != -ENODATA) {
        return rc;
    }
    rc = nx_lookup_begin(w);
    rc = rc < 0 ? rc : nx_state_get(w->state, key.data, key.length, ret_record);
    return rc == 0 && has_expired(w, ret_record->expires_at) ? -ENOENT : rc;
}

int nx_lookup_value(struct walwriter *w, struct nx_slice key, struct nx_slice *ret_value)
{
    struct nx_record record;
    int rc = find_live(w, key, &record);

    if (rc == 0) {
        *ret_value = nx_slice_of(record.value, record.value_length);
    }
    return rc;
}

/* The version of a key that a condition is judged by: 0 = absent. 0 or a negative error of the state. */
static int version_of(struct walwriter *w, struct nx_slice key, uint64_t *ret_version)
{
    struct nx_record record;
    int rc = find_live(w, key, &record);

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
