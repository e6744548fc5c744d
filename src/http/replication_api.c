/* Runs in http workers. /replication/status, .../master/stats, .../replica/stats, .../replicas: each
 * figure is read from shared memory, where the process that counts it wrote it. */
#include "common/advertised.h"
#include "common/fence.h"
#include "common/json_out.h"
#include "common/latch.h"
#include "common/quorum.h"
#include "common/shared_log.h"
#include "common/synced.h"
#include "common/uuid_text.h"
#include "http/absent.h"
#include "http/connection.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"
#include "nexus_version.h"

#include <event2/bufferevent.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>

#define MOST_EPOCHS 32 /* in a status */

static uint64_t load(const nx_atomic_u64 *field)
{
    return atomic_load_explicit(field, memory_order_relaxed);
}

static uint64_t since_ms(uint64_t then)
{
    uint64_t now = nx_now_ms();

    return then > 0 && now > then ? now - then : 0;
}

/* A copy of a string that another process writes: never without its end. */
static void copy_string(char *out, const char *from, size_t size)
{
    memcpy(out, from, size);
    out[size - 1] = '\0';
}

/* ---- replicas, as the master sees them ---- */

static bool is_connected(const struct nx_replica_slot *replica)
{
    return atomic_load_explicit(&replica->state, memory_order_acquire) != NX_REPLICA_NONE;
}

static bool is_healthy(struct http_worker *worker, const struct nx_replica_slot *replica)
{
    return is_connected(replica) &&
           since_ms(load(&replica->heard_ms)) <= nx_silence_limit_ms(worker->process->config);
}

struct totals {
    uint64_t connected;
    uint64_t healthy;
    uint64_t bytes_sent;
    uint64_t sync_acks;
    uint64_t snapshot_transfers;
};

static struct totals count_replicas(struct http_worker *worker)
{
    const struct nx_shm *shm = worker->shm;
    struct totals totals = {
        .bytes_sent = load(&shm->control.ended_bytes_sent),
        .sync_acks = load(&shm->control.ended_sync_acks),
        .snapshot_transfers = load(&shm->control.ended_snapshot_transfers),
    };

    for (unsigned i = 0; i < NX_MAX_WALSENDERS; i++) {
        const struct nx_replica_slot *replica = &shm->replicas[i];

        totals.connected += is_connected(replica) ? 1 : 0;
        totals.healthy += is_healthy(worker, replica) ? 1 : 0;
        totals.bytes_sent += load(&replica->bytes_sent);
        totals.sync_acks += load(&replica->sync_acks);
        totals.snapshot_transfers += load(&replica->snapshot_transfers);
    }
    return totals;
}

/* ---- status ---- */

static bool enabled(struct nx_shm *shm)
{
    return nx_node_role(shm) != NX_NODE_STANDALONE;
}

static bool running(struct nx_shm *shm)
{
    return enabled(shm) && !nx_node_replication_stopped(shm);
}

static bool connected(struct nx_shm *shm)
{
    if (!running(shm)) {
        return false;
    }
    switch (nx_node_role(shm)) {
    case NX_NODE_MASTER:
        return nx_node_phase(shm) != NX_PHASE_STARTING && !nx_fenced(shm); /* it listens */
    case NX_NODE_REPLICA:
        return nx_node_connected(shm);
    case NX_NODE_STANDALONE:
        break;
    }
    return false;
}

static const char *state_name(struct nx_shm *shm)
{
    if (nx_node_phase(shm) == NX_PHASE_STARTING) {
        return "starting";
    }
    if (nx_fenced(shm)) {
        return "fenced";
    }
    if (!running(shm)) {
        return "stopped";
    }
    if (nx_node_role(shm) == NX_NODE_MASTER) {
        return "streaming";
    }
    switch (
        (enum nx_receiver_stage)atomic_load_explicit(&shm->receiver.stage, memory_order_relaxed)) {
    case NX_RECEIVER_CATCHING_UP:
        return "catching_up";
    case NX_RECEIVER_STREAMING:
        return "streaming";
    case NX_RECEIVER_SNAPSHOT:
        return "snapshot";
    case NX_RECEIVER_CONNECTING:
        break;
    }
    return "connecting";
}

