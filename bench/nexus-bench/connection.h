/* A connection of a load: what is under way on it, and the bytes that a call could not pass on. Reading and writing
 * go through buffers that all connections of a thread share, so that they stay in the processor's cache; a
 * connection owns only what is left over. */
#ifndef NX_BENCH_CONNECTION_H
#define NX_BENCH_CONNECTION_H

#include "common/text.h"
#include "nexus-bench/connect.h"
#include "nexus-bench/protocol.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A request under way. */
struct bench_flight {
    uint64_t due_ns; /* open loop: when it was due; closed loop: when it was written */
    uint32_t count;  /* keys */
    uint16_t operation;
    bool counted; /* not one of the warm-up */
};

struct bench_connection {
    int fd; /* -1: none */
    const struct bench_protocol *protocol;
    const struct bench_target *target;
    const void *templates;
    void *state;                  /* of the protocol */
    struct bench_flight *flights; /* a ring, the oldest first */
    uint32_t depth;               /* its size: requests that may be under way */
    uint32_t first;
    uint32_t under_way;
    struct text unsent; /* what the socket had no room for */
    size_t sent;        /* of `unsent` */
    struct text rest;   /* the beginning of an answer */
    bool listed;        /* among those with room for a request (open loop) */
};

/* Connects one whose protocol, target, templates and depth are set, all else being zero, and says what the protocol
 * begins with. 0; or negative, and in error (cap bytes) why; either way it is to be closed. */
int bench_connection_open(struct bench_connection *connection, char *error, size_t cap);

/* Ends it, and gives back its memory. One that was never opened, whose fd is -1, is fine too. */
void bench_connection_close(struct bench_connection *connection);

/* Notes a request that is written next. There must be room: under_way < depth. */
void bench_connection_push(struct bench_connection *connection, const struct bench_flight *flight);

/* The oldest request under way; one that has its answer is taken away by the second. */
const struct bench_flight *bench_connection_oldest(const struct bench_connection *connection);
void bench_connection_pop(struct bench_connection *connection);

/* Sends bytes, behind those that wait already; keeps what the socket has no room for. 0 or -errno. */
int bench_connection_send(struct bench_connection *connection, const struct text *bytes);

/* Sends what waits, as far as the socket takes it. 0 or -errno. */
int bench_connection_flush(struct bench_connection *connection);

/* Reads once, behind the rest of the last time, into buffer (cap bytes). The slice of it that is to be looked at; or
 * -EAGAIN, -ECONNRESET at the end of the connection, -EMSGSIZE when an answer's beginning fills the buffer, or
 * another -errno. *ret_drained: the socket has no more now. */
int bench_connection_receive(struct bench_connection *connection,
                             uint8_t *buffer,
                             size_t cap,
                             struct nx_slice *ret_data,
                             bool *ret_drained);

/* Keeps what was not used for the next time. 0 or -ENOMEM. */
int bench_connection_keep(struct bench_connection *connection, struct nx_slice unused);

#endif
