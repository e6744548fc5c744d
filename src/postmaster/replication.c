/* Replication stopped by POST /replication/stop, until the server is started again. Runs in the
 * postmaster. A replica's walreceiver and restore process end and stay away; a master's walsenders first
 * bring their replicas to what was durable then, and whoever comes anew is told why it is not served. */
#include "common/latch.h"
#include "common/log.h"
#include "postmaster/postmaster.h"

#include <errno.h>

#define STOP_LIMIT_MS 10000 /* for what has nothing to wait for, or beyond stop_drain_ms */

static bool replicates(enum nx_process_kind kind)
{
    return kind == NX_KIND_WALRECEIVER || kind == NX_KIND_RESTORE || kind == NX_KIND_WALSENDER;
}

static void end_processes(struct nx_postmaster *pm)
{
    uint64_t due = nx_now_ms() + STOP_LIMIT_MS + pm->config.replication.stop_drain_ms;
    unsigned instance;

    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        struct nx_child *child = &pm->children[i];

        if (!replicates(nx_process_slot_kind(i, &instance))) {
            continue;
        }
        child->start_due_ms = 0;
        if (child->pid != 0) {
            child->told_to_stop = true;
            child->kill_due_ms = due;
            (void)nx_control_send(child->control_fd, NX_CONTROL_STOP, 0, NX_STOP_FAST, NULL);
        }
    }
}

static int stop(struct nx_postmaster *pm)
{
    bool replica = pm->config.replication.role == NX_ROLE_REPLICA;

    if (pm->config.replication.role == NX_ROLE_STANDALONE) {
        return -EINVAL;
    }
    if (pm->life > NX_LIFE_SERVING) {
        return -ESHUTDOWN;
    }
    if (pm->replication_stopped) {
        return 0;
    }
    pm->replication_stopped = true;
    nx_shared_publish_stop(pm);
    nx_warn("replication is stopped, as POST /replication/stop asked: %s; a restart of this server "
            "resumes it",
            replica ? "this replica follows its master no longer, and serves what it has"
                    : "replicas get what is durable now and are then disconnected, new ones are "
                      "refused");
    end_processes(pm);
    return 0;
}

void nx_replication_stop(struct nx_postmaster *pm, unsigned slot, uint64_t ticket)
{
    int rc = stop(pm);

    (void)nx_control_send(pm->children[slot].control_fd, NX_CONTROL_DONE, rc, ticket, NULL);
}
