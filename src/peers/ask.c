/* A promotion asks the others: does the master still answer, and has any of them more than this node? It has their
 * promises to confirm nothing more in a lower epoch, or, for a dry run, only looks. Runs in the peers process, on a
 * replica whose walreceiver has ended and whose log is settled. */
#include "common/latch.h"
#include "common/log.h"
#include "common/peer_list.h"
#include "common/quorum.h"
#include "common/synced.h"
#include "peers/dial.h"
#include "peers/http_ask.h"
#include "peers/peers.h"
#include "peers/verdict.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MASTER_MS       250
#define DEAD_MASTER_MS  10 /* of one that has been found dead already */
#define SILENT_LEAST_MS 10
#define DEAD_PEER_MS    100 /* the same; it may be back, and has something to store for a promise */
#define ROUNDS          3
#define COMMIT_MS       60000 /* between looks whether the epoch has begun */

static struct nx_promotion promotion;
static struct nx_promotion_verdict verdict;
static struct nx_http_ask asks[NX_MOST_PEERS];
static struct nx_withdrawal withdrawals[NX_MOST_PEERS];
static struct nx_http_ask master_ask;
static struct nx_dial master_dial;

/* ---- what this node knows by itself ---- */

static void list_peers(const char *list)
{
    while (promotion.count < NX_MOST_PEERS &&
           nx_peer_list_next(&list, promotion.peers[promotion.count].addr)) {
        promotion.count++;
    }
}

static void begin(struct nx_peers *peers)
{
    const struct nx_peers_task *task = &peers->process->peers;
    const struct nx_config *config = peers->process->config;
    const struct nx_receiver_state *receiver = &peers->shm->receiver;
    uint64_t heard = atomic_load_explicit(&receiver->last_frame_ms, memory_order_relaxed);
    uint64_t now = nx_now_ms();

    promotion = (struct nx_promotion){
        .dry_run = task->dry_run,
        .force = task->force,
        .sync = task->sync,
        .becomes_async =
            task->sync && nx_quorum_rules(peers->shm) && config->replication.mode != NX_MODE_SYNC,
        .confirms = config->replication.mode == NX_MODE_SYNC,
        .epoch = task->epoch,
        .quorum = nx_quorum_size(peers->shm),
        .ours = nx_peers_position(peers),
        .master_heard = atomic_load_explicit(&receiver->master_heard, memory_order_acquire) != 0,
        .welcomed = atomic_load_explicit(&receiver->welcomed, memory_order_acquire) != 0,
        .sync_goal = nx_sync_goal(peers->shm).offset,
        .first_goal = nx_never_synced(peers->shm) ? nx_sync_goal(peers->shm).shown : 0,
        .master_silent_ms = now > heard ? now - heard : 0,
        .master_offset = atomic_load_explicit(&receiver->master_offset, memory_order_relaxed),
    };
    peers->self.epoch = promotion.ours.epoch;
    memcpy(promotion.master_addr, task->master_addr, sizeof promotion.master_addr);
    promotion.master_addr[sizeof promotion.master_addr - 1] = '\0';
    list_peers(config->replication.peers);
}

/* ---- the master ---- */

static bool is_dead(const struct nx_peers *peers)
{
    return atomic_load_explicit(&peers->shm->receiver.master_dead, memory_order_acquire) != 0;
}

/* Where the master is asked, as it said itself; "": it hasn't. */
static void master_http(const struct nx_peers *peers, char ret_addr[NX_ADDR_TEXT])
{
    const struct nx_receiver_state *receiver = &peers->shm->receiver;

    ret_addr[0] = '\0';
    if (atomic_load_explicit(&receiver->master_known, memory_order_acquire) != 0) {
        nx_peers_copy_addr(receiver->master_http, ret_addr);
    }
}

static void ask_master(struct nx_peers *peers)
{
    unsigned limit = is_dead(peers) ? DEAD_MASTER_MS : MASTER_MS;
    char http_addr[NX_ADDR_TEXT];

    master_http(peers, http_addr);
    if (http_addr[0] != '\0') {
        master_ask.path = NX_STATUS_PATH;
        nx_http_ask_begin(&peers->loop, &master_ask, http_addr, limit);
    } else if (promotion.master_addr[0] != '\0') {
        nx_dial_begin(&peers->loop, &master_dial, promotion.master_addr, limit);
    }
}

