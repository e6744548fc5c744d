/* Promotions, promises, and following another master, at run time: one at a time, step by step (enum
 * nx_change_step), each answered to the http worker that asked. Runs in the postmaster, which waits for nobody: a
 * step ends with a child's end or message. When children crash meanwhile, the change is over without an answer,
 * and what is on disk says what became of it. */
#include "common/epochs.h"
#include "common/fence.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/net.h"
#include "common/quorum.h"
#include "common/shared_log.h"
#include "common/synced.h"
#include "postmaster/postmaster.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEAVE_MS 2000 /* for http workers to end in order */

/* ---- answers ---- */

static void answer_to(const struct nx_postmaster *pm,
                      unsigned slot,
                      uint64_t ticket,
                      int status,
                      const char *text)
{
    (void)nx_control_send(pm->children[slot].control_fd, NX_CONTROL_DONE, status, ticket, text);
}

/* Whoever gathered promises for a promotion hears what became of it. */
static void tell_asker(const struct nx_postmaster *pm, int status)
{
    const struct nx_child *peers = &pm->children[nx_process_slot(NX_KIND_PEERS, 0)];

    if (pm->change.kind == NX_ROLE_CHANGE_PROMOTE && peers->pid != 0) {
        (void)nx_control_send(peers->control_fd, NX_CONTROL_DONE, status, 0, NULL);
    }
}

/* Ends the change with its answer; what was sent away comes back. */
static void answer(struct nx_postmaster *pm, int status, const char *text)
{
    struct nx_role_change *change = &pm->change;

    tell_asker(pm, status);

    if (change->pid != 0 && pm->children[change->slot].pid == change->pid) {
        answer_to(pm, change->slot, change->ticket, status, text);
    }
    change->kind = NX_ROLE_CHANGE_NONE;
}

static void refuse(struct nx_postmaster *pm, const char *text)
{
    nx_warn("%s is refused: %s",
            pm->change.kind == NX_ROLE_CHANGE_PROMOTE ? "the promotion" : "the change of role",
            text);
    answer(pm, -ECANCELED, text);
}

/* What can't be done at the moment, or ever, without a change having begun. */
static void turn_down(const struct nx_postmaster *pm,
                      unsigned slot,
                      const struct nx_control_message *message,
                      const char *text)
{
    answer_to(pm, slot, message->arg, -ECANCELED, text);
}

/* ---- processes that are in the way ---- */

void nx_role_dismiss(struct nx_postmaster *pm, enum nx_process_kind kind)
{
    struct nx_child *child = &pm->children[nx_process_slot(kind, 0)];

    child->start_due_ms = 0;
    if (child->pid != 0) {
        child->dismissed = true;
        (void)kill(child->pid, SIGKILL); /* nothing submitted is lost by it */
    }
}

static bool is_gone(const struct nx_postmaster *pm, enum nx_process_kind kind)
{
    return pm->children[nx_process_slot(kind, 0)].pid == 0;
}

static bool order_walwriter(struct nx_postmaster *pm, enum nx_control_type type, uint64_t arg)
{
    const struct nx_child *child = &pm->children[nx_process_slot(NX_KIND_WALWRITER, 0)];

    return child->pid != 0 && nx_control_send(child->control_fd, type, 0, arg, NULL) == 0;
}

/* ---- the steps ---- */

static void ask_others(struct nx_postmaster *pm)
{
    struct nx_role_change *change = &pm->change;
    int rc;

    change->step = NX_STEP_ASKING;
    pm->peers_task = (struct nx_peers_task){
        .job = NX_PEERS_ASK,
        .dry_run = change->dry_run,
        .force = change->force,
        .sync = nx_quorum_rules(pm->shm),
        .epoch = change->epoch,
        .attempt = nx_now_us(),
    };
    memcpy(pm->peers_task.master_addr, pm->config.replication.master_addr,
           sizeof pm->peers_task.master_addr);
    rc = nx_launch(pm, nx_process_slot(NX_KIND_PEERS, 0), -1);
    if (rc < 0) {
        refuse(pm, "internal No process can be started to ask the other nodes; try again.");
    }
}

