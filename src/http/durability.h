/* What a write's answer promises (sync mode, Nexus-Durability), what a linearizable read asks first
 * (Nexus-Read), and how many nodes have an entry on disk. Runs in http workers, over common/quorum.h. */
#ifndef NX_HTTP_DURABILITY_H
#define NX_HTTP_DURABILITY_H

#include "common/quorum.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct connection;
struct http_worker;

enum nx_durability {
    NX_DURABILITY_LOCAL,  /* durable here */
    NX_DURABILITY_QUORUM, /* and on sync_quorum replicas */
    NX_DURABILITY_ALL,    /* and on every connected streaming replica */
};

/* Takes the write's durability from its header, else from the mode. False: answered. */
bool nx_durability_take(struct connection *connection);

/* The connected replicas as they are in this turn of the worker's loop. */
const struct nx_replica_views *nx_durability_replicas(struct http_worker *worker);

/* Whether enough replicas stand ready to confirm a write that asks for more than LOCAL. */
bool nx_durability_possible(struct http_worker *worker);

/* Whether entry `offset` is where `durability` wants it. */
bool nx_durability_reached(struct http_worker *worker,
                           enum nx_durability durability,
                           uint64_t offset);

/* "2/3": nodes that have the entry on disk, of this one and the replicas that it knows. On a replica: of
 * itself and its master. */
void nx_durability_nodes(struct http_worker *worker, uint64_t offset, char *text, size_t cap);

/* The header with them into text, where the request's answer has one; else "". */
void nx_durability_header(struct connection *connection, uint64_t offset, char *text, size_t cap);

/* The latest moment at which the quorum is known to have followed this master, CLOCK_MONOTONIC us. */
uint64_t nx_durability_confirmed_us(struct http_worker *worker);

/* For a linearizable read: whether the quorum has confirmed, since the request came, that this master
 * leads. False: it waits for that, or is answered. */
bool nx_durability_leads(struct connection *connection);

#endif