static void take_master(struct nx_peers *peers)
{
    struct nx_peer_status status;

    promotion.master_answers = master_dial.answer == NX_DIAL_ACCEPTED;
    if (master_ask.status == 200 &&
        nx_status_parse(master_ask.reply, master_ask.length, master_ask.reach.addr, &status) == 0 &&
        nx_peer_is_ours(&status, &peers->self)) {
        promotion.master_answers = nx_peer_leads(&status);
        promotion.master_epoch = status.epoch;
        if (promotion.master_answers && status.position.offset > promotion.master_offset) {
            promotion.master_offset = status.position.offset;
        }
    }
    nx_http_ask_end(&master_ask);
    nx_dial_end(&master_dial);
}

/* ---- the peers ---- */

__attribute__((format(printf, 3, 4))) static void answer(struct nx_peer_fact *peer,
                                                         enum nx_peer_answer kind,
                                                         const char *format,
                                                         ...)
{
    va_list args;

    peer->answer = kind;
    va_start(args, format);
    (void)vsnprintf(peer->why, sizeof peer->why, format, args);
    va_end(args);
}

/* Whether the answer is of another node of our cluster; else it counts as none. */
static bool belongs(const struct nx_peers *peers,
                    struct nx_peer_fact *peer,
                    const char *node_id,
                    const char *cluster_id)
{
    if (strcmp(node_id, peers->self.node_id) == 0) {
        answer(peer, NX_PEER_SELF, "it is this node");
    } else if (strcmp(cluster_id, peers->self.cluster_id) != 0) {
        answer(peer, NX_PEER_UNREACHED, "it belongs to %s%s",
               cluster_id[0] == '\0' ? "no cluster" : "another cluster, ", cluster_id);
    } else {
        memcpy(peer->node_id, node_id, NX_UUID_TEXT);
        return true;
    }
    return false;
}

/* An epoch that no honest node has, or has promised: it would have this one begin an epoch that nobody believes. */
static bool too_far(const struct nx_peers *peers, struct nx_peer_fact *peer, uint64_t epoch)
{
    if (epoch > peers->self.epoch && epoch - peers->self.epoch > NX_MOST_PROMISED_AHEAD) {
        answer(peer, NX_PEER_UNREACHED, "it claims epoch %" PRIu64 ", this node is in %" PRIu64,
               epoch, peers->self.epoch);
        return true;
    }
    return false;
}

static void place(struct nx_peer_fact *peer, const struct nx_position *position, uint64_t epoch)
{
    peer->placed = true;
    peer->position = *position;
    peer->epoch = epoch > peer->epoch ? epoch : peer->epoch;
}

static void take_promise(const struct nx_peers *peers,
                         struct nx_peer_fact *peer,
                         const struct nx_http_ask *ask)
{
    struct nx_peer_promise promise;

    if (nx_promise_parse(ask->reply, ask->length, &promise) < 0) {
        answer(peer, NX_PEER_UNREACHED, "its answer is no promise");
    } else if (belongs(peers, peer, promise.node_id, promise.cluster_id) &&
               !too_far(peers, peer, promise.position.epoch)) {
        answer(peer, NX_PEER_PROMISES, "promised");
        place(peer, &promise.position, promise.position.epoch);
    }
}

static void take_refusal(const struct nx_peers *peers,
                         struct nx_peer_fact *peer,
                         const struct nx_http_ask *ask)
{
    struct nx_peer_refusal refusal;

    nx_refusal_parse(ask->reply, ask->length, &refusal);
    if (!too_far(peers, peer, refusal.epoch)) {
        answer(peer, NX_PEER_REFUSES, "%s: %s", refusal.code[0] == '\0' ? "refused" : refusal.code,
               refusal.message);
        if (refusal.code[0] == '\0' || refusal.message[0] == '\0') {
            answer(peer, NX_PEER_REFUSES, "HTTP status %d %s", ask->status, refusal.code);
        }
        peer->epoch = refusal.epoch > peer->epoch ? refusal.epoch : peer->epoch;
    }
}

/* What a status says of a peer that has promised nothing. */
static void take_status(const struct nx_peers *peers,
                        struct nx_peer_fact *peer,
                        const struct nx_http_ask *ask)
{
    struct nx_peer_status status;

    if (ask->status != 200 || nx_status_parse(ask->reply, ask->length, peer->addr, &status) < 0) {
        answer(peer, NX_PEER_UNREACHED, "HTTP status %d, and no status of a node", ask->status);
    } else if (belongs(peers, peer, status.node_id, status.cluster_id) &&
               !too_far(peers, peer, status.epoch) && !too_far(peers, peer, status.vouched.epoch)) {
        place(peer, &status.vouched, status.epoch);
        peer->leads = nx_peer_leads(&status);
        if (peer->answer == NX_PEER_REFUSES) {
            return; /* it has said why */
        }
        if (status.role == NX_NODE_REPLICA || status.fenced) {
            answer(peer, NX_PEER_PROMISES, "asked for its position only");
        } else {
            answer(peer, NX_PEER_REFUSES, "it is %s",
                   peer->leads ? "the master, and leads" : "no replica");
        }
    }
}

