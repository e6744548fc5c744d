/* failover_command: an operator's program, run once for each death of the master, one at a time. Runs in the postmaster.
 * It is no child like the others: it has a session of its own and nothing of the server's (no lock, no
 * socket, no shared memory), the server doesn't wait for it at a stop and doesn't end it, since it may be
 * what stops the server. */
#include "common/advertised.h"
#include "common/command_env.h"
#include "common/log.h"
#include "common/synced.h"
#include "postmaster/postmaster.h"
#include "postmaster/privileges.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHELL        "/bin/sh"
#define NOT_RUN      127 /* as a shell says it */
#define FIRST_OTHERS 3   /* descriptors behind stderr */

/* ---- in the new process ---- */

/* All signals as a program expects them. */
static void default_signals(void)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int i = 1; i < NSIG; i++) {
        (void)sigaction(i, &action, NULL); /* two of them can't be changed */
    }
    sigemptyset(&none);
    (void)pthread_sigmask(SIG_SETMASK, &none, NULL);
}

/* Nothing to read; what it prints goes to the server's log. All else is closed by exec. */
static int redirect(void)
{
    int log_fd = nx_log_fd();
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(log_fd, STDOUT_FILENO) < 0 ||
        dup2(log_fd, STDERR_FILENO) < 0) {
        return -errno;
    }
    /* Ours are close-on-exec as they are; there may be others, from whoever started the server. */
    if (close_range(FIRST_OTHERS, ~0U, CLOSE_RANGE_CLOEXEC) < 0) {
        nx_debug("descriptors of the server's parent stay open in failover_command: %s",
                 strerrordesc_np(errno));
    }
    return 0;
}

static int set(const char *name, const char *value)
{
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): the only thread of a process that was just forked */
    return setenv(name, value, 1);
}

static int set_number(const char *name, uint64_t value)
{
    char text[24];

    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)value);
    return set(name, text);
}

static int set_environment(const struct nx_postmaster *pm)
{
    const struct nx_shm *shm = pm->shm;
    uint64_t epoch = atomic_load_explicit(&shm->log.epoch, memory_order_acquire);
    char http_addr[NX_ADDR_TEXT];

    /* As a client on this host dials it. */
    if (nx_advertised_resolve(nx_slice_text(pm->config.http.bind_addr), "127.0.0.1:0", http_addr) <
        0) {
        (void)snprintf(http_addr, sizeof http_addr, "%s", pm->config.http.bind_addr);
    }
    if (set(NX_COMMAND_EVENT, "master_dead") != 0 ||
        set(NX_COMMAND_NODE_ID, pm->dir.node_id) != 0 ||
        set(NX_COMMAND_MASTER_ADDR, pm->config.replication.master_addr) != 0 ||
        set("NEXUS_DATA_DIR", pm->dir.path) != 0 || set(NX_COMMAND_HTTP_ADDR, http_addr) != 0 ||
        set_number(NX_COMMAND_WAL_OFFSET,
                   atomic_load_explicit(&shm->log.durable_offset, memory_order_acquire)) != 0 ||
        set_number(NX_COMMAND_EPOCH, epoch == 0 ? 1 : epoch) != 0) {
        return -errno;
    }
    return 0;
}

__attribute__((noreturn)) static void run(const struct nx_postmaster *pm)
{
    const char *doing = "its environment";
    int rc;

    nx_log_set_process("failover_command");
    default_signals();
    nx_privileges_begin_child(&pm->config);
    (void)setsid();
    rc = set_environment(pm);
    if (rc == 0) {
        doing = "its descriptors";
        rc = redirect();
    }
    if (rc == 0) {
        doing = pm->dir.path;
        rc = chdir(pm->dir.path) == 0 ? 0 : -errno;
    }
    if (rc == 0) {
        doing = SHELL;
        (void)execl(SHELL, "sh", "-c", pm->config.replication.failover_command, (char *)NULL);
        rc = -errno;
    }
    nx_error("failover_command can't be run: %s: %s", doing, strerrordesc_np(-rc));
    _exit(NOT_RUN);
}

/* ---- in the postmaster ---- */

static void start(struct nx_postmaster *pm)
{
    pid_t pid;

    (void)fflush(NULL);
    pid = fork();
    if (pid < 0) {
        nx_error("failover_command can't be run: no process for it: %s", strerrordesc_np(errno));
    } else if (pid == 0) {
        run(pm);
    } else {
        pm->command_pid = pid;
        nx_info("failover_command runs as process %d, because master %s appears dead", (int)pid,
                pm->config.replication.master_addr);
    }
}

static bool matters(const struct nx_postmaster *pm)
{
    return pm->life <= NX_LIFE_SERVING && !pm->replication_stopped;
}

/* Of the death that was noted last. */
static void act(struct nx_postmaster *pm)
{
    if (!pm->config.replication.auto_failover ||
        pm->config.replication.failover_command[0] == '\0') {
        return;
    }
    if (nx_never_synced(pm->shm)) {
        nx_warn(
            "failover_command is not run: this node was never synced with its master, so it has "
            "nothing to go on with");
    } else if (nx_sync_goal(pm->shm).offset != 0) {
        nx_warn("failover_command is not run: this node's last full sync is not complete: it lacks "
                "entries that it had before");
    } else if (pm->command_pid != 0) {
        pm->command_owed = true;
        nx_warn(
            "failover_command is not run yet: that of an earlier death still runs, as process %d; "
            "when it has ended and the master is still dead, it is run again",
            (int)pm->command_pid);
    } else {
        start(pm);
    }
}

void nx_command_master_dead(struct nx_postmaster *pm, uint64_t death)
{
    if (death == pm->command_death || !matters(pm)) {
        return; /* told again by a walreceiver that was restarted; or it matters no more */
    }
    pm->command_death = death;
    act(pm);
}

void nx_command_reaped(struct nx_postmaster *pm, pid_t pid, int wait_status)
{
    char how[128];

    if (pid != pm->command_pid) {
        return;
    }
    pm->command_pid = 0;
    nx_restart_describe(wait_status, how, sizeof how);
    if (wait_status == 0) {
        nx_info("failover_command (process %d) %s", (int)pid, how);
    } else {
        nx_warn("failover_command (process %d) %s", (int)pid, how);
    }
    if (pm->command_owed) {
        pm->command_owed = false;
        if (matters(pm) &&
            atomic_load_explicit(&pm->shm->receiver.master_dead, memory_order_acquire) != 0) {
            act(pm);
        }
    }
}
