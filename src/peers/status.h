/* What other nodes answer: GET /replication/status, and the two answers to POST /replication/promise. A stranger's
 * text until it has passed here: then ids are canonical UUIDs, addresses are addresses, numbers are in range.
 * Pure functions. */
#ifndef NX_PEERS_STATUS_H
#define NX_PEERS_STATUS_H

#include "common/epochs.h"
#include "common/shm_layout.h"
#include "storage/position.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Highest epoch and offset that is believed: what is counted on from there stays a number. */
#define NX_PEER_MOST_NUMBER ((uint64_t)INT64_MAX)

struct nx_peer_status {
    enum nx_node_role role;
    bool fenced;   /* a master that leads no longer */
    bool starting; /* it serves nobody yet */
    char node_id[NX_UUID_TEXT];
    char cluster_id[NX_UUID_TEXT]; /* "": it belongs to none yet */
    uint64_t epoch;                /* that its new entries would get */
    struct nx_position position;   /* durable there */
    struct nx_position vouched;    /* what its promise would tell (synced.h): mostly the same */
    char replication_addr[NX_ADDR_TEXT]; /* "": none that could be dialled */
    struct nx_fence leader;              /* who leads, as it knows; epoch 0: it doesn't say */
};

struct nx_peer_promise {
    char node_id[NX_UUID_TEXT];
    char cluster_id[NX_UUID_TEXT];
    struct nx_position position; /* durable there */
};

struct nx_peer_refusal {
    char code[32];     /* of error_codes.def, or "" */
    uint64_t epoch;    /* that it is in, or has promised; 0: it doesn't say */
    char message[160]; /* printable ASCII, perhaps cut; may be "" */
};

/* addr: where it was asked ("host:port"): the host of a replication_addr that names none. 0, or -EBADMSG: it is no
 * status of a Nexus node. */
int nx_status_parse(const char *text,
                    size_t length,
                    const char *addr,
                    struct nx_peer_status *ret_status);

/* The history that a status shows: who led from which entry on, the newest epochs at least. 0, or -EBADMSG: none that
 * could be. */
int nx_history_parse(const char *text, size_t length, struct nx_epochs *ret_epochs);

/* 0, or -EBADMSG: it promises nothing. */
int nx_promise_parse(const char *text, size_t length, struct nx_peer_promise *ret_promise);

/* What can be read of a problem document; nothing of anything else. */
void nx_refusal_parse(const char *text, size_t length, struct nx_peer_refusal *ret_refusal);

/* By epoch, then by offset. Below 0: a is behind; above 0: it is ahead. */
int nx_position_compare(const struct nx_position *a, const struct nx_position *b);

#endif
