/* Runs in http workers. Reads the replica slots and the quorum's offset; of shared memory it writes only its
 * worker's row. See durability.h. */
#include "http/durability.h"

#include "common/fence.h"
#include "common/known_replicas.h"
#include "common/latch.h"
#include "http/connection.h"
#include "http/fenced.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/waits.h"
#include "http/worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- writes ---- */

static const struct {
    const char *word;
    enum nx_durability durability;
} words[] = {
    {"local", NX_DURABILITY_LOCAL},
    {"quorum", NX_DURABILITY_QUORUM},
    {"all", NX_DURABILITY_ALL},
};

bool nx_durability_take(struct connection *connection)
{
    struct request *request = connection->request;
    struct nx_shm *shm = connection->worker->shm;
    bool known = false;

    request->durability = nx_quorum_rules(shm) ? NX_DURABILITY_QUORUM : NX_DURABILITY_LOCAL;
    request->show_nodes = nx_quorum_rules(shm);
    if (nx_request_header(request, "Nexus-Durability") == NULL) {
        return true;
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (nx_request_header_is(request, "Nexus-Durability", words[i].word)) {
            request->durability = words[i].durability;
            known = nx_request_header_count(request, "Nexus-Durability") == 1;
        }
    }
    request->show_nodes = true;
    if (!known) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "Nexus-Durability must be local, quorum or all, once; nothing was written.");
        return false;
    }
    if (request->durability != NX_DURABILITY_LOCAL && nx_node_role(shm) == NX_NODE_STANDALONE) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "Nexus-Durability: %s needs replicas, and this node is standalone "
                  "(replication.role); nothing was written.",
                  words[request->durability].word);
        return false;
    }
    return true;
}

const struct nx_replica_views *nx_durability_replicas(struct http_worker *worker)
{
    if (!worker->replicas_seen) {
        nx_replicas_look(worker->shm, nx_silence_limit_ms(worker->process->config),
                         &worker->replicas);
        worker->replicas_seen = true;
    }
    return &worker->replicas;
}

bool nx_durability_possible(struct http_worker *worker)
{
    return !nx_node_replication_stopped(worker->shm) && nx_quorum_confirmed(worker->shm) &&
           nx_replicas_counting(nx_durability_replicas(worker)) >= nx_quorum_size(worker->shm);
}

bool nx_durability_reached(struct http_worker *worker,
                           enum nx_durability durability,
                           uint64_t offset)
{
    if (durability == NX_DURABILITY_LOCAL) {
        return true;
    }
    return offset <= nx_quorum_offset(worker->shm) &&
           (durability == NX_DURABILITY_QUORUM ||
            nx_replicas_all_have(nx_durability_replicas(worker), offset));
}

/* ---- how many nodes ---- */

static unsigned replica_nodes(struct nx_shm *shm, uint64_t offset)
{
    bool master_has =
        offset <= atomic_load_explicit(&shm->receiver.master_offset, memory_order_relaxed);

    return (nx_node_durable(shm) >= offset ? 1U : 0U) + (master_has ? 1U : 0U);
}

static bool is_connected(const struct nx_replica_views *connected, const char *id)
{
    for (unsigned i = 0; i < connected->count; i++) {
        if (strcmp(connected->list[i].id, id) == 0) {
            return true;
        }
    }
    return false;
}

/* The known replicas. Each write's answer may ask, and they seldom change: so they are copied when they did. */
static unsigned known_replicas(const struct nx_shm *shm, const struct nx_known_replica **ret_list)
{
    static struct nx_known_replica list[NX_MAX_REPLICAS];
    static uint32_t version;
    static unsigned count;
    uint32_t now = atomic_load_explicit(&shm->known.version, memory_order_acquire);

    if (now != version) {
        count = nx_known_replicas(shm, list);
        version = now;
    }
    *ret_list = list;
    return count;
}

/* Of those that are away: how many, and how many had the entry on disk when they went. */
static unsigned absent_nodes(const struct nx_shm *shm,
                             const struct nx_replica_views *connected,
                             uint64_t offset,
                             unsigned *ret_with)
{
    const struct nx_known_replica *list;
    unsigned count = known_replicas(shm, &list);
    unsigned absent = 0;

    for (unsigned i = 0; i < count; i++) {
        if (!is_connected(connected, list[i].id)) {
            absent++;
            *ret_with += list[i].last_ack_offset >= offset ? 1 : 0;
        }
    }
    return absent;
}

