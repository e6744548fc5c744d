/* A binary heap of versions that expire, the earliest on top (J. W. J. Williams, "Algorithm 232: Heapsort", 1964). The
 * walwriter has one a generation: it is the index of what the state's own does not hold yet, and goes with the
 * generation. */
#ifndef NX_WALWRITER_EXPIRY_HEAP_H
#define NX_WALWRITER_EXPIRY_HEAP_H

#include <stddef.h>
#include <stdint.h>

struct expiry_item {
    uint64_t expires_at; /* Unix ms */
    uint64_t op_pos;     /* arena position of the put, which tells versions apart */
};

/* All zero: empty. */
struct expiry_heap {
    struct expiry_item *items;
    size_t count;
    size_t cap;
};

/* 0 or -ENOMEM, and nothing is added. */
int nx_expiry_heap_push(struct expiry_heap *heap, const struct expiry_item *item);

/* The earliest, or NULL. */
const struct expiry_item *nx_expiry_heap_top(const struct expiry_heap *heap);

/* Removes it; there is one. */
void nx_expiry_heap_pop(struct expiry_heap *heap);

/* Empties it and gives its memory back. */
void nx_expiry_heap_free(struct expiry_heap *heap);

#endif
