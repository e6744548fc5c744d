/* Which role this node has: its configuration, unless a promotion or POST /replication/follow has decided
 * otherwise and the configuration is still the one of then (data-N/identity); and whether another node leads in a
 * higher epoch, so that this one, though a master, is fenced. Runs in the postmaster. */
#include "common/epochs.h"
#include "common/fence.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/order.h"
#include "common/peer_list.h"
#include "common/quorum.h"
#include "common/shared_log.h"
#include "postmaster/postmaster.h"
#include "postmaster/role_change.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HERALD_AGAIN_MS 1000 /* after a herald that has died */
#define NO_ADDR         "-"

static void copy_addr(char to[NX_ADDR_TEXT], const char *from)
{
    (void)snprintf(to, NX_ADDR_TEXT, "%s", from);
}

static bool is_master(const struct nx_postmaster *pm)
{
    return pm->config.replication.role == NX_ROLE_MASTER;
}

/* ---- at the start ---- */

static bool still_configured(const struct nx_postmaster *pm, const struct nx_role_config *then)
{
    return pm->configured.role != NX_ROLE_STANDALONE && nx_role_config_same(then, &pm->configured);
}

void nx_role_begin(struct nx_postmaster *pm)
{
    const struct nx_follow *follow = &pm->dir.identity.follow;

    pm->configured.role = pm->config.replication.role;
    copy_addr(pm->configured.master_addr, pm->config.replication.master_addr);
    if (follow->addr[0] == '\0') {
        return;
    }
    if (still_configured(pm, &follow->configured)) {
        pm->config.replication.role = NX_ROLE_REPLICA;
        memcpy(pm->config.replication.master_addr, follow->addr,
               sizeof pm->config.replication.master_addr);
        nx_info(
            "role: POST /replication/follow has made this node a replica of %s; that holds while "
            "replication.role (%s) and master_addr (%s) stay as they are configured%s",
            follow->addr, nx_role_name(pm->configured.role),
            pm->configured.master_addr[0] != '\0' ? pm->configured.master_addr : "none",
            pm->dir.identity.note.epoch == 0
                ? ""
                : ", unless the log that is read next says that it was promoted since");
    } else {
        nx_info("role: the configuration has changed since POST /replication/follow named %s: the "
                "configuration holds",
                follow->addr);
    }
}

/* The log's history; it stands until the next call. */
static const struct nx_epochs *own_epochs(const struct nx_postmaster *pm)
{
    static struct nx_epochs epochs;
    uint64_t offset;
    uint64_t epoch;
    uint32_t crc;

    nx_log_position(pm->shm, &offset, &epoch, &crc);
    (void)nx_epochs_read(pm->shm, offset, &epochs);
    return &epochs;
}

/* What the log says of the last epoch; without a history, that this node has it. */
static void own_epoch(const struct nx_postmaster *pm, struct nx_epoch *ret_epoch)
{
    const struct nx_epochs *epochs = own_epochs(pm);

    *ret_epoch =
        (struct nx_epoch){.epoch = atomic_load_explicit(&pm->shm->log.epoch, memory_order_acquire)};
    if (epochs->count > 0) {
        *ret_epoch = *nx_epochs_last(epochs);
    } else {
        (void)nx_uuid_parse(pm->dir.node_id, ret_epoch->node_id);
    }
}

/* Whether this node leads only in an epoch that is yet to begin: its log's last one was another node's, or may lack
 * some of its end. */
static bool yields(const struct nx_postmaster *pm)
{
    return pm->epoch_reason[0] != '\0';
}

/* Whether the node that the fence names leads instead of this one. */
static bool leads_instead(const struct nx_postmaster *pm, const struct nx_fence *fence)
{
    struct nx_epoch theirs = {.epoch = fence->epoch};
    struct nx_epoch ours;

    if (fence->epoch == 0 || nx_uuid_parse(fence->node_id, theirs.node_id) < 0) {
        return false;
    }
    own_epoch(pm, &ours);
    return nx_epoch_compare(&theirs, &ours) > 0 || (yields(pm) && theirs.epoch == ours.epoch);
}

static void say_fenced(const struct nx_fence *fence)
{
    nx_error(
        "this master is fenced: node %s leads in epoch %" PRIu64
        " (replication %s, HTTP %s). Writes are "
        "refused here. To rejoin, let this node follow it: nexus-ctl follow %s, or POST "
        "/replication/follow; what only this node has is then kept in DATA_DIR/diverged. If that "
        "other one is lost for good: nexus-ctl promote --force",
        fence->node_id, fence->epoch, fence->addr[0] != '\0' ? fence->addr : "unknown",
        fence->http_addr[0] != '\0' ? fence->http_addr : "unknown",
        fence->addr[0] != '\0' ? fence->addr : "HOST:PORT");
}

