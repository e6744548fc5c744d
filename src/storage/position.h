/* A place in a history: never a bare offset, since two histories can number alike. */
#ifndef NX_STORAGE_POSITION_H
#define NX_STORAGE_POSITION_H

#include <stdint.h>

struct nx_position {
    uint64_t epoch;
    uint64_t offset; /* 0 = before the first entry; epoch and crc are 0 then */
    uint32_t crc;    /* of the frame at offset */
};

#endif