static void take_peer(const struct nx_peers *peers,
                      struct nx_peer_fact *peer,
                      const struct nx_http_ask *ask)
{
    char why[160];

    if (ask->status == 0) {
        answer(peer, NX_PEER_UNREACHED, "%s", nx_reach_text(&ask->reach, why, sizeof why));
    } else if (ask->method == NX_ASK_GET) {
        take_status(peers, peer, ask);
    } else if (ask->status == 200) {
        take_promise(peers, peer, ask);
    } else {
        take_refusal(peers, peer, ask);
    }
}

/* Which of them a round asks. */
typedef bool wanted(const struct nx_peer_fact *peer);

static bool anybody(const struct nx_peer_fact *peer)
{
    (void)peer;
    return true;
}

/* Who didn't answer in time won't a moment later, and who waits for us has waited for that already. */
static bool reached(const struct nx_peer_fact *peer)
{
    return peer->answer == NX_PEER_PROMISES || peer->answer == NX_PEER_REFUSES;
}

static bool refusing(const struct nx_peer_fact *peer)
{
    return peer->answer == NX_PEER_REFUSES;
}

/* How long a peer may take. All wait for the slowest, and the master's machine may be off: then nobody says so. */
static unsigned patience(const struct nx_peers *peers, const char *addr)
{
    char master[NX_ADDR_TEXT];

    master_http(peers, master);
    if (strcmp(addr, master) != 0) {
        return NX_ASK_MS;
    }
    return is_dead(peers) ? DEAD_PEER_MS : MASTER_MS;
}

static void begin_peers(struct nx_peers *peers, enum nx_ask_method method, wanted *whom)
{
    for (unsigned i = 0; i < promotion.count; i++) {
        if (!whom(&promotion.peers[i])) {
            continue;
        }
        asks[i].method = method;
        asks[i].path = method == NX_ASK_GET ? NX_STATUS_PATH : NX_PROMISE_PATH;
        asks[i].body[0] = '\0';
        if (method == NX_ASK_POST) {
            nx_peers_promise_body(peers, promotion.epoch, peers->process->peers.attempt,
                                  asks[i].body, sizeof asks[i].body);
        }
        nx_http_ask_begin(&peers->loop, &asks[i], promotion.peers[i].addr,
                          patience(peers, promotion.peers[i].addr));
    }
}

/* What may have been promised is to be withdrawn, whether the answer came through or not. */
static void note_promise(const struct nx_peers *peers, unsigned i)
{
    struct nx_withdrawal *withdrawal = &withdrawals[i];
    bool unknown = promotion.peers[i].answer == NX_PEER_UNREACHED && asks[i].requested;

    memcpy(withdrawal->addr, promotion.peers[i].addr, sizeof withdrawal->addr);
    if (asks[i].method == NX_ASK_POST &&
        (promotion.peers[i].answer == NX_PEER_PROMISES || unknown)) {
        withdrawal->epoch = promotion.epoch;
        withdrawal->attempt = peers->process->peers.attempt;
    }
}

static void take_peers(struct nx_peers *peers)
{
    for (unsigned i = 0; i < promotion.count; i++) {
        if (asks[i].reach.loop != NULL) {
            take_peer(peers, &promotion.peers[i], &asks[i]);
            note_promise(peers, i);
            nx_http_ask_end(&asks[i]);
        }
    }
}

/* ---- rounds ---- */

/* Promises of our cluster's that have come. */
static bool enough_promise(void *arg)
{
    const struct nx_peers *peers = arg;
    unsigned needed = nx_promotion_needed(&promotion);
    unsigned promised = 1; /* our own */
    struct nx_peer_promise promise;

    for (unsigned i = 0; i < promotion.count; i++) {
        if (asks[i].method == NX_ASK_POST && asks[i].status == 200 &&
            nx_promise_parse(asks[i].reply, asks[i].length, &promise) == 0 &&
            strcmp(promise.cluster_id, peers->self.cluster_id) == 0) {
            promised++;
        }
    }
    return promotion.sync && needed > 1 && promised >= needed;
}

/* In sync mode so many have all that was confirmed: who is silent beside them, as a machine that is off, isn't waited
 * for long. */
