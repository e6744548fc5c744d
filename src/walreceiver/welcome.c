/* The handshake's replica side: Hello, and whether the Welcome is from a master that this node can follow.
 * Runs in the walreceiver. A node without data adopts its master's cluster; a node with data never gives
 * it up for a foreign, empty or older master. */
#include "common/advertised.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/quorum.h"
#include "common/synced.h"
#include "common/uuid_text.h"
#include "walreceiver/walreceiver.h"

#include <stdio.h>
#include <string.h>

#define ADOPT_MS 5000 /* for the postmaster to store the cluster id */

void nx_welcome_ask(struct nx_walreceiver *r)
{
    const struct nx_control_block *control = &r->shm->control;
    const struct nx_config *config = r->process->config;
    bool known = atomic_load_explicit(&control->cluster_known, memory_order_acquire) != 0;
    char http_addr[NX_ADDR_TEXT];
    char advertised[NX_ADDR_TEXT];
    struct nx_msg_hello hello = {
        .replica_id = nx_slice_text(control->node_id),
        .last_wal_offset = r->giving_up ? 0 : r->last.offset,
        .protocol_version = NX_WIRE_PROTOCOL_VERSION,
        /* A node without data belongs to nobody yet, whatever it was before. */
        .cluster_id = nx_slice_text(known && r->last.offset > 0 ? control->cluster_id : ""),
        .last_epoch = r->giving_up ? 0 : r->last.epoch,
        .last_crc = r->giving_up ? 0 : r->last.crc,
        .token = nx_slice_text(config->tokens.replication),
    };
    int rc;

    if (!r->giving_up) {
        nx_history_offer(r, &hello);
    }

    nx_advertised_own(config->http.advertised_addr, config->http.bind_addr, http_addr);
    nx_advertised_own(config->replication.advertised_addr, config->replication.bind_addr,
                      advertised);
    hello.http_addr = nx_slice_text(http_addr);
    hello.advertised_addr = nx_slice_text(advertised);
    nx_receive_snapshot_offer(r, &hello);
    rc = nx_frame_io_put_hello(&r->io, &hello);
    if (rc < 0) {
        nx_receiver_end(r, NX_CAUSE_OWN, (uint32_t)-rc, "no Hello: %s", strerrordesc_np(-rc));
    }
}

uint64_t nx_welcome_readable(const struct nx_msg_welcome *welcome)
{
    return welcome->mode != 0 && welcome->quorum_offset != 0 ? welcome->quorum_offset
                                                             : welcome->current_wal_offset;
}

/* Whether a node that has nothing has still to note whose it is, or that this master has something for it. */
static bool is_to_adopt(const struct nx_walreceiver *r, const struct nx_msg_welcome *welcome)
{
    const struct nx_control_block *control = &r->shm->control;
    struct nx_sync_goal goal = nx_sync_goal_read(&control->goal);

    if (r->last.offset != 0 || welcome->requires_full_sync) {
        return false; /* with a full sync the cluster comes with the data: until then this node is nobody's */
    }
    return atomic_load_explicit(&control->cluster_known, memory_order_acquire) == 0 ||
           !nx_slice_equal(welcome->cluster_id, nx_slice_text(control->cluster_id)) ||
           (goal.offset == 0 && goal.shown < nx_welcome_readable(welcome));
}

