/* Runs in http workers. POST /replication/stop. The postmaster does it; the answer is its word. See promote.c,
 * follow.c and promise.c for what changes the node's role. */
#include "http/connection.h"
#include "http/control_ask.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"

static void on_stopped(struct connection *connection, const struct nx_control_message *reply)
{
    if (reply->status < 0) {
        nx_refuse(connection, NX_ERROR_ROLE_CHANGE, "This node is stopping, replication with it.");
    } else {
        nx_respond_success(connection, "Replication stopped");
    }
}

void nx_handle_replication_stop(struct connection *connection)
{
    if (nx_node_check_replicates(connection)) {
        (void)nx_control_ask_for(connection, NX_CONTROL_STOP_REPLICATION, 0, NULL, on_stopped);
    }
}