static bool master_dead(struct nx_shm *shm)
{
    return atomic_load_explicit(&shm->receiver.master_dead, memory_order_acquire) != 0;
}

/* The replica's judgment of its master (the walreceiver's): heard since our start, and not silent for too
 * long. */
static bool master_alive(struct nx_shm *shm)
{
    return nx_node_role(shm) == NX_NODE_REPLICA && running(shm) &&
           atomic_load_explicit(&shm->receiver.master_heard, memory_order_acquire) != 0 &&
           !master_dead(shm);
}

/* Another node is being promoted, or was: this one is no candidate beside it. */
static bool has_promised(struct nx_shm *shm)
{
    return load(&shm->control.promised_epoch) > nx_node_epoch(shm);
}

static bool promotable(struct http_worker *worker)
{
    struct nx_shm *shm = worker->shm;

    return nx_node_role(shm) == NX_NODE_REPLICA && running(shm) &&
           worker->process->config->replication.auto_failover &&
           nx_node_phase(shm) != NX_PHASE_STARTING && !nx_not_synced(shm) && master_dead(shm) &&
           !has_promised(shm);
}

/* How a process ended last: "", "exit 1", "signal 9". */
static void put_last_exit(struct json *json, int status)
{
    char text[32] = "";

    if (status != 0 && WIFSIGNALED(status)) {
        snprintf(text, sizeof text, "signal %d", WTERMSIG(status));
    } else if (status != 0) {
        snprintf(text, sizeof text, "exit %d", WEXITSTATUS(status));
    }
    nx_json_string(json, "last_exit", text);
}

static void put_processes(struct json *json, struct nx_shm *shm)
{
    nx_json_open(json, "processes", '[');
    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        const struct nx_slot *slot = &shm->slots[i];
        int pid = atomic_load_explicit(&slot->pid, memory_order_relaxed);
        uint32_t restarts = atomic_load_explicit(&slot->restarts, memory_order_relaxed);
        unsigned instance;

        if (pid == 0 && restarts == 0) {
            continue;
        }
        nx_json_open(json, NULL, '{');
        nx_json_string(json, "kind", nx_process_kind_title(nx_process_slot_kind(i, &instance)));
        nx_json_i64(json, "pid", pid);
        nx_json_u64(json, "restarts", restarts);
        put_last_exit(json, atomic_load_explicit(&slot->last_exit, memory_order_relaxed));
        nx_json_close(json, '}');
    }
    nx_json_close(json, ']');
}

/* The replication address: as configured, with the host by which this client sees us where that is a
 * wildcard. */
static void put_replication_addr(struct json *json, struct connection *connection)
{
    const struct nx_config *config = connection->worker->process->config;
    char own[NX_ADDR_TEXT] = "";
    char seen[NX_ADDR_TEXT] = "127.0.0.1:0";
    char resolved[NX_ADDR_TEXT] = "";

    if (enabled(connection->worker->shm)) {
        nx_advertised_own(config->replication.advertised_addr, config->replication.bind_addr, own);
        nx_access_local_address(connection, seen, sizeof seen);
        if (nx_advertised_resolve(nx_slice_text(own), seen, resolved) < 0) {
            snprintf(resolved, sizeof resolved, "%s", own);
        }
    }
    nx_json_string(json, "replication_addr", resolved);
}

static void put_guide_fields(struct json *json, struct http_worker *worker, uint64_t offset)
{
    struct nx_shm *shm = worker->shm;

    nx_json_string(json, "role", nx_node_role_name(nx_node_role(shm)));
    nx_json_bool(json, "running", running(shm));
    nx_json_string(json, "mode", nx_mode_name(worker->process->config->replication.mode));
    nx_json_bool(json, "connected", connected(shm));
    nx_json_string(json, "node_id", shm->control.node_id);
    nx_json_u64(json, "wal_offset", offset);
    nx_json_u64(json, "replica_count",
                nx_node_role(shm) == NX_NODE_MASTER ? count_replicas(worker).connected : 0);
    nx_json_u64(json, "lag", nx_node_lag(shm));
}

