/* Addresses of servers, and connections to them. */
#ifndef NX_BENCH_CONNECT_H
#define NX_BENCH_CONNECT_H

#include "common/config.h"

#include <stddef.h>
#include <sys/socket.h>

struct bench_target {
    char text[NX_ADDR_SIZE];      /* "host:port", as it was given */
    struct sockaddr_storage addr; /* once it was looked up */
    socklen_t length;
};

/* Checks "host:port" and keeps it: 0 or -EINVAL. Asks no name server. */
int bench_target_set(struct bench_target *target, const char *text);

/* Finds the address of a target: of a name that has several, the first that takes a connection. 0; or negative, and in error (cap bytes) why. */
int bench_target_look_up(struct bench_target *target, char *error, size_t cap);

/* Connects: a descriptor, non-blocking and without delay; or negative, and in error (cap bytes) why. */
int bench_connect(const struct bench_target *target, char *error, size_t cap);

#endif