static bool run_asked(struct nx_peers *peers, enum nx_ask_method method)
{
    return method == NX_ASK_POST
               ? nx_loop_run_for(&peers->loop, enough_promise, peers, SILENT_LEAST_MS)
               : nx_loop_run(&peers->loop);
}

/* The first one asks the master too. False: we shall stop, or the loop failed. */
static bool ask_once(struct nx_peers *peers, bool first)
{
    enum nx_ask_method method = promotion.dry_run ? NX_ASK_GET : NX_ASK_POST;

    if (first) {
        ask_master(peers);
    }
    begin_peers(peers, method, first ? anybody : reached);
    if (!run_asked(peers, method)) {
        return false;
    }
    if (first) {
        take_master(peers);
    }
    take_peers(peers);
    if (method == NX_ASK_POST) { /* a refusal doesn't tell who refuses, nor how far that is */
        begin_peers(peers, NX_ASK_GET, refusing);
        if (!nx_loop_run(&peers->loop)) {
            return false;
        }
        take_peers(peers);
    }
    return true;
}

/* The epoch that begins is above the one that was promised: somebody else may be promised that one, so what was
 * promised doesn't count. */
static void count_no_promise(void)
{
    for (unsigned i = 0; i < promotion.count; i++) {
        if (promotion.peers[i].answer == NX_PEER_PROMISES) {
            answer(&promotion.peers[i], NX_PEER_REFUSES, "it has promised a lower epoch only");
        }
    }
}

/* An epoch that others have heard of is nobody's to begin: promises are asked for a higher one. */
static bool ask_all(struct nx_peers *peers)
{
    for (unsigned round = 1; round <= ROUNDS; round++) {
        uint64_t highest;

        if (!ask_once(peers, round == 1)) {
            return false;
        }
        highest = nx_promotion_highest_epoch(&promotion);
        if (highest < promotion.epoch) {
            break;
        }
        promotion.epoch = highest + 1;
        if (promotion.dry_run || (nx_promotion_ahead(&promotion) != NULL && !promotion.force)) {
            break;
        }
        if (round == ROUNDS) {
            count_no_promise();
        }
    }
    return true;
}

/* Addresses of one node are one node, whose best answer counts. The others don't, but for the number of replicas: where
 * the list names one twice by mistake, it lacks another one that may have more. */
static void count_once(void)
{
    for (unsigned i = 0; i < promotion.count; i++) {
        struct nx_peer_fact *a = &promotion.peers[i];

        for (unsigned j = i + 1; j < promotion.count; j++) {
            struct nx_peer_fact *b = &promotion.peers[j];

            if (a->node_id[0] != '\0' && strcmp(a->node_id, b->node_id) == 0) {
                answer(a->answer < b->answer ? a : b, NX_PEER_REFUSES,
                       "it is the same node as %s: replication.peers lists it twice",
                       a->answer < b->answer ? b->addr : a->addr);
            }
        }
    }
}

static void tell_verdict(struct nx_peers *peers)
{
    count_once();
    nx_promotion_judge(&promotion, &verdict);
    if (verdict.forced && !promotion.dry_run) {
        nx_warn(
            "promoted by force although a rule forbids it: %s What only other nodes have is lost",
            verdict.broken);
    }
    (void)nx_peers_tell(peers, NX_CONTROL_VERDICT, verdict.status, promotion.epoch, verdict.text);
}

/* The epoch may begin, or not: promises are taken back only on the postmaster's word that it doesn't. However slow the
 * disk is, or when we shall stop, they must hold. */
static bool is_given_up(struct nx_peers *peers)
{
    int rc;

    do {
        rc = nx_peers_await_done(peers, COMMIT_MS);
    } while (rc == -ETIMEDOUT);
    return rc < 0 && !nx_process_stopping(peers->process);
}

void nx_peers_ask(struct nx_peers *peers)
{
    bool whole;

    begin(peers);
    nx_process_title(peers->process, "asking %u peers about epoch %" PRIu64, promotion.count,
                     promotion.epoch);
    whole = ask_all(peers);
    if (whole) {
        tell_verdict(peers);
    }
    nx_http_ask_end(&master_ask);
    nx_dial_end(&master_dial);
    for (unsigned i = 0; i < promotion.count; i++) {
        nx_http_ask_end(&asks[i]);
    }
    if (whole && !promotion.dry_run && promotion.count > 0 &&
        (verdict.status < 0 || is_given_up(peers))) {
        nx_peers_withdraw(peers, withdrawals, promotion.count);
    }
}
