/* The handshake's master side. Runs in walsenders. It gathers what the master knows, has handshake.c
 * judge, and either refuses or makes this connection a replica: fills its slot, says Welcome, and tells
 * the postmaster, which ends an older connection of the same replica. */
#include "common/advertised.h"
#include "common/fence.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/net.h"
#include "common/quorum.h"
#include "common/shared_log.h"
#include "common/uuid_text.h"
#include "storage/data_dir.h"
#include "walsender/handshake.h"
#include "walsender/walsender.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FENCE_MS      2000 /* for the postmaster to store the fence */
#define FENCE_LOOK_MS 50

void nx_welcome_check_peer(struct nx_walsender *ws)
{
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof address;

    nx_net_peer(ws->io.fd, ws->peer);
    if (getpeername(ws->io.fd, (struct sockaddr *)&address, &length) != 0) {
        nx_walsender_end(ws, NX_ENDING_QUIET, 0, "it was gone before it was accepted");
    } else if (ws->process->config->tokens.replication[0] == '\0' &&
               !nx_net_is_allowed((struct sockaddr *)&address,
                                  ws->process->config->replication.allow_without_token)) {
        nx_walsender_end(ws, NX_ENDING_REFUSED, NX_WIRE_ERROR_NOT_AUTHORISED,
                         "peers at %s are not served without a token "
                         "(replication.token_file, replication.allow_without_token)",
                         ws->peer);
    }
}

/* Connected replicas with another id. */
static unsigned count_others(const struct nx_walsender *ws, struct nx_slice id)
{
    unsigned count = 0;

    for (unsigned i = 0; i < NX_MAX_WALSENDERS; i++) {
        const struct nx_replica_slot *slot = &ws->shm->replicas[i];

        if (slot != ws->slot &&
            atomic_load_explicit(&slot->state, memory_order_acquire) != NX_REPLICA_NONE &&
            memcmp(slot->id, id.data, id.length) != 0) {
            count++;
        }
    }
    return count;
}

/* Our own entry at the replica's position, where we still have it. */
static int find_frame(struct nx_walsender *ws,
                      const struct nx_msg_hello *hello,
                      struct nx_hello_facts *facts)
{
    int rc = 0;

    facts->frame_known = false;
    facts->crc_known = false;
    if (hello->last_wal_offset == 0 || hello->last_wal_offset > facts->position.offset) {
        return 0;
    }
    if (hello->last_wal_offset == facts->position.offset) {
        facts->frame_epoch = facts->position.epoch;
        facts->frame_crc = facts->position.crc;
    } else {
        rc = nx_stream_frame_at(&ws->stream, hello->last_wal_offset, &facts->frame_epoch,
                                &facts->frame_crc);
    }
    facts->frame_known = rc == 0;
    if (rc == -ENOENT) {
        facts->crc_known =
            nx_stream_crc_before(&ws->stream, hello->last_wal_offset + 1, &facts->frame_crc) == 0;
        rc = 0;
    }
    return rc;
}

/* Until the checkpointer has said its first word, what recovery found. */
static uint64_t state_offset(const struct nx_shm *shm)
{
    uint64_t base = atomic_load_explicit(&shm->log.base_offset, memory_order_relaxed);
    uint64_t offset =
        atomic_load_explicit(&shm->checkpoint.checkpoint_offset, memory_order_acquire);

    return offset > base ? offset : base;
}

/* Of the Hello that is being judged; too large for the stack. */
static struct {
    struct nx_epochs ours;
    struct nx_epochs theirs;
    struct nx_fence fence;
} histories;

static void gather(struct nx_walsender *ws,
                   const struct nx_msg_hello *hello,
                   struct nx_hello_facts *ret_facts)
{
    const struct nx_control_block *control = &ws->shm->control;
    const struct nx_config *config = ws->process->config;
    bool known = atomic_load_explicit(&control->cluster_known, memory_order_acquire) != 0;

