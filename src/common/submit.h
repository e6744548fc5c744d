/* Submission and completion rings: how http workers and the walreceiver hand writes to the
 * walwriter and learn what became of them. One pair of rings a producer, each ring with one writer
 * of its head and one of its tail, so no lock.
 *
 * A submission is a condition list and an operation list (NX_SUBMIT_WRITE), both already encoded, or
 * one whole WalEntry frame (NX_SUBMIT_FRAME, replicas). Larger ones than a piece go in several
 * records, which the walwriter puts together.
 *
 * A producer that is killed has published whole records or nothing: its successor goes on at the
 * published indexes under a new generation; the walwriter forgets half-assembled submissions of the
 * old one, and the successor drops completions of the old one. A producer never has more submissions
 * open than the completion ring has places, so the walwriter never waits for anybody. */
#ifndef NX_COMMON_SUBMIT_H
#define NX_COMMON_SUBMIT_H

#include "common/shm_layout.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum nx_submit_kind {
    NX_SUBMIT_WRITE = 1,
    NX_SUBMIT_FRAME = 2
};

enum nx_submit_flags {
    NX_SUBMIT_WANT_HITS = 1, /* completion.hits: count operations whose key existed before */
    /* The body is one put without a value: the key keeps the value that it has and gets this expiry, or none.
     * Absent: NOTHING. */
    NX_SUBMIT_TOUCH = 2,
};

/* What a submission asks. All pointers are the caller's and are copied before submit returns. */
struct nx_submission {
    enum nx_submit_kind kind;
    uint32_t flags;
    uint64_t ticket;           /* comes back in the completion */
    const uint8_t *conditions; /* encoded by nx_condition_encode, may be empty */
    size_t conditions_length;
    uint32_t condition_count;
    const uint8_t *body; /* WRITE: operations as in an entry (common/entry.h). FRAME: the frame */
    size_t body_length;
    uint32_t op_count;
};

/* Conditions, all of which must hold, judged against the newest version of each key.
 * Encoding: kind u8, pad u8, key_length u16, version_count u32, versions u64[], key bytes. */
enum nx_condition_kind {
    NX_CONDITION_ANY_OF = 1,  /* the key's version is one of these; 0 stands for "absent" */
    NX_CONDITION_NONE_OF = 2, /* it is none of these */
    NX_CONDITION_EXISTS = 3,  /* If-Match: * */
    NX_CONDITION_ABSENT = 4,  /* If-None-Match: * */
};

struct nx_condition {
    enum nx_condition_kind kind;
    const uint8_t *key;
    size_t key_length;
    const uint8_t *versions; /* version_count little-endian u64, unaligned */
    uint32_t version_count;
};

/* Bytes that nx_condition_encode will write. */
size_t nx_condition_size(const struct nx_condition *condition);
/* Writes it at out (nx_condition_size bytes) and returns that size. */
size_t nx_condition_encode(uint8_t *out, const struct nx_condition *condition);
/* Decodes one at *p, at most *left bytes, and advances both. 0 or -EBADMSG. */
int nx_condition_decode(const uint8_t **p, size_t *left, struct nx_condition *ret_condition);

/* What became of a submission. */
enum nx_submit_status {
    NX_SUBMIT_DONE = 0,       /* durable here: offset is the entry's */
    NX_SUBMIT_NOTHING = 1,    /* nothing to do (delete of an absent key): no entry */
    NX_SUBMIT_CONDITION = 2,  /* a condition failed: failed_index, actual */
    NX_SUBMIT_OVERLOADED = 3, /* no room in the log for too long */
    NX_SUBMIT_DISK_FULL = 4,
    NX_SUBMIT_MAP_FULL = 5,
    NX_SUBMIT_READ_ONLY = 6,  /* a WRITE on a replica, or a FRAME on a master */
    NX_SUBMIT_BAD_FRAME = 7,  /* offset, epoch or prev_crc doesn't follow: end the session */
    NX_SUBMIT_TOO_LARGE = 8,  /* doesn't fit an entry */
    NX_SUBMIT_DAMAGED = 9,    /* the record that a condition asks for has a wrong CRC */
    NX_SUBMIT_NO_QUORUM = 10, /* not logged: too few replicas could confirm it */
    NX_SUBMIT_FENCED = 15,    /* not logged: another node leads by now */
    /* Of http workers among themselves; the walwriter never answers so. */
    NX_SUBMIT_UNCONFIRMED = 11, /* logged at offset, but the quorum didn't confirm it in time */
    NX_SUBMIT_UNSETTLED = 12,   /* not logged, and what it was judged on isn't confirmed */
    NX_SUBMIT_STOPPED = 13,     /* not logged: replication is stopped */
    NX_SUBMIT_DRAINING = 14,    /* not logged: the node stops */
};