/* The connected replicas, not as they were before the quorum had this entry. */
static const struct nx_replica_views *replicas_for(struct http_worker *worker, uint64_t offset)
{
    const struct nx_replica_views *replicas = nx_durability_replicas(worker);

    if (offset <= nx_quorum_offset(worker->shm) &&
        nx_replicas_with(replicas, offset) < nx_quorum_size(worker->shm)) {
        worker->replicas_seen = false;
        replicas = nx_durability_replicas(worker);
    }
    return replicas;
}

void nx_durability_nodes(struct http_worker *worker, uint64_t offset, char *text, size_t cap)
{
    struct nx_shm *shm = worker->shm;
    unsigned with = nx_node_durable(shm) >= offset ? 1 : 0;
    unsigned known = 1;

    if (nx_node_role(shm) == NX_NODE_REPLICA) {
        with = replica_nodes(shm, offset);
        known = 2;
    } else if (nx_node_role(shm) == NX_NODE_MASTER) {
        const struct nx_replica_views *replicas = replicas_for(worker, offset);

        with += nx_replicas_with(replicas, offset);
        known += replicas->count + absent_nodes(shm, replicas, offset, &with);
    }
    snprintf(text, cap, "%u/%u", with, known);
}

void nx_durability_header(struct connection *connection, uint64_t offset, char *text, size_t cap)
{
    char nodes[24];

    text[0] = '\0';
    if (connection->request->show_nodes) {
        nx_durability_nodes(connection->worker, offset, nodes, sizeof nodes);
        snprintf(text, cap, "Nexus-Durability-Achieved: %s\r\n", nodes);
    }
}

/* ---- linearizable reads ---- */

static void ring_walsenders(struct nx_shm *shm)
{
    for (unsigned i = 0; i < NX_MAX_WALSENDERS; i++) {
        if (atomic_load_explicit(&shm->replicas[i].state, memory_order_relaxed) ==
            NX_REPLICA_STREAMING) {
            nx_latch_ring(shm, nx_process_slot(NX_KIND_WALSENDER, i));
        }
    }
}

static void refuse_stopped(struct connection *connection)
{
    nx_refuse(
        connection, NX_ERROR_REPLICATION_STOPPED,
        "Replication is stopped on this master (POST /replication/stop), so its quorum can't be "
        "asked whether it still leads. Restart the node to resume, or read without Nexus-Read: "
        "linearizable.");
}

static void leads_expired(struct connection *connection)
{
    nx_refuse(connection, NX_ERROR_QUORUM_UNAVAILABLE,
              "The quorum (replication.sync_quorum = %u) did not confirm within "
              "http.request_timeout_ms that this master still leads; try again, or read without "
              "Nexus-Read: linearizable.",
              nx_quorum_size(connection->worker->shm));
}

uint64_t nx_durability_confirmed_us(struct http_worker *worker)
{
    worker->replicas_seen = false; /* what it is woken for must be seen */
    return nx_replicas_confirmed_us(nx_durability_replicas(worker), nx_quorum_size(worker->shm));
}

bool nx_durability_leads(struct connection *connection)
{
    struct http_worker *worker = connection->worker;
    struct request *request = connection->request;
    nx_atomic_u64 *wanted = &nx_worker_row(worker)->confirm_wanted_us;

    if (!request->linearizable) {
        return true;
    }
    if (nx_fenced(worker->shm)) {
        nx_fenced_refuse(connection, "A linearizable read is answered by that node only.");
        return false;
    }
    if (request->led || !nx_quorum_rules(worker->shm)) {
        return true;
    }
    if (request->asked_us == 0 && nx_node_replication_stopped(worker->shm)) {
        refuse_stopped(connection);
        return false;
    }
    if (request->asked_us == 0) {
        request->asked_us = nx_now_us();
        request->deadline_ms = nx_now_ms() + worker->process->config->http.request_timeout_ms;
        atomic_store_explicit(wanted, request->asked_us, memory_order_release);
        ring_walsenders(worker->shm);
    }
    if (nx_durability_confirmed_us(worker) >= request->asked_us) {
        request->led = true;
        request->deadline_ms = 0; /* of a ?wait= from here on */
        return true;
    }
    nx_wait_confirm(connection, request->asked_us, request->deadline_ms, leads_expired);
    return false;
}
