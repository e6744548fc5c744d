/* One key at one offset, and what reads stand on. Runs in every process that reads; owns a private
 * buffer. It reads shared memory that the walwriter may recycle at any moment: what was copied counts
 * only when nx_view_holds says so afterwards. */
#include "storage/view.h"

#include "common/quorum.h"
#include "storage/view_span.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define KEPT_BUFFER ((size_t)1 << 20) /* a larger one is given back at the next call */

int nx_view_create(struct nx_shm *shm, struct nx_state *state, struct nx_view **ret_view)
{
    struct nx_view *view = calloc(1, sizeof *view);

    if (view == NULL) {
        return -ENOMEM;
    }
    view->shm = shm;
    view->state = state;
    *ret_view = view;
    return 0;
}

void nx_view_destroy(struct nx_view *view)
{
    if (view != NULL) {
        free(view->value);
        free(view);
    }
}

void nx_view_set_local(struct nx_view *view, bool local)
{
    view->local = local;
}

uint64_t nx_view_offset(const struct nx_view *view)
{
    return view->local ? atomic_load_explicit(&view->shm->log.durable_offset, memory_order_acquire)
                       : nx_committed_offset(view->shm);
}

/* ---- the span ---- */

struct span_part {
    uint64_t number;
    uint64_t first;
    uint64_t last; /* 0: running */
};

/* The generations that hold something of (base, read_offset], in ascending order. */
static unsigned collect(struct nx_shm *shm,
                        uint64_t base,
                        uint64_t read_offset,
                        struct span_part ret_parts[NX_GENERATIONS])
{
    unsigned count = 0;

    for (unsigned i = 0; i < NX_GENERATIONS; i++) {
        const struct nx_generation *generation = &shm->generations[i];
        struct span_part part = {
            .number = atomic_load_explicit(&generation->number, memory_order_acquire),
            .first = atomic_load_explicit(&generation->first_offset, memory_order_relaxed),
            .last = atomic_load_explicit(&generation->last_offset, memory_order_acquire),
        };
        unsigned at = count;

        if (part.number == 0 || part.first > read_offset || (part.last != 0 && part.last <= base)) {
            continue;
        }
        for (; at > 0 && ret_parts[at - 1].number > part.number; at--) {
            ret_parts[at] = ret_parts[at - 1];
        }
        ret_parts[at] = part;
        count++;
    }
    return count;
}

/* Whether they hold all of it, without a gap. */
static bool covers(const struct span_part *parts,
                   unsigned count,
                   uint64_t base,
                   uint64_t read_offset)
{
    uint64_t covered = base;

    for (unsigned i = 0; i < count && covered < read_offset; i++) {
        if (parts[i].first > covered + 1) {
            return false;
        }
        covered = parts[i].last == 0 ? read_offset : parts[i].last;
    }
    return covered >= read_offset;
}

/* A transaction, then an offset that isn't below its base. */
static int begin_at(struct nx_view *view, uint64_t *ret_base, uint64_t *ret_offset)
{
    struct nx_position base;

    for (int attempt = 0; attempt < 2; attempt++) {
        int rc = nx_state_read_begin(view->state, &base);

        if (rc < 0) {
            return rc;
        }
        *ret_base = base.offset;
        *ret_offset = nx_view_offset(view);
        if (*ret_offset >= base.offset) {
            return 0;
        }
        nx_state_read_end(view->state);
    }
    return -ESTALE;
}

int nx_view_begin(struct nx_view *view, struct nx_view_span *ret_span)
{
    struct span_part parts[NX_GENERATIONS];
    uint64_t base;
    uint64_t read_offset;
    int rc = begin_at(view, &base, &read_offset);

    if (rc < 0) {
        return rc;
    }
    if (view->cap > KEPT_BUFFER) {
        free(view->value);
        view->value = NULL;
        view->cap = 0;
    }
    unsigned count = collect(view->shm, base, read_offset, parts);

    if (!covers(parts, count, base, read_offset)) {
        nx_state_read_end(view->state);
        return -EAGAIN;
    }
    ret_span->read_offset = read_offset;
    ret_span->count = count;
    for (unsigned i = 0; i < count; i++) {
        ret_span->numbers[i] = parts[count - 1 - i].number;
    }
    return 0;
}

