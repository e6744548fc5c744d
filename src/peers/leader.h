/* Who leads: what a node concludes from the status of others. Leadership is ordered by epoch, then by node id.
 * Pure functions. */
#ifndef NX_PEERS_LEADER_H
#define NX_PEERS_LEADER_H

#include "common/epochs.h"
#include "common/shm_layout.h"
#include "peers/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Stands where it isn't known who leads, only that somebody does. */
#define NX_NODE_NOBODY "00000000-0000-0000-0000-000000000000"

/* This node, as it compares itself with others. */
struct nx_self {
    char node_id[NX_UUID_TEXT];
    char cluster_id[NX_UUID_TEXT]; /* "": of none */
    uint64_t epoch;
    bool yields;               /* it would lead in an epoch only that is yet to begin */
    char led_by[NX_UUID_TEXT]; /* who began `epoch`, where this one yields; "": not known */
};

/* A node, and where it is asked. */
struct nx_peer_seen {
    const char *addr; /* HTTP */
    bool believed;    /* this node's own configuration names it, or it proves what it says */
    struct nx_peer_status status;
};

/* Whether it is another node of our cluster, with an epoch that can be. */
bool nx_peer_is_ours(const struct nx_peer_status *status, const struct nx_self *self);

/* Leadership of (epoch, node id) against our own: below 0: lower; above 0: higher. */
int nx_leads_before(uint64_t epoch, const char *node_id, const struct nx_self *self);

/* Whether it takes writes: a master that isn't fenced. */
bool nx_peer_leads(const struct nx_peer_status *status);

/* Whether this one shows that a master with our epoch leads no longer: it leads itself, or it knows a higher epoch. */
bool nx_peer_leads_instead(const struct nx_peer_status *status, const struct nx_self *self);

/* Whether the history that a node shows proves what its status says of its epoch, and that it leads, if it says so: it
 * ends with that epoch, and has an epoch of ours. As much as a claim proves (protocol: Hello): it tells nodes of our
 * history from others; whoever may read our status can make one up. ours: that of our log; NULL: it is empty, the beginning of any. */
bool nx_peer_proves(const struct nx_peer_status *status,
                    const struct nx_epochs *theirs,
                    const struct nx_epochs *ours);

/* The one of them, of those that are believed, that leads instead, as the text of NX_CONTROL_FENCE. A master before others; where only others
 * know a higher epoch, nobody's name. False: none does. */
bool nx_leader_choose(const struct nx_peer_seen *seen,
                      unsigned count,
                      const struct nx_self *self,
                      char *text,
                      size_t cap);

/* That text for one leader; addresses may be "". */
void nx_leader_text(uint64_t epoch,
                    const char *node_id,
                    const char *replication_addr,
                    const char *http_addr,
                    char *text,
                    size_t cap);

#endif
