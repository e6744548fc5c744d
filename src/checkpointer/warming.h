/* After a full sync: the new state's file was handed to the disk as it was filled, so that it doesn't drive the
 * old one, which served meanwhile, out of memory. Now it is the one that is read: it is fetched back, a piece at
 * a time, if it is small beside the machine's memory. */
#ifndef NX_CHECKPOINTER_WARMING_H
#define NX_CHECKPOINTER_WARMING_H

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
