/* This node's history against its master's: what the Hello says of it, whether the master's is one to go on with,
 * and what is saved of ours before a full sync replaces it. Runs in the walreceiver; owns nothing but files in
 * DATA_DIR/diverged. A node never gives up anything for a master that leads in no higher epoch, unless it was
 * told to by POST /replication/follow with force. */
#include "common/failpoint.h"
#include "common/log.h"
#include "common/order.h"
#include "common/quorum.h"
#include "common/synced.h"
#include "common/uuid_text.h"
#include "storage/diverged.h"
#include "walreceiver/walreceiver.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct nx_epochs ours;   /* up to r->last */
static struct nx_epochs theirs; /* of the Welcome; empty: it doesn't say */

void nx_history_offer(struct nx_walreceiver *r, struct nx_msg_hello *hello)
{
    static uint8_t bytes[NX_EPOCHS_BYTES];

    (void)nx_epochs_read(r->shm, r->last.offset, &ours);
    hello->epochs = nx_slice_of(bytes, nx_epochs_encode(&ours, bytes));
    /* That another node leads is told to whoever should know. That this one led is no claim any more: it follows. */
    if (!nx_epochs_led_by(&ours, r->shm->control.node_id)) {
        hello->claim = nx_slice_of(ours.claim, ours.claim_length);
    }
}

void nx_history_first_node(const struct nx_msg_welcome *welcome, char ret_id[NX_UUID_TEXT])
{
    static const uint8_t nobody[NX_OP_NODE_ID];

    ret_id[0] = '\0';
    if (welcome->epochs.length == 0 && welcome->epoch == 1) { /* nothing is logged there yet */
        (void)snprintf(ret_id, NX_UUID_TEXT, "%.36s", (const char *)welcome->master_id.data);
    } else if (nx_epochs_decode(welcome->epochs, &theirs) == 0 && theirs.count > 0 &&
               theirs.list[0].epoch == 1 &&
               memcmp(theirs.list[0].node_id, nobody, sizeof nobody) != 0) {
        nx_uuid_print(theirs.list[0].node_id, ret_id);
    }
}

bool nx_history_forced(const struct nx_walreceiver *r)
{
    return atomic_load_explicit(&r->shm->control.follow_forced, memory_order_acquire) != 0;
}

/* How the master's leadership compares with that of our log: below 0: it is lower. */
static int compare(const struct nx_walreceiver *r, const struct nx_msg_welcome *welcome)
{
    if (ours.count > 0 && theirs.count > 0) {
        return nx_epoch_compare(nx_epochs_last(&theirs), nx_epochs_last(&ours));
    }
    return welcome->epoch < r->last.epoch ? -1 : (welcome->epoch > r->last.epoch ? 1 : 0);
}

static void refuse_older(struct nx_walreceiver *r, const struct nx_msg_welcome *welcome)
{
    nx_receiver_refuse(r, NX_CAUSE_REFUSED, NX_WIRE_ERROR_BEHIND_REPLICA,
                       "the master stands at offset %llu of epoch %llu, this node already at %llu "
                       "of epoch %llu: it keeps its data; was the master restored from an older "
                       "state? (POST /replication/follow with force gives up what is beyond it)",
                       (unsigned long long)welcome->current_wal_offset,
                       (unsigned long long)welcome->epoch, (unsigned long long)r->last.offset,
                       (unsigned long long)r->last.epoch);
}

/* This node's log stands before an epoch of which it had entries: a master of an earlier one has never had those. */
static void refuse_of_earlier(struct nx_walreceiver *r,
                              const struct nx_msg_welcome *welcome,
                              const struct nx_sync_goal *goal)
{
    nx_receiver_refuse(
        r, NX_CAUSE_REFUSED, NX_WIRE_ERROR_BEHIND_REPLICA,
        "the master leads in epoch %llu, and this node, whose last full sync is not complete, had "
        "offset %llu of epoch %llu: let it follow a master of that epoch or a later one (POST "
        "/replication/follow; with force it gives up what it had)",
        (unsigned long long)welcome->epoch, (unsigned long long)goal->offset,
        (unsigned long long)goal->epoch);
}

