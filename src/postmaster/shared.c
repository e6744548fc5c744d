/* The postmaster's side of shared memory: making it, afresh after a crash, and the fields that are the
 * postmaster's to write. */
#include "common/fence.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/shm.h"
#include "common/tls.h"
#include "postmaster/postmaster.h"
#include "postmaster/served.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uuid.h>

static enum nx_node_role node_role(const struct nx_config *config)
{
    switch (config->replication.role) {
    case NX_ROLE_MASTER:
        return NX_NODE_MASTER;
    case NX_ROLE_REPLICA:
        return NX_NODE_REPLICA;
    case NX_ROLE_STANDALONE:
        break;
    }
    return NX_NODE_STANDALONE;
}

/* A replica follows its master's mode: until it hears of it, it is careful. */
static enum nx_commit_rule commit_rule(const struct nx_config *config)
{
    switch (config->replication.role) {
    case NX_ROLE_MASTER:
        return config->replication.mode == NX_MODE_SYNC ? NX_COMMIT_QUORUM : NX_COMMIT_DURABLE;
    case NX_ROLE_REPLICA:
        return NX_COMMIT_QUORUM;
    case NX_ROLE_STANDALONE:
        break;
    }
    return NX_COMMIT_DURABLE;
}

static void publish_cluster(struct nx_postmaster *pm)
{
    struct nx_control_block *control = &pm->shm->control;

    memcpy(control->cluster_id, pm->dir.identity.cluster_id, sizeof control->cluster_id);
    memcpy(control->first_node_id, pm->dir.identity.first_node_id, sizeof control->first_node_id);
    atomic_store_explicit(&control->cluster_known, control->cluster_id[0] != '\0' ? 1 : 0,
                          memory_order_release);
}

/* What outlives a crash: how often children were started and how they ended, what was counted, and what
 * is known of the master's life. */
struct carried {
    uint32_t restarts[NX_MAX_SLOTS];
    int32_t last_exit[NX_MAX_SLOTS];
    struct nx_control_block control; /* of it, the counters */
    struct nx_receiver_state receiver;
    struct nx_log_clock clock;
};

static void carry_field(nx_atomic_u64 *to, const nx_atomic_u64 *from)
{
    atomic_store_explicit(to, atomic_load_explicit(from, memory_order_relaxed),
                          memory_order_relaxed);
}

static void carry_flag(nx_atomic_u32 *to, const nx_atomic_u32 *from)
{
    atomic_store_explicit(to, atomic_load_explicit(from, memory_order_relaxed),
                          memory_order_relaxed);
}

static void carry_counters(struct nx_control_block *to_control,
                           struct nx_receiver_state *to,
                           const struct nx_control_block *from_control,
                           const struct nx_receiver_state *from)
{
    carry_field(&to_control->ended_bytes_sent, &from_control->ended_bytes_sent);
    carry_field(&to_control->ended_sync_acks, &from_control->ended_sync_acks);
    carry_field(&to_control->ended_snapshot_transfers, &from_control->ended_snapshot_transfers);
    carry_field(&to_control->carried_start, &from_control->carried_start);
    carry_field(&to_control->carried_applied, &from_control->carried_applied);
    carry_field(&to->entries_received, &from->entries_received);
    carry_field(&to->entries_applied, &from->entries_applied);
    carry_field(&to->bytes_received, &from->bytes_received);
    carry_field(&to->bytes_sent, &from->bytes_sent);
    carry_field(&to->reconnects, &from->reconnects);
    carry_field(&to->last_frame_ms, &from->last_frame_ms);
    carry_field(&to->silent_us, &from->silent_us);
    carry_field(&to->master_deaths, &from->master_deaths);
    carry_field(&to->master_heartbeat_ms, &from->master_heartbeat_ms);
    carry_flag(&to->master_heard, &from->master_heard);
    carry_flag(&to->welcomed, &from->welcomed);
    carry_flag(&to->master_dead, &from->master_dead);
}

static void carry_from(const struct nx_shm *shm, struct carried *carried)
{
    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        const struct nx_slot *slot = &shm->slots[i];

        carried->restarts[i] = atomic_load_explicit(&slot->restarts, memory_order_relaxed);
        carried->last_exit[i] = atomic_load_explicit(&slot->last_exit, memory_order_relaxed);
    }
    carry_counters(&carried->control, &carried->receiver, &shm->control, &shm->receiver);
    carry_field(&carried->clock.lead_us, &shm->clock.lead_us);
}

