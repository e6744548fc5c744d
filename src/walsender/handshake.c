/* Judges Hellos; runs in walsenders. Touches nothing: facts and Hello come in, a verdict goes out. What
 * a Hello says is a stranger's word; its text goes into messages only where it was found to be a UUID. */
#include "walsender/handshake.h"

#include "common/token.h"
#include "common/uuid_text.h"
#include "storage/data_dir.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

__attribute__((format(printf, 3, 4))) static bool refuse(struct nx_verdict *verdict,
                                                         enum nx_wire_error code,
                                                         const char *format,
                                                         ...)
{
    va_list args;

    verdict->code = code;
    va_start(args, format);
    (void)vsnprintf(verdict->text, sizeof verdict->text, format, args);
    va_end(args);
    return true;
}

/* Who asks, and of whom. */
static bool refuse_peer(const struct nx_hello_facts *facts,
                        const struct nx_msg_hello *hello,
                        struct nx_verdict *verdict)
{
    if (hello->protocol_version != NX_WIRE_PROTOCOL_VERSION) {
        return refuse(verdict, NX_WIRE_ERROR_PROTOCOL_VERSION,
                      "this node speaks protocol version %u, the Hello version %u: run the same "
                      "release on both nodes",
                      (unsigned)NX_WIRE_PROTOCOL_VERSION, hello->protocol_version);
    }
    if (facts->token[0] != '\0' && !nx_token_matches(facts->token, hello->token)) {
        return refuse(verdict, NX_WIRE_ERROR_NOT_AUTHORISED,
                      "%s: set replication.token_file to the same token on all nodes",
                      hello->token.length == 0 ? "this master wants a token, and the Hello has none"
                                               : "the Hello's token is wrong");
    }
    if (!nx_slice_is_uuid(hello->replica_id)) {
        return refuse(verdict, NX_WIRE_ERROR_BAD_FRAME, "Hello: replica_id is not a UUID");
    }
    if (facts->role != NX_NODE_MASTER) {
        return refuse(
            verdict, NX_WIRE_ERROR_NOT_A_MASTER,
            "this node is a replica; its master is %s: point replication.master_addr there",
            facts->master_addr);
    }
    return false;
}

/* Whether it is one of ours, and has a place. */
static bool refuse_membership(const struct nx_hello_facts *facts,
                              const struct nx_msg_hello *hello,
                              struct nx_verdict *verdict)
{
    if (nx_slice_equal(hello->replica_id, nx_slice_text(facts->node_id))) {
        return refuse(
            verdict, NX_WIRE_ERROR_NOT_AUTHORISED,
            "the replica has this master's own node id %s: master_addr points at the node "
            "itself, or its data directory is a copy (remove nexus.id in the copy)",
            facts->node_id);
    }
    /* Without data it may have been another cluster's: it adopts this one. */
    if (hello->cluster_id.length > 0 && hello->last_wal_offset > 0 &&
        !nx_slice_equal(hello->cluster_id, nx_slice_text(facts->cluster_id))) {
        return refuse(
            verdict, NX_WIRE_ERROR_OTHER_CLUSTER,
            "the replica belongs to cluster %.36s, this master to %s: point it at its own "
            "master, or give it an empty data directory",
            nx_slice_is_uuid(hello->cluster_id) ? (const char *)hello->cluster_id.data
                                                : "(unreadable)",
            facts->cluster_id);
    }
    return false;
}

/* ---- who leads ---- */

static const struct nx_epoch *last_of(const struct nx_epochs *epochs)
{
    return epochs == NULL ? NULL : nx_epochs_last(epochs);
}

/* Whether their history goes on from ours, from our last epoch, or from an earlier one where ours went on without
 * them: it has an epoch of ours. */
static bool goes_on_from(const struct nx_epochs *theirs, const struct nx_epochs *ours)
{
    uint64_t fork;

    return nx_epochs_fork(ours, UINT64_MAX, theirs, UINT64_MAX, &fork);
}

/* A claim to lead in a higher epoch is believed when it is proven: the entry that begins it, whole, is the last of a
 * history that goes on from ours. */
static bool is_proven(const struct nx_hello_facts *facts,
                      const struct nx_msg_hello *hello,
                      struct nx_epoch *ret_claim)
{
    const struct nx_epoch *ours = last_of(facts->epochs);
    const struct nx_epoch *theirs = last_of(facts->theirs);

    if (theirs == NULL || !nx_slice_equal(hello->cluster_id, nx_slice_text(facts->cluster_id)) ||
        nx_claim_decode(hello->claim, ret_claim) < 0 || !nx_epoch_same(ret_claim, theirs) ||
        ret_claim->epoch > facts->epoch + NX_MOST_EPOCHS_AHEAD) {
        return false;
    }
    if (ours == NULL) { /* a log that is empty is the beginning of any */
        return facts->position.offset == 0 && ret_claim->epoch > facts->epoch;
    }
    return nx_epoch_compare(ret_claim, ours) > 0 && goes_on_from(facts->theirs, facts->epochs);
}

