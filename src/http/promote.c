/* Runs in http workers. POST /replication/promote: this replica becomes the master. The postmaster asks the peers,
 * has the new epoch begun and answers with the figures; here they get their frame. */
#include "common/fence.h"
#include "common/json_out.h"
#include "common/synced.h"
#include "http/connection.h"
#include "http/control_ask.h"
#include "http/control_refusal.h"
#include "http/fenced.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"

#include <stdio.h>

/* The guide's sentence: scripts compare it. */
#define DONE_MESSAGE "Replica promoted to master. Start master manually if needed."

/* ---- answers ---- */

static void put_verdict(struct json *json, const char *message, const char *detail)
{
    nx_json_bool(json, "success", true);
    nx_json_string(json, "message", message);
    nx_json_string(json, "detail", detail);
}

/* members: those from "old_epoch" on, as the postmaster has written them. */
static void respond_promoted(struct connection *connection, bool dry_run, const char *members)
{
    struct text *text = &connection->worker->json;
    struct json json = nx_json_of(text);

    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    if (dry_run) {
        put_verdict(&json, "This replica would be promoted to master; nothing was changed.",
                    "ask again without dry_run to do it");
    } else {
        put_verdict(&json, DONE_MESSAGE, "writes are accepted now; nothing else to start");
    }
    if (members[0] != '\0') {
        nx_text_puts(text, ",");
        nx_text_puts(text, members);
    }
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_respond_json(connection, text);
}

/* Who asks twice, since an answer was lost, is answered as well as at first. */
static void respond_master_already(struct connection *connection)
{
    struct nx_shm *shm = connection->worker->shm;
    struct text *text = &connection->worker->json;
    struct json json = nx_json_of(text);
    uint64_t epoch = nx_node_epoch(shm);

    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    put_verdict(&json, DONE_MESSAGE, "this node is the master already; nothing was changed");
    nx_json_u64(&json, "old_epoch", epoch);
    nx_json_u64(&json, "epoch", epoch);
    nx_json_u64(&json, "offset", nx_node_durable(shm));
    nx_json_u64(&json, "missing_entries", 0);
    nx_json_null(&json, "master_seconds_ago");
    nx_json_bool(&json, "master_answers", false);
    nx_json_open(&json, "unreached_peers", '[');
    nx_json_close(&json, ']');
    nx_json_bool(&json, "sync_loss_possible", false);
    nx_json_open(&json, "warnings", '[');
    nx_json_close(&json, ']');
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_respond_json(connection, text);
}

/* ---- the endpoint ---- */

/* enum nx_promote_flags of the query. False: answered. */
static bool take_flags(struct connection *connection, int32_t *ret_flags)
{
    const struct query *query = &connection->request->query;
    char message[NX_MESSAGE_SIZE];
    bool dry_run = false;
    bool force = false;

    if (nx_query_bool(query, "dry_run", &dry_run, message) < 0 ||
        nx_query_bool(query, "force", &force, message) < 0) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER, "%s", message);
        return false;
    }
    *ret_flags = (dry_run ? NX_PROMOTE_DRY_RUN : 0) | (force ? NX_PROMOTE_FORCE : 0);
    return true;
}

static bool leads(struct nx_shm *shm)
{
    return nx_node_role(shm) == NX_NODE_MASTER && !nx_fenced(shm);
}

static void on_promoted(struct connection *connection, const struct nx_control_message *reply)
{
    int32_t flags = 0;

    if (reply->status < 0 && leads(connection->worker->shm)) {
        respond_master_already(
            connection); /* by a promotion that ended while this one was asked for */
    } else if (reply->status < 0) {
        nx_control_refuse(connection, reply);
    } else if (take_flags(connection, &flags)) {
        respond_promoted(connection, (flags & NX_PROMOTE_DRY_RUN) != 0, reply->text);
    }
}

/* A replica that was synced, or a fenced master by force. False: answered. */
static bool check_candidate(struct connection *connection, int32_t flags)
{
    struct nx_shm *shm = connection->worker->shm;

    if (leads(shm)) {
        respond_master_already(connection);
        return false;
    }
    if (nx_node_role(shm) == NX_NODE_MASTER && (flags & NX_PROMOTE_FORCE) == 0) {
        nx_fenced_refuse(connection,
                         "Force (?force=1, nexus-ctl promote --force) promotes this one "
                         "all the same: what the other has taken since is then lost.");
        return false;
    }
    if (nx_never_synced(shm) && nx_node_durable(shm) == 0) {
        nx_refuse(connection, NX_ERROR_WRONG_ROLE,
                  "This replica was never synced with its master, so it has nothing to go on with: "
                  "promote another one, restore a snapshot (nexus-ctl restore), or start a new "
                  "master.");
        return false;
    }
    if (nx_never_synced(shm) && (flags & NX_PROMOTE_FORCE) == 0) {
        nx_refuse(connection, NX_ERROR_WRONG_ROLE,
                  "This replica was never synced with its master: it has only a part of what that "
                  "had. Promote another one, or, if there is none, this one by force (?force=1, "
                  "nexus-ctl promote --force), and what it lacks is lost.");
        return false;
    }
    return true;
}

void nx_handle_promote(struct connection *connection)
{
    int32_t flags = 0;

    if (take_flags(connection, &flags) && nx_node_check_replicates(connection) &&
        nx_node_check_serving(connection, "changes its role no more") &&
        check_candidate(connection, flags)) {
        (void)nx_control_ask_for(connection, NX_CONTROL_PROMOTE, flags, NULL, on_promoted);
    }
}