/* Who leads, as a replica's log says it; where that is, if it is the master that it follows. */
static bool leader_of_log(struct http_worker *worker, uint64_t offset, struct nx_fence *ret_leader)
{
    static struct nx_epochs epochs;
    const struct nx_shm *shm = worker->shm;
    const struct nx_epoch *last;

    (void)nx_epochs_read(shm, offset, &epochs);
    last = nx_epochs_last(&epochs);
    if (last == NULL) {
        return false;
    }
    *ret_leader = (struct nx_fence){.epoch = last->epoch};
    nx_uuid_print(last->node_id, ret_leader->node_id);
    if (atomic_load_explicit(&shm->receiver.master_known, memory_order_acquire) != 0 &&
        strncasecmp(shm->receiver.master_id, ret_leader->node_id, NX_UUID_LENGTH) == 0) {
        copy_string(ret_leader->addr, worker->process->config->replication.master_addr,
                    sizeof ret_leader->addr);
        copy_string(ret_leader->http_addr, shm->receiver.master_http, sizeof ret_leader->http_addr);
    }
    return true;
}

/* Of a node that doesn't lead itself: who does, as far as it knows. */
static void put_leader(struct json *json, struct http_worker *worker, uint64_t offset)
{
    struct nx_fence leader;

    if (nx_fenced(worker->shm)) {
        nx_fence_read(worker->shm, &leader);
    } else if (nx_node_role(worker->shm) != NX_NODE_REPLICA ||
               !leader_of_log(worker, offset, &leader)) {
        return;
    }
    nx_json_open(json, "leader", '{');
    nx_json_u64(json, "epoch", leader.epoch);
    nx_json_string(json, "node_id", leader.node_id);
    nx_json_string(json, "replication_addr", leader.addr);
    nx_json_string(json, "http_addr", leader.http_addr);
    nx_json_close(json, '}');
}

/* The position that a replica vouches for, while its last full sync isn't complete (synced.h). */
static void put_sync_goal(struct json *json, struct nx_shm *shm)
{
    struct nx_sync_goal goal = nx_sync_goal(shm);

    if (goal.offset != 0 && nx_node_phase(shm) != NX_PHASE_STARTING) {
        nx_json_open(json, "sync_goal", '{');
        nx_json_u64(json, "epoch", goal.epoch);
        nx_json_u64(json, "offset", goal.offset);
        nx_json_close(json, '}');
    }
}

/* Which node led from which entry on: by it a master that comes back believes that another one leads by now
 * (peers/leader.h). The newest of them; few logs have more. */
static void put_epochs(struct json *json, const struct nx_shm *shm, uint64_t offset)
{
    static struct nx_epochs epochs;
    unsigned first;

    (void)nx_epochs_read(shm, offset, &epochs);
    first = epochs.count > MOST_EPOCHS ? epochs.count - MOST_EPOCHS : 0;
    nx_json_open(json, "epochs", '[');
    for (unsigned i = first; i < epochs.count; i++) {
        char node_id[NX_UUID_TEXT];

        nx_uuid_print(epochs.list[i].node_id, node_id);
        nx_json_open(json, NULL, '{');
        nx_json_u64(json, "epoch", epochs.list[i].epoch);
        nx_json_u64(json, "first_offset", epochs.list[i].first_offset);
        nx_json_string(json, "node_id", node_id);
        nx_json_u64(json, "crc", epochs.list[i].crc);
        nx_json_close(json, '}');
    }
    nx_json_close(json, ']');
}