static void carry_to(struct nx_shm *shm, const struct carried *carried)
{
    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        struct nx_slot *slot = &shm->slots[i];

        atomic_store_explicit(&slot->restarts, carried->restarts[i], memory_order_relaxed);
        atomic_store_explicit(&slot->last_exit, carried->last_exit[i], memory_order_relaxed);
    }
    carry_counters(&shm->control, &shm->receiver, &carried->control, &carried->receiver);
    carry_field(&shm->clock.lead_us, &carried->clock.lead_us);
}

/* What is counted by offsets goes on from where the node's life began; behind another history, from there. */
static void carry_start(struct nx_shm *shm, bool other_history)
{
    struct nx_control_block *control = &shm->control;
    uint64_t start = atomic_load_explicit(&shm->log.start_offset, memory_order_relaxed) + 1;

    if (other_history) {
        carry_field(&control->carried_applied, &shm->receiver.entries_applied);
        atomic_store_explicit(&control->carried_start, 0, memory_order_relaxed);
    } else if (atomic_load_explicit(&control->carried_start, memory_order_relaxed) == 0 &&
               atomic_load_explicit(&shm->log.groups, memory_order_relaxed) > 0) {
        atomic_store_explicit(&control->carried_start, start, memory_order_relaxed);
    }
}

static void log_failure(int rc, const struct nx_shm_origin *origin)
{
    if (rc == -ENOSPC || rc == -ENOMEM) {
        nx_error(
            "not enough shared memory: %llu bytes are wanted, %llu are free in /dev/shm; lower "
            "wal.shm_size or enlarge that filesystem",
            (unsigned long long)origin->size, (unsigned long long)origin->filesystem_free);
    } else {
        nx_error("shared memory of %llu bytes can't be made: %s", (unsigned long long)origin->size,
                 strerrordesc_np(-rc));
    }
}

struct nx_config nx_shared_config(const struct nx_postmaster *pm)
{
    struct nx_config config = pm->config;

    if (config.http.max_connections > pm->most_connections) {
        config.http.max_connections = pm->most_connections;
    }
    return config;
}

void nx_shared_publish_stop(struct nx_postmaster *pm)
{
    atomic_store_explicit(&pm->shm->control.replication_stopped, pm->replication_stopped ? 1 : 0,
                          memory_order_release);
}

/* Not taken from each process's configuration: between two that had not reloaded at the same moment a write
 * could be confirmed by fewer than were asked for. */
static void publish_quorum_size(struct nx_postmaster *pm)
{
    atomic_store_explicit(&pm->shm->quorum.size, (uint32_t)pm->config.replication.sync_quorum,
                          memory_order_release);
}

/* What was decided about the role and holds, unless the log says more. */
static void publish_decisions(struct nx_postmaster *pm)
{
    const struct nx_identity *identity = &pm->dir.identity;
    bool noted = identity->note.epoch != 0 && pm->configured.role != NX_ROLE_STANDALONE &&
                 nx_role_config_same(&identity->note.configured, &pm->configured);

    atomic_store_explicit(&pm->shm->control.promised_epoch, identity->promise.epoch,
                          memory_order_relaxed);
    atomic_store_explicit(&pm->shm->control.note_epoch, noted ? identity->note.epoch : 0,
                          memory_order_relaxed);
    atomic_store_explicit(&pm->shm->control.follow_forced,
                          identity->follow.addr[0] != '\0' && identity->follow.force ? 1 : 0,
                          memory_order_relaxed);
    nx_sync_goal_publish(&pm->shm->control.goal, &identity->goal);
    nx_fence_publish(pm->shm, &identity->fence, false);
}

void nx_shared_publish_role(struct nx_postmaster *pm)
{
    /* A replica goes by its master's word, and until it hears of another by what it has heard. */
    if (pm->config.replication.role == NX_ROLE_MASTER) {
        atomic_store_explicit(&pm->shm->quorum.rule, commit_rule(&pm->config),
                              memory_order_release);
    }
    atomic_store_explicit(&pm->shm->control.role, node_role(&pm->config), memory_order_release);
    nx_shared_publish_stop(pm);
    nx_shared_publish_config(pm);
    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        if (pm->children[i].pid != 0) {
            nx_latch_ring(pm->shm, i);
        }
    }
}