/* Of the master that was followed: nothing of it is the next one's. The walreceiver is gone. */
static void forget_master(const struct nx_postmaster *pm)
{
    struct nx_receiver_state *receiver = &pm->shm->receiver;

    atomic_store_explicit(&receiver->master_known, 0, memory_order_release);
    atomic_store_explicit(&receiver->master_offset, 0, memory_order_relaxed);
    atomic_store_explicit(&receiver->master_heard, 0, memory_order_relaxed);
    atomic_store_explicit(&receiver->master_dead, 0, memory_order_relaxed);
    atomic_store_explicit(&receiver->master_heartbeat_ms, 0, memory_order_relaxed);
    atomic_store_explicit(&receiver->silent_us, 0, memory_order_relaxed);
    atomic_store_explicit(&receiver->last_frame_ms, nx_now_ms(), memory_order_relaxed);
    atomic_store_explicit(&pm->shm->transfer.number, 0, memory_order_release);
}

static void follow_now(struct nx_postmaster *pm)
{
    forget_master(pm);
    nx_role_apply(pm, NX_ROLE_REPLICA, pm->change.text);
    nx_info("this node follows %s now, as POST /replication/follow asked", pm->change.text);
    answer(pm, 0, NULL);
}

/* A fenced master becomes a replica by the crash path: nothing of its time as a master is left in memory. */
static void leave_now(struct nx_postmaster *pm)
{
    nx_info("this node becomes a replica of %s, as POST /replication/follow asked",
            pm->change.text);
    nx_postmaster_crash(pm, 0);
}

void nx_role_change_end(struct nx_postmaster *pm)
{
    bool follow = pm->change.kind == NX_ROLE_CHANGE_FOLLOW;

    pm->change.kind = NX_ROLE_CHANGE_NONE;
    if (follow) { /* it is stored, and perhaps answered: in force, whoever has died */
        pm->config.replication.role = NX_ROLE_REPLICA;
        (void)snprintf(pm->config.replication.master_addr,
                       sizeof pm->config.replication.master_addr, "%.*s", NX_ADDR_TEXT - 1,
                       pm->change.text);
        forget_master(pm);
        nx_known_load(pm);
    }
}

static void settle(struct nx_postmaster *pm)
{
    pm->change.step = NX_STEP_SETTLING;
    if (!order_walwriter(pm, NX_CONTROL_SETTLE, pm->change.ticket)) {
        refuse(pm, "role_change The walwriter can't be reached; try again.");
    }
}

/* Goes on once all that was sent away is gone. */
static void go_on(struct nx_postmaster *pm)
{
    if (pm->change.kind == NX_ROLE_CHANGE_NONE || pm->change.step != NX_STEP_ENDING ||
        !is_gone(pm, NX_KIND_WALRECEIVER) || !is_gone(pm, NX_KIND_RESTORE) ||
        !is_gone(pm, NX_KIND_PEERS)) {
        return;
    }
    if (pm->change.kind == NX_ROLE_CHANGE_FOLLOW) {
        follow_now(pm);
    } else {
        settle(pm);
    }
}

static void begin_ending(struct nx_postmaster *pm)
{
    pm->change.step = NX_STEP_ENDING;
    nx_role_dismiss(pm, NX_KIND_WALRECEIVER);
    nx_role_dismiss(pm, NX_KIND_RESTORE);
    nx_role_dismiss(pm, NX_KIND_PEERS);
    go_on(pm);
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
    answer_to(pm, change->slot, change->ticket, 0, NULL);
    for (unsigned i = 0; i < NX_MAX_HTTP_WORKERS; i++) {
        struct nx_child *child = &pm->children[nx_process_slot(NX_KIND_HTTP, i)];

        if (child->pid != 0) {
            child->told_to_stop = true;
            child->kill_due_ms = nx_now_ms() + LEAVE_MS;
            (void)nx_control_send(child->control_fd, NX_CONTROL_STOP, 0, NX_STOP_FAST, NULL);
        }
    }
}

void nx_role_child_gone(struct nx_postmaster *pm, enum nx_process_kind kind)
{
    const struct nx_role_change *change = &pm->change;

    if (change->kind == NX_ROLE_CHANGE_NONE) {
        return;
    }
    if (change->step == NX_STEP_ENDING) {
        go_on(pm);
    } else if (change->step == NX_STEP_ASKING && kind == NX_KIND_PEERS) {
        refuse(pm, "internal The process that asked the other nodes has ended before its word; try "
                   "again.");
    } else if (change->step == NX_STEP_LEAVING && all_http_gone(pm)) {
        leave_now(pm);
    }
}