bool nx_view_holds(const struct nx_view *view, const struct nx_view_span *span)
{
    /* What was read before must not be read after the numbers. */
    atomic_thread_fence(memory_order_acquire);
    for (unsigned i = 0; i < span->count; i++) {
        uint64_t number = span->numbers[i];

        if (atomic_load_explicit(&view->shm->generations[number % NX_GENERATIONS].number,
                                 memory_order_relaxed) != number) {
            return false;
        }
    }
    return true;
}

int nx_view_op(struct nx_view *view, const struct nx_skip_node *node, struct nx_op *ret_op)
{
    size_t max;
    const uint8_t *op = nx_skip_op(view->shm, node, &max);

    return nx_op_decode_at(op, max, ret_op) < 0 ? -EAGAIN : 0;
}

int nx_view_keep(struct nx_view *view, const uint8_t *value, size_t length)
{
    if (length > view->cap || view->value == NULL) {
        size_t cap = length < 4096 ? 4096 : length;
        uint8_t *buffer = malloc(cap);

        if (buffer == NULL) {
            return -ENOMEM;
        }
        free(view->value);
        view->value = buffer;
        view->cap = cap;
    }
    if (length > 0) {
        memcpy(view->value, value, length);
    }
    return 0;
}

/* ---- one key ---- */

/* The version in the generations. 0; -ENOENT: deleted there; -ENODATA: none of them has the key;
 * -EAGAIN. *ret_item's value points into the arena. */
static int find_in_generations(struct nx_view *view,
                               const struct nx_view_span *span,
                               struct nx_slice key,
                               struct nx_item *ret_item)
{
    const struct nx_skip_node *node = NULL;
    struct nx_op op;

    for (unsigned i = 0; i < span->count && node == NULL; i++) {
        node = nx_skip_find(view->shm, nx_skip_pool(view->shm, span->numbers[i]), key.data,
                            key.length, span->read_offset);
    }
    if (node == NULL) {
        return -ENODATA;
    }
    ret_item->offset = node->offset;
    if (nx_view_op(view, node, &op) < 0 || !nx_slice_equal(op.key, key)) {
        return -EAGAIN;
    }
    if (op.kind != NX_OP_PUT) {
        return -ENOENT;
    }
    ret_item->value = op.value.data;
    ret_item->value_length = op.value.length;
    ret_item->expires_at = op.expires_at;
    return 0;
}

static int find_in_state(struct nx_view *view, struct nx_slice key, struct nx_item *ret_item)
{
    struct nx_record record;
    int rc = nx_state_get(view->state, key.data, key.length, &record);

    if (rc == 0) {
        ret_item->value = record.value;
        ret_item->value_length = record.value_length;
        ret_item->offset = record.offset;
        ret_item->expires_at = record.expires_at;
    }
    return rc;
}

static int get_once(struct nx_view *view,
                    struct nx_slice key,
                    bool want_value,
                    struct nx_item *ret_item,
                    uint64_t *ret_read_offset)
{
    struct nx_view_span span;
    struct nx_item item = {.key = key.data, .key_length = key.length};
    int rc = nx_view_begin(view, &span);

    if (rc < 0) {
        return rc;
    }
    rc = find_in_generations(view, &span, key, &item);
    if (rc == -ENODATA) {
        rc = find_in_state(view, key, &item);
    }
    if (rc == 0 && want_value) {
        rc = nx_view_keep(view, item.value, item.value_length);
    }
    item.value = want_value ? view->value : NULL;
    if (!nx_view_holds(view, &span)) {
        rc = -EAGAIN;
    }
    nx_state_read_end(view->state);
    if (rc == 0) {
        *ret_item = item;
    }
    if (rc == 0 || rc == -ENOENT) {
        *ret_read_offset = span.read_offset;
    }
    return rc;
}

int nx_view_get(struct nx_view *view,
                const uint8_t *key,
                size_t key_length,
                bool want_value,
                struct nx_item *ret_item,
                uint64_t *ret_read_offset)
{
    int rc = -EAGAIN;

    for (int attempt = 0; attempt < NX_VIEW_RETRIES && rc == -EAGAIN; attempt++) {
        rc = get_once(view, nx_slice_of(key, key_length), want_value, ret_item, ret_read_offset);
    }
    return rc;
}
