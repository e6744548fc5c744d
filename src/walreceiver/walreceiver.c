/* The walreceiver: keeps a replica connected to its master and hands what comes to the walwriter. It owns
 * the submission ring of frames and shm->receiver, and writes neither log nor files. One attempt to
 * connect follows another, further and further apart while they fail, until the node stops; it ends on
 * STOP after a last acknowledgment. Nothing submitted is lost when it is killed: its successor goes on
 * where the log ends. */
#include "walreceiver/walreceiver.h"

#include "common/latch.h"
#include "common/log.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define FAREWELL_MS    300
#define RECOVERY_LOOK  100 /* ms between looks while our own log isn't recovered yet */
#define BACKOFF_FIRST  100 /* ms; doubled with each failure */
#define BACKOFF_MOST   5000
#define MOST_DOUBLINGS 6 /* the next one would be more than BACKOFF_MOST */
#define SLOW_DOUBLINGS 4
#define REPEAT_MS      60000 /* the same cause is logged again after this long */
#define TRIES_A_LIMIT  3     /* at least, before a master that lives is judged dead */
#define GOOD_MS        5000 /* a session that lasted that long, or brought entries, was a good one */

/* Sleeps for a time, whatever the doorbell says. */
static void pause_for(struct nx_walreceiver *r, uint64_t ms)
{
    uint64_t until = nx_now_ms() + ms;
    uint64_t now;

    while ((now = nx_now_ms()) < until && !nx_process_stopping(r->process)) {
        nx_latch_prepare(r->shm, r->process->slot, NX_WAKE_NEVER);
        nx_receiver_sleep(r, -1, 0, (int)(until - now), NULL);
    }
}

static bool recovered(const struct nx_walreceiver *r)
{
    return atomic_load_explicit(&r->shm->control.phase, memory_order_acquire) != NX_PHASE_STARTING;
}

/* The postmaster rings when the log is recovered. */
static void wait_for_recovery(struct nx_walreceiver *r)
{
    r->health.held = true;
    while (!recovered(r) && !nx_process_stopping(r->process)) {
        nx_latch_prepare(r->shm, r->process->slot, NX_WAKE_NEVER);
        if (recovered(r)) {
            nx_latch_cancel(r->shm, r->process->slot);
        } else {
            nx_receiver_sleep(r, -1, 0, RECOVERY_LOOK, NULL);
        }
    }
    r->health.held = false;
}

/* One line for each change of cause; the same one again only after a while. */
static void log_cause(struct nx_walreceiver *r)
{
    const struct nx_cause *cause = &r->cause;
    uint64_t now = nx_now_ms();

    if (cause->kind == r->logged_kind && cause->detail == r->logged_detail &&
        now - r->logged_ms < REPEAT_MS) {
        return;
    }
    r->logged_kind = cause->kind;
    r->logged_detail = cause->detail;
    r->logged_ms = now;
    if (cause->kind == NX_CAUSE_SILENCE) {
        nx_debug("replication: %s; trying again", cause->text); /* health.c has said it */
    } else if (cause->kind == NX_CAUSE_STOP) {
        nx_info("replication ends: %s", cause->text);
    } else {
        nx_warn("replication: %s; trying again%s", cause->text,
                cause->slow ? " every few seconds" : "");
    }
}

/* The longest wait. A master that turns us away, or was gone for a moment, is heard by trying again alone: while
 * it isn't judged dead that comes before its silence is too long. */
static uint64_t longest_wait(const struct nx_walreceiver *r)
{
    uint64_t most = nx_health_limit_ms(r) / TRIES_A_LIMIT;

    if (nx_health_dead(r) || most > BACKOFF_MOST) {
        return BACKOFF_MOST;
    }
    return most > BACKOFF_FIRST ? most : BACKOFF_FIRST;
}

/* How long to wait: 100 ms doubled with each failure up to 5 s (from 1.6 s where trying again soon is no
 * use), half of it by chance, so that the replicas of a master that comes back don't all come at once. */
static uint64_t backoff(const struct nx_walreceiver *r)
{
    unsigned doublings =
        r->cause.slow && r->failures < SLOW_DOUBLINGS ? SLOW_DOUBLINGS : r->failures;
    uint64_t longest = longest_wait(r);
    uint64_t most = BACKOFF_MOST;
    uint32_t chance = 0;

    if (doublings < MOST_DOUBLINGS) {
        most = (uint64_t)BACKOFF_FIRST << doublings;
    }
    most = most < longest ? most : longest;
    if (getrandom(&chance, sizeof chance, GRND_NONBLOCK) != sizeof chance) {
        chance = (uint32_t)nx_now_us();
    }
    return most / 2 + chance % (most / 2 + 1);
}

/* One attempt: from the name of the master to the end of the session. */
static void attempt(struct nx_walreceiver *r)
{
    uint64_t began;
    bool good;

    r->cause = (struct nx_cause){.kind = NX_CAUSE_NONE};
    r->welcomed = false;
    nx_receiver_hear(r);
    nx_receive_settle(r);
    nx_receive_snapshot_prepare(r);
    if (nx_receiver_ended(r)) {
        return;
    }
    nx_process_title(r->process, "connecting to %s", r->process->config->replication.master_addr);
    began = nx_now_ms();
    r->deadline_ms = began + r->process->config->replication.connect_timeout_ms;
    nx_connect(r);
    if (!nx_receiver_ended(r)) {
        nx_session_run(r);
    }
    good = r->welcomed && (r->last.offset > r->session_offset || nx_now_ms() - began >= GOOD_MS ||
                           (!r->cause.slow && r->sync.incoming.bytes > r->sync.resumed_at));
    r->failures = good ? 0 : r->failures + 1;
    r->logged_kind = good ? NX_CAUSE_NONE : r->logged_kind;
    log_cause(r);
    if (r->io.fd >= 0) {
        nx_frame_io_farewell(&r->io, r->cause.error_code, r->cause.text, FAREWELL_MS);
    }
}

int nx_walreceiver_main(struct nx_process *process)
{
    static struct nx_walreceiver r;

    r = (struct nx_walreceiver){.process = process, .shm = process->shm, .io = {.fd = -1}};
    nx_receive_snapshot_init(&r);
    atomic_store_explicit(&r.shm->receiver.connected, 0, memory_order_release);
    atomic_store_explicit(&r.shm->receiver.stage, NX_RECEIVER_CONNECTING, memory_order_relaxed);
    nx_producer_attach(
        &r.producer, r.shm, NX_PRODUCERS - 1,
        atomic_load_explicit(&r.shm->slots[process->slot].generation, memory_order_relaxed));
    nx_health_begin(&r);
    r.lag = (struct nx_lag_mark){
        .goal = atomic_load_explicit(&r.shm->receiver.master_offset, memory_order_relaxed),
        .since_ms = atomic_load_explicit(&r.shm->receiver.behind_since_ms, memory_order_relaxed),
    };
    nx_process_title(process, "starting");
    nx_process_ready(process);
    wait_for_recovery(&r);
    while (!nx_process_stopping(process)) {
        attempt(&r);
        if (!nx_process_stopping(process)) {
            nx_process_title(process, "waiting to reconnect to %s",
                             process->config->replication.master_addr);
            pause_for(&r, backoff(&r));
        }
    }
    return NX_EXIT_OK;
}
