/* Runs in http workers. Reads the control block, the log's state and the receiver's; writes nothing.
 * See node.h. */
#include "http/node.h"

#include "common/fence.h"
#include "common/latch.h"
#include "common/quorum.h"
#include "common/synced.h"
#include "common/tls.h"
#include "http/connection.h"
#include "http/durability.h"
#include "http/fenced.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum nx_node_role nx_node_role(struct nx_shm *shm)
{
    return (enum nx_node_role)atomic_load_explicit(&shm->control.role, memory_order_acquire);
}

enum nx_node_phase nx_node_phase(struct nx_shm *shm)
{
    return (enum nx_node_phase)atomic_load_explicit(&shm->control.phase, memory_order_acquire);
}

const char *nx_node_role_name(enum nx_node_role role)
{
    switch (role) {
    case NX_NODE_MASTER:
        return "master";
    case NX_NODE_REPLICA:
        return "replica";
    case NX_NODE_STANDALONE:
        break;
    }
    return "standalone";
}

uint64_t nx_node_epoch(struct nx_shm *shm)
{
    uint64_t epoch = atomic_load_explicit(&shm->log.epoch, memory_order_acquire);

    return epoch == 0 ? 1 : epoch; /* 0: recovery has not come so far */
}

uint64_t nx_node_durable(struct nx_shm *shm)
{
    return atomic_load_explicit(&shm->log.durable_offset, memory_order_acquire);
}

uint64_t nx_node_lag(struct nx_shm *shm)
{
    uint64_t applied = nx_node_durable(shm);
    uint64_t master = atomic_load_explicit(&shm->receiver.master_offset, memory_order_relaxed);

    return nx_node_role(shm) == NX_NODE_REPLICA && master > applied ? master - applied : 0;
}

bool nx_node_connected(struct nx_shm *shm)
{
    return nx_node_role(shm) == NX_NODE_REPLICA &&
           atomic_load_explicit(&shm->receiver.connected, memory_order_acquire) != 0;
}

bool nx_node_replication_stopped(const struct nx_shm *shm)
{
    return atomic_load_explicit(&shm->control.replication_stopped, memory_order_acquire) != 0;
}

void nx_node_cluster_id(const struct nx_shm *shm, char ret_id[NX_UUID_TEXT])
{
    ret_id[0] = '\0';
    if (atomic_load_explicit(&shm->control.cluster_known, memory_order_acquire) != 0) {
        memcpy(ret_id, shm->control.cluster_id, NX_UUID_TEXT);
        ret_id[NX_UUID_TEXT - 1] = '\0';
    }
}

void nx_node_url(const char *address, char *text, size_t cap)
{
    (void)snprintf(text, cap, "%s://%.255s", nx_tls_on(NX_TLS_HTTP) ? "https" : "http", address);
}

bool nx_node_master_url(struct nx_shm *shm, char *text, size_t cap)
{
    char address[NX_ADDR_TEXT];

    if (atomic_load_explicit(&shm->receiver.master_known, memory_order_acquire) == 0) {
        return false;
    }
    /* A private copy: a reconnect may be writing it. */
    memcpy(address, shm->receiver.master_http, sizeof address);
    address[sizeof address - 1] = '\0';
    if (address[0] == '\0') {
        return false;
    }
    nx_node_url(address, text, cap);
    return true;
}

/* How far recovery is. The log may go on beyond the last entry that was noted as durable, so that is no promise. */
static void describe_recovery(const struct nx_log_state *log, char *text, size_t cap)
{
    uint64_t goal = atomic_load_explicit(&log->recovery_goal, memory_order_relaxed);
    uint64_t done = atomic_load_explicit(&log->recovery_done, memory_order_relaxed);

    if (goal == 0) {
        (void)snprintf(text, cap, "it looks through its state and its log");
    } else if (done < goal) {
        (void)snprintf(text, cap,
                       "it has read its log up to offset %" PRIu64 " of at least %" PRIu64, done,
                       goal);
    } else {
        (void)snprintf(text, cap, "it has read its log up to offset %" PRIu64, done);
    }
}

/* While children start, or after all of them were restarted, nothing can be read or written yet. */
static bool check_started(struct connection *connection)
{
    struct nx_shm *shm = connection->worker->shm;
    char progress[128];

    if (nx_node_phase(shm) != NX_PHASE_STARTING) {
        return true;
    }
    describe_recovery(&shm->log, progress, sizeof progress);
    nx_refuse(connection, NX_ERROR_ROLE_CHANGE, "This node is starting: %s; try again in a moment.",
              progress);
    return false;
}

bool nx_node_check_serving(struct connection *connection, const char *refuses)
{
    if (!check_started(connection)) {
        return false;
    }
    if (nx_node_phase(connection->worker->shm) == NX_PHASE_DRAINING) {
        nx_refuse(connection, NX_ERROR_ROLE_CHANGE, "This node is stopping and %s.", refuses);
        return false;
    }
    return true;
}