bool nx_role_noted(const struct nx_postmaster *pm)
{
    const struct nx_role_note *note = &pm->dir.identity.note;

    return note->epoch != 0 && nx_epochs_led_since(own_epochs(pm), note->epoch, pm->dir.node_id);
}

/* Epochs that were begun since, by force or at a start, are of the same promotion. The note follows them, as the
 * history doesn't reach back for ever; without that the one that stands holds as well. */
static void renew_note(struct nx_postmaster *pm)
{
    static struct nx_identity identity;
    uint64_t epoch = atomic_load_explicit(&pm->shm->log.epoch, memory_order_acquire);
    int rc;

    identity = pm->dir.identity;
    if (identity.note.epoch == epoch) {
        return;
    }
    identity.note.epoch = epoch;
    rc = nx_identity_store(&pm->dir, &identity);
    if (rc < 0) {
        nx_warn("the note of the promotion can't be renewed in %s/identity: %s", pm->dir.root,
                strerrordesc_np(-rc));
    } else {
        atomic_store_explicit(&pm->shm->control.note_epoch, epoch, memory_order_release);
    }
}

/* True: the promotion makes it a master. */
static bool promotion_holds(struct nx_postmaster *pm)
{
    const struct nx_role_note *note = &pm->dir.identity.note;

    if (!nx_role_noted(pm)) {
        return false;
    }
    if (!still_configured(pm, &note->configured)) {
        nx_warn("role: this node was promoted to master in epoch %" PRIu64
                ", and its configuration has changed since: the configuration (role %s) holds. "
                "Where that isn't meant: start it with replication.role = %s and master_addr = %s "
                "as then, or promote it again",
                note->epoch, nx_role_name(pm->configured.role), nx_role_name(note->configured.role),
                note->configured.master_addr[0] != '\0' ? note->configured.master_addr : "(none)");
        return false;
    }
    nx_info(
        "role: master, as this node was promoted in epoch %" PRIu64
        "; that holds while replication.role (%s) and master_addr (%s) stay as they are configured",
        note->epoch, nx_role_name(note->configured.role),
        note->configured.master_addr[0] != '\0' ? note->configured.master_addr : "none");
    return true;
}

bool nx_role_fence_if_led(struct nx_postmaster *pm)
{
    const struct nx_fence *fence = &pm->dir.identity.fence;

    if (!is_master(pm) || !leads_instead(pm, fence)) {
        return false;
    }
    nx_fence_publish(pm->shm, fence, true);
    say_fenced(fence);
    return true;
}

/* By promotion or by configuration: whoever else leads shall know. */
static void herald_to_peers(struct nx_postmaster *pm)
{
    if (is_master(pm) && nx_peer_list_count(pm->config.replication.peers) > 0 &&
        atomic_load_explicit(&pm->shm->log.epoch, memory_order_acquire) > 1) {
        pm->heralding = true;
        pm->herald_due_ms = 0;
    }
}

/* A crash between a promotion's epoch and its end: what was promised for it isn't taken back. */
static void keep_promises(struct nx_postmaster *pm)
{
    const struct nx_epochs *epochs = own_epochs(pm);
    const struct nx_epoch *last = nx_epochs_last(epochs);

    if (last != NULL && nx_epochs_led_by(epochs, pm->dir.node_id)) {
        nx_withdrawal_forget(pm, last->epoch);
    }
}

void nx_role_decide(struct nx_postmaster *pm)
{
    bool replica = pm->config.replication.role == NX_ROLE_REPLICA;

    pm->role_decided = true;
    if (replica && promotion_holds(pm)) {
        copy_addr(pm->former_addr, pm->config.replication.master_addr);
        pm->former_http[0] = '\0';
        pm->heralding = true;
        pm->herald_due_ms = 0;
        pm->replication_stopped = false; /* as by a promotion that could end */
        renew_note(pm);
        nx_role_apply(pm, NX_ROLE_MASTER, "");
        nx_known_load(pm);
        nx_known_publish(pm);
    }
    if (is_master(pm)) {
        keep_promises(pm);
    }
    if (!nx_role_fence_if_led(pm)) {
        herald_to_peers(pm);
    }
}

