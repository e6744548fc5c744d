/* A call to a replication port: connects and, with a Hello, listens to what is answered to it. It takes the side of a
 * replica, says nothing more, and hangs up. */
#ifndef NX_PEERS_DIAL_H
#define NX_PEERS_DIAL_H

#include "common/frame_io.h"
#include "common/shm_layout.h"
#include "peers/reach.h"

#include <stdbool.h>
#include <stdint.h>

enum nx_dial_answer {
    NX_DIAL_NONE,     /* nx_reach_text(&dial->reach) says why */
    NX_DIAL_ACCEPTED, /* connected; no Hello was to be said */
    NX_DIAL_ERROR,
    NX_DIAL_WELCOME
};

/* Zeroed, then hello filled, then begun. */
struct nx_dial {
    struct nx_reach reach;            /* the first member */
    const struct nx_msg_hello *hello; /* NULL: it only connects. Lives until the end */
    struct nx_frame_io io;            /* open while io_open */
    bool io_open;
    int fd; /* while it isn't io's; -1 */
    struct event *readable;
    struct event *writable;
    enum nx_dial_answer answer;
    uint32_t code;  /* ERROR: enum nx_wire_error */
    char text[256]; /* ERROR: what it says */
    /* WELCOME; ids in their canonical form, "" where it says none: */
    uint64_t epoch;
    char master_id[NX_UUID_TEXT];
    char cluster_id[NX_UUID_TEXT];
    char http_addr[NX_ADDR_TEXT]; /* as it is reached from here; "": not known */
};

void nx_dial_begin(struct nx_loop *loop, struct nx_dial *dial, const char *addr, unsigned limit_ms);

/* Frees what it has, over or not. */
void nx_dial_end(struct nx_dial *dial);

#endif
