/* Children: starting them by the table of kinds, hearing what they say, acting on their deaths. Runs
 * in the postmaster. */
#include "common/latch.h"
#include "common/log.h"
#include "common/net.h"
#include "common/quorum.h"
#include "common/units.h"
#include "postmaster/postmaster.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#define REPLACED_MS     1000 /* for a walsender whose replica has come again */
#define ACCEPT_AGAIN_MS 500  /* after a want of descriptors or memory */

/* ---- which ones ---- */

static unsigned http_workers(const struct nx_config *config)
{
    static int cores; /* asked for once: it is read from a file, and we are called for each slot */
    unsigned wanted = (unsigned)config->http.workers;

    if (cores == 0) {
        cores = get_nprocs();
    }
    if (wanted == 0) {
        wanted = cores > 0 ? (unsigned)cores : 1;
    }
    return wanted < NX_MAX_HTTP_WORKERS ? wanted : NX_MAX_HTTP_WORKERS;
}

/* Whether this slot's process runs on this node for as long as the node does. */
static bool belongs(const struct nx_postmaster *pm, unsigned slot)
{
    unsigned instance;
    enum nx_process_kind kind = nx_process_slot_kind(slot, &instance);

    switch (nx_kind_rules(kind)->roles) {
    case ROLE_CONNECTION:
    case ROLE_JOB:
        return false;
    case ROLE_REPLICA:
        return pm->config.replication.role == NX_ROLE_REPLICA && !pm->replication_stopped &&
               pm->role_decided && (pm->change.kind == NX_ROLE_CHANGE_NONE || pm->change.dry_run);
    case ROLE_ANY:
        break;
    }
    if (kind == NX_KIND_HTTP && pm->change.kind != NX_ROLE_CHANGE_NONE &&
        pm->change.step == NX_STEP_LEAVING) {
        return false;
    }
    return instance < (kind == NX_KIND_HTTP ? http_workers(&pm->config) : 1);
}

static void start_child(struct nx_postmaster *pm, unsigned slot)
{
    unsigned instance;
    enum nx_process_kind kind = nx_process_slot_kind(slot, &instance);
    int rc = nx_launch(pm, slot, -1);

    if (rc < 0) {
        nx_error("no process for %s %u: %s; trying again in a second", nx_process_kind_title(kind),
                 instance, strerrordesc_np(-rc));
        pm->children[slot].start_due_ms = nx_now_ms() + 1000;
    }
}

void nx_children_start_all(struct nx_postmaster *pm)
{
    uint64_t now = nx_now_ms();

    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        const struct nx_child *child = &pm->children[i];

        if (belongs(pm, i) && child->pid == 0 && child->start_due_ms <= now) {
            start_child(pm, i);
        }
    }
}

void nx_children_kill_due(struct nx_postmaster *pm)
{
    uint64_t now = nx_now_ms();

    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        struct nx_child *child = &pm->children[i];

        if (child->pid != 0 && child->kill_due_ms != 0 && child->kill_due_ms <= now) {
            child->kill_due_ms = 0;
            (void)kill(child->pid, SIGKILL);
        }
    }
}

unsigned nx_children_running(const struct nx_postmaster *pm, int stage)
{
    unsigned count = 0;

    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        unsigned instance;
        enum nx_process_kind kind = nx_process_slot_kind(i, &instance);

        if (pm->children[i].pid != 0 &&
            (stage < 0 || nx_kind_rules(kind)->stage == (unsigned)stage)) {
            count++;
        }
    }
    return count;
}

void nx_children_name(const struct nx_postmaster *pm, unsigned stage, char *ret_text, size_t cap)
{
    size_t length = 0;

    ret_text[0] = '\0';
    for (unsigned i = 0; i < NX_MAX_SLOTS && length < cap; i++) {
        unsigned instance;
        enum nx_process_kind kind = nx_process_slot_kind(i, &instance);

        if (pm->children[i].pid != 0 && nx_kind_rules(kind)->stage == stage) {
            length +=
                (size_t)snprintf(ret_text + length, cap - length, "%s%s %d", length > 0 ? ", " : "",
                                 nx_process_kind_title(kind), (int)pm->children[i].pid);
        }
    }
}

