/* The one fork site. What a child owes to this order: it dies with the postmaster, holds the lock of
 * the data directory, hears only its own channel, and has nobody else's descriptors. */
#include "common/latch.h"
#include "common/log.h"
#include "postmaster/postmaster.h"
#include "postmaster/privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static const struct nx_kind_rules rules[NX_KIND_COUNT] = {
#define NX_PROCESS(symbol, title, instances, entry, roles, restart, stage, network) \
    [NX_KIND_##symbol] = {roles, restart, stage, entry},
#include "common/process_kinds.def"
#undef NX_PROCESS
};

const struct nx_kind_rules *nx_kind_rules(enum nx_process_kind kind)
{
    return &rules[kind];
}

/* Ends this process with the postmaster, even if that died before the call. */
static void die_with_parent(pid_t parent)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(NX_EXIT_FAILURE);
    }
}

static void close_if_open(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

/* Descriptors that belong to the postmaster or to other children. */
static void close_foreign(const struct nx_postmaster *pm, bool keep_http)
{
    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        close_if_open(pm->children[i].control_fd);
    }
    close_if_open(pm->signal_fd);
    close_if_open(pm->watch_fd);
    close_if_open(pm->replication_fd);
    if (!keep_http) {
        close_if_open(pm->http_fd);
        close_if_open(pm->unix_fd);
    }
}

__attribute__((noreturn)) static void run_child(struct nx_postmaster *pm,
                                                unsigned slot,
                                                int control,
                                                int client_fd,
                                                pid_t parent)
{
    static struct nx_process process;
    unsigned instance;
    enum nx_process_kind kind = nx_process_slot_kind(slot, &instance);
    bool http = kind == NX_KIND_HTTP;

    die_with_parent(parent);
    nx_signals_reset();
    close_foreign(pm, http);
    nx_privileges_begin_child(&pm->config);
    nx_privileges_bar_more();
    nx_log_set_process(nx_process_kind_title(kind));

    process.kind = kind;
    process.instance = instance;
    process.slot = slot;
    process.shm = pm->shm;
    pm->config = nx_shared_config(pm); /* this process's own copy since the fork */
    process.config = &pm->config;
    process.control.fd = control;
    process.http_fd = http ? pm->http_fd : -1;
    process.http_unix_fd = http && instance == 0 ? pm->unix_fd : -1;
    process.client_fd = client_fd;
    process.peers = pm->peers_task;
    memcpy(process.data_dir, pm->dir.path, sizeof process.data_dir);
    memcpy(process.state_root, pm->dir.root, sizeof process.state_root);
    nx_latch_cancel(pm->shm, slot); /* rings for its predecessor */
    nx_process_title(&process, "starting");
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): nothing else in the process can be in exit() */
    exit(nx_kind_rules(kind)->entry(&process));
}

static void note_started(struct nx_postmaster *pm, unsigned slot, pid_t pid, int control_fd)
{
    struct nx_child *child = &pm->children[slot];

    child->pid = pid;
    child->control_fd = control_fd;
    child->ready = false;
    child->told_to_stop = false;
    child->dismissed = false;
    child->started_ms = nx_now_ms();
    child->start_due_ms = 0;
    child->kill_due_ms = 0;
    atomic_store_explicit(&pm->shm->slots[slot].pid, (int32_t)pid, memory_order_release);
}

int nx_launch(struct nx_postmaster *pm, unsigned slot, int client_fd)
{
    int pair[2];
    pid_t parent = getpid();
    int rc = nx_control_pair(pair);

    if (rc < 0) {
        return rc;
    }
    /* The successor goes on in its predecessor's rings under a new generation. */
    atomic_fetch_add_explicit(&pm->shm->slots[slot].generation, 1, memory_order_release);
    (void)fflush(NULL);
    pid_t pid = fork();

    if (pid < 0) {
        rc = -errno;
        close(pair[0]);
        close(pair[1]);
        return rc;
    }
    if (pid == 0) {
        close(pair[0]);
        run_child(pm, slot, pair[1], client_fd, parent);
    }
    close(pair[1]);
    close_if_open(client_fd);
    note_started(pm, slot, pid, pair[0]);
    return 0;
}

int nx_launch_peers(struct nx_postmaster *pm, unsigned slot, const struct nx_peers_task *task)
{
    int rc;

    pm->peers_task = *task;
    rc = nx_launch(pm, slot, -1);
    if (rc == 0 && slot == nx_process_slot(NX_KIND_PEERS, 0)) {
        pm->peers_job = task->job;
        pm->peers_attempt = task->attempt;
    }
    return rc;
}
