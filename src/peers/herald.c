/* A promoted master tells those who can't know: its former master and its peers, again and again, until each follows
 * it, is fenced, or is nobody to be told. Runs in the peers process; it sleeps between its rounds.
 *
 * A master is told by a Hello of the higher epoch (dial.h). If in turn it shows that it leads in a higher epoch than
 * this node, this node is the one to be fenced, and its herald has nothing more to say. */
#include "common/advertised.h"
#include "common/fence.h"
#include "common/known_replicas.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/peer_list.h"
#include "peers/dial.h"
#include "peers/http_ask.h"
#include "peers/peers.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LONGEST_ROUND_MS 5000
#define LONGEST_DIAL_MS  1000
#define MOST_UNNAMED     10

/* What was said of a target in the log, each once, or seen of it. */
enum said {
    SAID_SILENT = 1,
    SAID_REFUSED = 2,
    SAID_BEHIND = 4,
    SAID_LEADS = 8,
    SAID_TWIN = 16,
    SEEN_KNOWING = 32
};

struct target {
    bool former; /* a master's replication address, the former one's; else a peer's HTTP address */
    bool
        twin; /* the same, of one that was promoted beside this node: the former master has told of it */
    bool done;
    bool fenced;      /* so its status said in this round, and who leads */
    unsigned unnamed; /* rounds in which it was fenced by another node and didn't say so there */
    unsigned said;    /* enum said */
    char addr[NX_ADDR_TEXT];
    char dialled[NX_ADDR_TEXT]; /* the replication address of this round; "": none */
    struct nx_http_ask ask;
    struct nx_dial dial;
};

#define MOST_TARGETS (NX_MOST_PEERS + 2)

static struct target targets[MOST_TARGETS];
static unsigned count;
static char built_from[NX_PATH_SIZE]; /* replication.peers, as they were built */
static uint8_t history[NX_EPOCHS_BYTES];
static struct nx_epochs epochs;
static struct nx_msg_hello hello;
static char http_addr[NX_ADDR_TEXT];
static char advertised_addr[NX_ADDR_TEXT];

/* ---- whom ---- */

static void add_target(const char *addr, bool former)
{
    struct target *target = &targets[count++];

    *target = (struct target){.former = former};
    (void)snprintf(target->addr, sizeof target->addr, "%s", addr);
}

/* Those of the list as it is now; what is known of one that was there before stays. */
static void build(const struct nx_peers *peers)
{
    static struct target before[MOST_TARGETS];
    unsigned before_count = count;
    const char *list = peers->process->config->replication.peers;
    char addr[NX_ADDR_TEXT];

    memcpy(before, targets, sizeof before);
    (void)snprintf(built_from, sizeof built_from, "%s", list);
    count = 0;
    if (peers->process->peers.master_addr[0] != '\0') {
        add_target(peers->process->peers.master_addr, true);
    }
    for (unsigned i = 0; i < NX_MOST_PEERS && nx_peer_list_next(&list, addr); i++) {
        add_target(addr, false);
    }
    for (unsigned j = 0; j < before_count; j++) {
        if (before[j].twin) {
            targets[count++] = before[j];
        }
    }
    for (unsigned i = 0; i < count; i++) {
        for (unsigned j = 0; j < before_count; j++) {
            if (targets[i].former == before[j].former &&
                strcmp(targets[i].addr, before[j].addr) == 0) {
                targets[i].done = before[j].done;
                targets[i].said = before[j].said;
            }
        }
    }
}

static bool all_done(void)
{
    for (unsigned i = 0; i < count; i++) {
        if (!targets[i].done) {
            return false;
        }
    }
    return true;
}

/* ---- what is said of it ---- */

/* True the first time. */
static bool first_time(struct target *target, enum said what)
{
    bool first = (target->said & (unsigned)what) == 0;

    target->said |= (unsigned)what;
    return first;
}

static const char *who(const struct target *target)
{
    if (target->twin) {
        return "the other node that was promoted, at";
    }
    return target->former ? "the former master at" : "peer";
}

__attribute__((format(printf, 2, 3))) static void be_done(struct target *target,
                                                          const char *format,
                                                          ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    target->done = true;
    nx_info("%s %s %s", who(target), target->addr, text);
}

static void note_silent(struct target *target, const struct nx_reach *reach)
{
    char why[160];

    if (first_time(target, SAID_SILENT)) {
        nx_info("%s %s can't be told that this node leads: %s%s%s: it is told as soon as it can be",
                who(target), target->addr, nx_reach_text(reach, why, sizeof why),
                strcmp(reach->addr, target->addr) == 0 ? "" : " at ",
                strcmp(reach->addr, target->addr) == 0 ? "" : reach->addr);
    }
}

