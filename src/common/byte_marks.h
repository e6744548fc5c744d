/* How many bytes of entries stand up to an offset, for lag_bytes: a short queue of (offset, total
 * bytes) marks, one a chunk of entries. Exact at a mark, proportional between two. Private to one
 * process; no allocation. */
#ifndef NX_COMMON_BYTE_MARKS_H
#define NX_COMMON_BYTE_MARKS_H

#include <stddef.h>
#include <stdint.h>

#define NX_BYTE_MARKS 256

struct nx_byte_mark {
    uint64_t offset;
    uint64_t total; /* bytes of all entries up to it since the start */
};

struct nx_byte_marks {
    struct nx_byte_mark base; /* everything up to here was asked for already */
    struct nx_byte_mark marks[NX_BYTE_MARKS];
    size_t first;
    size_t count;
};

/* Starts at an offset, with 0 bytes. */
void nx_byte_marks_init(struct nx_byte_marks *marks, uint64_t offset);

/* Entries up to `offset` (above all before) followed, `bytes` of them. When the queue is full the last
 * chunk grows instead. */
void nx_byte_marks_add(struct nx_byte_marks *marks, uint64_t offset, uint64_t bytes);

/* Bytes of all that was added. */
uint64_t nx_byte_marks_total(const struct nx_byte_marks *marks);

/* Bytes up to `offset`, which must not be below what was asked before; forgets what is below it. */
uint64_t nx_byte_marks_up_to(struct nx_byte_marks *marks, uint64_t offset);

#endif