void nx_children_tell(struct nx_postmaster *pm, int stage, enum nx_control_type type, uint64_t arg)
{
    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        unsigned instance;
        enum nx_process_kind kind = nx_process_slot_kind(i, &instance);
        struct nx_child *child = &pm->children[i];

        if (child->pid == 0 || (stage >= 0 && nx_kind_rules(kind)->stage != (unsigned)stage)) {
            continue;
        }
        child->told_to_stop = child->told_to_stop || type == NX_CONTROL_STOP;
        if (nx_control_send(child->control_fd, type, 0, arg, NULL) == -EAGAIN) {
            nx_warn("%s %d doesn't read its channel", nx_process_kind_title(kind), (int)child->pid);
        }
    }
}

void nx_children_signal(struct nx_postmaster *pm, int signal)
{
    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        if (pm->children[i].pid != 0) {
            (void)kill(pm->children[i].pid, signal);
        }
    }
}

/* ---- what they say ---- */

void nx_children_serve(struct nx_postmaster *pm)
{
    pm->life = NX_LIFE_SERVING;
    pm->scheduled_ms = pm->scheduled_ms == 0 ? nx_now_ms() : pm->scheduled_ms;
    nx_info("ready: role %s, HTTP on %s, replication on %s, offset %llu",
            nx_role_name(pm->config.replication.role), pm->config.http.bind_addr,
            pm->replication_fd < 0 ? "no port" : pm->config.replication.bind_addr,
            (unsigned long long)atomic_load_explicit(&pm->shm->log.recovered_offset,
                                                     memory_order_acquire));
    /* Last, so that who finds it serving finds that in the log. */
    atomic_store_explicit(&pm->shm->control.phase, NX_PHASE_SERVING, memory_order_release);
    nx_pid_file_write(pm, "ready");
    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        if (pm->children[i].pid != 0) {
            nx_latch_ring(pm->shm, i);
        }
    }
}

/* It is known who leads: what is left to do before this node serves. */
static void decided(struct nx_postmaster *pm)
{
    if (!nx_role_step_back(pm) && !nx_role_must_begin(pm)) {
        nx_children_serve(pm);
    }
}

/* The walwriter has recovered: what the log says of the role counts from here on. */
static void recovered(struct nx_postmaster *pm, const struct nx_control_message *message)
{
    (void)snprintf(pm->epoch_reason, sizeof pm->epoch_reason, "%.*s",
                   (int)sizeof pm->epoch_reason - 1, message->arg == 1 ? message->text : "");
    pm->start_epoch = 0;
    nx_role_decide(pm);
    if (!nx_role_must_look(pm)) {
        decided(pm);
    }
}

/* A replica is here anew: an older connection of it is half-open at best. */
static void end_older_senders(struct nx_postmaster *pm, unsigned newer, const char *id)
{
    for (unsigned i = 0; i < NX_MAX_WALSENDERS; i++) {
        struct nx_child *child = &pm->children[nx_process_slot(NX_KIND_WALSENDER, i)];
        const struct nx_replica_slot *replica = &pm->shm->replicas[i];

        if (i != newer && child->pid != 0 &&
            atomic_load_explicit(&replica->state, memory_order_acquire) != NX_REPLICA_NONE &&
            strcmp(replica->id, id) == 0) {
            nx_info("replica %s connected again: its older connection is closed", id);
            (void)nx_control_send(child->control_fd, NX_CONTROL_STOP, 0, NX_STOP_FAST, NULL);
            child->kill_due_ms = nx_now_ms() + REPLACED_MS;
        }
    }
}

static void adopt_cluster(struct nx_postmaster *pm,
                          const struct nx_child *child,
                          const struct nx_control_message *message)
{
    struct nx_sync_goal goal = {.shown = message->arg};
    char id[NX_UUID_TEXT] = "";
    char epoch[24] = "";
    char first[NX_UUID_TEXT] = "";
    bool read = sscanf(message->text, "%36s %23s %36s", id, epoch, first) >= 2 &&
                nx_parse_count(epoch, &goal.shown_epoch) == 0;
    bool ours = strcmp(pm->dir.identity.cluster_id, id) == 0;
    int rc = read ? nx_shared_adopt_cluster(pm, id, first, &goal) : -EINVAL;

    if (rc == 0 && !ours) {
        nx_info("this node belongs to cluster %s now", id);
    }
    (void)nx_control_send(child->control_fd, NX_CONTROL_DONE, rc, 0,
                          rc < 0 ? strerrordesc_np(-rc) : NULL);
}

