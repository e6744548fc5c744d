/* Following another master, as POST /replication/follow asks: stored before it is answered. A replica goes on at run
 * time; a fenced master becomes one by the crash path, so that nothing of its time as a master is left in memory. Runs
 * in the postmaster. */
#include "common/fence.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/net.h"
#include "postmaster/role_change.h"

#include <stdio.h>
#include <string.h>

#define LEAVE_MS 2000 /* for http workers to end in order */

/* Of the master that was followed: nothing of it is the next one's. The walreceiver is gone. */
void nx_follow_forget_master(const struct nx_postmaster *pm)
{
    struct nx_receiver_state *receiver = &pm->shm->receiver;

    atomic_store_explicit(&receiver->master_known, 0, memory_order_release);
    atomic_store_explicit(&receiver->master_offset, 0, memory_order_relaxed);
    atomic_store_explicit(&receiver->master_heard, 0, memory_order_relaxed);
    atomic_store_explicit(&receiver->welcomed, 0, memory_order_relaxed);
    atomic_store_explicit(&receiver->master_dead, 0, memory_order_relaxed);
    atomic_store_explicit(&receiver->master_heartbeat_ms, 0, memory_order_relaxed);
    atomic_store_explicit(&receiver->silent_us, 0, memory_order_relaxed);
    atomic_store_explicit(&receiver->last_frame_ms, nx_now_ms(), memory_order_relaxed);
    atomic_store_explicit(&pm->shm->transfer.number, 0, memory_order_release);
}

void nx_follow_now(struct nx_postmaster *pm)
{
    nx_follow_forget_master(pm);
    nx_role_apply(pm, NX_ROLE_REPLICA, pm->change.text);
    nx_info("this node follows %s now, as POST /replication/follow asked", pm->change.text);
    nx_change_answer(pm, 0, NULL);
}

void nx_follow_put_in_effect(struct nx_postmaster *pm)
{
    /* It is stored, and perhaps answered: in force, whoever has died. */
    pm->config.replication.role = NX_ROLE_REPLICA;
    (void)snprintf(pm->config.replication.master_addr, sizeof pm->config.replication.master_addr,
                   "%.*s", NX_ADDR_TEXT - 1, pm->change.text);
    nx_follow_forget_master(pm);
    nx_known_load(pm);
}

static bool all_http_gone(const struct nx_postmaster *pm)
{
    for (unsigned i = 0; i < NX_MAX_HTTP_WORKERS; i++) {
        if (pm->children[nx_process_slot(NX_KIND_HTTP, i)].pid != 0) {
            return false;
        }
    }
    return true;
}

/* The answer goes out, then those who gave it end in order. */
static void begin_leaving(struct nx_postmaster *pm)
{
    struct nx_role_change *change = &pm->change;

    change->step = NX_STEP_LEAVING;
    nx_change_answer_to(pm, change->slot, change->ticket, 0, NULL);
    for (unsigned i = 0; i < NX_MAX_HTTP_WORKERS; i++) {
        struct nx_child *child = &pm->children[nx_process_slot(NX_KIND_HTTP, i)];

        if (child->pid != 0) {
            child->told_to_stop = true;
            child->kill_due_ms = nx_now_ms() + LEAVE_MS;
            (void)nx_control_send(child->control_fd, NX_CONTROL_STOP, 0, NX_STOP_FAST, NULL);
        }
    }
}

void nx_follow_http_gone(struct nx_postmaster *pm)
{
    if (all_http_gone(pm)) {
        nx_info("this node becomes a replica of %s, as POST /replication/follow asked",
                pm->change.text);
        nx_postmaster_crash(pm, 0);
    }
}

/* The fence stays: it ends with its epoch, which comes with the leader's log. Who is told to follow a wrong address leads
 * no more for that, neither by its configuration nor by a promotion that nobody forces. */
static int store_follow(struct nx_postmaster *pm, const char *addr, bool force)
{
    static struct nx_identity identity;

    identity = pm->dir.identity;
    identity.promise = (struct nx_promise){.epoch = 0};
    identity.note = (struct nx_role_note){.epoch = 0};
    identity.follow = (struct nx_follow){.force = force, .configured = pm->configured};
    memcpy(identity.follow.addr, addr, strlen(addr) + 1);
    return nx_identity_store(&pm->dir, &identity);
}

void nx_follow_begin(struct nx_postmaster *pm,
                     unsigned slot,
                     const struct nx_control_message *message)
{
    enum nx_role role = pm->config.replication.role;
    struct nx_net_addr addr;
    int rc;

    if (role == NX_ROLE_STANDALONE || (role == NX_ROLE_MASTER && !nx_fenced(pm->shm))) {
        nx_change_turn_down(
            pm, slot, message,
            "wrong_role Only replicas and fenced masters can be told whom to follow.");
        return;
    }
    if (nx_net_parse(message->text, &addr) < 0 || nx_net_is_wildcard(&addr) ||
        strlen(message->text) >= NX_ADDR_TEXT) {
        nx_change_turn_down(pm, slot, message, "bad_parameter master_addr must be host:port.");
        return;
    }
    if (!nx_change_begin(pm, NX_ROLE_CHANGE_FOLLOW, slot, message)) {
        return;
    }
    memcpy(pm->change.text, message->text, strlen(message->text) + 1);
    rc = store_follow(pm, message->text, message->status != 0);
    if (rc < 0) {
        nx_change_refuse_unstored(pm, rc, "the address to follow");
        return;
    }
    atomic_store_explicit(&pm->shm->control.promised_epoch, 0, memory_order_release);
    atomic_store_explicit(&pm->shm->control.note_epoch, 0, memory_order_release);
    atomic_store_explicit(&pm->shm->control.follow_forced, message->status != 0 ? 1 : 0,
                          memory_order_release);
    pm->replication_stopped = false;
    if (role == NX_ROLE_MASTER) {
        begin_leaving(pm);
    } else {
        nx_change_begin_ending(pm);
    }
}

/* It was for one full sync: a master that is restored from an older state some day shall not profit by it. */
void nx_follow_end_force(struct nx_postmaster *pm)
{
    static struct nx_identity identity;
    int rc;

    if (!pm->dir.identity.follow.force || pm->change.kind != NX_ROLE_CHANGE_NONE) {
        return;
    }
    identity = pm->dir.identity;
    identity.follow.force = false;
    /* What an earlier full sync took from this node is given up too. */
    identity.goal = (struct nx_sync_goal){.offset = 0};
    rc = nx_identity_store(&pm->dir, &identity);
    if (rc < 0) {
        nx_warn("that force is over can't be stored in %s/identity: %s", pm->dir.root,
                strerrordesc_np(-rc));
        return;
    }
    nx_sync_goal_publish(&pm->shm->control.goal, &identity.goal);
    atomic_store_explicit(&pm->shm->control.follow_forced, 0, memory_order_release);
}