void nx_history_check(struct nx_walreceiver *r, const struct nx_msg_welcome *welcome)
{
    uint64_t promised = atomic_load_explicit(&r->shm->control.promised_epoch, memory_order_acquire);
    bool behind = welcome->current_wal_offset < r->last.offset;
    struct nx_sync_goal goal = nx_sync_goal(r->shm);
    int order;

    if (nx_epochs_decode(welcome->epochs, &theirs) < 0) {
        nx_receiver_refuse(r, NX_CAUSE_VIOLATION, NX_WIRE_ERROR_BAD_FRAME,
                           "Welcome with an epoch history of %zu bytes that can't be read",
                           welcome->epochs.length);
        return;
    }
    if (promised > welcome->epoch && !NX_PLANTED(skip_epoch_check)) {
        nx_receiver_refuse(
            r, NX_CAUSE_REFUSED, NX_WIRE_ERROR_FENCED,
            "the master leads in epoch %llu, and this node has promised epoch %llu to another one: it "
            "follows no lower one until that begins, the promise is withdrawn (DELETE "
            "/replication/promise), or it is told whom to follow (POST /replication/follow)",
            (unsigned long long)welcome->epoch, (unsigned long long)promised);
        return;
    }
    if (r->giving_up) {
        if (welcome->current_wal_offset == 0) {
            refuse_older(r, welcome); /* an empty master has nothing to give for it */
        }
        return;
    }
    if (goal.offset != 0 && welcome->epoch < goal.epoch && !nx_history_forced(r)) {
        refuse_of_earlier(r, welcome, &goal);
        return;
    }
    (void)nx_epochs_read(r->shm, r->last.offset, &ours);
    order = compare(r, welcome);
    if (r->last.offset > 0 && (order < 0 || (behind && !(welcome->requires_full_sync && order > 0 &&
                                                         welcome->current_wal_offset > 0)))) {
        r->giving_up = nx_history_forced(r);
        refuse_older(r, welcome);
        r->cause.slow = !r->giving_up;
    }
}

/* By `ours`: the last entry that both have. False: nothing is given up that the master doesn't have. */
static bool parts(struct nx_walreceiver *r,
                  const struct nx_msg_welcome *welcome,
                  uint64_t *ret_fork)
{
    if (r->last.offset == 0) {
        return false;
    }
    if (nx_epochs_fork(&ours, r->last.offset, &theirs, welcome->current_wal_offset, ret_fork)) {
        return *ret_fork < r->last.offset;
    }
    *ret_fork = 0; /* not known to have anything in common */
    return r->giving_up || r->last.epoch != welcome->epoch;
}

static bool asked_to_stop(void *arg)
{
    struct nx_walreceiver *r = arg;

    nx_receiver_hear(r);
    return nx_receiver_ended(r);
}

static void say_saved(const struct nx_walreceiver *r,
                      uint64_t fork,
                      const struct nx_diverged_saved *saved)
{
    if (saved->count == 0) {
        nx_warn(
            "a full sync replaces what this node has: entries %llu to %llu of epoch %llu are not in the "
            "master's history and are given up. They are no longer in the log, and could not be saved "
            "one by one",
            (unsigned long long)fork + 1, (unsigned long long)r->last.offset,
            (unsigned long long)r->last.epoch);
        return;
    }
    if (saved->first > fork + 1) {
        nx_warn(
            "entries %llu to %llu, which are given up too, are no longer in the log and could not be "
            "saved one by one",
            (unsigned long long)fork + 1, (unsigned long long)saved->first - 1);
    }
    nx_warn(
        "a full sync replaces what this node has: entries %llu to %llu of epoch %llu are not in the "
        "master's history and are given up. They are kept in %s (GET /replication/diverged; POST "
        "/import takes the file)",
        (unsigned long long)fork + 1, (unsigned long long)r->last.offset,
        (unsigned long long)r->last.epoch, saved->path);
}

/* What the node owes still of an earlier full sync, if this is the master of the same cluster. Who follows by force gives
 * that up. */
