/* Runs in http workers. Reads the epoch history, which the walwriter publishes; see history.h. */
#include "http/history.h"

#include "http/connection.h"
#include "http/node.h"
#include "http/response.h"
#include "http/worker.h"

#include <inttypes.h>
#include <stdio.h>

/* ---- pure ---- */

/* The last offset at which that epoch, or an earlier one that the two may share, ends here. */
static uint64_t fork_of(const struct nx_http_history *history, uint64_t epoch)
{
    const struct nx_epochs *epochs = &history->epochs;
    uint64_t end = history->durable;

    for (unsigned i = epochs->count; i > 0; i--) {
        const struct nx_epoch *later = &epochs->list[i - 1];

        if (later->epoch <= epoch) {
            break;
        }
        end = later->first_offset - 1;
    }
    return end < history->durable ? end : history->durable;
}

/* Of an entry that is durable here. A client may have got its number later than it was written, with the epoch of
 * then (a key's version): whoever led in an epoch of this history held all that stands before its end here. An
 * entry older than the history is of an epoch before the oldest in it. */
static bool is_held(const struct nx_http_history *history, const struct client_offset *wanted)
{
    const struct nx_epochs *epochs = &history->epochs;
    uint64_t epoch = nx_epochs_at(epochs, wanted->offset);

    if (epoch == wanted->epoch ||
        (epoch < wanted->epoch && nx_epochs_end_of(epochs, wanted->epoch) != 0)) {
        return true;
    }
    if (epoch != 0) {
        return false;
    }
    return epochs->count > 0 ? wanted->epoch < epochs->list[0].epoch
                             : wanted->epoch <= history->epoch;
}

enum nx_http_history_verdict nx_http_history_judge(const struct nx_http_history *history,
                                                   const struct client_offset *wanted,
                                                   uint64_t *ret_fork)
{
    bool here = wanted->offset <= history->durable;

    if (here && (wanted->offset == 0 || is_held(history, wanted))) {
        return NX_HISTORY_HELD;
    }
    *ret_fork = fork_of(history, wanted->epoch);
    if (here || wanted->epoch < history->epoch) {
        return NX_HISTORY_CHANGED;
    }
    return wanted->epoch > history->epoch ? NX_HISTORY_LATER : NX_HISTORY_AHEAD;
}

/* ---- this node's ---- */

int nx_http_history_now(struct nx_shm *shm, const struct nx_http_history **ret_history)
{
    static struct nx_http_history history;
    const struct nx_epoch *last;
    int rc;

    /* The epoch first: entries that come meanwhile can only make it too low, which is found out when the
     * offset is reached. */
    history.epoch = nx_node_epoch(shm);
    history.durable = nx_node_durable(shm);
    rc = nx_epochs_read(shm, history.durable, &history.epochs);
    if (rc < 0) {
        return rc;
    }
    last = nx_epochs_last(&history.epochs);
    if (last != NULL && last->epoch > history.epoch) {
        history.epoch = last->epoch;
    }
    *ret_history = &history;
    return 0;
}

void nx_http_history_refuse(struct connection *connection,
                            const struct client_offset *wanted,
                            uint64_t fork)
{
    struct nx_shm *shm = connection->worker->shm;
    struct problem problem = {
        .code = NX_ERROR_HISTORY_CHANGED,
        .has_offset = true,
        .offset = fork,
        .seen = nx_node_durable(shm),
        .epoch = nx_node_epoch(shm),
    };

    if (wanted->epoch > problem.epoch) {
        snprintf(problem.message, sizeof problem.message,
                 "This node's history does not hold entry %" PRIu64 " of epoch %" PRIu64
                 ": it has not heard of that epoch (its own is %" PRIu64
                 "). Ask the master of that one.",
                 wanted->offset, wanted->epoch, problem.epoch);
    } else {
        snprintf(problem.message, sizeof problem.message,
                 "This node's history does not hold entry %" PRIu64 " of epoch %" PRIu64
                 ": it has nothing of that epoch behind entry %" PRIu64
                 ", since another node was promoted there. Read again what was written behind it, "
                 "and write what is missing once more.",
                 wanted->offset, wanted->epoch, fork);
    }
    nx_respond_problem(connection, &problem);
}

static bool names_epoch(const struct client_offset *wanted, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (wanted[i].epoch > 0) {
            return true;
        }
    }
    return false;
}

bool nx_http_history_check(struct connection *connection,
                           const struct client_offset *wanted,
                           size_t count,
                           bool may_come)
{
    const struct nx_http_history *history;
    uint64_t fork = 0;

    if (!names_epoch(wanted, count)) {
        return true; /* the usual case, which costs nothing */
    }
    if (nx_http_history_now(connection->worker->shm, &history) < 0) {
        nx_refuse(
            connection, NX_ERROR_OVERLOADED,
            "This node's epochs are being written at the moment, so that an offset with its epoch "
            "can't be judged; try again.");
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        enum nx_http_history_verdict verdict =
            wanted[i].epoch == 0 ? NX_HISTORY_HELD
                                 : nx_http_history_judge(history, &wanted[i], &fork);

        if (verdict == NX_HISTORY_CHANGED || (verdict == NX_HISTORY_LATER && !may_come)) {
            nx_http_history_refuse(connection, &wanted[i], fork);
            return false;
        }
    }
    return true;
}
