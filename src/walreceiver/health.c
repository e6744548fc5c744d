/* The judgment of the master's life; see health.h. Runs in the walreceiver; owns the fields about it in
 * shm->receiver. A death is told to the postmaster, which may run failover_command; each has a number, so
 * that one that is told again after a restart is known. */
#include "walreceiver/health.h"

#include "common/latch.h"
#include "common/log.h"
#include "walreceiver/walreceiver.h"

#define SLACK_MS          50      /* how late a timer fires on a busy machine */
#define LEAST_BYTES       4096    /* of a frame that isn't whole yet: a modem's pace */
#define MOST_HEARTBEAT_MS 3600000 /* of heartbeat_ms; a master that says more is not believed */

static uint64_t load(const nx_atomic_u64 *field)
{
    return atomic_load_explicit(field, memory_order_relaxed);
}

static void store(nx_atomic_u64 *field, uint64_t value)
{
    atomic_store_explicit(field, value, memory_order_relaxed);
}

uint64_t nx_silence_counted_us(int timeout_ms, uint64_t slept_us)
{
    uint64_t most = ((uint64_t)(timeout_ms < 0 ? 0 : timeout_ms) + SLACK_MS) * 1000;

    return slept_us < most ? slept_us : most;
}

uint64_t nx_master_silence_limit_ms(uint64_t own_heartbeat_ms,
                                    uint64_t master_heartbeat_ms,
                                    uint64_t threshold)
{
    uint64_t masters =
        master_heartbeat_ms < MOST_HEARTBEAT_MS ? master_heartbeat_ms : MOST_HEARTBEAT_MS;

    return (own_heartbeat_ms > masters ? own_heartbeat_ms : masters) * threshold;
}

uint64_t nx_health_limit_ms(const struct nx_walreceiver *r)
{
    const struct nx_config *config = r->process->config;

    return nx_master_silence_limit_ms(config->replication.heartbeat_ms,
                                      load(&r->shm->receiver.master_heartbeat_ms),
                                      config->replication.missed_heartbeats_threshold);
}

bool nx_health_dead(const struct nx_walreceiver *r)
{
    return atomic_load_explicit(&r->shm->receiver.master_dead, memory_order_relaxed) != 0;
}

void nx_health_begin(struct nx_walreceiver *r)
{
    struct nx_receiver_state *state = &r->shm->receiver;

    r->health = (struct nx_health){.held = false};
    if (load(&state->last_frame_ms) == 0) {
        /* The master's silence is counted from here on, not from the machine's start. */
        store(&state->last_frame_ms, nx_now_ms());
    }
}

void nx_health_alive(struct nx_walreceiver *r)
{
    struct nx_receiver_state *state = &r->shm->receiver;

    store(&state->silent_us, 0);
    if (nx_health_dead(r)) {
        r->health.told = false;
        atomic_store_explicit(&state->master_dead, 0, memory_order_release);
        nx_info("master %s is heard again, after %llu ms of silence",
                r->process->config->replication.master_addr,
                (unsigned long long)(nx_now_ms() - load(&state->last_frame_ms)));
    }
}

void nx_health_heard(struct nx_walreceiver *r)
{
    struct nx_receiver_state *state = &r->shm->receiver;

    nx_health_alive(r);
    store(&state->last_frame_ms, nx_now_ms());
    r->health.heard_bytes = r->io.received;
    if (atomic_load_explicit(&state->master_heard, memory_order_relaxed) == 0) {
        atomic_store_explicit(&state->master_heard, 1, memory_order_release);
    }
}

static void say_dead(const struct nx_walreceiver *r, uint64_t silent_ms)
{
    const struct nx_receiver_state *state = &r->shm->receiver;
    const struct nx_config *config = r->process->config;
    uint64_t threshold = config->replication.missed_heartbeats_threshold;
    uint64_t own = config->replication.heartbeat_ms;
    uint64_t limit = nx_health_limit_ms(r);
    bool heard = atomic_load_explicit(&state->master_heard, memory_order_relaxed) != 0;

    nx_warn(
        "master %s appears dead: nothing was heard of it for %llu ms%s, and the limit is %llu ms "
        "(heartbeat_ms %llu, which is %s, x missed_heartbeats_threshold %llu). If it is alive, "
        "raise heartbeat_ms or missed_heartbeats_threshold (\"Master Appears Dead (False "
        "Positive)\" in the guide); if it isn't, promote a replica (POST /replication/promote)",
        config->replication.master_addr, (unsigned long long)silent_ms,
        heard ? "" : ", since this node's start or since it was told to follow it",
        (unsigned long long)limit, (unsigned long long)(limit / threshold),
        limit / threshold > own ? "the master's, longer than this node's own" : "this node's own",
        (unsigned long long)threshold);
}

static void tell(struct nx_walreceiver *r)
{
    r->health.told = nx_control_send(r->process->control.fd, NX_CONTROL_MASTER_DEAD, 0,
                                     load(&r->shm->receiver.master_deaths), NULL) == 0;
}

static void judge(struct nx_walreceiver *r)
{
    struct nx_receiver_state *state = &r->shm->receiver;
    uint64_t silent_ms = load(&state->silent_us) / 1000;

    if (silent_ms < nx_health_limit_ms(r)) {
        return;
    }
    store(&state->master_deaths, load(&state->master_deaths) + 1);
    atomic_store_explicit(&state->master_dead, 1, memory_order_release);
    atomic_store_explicit(&state->connected, 0, memory_order_release);
    say_dead(r, silent_ms);
    if (r->welcomed) {
        nx_receiver_end(r, NX_CAUSE_SILENCE, 0, "the connection to the master at %s is given up",
                        r->peer);
    }
}

void nx_health_read(struct nx_walreceiver *r, bool framed)
{
    if (framed || r->io.received - r->health.heard_bytes >= LEAST_BYTES) {
        nx_health_heard(r);
    } else if (!nx_health_dead(r)) {
        judge(r);
    }
}

int nx_health_may_sleep(const struct nx_walreceiver *r, int timeout_ms)
{
    uint64_t limit = nx_health_limit_ms(r);
    uint64_t silent = load(&r->shm->receiver.silent_us) / 1000;
    uint64_t most = NX_HEALTH_SLEEP_MS;

    if (r->health.held) {
        return timeout_ms;
    }
    if (!nx_health_dead(r)) {
        uint64_t left = limit > silent ? limit - silent : 0;

        most = left < most ? left : most;
    }
    return timeout_ms >= 0 && (uint64_t)timeout_ms < most ? timeout_ms : (int)most;
}

void nx_health_slept(struct nx_walreceiver *r, int timeout_ms, uint64_t slept_us, bool readable)
{
    struct nx_receiver_state *state = &r->shm->receiver;

    if (!r->health.held) {
        store(&state->silent_us,
              load(&state->silent_us) + nx_silence_counted_us(timeout_ms, slept_us));
        if (!readable && !nx_health_dead(r)) {
            judge(r);
        }
    }
    if (nx_health_dead(r) && !r->health.told) {
        tell(r);
    }
}