/* ---- beginning ---- */

static bool begin_change(struct nx_postmaster *pm,
                         enum nx_change_kind kind,
                         unsigned slot,
                         const struct nx_control_message *message)
{
    if (pm->life != NX_LIFE_SERVING) {
        turn_down(pm, slot, message,
                  "role_change This node is starting or stopping; try again in a moment.");
        return false;
    }
    if (pm->change.kind != NX_ROLE_CHANGE_NONE) {
        turn_down(pm, slot, message,
                  "role_change Another change of this node's role is under way; try again in a "
                  "moment.");
        return false;
    }
    pm->change = (struct nx_role_change){
        .kind = kind,
        .slot = slot,
        .pid = pm->children[slot].pid,
        .ticket = message->arg,
    };
    return true;
}

/* NULL: nothing. */
static const char *why_not_promote(const struct nx_postmaster *pm, bool force)
{
    if (pm->config.replication.role == NX_ROLE_STANDALONE) {
        return "wrong_role This node is standalone: it has no master to take over from.";
    }
    if (pm->config.replication.role == NX_ROLE_MASTER && !nx_fenced(pm->shm)) {
        return "wrong_role This node is the master already.";
    }
    if (pm->config.replication.role == NX_ROLE_MASTER && !force) {
        return "fenced Another node leads in a higher epoch. Let this one follow it (POST "
               "/replication/follow), or add force=1 if that one is lost for good.";
    }
    if (nx_never_synced(pm->shm)) {
        return "wrong_role This replica was never synced with its master, so it has nothing to go on "
               "with; promote one that was.";
    }
    return NULL;
}

static void promote(struct nx_postmaster *pm,
                    unsigned slot,
                    const struct nx_control_message *message)
{
    bool force = (message->status & NX_PROMOTE_FORCE) != 0;
    const char *why = why_not_promote(pm, force);

    if (why != NULL) {
        turn_down(pm, slot, message, why);
        return;
    }
    if (!begin_change(pm, NX_ROLE_CHANGE_PROMOTE, slot, message)) {
        return;
    }
    pm->change.force = force;
    pm->change.dry_run = (message->status & NX_PROMOTE_DRY_RUN) != 0;
    pm->change.epoch = nx_role_next_epoch(pm);
    if (!pm->change.dry_run) {
        nx_info("promotion: epoch %" PRIu64 " is to begin%s", pm->change.epoch,
                force ? ", by force" : "");
        begin_ending(pm);
    } else if (is_gone(pm, NX_KIND_PEERS)) {
        ask_others(pm);
    } else {
        refuse(pm,
               "role_change The other nodes are being told of a change; try again in a moment.");
    }
}

/* ---- the end of a promotion ---- */

/* The members of the answer: what the walwriter did, then what the others said. */
static void answer_promoted(struct nx_postmaster *pm,
                            uint64_t old_epoch,
                            uint64_t epoch,
                            uint64_t offset)
{
    static char text[NX_CONTROL_TEXT];

    (void)snprintf(text, sizeof text,
                   "\"old_epoch\":%" PRIu64 ",\"epoch\":%" PRIu64 ",\"offset\":%" PRIu64 ",%.*s",
                   old_epoch, epoch, offset, NX_VERDICT_TEXT, pm->change.text);
    answer(pm, 0, text);
}

/* A note that holds will hold in the new epoch too: replaced before that has begun, it would hold no more, and the
 * fenced master that dies now would be a replica again. */
static int store_note(struct nx_postmaster *pm, uint64_t epoch)
{
    static struct nx_identity identity;

    if (pm->config.replication.role == NX_ROLE_MASTER && nx_role_noted(pm) &&
        nx_role_config_same(&pm->dir.identity.note.configured, &pm->configured)) {
        return 0;
    }
    identity = pm->dir.identity;
    identity.note = (struct nx_role_note){.epoch = epoch, .configured = pm->configured};
    return nx_identity_store(&pm->dir, &identity);
}