void nx_handle_replication_status(struct connection *connection)
{
    struct http_worker *worker = connection->worker;
    struct nx_shm *shm = worker->shm;
    struct text *text = &worker->json;
    struct json json = nx_json_of(text);
    char cluster_id[NX_UUID_TEXT];
    uint64_t epoch = nx_node_epoch(shm); /* first: the history below has at least that */
    uint64_t position_epoch;
    uint64_t offset;
    uint32_t crc;

    nx_log_position(shm, &offset, &position_epoch, &crc);
    nx_node_cluster_id(shm, cluster_id);
    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    put_guide_fields(&json, worker, offset);
    nx_json_u64(&json, "epoch", epoch);
    nx_json_string(&json, "cluster_id", cluster_id);
    nx_json_string(&json, "state", state_name(shm));
    nx_json_u64(&json, "durable_offset", offset);
    nx_json_u64(&json, "applied_offset", offset);
    nx_json_u64(&json, "quorum_offset", nx_quorum_offset(shm));
    nx_json_u64(&json, "checkpoint_offset", load(&shm->checkpoint.checkpoint_offset));
    nx_json_u64(&json, "last_crc", crc);
    put_sync_goal(&json, shm);
    put_leader(&json, worker, offset);
    put_epochs(&json, shm, offset);
    put_replication_addr(&json, connection);
    nx_json_bool(&json, "master_alive", master_alive(shm));
    nx_json_bool(&json, "promotable", promotable(worker));
    nx_json_u64(&json, "started_at", shm->control.started_at);
    nx_json_string(&json, "version", NEXUS_VERSION);
    put_processes(&json, shm);
    nx_json_bool(&json, "open_access", nx_access_is_open(worker));
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_respond_json(connection, text);
}

/* ---- statistics ---- */

/* Entries that a replica could still ask for. */
static uint64_t log_size(const struct http_worker *worker)
{
    uint64_t oldest =
        nx_log_oldest_kept(worker->shm, worker->process->config->replication.max_log_size);
    uint64_t durable = load(&worker->shm->log.durable_offset);

    return durable >= oldest ? durable - oldest + 1 : 0;
}

void nx_handle_master_stats(struct connection *connection)
{
    struct http_worker *worker = connection->worker;
    const struct nx_shm *shm = worker->shm;
    struct text *text = &worker->json;
    struct json json = nx_json_of(text);
    uint64_t durable = load(&shm->log.durable_offset);
    uint64_t start = load(&shm->log.start_offset);
    struct totals totals;

    if (!nx_node_check_role(connection, NX_NODE_MASTER)) {
        return;
    }
    totals = count_replicas(worker);
    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    nx_json_u64(&json, "entries_replicated", durable > start ? durable - start : 0);
    nx_json_u64(&json, "bytes_sent", totals.bytes_sent);
    nx_json_u64(&json, "connected_replicas", totals.connected);
    nx_json_u64(&json, "healthy_replicas", totals.healthy);
    nx_json_u64(&json, "log_size", log_size(worker));
    nx_json_u64(&json, "current_offset", durable);
    nx_json_u64(&json, "sync_acks", totals.sync_acks);
    nx_json_u64(&json, "snapshot_transfers", totals.snapshot_transfers);
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_respond_json(connection, text);
}

/* How far behind in time: since it is, and without a master since that was last heard. */
static uint64_t lag_ms(struct nx_shm *shm)
{
    uint64_t behind = nx_node_lag(shm) > 0 ? load(&shm->receiver.behind_since_ms) : 0;

    if (behind == 0 && !nx_node_connected(shm)) {
        behind = load(&shm->receiver.last_frame_ms);
    }
    return since_ms(behind);
}