static void refuse_read_only(struct connection *connection, const char *why)
{
    struct problem problem = {.code = NX_ERROR_READ_ONLY_REPLICA};

    if (nx_node_master_url(connection->worker->shm, problem.master, sizeof problem.master)) {
        snprintf(problem.message, sizeof problem.message,
                 "%s Send it to the master, at the URL under 'master'.", why);
    } else {
        snprintf(problem.message, sizeof problem.message,
                 "%s Send it to the master, whose replication address is %s (this replica has not "
                 "heard its HTTP address since it started).",
                 why, connection->worker->process->config->replication.master_addr);
    }
    nx_respond_problem(connection, &problem);
}

/* Nexus-Read. A linearizable read needs the master; in async mode it leads as long as it runs, so there is
 * nobody to ask. */
static bool check_read_mode(struct connection *connection)
{
    struct request *request = connection->request;

    if (nx_request_header(request, "Nexus-Read") == NULL) {
        return true;
    }
    request->local = nx_request_header_is(request, "Nexus-Read", "local");
    request->linearizable = nx_request_header_is(request, "Nexus-Read", "linearizable");
    if (nx_request_header_count(request, "Nexus-Read") > 1 ||
        (!request->local && !request->linearizable)) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "Nexus-Read must be local or linearizable, once.");
        return false;
    }
    if (request->linearizable && nx_node_role(connection->worker->shm) == NX_NODE_REPLICA) {
        refuse_read_only(connection, "A linearizable read is answered by the master only.");
        return false;
    }
    return true;
}

static bool check_synced(struct connection *connection)
{
    struct nx_shm *shm = connection->worker->shm;

    if (nx_never_synced(shm)) {
        nx_refuse(connection, NX_ERROR_NOT_SYNCED,
                  "This replica has not received all of its master's data yet; try again, or ask "
                  "another node.");
        return false;
    }
    if (!connection->request->local && nx_sync_goal(shm).shown != 0) {
        nx_refuse(connection, NX_ERROR_NOT_SYNCED,
                  "This replica would show less than it did before its last full sync: it has not "
                  "received that again yet, or, in sync mode, not heard from its master that the "
                  "quorum has it. Try again, ask another node, or read with Nexus-Read: local what "
                  "is durable here.");
        return false;
    }
    return true;
}

/* A sync master that has started doesn't know which of its last entries were acknowledged. */
static bool check_confirmed(struct connection *connection)
{
    struct nx_shm *shm = connection->worker->shm;

    if (connection->request->local || nx_quorum_confirmed(shm)) {
        return true;
    }
    if (nx_fenced(shm)) { /* no replica of its own will come back */
        nx_fenced_refuse(connection,
                         "What it had committed isn't known since its start: read from that node, "
                         "or with Nexus-Read: local what is durable here.");
        return false;
    }
    nx_refuse(
        connection, NX_ERROR_QUORUM_UNAVAILABLE,
        "This master has started with entries up to %" PRIu64
        " and its quorum has confirmed them up to %" PRIu64
        " since: what is committed is not known before it has all. Try again when its replicas "
        "are back, or read with Nexus-Read: local what is durable here.",
        atomic_load_explicit(&shm->log.recovered_offset, memory_order_acquire),
        nx_quorum_offset(shm));
    return false;
}

bool nx_node_check_readable(struct connection *connection)
{
    struct http_worker *worker = connection->worker;
    int rc;

    if (!check_started(connection) || !check_read_mode(connection)) {
        return false;
    }
    if (!check_synced(connection) || !check_confirmed(connection)) {
        return false;
    }
    rc = nx_worker_open_view(worker);
    if (rc < 0) {
        nx_refuse_read(connection, rc);
        return false;
    }
    return true;
}

bool nx_node_check_writable(struct connection *connection)
{
    if (nx_node_role(connection->worker->shm) == NX_NODE_REPLICA) {
        refuse_read_only(connection, "This node is a replica and takes no writes.");
        return false;
    }
    if (!nx_node_check_serving(connection, "takes no more writes")) {
        return false;
    }
    if (nx_fenced(connection->worker->shm)) {
        nx_fenced_refuse(connection, NX_FENCED_WRITE);
        return false;
    }
    return nx_durability_take(connection);
}

bool nx_node_check_role(struct connection *connection, enum nx_node_role wanted)
{
    enum nx_node_role role = nx_node_role(connection->worker->shm);

    if (role == wanted) {
        return true;
    }
    nx_refuse(connection, NX_ERROR_WRONG_ROLE, "This endpoint is for %ss only; this node is %s%s.",
              nx_node_role_name(wanted), role == NX_NODE_STANDALONE ? "" : "a ",
              nx_node_role_name(role));
    return false;
}

bool nx_node_check_replicates(struct connection *connection)
{
    if (nx_node_role(connection->worker->shm) != NX_NODE_STANDALONE) {
        return true;
    }
    nx_refuse(connection, NX_ERROR_WRONG_ROLE,
              "This endpoint is for masters and replicas only; this node is standalone: set "
              "replication.role and restart it to have it replicate.");
    return false;
}
