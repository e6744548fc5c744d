/* What a replica's word counts for: its acknowledgments raise the quorum's offset, its Pongs confirm that it
 * still follows this master; and what of it the replica is told. Runs in walsenders; writes the slot, and the
 * quorum's offset by its atomic maximum. */
#include "common/latch.h"
#include "common/log_clock.h"
#include "common/quorum.h"
#include "walsender/walsender.h"

static void ring_http_workers(struct nx_walsender *ws)
{
    for (unsigned i = 0; i < NX_MAX_HTTP_WORKERS; i++) {
        nx_latch_ring(ws->shm, nx_process_slot(NX_KIND_HTTP, i));
    }
}

/* What it lacked when it came is there now: from here on it counts, and writes may be waiting for that. */
static void become_streaming(struct nx_walsender *ws)
{
    atomic_store_explicit(&ws->slot->state, NX_REPLICA_STREAMING, memory_order_release);
    ring_http_workers(ws);
}

static void ring_who_wants_acks(struct nx_walsender *ws)
{
    for (unsigned i = 0; i < NX_MAX_HTTP_WORKERS; i++) {
        if (atomic_load_explicit(&ws->shm->http[i].acks_wanted, memory_order_relaxed) != 0) {
            nx_latch_ring(ws->shm, nx_process_slot(NX_KIND_HTTP, i));
        }
    }
}

void nx_count_ack(struct nx_walsender *ws)
{
    static struct nx_replica_views views;
    uint32_t state = atomic_load_explicit(&ws->slot->state, memory_order_relaxed);

    if (state == NX_REPLICA_CATCHING_UP && ws->acked_offset >= ws->level_offset) {
        become_streaming(ws);
    } else if (state != NX_REPLICA_STREAMING) {
        return;
    }
    /* Of two that acknowledge at one moment at least one must see both; and whoever waits for all must be seen
     * here, or see this. */
    atomic_thread_fence(memory_order_seq_cst);
    ring_who_wants_acks(ws);
    if (ws->acked_offset <= nx_quorum_offset(ws->shm)) {
        return; /* whatever others have, this one can't raise it */
    }
    nx_replicas_look(ws->shm, nx_silence_limit_ms(ws->process->config), &views);
    nx_quorum_raise(ws->shm, nx_replicas_quorum_offset(&views, nx_quorum_size(ws->shm)));
}

/* The latest moment for which a linearizable read wants the replicas' confirmation. */
static uint64_t confirm_wanted_us(const struct nx_walsender *ws)
{
    uint64_t wanted = 0;

    for (unsigned i = 0; i < NX_MAX_HTTP_WORKERS; i++) {
        uint64_t us =
            atomic_load_explicit(&ws->shm->http[i].confirm_wanted_us, memory_order_acquire);

        wanted = us > wanted ? us : wanted;
    }
    return wanted;
}

void nx_count_pong(struct nx_walsender *ws, uint64_t timestamp)
{
    /* Pongs come in the order of their Pings, and one may stand for several. */
    if (ws->awaited_stamp == 0 || timestamp < ws->awaited_stamp || timestamp > ws->asked_stamp) {
        return;
    }
    uint64_t before = atomic_load_explicit(&ws->slot->confirmed_us, memory_order_relaxed);
    /* The Pong of a later Ping, a heartbeat, says more; nobody would ask again for what that one asked. */
    uint64_t us = timestamp == ws->asked_stamp ? ws->asked_us : ws->awaited_us;

    atomic_store_explicit(&ws->slot->confirmed_us, us, memory_order_release);
    /* Another Ping may be on its way since: then its Pong is the next that tells something. */
    ws->awaited_stamp = timestamp < ws->asked_stamp ? ws->asked_stamp : 0;
    ws->awaited_us = ws->asked_us;
    atomic_thread_fence(memory_order_seq_cst);
    if (confirm_wanted_us(ws) > before) {
        ring_http_workers(ws);
    }
}

bool nx_count_ping_due(const struct nx_walsender *ws)
{
    return ws->welcomed && ws->awaited_stamp == 0 && confirm_wanted_us(ws) > ws->asked_us;
}

int nx_count_put_ping(struct nx_walsender *ws)
{
    uint64_t clock = nx_wall_ms();
    struct nx_msg_ping ping = {
        .timestamp = clock > ws->asked_stamp ? clock : ws->asked_stamp + 1,
        .current_wal_offset = nx_walsender_durable(ws),
        .quorum_offset = nx_quorum_offset(ws->shm),
        .log_clock = nx_log_clock_ms(ws->shm),
    };
    uint64_t now = nx_now_us();
    int rc = nx_frame_io_put_ping(&ws->io, &ping);

    if (rc == 0) {
        ws->asked_stamp = ping.timestamp;
        ws->asked_us = now;
        ws->told_quorum = ping.quorum_offset;
    }
    if (rc == 0 && ws->awaited_stamp == 0) {
        ws->awaited_stamp = ping.timestamp;
        ws->awaited_us = now;
    }
    return rc;
}

bool nx_count_news(const struct nx_walsender *ws)
{
    return nx_quorum_rules(ws->shm) && nx_quorum_offset(ws->shm) > ws->told_quorum;
}

int nx_count_put_news(struct nx_walsender *ws)
{
    struct nx_msg_ping ping = {
        .current_wal_offset = nx_walsender_durable(ws),
        .quorum_offset = nx_quorum_offset(ws->shm),
        .log_clock = nx_log_clock_ms(ws->shm),
    };
    int rc = nx_frame_io_put_ping(&ws->io, &ping);

    if (rc == 0) {
        ws->told_quorum = ping.quorum_offset;
    }
    return rc;
}
