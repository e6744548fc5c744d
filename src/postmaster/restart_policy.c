/* The decision after a child's death, without any effect of its own. Runs in the postmaster. */
#include "postmaster/restart_policy.h"

#include "common/process.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

bool nx_restart_is_crash(int wait_status)
{
    static const int crashes[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};

    for (unsigned i = 0; i < sizeof crashes / sizeof *crashes; i++) {
        if (WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == crashes[i]) {
            return true;
        }
    }
    return false;
}

/* Counts a death before READY; true when there were too many in too short a time. */
static bool keeps_dying(const struct nx_child_death *death, struct nx_child_history *history)
{
    if (death->was_ready) {
        history->startup_deaths = 0;
        return false;
    }
    if (history->startup_deaths == 0 ||
        death->now_ms - history->window_began_ms > NX_STARTUP_WINDOW_MS) {
        history->startup_deaths = 0;
        history->window_began_ms = death->now_ms;
    }
    history->startup_deaths++;
    return history->startup_deaths >= NX_STARTUP_DEATHS;
}

/* The first restart after a long life is immediate; later ones wait 100 ms, 200 ms, ..., 5 s. */
static uint64_t backoff(const struct nx_child_death *death, struct nx_child_history *history)
{
    uint64_t delay = NX_BACKOFF_FIRST_MS;

    if (death->lived_ms >= NX_LONG_LIFE_MS) {
        history->short_lives = 0;
    }
    history->short_lives++;
    if (history->short_lives < 2) {
        return 0;
    }
    for (unsigned i = 2; i < history->short_lives && delay < NX_BACKOFF_MOST_MS; i++) {
        delay *= 2;
    }
    return delay < NX_BACKOFF_MOST_MS ? delay : NX_BACKOFF_MOST_MS;
}

struct nx_restart_decision nx_restart_decide(const struct nx_child_death *death,
                                             struct nx_child_history *history)
{
    bool crash = nx_restart_is_crash(death->wait_status);

    if (WIFEXITED(death->wait_status) && WEXITSTATUS(death->wait_status) == NX_EXIT_PERSON) {
        return (struct nx_restart_decision){NX_RESTART_STOP, 0};
    }
    if (death->rule == RESTART_NEVER) {
        return crash ? (struct nx_restart_decision){NX_RESTART_SERVER, backoff(death, history)}
                     : (struct nx_restart_decision){NX_RESTART_FORGET, 0};
    }
    if (keeps_dying(death, history)) {
        return (struct nx_restart_decision){NX_RESTART_GIVE_UP, 0};
    }
    return (struct nx_restart_decision){crash || death->rule == RESTART_ALL ? NX_RESTART_SERVER
                                                                            : NX_RESTART_CHILD,
                                        backoff(death, history)};
}

void nx_restart_describe(int wait_status, char *text, size_t cap)
{
    if (WIFSIGNALED(wait_status)) {
        (void)snprintf(text, cap, "was ended by signal %d (%s)", WTERMSIG(wait_status),
                       sigdescr_np(WTERMSIG(wait_status)));
    } else {
        (void)snprintf(text, cap, "exited with status %d", WEXITSTATUS(wait_status));
    }
}
