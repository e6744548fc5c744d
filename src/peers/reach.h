/* Reaching "host:port" before a deadline: the addresses that a name has are tried in turn, each with its share of
 * the time until it is connected. How a try is made is the kind's: one HTTP request (http_ask.h), or a
 * connection to a replication port (dial.h).
 *
 * A name is asked of the hosts file and the name servers; an address asks nobody, and costs nothing. */
#ifndef NX_PEERS_REACH_H
#define NX_PEERS_REACH_H

#include "peers/loop.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define NX_MOST_ADDRESSES 8 /* of one name */

struct nx_reach;
struct nx_reach_query;

struct nx_address {
    struct sockaddr_storage addr;
    socklen_t length;
};

struct nx_reach_kind {
    /* Begins a try; its end is told by nx_reach_succeed or nx_reach_fail, also from within. 0 or -errno. */
    int (*begin)(struct nx_reach *reach, const struct nx_address *address);
    /* Whether the try has got as far as a connection. */
    bool (*connected)(const struct nx_reach *reach);
    /* Frees what a try has. Harmless when there is nothing. */
    void (*drop)(struct nx_reach *reach);
};

struct nx_reach {
    struct nx_loop *loop; /* NULL: never begun */
    const struct nx_reach_kind *kind;
    char addr[NX_ADDR_TEXT]; /* "host:port", as asked for */
    unsigned limit_ms;
    uint64_t deadline_ms;
    struct nx_address addresses[NX_MOST_ADDRESSES];
    unsigned count;
    unsigned next; /* address to try */
    struct nx_reach_query *query;
    struct event *timer; /* of the address's share or, when `last`, of the deadline */
    bool last;
    struct event *turn; /* what a try's end leads to, once its callbacks are through */
    bool open;
    char why[160]; /* of a failure, where the kind knows more than a number; "": no more */
    int outcome;   /* 0, or -errno; -ETIMEDOUT: the deadline; -ENXIO: the name can't be resolved */
};

/* Begins; the end of it is !reach->open. addr: what nx_net_parse takes. */
void nx_reach_begin(struct nx_reach *reach,
                    struct nx_loop *loop,
                    const struct nx_reach_kind *kind,
                    const char *addr,
                    unsigned limit_ms);

/* The kind's words: this try has what it wanted, or hasn't (-errno). The first one counts. */
void nx_reach_succeed(struct nx_reach *reach);
void nx_reach_fail(struct nx_reach *reach, int outcome);

/* Frees all of it, over or not. Harmless on one that was never begun. */
void nx_reach_abandon(struct nx_reach *reach);

/* Why nothing came of it, in a few words ("no answer within 1000 ms"). Returns buf. */
const char *nx_reach_text(const struct nx_reach *reach, char *buf, size_t cap);

#endif
