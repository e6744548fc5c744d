/* Writes on their way to the walwriter: from a handler into the ring, and their completions back to it.
 *
 *     GATED ──> RING ──> CONFIRMING ──> done      quorum, all
 *               RING ──────────────────> done      local
 *
 * Where more than this node's disk is asked for, a write waits at the gate until enough replicas stand ready
 * (not logged until then), and after its completion until they have it; both within sync_timeout_ms. What
 * finds no room in the ring waits in order; a connection that goes away leaves its submissions behind as
 * orphans, whose completions are dropped. */
#ifndef NX_HTTP_SUBMISSIONS_H
#define NX_HTTP_SUBMISSIONS_H

#include "common/submit.h"
#include "common/text.h"
#include "http/durability.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct connection;
struct http_worker;

typedef void (*submission_done)(struct connection *connection,
                                const struct nx_completion *completion,
                                uint64_t argument);

struct submission {
    LIST_ENTRY(submission) owned;    /* in owner->submissions */
    STAILQ_ENTRY(submission) wait;   /* in submissions->gated, waiting or free */
    TAILQ_ENTRY(submission) confirm; /* in submissions->confirming */
    struct connection *owner;        /* NULL: an orphan */
    submission_done done;
    uint64_t argument;
    struct nx_submission what;
    enum nx_durability durability;
    uint64_t deadline_ms;            /* of a durability beyond this node */
    struct nx_completion completion; /* while it is being confirmed */
    struct text body;                /* owned bytes that `what` points into */
    struct text conditions;
    size_t progress;   /* of nx_submit */
    uint32_t index;    /* in submissions->table: lower half of the ticket */
    uint32_t sequence; /* upper half: a late completion never finds the wrong one */
};

STAILQ_HEAD(submission_queue, submission);
TAILQ_HEAD(submission_list_of, submission);

struct submissions {
    struct submission **table;
    uint32_t count;
    uint32_t cap;
    struct submission_queue free;
    struct submission_queue gated;        /* for replicas */
    struct submission_queue waiting;      /* for room in the ring; the first may be half in */
    struct submission_list_of confirming; /* in the log's order */
    unsigned confirming_all;              /* of them, those with ALL */
    uint64_t check_ms;                    /* when deadlines are looked at next; 0: nothing waits */
    uint64_t end_ms; /* of all waits for replicas, as the node stops; UINT64_MAX: it doesn't */
};

/* What a handler asks for. The buffers are swapped away: `body` holds the operations from byte
 * `body_from` on. */
struct write_request {
    struct text *body;
    size_t body_from;
    struct text *conditions; /* may be NULL */
    uint32_t op_count;
    uint32_t condition_count;
    uint32_t flags; /* enum nx_submit_flags */
    submission_done done;
    uint64_t argument;
};

void nx_submissions_init(struct submissions *submissions);
void nx_submissions_free(struct submissions *submissions);

/* Submits a write for a connection. `done` is called once from the worker's loop, unless the
 * connection is gone by then. 0, -ENOMEM, or -EMSGSIZE (it never fits an entry). */
int nx_submissions_put(struct connection *connection, const struct write_request *write);

/* Hands out the completions that wait, then retries what found no room. True when there were any. */
bool nx_submissions_poll(struct http_worker *worker);

/* The connection goes away. */
void nx_submissions_disown(struct connection *connection);

#endif
