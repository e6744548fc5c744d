/* What the postmaster does when a child has died: one pure function. */
#ifndef NX_POSTMASTER_RESTART_POLICY_H
#define NX_POSTMASTER_RESTART_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Column of process_kinds.def. */
enum nx_restart_rule {
    RESTART_ALONE,
    RESTART_ALL,
    RESTART_NEVER
};

#define NX_BACKOFF_FIRST_MS  100 /* before the second start; the first is at once */
#define NX_BACKOFF_MOST_MS   5000
#define NX_LONG_LIFE_MS      30000 /* a life this long clears the history */
#define NX_STARTUP_DEATHS    5     /* so many deaths before READY ... */
#define NX_STARTUP_WINDOW_MS 30000 /* ... within this time stop the server */

/* What is remembered of a child's earlier deaths. Zero-initialised. */
struct nx_child_history {
    unsigned short_lives;     /* in a row */
    unsigned startup_deaths;  /* before READY, within the window */
    uint64_t window_began_ms; /* of the first of them */
};

/* One death. Times are monotonic milliseconds. */
struct nx_child_death {
    enum nx_restart_rule rule;
    int wait_status; /* of waitpid */
    bool was_ready;  /* it had told READY */
    uint64_t lived_ms;
    uint64_t now_ms;
};

enum nx_restart_action {
    NX_RESTART_FORGET,  /* nothing to do: a connection's end */
    NX_RESTART_CHILD,   /* start it again after delay_ms */
    NX_RESTART_SERVER,  /* end all, fresh shared memory, recovery, after delay_ms */
    NX_RESTART_GIVE_UP, /* it keeps dying in start-up: stop the server with status 1 */
    NX_RESTART_STOP,    /* it said that a person must mend something: stop with status 1 */
};

struct nx_restart_decision {
    enum nx_restart_action action;
    uint64_t delay_ms;
};

/* Decides, and updates the history. */
struct nx_restart_decision nx_restart_decide(const struct nx_child_death *death,
                                             struct nx_child_history *history);

/* True for a signal after which memory may be scribbled over (SIGSEGV, SIGBUS, SIGILL, SIGFPE,
 * SIGABRT). */
bool nx_restart_is_crash(int wait_status);

/* "exited with status 2", "was ended by signal 9 (Killed)"; text of cap bytes. */
void nx_restart_describe(int wait_status, char *text, size_t cap);

#endif
