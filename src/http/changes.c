/* Runs in http workers. GET /changes: from where a client wants to follow the log, and whether that can be. How
 * it is served from then on: followers.c. */
#include "http/changes.h"

#include "common/quorum.h"
#include "common/shared_log.h"
#include "http/bounds.h"
#include "http/connection.h"
#include "http/history.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"

#include <inttypes.h>
#include <stdio.h>

static struct follower *follower_of(struct connection *connection)
{
    return connection->request->state;
}

/* ---- the stream ---- */

static void on_drained(struct connection *connection)
{
    nx_follower_drained(follower_of(connection));
}

static void on_eof(struct connection *connection)
{
    nx_follower_eof(follower_of(connection));
}

static void on_closed(struct connection *connection)
{
    nx_follower_leave(follower_of(connection));
    nx_follower_free(follower_of(connection));
    connection->request->state = NULL;
}

static const struct stream changes_stream = {
    .drained = on_drained,
    .eof = on_eof,
    .closed = on_closed,
};

/* ---- from where ---- */

static bool parse_offset(struct connection *connection,
                         const struct nx_slice *value,
                         const char *what,
                         struct client_offset *ret_offset)
{
    if (value == NULL || nx_client_offset_parse(*value, ret_offset) == 0) {
        return true;
    }
    nx_refuse(
        connection, NX_ERROR_BAD_PARAMETER,
        "%s must be an offset N, or N@E with its epoch: that of the last entry that you have.",
        what);
    return false;
}

/* Last-Event-ID, which is where a client was cut off; else `since`; else what is committed now. False:
 * answered. */
static bool take_since(struct connection *connection, struct client_offset *ret_since)
{
    const struct request *request = connection->request;

    *ret_since = (struct client_offset){nx_committed_offset(connection->worker->shm), 0};
    if (nx_request_header_count(request, "Last-Event-ID") > 1) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER, "Last-Event-ID must be given once.");
        return false;
    }
    return parse_offset(connection, nx_query_find(&request->query, "since"), "Parameter 'since'",
                        ret_since) &&
           parse_offset(connection, nx_request_header(request, "Last-Event-ID"), "Last-Event-ID",
                        ret_since);
}

/* Whether what follows it is still kept. False: answered. */
static bool check_kept(struct connection *connection, const struct client_offset *since)
{
    struct http_worker *worker = connection->worker;
    struct problem problem = {
        .code = NX_ERROR_HISTORY_GONE,
        .oldest =
            nx_log_oldest_kept(worker->shm, worker->process->config->replication.max_log_size),
    };

    if (since->offset >= problem.oldest - 1) {
        return true;
    }
    snprintf(problem.message, sizeof problem.message,
             "Entries up to %" PRIu64 " are no longer kept here, so that those behind %" PRIu64
             " can't be told. Read all keys anew with GET /export, then follow with since=N@E: the "
             "Nexus-Offset and Nexus-Epoch of that answer.",
             problem.oldest - 1, since->offset);
    nx_respond_problem(connection, &problem);
    return false;
}

/* The epoch of an entry, 0: not known. Before the first one any will do. */
static uint64_t epoch_at(struct nx_shm *shm, uint64_t offset)
{
    const struct nx_http_history *history;

    if (offset == 0) {
        return nx_node_epoch(shm);
    }
    if (nx_http_history_now(shm, &history) < 0 || offset > history->durable) {
        return 0;
    }
    return nx_epochs_at(&history->epochs, offset);
}

/* ---- the beginning ---- */

static void begin(struct connection *connection, struct follower *follower)
{
    struct nx_shm *shm = connection->worker->shm;
    struct response response = {
        .status = 200,
        .type = "text/event-stream",
        .has_offset = true,
        .offset = follower->at.offset,
        .epoch = follower->at.epoch > 0 ? follower->at.epoch : nx_node_epoch(shm),
        .headers = "Cache-Control: no-store\r\n",
    };

    if (!nx_respond_begin(connection, &response)) {
        nx_follower_free(follower); /* HEAD */
        return;
    }
    connection->request->state = follower;
    connection->request->stream = &changes_stream;
    nx_request_shed(connection->request);
    nx_follower_join(follower);
}

void nx_handle_changes(struct connection *connection)
{
    struct http_worker *worker = connection->worker;
    struct nx_slice prefix;
    struct client_offset since;
    struct follower *follower;

    if (connection->request->local) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "Changes are of the committed state: they can't be had with Nexus-Read: local.");
        return;
    }
    if (!nx_bounds_param(connection, "prefix", &prefix)) {
        return;
    }
    if (worker->stopping) {
        nx_refuse(connection, NX_ERROR_ROLE_CHANGE, "This node is stopping; ask another one.");
        return;
    }
    if (!take_since(connection, &since) || !nx_http_history_check(connection, &since, 1, true) ||
        !check_kept(connection, &since)) {
        return;
    }
    if (since.epoch == 0) {
        since.epoch = epoch_at(worker->shm, since.offset);
    }
    follower = nx_follower_create(connection, since, prefix);
    if (follower == NULL) {
        nx_refuse(connection, NX_ERROR_OVERLOADED, "Memory is short on this node.");
        return;
    }
    begin(connection, follower);
}
