/* Runs in http workers. /health, /ready, /primary, /replica and the list of endpoints at /: open to
 * everybody, answered from shared memory alone. */
#include "common/fence.h"
#include "common/json_out.h"
#include "common/synced.h"
#include "http/connection.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"
#include "nexus_version.h"

#include <string.h>

#define MAX_REASONS 8

struct verdict {
    const char *reasons[MAX_REASONS];
    unsigned count;
};

static void add_reason(struct verdict *verdict, bool applies, const char *reason)
{
    if (applies && verdict->count < MAX_REASONS) {
        verdict->reasons[verdict->count++] = reason;
    }
}

static void respond_verdict(struct connection *connection, const struct verdict *verdict)
{
    struct http_worker *worker = connection->worker;
    struct text *text = &worker->json;
    struct json json = nx_json_of(text);

    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    nx_json_bool(&json, "ok", verdict->count == 0);
    nx_json_string(&json, "role", nx_node_role_name(nx_node_role(worker->shm)));
    nx_json_open(&json, "reasons", '[');
    for (unsigned i = 0; i < verdict->count; i++) {
        nx_json_string(&json, NULL, verdict->reasons[i]);
    }
    nx_json_close(&json, ']');
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_respond(connection, &(struct response){
                               .status = verdict->count == 0 ? 200 : 503,
                               .type = "application/json",
                               .body = nx_slice_of(text->data, text->length),
                               .allow = connection->request->parser.method == HTTP_OPTIONS
                                            ? "GET, HEAD, OPTIONS"
                                            : NULL,
                           });
}

void nx_handle_health(struct connection *connection)
{
    struct verdict verdict = {.count = 0};

    add_reason(&verdict, nx_node_phase(connection->worker->shm) == NX_PHASE_STARTING, "starting");
    respond_verdict(connection, &verdict);
}

/* A replica is behind until it has applied what its master had at the last Welcome. Before the first
 * one since its start nobody knows how far behind it is. */
static bool catching_up(struct nx_shm *shm)
{
    const struct nx_receiver_state *receiver = &shm->receiver;

    return nx_node_role(shm) == NX_NODE_REPLICA &&
           (atomic_load_explicit(&receiver->master_known, memory_order_acquire) == 0 ||
            nx_node_durable(shm) <
                atomic_load_explicit(&receiver->welcome_offset, memory_order_relaxed));
}

static void judge_ready(struct nx_shm *shm, uint64_t max_lag, struct verdict *verdict)
{
    bool not_synced = nx_not_synced(shm);

    add_reason(verdict, nx_node_phase(shm) == NX_PHASE_STARTING, "starting");
    add_reason(verdict, nx_fenced(shm), "fenced");
    add_reason(verdict, not_synced, "not_synced");
    add_reason(verdict, !not_synced && catching_up(shm), "catching_up");
    add_reason(verdict, nx_node_lag(shm) > max_lag, "lag");
    /* A replica that can't store what comes holds back reading, and doesn't hear how far it falls back. */
    add_reason(verdict,
               nx_node_role(shm) == NX_NODE_REPLICA &&
                   atomic_load_explicit(&shm->checkpoint.disk_state, memory_order_relaxed) ==
                       NX_DISK_FULL,
               "disk_full");
    add_reason(verdict,
               nx_node_role(shm) == NX_NODE_REPLICA &&
                   atomic_load_explicit(&shm->checkpoint.failures, memory_order_relaxed) > 0,
               "checkpoint_failing");
}

/* The bound of the lag: the parameter, else the configured one. False: answered. */
static bool take_max_lag(struct connection *connection, const char *name, uint64_t *ret_max_lag)
{
    char message[NX_MESSAGE_SIZE];

    *ret_max_lag = connection->worker->process->config->replication.max_ready_lag;
    if (nx_query_u64(&connection->request->query, name, 0, UINT64_MAX, ret_max_lag, message) < 0) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER, "%s", message);
        return false;
    }
    return true;
}

void nx_handle_ready(struct connection *connection)
{
    struct verdict verdict = {.count = 0};
    uint64_t max_lag;

    if (take_max_lag(connection, "max_lag", &max_lag)) {
        judge_ready(connection->worker->shm, max_lag, &verdict);
        respond_verdict(connection, &verdict);
    }
}

void nx_handle_primary(struct connection *connection)
{
    struct nx_shm *shm = connection->worker->shm;
    struct verdict verdict = {.count = 0};

    add_reason(&verdict, nx_node_role(shm) == NX_NODE_REPLICA, "not_primary");
    add_reason(&verdict, nx_node_phase(shm) == NX_PHASE_STARTING, "starting");
    add_reason(&verdict, nx_node_phase(shm) == NX_PHASE_DRAINING, "draining");
    add_reason(&verdict, nx_fenced(shm), "fenced");
    respond_verdict(connection, &verdict);
}

void nx_handle_replica(struct connection *connection)
{
    struct nx_shm *shm = connection->worker->shm;
    struct verdict verdict = {.count = 0};
    uint64_t max_lag;

    if (!take_max_lag(connection, "lag", &max_lag)) {
        return;
    }
    add_reason(&verdict, nx_node_role(shm) != NX_NODE_REPLICA, "not_replica");
    judge_ready(shm, max_lag, &verdict);
    add_reason(&verdict, nx_node_role(shm) == NX_NODE_REPLICA && !nx_node_connected(shm),
               "disconnected");
    respond_verdict(connection, &verdict);
}

void nx_handle_root(struct connection *connection)
{
    struct http_worker *worker = connection->worker;
    struct text *text = &worker->json;
    struct json json = nx_json_of(text);

    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    nx_json_string(&json, "name", "nexus");
    nx_json_string(&json, "version", NEXUS_VERSION);
    nx_json_string(&json, "role", nx_node_role_name(nx_node_role(worker->shm)));
    nx_json_open(&json, "endpoints", '[');
    for (unsigned i = 0; i < nx_route_count; i++) {
        nx_json_open(&json, NULL, '{');
        nx_json_string(&json, "method", http_method_str((enum http_method)nx_routes[i].method));
        nx_json_string(&json, "path", nx_routes[i].path);
        nx_json_close(&json, '}');
    }
    nx_json_close(&json, ']');
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_respond_json(connection, text);
}
