/* Signals as readable events: they are blocked and come through a signalfd, so that nothing ever runs
 * in a handler. Runs in the postmaster. */
#include "common/latch.h"
#include "common/log.h"
#include "postmaster/postmaster.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const int handled[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD};

#define HANDLED (sizeof handled / sizeof *handled)

static void set_action(int signal, void (*action)(int))
{
    struct sigaction how = {.sa_handler = action};

    (void)sigaction(signal, &how, NULL);
}

int nx_signals_open(struct nx_postmaster *pm)
{
    sigset_t set;
    int rc;

    sigemptyset(&set);
    for (unsigned i = 0; i < HANDLED; i++) {
        sigaddset(&set, handled[i]);
    }
    set_action(SIGPIPE, SIG_IGN);
    set_action(SIGXFSZ,
               SIG_IGN); /* a limit of file sizes is an error of write; children inherit it */
    rc = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (rc != 0) {
        return -rc;
    }
    pm->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return pm->signal_fd < 0 ? -errno : 0;
}

void nx_signals_reset(void)
{
    sigset_t none;

    for (unsigned i = 0; i < HANDLED; i++) {
        set_action(handled[i], SIG_DFL);
    }
    /* A terminal's Ctrl-C and hang-up go to the whole group; the postmaster decides for all. */
    set_action(SIGINT, SIG_IGN);
    set_action(SIGHUP, SIG_IGN);
    set_action(SIGUSR1, SIG_IGN);
    set_action(SIGUSR2, SIG_IGN);
    sigemptyset(&none);
    (void)pthread_sigmask(SIG_SETMASK, &none, NULL);
}

static void handle(struct nx_postmaster *pm, int signal)
{
    switch (signal) {
    case SIGTERM:
    case SIGINT:
        nx_postmaster_stop(pm, NX_STOP_FAST);
        break;
    case SIGUSR2:
        nx_postmaster_stop(pm, NX_STOP_SMART);
        break;
    case SIGQUIT:
        nx_info("immediate stop: recovery will read the log at the next start");
        nx_postmaster_kill(pm, 0);
        break;
    case SIGHUP:
        nx_shared_reload(pm);
        break;
    case SIGUSR1:
        nx_log_reopen();
        nx_info("the log was opened anew");
        break;
    case SIGCHLD:
        nx_children_reap(pm);
        break;
    default:
        break;
    }
}

void nx_signals_handle(struct nx_postmaster *pm)
{
    struct signalfd_siginfo info;

    while (read(pm->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        handle(pm, (int)info.ssi_signo);
    }
}