/* The fields that are the postmaster's. */
static void fill(struct nx_postmaster *pm)
{
    struct nx_shm *shm = pm->shm;

    shm->control.started_at = pm->started_at;
    memcpy(shm->control.node_id, pm->dir.node_id, sizeof shm->control.node_id);
    shm->control.config[0] = nx_shared_config(pm);
    atomic_store_explicit(&shm->control.role, node_role(&pm->config), memory_order_relaxed);
    /* Until the checkpointer says otherwise: a write that comes before it is not refused for that. */
    atomic_store_explicit(&shm->checkpoint.map_free, UINT64_MAX, memory_order_relaxed);
    atomic_store_explicit(&shm->snapshot.hold_offset, UINT64_MAX, memory_order_relaxed);
    atomic_store_explicit(&shm->quorum.rule, commit_rule(&pm->config), memory_order_relaxed);
    publish_quorum_size(pm);
    publish_cluster(pm);
    publish_decisions(pm);
    nx_shared_publish_stop(pm);
    nx_known_publish(pm);
}

int nx_shared_create(struct nx_postmaster *pm)
{
    struct nx_shm_origin origin;
    struct nx_shm *shm;
    int rc = nx_shm_create(pm->config.wal.shm_size, &shm, &origin);

    if (rc < 0) {
        log_failure(rc, &origin);
        return rc;
    }
    if (origin.memfd) {
        nx_warn(
            "/dev/shm has only %llu bytes free: %llu bytes of anonymous memory are used instead",
            (unsigned long long)origin.filesystem_free, (unsigned long long)origin.size);
    }
    pm->shm = shm;
    pm->shm_size = origin.size;
    fill(pm);
    return 0;
}

void nx_shared_renew(struct nx_postmaster *pm, bool other_history)
{
    static struct carried carried;

    carry_start(pm->shm, other_history);
    carry_from(pm->shm, &carried);
    nx_shm_renew(pm->shm, pm->shm_size);
    carry_to(pm->shm, &carried);
    fill(pm);
}

/* Known only once the log is recovered. */
static bool has_no_data(const struct nx_postmaster *pm)
{
    return pm->life == NX_LIFE_SERVING &&
           atomic_load_explicit(&pm->shm->log.durable_offset, memory_order_acquire) == 0;
}

int nx_shared_adopt_cluster(struct nx_postmaster *pm,
                            const char *cluster_id,
                            const char *first_node_id,
                            const struct nx_sync_goal *goal)
{
    struct nx_identity identity = pm->dir.identity;
    bool ours = strcmp(identity.cluster_id, cluster_id) == 0;
    uint8_t binary[16];

    if (nx_uuid_parse(cluster_id, binary) < 0 ||
        (first_node_id[0] != '\0' && nx_uuid_parse(first_node_id, binary) < 0)) {
        return -EINVAL;
    }
    if (ours && (identity.goal.offset != 0 || !has_no_data(pm))) {
        return 0; /* it owes what it had, or has begun to get what it owes */
    }
    if (identity.cluster_id[0] != '\0' && !has_no_data(pm)) {
        return -EEXIST;
    }
    identity.goal = *goal;
    if (!ours) {
        memcpy(identity.cluster_id, cluster_id, sizeof identity.cluster_id);
        (void)snprintf(identity.first_node_id, sizeof identity.first_node_id, "%s", first_node_id);
        /* They were of the other cluster. */
        identity.replica_count = 0;
        identity.fence.epoch = 0;
        identity.promise.epoch = 0;
        identity.note.epoch = 0;
    }
    int rc = nx_identity_store(&pm->dir, &identity);

    if (rc == 0 && pm->shm != NULL) {
        atomic_store_explicit(&pm->shm->control.promised_epoch, identity.promise.epoch,
                              memory_order_release);
        nx_sync_goal_publish(&pm->shm->control.goal, &identity.goal);
        publish_cluster(pm);
    }
    return rc;
}

