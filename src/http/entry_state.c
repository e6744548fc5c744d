/* Runs in http workers. GET /replication/entry/N?epoch=E: did my write stand? Answered from shared memory, and
 * for an entry that is no longer there from the WAL files. */
#include "common/json_out.h"
#include "common/quorum.h"
#include "http/conditions.h"
#include "http/connection.h"
#include "http/durability.h"
#include "http/history.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"
#include "storage/log_stream.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* The epoch of a durable entry. 0; -ENOENT: it is no longer kept; or another negative error. */
static int epoch_of(struct http_worker *worker, uint64_t offset, uint64_t *ret_epoch)
{
    struct nx_stream stream;
    uint32_t crc;
    int rc;

    nx_stream_open(&stream, worker->shm, worker->process->state_root);
    rc = nx_stream_frame_at(&stream, offset, ret_epoch, &crc);
    nx_stream_close(&stream);
    return rc;
}

/* ---- its state ---- */

/* Of an entry that this node's log reaches, in the history that is asked for. */
static const char *standing(struct http_worker *worker, uint64_t offset)
{
    return nx_node_role(worker->shm) == NX_NODE_STANDALONE ||
                   offset <= nx_quorum_offset(worker->shm)
               ? "quorum"
               : "pending";
}

/* It may still come: to a replica from its master, and where only a number is asked for, with a later write. */
static const char *not_here(struct http_worker *worker, uint64_t epoch)
{
    bool replica = nx_node_role(worker->shm) == NX_NODE_REPLICA;

    return epoch == 0 || (replica && epoch >= nx_node_epoch(worker->shm)) ? "pending" : "given_up";
}

/* Whether this node can know of that epoch at all. A later one than its own is another master's: only a replica,
 * which may still hear of it, has an answer. False: answered. */
static bool check_epoch(struct connection *connection, const struct client_offset *wanted)
{
    struct nx_shm *shm = connection->worker->shm;

    if (nx_node_role(shm) == NX_NODE_REPLICA || wanted->epoch <= nx_node_epoch(shm)) {
        return true;
    }
    nx_http_history_refuse(connection, wanted, nx_node_durable(shm));
    return false;
}

static bool of_another_history(struct http_worker *worker, const struct client_offset *wanted)
{
    const struct nx_http_history *history;
    uint64_t fork;

    return nx_http_history_now(worker->shm, &history) == 0 &&
           nx_http_history_judge(history, wanted, &fork) == NX_HISTORY_CHANGED;
}

/* NULL: answered. */
static const char *judge(struct connection *connection, const struct client_offset *wanted)
{
    struct http_worker *worker = connection->worker;
    uint64_t found = 0;
    int rc;

    if (!check_epoch(connection, wanted)) {
        return NULL;
    }
    if (wanted->offset > nx_node_durable(worker->shm) ||
        wanted->epoch > nx_node_epoch(worker->shm)) {
        return not_here(worker, wanted->epoch);
    }
    if (wanted->epoch == 0) {
        return standing(worker, wanted->offset);
    }
    if (of_another_history(worker, wanted)) {
        return "given_up"; /* also where the entry itself is no longer kept */
    }
    rc = epoch_of(worker, wanted->offset, &found);
    if (rc == -ENOENT) {
        return "history_gone";
    }
    if (rc < 0) {
        nx_refuse_read(connection, rc);
        return NULL;
    }
    return found == wanted->epoch ? standing(worker, wanted->offset) : "given_up";
}

/* ---- the endpoint ---- */

/* No node counts for an entry that isn't in this history, though they have another one at its offset. */
static uint64_t counted(const char *state, uint64_t offset)
{
    return strcmp(state, "given_up") == 0 ? UINT64_MAX : offset;
}

static void respond(struct connection *connection, const char *state, uint64_t offset)
{
    struct text *text = &connection->worker->json;
    struct json json = nx_json_of(text);
    char nodes[24];

    offset = counted(state, offset);
    nx_durability_nodes(connection->worker, offset, nodes, sizeof nodes);
    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    nx_json_string(&json, "state", state);
    nx_json_string(&json, "nodes", nodes);
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_respond_json(connection, text);
}

void nx_handle_entry_state(struct connection *connection)
{
    struct request *request = connection->request;
    struct client_offset wanted;
    uint64_t epoch = 0;
    char message[NX_MESSAGE_SIZE];
    const char *state;

    if (nx_client_offset_parse(request->id, &wanted) < 0 || wanted.offset == 0) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "The path must end with an entry's offset, N or N@E: 1, 2, 3, ...");
        return;
    }
    if (nx_query_u64(&request->query, "epoch", 1, UINT64_MAX, &epoch, message) < 0) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER, "%s", message);
        return;
    }
    if (epoch > 0 && wanted.epoch > 0 && epoch != wanted.epoch) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "The path names epoch %" PRIu64 ", the parameter 'epoch' %" PRIu64 ": give one.",
                  wanted.epoch, epoch);
        return;
    }
    if (!nx_node_check_serving(connection, "answers no more")) {
        return;
    }
    wanted.epoch = epoch > 0 ? epoch : wanted.epoch;
    state = judge(connection, &wanted);
    if (state != NULL) {
        respond(connection, state, wanted.offset);
    }
}