bool nx_role_step_back(struct nx_postmaster *pm)
{
    static struct nx_identity identity;
    const char *configured = pm->configured.master_addr;
    int rc;

    if (pm->configured.role != NX_ROLE_REPLICA || !nx_fenced(pm->shm) ||
        strcmp(pm->dir.identity.fence.addr, configured) != 0) {
        return false;
    }
    identity = pm->dir.identity;
    identity.note.epoch = 0;
    identity.fence.epoch = 0;
    identity.follow.addr[0] = '\0';
    rc = nx_identity_store(&pm->dir, &identity);
    if (rc < 0) {
        nx_error("%s/identity can't be written: %s", pm->dir.root, strerrordesc_np(-rc));
        return false;
    }
    nx_info(
        "role: the promotion of this node is over, since the master that its configuration names, "
        "%s, leads in a higher epoch: it follows that one",
        configured);
    pm->config.replication.role = NX_ROLE_REPLICA;
    memcpy(pm->config.replication.master_addr, configured,
           sizeof pm->config.replication.master_addr);
    nx_postmaster_crash(pm, 0);
    nx_known_load(pm);
    return true;
}

bool nx_role_must_look(struct nx_postmaster *pm)
{
    /* A crash may have ended the look that an epoch waits for. */
    if ((pm->looked && !yields(pm)) || !is_master(pm) || nx_fenced(pm->shm) ||
        (pm->known.count == 0 && nx_peer_list_count(pm->config.replication.peers) == 0)) {
        return false;
    }
    pm->looked = true;
    struct nx_peers_task task = {.job = NX_PEERS_LOOK, .yields = yields(pm)};
    int rc = nx_launch_peers(pm, nx_process_slot(NX_KIND_PEERS, 0), &task);

    if (rc < 0) {
        nx_warn("no process to ask whether another node leads: %s", strerrordesc_np(-rc));
    }
    return rc == 0;
}

uint64_t nx_role_next_epoch(const struct nx_postmaster *pm)
{
    const struct nx_identity *identity = &pm->dir.identity;
    uint64_t own = atomic_load_explicit(&pm->shm->log.epoch, memory_order_acquire);

    /* Its log may stand before an epoch that it had seen, or was to get. */
    own = nx_higher(own, nx_higher(identity->goal.epoch, identity->goal.shown_epoch));
    return nx_higher(own, nx_higher(identity->promise.epoch, identity->fence.epoch)) + 1;
}

bool nx_role_must_begin(struct nx_postmaster *pm)
{
    const struct nx_child *walwriter = &pm->children[nx_process_slot(NX_KIND_WALWRITER, 0)];

    /* A fenced master begins none by itself: it would be above the leader's, and end the fence. */
    if (pm->epoch_reason[0] == '\0' || pm->config.replication.role == NX_ROLE_REPLICA ||
        nx_fenced(pm->shm)) {
        return false;
    }
    pm->start_epoch = nx_role_next_epoch(pm);
    nx_warn("%s; epoch %" PRIu64 " begins behind offset %" PRIu64, pm->epoch_reason,
            pm->start_epoch,
            atomic_load_explicit(&pm->shm->log.durable_offset, memory_order_acquire));
    (void)nx_control_send(walwriter->control_fd, NX_CONTROL_BEGIN_EPOCH, 0, pm->start_epoch, NULL);
    return true;
}

void nx_role_epoch_begun(struct nx_postmaster *pm, const struct nx_control_message *message)
{
    if (pm->life != NX_LIFE_STARTING || pm->start_epoch == 0 || message->arg != pm->start_epoch) {
        return;
    }
    if (message->status < 0) {
        nx_error("the server stops: the entry of epoch %" PRIu64 " can't be written: %s",
                 pm->start_epoch, message->text);
        nx_postmaster_kill(pm, NX_EXIT_PERSON);
        return;
    }
    pm->start_epoch = 0;
    pm->epoch_reason[0] = '\0';
    if (nx_role_noted(pm)) {
        renew_note(pm);
    }
    herald_to_peers(pm);
    nx_children_serve(pm);
}

/* ---- what is in effect ---- */

void nx_role_apply(struct nx_postmaster *pm, enum nx_role role, const char *master_addr)
{
    pm->config.replication.role = role;
    (void)snprintf(pm->config.replication.master_addr, sizeof pm->config.replication.master_addr,
                   "%s", master_addr);
    nx_shared_publish_role(pm);
}

void nx_role_reset_quorum(struct nx_postmaster *pm, uint64_t offset, uint64_t epoch)
{
    struct nx_quorum_state *quorum = &pm->shm->quorum;

    atomic_store_explicit(&quorum->epoch, epoch, memory_order_relaxed);
    atomic_store_explicit(&quorum->offset, offset, memory_order_release);
}

/* ---- who leads instead ---- */

