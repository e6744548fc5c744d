/* A hash table of the keys of one entry, so that a batch of ten thousand deletes costs ten thousand
 * look-ups and not their square. Open addressing, never more than a third full; a stamp a slot makes
 * clearing free. Runs in the walwriter. */
#include "walwriter/walwriter.h"

#include <string.h>

#define SLOTS 32768u /* a power of two, more than three times NX_MAX_OPS */

static struct touched {
    struct nx_slice key;
    uint32_t stamp;
    uint8_t kind;
} slots[SLOTS];

static uint32_t stamp;

void nx_touched_clear(void)
{
    stamp++;
    if (stamp == 0) {
        memset(slots, 0, sizeof slots);
        stamp = 1;
    }
}

uint8_t *nx_touched_kind(struct nx_slice key)
{
    uint32_t i = nx_slice_hash(key) & (SLOTS - 1);

    while (slots[i].stamp == stamp && !nx_slice_equal(slots[i].key, key)) {
        i = (i + 1) & (SLOTS - 1);
    }
    if (slots[i].stamp != stamp) {
        slots[i] = (struct touched){.key = key, .stamp = stamp};
    }
    return &slots[i].kind;
}
