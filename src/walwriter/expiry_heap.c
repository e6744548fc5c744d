/* Runs in the walwriter. Pure but for the memory that a heap owns. See expiry_heap.h. */
#include "walwriter/expiry_heap.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#define FIRST_CAP 256u

static bool grow(struct expiry_heap *heap)
{
    size_t cap = heap->cap == 0 ? FIRST_CAP : heap->cap * 2;
    struct expiry_item *items = realloc(heap->items, cap * sizeof *items);

    if (items == NULL) {
        return false;
    }
    heap->items = items;
    heap->cap = cap;
    return true;
}

int nx_expiry_heap_push(struct expiry_heap *heap, const struct expiry_item *item)
{
    size_t at;

    if (heap->count == heap->cap && !grow(heap)) {
        return -ENOMEM;
    }
    at = heap->count++;
    while (at > 0 && item->expires_at < heap->items[(at - 1) / 2].expires_at) {
        heap->items[at] = heap->items[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap->items[at] = *item;
    return 0;
}

const struct expiry_item *nx_expiry_heap_top(const struct expiry_heap *heap)
{
    return heap->count == 0 ? NULL : &heap->items[0];
}

void nx_expiry_heap_pop(struct expiry_heap *heap)
{
    struct expiry_item last = heap->items[--heap->count];
    size_t at = 0;
    size_t child;

    while ((child = 2 * at + 1) < heap->count) {
        if (child + 1 < heap->count &&
            heap->items[child + 1].expires_at < heap->items[child].expires_at) {
            child++;
        }
        if (last.expires_at <= heap->items[child].expires_at) {
            break;
        }
        heap->items[at] = heap->items[child];
        at = child;
    }
    heap->items[at] = last;
}

void nx_expiry_heap_free(struct expiry_heap *heap)
{
    free(heap->items);
    *heap = (struct expiry_heap){.items = NULL};
}