/* Posted when durable_offset covers what the answer was judged on. A FRAME gets one only when it is
 * refused, and then the ones behind it get none until one fits the log again: the walreceiver learns
 * of success by durable_offset alone. */
struct nx_completion {
    uint64_t ticket;
    uint64_t offset; /* DONE: the entry's; else the newest offset the judgment saw */
    uint64_t epoch;
    uint64_t actual; /* CONDITION: version of the first key that failed, 0 = absent */
    uint32_t
        generation;  /* of the producer that submitted; others' are dropped by nx_completion_next */
    uint32_t status; /* enum nx_submit_status */
    uint32_t failed_index; /* CONDITION: index of the first one that failed */
    uint32_t hits;         /* operations whose key existed before (WANT_HITS) */
    uint64_t reserved[2];
};
static_assert(sizeof(struct nx_completion) == 64, "one completion a cache line");

/* Slot of the process that has a pair of rings. */
unsigned nx_producer_slot(unsigned index);

/* ---- the producer's side (http worker, walreceiver) ---- */

struct nx_producer {
    struct nx_shm *shm;
    unsigned index;      /* which pair of rings */
    uint32_t generation; /* shm->slots[].generation of this process */
    uint64_t open;       /* WRITE submissions without a completion yet (frames don't count) */
    uint64_t head;       /* submission ring: what we published */
    size_t wanted;       /* size of the record that found no room there, or 0 */
    uint64_t seen;       /* completion ring: what we consumed */
};

/* Takes over the rings of producer `index` under `generation`; old completions will be dropped. */
void nx_producer_attach(struct nx_producer *producer,
                        struct nx_shm *shm,
                        unsigned index,
                        uint32_t generation);

/* Puts a submission into the ring and rings the walwriter. 0; -EAGAIN when it doesn't fit now (ring
 * or completion places: try again after the next completion or doorbell); -EMSGSIZE when it never
 * fits (larger than an entry may be). A submission of more than a piece may stop half-way with
 * -EAGAIN: *progress (0 at first) then says how far it is; call again with the same arguments, and
 * submit nothing else before it is through. */
int nx_submit(struct nx_producer *producer,
              const struct nx_submission *submission,
              size_t *progress);

/* True when what nx_submit had no room for fits now. For the second look before sleep: the walwriter
 * rings a sleeping producer only. */
bool nx_submit_possible(const struct nx_producer *producer);

/* Next completion of this generation: true and *ret_completion, or false when none waits. */
bool nx_completion_next(struct nx_producer *producer, struct nx_completion *ret_completion);

/* True when a completion waits (the second look before sleep). */
bool nx_completion_waiting(const struct nx_producer *producer);

/* ---- the walwriter's side ---- */

/* A submission as the walwriter sees it; pointers are into the ring or into the assembly buffer and
 * stay valid until nx_consumer_release. */
struct nx_received {
    enum nx_submit_kind kind;
    uint32_t flags;
    uint32_t generation;
    uint64_t ticket;
    const uint8_t *conditions;
    size_t conditions_length;
    uint32_t condition_count;
    const uint8_t *body;
    size_t body_length;
    uint32_t op_count;
};

struct nx_consumer {
    struct nx_shm *shm;
    unsigned index;
    uint64_t tail;            /* submission ring: what we consumed */
    uint64_t posted;          /* completion ring: what we published */
    uint64_t pending_release; /* bytes of the record that nx_received points into */
    uint8_t *assembly;        /* buffer for submissions in pieces, or NULL */
    size_t assembled;
    uint32_t assembly_generation;
    struct nx_received partial; /* header of the submission being assembled */
};

/* Starts on fresh rings. */
void nx_consumer_attach(struct nx_consumer *consumer, struct nx_shm *shm, unsigned index);
/* True when something stands in the ring. */
bool nx_consumer_waiting(const struct nx_consumer *consumer);
/* Next whole submission: 1 and *ret; 0 when none is whole yet; -ENOMEM when there is no memory to put one
 * together, and *ret says only whose it is (kind, generation, ticket): it is gone and to be answered. */
int nx_consumer_next(struct nx_consumer *consumer, struct nx_received *ret_received);
/* Done with what nx_consumer_next gave: its bytes may be overwritten by the producer. */
void nx_consumer_release(struct nx_consumer *consumer);
/* Posts a completion (there is always room), unless the process that submitted is gone. The caller rings
 * the producer's slot afterwards. */
void nx_completion_post(struct nx_consumer *consumer, const struct nx_completion *completion);

#endif
