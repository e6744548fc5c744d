/* New connections of an http worker. All workers listen on the same sockets, and whoever looks first would have most of
 * the connections, while others sleep beside it: so one that has more of them than another leaves a new one to that
 * for a moment. */
#ifndef NX_HTTP_ACCEPT_H
#define NX_HTTP_ACCEPT_H

#include <stdbool.h>
#include <stdint.h>

struct event;
struct http_worker;

struct acceptor {
    struct event *tcp;
    struct event *local;     /* the Unix socket: its connections go to whoever is first */
    struct event *retry;     /* after a shortage of descriptors or memory */
    struct event *resume;    /* ends the time that others have for a connection */
    bool leaving;            /* new connections to them */
    bool short_of;           /* descriptors or memory: until `retry` none is taken */
    uint64_t alone_until_us; /* they had it in vain: until then nothing is left to them */
};

/* Begins to accept. False: no memory. */
bool nx_accept_begin(struct http_worker *worker);

/* Takes what comes again, once no other worker has fewer connections. */
void nx_accept_poll(struct http_worker *worker);

/* Accepts no more. */
void nx_accept_stop(struct http_worker *worker);

/* Gives up what it has; its loop still stands. */
void nx_accept_end(struct http_worker *worker);

#endif
