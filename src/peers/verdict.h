/* Whether a replica may be promoted: the rules, over what was gathered from the others. Pure functions.
 *
 * Of N nodes, one the master, R = N - 1 are replicas, and `replication.peers` lists the other N - 1. What Q of the
 * replicas have confirmed is on at least one of any R - Q + 1 of them: so many positions, this node's own
 * included, must be known (of nodes that have promised to confirm nothing more in a lower epoch), and this node's
 * must be the highest, and then it has every write that was confirmed. */
#ifndef NX_PEERS_VERDICT_H
#define NX_PEERS_VERDICT_H

#include "common/control.h"
#include "common/peer_list.h"
#include "common/shm_layout.h"
#include "storage/position.h"

#include <stdbool.h>
#include <stdint.h>

enum nx_peer_answer {
    NX_PEER_UNREACHED, /* no answer, or none that counts: another cluster's, nonsense */
    NX_PEER_SELF,      /* the list names this node too */
    NX_PEER_REFUSES,
    NX_PEER_PROMISES /* dry run: it isn't asked, and could */
};

struct nx_peer_fact {
    char addr[NX_ADDR_TEXT];
    enum nx_peer_answer answer;
    char node_id[NX_UUID_TEXT];  /* "": not known */
    bool placed;                 /* position is known */
    bool leads;                  /* it is a master that isn't fenced */
    struct nx_position position; /* durable there */
    uint64_t epoch;              /* highest that it is in or has promised; 0: not known */
    char why[224];               /* UNREACHED, REFUSES: in a few words */
};

struct nx_promotion {
    bool dry_run;
    bool force;
    bool sync;          /* the quorum rules */
    bool becomes_async; /* it ruled in the cluster up to now, and won't on this node */
    bool confirms;      /* this node's own mode is sync: its writes will wait for replicas */
    uint64_t epoch;     /* to begin */
    unsigned quorum;    /* Q */
    struct nx_position ours;
    uint64_t sync_goal;  /* of a full sync that isn't complete (synced.h); 0: it is */
    uint64_t first_goal; /* of a node that was never synced; 0: it was */
    /* The master that was followed: */
    char master_addr[NX_ADDR_TEXT]; /* its replication address; "": none */
    bool master_answers;
    uint64_t master_epoch;  /* of its answer; 0: none */
    uint64_t master_offset; /* highest that it was heard to have */
    bool master_heard;
    bool welcomed;             /* by it, since this node's start */
    uint64_t master_silent_ms; /* since it was last heard */
    unsigned count;
    struct nx_peer_fact peers[NX_MOST_PEERS];
};

struct nx_promotion_verdict {
    int status;                 /* 0, or -ECANCELED */
    bool forced;                /* 0, and a rule says no */
    char broken[1024];          /* which one, a sentence; "": none */
    char text[NX_CONTROL_TEXT]; /* of NX_CONTROL_VERDICT */
};

/* Positions that must be promised, this node's own among them: R - Q + 1; 0: nobody could be asked. */
unsigned nx_promotion_needed(const struct nx_promotion *promotion);

/* The highest epoch that anybody asked has spoken of; 0: none. */
uint64_t nx_promotion_highest_epoch(const struct nx_promotion *promotion);

/* The peer that is further than this node, or NULL. */
const struct nx_peer_fact *nx_promotion_ahead(const struct nx_promotion *promotion);

void nx_promotion_judge(const struct nx_promotion *promotion,
                        struct nx_promotion_verdict *ret_verdict);

#endif
