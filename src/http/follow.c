/* Runs in http workers. POST /replication/follow: this replica, or fenced master, follows another master from now
 * on. The postmaster stores the address before it answers; whether that node can be reached shows later. */
#include "common/fence.h"
#include "http/connection.h"
#include "http/control_ask.h"
#include "http/control_refusal.h"
#include "http/node.h"
#include "http/response.h"
#include "http/role_bodies.h"
#include "http/router.h"
#include "http/worker.h"

#include <stdio.h>

static void on_following(struct connection *connection, const struct nx_control_message *reply)
{
    struct follow_body body;
    char message[NX_ADDR_SIZE + 32];

    if (reply->status < 0) {
        nx_control_refuse(connection, reply);
    } else if (nx_follow_body_take(connection, &body)) {
        snprintf(message, sizeof message, "This node follows %s now", body.master_addr);
        nx_respond_success(connection, message);
    }
}

/* False: answered. */
static bool check_follower(struct connection *connection)
{
    struct nx_shm *shm = connection->worker->shm;

    if (nx_node_role(shm) == NX_NODE_MASTER && !nx_fenced(shm)) {
        nx_refuse(
            connection, NX_ERROR_WRONG_ROLE,
            "This node is the master: a master that leads follows nobody. Stop it, or promote "
            "another node first, which fences this one.");
        return false;
    }
    return true;
}

static bool check_address(struct connection *connection, const struct follow_body *body)
{
    if (nx_config_is_own_address(connection->worker->process->config, body->master_addr)) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "%s is this node's own replication address; name the master's.",
                  body->master_addr);
        return false;
    }
    return true;
}

void nx_handle_follow(struct connection *connection)
{
    struct follow_body body;

    if (nx_node_check_replicates(connection) && nx_follow_body_take(connection, &body) &&
        check_address(connection, &body) &&
        nx_node_check_serving(connection, "changes its role no more") &&
        check_follower(connection)) {
        (void)nx_control_ask_for(connection, NX_CONTROL_FOLLOW, body.force ? 1 : 0,
                                 body.master_addr, on_following);
    }
}
