/* The event loop of the peers process: conversations that go on side by side, and beside them the control
 * channel, so that a STOP is heard whatever is waited for. */
#ifndef NX_PEERS_LOOP_H
#define NX_PEERS_LOOP_H

#include "common/process.h"

#include <stdbool.h>
#include <stdint.h>

struct event;
struct event_base;
struct evdns_base;

struct nx_loop {
    struct nx_process *process;
    struct event_base *base;
    struct event *control;
    struct evdns_base *dns; /* NULL until a name is to be resolved */
    unsigned open;          /* conversations that aren't over */
    bool failed;            /* it can't go on: what was to be done isn't */
};

/* 0, or -ENOMEM, and nothing is left open. */
int nx_loop_open(struct nx_loop *loop, struct nx_process *process);

/* No conversation is open any more (nx_reach_abandon). */
void nx_loop_close(struct nx_loop *loop);

/* The resolver; NULL: there is none to be had. */
struct evdns_base *nx_loop_dns(struct nx_loop *loop);

/* Runs until all conversations are over. False: the process shall stop, or the loop failed, and some may still be
 * open. */
bool nx_loop_run(struct nx_loop *loop);

/* Runs until all conversations are over, or, once `enough` says so, for as long again as that took, but at least_ms.
 * False as above. */
bool nx_loop_run_for(struct nx_loop *loop, bool (*enough)(void *arg), void *arg, uint64_t least_ms);

/* Sleeps, but for the control channel. True when the postmaster has said something: a STOP (look at
 * nx_process_stopping), or there is a new configuration. */
bool nx_loop_sleep(struct nx_loop *loop, uint64_t ms);

#endif