/* Whether this master has heard of a leader before that one: a twin's claim is proven too, and is not the highest. */
static bool knows_better(const struct nx_hello_facts *facts, const struct nx_epoch *claim)
{
    struct nx_epoch known = {.epoch = 0};

    if (facts->fence == NULL || nx_uuid_parse(facts->fence->node_id, known.node_id) < 0) {
        return false;
    }
    known.epoch = facts->fence->epoch;
    return nx_epoch_compare(&known, claim) > 0;
}

void nx_fenced_text(const struct nx_fence *fence, char ret_text[NX_FENCED_TEXT])
{
    (void)snprintf(ret_text, NX_FENCED_TEXT,
                   "this master is fenced: node %s leads in epoch %llu; point "
                   "replication.master_addr there: %s",
                   fence->node_id, (unsigned long long)fence->epoch,
                   fence->addr[0] != '\0' ? fence->addr : "its address isn't known here");
}

static bool refuse_as_fenced(const struct nx_hello_facts *facts,
                             const struct nx_msg_hello *hello,
                             struct nx_verdict *verdict)
{
    char node_id[NX_UUID_TEXT];
    char text[NX_FENCED_TEXT];

    if (is_proven(facts, hello, &verdict->claim) && !knows_better(facts, &verdict->claim)) {
        nx_uuid_print(verdict->claim.node_id, node_id);
        verdict->claims = true;
        return refuse(verdict, NX_WIRE_ERROR_FENCED,
                      "this master led in epoch %llu and is fenced: node %s leads in epoch %llu",
                      (unsigned long long)facts->epoch, node_id,
                      (unsigned long long)verdict->claim.epoch);
    }
    if (facts->fence != NULL) {
        nx_fenced_text(facts->fence, text);
        return refuse(verdict, NX_WIRE_ERROR_FENCED, "%s", text);
    }
    return false;
}

/* Whether this node takes anybody now. */
static bool refuse_now(const struct nx_hello_facts *facts, struct nx_verdict *verdict)
{
    if (facts->draining) {
        return refuse(verdict, NX_WIRE_ERROR_SHUTTING_DOWN, "this master is shutting down");
    }
    if (facts->stopped) {
        return refuse(verdict, NX_WIRE_ERROR_SHUTTING_DOWN, NX_REPLICATION_STOPPED_TEXT);
    }
    if (facts->replicas >= facts->max_replicas) {
        return refuse(verdict, NX_WIRE_ERROR_TOO_MANY_REPLICAS,
                      "%u replicas are connected, replication.max_replicas is %u", facts->replicas,
                      facts->max_replicas);
    }
    return false;
}

/* Welcome, with a full sync. */
__attribute__((format(printf, 2, 3))) static void need_full_sync(struct nx_verdict *verdict,
                                                                 const char *format,
                                                                 ...)
{
    va_list args;

    verdict->full_sync = true;
    va_start(args, format);
    (void)vsnprintf(verdict->text, sizeof verdict->text, format, args);
    va_end(args);
}

/* True when the entry at the replica's position is not ours: then the histories fork at or before it. */
static bool forked(const struct nx_hello_facts *facts, const struct nx_msg_hello *hello)
{
    if (facts->frame_known) {
        return hello->last_epoch != facts->frame_epoch || hello->last_crc != facts->frame_crc;
    }
    return hello->last_epoch == 0 || hello->last_epoch > facts->position.epoch ||
           (facts->crc_known && hello->last_crc != facts->frame_crc);
}

/* The replica stands behind our newest entry. */
static void judge_beyond(const struct nx_hello_facts *facts,
                         const struct nx_msg_hello *hello,
                         struct nx_verdict *verdict)
{
    unsigned long long asked = hello->last_wal_offset;
    unsigned long long ours = facts->position.offset;

    /* Our epoch began at or before our own position, so an entry behind it of a lower one is not of
     * this history. */
    if (ours > 0 && hello->last_epoch < facts->position.epoch) {
        need_full_sync(verdict,
                       "it stands at offset %llu of epoch %llu, this master at %llu of epoch %llu: "
                       "their histories differ, and its own entries are given up",
                       asked, (unsigned long long)hello->last_epoch, ours,
                       (unsigned long long)facts->position.epoch);
        return;
    }
    (void)refuse(verdict, NX_WIRE_ERROR_BEHIND_REPLICA,
                 "this master stands at offset %llu of epoch %llu, the replica already at %llu of "
                 "epoch %llu: it keeps its data; was this master restored from an older state?",
                 ours, (unsigned long long)facts->position.epoch, asked,
                 (unsigned long long)hello->last_epoch);
}

static void judge_fork(const struct nx_hello_facts *facts,
                       const struct nx_msg_hello *hello,
                       struct nx_verdict *verdict)
{
    unsigned long long asked = hello->last_wal_offset;

