/* What a read stands on: an LMDB read transaction and the generations above it. Private to
 * src/storage/view*.c. */
#ifndef NX_STORAGE_VIEW_SPAN_H
#define NX_STORAGE_VIEW_SPAN_H

#include "common/entry.h"
#include "common/skip_list.h"
#include "storage/view.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nx_view {
    struct nx_shm *shm;
    struct nx_state *state;
    uint8_t *value; /* private copy of the last value, cap bytes */
    size_t cap;
    bool local; /* reads see what is durable here, not only what is committed */
};

struct nx_view_span {
    uint64_t read_offset;
    unsigned count;                   /* of generations */
    uint64_t numbers[NX_GENERATIONS]; /* newest first */
};

/* Begins a read: on success a read transaction is open, which the caller ends. 0; -EAGAIN: generations
 * moved meanwhile, try again; -ESTALE; or an error of the state. */
int nx_view_begin(struct nx_view *view, struct nx_view_span *ret_span);

/* Whether the generations are still the same: what was copied out of them before holds. */
bool nx_view_holds(const struct nx_view *view, const struct nx_view_span *span);

/* The operation of a node. 0, or -EAGAIN: those bytes are no operation, so they were recycled. */
int nx_view_op(struct nx_view *view, const struct nx_skip_node *node, struct nx_op *ret_op);

/* Copies a value into view->value. 0 or -ENOMEM. */
int nx_view_keep(struct nx_view *view, const uint8_t *value, size_t length);

#endif