static void take_verdict(struct nx_postmaster *pm, const struct nx_control_message *message)
{
    struct nx_role_change *change = &pm->change;
    uint64_t own = atomic_load_explicit(&pm->shm->log.epoch, memory_order_acquire);
    uint64_t durable = atomic_load_explicit(&pm->shm->log.durable_offset, memory_order_acquire);

    if (change->kind != NX_ROLE_CHANGE_PROMOTE || change->step != NX_STEP_ASKING) {
        return;
    }
    if (message->status < 0) {
        refuse(pm, message->text);
        return;
    }
    if (pm->life != NX_LIFE_SERVING || pm->dir.identity.fence.epoch >= message->arg) {
        refuse(
            pm,
            "role_change This node is stopping, or has heard meanwhile of another one that leads "
            "in a higher epoch; nothing was changed.");
        return;
    }
    memcpy(change->text, message->text, sizeof change->text);
    change->epoch = message->arg;
    if (change->dry_run) {
        answer_promoted(pm, own, change->epoch, durable + 1);
        return;
    }
    int rc = store_note(pm, change->epoch);

    if (rc < 0) {
        nx_error("the note of the promotion can't be stored in %s/identity: %s", pm->dir.root,
                 strerrordesc_np(-rc));
        refuse(pm, rc == -ENOSPC
                       ? "disk_full The note of the promotion can't be stored: the disk is full."
                       : "internal The note of the promotion can't be stored; the log says why.");
        return;
    }
    change->step = NX_STEP_COMMITTING;
    if (!order_walwriter(pm, NX_CONTROL_BEGIN_EPOCH, change->epoch)) {
        refuse(pm, "role_change The walwriter can't be reached; try again.");
    }
}

/* The known replicas of an earlier time as a master: what they acknowledged then is of this history only up to where
 * it forked. */
static void take_up_known(struct nx_postmaster *pm, uint64_t fork)
{
    nx_known_load(pm);
    for (unsigned i = 0; i < pm->known.count; i++) {
        struct nx_known_replica *replica = &pm->known.list[i];

        if (replica->last_ack_offset > fork) {
            replica->last_ack_offset = fork;
        }
    }
    nx_known_publish(pm);
}

/* The epoch's entry is durable: this node is master. */
static void become_master(struct nx_postmaster *pm)
{
    static const struct nx_fence nobody;
    uint64_t offset = atomic_load_explicit(&pm->shm->log.durable_offset, memory_order_acquire);
    const char *former = pm->config.replication.master_addr;

    (void)snprintf(pm->former_addr, sizeof pm->former_addr, "%s",
                   former[0] != '\0' ? former : pm->dir.identity.fence.addr);
    pm->heralding = true;
    pm->herald_due_ms = 0;
    pm->replication_stopped = false;
    forget_master(pm);
    /* The operator's word stands for the quorum's: what this log holds counts as acknowledged. */
    nx_role_reset_quorum(pm, offset, pm->change.epoch);
    nx_role_apply(pm, NX_ROLE_MASTER, "");
    take_up_known(pm, offset - 1);
    if (!nx_role_fence_if_led(pm)) { /* by one of whom it has heard only now */
        nx_fence_publish(pm->shm, &nobody, false);
        nx_info("this node is master in epoch %" PRIu64 ", from offset %" PRIu64
                " on: writes are accepted, and replicas",
                pm->change.epoch, offset);
    }
    nx_latch_ring_quorum(pm->shm, offset);
    answer_promoted(pm, pm->change.old_epoch, pm->change.epoch, offset);
    nx_jobs_clean(pm);
}

/* ---- promises ---- */

static bool parse_promise(const char *text, struct nx_promise *ret_promise)
{
    const char *rest;
    char *end;

    *ret_promise = (struct nx_promise){.epoch = 0};
    if (nx_role_parse(text, &ret_promise->epoch, ret_promise->node_id, &rest) < 0 || *rest != ' ') {
        return false;
    }
    errno = 0;
    ret_promise->attempt = strtoull(rest + 1, &end, 10);
    return errno == 0 && *end == '\0';
}

static int store_promise(struct nx_postmaster *pm, const struct nx_promise *promise)
{
    static struct nx_identity identity;
    int rc;

    identity = pm->dir.identity;
    identity.promise = *promise;
    rc = nx_identity_store(&pm->dir, &identity);
    if (rc == 0) {
        atomic_store_explicit(&pm->shm->control.promised_epoch, promise->epoch,
                              memory_order_release);
    }
    return rc;
}

