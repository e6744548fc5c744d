/* What a peers process is started for: the postmaster fills it before the fork, and it is the process's own copy
 * from there on (struct nx_process). */
#ifndef NX_COMMON_PEERS_TASK_H
#define NX_COMMON_PEERS_TASK_H

#include "common/shm_layout.h"

#include <stdbool.h>
#include <stdint.h>

enum nx_peers_job {
    NX_PEERS_LOOK, /* a starting master: does somebody else lead? */
    NX_PEERS_ASK, /* a promotion: promises, or only positions; withdraws them where it is refused */
    NX_PEERS_HERALD, /* a promoted master: tells its former master and all peers, until each has heard */
    NX_PEERS_WITHDRAW /* takes back what was promised to attempts that came to nothing */
};

/* A promotion that was begun. */
struct nx_attempt {
    uint64_t epoch;
    /* Tells its promises from those of another one: when it began, monotonic microseconds. */
    uint64_t number;
};

#define NX_MOST_ATTEMPTS 4

struct nx_attempts {
    struct nx_attempt list[NX_MOST_ATTEMPTS]; /* the oldest first */
    unsigned count;
};

struct nx_peers_task {
    enum nx_peers_job job;
    bool yields; /* LOOK: this node would lead only in an epoch that it is yet to begin */
    /* ASK: */
    bool dry_run;
    bool force;
    bool sync;        /* the quorum rules: R - Q + 1 positions are needed */
    uint64_t attempt; /* tells this one's promises from an earlier one's; 0: not told */
    /* ASK: the epoch to begin, higher than all that this node has seen. A forced one may begin a higher one. */
    uint64_t epoch;
    /* ASK, HERALD: the replication address of the master that is, or was, followed; "": none. */
    char master_addr[NX_ADDR_TEXT];
    char master_http[NX_ADDR_TEXT]; /* HERALD: its HTTP address; "": not known */
    struct nx_attempts attempts;    /* WITHDRAW */
};

#endif