/* Has the postmaster store the master's cluster id: it is ours from now on. */
static void adopt_cluster(struct nx_walreceiver *r, const struct nx_msg_welcome *welcome)
{
    struct nx_control_message reply;
    uint64_t until = nx_now_ms() + ADOPT_MS;
    char first[NX_UUID_TEXT];
    char text[2 * NX_UUID_TEXT + 24];
    const char *cluster = (const char *)welcome->cluster_id.data; /* 36 characters */

    nx_history_first_node(welcome, first);
    (void)snprintf(text, sizeof text, "%.36s %llu %s", cluster, (unsigned long long)welcome->epoch,
                   first);
    if (nx_control_send(r->process->control.fd, NX_CONTROL_ADOPT_CLUSTER, 0,
                        nx_welcome_readable(welcome), text) < 0) {
        nx_receiver_end(r, NX_CAUSE_OWN, 0, "the postmaster can't be asked to adopt cluster %.36s",
                        cluster);
        return;
    }
    uint64_t now;

    while ((now = nx_now_ms()) < until && !nx_process_stopping(r->process)) {
        struct pollfd pollfd = {.fd = r->process->control.fd, .events = POLLIN};

        (void)poll(&pollfd, 1, (int)(until - now));
        if (nx_process_control(r->process, &reply, 1) > 0 && reply.type == NX_CONTROL_DONE) {
            if (reply.status < 0) {
                nx_receiver_end(r, NX_CAUSE_OWN, (uint32_t)-reply.status,
                                "cluster %.36s can't be adopted: %s", cluster, reply.text);
            }
            return;
        }
    }
    nx_receiver_end(r, nx_process_stopping(r->process) ? NX_CAUSE_STOP : NX_CAUSE_OWN, 0,
                    "the postmaster did not store the cluster id %.36s within %d ms", cluster,
                    ADOPT_MS);
}

/* Whether this is a master that we can belong to. */
static void check_master(struct nx_walreceiver *r, const struct nx_msg_welcome *welcome)
{
    const struct nx_control_block *control = &r->shm->control;
    bool known = atomic_load_explicit(&control->cluster_known, memory_order_acquire) != 0;
    bool had = r->last.offset > 0 || nx_sync_goal_read(&control->goal).offset > 0;

    if (!nx_slice_is_uuid(welcome->master_id) || !nx_slice_is_uuid(welcome->cluster_id)) {
        nx_receiver_refuse(
            r, NX_CAUSE_REFUSED, NX_WIRE_ERROR_BAD_FRAME,
            "Welcome without a node id or cluster id: it is not a Nexus master of this "
            "release");
    } else if (nx_slice_equal(welcome->master_id, nx_slice_text(control->node_id))) {
        nx_receiver_refuse(
            r, NX_CAUSE_REFUSED, NX_WIRE_ERROR_NOT_A_MASTER,
            "the master has this node's own id %s: replication.master_addr points at "
            "the node itself, or a data directory was copied with its nexus.id",
            control->node_id);
    } else if (known && had &&
               !nx_slice_equal(welcome->cluster_id, nx_slice_text(control->cluster_id))) {
        nx_receiver_refuse(r, NX_CAUSE_REFUSED, NX_WIRE_ERROR_OTHER_CLUSTER,
                           "the master belongs to cluster %.36s, this node to %s: point "
                           "replication.master_addr at its own master, or give this node an empty "
                           "data directory",
                           (const char *)welcome->cluster_id.data, control->cluster_id);
    }
}

/* Publishes the master that this node follows now. */
static void publish_master(struct nx_walreceiver *r, const struct nx_msg_welcome *welcome)
{
    struct nx_receiver_state *state = &r->shm->receiver;
    char http_addr[NX_ADDR_TEXT];

    if (atomic_load_explicit(&state->master_known, memory_order_relaxed) != 0) {
        atomic_store_explicit(&state->reconnects,
                              atomic_load_explicit(&state->reconnects, memory_order_relaxed) + 1,
                              memory_order_relaxed);
    }
    /* Others may be reading them: written only when they are others. */
    if (memcmp(state->master_id, welcome->master_id.data, NX_UUID_TEXT - 1) != 0) {
        memcpy(state->master_id, welcome->master_id.data, NX_UUID_TEXT - 1);
    }
    if (nx_advertised_resolve(welcome->http_addr, r->peer, http_addr) == 0 &&
        strcmp(state->master_http, http_addr) != 0) {
        memcpy(state->master_http, http_addr, sizeof http_addr);
    }
    atomic_store_explicit(&state->master_offset, welcome->current_wal_offset, memory_order_relaxed);
    atomic_store_explicit(&state->welcome_offset, welcome->current_wal_offset,
                          memory_order_relaxed);
    atomic_store_explicit(&state->master_heartbeat_ms, welcome->heartbeat_ms, memory_order_relaxed);
    nx_lag_mark_move(&r->lag, r->last.offset, welcome->current_wal_offset, nx_now_ms());
    atomic_store_explicit(&state->behind_since_ms, r->lag.since_ms, memory_order_relaxed);
    atomic_store_explicit(&state->stage, NX_RECEIVER_CATCHING_UP, memory_order_relaxed);
    atomic_store_explicit(&state->welcomed, 1, memory_order_relaxed);
    atomic_store_explicit(&state->master_known, 1, memory_order_release);
    atomic_store_explicit(&state->connected, 1, memory_order_release);
}