static void forget_replica(struct nx_postmaster *pm,
                           const struct nx_child *child,
                           const struct nx_control_message *message)
{
    int rc = nx_known_forget(pm, message->text);

    (void)nx_control_send(child->control_fd, NX_CONTROL_DONE, rc, message->arg,
                          rc < 0 ? strerrordesc_np(-rc) : NULL);
}

static void handle_message(struct nx_postmaster *pm,
                           unsigned slot,
                           const struct nx_control_message *message)
{
    struct nx_child *child = &pm->children[slot];
    unsigned instance;
    enum nx_process_kind kind = nx_process_slot_kind(slot, &instance);

    switch ((enum nx_control_type)message->type) {
    case NX_CONTROL_READY:
        child->ready = true;
        if (kind == NX_KIND_WALWRITER && pm->life == NX_LIFE_STARTING) {
            recovered(pm, message);
        }
        break;
    case NX_CONTROL_FATAL:
        nx_error("the server stops: %s", message->text);
        nx_postmaster_kill(pm, NX_EXIT_PERSON);
        break;
    case NX_CONTROL_ADOPT_CLUSTER:
        adopt_cluster(pm, child, message);
        break;
    case NX_CONTROL_REPLICA_HERE:
        nx_known_here(pm, instance, message->text);
        end_older_senders(pm, instance, message->text);
        break;
    case NX_CONTROL_SNAPSHOT:
        nx_jobs_want_snapshot(pm, slot, (enum nx_snapshot_reason)message->status, message->arg);
        break;
    case NX_CONTROL_FORGET:
        forget_replica(pm, child, message);
        break;
    case NX_CONTROL_RESTORE:
        nx_jobs_want_restore(pm);
        break;
    case NX_CONTROL_SWITCH:
        nx_jobs_switch(pm, message->text);
        break;
    case NX_CONTROL_MASTER_DEAD:
        nx_command_master_dead(pm, message->arg);
        break;
    case NX_CONTROL_STOP_REPLICATION:
        nx_replication_stop(pm, slot, message->arg);
        break;
    case NX_CONTROL_PROMOTE:
    case NX_CONTROL_FOLLOW:
    case NX_CONTROL_PROMISE:
    case NX_CONTROL_WITHDRAW:
    case NX_CONTROL_FENCE:
    case NX_CONTROL_VERDICT:
    case NX_CONTROL_FOLLOWING:
    case NX_CONTROL_LOOKED:
    case NX_CONTROL_DONE:
        nx_role_message(pm, slot, message);
        break;
    case NX_CONTROL_RELOAD:
    case NX_CONTROL_STOP:
    case NX_CONTROL_SETTLE:
    case NX_CONTROL_BEGIN_EPOCH:
        nx_warn("%s %d sent a message of type %u, which is the postmaster's to send",
                nx_process_kind_title(kind), (int)child->pid, message->type);
        break;
    }
}

void nx_children_message(struct nx_postmaster *pm, unsigned slot)
{
    struct nx_control_message message;
    struct nx_child *child = &pm->children[slot];
    int rc;

    while (child->control_fd >= 0 &&
           (rc = nx_control_receive(child->control_fd, &message)) != -EAGAIN) {
        if (rc < 0) {
            close(child->control_fd); /* it is ending; waitpid will say how */
            child->control_fd = -1;
            return;
        }
        handle_message(pm, slot, &message);
    }
}

/* ---- how they die ---- */

static void act(struct nx_postmaster *pm,
                unsigned slot,
                struct nx_restart_decision decision,
                const char *how)
{
    unsigned instance;
    const char *title = nx_process_kind_title(nx_process_slot_kind(slot, &instance));

    switch (decision.action) {
    case NX_RESTART_FORGET:
        break;
    case NX_RESTART_CHILD:
        if (belongs(pm, slot)) {
            pm->children[slot].start_due_ms = nx_now_ms() + decision.delay_ms;
        }
        break;
    case NX_RESTART_SERVER:
        nx_warn("%s: all processes are ended and shared memory is made afresh", title);
        nx_postmaster_crash(pm, decision.delay_ms);
        break;
    case NX_RESTART_GIVE_UP:
        nx_error(
            "the server stops: %s %s for the %dth time while starting; its lines before this one "
            "in %s say why. Where they don't, the state in %s/state may have decayed on the disk, in "
            "a way that LMDB, which has no checksums of its pages, doesn't survive: recover this "
            "node from a replica (start it with an empty data directory and let it follow one) or "
            "from a snapshot",
            title, how, NX_STARTUP_DEATHS,
            pm->config.server.log_file[0] != '\0' ? pm->config.server.log_file
                                                  : "the log (standard error)",
            pm->dir.root);
        nx_postmaster_kill(pm, NX_EXIT_PERSON);
        break;
    case NX_RESTART_STOP:
        nx_postmaster_kill(pm, NX_EXIT_PERSON);
        break;
    }
}

