/* Runs in http workers. Reads the fence, which the postmaster writes; see fenced.h. */
#include "http/fenced.h"

#include "common/fence.h"
#include "http/connection.h"
#include "http/node.h"
#include "http/worker.h"

#include <inttypes.h>
#include <stdio.h>

/* "node X leads in epoch N", as far as it is known. */
static void say_leader(const struct nx_fence *fence, char *text, size_t cap)
{
    if (fence->epoch == 0) {
        snprintf(text, cap, "another node leads in a later epoch");
    } else {
        snprintf(text, cap, "node %.36s leads in epoch %" PRIu64, fence->node_id, fence->epoch);
    }
}

void nx_fenced_describe(struct nx_shm *shm, const char *consequence, struct problem *ret_problem)
{
    struct nx_fence fence;
    char leader[96];

    nx_fence_read(shm, &fence);
    say_leader(&fence, leader, sizeof leader);
    *ret_problem = (struct problem){
        .code = NX_ERROR_FENCED,
        .has_epoch = fence.epoch > 0,
        .epoch = fence.epoch,
    };
    if (fence.http_addr[0] != '\0') {
        nx_node_url(fence.http_addr, ret_problem->master, sizeof ret_problem->master);
    }
    snprintf(
        ret_problem->message, sizeof ret_problem->message,
        "This node was the master and is fenced: %s. %s This node rejoins by POST /replication/follow, "
        "or nexus-ctl follow %.200s.",
        leader, consequence, fence.addr[0] != '\0' ? fence.addr : "HOST:PORT");
}

void nx_fenced_refuse(struct connection *connection, const char *consequence)
{
    struct problem problem;

    nx_fenced_describe(connection->worker->shm, consequence, &problem);
    nx_respond_problem(connection, &problem);
}
