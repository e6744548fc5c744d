/* A starting master looks whether another node leads by now: it asks all peers and the replicas that it has had, and
 * has itself fenced before it serves anybody. Runs in the peers process.
 *
 * Its peers, which its configuration lists, are believed. A replica's address is whatever a Hello said, of anybody who
 * may say one, and what answers there may be somebody else by now: it is believed what it proves (leader.h), and is
 * no reason not to start. */
#include "common/known_replicas.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/peer_list.h"
#include "common/uuid_text.h"
#include "peers/http_ask.h"
#include "peers/peers.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MOST_ASKED  (NX_MOST_PEERS + NX_MAX_REPLICAS)
#define RECOVERY_MS 5 /* between looks whether the log is recovered */

static struct nx_http_ask asks[MOST_ASKED];
static char addrs[MOST_ASKED][NX_ADDR_TEXT];
static unsigned asked;
static struct nx_epochs history;

/* ---- whom ---- */

static void add(const char *addr)
{
    for (unsigned i = 0; i < asked; i++) {
        if (strcmp(addrs[i], addr) == 0) {
            return;
        }
    }
    if (addr[0] != '\0' && asked < MOST_ASKED) {
        (void)snprintf(addrs[asked++], NX_ADDR_TEXT, "%s", addr);
    }
}

static void choose(const struct nx_peers *peers)
{
    static struct nx_known_replica known[NX_MAX_REPLICAS];
    const char *list = peers->process->config->replication.peers;
    unsigned count = nx_known_replicas(peers->shm, known);
    char addr[NX_ADDR_TEXT];

    while (asked < NX_MOST_PEERS && nx_peer_list_next(&list, addr)) {
        add(addr);
    }
    for (unsigned i = 0; i < count; i++) {
        nx_peers_copy_addr(known[i].http_addr, addr);
        add(addr);
    }
}

/* ---- what they say ---- */

/* Our epoch is known once the walwriter has recovered the log. False: we shall stop. */
static bool await_epoch(struct nx_peers *peers)
{
    const nx_atomic_u64 *epoch = &peers->shm->log.epoch;

    while ((peers->self.epoch = atomic_load_explicit(epoch, memory_order_acquire)) == 0 &&
           !nx_process_stopping(peers->process)) {
        (void)nx_loop_sleep(&peers->loop, RECOVERY_MS);
    }
    return !nx_process_stopping(peers->process);
}

/* As who this node compares itself with the others. False: we shall stop. */
static bool know_history(struct nx_peers *peers)
{
    struct nx_self *self = &peers->self;

    while (nx_epochs_read(peers->shm, nx_peers_position(peers).offset, &history) < 0) {
        if (nx_process_stopping(peers->process)) {
            return false;
        }
        (void)nx_loop_sleep(&peers->loop, RECOVERY_MS);
    }
    self->yields = peers->process->peers.yields;
    if (history.count > 0) {
        nx_uuid_print(nx_epochs_last(&history)->node_id, self->led_by);
    }
    return true;
}

static bool proves(const struct nx_peers *peers,
                   const struct nx_http_ask *ask,
                   const struct nx_peer_status *status)
{
    static struct nx_epochs theirs;
    bool empty = nx_peers_position(peers).offset == 0;

    return nx_history_parse(ask->reply, ask->length, &theirs) == 0 &&
           nx_peer_proves(status, &theirs, empty ? NULL : &history);
}

static bool is_peer(const struct nx_peers *peers, const char *addr)
{
    return nx_peer_list_has(peers->process->config->replication.peers, addr);
}

static unsigned gather(const struct nx_peers *peers, struct nx_peer_seen *ret_seen)
{
    unsigned count = 0;

    for (unsigned i = 0; i < asked; i++) {
        struct nx_peer_seen *seen = &ret_seen[count];

        if (asks[i].status == 200 &&
            nx_status_parse(asks[i].reply, asks[i].length, addrs[i], &seen->status) == 0) {
            seen->addr = addrs[i];
            seen->believed = is_peer(peers, addrs[i]) || proves(peers, &asks[i], &seen->status);
            count++;
        }
    }
    return count;
}

static const char *what_it_is(const struct nx_peer_status *status)
{
    switch (status->role) {
    case NX_NODE_MASTER:
        return status->fenced ? "fenced master" : "master";
    case NX_NODE_REPLICA:
        return "replica";
    case NX_NODE_STANDALONE:
        break;
    }
    return "standalone";
}