/* A stop goes on without a child that ended well when it was told to. One that crashes, fails or goes
 * before its time is told of; without its walwriter the node can't stop in order. */
static void act_in_stop(struct nx_postmaster *pm, unsigned slot, int wait_status, const char *how)
{
    unsigned instance;
    enum nx_process_kind kind = nx_process_slot_kind(slot, &instance);
    enum nx_restart_rule rule = nx_kind_rules(kind)->restart;

    if (rule == RESTART_NEVER || (pm->children[slot].told_to_stop && wait_status == 0)) {
        return;
    }
    nx_warn("%s %s during the stop", nx_process_kind_title(kind), how);
    if (rule == RESTART_ALL) {
        nx_postmaster_kill(pm, NX_EXIT_FAILURE);
    }
}

/* One that was killed may have raised the quorum's offset and not told those who wait for that. */
static void ring_for_quorum(struct nx_postmaster *pm)
{
    nx_latch_ring_quorum(pm->shm, nx_quorum_offset(pm->shm));
}

/* What a child leaves in shared memory. */
static void clear_state(struct nx_postmaster *pm, unsigned slot, const char *how)
{
    struct nx_receiver_state *receiver = &pm->shm->receiver;
    unsigned instance;

    switch (nx_process_slot_kind(slot, &instance)) {
    case NX_KIND_WALSENDER:
        nx_known_gone(pm, instance);
        nx_shared_end_replica(pm, instance);
        ring_for_quorum(pm);
        break;
    case NX_KIND_WALRECEIVER:
        atomic_store_explicit(&receiver->connected, 0, memory_order_release);
        atomic_store_explicit(&receiver->stage, NX_RECEIVER_CONNECTING, memory_order_relaxed);
        ring_for_quorum(pm);
        break;
    case NX_KIND_SNAPSHOT:
        nx_jobs_end_snapshot(pm, how);
        break;
    case NX_KIND_RESTORE:
        nx_jobs_end_restore(pm);
        break;
    case NX_KIND_WALWRITER:
    case NX_KIND_CHECKPOINTER:
    case NX_KIND_HTTP:
    case NX_KIND_PEERS:
    case NX_KIND_COUNT:
        break;
    }
}

/* Its channel, its row in the table of processes, and what it has left in shared memory. */
static void clear_away(struct nx_postmaster *pm, unsigned slot, int wait_status, const char *how)
{
    struct nx_child *child = &pm->children[slot];
    struct nx_slot *row = &pm->shm->slots[slot];

    if (child->control_fd >= 0) {
        close(child->control_fd);
        child->control_fd = -1;
    }
    child->pid = 0;
    atomic_store_explicit(&row->pid, 0, memory_order_release);
    atomic_store_explicit(&row->last_exit, wait_status, memory_order_relaxed);
    clear_state(pm, slot, how);
}

/* The first of them; done: its job. */
static void peers_gone(struct nx_postmaster *pm, bool done)
{
    if (pm->peers_job == NX_PEERS_HERALD && done) {
        pm->heralding = false; /* everybody has heard */
    }
    nx_withdrawal_peers_gone(pm, done);
}

/* A change of the role hears of a child's end, and the start, if it waited for that. True: the end was wanted. */
static bool told_of(struct nx_postmaster *pm, unsigned slot, int wait_status)
{
    unsigned instance;
    enum nx_process_kind kind = nx_process_slot_kind(slot, &instance);
    bool crashed =
        nx_restart_is_crash(wait_status); /* before it was killed: what it wrote isn't trusted */
    bool dismissed = pm->children[slot].dismissed && !crashed;

    pm->children[slot].dismissed = false;
    if (kind == NX_KIND_PEERS && pm->life == NX_LIFE_STARTING && pm->role_decided && !crashed &&
        pm->start_epoch == 0) {
        decided(pm);
    }
    if (kind == NX_KIND_PEERS && instance == 0) {
        peers_gone(pm, wait_status == 0 && !dismissed && pm->life == NX_LIFE_SERVING);
    }
    nx_role_child_gone(pm, slot);
    return dismissed || pm->life > NX_LIFE_SERVING;
}