    *ret_facts = (struct nx_hello_facts){
        .role = (enum nx_node_role)atomic_load_explicit(&control->role, memory_order_acquire),
        .draining =
            (nx_process_stopping(ws->process) && !nx_walsender_stopped(ws)) ||
            atomic_load_explicit(&control->phase, memory_order_acquire) == NX_PHASE_DRAINING,
        .stopped = nx_walsender_stopped(ws),
        .token = config->tokens.replication,
        .master_addr = config->replication.master_addr,
        .node_id = control->node_id,
        .cluster_id = known ? control->cluster_id : "",
        .max_log_size = config->replication.max_log_size,
        .oldest_kept = nx_log_oldest_kept(ws->shm, config->replication.max_log_size),
        .replicas = nx_slice_is_uuid(hello->replica_id) ? count_others(ws, hello->replica_id) : 0,
        .max_replicas = (unsigned)config->replication.max_replicas,
        .epoch = atomic_load_explicit(&ws->shm->log.epoch, memory_order_acquire),
        .epochs = &histories.ours,
        .theirs = &histories.theirs,
        .fence = nx_fenced(ws->shm) ? &histories.fence : NULL,
        .checkpoint = state_offset(ws->shm),
    };
    nx_log_position(ws->shm, &ret_facts->position.offset, &ret_facts->position.epoch,
                    &ret_facts->position.crc);
    (void)nx_epochs_read(ws->shm, ret_facts->position.offset, &histories.ours);
    /* What can't be read says nothing, and is judged so. */
    (void)nx_epochs_decode(hello->epochs, &histories.theirs);
    nx_fence_read(ws->shm, &histories.fence);
}

/* Publishes this replica: strings and figures first, then the state. offset: what it has of our history. */
static void fill_slot(struct nx_walsender *ws, const struct nx_msg_hello *hello, uint64_t offset)
{
    struct nx_replica_slot *slot = ws->slot;

    memcpy(slot->id, ws->replica_id, sizeof slot->id);
    if (nx_advertised_resolve(hello->advertised_addr, ws->peer, slot->addr) < 0) {
        (void)snprintf(slot->addr, sizeof slot->addr, "%s", ws->peer);
    }
    if (nx_advertised_resolve(hello->http_addr, ws->peer, slot->http_addr) < 0) {
        slot->http_addr[0] = '\0';
    }
    atomic_store_explicit(&slot->connected_ms, nx_now_ms(), memory_order_relaxed);
    nx_feed_track_lag(ws);
    atomic_store_explicit(&slot->heard_ms, ws->heard_ms, memory_order_relaxed);
    atomic_store_explicit(&slot->sent_offset, offset, memory_order_relaxed);
    atomic_store_explicit(&slot->ack_offset, offset, memory_order_relaxed);
    atomic_store_explicit(&slot->received_offset, offset, memory_order_relaxed);
    atomic_store_explicit(&slot->applied_offset, offset, memory_order_relaxed);
    atomic_store_explicit(&slot->sent_bytes_total, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->acked_bytes_total, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->confirmed_us, 0, memory_order_relaxed);
    atomic_store_explicit(&slot->session, nx_now_us(), memory_order_release);
    atomic_store_explicit(&slot->state, NX_REPLICA_CATCHING_UP, memory_order_release);
}

static int say_welcome(struct nx_walsender *ws,
                       const struct nx_hello_facts *facts,
                       const struct nx_verdict *verdict)
{
    const struct nx_config *config = ws->process->config;
    char http_addr[NX_ADDR_TEXT];
    struct nx_msg_welcome welcome = {
        .master_id = nx_slice_text(facts->node_id),
        .current_wal_offset = facts->position.offset,
        .requires_full_sync = verdict->full_sync,
        .cluster_id = nx_slice_text(facts->cluster_id),
        .epoch = facts->epoch,
        .heartbeat_ms = (uint32_t)config->replication.heartbeat_ms,
        .quorum_offset = nx_quorum_offset(ws->shm),
        .mode = nx_quorum_rules(ws->shm) ? 1 : 0,
    };

    static uint8_t epochs[NX_EPOCHS_BYTES];

    nx_advertised_own(config->http.advertised_addr, config->http.bind_addr, http_addr);
    welcome.http_addr = nx_slice_text(http_addr);
    welcome.epochs = nx_slice_of(epochs, nx_epochs_encode(facts->epochs, epochs));
    ws->told_quorum = welcome.quorum_offset;
    return nx_frame_io_put_welcome(&ws->io, &welcome);
}