/* What was confirmed stays so in a later epoch that has all of this node's log: its master, just begun, may know less.
 * And what readers have seen in async mode they see on. */
static uint64_t kept_quorum(const struct nx_walreceiver *r)
{
    uint64_t heard = nx_receiver_quorum(r);
    uint64_t known = nx_quorum_rules(r->shm) ? nx_quorum_offset(r->shm) : r->last.offset;

    return known > heard && known <= r->last.offset ? known : heard;
}

static void begin_streaming(struct nx_walreceiver *r, const struct nx_msg_welcome *welcome)
{
    enum nx_commit_rule rule = welcome->mode == 0 ? NX_COMMIT_DURABLE : NX_COMMIT_QUORUM;

    r->welcomed = true;
    r->master_epoch = welcome->epoch;
    memcpy(r->cluster_id, welcome->cluster_id.data, NX_UUID_LENGTH);
    r->cluster_id[NX_UUID_LENGTH] = '\0';
    r->io.phase = NX_WIRE_SESSION;
    r->master_heartbeat_ms = welcome->heartbeat_ms;
    r->session_offset = r->last.offset;
    atomic_store_explicit(&r->shm->transfer.quorum_rules, rule == NX_COMMIT_QUORUM ? 1 : 0,
                          memory_order_relaxed);
    /* With a full sync the quorum's offset is of a history that this node doesn't have yet: what it serves until then it
     * goes on showing, and no more. */
    if (r->giving_up || welcome->requires_full_sync) {
        bool ruled = r->last.offset > 0 && nx_quorum_rules(r->shm);

        nx_quorum_hear(r->shm, ruled ? NX_COMMIT_QUORUM : rule,
                       atomic_load_explicit(&r->shm->quorum.epoch, memory_order_relaxed),
                       ruled ? 0 : r->last.offset);
        r->quorum_heard = 0;
    } else {
        r->quorum_heard = welcome->quorum_offset;
        nx_quorum_hear(r->shm, rule, welcome->epoch, kept_quorum(r));
    }
    r->acked_offset = r->last.offset;
    r->durable_seen = r->last.offset;
    r->titled_offset = UINT64_MAX;
    nx_byte_marks_init(&r->marks, r->last.offset);
    publish_master(r, welcome);
    nx_info("connected to master %.36s at %s: it has offset %llu of epoch %llu, this node %llu of "
            "epoch %llu%s",
            (const char *)welcome->master_id.data, r->peer,
            (unsigned long long)welcome->current_wal_offset, (unsigned long long)welcome->epoch,
            (unsigned long long)r->last.offset, (unsigned long long)r->last.epoch,
            welcome->requires_full_sync ? "; it sends a snapshot (full sync)" : "");
    if (welcome->requires_full_sync || r->giving_up) {
        nx_history_save(r, welcome);
        nx_receive_snapshot_expect(r, !welcome->requires_full_sync);
    } else {
        if (nx_history_forced(r)) {
            (void)nx_control_send(r->process->control.fd, NX_CONTROL_FOLLOWING, 0, 0, NULL);
        }
        nx_receive_snapshot_forget(r);
    }
}

void nx_welcome_take(struct nx_walreceiver *r, const struct nx_msg_welcome *welcome)
{
    check_master(r, welcome);
    if (!nx_receiver_ended(r)) {
        nx_health_heard(r);
        nx_history_check(r, welcome);
    }
    if (!nx_receiver_ended(r) && is_to_adopt(r, welcome)) {
        adopt_cluster(r, welcome);
    }
    if (!nx_receiver_ended(r)) {
        begin_streaming(r, welcome);
    }
}
