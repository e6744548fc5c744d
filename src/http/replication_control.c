/* Runs in http workers. What changes replication: POST /replication/stop. The postmaster does it; the answer
 * is its word. */
#include "http/connection.h"
#include "http/control_ask.h"
#include "http/json_out.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"

static void respond_success(struct connection *connection, const char *message)
{
    struct text *text = &connection->worker->json;
    struct json json = nx_json_of(text);

    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    nx_json_bool(&json, "success", true);
    nx_json_string(&json, "message", message);
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_respond_json(connection, text);
}

static void on_stopped(struct connection *connection, const struct nx_control_message *reply)
{
    if (reply->status < 0) {
        nx_refuse(connection, NX_ERROR_ROLE_CHANGE, "This node is stopping, replication with it.");
    } else {
        respond_success(connection, "Replication stopped");
    }
}

void nx_handle_replication_stop(struct connection *connection)
{
    if (nx_node_role(connection->worker->shm) == NX_NODE_STANDALONE) {
        nx_refuse(connection, NX_ERROR_WRONG_ROLE,
                  "This endpoint is for masters and replicas only; this node is standalone.");
        return;
    }
    (void)nx_control_ask_for(connection, NX_CONTROL_STOP_REPLICATION, NULL, on_stopped);
}