static struct nx_sync_goal owed_before(const struct nx_walreceiver *r,
                                       const struct nx_msg_welcome *welcome)
{
    static const struct nx_sync_goal none;
    const struct nx_control_block *control = &r->shm->control;

    if (nx_history_forced(r) ||
        atomic_load_explicit(&control->cluster_known, memory_order_acquire) == 0 ||
        !nx_slice_equal(welcome->cluster_id, nx_slice_text(control->cluster_id))) {
        return none;
    }
    return nx_sync_goal(r->shm);
}

/* Of the entry there in our history; where that doesn't reach back so far: at most that of the last one. */
static uint64_t epoch_of(const struct nx_walreceiver *r, uint64_t offset)
{
    uint64_t epoch = nx_epochs_at(&ours, offset);

    return epoch == 0 ? r->last.epoch : epoch;
}

/* The goal of the data that comes. What this node has of the master's history, up to `shared`, it may have acknowledged,
 * and readers have seen what is committed of it; one that has nothing owes them what the master has for them. What it
 * still owed is owed on, as far as the master's history goes along with that. */
static void note_goal(const struct nx_walreceiver *r,
                      const struct nx_msg_welcome *welcome,
                      uint64_t shared)
{
    struct nx_sync_goal before = owed_before(r, welcome);
    struct nx_sync_goal goal = {.shown = nx_welcome_readable(welcome),
                                .shown_epoch = welcome->epoch};
    uint64_t common = shared == r->last.offset ? welcome->current_wal_offset : shared;

    if (r->last.offset > 0) {
        goal.offset = shared;
        goal.epoch = epoch_of(r, shared);
        goal.shown = nx_lower(nx_committed_offset(r->shm), shared);
        goal.shown_epoch = epoch_of(r, goal.shown);
    }
    if (nx_lower(before.offset, common) > goal.offset) {
        goal.offset = nx_lower(before.offset, common);
        goal.epoch = before.epoch;
    }
    if (nx_lower(before.shown, common) > goal.shown) {
        goal.shown = nx_lower(before.shown, common);
        goal.shown_epoch = before.shown_epoch;
    }
    nx_sync_goal_publish(&r->shm->receiver.goal, &goal);
}

void nx_history_save(struct nx_walreceiver *r, const struct nx_msg_welcome *welcome)
{
    struct nx_stream stream;
    struct nx_diverged_saved saved;
    uint64_t fork;
    bool given_up;
    int rc = nx_epochs_read(r->shm, r->last.offset, &ours);

    if (rc < 0) { /* all would seem to be given up */
        nx_receiver_refuse(r, NX_CAUSE_OWN, NX_WIRE_ERROR_INTERNAL,
                           "this node's history can't be read now: %s", strerrordesc_np(-rc));
        return;
    }
    given_up = parts(r, welcome, &fork);
    note_goal(r, welcome, given_up ? fork : r->last.offset);
    if (!given_up) {
        return;
    }
    nx_stream_open(&stream, r->shm, r->process->state_root);
    struct nx_diverged_options options = {
        .data_dir = r->process->data_dir,
        .stream = &stream,
        .first = fork + 1,
        .last = r->last,
        .stop = asked_to_stop,
        .arg = r,
    };

    nx_process_title(r->process, "saving entries %llu to %llu", (unsigned long long)fork + 1,
                     (unsigned long long)r->last.offset);
    r->health.held = true;
    rc = nx_diverged_save(&options, &saved);
    r->health.held = false;
    nx_stream_close(&stream);
    if (rc == 0) {
        say_saved(r, fork, &saved);
    } else if (rc != -ECANCELED) {
        nx_receiver_refuse(
            r, NX_CAUSE_OWN, NX_WIRE_ERROR_INTERNAL,
            "entries %llu to %llu, which a full sync would give up, can't be saved in %s/diverged: %s; "
            "this node keeps its data until they can",
            (unsigned long long)fork + 1, (unsigned long long)r->last.offset, r->process->data_dir,
            strerrordesc_np(-rc));
        r->cause.slow = true;
    }
}
