/* The postmaster's loop and the life of the server: one function, advance(), moves it on after each
 * event. Nothing here blocks but poll, and an idle postmaster has no timer running. */
#include "postmaster/postmaster.h"

#include "common/latch.h"
#include "common/log.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>

#define LAST_STAGE      3
#define LONGEST_WAIT_MS 86400000
#define STOP_LIMIT_MS   10000 /* of a stage of a fast stop, beyond stop_drain_ms */

#define NX_PROCESS(symbol, title, instances, entry, roles, restart, stage, network) \
    static_assert((stage) <= LAST_STAGE, "a stop would never reach " title);
#include "common/process_kinds.def"
#undef NX_PROCESS

void nx_postmaster_kill(struct nx_postmaster *pm, int exit_status)
{
    if (pm->life == NX_LIFE_KILLING) {
        return;
    }
    pm->life = NX_LIFE_KILLING;
    pm->exit_status = exit_status;
    pm->deadline_ms = 0;
    nx_children_signal(pm, SIGKILL);
}

void nx_postmaster_crash(struct nx_postmaster *pm, uint64_t delay_ms)
{
    pm->life = NX_LIFE_CRASHED;
    pm->role_decided = false;
    nx_role_change_end(pm);
    pm->deadline_ms = delay_ms > 0 ? nx_now_ms() + delay_ms : 0;
    atomic_store_explicit(&pm->shm->control.phase, NX_PHASE_STARTING, memory_order_release);
    nx_children_signal(pm, SIGKILL);
}

static void begin_stage(struct nx_postmaster *pm, unsigned stage)
{
    uint64_t limit = STOP_LIMIT_MS + pm->config.replication.stop_drain_ms;

    pm->stop_stage = stage;
    if (stage > 0) {
        nx_listeners_close(pm); /* nobody is left who would answer a connection */
    }
    pm->deadline_ms = pm->stop_mode == NX_STOP_SMART && stage == 0 ? 0 : nx_now_ms() + limit;
    nx_children_tell(pm, (int)stage, NX_CONTROL_STOP, pm->stop_mode);
}

void nx_postmaster_stop(struct nx_postmaster *pm, enum nx_stop_mode mode)
{
    if (pm->life == NX_LIFE_STOPPING && mode == NX_STOP_FAST && pm->stop_mode == NX_STOP_SMART) {
        nx_info("the smart stop becomes a fast one");
        pm->stop_mode = NX_STOP_FAST;
        begin_stage(pm, pm->stop_stage);
        return;
    }
    if (pm->life == NX_LIFE_CRASHED) {
        nx_postmaster_kill(pm, 0); /* nothing is left that could stop in order */
        return;
    }
    if (pm->life > NX_LIFE_SERVING) {
        return;
    }
    nx_info("stopping (%s)",
            mode == NX_STOP_SMART ? "smart: open requests are finished first" : "fast");
    pm->life = NX_LIFE_STOPPING;
    pm->stop_mode = mode;
    atomic_store_explicit(&pm->shm->control.phase, NX_PHASE_DRAINING, memory_order_release);
    nx_pid_file_write(pm, "stopping");
    begin_stage(pm, 0);
}

/* All children of a crash are gone: shared memory afresh, then all start. */
static void start_afresh(struct nx_postmaster *pm)
{
    bool switched = nx_jobs_finish_switch(pm);

    if (pm->life != NX_LIFE_CRASHED) {
        return; /* that failed: the server stops */
    }
    nx_jobs_clean(pm);
    nx_shared_renew(pm, switched);
    pm->wishes.count = 0;
    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        pm->children[i].start_due_ms = 0;
    }
    pm->deadline_ms = 0;
    pm->life = NX_LIFE_STARTING;
    nx_pid_file_write(pm, "starting");
    nx_children_start_all(pm);
}

static void advance_stop(struct nx_postmaster *pm, uint64_t now)
{
    char late[256];

    if (pm->deadline_ms != 0 && now >= pm->deadline_ms) {
        nx_children_name(pm, pm->stop_stage, late, sizeof late);
        nx_warn(
            "%s did not end in time, so all processes that are left (%u) are killed: recovery will "
            "read the log at the next start",
            late, nx_children_running(pm, -1));
        nx_postmaster_kill(pm, NX_EXIT_FAILURE);
        return;
    }
    while (nx_children_running(pm, (int)pm->stop_stage) == 0) {
        if (pm->stop_stage == LAST_STAGE) {
            nx_known_end(pm);
            pm->life = NX_LIFE_ENDED;
            return;
        }
        begin_stage(pm, pm->stop_stage + 1);
    }
}

