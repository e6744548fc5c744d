/* A place in a history: never a bare offset, since two histories can number alike. */
#ifndef NX_STORAGE_POSITION_H
#define NX_STORAGE_POSITION_H

#include <stdbool.h>
#include <stdint.h>

struct nx_position {
    uint64_t epoch;
    uint64_t offset; /* 0 = before the first entry; epoch and crc are 0 then */
    uint32_t crc; /* of the frame at offset; 0 behind a snapshot that doesn't tell it: not known */
};

/* Whether an entry with this prev_crc can be the next one. */
static inline bool nx_position_links(const struct nx_position *position, uint32_t prev_crc)
{
    return prev_crc == position->crc || (position->offset > 0 && position->crc == 0);
}

#endif