    if (facts->frame_known) {
        need_full_sync(verdict,
                       "its entry %llu is of epoch %llu with CRC %08x, this master's of epoch %llu "
                       "with CRC %08x: their histories differ, and its own entries are given up",
                       asked, (unsigned long long)hello->last_epoch, hello->last_crc,
                       (unsigned long long)facts->frame_epoch, facts->frame_crc);
    } else {
        need_full_sync(verdict,
                       "its entry %llu is of epoch %llu, this master's epoch is %llu and the entry "
                       "itself is gone here: their histories differ",
                       asked, (unsigned long long)hello->last_epoch,
                       (unsigned long long)facts->position.epoch);
    }
}

static bool fork_of(const struct nx_hello_facts *facts,
                    const struct nx_msg_hello *hello,
                    uint64_t *ret_fork)
{
    return last_of(facts->epochs) != NULL && last_of(facts->theirs) != NULL &&
           nx_epochs_fork(facts->epochs, facts->position.offset, facts->theirs,
                          hello->last_wal_offset, ret_fork);
}

/* True when its history is, or may be, of a higher leader than ours, and that isn't proven: it gives up nothing for
 * an older master. */
static bool stands_higher(const struct nx_hello_facts *facts, const struct nx_msg_hello *hello)
{
    const struct nx_epoch *ours = last_of(facts->epochs);
    const struct nx_epoch *theirs = last_of(facts->theirs);

    return ours != NULL && theirs != NULL ? nx_epoch_compare(theirs, ours) > 0
                                          : hello->last_epoch > facts->epoch;
}

static void refuse_older(const struct nx_hello_facts *facts,
                         const struct nx_msg_hello *hello,
                         struct nx_verdict *verdict)
{
    (void)refuse(
        verdict, NX_WIRE_ERROR_BEHIND_REPLICA,
        "this master leads in epoch %llu, at offset %llu, the replica's history is in epoch "
        "%llu, at offset %llu: it keeps its data, and doesn't prove that its epoch is the "
        "later one; was this master restored from an older state?",
        (unsigned long long)facts->epoch, (unsigned long long)facts->position.offset,
        (unsigned long long)hello->last_epoch, (unsigned long long)hello->last_wal_offset);
}

/* It has entries behind the fork that this master doesn't have. */
static void judge_parted(const struct nx_hello_facts *facts,
                         const struct nx_msg_hello *hello,
                         uint64_t fork,
                         struct nx_verdict *verdict)
{
    unsigned long long asked = hello->last_wal_offset;

    if (fork == facts->position.offset &&
        nx_epoch_same(last_of(facts->epochs), last_of(facts->theirs))) {
        judge_beyond(facts, hello, verdict); /* the same epoch, and merely further */
        return;
    }
    need_full_sync(verdict,
                   "it stands at offset %llu of epoch %llu, this master at %llu of epoch %llu, and "
                   "their histories fork behind offset %llu: its own entries are given up",
                   asked, (unsigned long long)hello->last_epoch,
                   (unsigned long long)facts->position.offset, (unsigned long long)facts->epoch,
                   (unsigned long long)fork);
}

static void judge_position(const struct nx_hello_facts *facts,
                           const struct nx_msg_hello *hello,
                           struct nx_verdict *verdict)
{
    unsigned long long asked = hello->last_wal_offset;
    uint64_t fork;

    if (asked > 0 && stands_higher(facts, hello)) {
        refuse_older(facts, hello, verdict);
    } else if (asked > 0 && fork_of(facts, hello, &fork) && asked > fork) {
        judge_parted(facts, hello, fork, verdict);
    } else if (asked > facts->position.offset) {
        judge_beyond(facts, hello, verdict);
    } else if (asked > 0 && hello->cluster_id.length == 0) {
        need_full_sync(verdict, "it has data up to offset %llu but knows no cluster id", asked);
    } else if (asked == 0 && facts->checkpoint > 0) {
        need_full_sync(verdict, "it is new, and this master's state is at offset %llu",
                       (unsigned long long)facts->checkpoint);
    } else if (asked + 1 < facts->oldest_kept) {
        need_full_sync(verdict,
                       "it asks for entry %llu, the oldest kept here is %llu (up to %llu; "
                       "replication.max_log_size is %llu)",
                       asked + 1, (unsigned long long)facts->oldest_kept,
                       (unsigned long long)facts->position.offset,
                       (unsigned long long)facts->max_log_size);
    } else if (asked > 0 && forked(facts, hello)) {
        judge_fork(facts, hello, verdict);
    }
}

void nx_handshake_judge(const struct nx_hello_facts *facts,
                        const struct nx_msg_hello *hello,
                        struct nx_verdict *ret_verdict)
{
    *ret_verdict = (struct nx_verdict){.code = 0};
    if (!refuse_peer(facts, hello, ret_verdict) && !refuse_membership(facts, hello, ret_verdict) &&
        !refuse_as_fenced(facts, hello, ret_verdict) && !refuse_now(facts, ret_verdict)) {
        judge_position(facts, hello, ret_verdict);
    }
}