/* Another node leads: this one is fenced, if the postmaster finds so too. */
static void give_way(struct nx_peers *peers, struct target *target, const char *text)
{
    if (first_time(target, SAID_LEADS)) {
        nx_warn("%s %s leads before this node, which was master in epoch %" PRIu64 ": %s",
                who(target), target->addr, peers->self.epoch, text);
    }
    (void)nx_peers_fence(peers, text);
}

/* Two nodes were promoted to the same epoch: the lower id gives way; a person should know. */
static void note_twin(const struct nx_peers *peers, struct target *target, const char *node_id)
{
    if (first_time(target, SAID_TWIN)) {
        nx_error(
            "two nodes were promoted to epoch %" PRIu64
            ": %s (this one) and %s at %s. The lower id is fenced; what was written there since is "
            "given up when it follows the other",
            peers->self.epoch, peers->self.node_id, node_id, target->addr);
    }
}

/* ---- the Hello ---- */

/* What this node is at this moment. */
static void prepare(struct nx_peers *peers)
{
    const struct nx_config *config = peers->process->config;
    struct nx_position position = nx_peers_position(peers);

    peers->self.epoch = position.epoch;
    (void)nx_epochs_read(peers->shm, position.offset, &epochs); /* without it: the next round */
    nx_advertised_own(config->http.advertised_addr, config->http.bind_addr, http_addr);
    nx_advertised_own(config->replication.advertised_addr, config->replication.bind_addr,
                      advertised_addr);
    hello = (struct nx_msg_hello){
        .replica_id = nx_slice_text(peers->self.node_id),
        .last_wal_offset = position.offset,
        .protocol_version = NX_WIRE_PROTOCOL_VERSION,
        .cluster_id = nx_slice_text(peers->self.cluster_id),
        .last_epoch = position.epoch,
        .last_crc = position.crc,
        .token = nx_slice_text(config->tokens.replication),
        .http_addr = nx_slice_text(http_addr),
        .advertised_addr = nx_slice_text(advertised_addr),
        .epochs = nx_slice_of(history, nx_epochs_encode(&epochs, history)),
        .claim = nx_slice_of(epochs.claim, epochs.claim_length),
    };
}

static void dial(struct nx_peers *peers, struct target *target, const char *addr)
{
    uint64_t limit = peers->process->config->replication.connect_timeout_ms;

    (void)snprintf(target->dialled, sizeof target->dialled, "%s", addr);
    target->dial.hello = &hello;
    nx_dial_begin(&peers->loop, &target->dial, addr,
                  (unsigned)(limit < LONGEST_DIAL_MS ? limit : LONGEST_DIAL_MS));
}

static void take_welcome(struct nx_peers *peers, struct target *target)
{
    const struct nx_dial *call = &target->dial;
    char text[2 * NX_ADDR_TEXT + 64];

    if (strcmp(call->master_id, peers->self.node_id) == 0) {
        be_done(target, "is this node itself");
    } else if (strcmp(call->cluster_id, peers->self.cluster_id) == 0 &&
               call->master_id[0] != '\0' &&
               nx_leads_before(call->epoch, call->master_id, &peers->self) > 0 &&
               (call->epoch <= peers->self.epoch ||
                call->epoch - peers->self.epoch <= NX_MOST_EPOCHS_AHEAD)) {
        nx_leader_text(call->epoch, call->master_id, target->dialled, call->http_addr, text,
                       sizeof text);
        if (call->epoch == peers->self.epoch) {
            note_twin(peers, target, call->master_id);
        }
        give_way(peers, target, text);
    } else if (first_time(target, SAID_REFUSED)) {
        nx_warn("%s %s takes this node for its replica (node %s, epoch %" PRIu64
                ", cluster %s) and goes on as a master: it is told again and again; stop it",
                who(target), target->addr, call->master_id, call->epoch, call->cluster_id);
    }
}

/* Where it is asked for its status; "": nowhere. */
static const char *asked_at(const struct nx_peers *peers, const struct target *target)
{
    if (!target->former) {
        return target->addr;
    }
    return target->twin ? "" : peers->process->peers.master_http;
}

/* By another node, a moment ago: its status, as soon as there is one, says by whom. That may be a twin. */
static bool fenced_unnamed(const struct nx_peers *peers, const struct target *target)
{
    return !target->fenced && asked_at(peers, target)[0] != '\0' &&
           strstr(target->dial.text, peers->self.node_id) == NULL;
}