void nx_handle_replica_stats(struct connection *connection)
{
    struct http_worker *worker = connection->worker;
    struct nx_shm *shm = worker->shm;
    const struct nx_receiver_state *receiver = &shm->receiver;
    struct text *text = &worker->json;
    struct json json = nx_json_of(text);
    char master_id[NX_UUID_TEXT] = "";

    if (!nx_node_check_role(connection, NX_NODE_REPLICA)) {
        return;
    }
    if (atomic_load_explicit(&receiver->master_known, memory_order_acquire) != 0) {
        copy_string(master_id, receiver->master_id, sizeof master_id);
    }
    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    nx_json_u64(&json, "entries_received", load(&receiver->entries_received));
    nx_json_u64(&json, "entries_applied", load(&receiver->entries_applied));
    nx_json_u64(&json, "bytes_received", load(&receiver->bytes_received));
    nx_json_u64(&json, "current_offset", nx_node_durable(shm));
    nx_json_u64(&json, "lag", nx_node_lag(shm));
    nx_json_u64(&json, "reconnects", load(&receiver->reconnects));
    nx_json_bool(&json, "connected", connected(shm));
    nx_json_string(&json, "master_id", master_id);
    nx_json_u64(&json, "lag_bytes", nx_node_lag(shm) > 0 ? load(&receiver->master_bytes) : 0);
    nx_json_thousandths(&json, "lag_seconds", lag_ms(shm));
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_respond_json(connection, text);
}

/* ---- the list of replicas ---- */

static const char *replica_state_name(const struct nx_replica_slot *replica)
{
    switch ((enum nx_replica_state)atomic_load_explicit(&replica->state, memory_order_acquire)) {
    case NX_REPLICA_STREAMING:
        return "streaming";
    case NX_REPLICA_SNAPSHOT:
        return "snapshot";
    case NX_REPLICA_CATCHING_UP:
    case NX_REPLICA_NONE:
        break;
    }
    return "catching_up";
}

static void put_replica(struct json *json,
                        struct http_worker *worker,
                        const struct nx_replica_slot *replica,
                        uint64_t durable)
{
    char id[NX_UUID_TEXT];
    char addr[NX_ADDR_TEXT];
    uint64_t ack = load(&replica->ack_offset);
    uint64_t lag = durable > ack ? durable - ack : 0;
    uint64_t sent = load(&replica->sent_bytes_total);
    uint64_t acked = load(&replica->acked_bytes_total);

    copy_string(id, replica->id, sizeof id);
    copy_string(addr, replica->addr, sizeof addr);
    nx_json_open(json, NULL, '{');
    nx_json_string(json, "id", id);
    nx_json_string(json, "addr", addr);
    nx_json_u64(json, "last_ack_offset", ack);
    nx_json_u64(json, "lag", lag);
    nx_json_bool(json, "healthy", is_healthy(worker, replica));
    nx_json_u64(json, "connected_seconds", since_ms(load(&replica->connected_ms)) / 1000);
    nx_json_string(json, "state", replica_state_name(replica));
    nx_json_u64(json, "lag_bytes", lag > 0 && sent > acked ? sent - acked : 0);
    nx_json_thousandths(json, "lag_seconds",
                        lag > 0 ? since_ms(load(&replica->behind_since_ms)) : 0);
    nx_json_thousandths(json, "snapshot_progress",
                        atomic_load_explicit(&replica->snapshot_progress, memory_order_relaxed));
    nx_json_u64(json, "durable_offset", ack);
    nx_json_u64(json, "applied_offset", load(&replica->applied_offset));
    nx_json_close(json, '}');
}

void nx_handle_replicas(struct connection *connection)
{
    struct http_worker *worker = connection->worker;
    struct nx_shm *shm = worker->shm;
    struct text *text = &worker->json;
    struct json json = nx_json_of(text);
    uint64_t durable = nx_node_durable(shm);
    struct shown_replicas shown = {.count = 0};

    if (!nx_node_check_role(connection, NX_NODE_MASTER)) {
        return;
    }
    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    nx_json_open(&json, "replicas", '[');
    for (unsigned i = 0; i < NX_MAX_WALSENDERS; i++) {
        if (is_connected(&shm->replicas[i])) {
            put_replica(&json, worker, &shm->replicas[i], durable);
            copy_string(shown.ids[shown.count++], shm->replicas[i].id, NX_UUID_TEXT);
        }
    }
    nx_json_close(&json, ']');
    nx_absent_put(&json, worker, &shown);
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_respond_json(connection, text);
}
