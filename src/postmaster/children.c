/* Children: starting them by the table of kinds, hearing what they say, acting on their deaths. Runs
 * in the postmaster. */
#include "common/latch.h"
#include "common/log.h"
#include "common/net.h"
#include "postmaster/postmaster.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- which ones ---- */

static unsigned http_workers(const struct nx_config *config)
{
    int cores = get_nprocs();
    unsigned wanted = (unsigned)config->http.workers;

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
        return false;
    case ROLE_REPLICA:
        return pm->config.replication.role == NX_ROLE_REPLICA;
    case ROLE_ANY:
        break;
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

void nx_children_tell(struct nx_postmaster *pm, int stage, enum nx_control_type type, uint64_t arg)
{
    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        unsigned instance;
        enum nx_process_kind kind = nx_process_slot_kind(i, &instance);
        struct nx_child *child = &pm->children[i];

        if (child->pid == 0 || (stage >= 0 && nx_kind_rules(kind)->stage != (unsigned)stage)) {
            continue;
        }
        if (nx_control_send(child->control_fd, type, 0, arg, NULL) < 0) {
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

/* The walwriter has recovered: the node serves. */
static void serve(struct nx_postmaster *pm)
{
    pm->life = NX_LIFE_SERVING;
    atomic_store_explicit(&pm->shm->control.phase, NX_PHASE_SERVING, memory_order_release);
    nx_pid_file_write(pm, "ready");
    nx_info("ready: role %s, HTTP on %s, replication on %s, offset %llu",
            nx_role_name(pm->config.replication.role), pm->config.http.bind_addr,
            pm->replication_fd < 0 ? "no port" : pm->config.replication.bind_addr,
            (unsigned long long)atomic_load_explicit(&pm->shm->log.recovered_offset,
                                                     memory_order_acquire));
    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        if (pm->children[i].pid != 0) {
            nx_latch_ring(pm->shm, i);
        }
    }
}

/* A replica is here anew: an older connection of it is half-open at best. */
static void end_older_senders(struct nx_postmaster *pm, unsigned newer, const char *id)
{
    for (unsigned i = 0; i < NX_MAX_WALSENDERS; i++) {
        const struct nx_child *child = &pm->children[nx_process_slot(NX_KIND_WALSENDER, i)];

        if (i != newer && child->pid != 0 && strcmp(pm->shm->replicas[i].id, id) == 0) {
            nx_info("replica %s connected again: its older connection is closed", id);
            (void)kill(child->pid, SIGTERM);
        }
    }
}

static void adopt_cluster(struct nx_postmaster *pm, const struct nx_child *child, const char *id)
{
    int rc = nx_shared_adopt_cluster(pm, id);

    if (rc == 0) {
        nx_info("this node belongs to cluster %s now", id);
    }
    (void)nx_control_send(child->control_fd, NX_CONTROL_DONE, rc, 0,
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
            serve(pm);
        }
        break;
    case NX_CONTROL_FATAL:
        nx_error("the server stops: %s", message->text);
        nx_postmaster_kill(pm, NX_EXIT_PERSON);
        break;
    case NX_CONTROL_ADOPT_CLUSTER:
        adopt_cluster(pm, child, message->text);
        break;
    case NX_CONTROL_REPLICA_HERE:
        end_older_senders(pm, instance, message->text);
        break;
    case NX_CONTROL_DONE:
    case NX_CONTROL_RELOAD:
    case NX_CONTROL_STOP:
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
        pm->children[slot].start_due_ms = nx_now_ms() + decision.delay_ms;
        break;
    case NX_RESTART_SERVER:
        nx_warn("%s: all processes are ended and shared memory is made afresh", title);
        nx_postmaster_crash(pm, decision.delay_ms);
        break;
    case NX_RESTART_GIVE_UP:
        nx_error(
            "the server stops: %s %s for the %dth time while starting; the lines above say why",
            title, how, NX_STARTUP_DEATHS);
        nx_postmaster_kill(pm, NX_EXIT_PERSON);
        break;
    case NX_RESTART_STOP:
        nx_postmaster_kill(pm, NX_EXIT_PERSON);
        break;
    }
}

static void buried(struct nx_postmaster *pm, unsigned slot, int wait_status)
{
    struct nx_child *child = &pm->children[slot];
    struct nx_slot *row = &pm->shm->slots[slot];
    unsigned instance;
    enum nx_process_kind kind = nx_process_slot_kind(slot, &instance);
    enum nx_restart_rule rule = nx_kind_rules(kind)->restart;
    uint64_t now = nx_now_ms();
    struct nx_child_death death = {rule, wait_status, child->ready, now - child->started_ms, now};
    bool expected = pm->life >= NX_LIFE_STOPPING;
    char how[128];

    nx_children_message(pm, slot); /* its last words */
    nx_restart_describe(wait_status, how, sizeof how);
    if (!expected && rule != RESTART_NEVER) {
        nx_warn("%s %d %s", nx_process_kind_title(kind), (int)child->pid, how);
    }
    if (child->control_fd >= 0) {
        close(child->control_fd);
        child->control_fd = -1;
    }
    child->pid = 0;
    atomic_store_explicit(&row->pid, 0, memory_order_release);
    atomic_store_explicit(&row->last_exit, wait_status, memory_order_relaxed);
    if (kind == NX_KIND_WALSENDER) {
        nx_shared_end_replica(pm, instance);
    }
    if (!expected && pm->life < NX_LIFE_STOPPING) {
        if (rule != RESTART_NEVER) {
            atomic_fetch_add_explicit(&row->restarts, 1, memory_order_relaxed);
        }
        act(pm, slot, nx_restart_decide(&death, &child->history), how);
    }
}

void nx_children_reap(struct nx_postmaster *pm)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
            if (pm->children[i].pid == pid) {
                buried(pm, i, status);
                break;
            }
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

void nx_children_accept(struct nx_postmaster *pm)
{
    static struct nx_log_limit limit;
    char peer[NX_ADDR_SIZE];
    /* cppcheck-suppress nullPointer ; nobody's address is asked for here */
    int fd = accept4(pm->replication_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) {
        if (errno != EAGAIN && errno != ECONNABORTED) {
            nx_log_limited(&limit, NX_LOG_WARNING, "a connection to %s can't be accepted: %s",
                           pm->config.replication.bind_addr, strerrordesc_np(errno));
        }
        return;
    }
    unsigned instance = free_walsender(pm);
    int rc = instance == NX_MAX_WALSENDERS
                 ? -EUSERS
                 : nx_launch(pm, nx_process_slot(NX_KIND_WALSENDER, instance), fd);

    if (rc < 0) {
        nx_net_peer(fd, peer);
        nx_log_limited(&limit, NX_LOG_WARNING,
                       "the connection of %s to the replication port is closed: %s "
                       "(replication.max_replicas is %llu)",
                       peer, strerrordesc_np(-rc),
                       (unsigned long long)pm->config.replication.max_replicas);
        close(fd);
    }
}