static void take_error(const struct nx_peers *peers, struct target *target)
{
    const struct nx_dial *call = &target->dial;

    if (call->code == NX_WIRE_ERROR_FENCED) {
        if (fenced_unnamed(peers, target) && ++target->unnamed < MOST_UNNAMED) {
            return;
        }
        be_done(target, "is fenced: it leads no longer (%.192s)", call->text);
    } else if (call->code == NX_WIRE_ERROR_NOT_A_MASTER && target->former) {
        be_done(target, "is no master any more (%.128s)", call->text);
    } else if (first_time(target, SAID_REFUSED)) {
        nx_warn("%s %s doesn't listen to this node's claim to lead: Error %" PRIu32
                " (%s): %s: it is "
                "told again and again",
                who(target), target->addr, call->code, nx_wire_error_text(call->code), call->text);
    }
}

static void take_dial(struct nx_peers *peers, struct target *target)
{
    switch (target->dial.answer) {
    case NX_DIAL_WELCOME:
        take_welcome(peers, target);
        break;
    case NX_DIAL_ERROR:
        take_error(peers, target);
        break;
    case NX_DIAL_NONE:
    case NX_DIAL_ACCEPTED:
        note_silent(target, &target->dial.reach);
        break;
    }
}

/* ---- a peer's status ---- */

static bool has_twin(void)
{
    for (unsigned i = 0; i < count; i++) {
        if (targets[i].twin) {
            return true;
        }
    }
    return false;
}

/* It leads before this node, or has heard of somebody who does. */
static void give_way_to(struct nx_peers *peers,
                        struct target *target,
                        const struct nx_peer_status *status)
{
    const struct nx_peer_seen seen = {.addr = target->addr, .believed = true, .status = *status};
    char text[2 * NX_ADDR_TEXT + 64];

    if (nx_leader_choose(&seen, 1, &peers->self, text, sizeof text)) {
        give_way(peers, target, text);
    }
}

/* Who doesn't lead itself knows who does: before this node, or beside it, and then that one is called. */
static void take_leader(struct nx_peers *peers,
                        struct target *target,
                        const struct nx_peer_status *status)
{
    const struct nx_fence *leader = &status->leader;
    char text[2 * NX_ADDR_TEXT + 64];
    bool ours = nx_peer_is_ours(status, &peers->self) && leader->epoch != 0 &&
                strcmp(leader->node_id, peers->self.node_id) != 0 &&
                leader->epoch <= peers->self.epoch + NX_MOST_EPOCHS_AHEAD;

    if (!ours || leader->addr[0] == '\0') {
        return;
    }
    if (leader->epoch == peers->self.epoch) {
        note_twin(peers, target, leader->node_id);
    }
    if (nx_leads_before(leader->epoch, leader->node_id, &peers->self) > 0) {
        nx_leader_text(leader->epoch, leader->node_id, leader->addr, leader->http_addr, text,
                       sizeof text);
        give_way(peers, target, text);
    } else if (count < MOST_TARGETS && !has_twin()) {
        add_target(leader->addr, true); /* called from the next round on */
        targets[count - 1].twin = true;
    }
}

/* A master of our own epoch, fenced already or not: only its own promotion can have made it that. */
static bool is_twin(const struct nx_peers *peers, const struct nx_peer_status *status)
{
    return nx_peer_is_ours(status, &peers->self) && status->role == NX_NODE_MASTER &&
           status->epoch == peers->self.epoch;
}

static void take_status(struct nx_peers *peers,
                        struct target *target,
                        const struct nx_peer_status *status)
{
    target->fenced = status->fenced;
    if (is_twin(peers, status)) {
        note_twin(peers, target, status->node_id);
    }
    take_leader(peers, target, status);
    if (strcmp(status->node_id, peers->self.node_id) == 0) {
        be_done(target, "is this node itself");
    } else if (strcmp(status->cluster_id, peers->self.cluster_id) != 0) {
        be_done(
            target, "belongs to %s%s",
            status->cluster_id[0] == '\0' ? "no cluster" : "another cluster: ", status->cluster_id);
    } else if (nx_peer_leads_instead(status, &peers->self)) {
        give_way_to(peers, target, status);
    } else if (nx_replica_connected(peers->shm, status->node_id)) {
        be_done(target, "follows this node");
    } else if (status->role == NX_NODE_MASTER && status->replication_addr[0] != '\0') {
        /* A fenced one too: it may know no more than that somebody leads. */
        dial(peers, target, status->replication_addr);
    } else if (status->fenced) {
        be_done(target, "is fenced: it leads no longer");
    } else if (status->role == NX_NODE_MASTER) {
        return; /* it is still starting, or has none yet */
    } else if (status->role == NX_NODE_STANDALONE) {
        be_done(target, "is a standalone node");
    } else if (status->epoch >= peers->self.epoch) {
        /* Twice: who is being promoted to this epoch itself is still a replica at the moment at which it begins. */
        if (!first_time(target, SEEN_KNOWING)) {
            be_done(target, "is a replica in epoch %" PRIu64, status->epoch);
        }
    } else if (first_time(target, SAID_BEHIND)) {
        nx_info(
            "%s %s is still a replica in epoch %" PRIu64 ", this node leads in %" PRIu64
            ": have it follow this one (nexus-ctl follow %s%s there, or POST /replication/follow)",
            who(target), target->addr, status->epoch, peers->self.epoch,
            advertised_addr[0] == ':' ? "HOST" : "", advertised_addr);
    }
}