/* False: text says why not. */
static bool may_promise(const struct nx_postmaster *pm,
                        const struct nx_promise *asked,
                        char *text,
                        size_t cap)
{
    const struct nx_promise *given = &pm->dir.identity.promise;
    uint64_t own = atomic_load_explicit(&pm->shm->log.epoch, memory_order_acquire);

    if (pm->config.replication.role == NX_ROLE_STANDALONE ||
        (pm->config.replication.role == NX_ROLE_MASTER && !nx_fenced(pm->shm))) {
        (void)snprintf(
            text, cap, "wrong_role epoch=%" PRIu64 " This node is %s, in epoch %" PRIu64 ".", own,
            pm->config.replication.role == NX_ROLE_MASTER ? "a master" : "standalone", own);
        return false;
    }
    if (asked->epoch <= own) {
        (void)snprintf(text, cap,
                       "quorum_not_seen epoch=%" PRIu64 " Epoch %" PRIu64
                       " can't be promised: this node's log is in epoch %" PRIu64 " already.",
                       own, asked->epoch, own);
        return false;
    }
    if (asked->epoch > own + NX_MOST_EPOCHS_AHEAD) {
        (void)snprintf(text, cap,
                       "bad_parameter epoch=%" PRIu64 " Epoch %" PRIu64
                       " is more than %d above this node's (%" PRIu64
                       "): no promotion asks for it.",
                       own, asked->epoch, NX_MOST_EPOCHS_AHEAD, own);
        return false;
    }
    /* Nor a lower one to the same node: a late message of its last attempt must not take back what it counts on. */
    if (given->epoch > asked->epoch ||
        (given->epoch == asked->epoch && strcmp(given->node_id, asked->node_id) != 0)) {
        (void)snprintf(text, cap,
                       "quorum_not_seen epoch=%" PRIu64 " Epoch %" PRIu64
                       " can't be promised: this node has promised epoch %" PRIu64 " to node %s.",
                       given->epoch, asked->epoch, given->epoch, given->node_id);
        return false;
    }
    return true;
}

static void promise(struct nx_postmaster *pm,
                    unsigned slot,
                    const struct nx_control_message *message)
{
    struct nx_promise asked;
    char text[512];

    if (!parse_promise(message->text, &asked)) {
        turn_down(pm, slot, message, "bad_request A promise needs an epoch and a node id.");
        return;
    }
    if (!may_promise(pm, &asked, text, sizeof text)) {
        turn_down(pm, slot, message, text);
        return;
    }
    if (!begin_change(pm, NX_ROLE_CHANGE_PROMISE, slot, message)) {
        return;
    }
    pm->change.epoch = asked.epoch;
    if (store_promise(pm, &asked) < 0) {
        refuse(pm, "internal The promise can't be stored; this node's log says why.");
        return;
    }
    nx_info("epoch %" PRIu64
            " is promised to node %s: until it begins, or the promise is withdrawn, this "
            "node acknowledges nothing of a lower epoch",
            asked.epoch, asked.node_id);
    begin_ending(pm);
}

static void answer_promise(struct nx_postmaster *pm)
{
    uint64_t offset;
    uint64_t epoch;
    uint32_t crc;
    char text[96];

    nx_log_position(pm->shm, &offset, &epoch, &crc);
    (void)snprintf(text, sizeof text, "%" PRIu64 " %" PRIu64 " %" PRIu32, epoch, offset, crc);
    answer(pm, 0, text);
}

static void withdraw(struct nx_postmaster *pm,
                     unsigned slot,
                     const struct nx_control_message *message)
{
    static const struct nx_promise none;
    const struct nx_promise *given = &pm->dir.identity.promise;
    struct nx_promise asked;

    if (!parse_promise(message->text, &asked)) {
        turn_down(pm, slot, message, "bad_request A promise needs an epoch and a node id.");
    } else if (given->epoch != asked.epoch || strcmp(given->node_id, asked.node_id) != 0 ||
               (asked.attempt != 0 && asked.attempt != given->attempt)) {
        answer_to(pm, slot, message->arg, 0, NULL); /* there is none like it: all is well */
    } else if (store_promise(pm, &none) < 0) {
        turn_down(pm, slot, message, "internal The promise can't be withdrawn on disk; try again.");
    } else {
        nx_info("the promise of epoch %" PRIu64 " to node %s is withdrawn", asked.epoch,
                asked.node_id);
        answer_to(pm, slot, message->arg, 0, NULL);
    }
}

/* ---- following ---- */