void nx_shared_publish_config(struct nx_postmaster *pm)
{
    struct nx_control_block *control = &pm->shm->control;
    uint64_t version = atomic_load_explicit(&control->config_version, memory_order_relaxed) + 1;

    control->config[version % 2] = nx_shared_config(pm);
    atomic_store_explicit(&control->config_version, version, memory_order_release);
    publish_quorum_size(pm);
    nx_children_tell(pm, -1, NX_CONTROL_RELOAD, 0);
}

/* The files say what is configured; what is in effect may be another role, which stays. */
static int read_again(const struct nx_postmaster *pm,
                      struct nx_config *ret_fresh,
                      struct nx_config_report *report)
{
    struct nx_config configured = pm->config;
    int rc;

    configured.replication.role = pm->configured.role;
    memcpy(configured.replication.master_addr, pm->configured.master_addr,
           sizeof configured.replication.master_addr);
    rc = nx_config_reload(&configured, pm->report, ret_fresh, report);
    ret_fresh->replication.role = pm->config.replication.role;
    memcpy(ret_fresh->replication.master_addr, pm->config.replication.master_addr,
           sizeof ret_fresh->replication.master_addr);
    return rc;
}

/* What a reload has done. */
static void say_reloaded(const struct nx_config *config, const struct nx_config_report *report)
{
    char names[1024];
    unsigned applied;

    for (unsigned i = 0; i < report->warning_count && i < NX_CONFIG_MESSAGES; i++) {
        nx_warn("%s", report->warnings[i]);
    }
    applied = nx_config_changes(report, NX_CHANGE_APPLIED, names, sizeof names);
    nx_info("configuration reloaded: %u key%s changed%s%s", applied, applied == 1 ? "" : "s",
            applied > 0 ? ": " : "", applied > 0 ? names : "");
    if (config->http.tls_cert_file[0] != '\0' || config->replication.tls_cert_file[0] != '\0') {
        nx_info("certificates, keys and authorities were read again: new connections use them");
    }
    nx_served_say(config);
    if (nx_config_changes(report, NX_CHANGE_WAITS, names, sizeof names) > 0) {
        nx_warn("these keys changed and wait for a restart: %s", names);
    }
}

void nx_shared_reload(struct nx_postmaster *pm)
{
    static struct nx_config_report report;
    char error[512];
    struct nx_config fresh;
    int rc = read_again(pm, &fresh, &report);

    if (rc < 0) {
        nx_error("the configuration stays as it was: %s",
                 report.error_count > 0 ? report.errors[0] : strerrordesc_np(-rc));
        return;
    }
    if (nx_tls_load(&fresh, error, sizeof error) < 0) {
        nx_error("the configuration stays as it was: %s", error);
        return;
    }
    if (strcmp(pm->config.replication.peers, fresh.replication.peers) != 0) {
        nx_role_peers_changed(pm, fresh.replication.peers);
    }
    pm->config = fresh;
    nx_config_guard_secrets(&pm->config);
    (void)nx_log_configure(&pm->config);
    nx_shared_publish_config(pm);
    say_reloaded(&pm->config, &report);
}

static void add_counter(nx_atomic_u64 *total, nx_atomic_u64 *part)
{
    uint64_t sum = atomic_load_explicit(total, memory_order_relaxed) +
                   atomic_load_explicit(part, memory_order_relaxed);

    atomic_store_explicit(total, sum, memory_order_relaxed);
    atomic_store_explicit(part, 0, memory_order_relaxed);
}

void nx_shared_end_replica(struct nx_postmaster *pm, unsigned instance)
{
    struct nx_replica_slot *slot = &pm->shm->replicas[instance];
    struct nx_control_block *control = &pm->shm->control;

    atomic_store_explicit(&slot->session, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->state, NX_REPLICA_NONE, memory_order_release);
    atomic_thread_fence(
        memory_order_release); /* who copies it sees that before the fields change */
    atomic_store_explicit(&slot->snapshot_job, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->snapshot_progress, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->look_wanted, 0, memory_order_relaxed);
    add_counter(&control->ended_bytes_sent, &slot->bytes_sent);
    add_counter(&control->ended_sync_acks, &slot->sync_acks);
    add_counter(&control->ended_snapshot_transfers, &slot->snapshot_transfers);
    slot->id[0] = '\0';
    slot->addr[0] = '\0';
    slot->http_addr[0] = '\0';
}
