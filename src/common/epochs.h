/* The epoch history: which node led from which entry on (protocol.md, "Hello", `epochs`).
 *
 * Epoch 1 begins without an entry; every later one has its own, whose key is the id of the node that was made
 * master by it. Two logs that name the same epoch, begun by the same entry, are one log as far as both go in
 * it: one node alone wrote it. So where two histories part is known from these records and both ends.
 *
 * Pure functions, but for nx_epochs_read and nx_epochs_publish, which copy to and from shared memory. */
#ifndef NX_COMMON_EPOCHS_H
#define NX_COMMON_EPOCHS_H

#include "common/bytes.h"
#include "common/entry.h"
#include "common/wire_frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nx_shm;

/* A claim is the whole frame of an epoch entry. */
#define NX_CLAIM_SIZE (NX_ENTRY_OVERHEAD + NX_OP_HEADER + NX_OP_NODE_ID)

/* An epoch this far above our own is no honest one: no claim of it is believed. What is promised stays well below that:
 * a promotion begins an epoch above all promises, and the other nodes must believe it. */
#define NX_MOST_EPOCHS_AHEAD   1000
#define NX_MOST_PROMISED_AHEAD (NX_MOST_EPOCHS_AHEAD / 2)

struct nx_epoch {
    uint64_t epoch;
    uint64_t first_offset;          /* of its epoch entry; of epoch 1: 1 */
    uint8_t node_id[NX_OP_NODE_ID]; /* who leads in it; zeros: not known (epoch 1 of an old log) */
    uint32_t crc;                   /* of the frame of its epoch entry; of epoch 1: 0 */
};

/* The newest epochs of one log, oldest first, both numbers ascending. */
struct nx_epochs {
    unsigned count;
    struct nx_epoch list[NX_WIRE_MAX_EPOCHS];
    uint32_t claim_length; /* NX_CLAIM_SIZE, or 0: the last one has no entry, or it isn't known */
    uint8_t claim[NX_CLAIM_SIZE]; /* frame of the last epoch's entry */
};

/* Bytes of a history when encoded, at most. */
#define NX_EPOCHS_BYTES ((size_t)NX_WIRE_MAX_EPOCHS * NX_WIRE_EPOCH_SIZE)

/* The newest, or NULL of an empty history. */
static inline const struct nx_epoch *nx_epochs_last(const struct nx_epochs *epochs)
{
    return epochs->count == 0 ? NULL : &epochs->list[epochs->count - 1];
}

/* Adds an epoch behind the newest; the oldest goes where the list is full. claim: the frame of its entry,
 * NX_CLAIM_SIZE bytes, or NULL. 0, or -EINVAL: it isn't behind the newest. */
int nx_epochs_add(struct nx_epochs *epochs, const struct nx_epoch *epoch, const uint8_t *claim);

/* Forgets the epochs that begin behind this offset. */
void nx_epochs_cut(struct nx_epochs *epochs, uint64_t offset);

/* Of which epoch the entry at this offset is; 0: the history doesn't reach back so far. */
uint64_t nx_epochs_at(const struct nx_epochs *epochs, uint64_t offset);

/* The last offset of an epoch, UINT64_MAX of the newest one; 0: this history has no such epoch. */
uint64_t nx_epochs_end_of(const struct nx_epochs *epochs, uint64_t epoch);

/* The last offset of this epoch or an earlier one; UINT64_MAX: there is no later one. */
uint64_t nx_epochs_end_up_to(const struct nx_epochs *epochs, uint64_t epoch);

/* Whether both are the same epoch: number, first entry and its CRC, and node, where both know that. */
bool nx_epoch_same(const struct nx_epoch *a, const struct nx_epoch *b);

/* Whether this history has that very epoch. */
bool nx_epochs_have(const struct nx_epochs *epochs, const struct nx_epoch *epoch);

/* Leadership: by epoch, then by node id. Below 0: a is lower; 0: the same; above 0: a is higher. */
int nx_epoch_compare(const struct nx_epoch *a, const struct nx_epoch *b);

/* Where the logs part: the last offset that both have in common, a's log ending at a_end and b's at b_end.
 * False: no epoch of one is in the other, so nothing can be said. */
bool nx_epochs_fork(const struct nx_epochs *a,
                    uint64_t a_end,
                    const struct nx_epochs *b,
                    uint64_t b_end,
                    uint64_t *ret_fork);

/* Whether this node (a UUID's text) leads in the newest epoch. */
bool nx_epochs_led_by(const struct nx_epochs *epochs, const char *node_id);

/* Whether it led in this epoch, which the history has, and in all that followed. */
bool nx_epochs_led_since(const struct nx_epochs *epochs, uint64_t epoch, const char *node_id);

/* To and from the bytes of Hello, Welcome and the state. buf has NX_EPOCHS_BYTES; returns the length. Decode:
 * 0, or -EBADMSG: not whole records, too many, not ascending, or epoch 0. The claim isn't among the bytes. */
size_t nx_epochs_encode(const struct nx_epochs *epochs, uint8_t *buf);
int nx_epochs_decode(struct nx_slice bytes, struct nx_epochs *ret_epochs);

/* Reads the epoch entry of a claim. 0 and *ret_epoch; -EBADMSG: not the whole frame of an epoch entry with a right
 * CRC. */
int nx_claim_decode(struct nx_slice frame, struct nx_epoch *ret_epoch);

/* The history of this node's log up to and with this offset, which is durable (nx_log_position). 0; or -EAGAIN, and
 * an empty one: it is being replaced for longer than 0.1 s, since the walwriter was stopped meanwhile. */
int nx_epochs_read(const struct nx_shm *shm, uint64_t offset, struct nx_epochs *ret_epochs);

/* Replaces it (walwriter), before the offset of its newest epoch is published. */
void nx_epochs_publish(struct nx_shm *shm, const struct nx_epochs *epochs);

#endif