static void advance(struct nx_postmaster *pm)
{
    uint64_t now = nx_now_ms();

    switch (pm->life) {
    case NX_LIFE_STARTING:
    case NX_LIFE_SERVING:
        nx_children_kill_due(pm);
        nx_children_start_all(pm);
        nx_jobs_run_due(pm);
        nx_known_run_due(pm);
        nx_role_run_due(pm);
        nx_withdrawal_run_due(pm);
        nx_certificates_run_due(pm);
        break;
    case NX_LIFE_STOPPING:
        advance_stop(pm, now);
        break;
    case NX_LIFE_CRASHED:
        if (nx_children_running(pm, -1) == 0 && now >= pm->deadline_ms) {
            start_afresh(pm);
        }
        break;
    case NX_LIFE_KILLING:
        if (nx_children_running(pm, -1) == 0) {
            pm->life = NX_LIFE_ENDED;
        }
        break;
    case NX_LIFE_ENDED:
        break;
    }
}

static void sooner(uint64_t *due, uint64_t other)
{
    if (other != 0 && other < *due) {
        *due = other;
    }
}

/* Milliseconds until something is due; -1: nothing is. */
static int time_to_wait(const struct nx_postmaster *pm)
{
    uint64_t due = UINT64_MAX;
    uint64_t now = nx_now_ms();

    /* A crash's delay is over only when all are reaped, which is an event. */
    if (pm->life != NX_LIFE_CRASHED || nx_children_running(pm, -1) == 0) {
        sooner(&due, pm->deadline_ms);
    }
    for (unsigned i = 0; i < NX_MAX_SLOTS && pm->life <= NX_LIFE_SERVING; i++) {
        sooner(&due, pm->children[i].pid == 0 ? pm->children[i].start_due_ms
                                              : pm->children[i].kill_due_ms);
    }
    if (pm->life <= NX_LIFE_SERVING) {
        sooner(&due, nx_known_due_ms(pm));
    }
    if (pm->life == NX_LIFE_SERVING) {
        sooner(&due, nx_role_due_ms(pm));
        sooner(&due, nx_withdrawal_due_ms(pm));
        sooner(&due, nx_certificates_due_ms(pm));
        sooner(&due, pm->accept_due_ms);
        sooner(&due, nx_jobs_due_ms(pm));
    }
    if (due == UINT64_MAX) {
        return -1;
    }
    if (due <= now) {
        return 0;
    }
    return due - now < LONGEST_WAIT_MS ? (int)(due - now) : LONGEST_WAIT_MS;
}

/* Whether the replication port is to be looked at. */
static bool accepting(struct nx_postmaster *pm)
{
    if (pm->accept_due_ms != 0 && nx_now_ms() >= pm->accept_due_ms) {
        pm->accept_due_ms = 0;
    }
    return pm->life == NX_LIFE_SERVING && pm->accept_due_ms == 0;
}

/* One turn: waits for an event and handles all there are. */
static void turn(struct nx_postmaster *pm)
{
    struct pollfd fds[NX_MAX_SLOTS + 3];
    unsigned slots[NX_MAX_SLOTS + 3];
    nfds_t count = 3;

    fds[0] = (struct pollfd){.fd = pm->signal_fd, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = accepting(pm) ? pm->replication_fd : -1, .events = POLLIN};
    fds[2] = (struct pollfd){.fd = pm->watch_fd, .events = POLLIN};
    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        if (pm->children[i].control_fd >= 0) {
            slots[count] = i;
            fds[count++] = (struct pollfd){.fd = pm->children[i].control_fd, .events = POLLIN};
        }
    }
    if (poll(fds, count, time_to_wait(pm)) < 0 && errno != EINTR) {
        nx_error("poll: %s", strerrordesc_np(errno));
        nx_postmaster_kill(pm, NX_EXIT_FAILURE);
        return;
    }
    for (nfds_t i = 3; i < count; i++) {
        if (fds[i].revents != 0) {
            nx_children_message(pm, slots[i]);
        }
    }
    if (fds[0].revents != 0) {
        nx_signals_handle(pm);
    }
    if (fds[2].revents != 0) {
        nx_watch_handle(pm);
    }
    if (fds[1].revents != 0 && pm->life == NX_LIFE_SERVING) {
        nx_children_accept(pm);
    }
}

int nx_postmaster_run(struct nx_postmaster *pm)
{
    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        pm->children[i].control_fd = -1;
    }
    pm->life = NX_LIFE_STARTING;
    nx_pid_file_write(pm, "starting");
    for (;;) {
        enum nx_life before = pm->life;

        advance(pm);
        if (pm->life == NX_LIFE_ENDED) {
            break;
        }
        if (pm->life == before) { /* else there may be no event that would bring the next step */
            turn(pm);
        }
    }
    nx_pid_file_remove(pm);
    nx_info("stopped");
    return pm->exit_status;
}
