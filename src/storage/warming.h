/* Fetches the state's file into memory, a piece at a time, in the order of the file: LMDB itself asks for single
 * pages, which is right for keys and some fifty times as slow for all of it. Only where the file is small beside the
 * machine's memory. Pieces that are there cost next to nothing. */
#ifndef NX_STORAGE_WARMING_H
#define NX_STORAGE_WARMING_H

#include <stdbool.h>
#include <stdint.h>

struct nx_warming {
    int fd; /* -1: over */
    uint64_t at;
    uint64_t end;
};

#define NX_WARMING_NONE ((struct nx_warming){.fd = -1})

/* Begins with data-N's state, if it is small enough. */
void nx_warming_begin(struct nx_warming *warming, const char *state_root);

/* Has the next piece fetched. False: there was none left. */
bool nx_warming_step(struct nx_warming *warming);

void nx_warming_end(struct nx_warming *warming);

#endif
