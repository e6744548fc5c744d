/* Offsets as clients give them, N@E: whether this node's history holds entry N of epoch E. A number alone says
 * nothing of the history that it is of: after a failover another entry may have it. */
#ifndef NX_HTTP_HISTORY_H
#define NX_HTTP_HISTORY_H

#include "common/epochs.h"
#include "http/conditions.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct connection;
struct nx_shm;

/* This node's history at one moment. Large (some 40 KB): not for a stack. */
struct nx_http_history {
    uint64_t epoch; /* that the next entry has, or a later one */
    uint64_t durable;
    struct nx_epochs epochs; /* up to the durable offset */
};

enum nx_http_history_verdict {
    NX_HISTORY_HELD,   /* it is here, or so old that its epoch can't be told */
    NX_HISTORY_AHEAD,  /* it may be the entry that comes at this offset */
    NX_HISTORY_LATER,  /* the same, but of an epoch that this node has not heard of */
    NX_HISTORY_CHANGED /* it isn't here, and won't come to this history */
};

/* Judges an offset with its epoch. *ret_fork: the last offset up to which this history and that epoch can be
 * the same; set unless it is held. */
enum nx_http_history_verdict nx_http_history_judge(const struct nx_http_history *history,
                                                   const struct client_offset *wanted,
                                                   uint64_t *ret_fork);

/* The history as it is now; in place until the next call. 0, or -EAGAIN: it can't be read at the moment. */
int nx_http_history_now(struct nx_shm *shm, const struct nx_http_history **ret_history);

/* Judges those of a client's offsets that name an epoch. may_come: what isn't here yet does no harm; else an
 * epoch that this node has not heard of is another history. False: answered, with 410, or 503 when the history
 * can't be read. */
bool nx_http_history_check(struct connection *connection,
                           const struct client_offset *wanted,
                           size_t count,
                           bool may_come);

/* 410 history_changed. */
void nx_http_history_refuse(struct connection *connection,
                            const struct client_offset *wanted,
                            uint64_t fork);

#endif
