/* Runs in http workers. GET /replication/entry/N?epoch=E: did my write stand? Answered from shared memory, and
 * for an entry that is no longer there from the WAL files. */
#include "common/entry.h"
#include "common/quorum.h"
#include "common/shared_log.h"
#include "http/conditions.h"
#include "http/connection.h"
#include "http/durability.h"
#include "http/json_out.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"
#include "storage/data_dir.h"
#include "storage/wal_segment.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIRST_CAP 4096

/* ---- the epoch of an entry ---- */

static int read_files(const struct http_worker *worker, uint64_t offset, struct nx_log_chunk *chunk)
{
    char path[NX_PATH_SIZE + sizeof "/wal"];
    struct nx_wal_reader *reader = NULL;
    int dir_fd;
    int rc;

    (void)snprintf(path, sizeof path, "%s/wal", worker->process->state_root);
    dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0) {
        return -errno;
    }
    rc = nx_wal_reader_open(dir_fd, &reader);
    rc = rc < 0 ? rc : nx_wal_reader_read(reader, offset, offset, chunk);
    nx_wal_reader_close(reader);
    close(dir_fd);
    return rc;
}

static int read_frame(struct http_worker *worker, uint64_t offset, struct nx_log_chunk *chunk)
{
    int rc = nx_log_read(worker->shm, offset, offset, chunk);

    return rc == -ERANGE ? read_files(worker, offset, chunk) : rc;
}

/* The epoch of a durable entry. 0; -ENOENT: it is no longer kept; or another negative error. */
static int epoch_of(struct http_worker *worker, uint64_t offset, uint64_t *ret_epoch)
{
    struct nx_log_chunk chunk = {.cap = FIRST_CAP};
    struct nx_entry_header header;
    int rc = -EMSGSIZE;

    for (int attempt = 0; attempt < 2 && rc == -EMSGSIZE; attempt++) {
        free(chunk.buf);
        chunk.cap = chunk.length > chunk.cap ? chunk.length : chunk.cap;
        chunk.buf = malloc(chunk.cap);
        rc = chunk.buf == NULL ? -ENOMEM : read_frame(worker, offset, &chunk);
    }
    rc = rc < 0 ? rc : nx_entry_decode(chunk.buf, chunk.length, false, &header);
    if (rc == 0) {
        *ret_epoch = header.epoch;
    }
    free(chunk.buf);
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
static bool check_epoch(struct connection *connection, uint64_t epoch)
{
    return nx_node_role(connection->worker->shm) == NX_NODE_REPLICA ||
           nx_node_check_epoch(connection, epoch);
}

/* NULL: answered. */
static const char *judge(struct connection *connection, uint64_t offset, uint64_t epoch)
{
    struct http_worker *worker = connection->worker;
    uint64_t found = 0;
    int rc;

    if (!check_epoch(connection, epoch)) {
        return NULL;
    }
    if (offset > nx_node_durable(worker->shm) || epoch > nx_node_epoch(worker->shm)) {
        return not_here(worker, epoch);
    }
    if (epoch == 0) {
        return standing(worker, offset);
    }
    rc = epoch_of(worker, offset, &found);
    if (rc == -ENOENT) {
        return "history_gone";
    }
    if (rc < 0) {
        nx_refuse_read(connection, rc);
        return NULL;
    }
    return found == epoch ? standing(worker, offset) : "given_up";
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
    state = judge(connection, wanted.offset, epoch > 0 ? epoch : wanted.epoch);
    if (state != NULL) {
        respond(connection, state, wanted.offset);
    }
}