static void say_who_is_here(const struct nx_walsender *ws,
                            const struct nx_msg_hello *hello,
                            const struct nx_hello_facts *facts,
                            const struct nx_verdict *verdict)
{
    unsigned long long offset = hello->last_wal_offset;

    if (verdict->full_sync) {
        nx_info("replica %s at %s is here and needs a full sync: %s", ws->replica_id, ws->peer,
                verdict->text);
    } else {
        nx_info("replica %s at %s is here: it has offset %llu of epoch %llu, this master %llu of "
                "epoch %llu; streaming from %llu",
                ws->replica_id, ws->peer, offset, (unsigned long long)hello->last_epoch,
                (unsigned long long)facts->position.offset, (unsigned long long)facts->epoch,
                offset + 1);
    }
}

static void make_welcome(struct nx_walsender *ws,
                         const struct nx_msg_hello *hello,
                         const struct nx_hello_facts *facts,
                         const struct nx_verdict *verdict)
{
    uint64_t offset = verdict->full_sync ? 0 : hello->last_wal_offset;
    int rc = say_welcome(ws, facts, verdict);

    if (rc < 0) {
        nx_walsender_end(ws, NX_ENDING_REFUSED, NX_WIRE_ERROR_INTERNAL, "no Welcome: %s",
                         strerrordesc_np(-rc));
        return;
    }
    ws->queued_offset = offset;
    ws->acked_offset = offset;
    ws->level_offset = facts->position.offset;
    nx_byte_marks_init(&ws->marks, offset);
    fill_slot(ws, hello, offset);
    ws->welcomed = true;
    ws->io.phase = NX_WIRE_SESSION;
    (void)nx_control_send(ws->process->control.fd, NX_CONTROL_REPLICA_HERE, 0, 0, ws->replica_id);
    say_who_is_here(ws, hello, facts, verdict);
    if (verdict->full_sync) {
        nx_full_sync_begin(ws, hello);
    }
}

/* True while the log isn't recovered, so that nothing can be said about positions. */
static bool still_recovering(const struct nx_walsender *ws)
{
    const struct nx_control_block *control = &ws->shm->control;

    return atomic_load_explicit(&control->phase, memory_order_acquire) == NX_PHASE_STARTING &&
           atomic_load_explicit(&control->role, memory_order_acquire) == NX_NODE_MASTER &&
           !nx_process_stopping(ws->process);
}

/* Another node leads in a higher epoch: the postmaster fences this one, before it hears so. An address is known where it
 * says so itself; a replica of it proves the epoch as well. False: that is not stored, so that a restart may forget it
 * (or this node's role is changing): whoever says so must say it again. */
static bool accept_claim(struct nx_walsender *ws,
                         const struct nx_msg_hello *hello,
                         const struct nx_epoch *claim)
{
    char node_id[NX_UUID_TEXT];
    char addr[NX_ADDR_TEXT] = "-";
    char http_addr[NX_ADDR_TEXT] = "-";
    char text[NX_CONTROL_TEXT];
    struct pollfd channel = {.fd = ws->process->control.fd, .events = POLLIN};
    uint64_t until = nx_now_ms() + FENCE_MS;
    struct nx_control_message reply = {.type = 0};

    nx_uuid_print(claim->node_id, node_id);
    if (nx_slice_equal(hello->replica_id, nx_slice_text(node_id))) {
        if (nx_advertised_resolve(hello->advertised_addr, ws->peer, addr) < 0) {
            (void)snprintf(addr, sizeof addr, "-");
        }
        if (nx_advertised_resolve(hello->http_addr, ws->peer, http_addr) < 0) {
            (void)snprintf(http_addr, sizeof http_addr, "-");
        }
    }
    (void)snprintf(text, sizeof text, "%llu %s %s %s", (unsigned long long)claim->epoch, node_id,
                   addr, http_addr);
    if (nx_control_send(ws->process->control.fd, NX_CONTROL_FENCE, 0, 0, text) < 0) {
        return false;
    }
    while (reply.type != NX_CONTROL_DONE && nx_now_ms() < until &&
           !nx_process_stopping(ws->process)) {
        (void)poll(&channel, 1, FENCE_LOOK_MS);
        if (nx_process_control(ws->process, &reply, 1) == 0) {
            reply.type = 0;
        }
    }
    return reply.type == NX_CONTROL_DONE && reply.status == 0;
}