int nx_role_parse(const char *text,
                  uint64_t *ret_epoch,
                  char ret_node_id[NX_UUID_TEXT],
                  const char **ret_rest)
{
    uint8_t node_id[16];
    char *end;

    errno = 0;
    *ret_epoch = strtoull(text, &end, 10);
    if (errno != 0 || *ret_epoch == 0 || *end != ' ' || strlen(end + 1) < NX_UUID_TEXT - 1) {
        return -EINVAL;
    }
    memcpy(ret_node_id, end + 1, NX_UUID_TEXT - 1);
    ret_node_id[NX_UUID_TEXT - 1] = '\0';
    *ret_rest = end + NX_UUID_TEXT;
    return nx_uuid_parse(ret_node_id, node_id);
}

static int parse_fence(const char *text, struct nx_fence *ret_fence)
{
    const char *rest;
    int rc;

    *ret_fence = (struct nx_fence){.epoch = 0};
    rc = nx_role_parse(text, &ret_fence->epoch, ret_fence->node_id, &rest);
    if (rc < 0) {
        return rc;
    }
    if (sscanf(rest, " %255s %255s", ret_fence->addr, ret_fence->http_addr) != 2) {
        return -EINVAL;
    }
    if (strcmp(ret_fence->addr, NO_ADDR) == 0) {
        ret_fence->addr[0] = '\0';
    }
    if (strcmp(ret_fence->http_addr, NO_ADDR) == 0) {
        ret_fence->http_addr[0] = '\0';
    }
    return 0;
}

/* Whether it tells more than what is known: a higher leader, or where that one is. */
static bool is_news(const struct nx_fence *fence, const struct nx_fence *known)
{
    struct nx_epoch a = {.epoch = fence->epoch};
    struct nx_epoch b = {.epoch = known->epoch};
    int order;

    (void)nx_uuid_parse(fence->node_id, a.node_id);
    (void)nx_uuid_parse(known->node_id, b.node_id);
    order = nx_epoch_compare(&a, &b);
    return order > 0 || (order == 0 && fence->http_addr[0] != '\0' &&
                         strcmp(fence->http_addr, known->http_addr) != 0);
}

int nx_role_fence(struct nx_postmaster *pm, const char *text)
{
    static struct nx_identity identity;
    struct nx_fence fence;
    int rc = parse_fence(text, &fence);

    if (rc < 0) {
        return rc;
    }
    if (!is_master(pm) || !leads_instead(pm, &fence)) {
        return -ESTALE;
    }
    if (nx_fenced(pm->shm) && !pm->fence_unstored && !is_news(&fence, &pm->dir.identity.fence)) {
        return 0;
    }
    /* At once, whatever the disk does: not a write more. */
    nx_fence_publish(pm->shm, &fence, true);
    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        nx_latch_ring(pm->shm, i);
    }
    say_fenced(&fence);
    identity = pm->dir.identity;
    identity.fence = fence;
    rc = nx_identity_store(&pm->dir, &identity);
    pm->fence_unstored = rc < 0;
    if (rc < 0) {
        pm->dir.identity.fence =
            fence; /* over a crash of the processes too, and into what is stored next */
        nx_error("the fence can't be stored in %s/identity: %s; it holds until this server ends",
                 pm->dir.root, strerrordesc_np(-rc));
    }
    return rc;
}

/* ---- telling others ---- */

static bool herald_wanted(const struct nx_postmaster *pm)
{
    return pm->heralding && pm->life == NX_LIFE_SERVING && is_master(pm) && !nx_fenced(pm->shm) &&
           pm->change.kind == NX_ROLE_CHANGE_NONE && !pm->replication_stopped &&
           pm->children[nx_process_slot(NX_KIND_PEERS, 0)].pid == 0;
}

void nx_role_run_due(struct nx_postmaster *pm)
{
    if (!herald_wanted(pm) || nx_now_ms() < pm->herald_due_ms) {
        return;
    }
    pm->herald_due_ms = nx_now_ms() + HERALD_AGAIN_MS;
    struct nx_peers_task task = {.job = NX_PEERS_HERALD};

    copy_addr(task.master_addr, pm->former_addr);
    copy_addr(task.master_http, pm->former_http);
    int rc = nx_launch_peers(pm, nx_process_slot(NX_KIND_PEERS, 0), &task);

    if (rc < 0) {
        nx_warn("no process to tell the others that this node leads: %s", strerrordesc_np(-rc));
    }
}

/* Only a promoted master has somebody to tell: the former one, whom all know that know each other. */
void nx_role_peers_changed(struct nx_postmaster *pm, const char *fresh)
{
    pm->heralding = pm->heralding || (is_master(pm) && nx_role_noted(pm));
    nx_withdrawal_peers_changed(pm, fresh);
}

uint64_t nx_role_due_ms(const struct nx_postmaster *pm)
{
    return herald_wanted(pm) ? pm->herald_due_ms : 0;
}