static int store_follow(struct nx_postmaster *pm, const char *addr, bool force)
{
    static struct nx_identity identity;

    identity = pm->dir.identity;
    identity.fence = (struct nx_fence){.epoch = 0};
    identity.promise = (struct nx_promise){.epoch = 0};
    identity.note = (struct nx_role_note){.epoch = 0};
    identity.follow = (struct nx_follow){.force = force, .configured = pm->configured};
    memcpy(identity.follow.addr, addr, strlen(addr) + 1);
    return nx_identity_store(&pm->dir, &identity);
}

static void follow(struct nx_postmaster *pm,
                   unsigned slot,
                   const struct nx_control_message *message)
{
    enum nx_role role = pm->config.replication.role;
    struct nx_net_addr addr;

    if (role == NX_ROLE_STANDALONE || (role == NX_ROLE_MASTER && !nx_fenced(pm->shm))) {
        turn_down(pm, slot, message,
                  "wrong_role Only replicas and fenced masters can be told whom to follow.");
        return;
    }
    if (nx_net_parse(message->text, &addr) < 0 || nx_net_is_wildcard(&addr) ||
        strlen(message->text) >= NX_ADDR_TEXT) {
        turn_down(pm, slot, message, "bad_parameter master_addr must be host:port.");
        return;
    }
    if (!begin_change(pm, NX_ROLE_CHANGE_FOLLOW, slot, message)) {
        return;
    }
    memcpy(pm->change.text, message->text, strlen(message->text) + 1);
    if (store_follow(pm, message->text, message->status != 0) < 0) {
        refuse(pm, "internal The address can't be stored; this node's log says why.");
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
        begin_ending(pm);
    }
}

/* It was for one full sync: a master that is restored from an older state some day shall not profit by it. */
static void end_force(struct nx_postmaster *pm)
{
    static struct nx_identity identity;
    int rc;

    if (!pm->dir.identity.follow.force || pm->change.kind != NX_ROLE_CHANGE_NONE) {
        return;
    }
    identity = pm->dir.identity;
    identity.follow.force = false;
    rc = nx_identity_store(&pm->dir, &identity);
    if (rc < 0) {
        nx_warn("that force is over can't be stored in %s/identity: %s", pm->dir.root,
                strerrordesc_np(-rc));
        return;
    }
    atomic_store_explicit(&pm->shm->control.follow_forced, 0, memory_order_release);
}

/* ---- messages ---- */

static void hear_walwriter(struct nx_postmaster *pm, const struct nx_control_message *message)
{
    struct nx_role_change *change = &pm->change;

    if (change->kind == NX_ROLE_CHANGE_NONE) {
        nx_role_epoch_begun(pm, message);
        return;
    }
    if (change->step == NX_STEP_SETTLING && message->arg == change->ticket) {
        change->old_epoch = atomic_load_explicit(&pm->shm->log.epoch, memory_order_acquire);
        if (change->kind == NX_ROLE_CHANGE_PROMISE) {
            answer_promise(pm);
        } else {
            ask_others(pm);
        }
    } else if (change->step == NX_STEP_COMMITTING && message->arg == change->epoch) {
        if (message->status == 0) {
            become_master(pm);
        } else {
            refuse(
                pm,
                message->status == -ENOSPC
                    ? "disk_full The entry that begins the epoch finds no room on disk: free some space."
                    : "role_change The log is in a higher epoch by now; ask again.");
        }
    }
}

void nx_role_message(struct nx_postmaster *pm,
                     unsigned slot,
                     const struct nx_control_message *message)
{
    unsigned instance;

    switch ((int)message->type) {
    case NX_CONTROL_PROMOTE:
        promote(pm, slot, message);
        break;
    case NX_CONTROL_FOLLOW:
        follow(pm, slot, message);
        break;
    case NX_CONTROL_PROMISE:
        promise(pm, slot, message);
        break;
    case NX_CONTROL_WITHDRAW:
        withdraw(pm, slot, message);
        break;
    case NX_CONTROL_FENCE:
        answer_to(pm, slot, message->arg, nx_role_fence(pm, message->text), NULL);
        break;
    case NX_CONTROL_VERDICT:
        take_verdict(pm, message);
        break;
    case NX_CONTROL_FOLLOWING:
        end_force(pm);
        break;
    case NX_CONTROL_DONE:
        if (nx_process_slot_kind(slot, &instance) == NX_KIND_WALWRITER) {
            hear_walwriter(pm, message);
        }
        break;
    default: /* LOOKED: its end says the same */
        break;
    }
}