/* Two nodes were promoted to the same epoch: the lower id gives way; a person should know. One of them is this node, or
 * both claim to lead instead of it. */
static void say_twin(const struct nx_msg_hello *hello, const struct nx_hello_facts *facts)
{
    const struct nx_epoch *theirs = nx_epochs_last(facts->theirs);
    const struct nx_epoch *ours = nx_epochs_last(facts->epochs);
    struct nx_epoch known = {.epoch = 0};
    char a[NX_UUID_TEXT];
    char b[NX_UUID_TEXT];

    if (theirs == NULL || hello->claim.length == 0) {
        return;
    }
    if (facts->fence != NULL && nx_uuid_parse(facts->fence->node_id, known.node_id) == 0) {
        known.epoch = facts->fence->epoch;
        known.first_offset = theirs->first_offset; /* it tells the node apart, nothing else */
        known.crc = theirs->crc;
    }
    if (ours != NULL && ours->epoch >= known.epoch) {
        known = *ours;
    }
    if (known.epoch != theirs->epoch || nx_epoch_same(&known, theirs)) {
        return;
    }
    nx_uuid_print(known.node_id, a);
    nx_uuid_print(theirs->node_id, b);
    nx_error(
        "two nodes were promoted to epoch %llu: %s and %s. The lower id is fenced as soon as it hears of "
        "the other (replication.peers on it, and a reload); what was written there since is given up "
        "when it follows that one",
        (unsigned long long)theirs->epoch, a, b);
}

/* Judges a Hello. What needs files (a pin, our own entry at its position) is looked for only when all else is
 * in order: a stranger shall not make us read them. */
static void judge(struct nx_walsender *ws,
                  const struct nx_msg_hello *hello,
                  struct nx_hello_facts *facts,
                  struct nx_verdict *verdict)
{
    int rc = 0;

    gather(ws, hello, facts);
    nx_handshake_judge(facts, hello, verdict);
    if (verdict->code == 0) {
        if (nx_full_sync_find_pin(ws, hello->last_wal_offset)) {
            facts->oldest_kept =
                atomic_load_explicit(&ws->shm->checkpoint.oldest_kept, memory_order_acquire);
        }
        rc = find_frame(ws, hello, facts);
        nx_handshake_judge(facts, hello, verdict);
    }
    if (verdict->claims && !accept_claim(ws, hello, &verdict->claim)) {
        verdict->code = NX_WIRE_ERROR_INTERNAL;
        (void)snprintf(verdict->text, sizeof verdict->text,
                       "that another node leads in epoch %llu is not stored here yet: say it again",
                       (unsigned long long)verdict->claim.epoch);
    }
    say_twin(hello, facts);
    if (rc < 0) {
        nx_walsender_end(ws, NX_ENDING_REFUSED, NX_WIRE_ERROR_INTERNAL,
                         "entry %llu, where the replica stands, can't be read here: %s",
                         (unsigned long long)hello->last_wal_offset,
                         rc == -EBADMSG ? "damaged" : strerrordesc_np(-rc));
    } else if (verdict->code != 0) {
        nx_walsender_end(ws, NX_ENDING_REFUSED, verdict->code, "%s", verdict->text);
    }
}

bool nx_welcome_hello(struct nx_walsender *ws, const struct nx_frame *frame)
{
    struct nx_msg_hello hello;
    struct nx_hello_facts facts;
    struct nx_verdict verdict;

    if (still_recovering(ws)) {
        return false;
    }
    if (nx_wire_decode_hello(frame->payload, frame->payload_length, &hello) < 0) {
        nx_walsender_end(ws, NX_ENDING_REFUSED, NX_WIRE_ERROR_BAD_FRAME,
                         "Hello with a payload of %zu bytes can't be read", frame->payload_length);
        return true;
    }
    if (nx_slice_is_uuid(hello.replica_id)) {
        /* One form from here on: the same replica in capitals is no second one. */
        nx_uuid_canonical(hello.replica_id, ws->replica_id);
        hello.replica_id = nx_slice_text(ws->replica_id);
    }
    judge(ws, &hello, &facts, &verdict);
    if (!nx_walsender_ended(ws)) {
        make_welcome(ws, &hello, &facts, &verdict);
    }
    return true;
}
