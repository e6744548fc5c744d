/* Runs in http workers. See writes.h. */
#include "http/writes.h"

#include "http/conditions.h"
#include "http/connection.h"
#include "http/durability.h"
#include "http/fenced.h"
#include "http/history.h"
#include "http/worker.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

/* One of the two headers. 1: there and added; 0: not there; -1: answered. */
static int add_condition(struct connection *connection, const char *name, bool none_match)
{
    struct request *request = connection->request;
    const struct nx_slice *value = nx_request_header(request, name);
    struct tag_list list;

    if (value == NULL) {
        return 0;
    }
    if (nx_request_header_count(request, name) > 1 || nx_tags_parse(*value, &list) < 0) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "%s must be given once, as \"N\", N, N@E, a list of at most %d of them, or *.",
                  name, NX_MAX_TAGS);
        return -1;
    }
    if (!nx_http_history_check(connection, list.tags, list.count, false)) {
        return -1;
    }
    if (!nx_tags_condition(&request->conditions, request->key, &list, none_match)) {
        nx_refuse(connection, NX_ERROR_OVERLOADED, "Memory is short on this node.");
        return -1;
    }
    return 1;
}

bool nx_write_conditions(struct connection *connection)
{
    int match = add_condition(connection, "If-Match", false);
    int none_match = match < 0 ? -1 : add_condition(connection, "If-None-Match", true);

    if (none_match < 0) {
        return false;
    }
    connection->request->condition_count = (uint32_t)(match + none_match);
    return true;
}

void nx_write_submit(struct connection *connection, const struct write_request *write)
{
    int rc = nx_submissions_put(connection, write);

    if (rc == -EMSGSIZE) {
        nx_refuse(connection, NX_ERROR_BATCH_TOO_LARGE,
                  "The write is above the 16 MiB that one log entry holds; nothing was written.");
    } else if (rc < 0) {
        nx_refuse(connection, NX_ERROR_OVERLOADED,
                  "Memory is short on this node; nothing was written.");
    }
}

static const struct refusal {
    enum nx_submit_status status;
    enum nx_error code;
    const char *message;
} refusals[] = {
    {NX_SUBMIT_OVERLOADED, NX_ERROR_OVERLOADED,
     "The log has no room at the moment; nothing was written, try again."},
    {NX_SUBMIT_DISK_FULL, NX_ERROR_DISK_FULL,
     "The disk is almost full; nothing was written. Free space on it, of other files (deleting keys "
     "frees none: the state's file keeps its size): writes are taken again then."},
    {NX_SUBMIT_MAP_FULL, NX_ERROR_MAP_FULL,
     "The state has reached state.map_size; nothing was written. Raise it and restart, or delete "
     "keys; where an export or a snapshot runs, which keeps old versions, try again when it has ended."},
    {NX_SUBMIT_READ_ONLY, NX_ERROR_READ_ONLY_REPLICA,
     "This node is a replica and takes no writes; send it to the master."},
    {NX_SUBMIT_TOO_LARGE, NX_ERROR_BATCH_TOO_LARGE,
     "The write is above the 16 MiB that one log entry holds; nothing was written."},
    {NX_SUBMIT_NO_QUORUM, NX_ERROR_QUORUM_UNAVAILABLE,
     "Fewer than replication.sync_quorum replicas are connected, level and healthy, or they have not "
     "confirmed what this master's log holds; nothing was written. Try again when they are back (GET "
     "/replication/replicas)."},
    {NX_SUBMIT_UNSETTLED, NX_ERROR_QUORUM_UNAVAILABLE,
     "Nothing was written, and what that was judged on was not confirmed by the quorum within "
     "replication.sync_timeout_ms; try again."},
    {NX_SUBMIT_STOPPED, NX_ERROR_REPLICATION_STOPPED,
     "Replication is stopped on this master (POST /replication/stop), and a write that asks for its "
     "quorum needs it; nothing was written. Restart the node to resume."},
    {NX_SUBMIT_DRAINING, NX_ERROR_ROLE_CHANGE,
     "This node is stopping and takes no more writes; nothing was written."},
    {NX_SUBMIT_DAMAGED, NX_ERROR_INTERNAL,
     "The stored record of a key is damaged (its checksum is wrong), so its version is not known; "
     "nothing was written. A write without a condition replaces it; see this node's log."},
};

static void describe_unconfirmed(const struct nx_completion *completion,
                                 struct problem *ret_problem)
{
    ret_problem->code = NX_ERROR_QUORUM_TIMEOUT;
    ret_problem->has_offset = true;
    ret_problem->offset = completion->offset;
    ret_problem->epoch = completion->epoch;
    ret_problem->check_offset = completion->offset;
    ret_problem->check_epoch = completion->epoch;
    snprintf(
        ret_problem->message, sizeof ret_problem->message,
        "The write is entry %" PRIu64 ". The quorum did not confirm it within "
        "replication.sync_timeout_ms; it stands in the local log and may still be replicated. Ask "
        "the URL under 'check' what has become of it before writing again.",
        completion->offset);
}

void nx_write_problem(struct nx_shm *shm,
                      const struct nx_completion *completion,
                      struct problem *ret_problem)
{
    const struct refusal *refusal = &refusals[0];

    if (completion->status == NX_SUBMIT_UNCONFIRMED) {
        describe_unconfirmed(completion, ret_problem);
        return;
    }
    if (completion->status == NX_SUBMIT_FENCED) {
        nx_fenced_describe(shm, NX_FENCED_WRITE, ret_problem);
        return;
    }
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        if (refusals[i].status == (enum nx_submit_status)completion->status) {
            refusal = &refusals[i];
        }
    }
    ret_problem->code = refusal->code;
    snprintf(ret_problem->message, sizeof ret_problem->message, "%s", refusal->message);
}

void nx_write_respond(struct connection *connection,
                      const struct nx_completion *completion,
                      unsigned status,
                      bool etag)
{
    struct text *json = &connection->worker->json;
    char nodes[64];

    if (json->failed) {
        nx_connection_close(connection);
        return;
    }
    nx_durability_header(connection, completion->offset, nodes, sizeof nodes);
    nx_respond(connection, &(struct response){
                               .status = status,
                               .type = "application/json",
                               .body = nx_slice_of(json->data, json->length),
                               .has_offset = true,
                               .offset = completion->offset,
                               .epoch = completion->epoch,
                               .has_etag = etag,
                               .etag = completion->offset,
                               .headers = nodes[0] != '\0' ? nodes : NULL,
                           });
}