/* Where its HTTP interface says nothing, or another node has its place, its replication port has the say. */
static void take_former(struct nx_peers *peers, struct target *target)
{
    struct nx_peer_status status;

    if (target->ask.status == 200 &&
        nx_status_parse(target->ask.reply, target->ask.length, target->ask.reach.addr, &status) ==
            0 &&
        strcmp(status.cluster_id, peers->self.cluster_id) == 0 &&
        status.role != NX_NODE_STANDALONE) {
        take_status(peers, target, &status);
    } else {
        dial(peers, target, target->addr);
    }
}

static void take_answer(struct nx_peers *peers, struct target *target)
{
    struct nx_peer_status status;

    if (target->ask.status == 0) {
        note_silent(target, &target->ask.reach);
    } else if (target->ask.status == 200 &&
               nx_status_parse(target->ask.reply, target->ask.length, target->addr, &status) == 0) {
        take_status(peers, target, &status);
    } else if (first_time(target, SAID_REFUSED)) {
        nx_warn("peer %s answers GET %s with status %d and nothing that a node says: is that its "
                "HTTP address?",
                target->addr, NX_STATUS_PATH, target->ask.status);
    }
}

/* ---- rounds ---- */

static void end_all(void)
{
    for (unsigned i = 0; i < count; i++) {
        nx_http_ask_end(&targets[i].ask);
        nx_dial_end(&targets[i].dial);
    }
}

/* First all are asked how they stand whose HTTP address is known, while the others are called; then those are called
 * that are, or may be, masters too. False: we shall stop, or the loop failed. */
static bool ask_all(struct nx_peers *peers)
{
    for (unsigned i = 0; i < count; i++) {
        struct target *target = &targets[i];

        target->dialled[0] = '\0';
        target->fenced = false;
        if (!target->done && asked_at(peers, target)[0] == '\0') {
            dial(peers, target, target->addr);
        } else if (!target->done) {
            target->ask.path = NX_STATUS_PATH;
            nx_http_ask_begin(&peers->loop, &target->ask, asked_at(peers, target), NX_ASK_MS);
        }
    }
    if (!nx_loop_run(&peers->loop)) {
        return false;
    }
    for (unsigned i = 0; i < count; i++) {
        if (targets[i].done || asked_at(peers, &targets[i])[0] == '\0') {
            continue;
        }
        if (targets[i].former) {
            take_former(peers, &targets[i]);
        } else {
            take_answer(peers, &targets[i]);
        }
    }
    return nx_loop_run(&peers->loop);
}

static void run_round(struct nx_peers *peers)
{
    prepare(peers);
    if (ask_all(peers)) {
        for (unsigned i = 0; i < count; i++) {
            if (targets[i].dialled[0] != '\0' && !targets[i].done) {
                take_dial(peers, &targets[i]);
            }
        }
    }
    end_all();
}

static bool over(const struct nx_peers *peers)
{
    return nx_process_stopping(peers->process) || peers->loop.failed || nx_fenced(peers->shm) ||
           all_done();
}

static uint64_t interval_ms(const struct nx_peers *peers)
{
    uint64_t heartbeat = peers->process->config->replication.heartbeat_ms;

    return heartbeat < LONGEST_ROUND_MS ? heartbeat : LONGEST_ROUND_MS;
}

static bool list_changed(const struct nx_peers *peers)
{
    return strcmp(built_from, peers->process->config->replication.peers) != 0;
}

/* Until the next round, or until there are other peers. */
static void pause_between(struct nx_peers *peers)
{
    uint64_t began = nx_now_ms();
    uint64_t passed = 0;

    while (!over(peers) && !list_changed(peers) && passed < interval_ms(peers)) {
        (void)nx_loop_sleep(&peers->loop, interval_ms(peers) - passed);
        passed = nx_now_ms() - began;
    }
}

void nx_peers_herald(struct nx_peers *peers)
{
    nx_process_title(peers->process, "telling others who leads");
    build(peers);
    while (!over(peers)) {
        run_round(peers);
        pause_between(peers);
        if (list_changed(peers)) {
            build(peers);
        }
    }
}