static void child_exited(struct nx_postmaster *pm, unsigned slot, int wait_status)
{
    struct nx_child *child = &pm->children[slot];
    unsigned instance;
    const char *title = nx_process_kind_title(nx_process_slot_kind(slot, &instance));
    enum nx_restart_rule rule = nx_kind_rules(nx_process_slot_kind(slot, &instance))->restart;
    struct nx_child_history *history = rule == RESTART_NEVER ? &pm->connections : &child->history;
    uint64_t now = nx_now_ms();
    pid_t pid = child->pid;
    char how[128];

    nx_children_message(pm, slot); /* its last words, READY perhaps */
    struct nx_child_death death = {rule, wait_status, child->ready, now - child->started_ms, now};

    nx_restart_describe(wait_status, how, sizeof how);
    clear_away(pm, slot, wait_status, how);
    if (pm->life <= NX_LIFE_SERVING && told_of(pm, slot, wait_status)) {
        return;
    }
    if (pm->life == NX_LIFE_STOPPING) {
        act_in_stop(pm, slot, wait_status, how);
    }
    if (pm->life >= NX_LIFE_STOPPING) {
        return;
    }
    if (rule != RESTART_NEVER && wait_status == 0 && child->told_to_stop && !belongs(pm, slot)) {
        return; /* replication is stopped */
    }
    if (rule != RESTART_NEVER || wait_status != 0) {
        nx_warn("%s %d %s", title, (int)pid, how);
    }
    if (rule != RESTART_NEVER) {
        atomic_fetch_add_explicit(&pm->shm->slots[slot].restarts, 1, memory_order_relaxed);
    }
    act(pm, slot, nx_restart_decide(&death, history), how);
}

void nx_children_reap(struct nx_postmaster *pm)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
            if (pm->children[i].pid == pid) {
                child_exited(pm, i, status);
                pid = 0;
                break;
            }
        }
        if (pid != 0) {
            nx_command_reaped(pm, pid, status);
        }
    }
}

/* ---- connections ---- */

static unsigned free_walsender(const struct nx_postmaster *pm)
{
    unsigned most = (unsigned)pm->config.replication.max_replicas + NX_SPARE_WALSENDERS;

    for (unsigned i = 0; i < most && i < NX_MAX_WALSENDERS; i++) {
        if (pm->children[nx_process_slot(NX_KIND_WALSENDER, i)].pid == 0) {
            return i;
        }
    }
    return NX_MAX_WALSENDERS;
}

/* Without descriptors or memory the connection stays in the queue, and the port readable. */
static void accept_failed(struct nx_postmaster *pm, int error)
{
    static struct nx_log_limit limit;

    if (error == EAGAIN || error == ECONNABORTED || error == EINTR) {
        return;
    }
    nx_log_limited(&limit, NX_LOG_WARNING, "a connection to %s can't be accepted: %s",
                   pm->config.replication.bind_addr, strerrordesc_np(error));
    pm->accept_due_ms = nx_now_ms() + ACCEPT_AGAIN_MS;
}

static void turn_away(int fd, const struct nx_config *config, int rc)
{
    static struct nx_log_limit limit;
    char peer[NX_ADDR_SIZE];

    nx_net_peer(fd, peer);
    if (rc == -EUSERS) {
        nx_log_limited(
            &limit, NX_LOG_WARNING,
            "the connection of %s to the replication port is closed: all %llu places are "
            "taken (replication.max_replicas and %d for handshakes)",
            peer, (unsigned long long)config->replication.max_replicas + NX_SPARE_WALSENDERS,
            NX_SPARE_WALSENDERS);
    } else {
        nx_log_limited(
            &limit, NX_LOG_WARNING,
            "the connection of %s to the replication port is closed: no process for it: %s", peer,
            strerrordesc_np(-rc));
    }
    close(fd);
}

void nx_children_accept(struct nx_postmaster *pm)
{
    /* cppcheck-suppress nullPointer ; nobody's address is asked for here */
    int fd = accept4(pm->replication_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) {
        accept_failed(pm, errno);
        return;
    }
    unsigned instance = free_walsender(pm);
    int rc = instance == NX_MAX_WALSENDERS
                 ? -EUSERS
                 : nx_launch(pm, nx_process_slot(NX_KIND_WALSENDER, instance), fd);

    if (rc < 0) {
        turn_away(fd, &pm->config, rc);
    }
}