static void log_leaders(const struct nx_peers *peers,
                        const struct nx_peer_seen *seen,
                        unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const struct nx_peer_status *status = &seen[i].status;

        if (!nx_peer_leads_instead(status, &peers->self)) {
            continue;
        }
        if (seen[i].believed) {
            nx_warn("another node leads, as the %s %s at %s says: it is in epoch %" PRIu64
                    ", this node was master in epoch %" PRIu64,
                    what_it_is(status), status->node_id, seen[i].addr, status->epoch,
                    peers->self.epoch);
        } else {
            nx_warn("the %s %s at %s says that it is in epoch %" PRIu64
                    ", this node was master in epoch %" PRIu64
                    ": it isn't believed, as it shows no history that goes on from this node's, "
                    "and replication.peers doesn't list it. If it is a node of this cluster, list "
                    "it there and restart this one; if not, find out who it is, and forget the "
                    "replica that came from there (nexus-ctl forget ID, by GET "
                    "/replication/replicas)",
                    what_it_is(status), status->node_id, seen[i].addr, status->epoch,
                    peers->self.epoch);
        }
    }
}

static bool is_double(const struct nx_peers *peers, const struct nx_peer_status *status)
{
    return strcmp(status->node_id, peers->self.node_id) == 0 &&
           strcmp(status->cluster_id, peers->self.cluster_id) == 0 &&
           status->role == NX_NODE_MASTER && !status->fenced && !status->starting;
}

/* A master with our own id that serves while we start is another one, by a copied data directory: nothing that either
 * writes could be told from the other's. False: a peer is one, and this server stops. Anybody can answer with our id,
 * who has read it: where no peer does, that is said and no more. */
static bool is_alone(struct nx_peers *peers, const struct nx_peer_seen *seen, unsigned count)
{
    char text[NX_ADDR_TEXT + 256];

    for (unsigned i = 0; i < count; i++) {
        const struct nx_peer_status *status = &seen[i].status;

        if (!is_double(peers, status)) {
            continue;
        }
        if (is_peer(peers, seen[i].addr)) {
            (void)snprintf(text, sizeof text,
                           "the master at %s has this node's own id %s: one of the two data "
                           "directories is a copy of the other's. Stop that one first, or start "
                           "this one as its replica with an empty data directory",
                           seen[i].addr, status->node_id);
            (void)nx_peers_tell(peers, NX_CONTROL_FATAL, 0, 0, text);
            return false;
        }
        nx_warn("a master at %s, where a replica of this one was, answers with this node's own id "
                "%s: this node starts all the same, since replication.peers doesn't list that "
                "address. If it serves a copy of this data directory, stop it; if not, find out "
                "who answers there, and forget that replica (nexus-ctl forget ID, by GET "
                "/replication/replicas)",
                seen[i].addr, status->node_id);
    }
    return true;
}

/* False: this node is not to serve. */
static bool judge(struct nx_peers *peers)
{
    static struct nx_peer_seen seen[MOST_ASKED];
    char text[2 * NX_ADDR_TEXT + 64];
    unsigned count;

    if (!know_history(peers)) {
        return false;
    }
    count = gather(peers, seen);
    if (!is_alone(peers, seen, count)) {
        return false;
    }
    log_leaders(peers, seen, count);
    nx_info("%u of %u other nodes have answered who leads", count, asked);
    if (nx_leader_choose(seen, count, &peers->self, text, sizeof text)) {
        (void)nx_peers_fence(peers, text);
    }
    return true;
}

void nx_peers_look(struct nx_peers *peers)
{
    choose(peers);
    if (asked > 0) {
        nx_process_title(peers->process, "asking %u nodes who leads", asked);
    }
    for (unsigned i = 0; i < asked; i++) {
        asks[i].path = NX_STATUS_PATH;
        nx_http_ask_begin(&peers->loop, &asks[i], addrs[i], NX_ASK_MS);
    }
    if (nx_loop_run(&peers->loop) && (asked == 0 || (await_epoch(peers) && judge(peers)))) {
        (void)nx_peers_tell(peers, NX_CONTROL_LOOKED, 0, 0, NULL);
    }
    for (unsigned i = 0; i < asked; i++) {
        nx_http_ask_end(&asks[i]);
    }
}
