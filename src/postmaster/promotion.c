/* A promotion: this node is to lead in a new epoch. Up to the verdict nothing has changed but that the walreceiver is
 * away; the note that is stored then is inert until the walwriter has synced the epoch's entry, which is the commit
 * point. Runs in the postmaster. */
#include "common/failpoint.h"
#include "common/fence.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/quorum.h"
#include "common/synced.h"
#include "postmaster/role_change.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A dry run has one of its own: the other may be taking back promises that nobody answers for. */
unsigned nx_promotion_asker(const struct nx_role_change *change)
{
    return nx_process_slot(NX_KIND_PEERS, change->dry_run ? 1 : 0);
}

void nx_promotion_ask(struct nx_postmaster *pm)
{
    struct nx_role_change *change = &pm->change;
    struct nx_peers_task task = {
        .job = NX_PEERS_ASK,
        .dry_run = change->dry_run,
        .force = change->force,
        .sync = nx_quorum_rules(pm->shm),
        .epoch = change->epoch,
        .attempt = nx_now_us(),
    };
    int rc;

    memcpy(task.master_addr, pm->config.replication.master_addr, sizeof task.master_addr);
    change->step = NX_STEP_ASKING;
    if (!change->dry_run) {
        nx_withdrawal_note(pm, change->epoch, task.attempt);
    }
    rc = nx_launch_peers(pm, nx_promotion_asker(change), &task);
    if (rc < 0) {
        nx_change_refuse(pm,
                         "internal No process can be started to ask the other nodes; try again.");
    }
}

/* NULL: nothing. */
static const char *why_not_promote(const struct nx_postmaster *pm, bool force)
{
    if (pm->config.replication.role == NX_ROLE_STANDALONE) {
        return "wrong_role This node is standalone: it has no master to take over from.";
    }
    if (pm->config.replication.role == NX_ROLE_MASTER && !nx_fenced(pm->shm)) {
        return "wrong_role This node is the master already.";
    }
    if (pm->config.replication.role == NX_ROLE_MASTER && !force) {
        return "fenced Another node leads in a higher epoch. Let this one follow it (POST "
               "/replication/follow), or promote it by force (?force=1, nexus-ctl promote --force) if "
               "that one is lost for good.";
    }
    /* Told to follow, it hasn't got there yet. */
    if (pm->config.replication.role == NX_ROLE_REPLICA && !force &&
        pm->dir.identity.fence.epoch >
            atomic_load_explicit(&pm->shm->log.epoch, memory_order_acquire)) {
        return "fenced Another node leads in a higher epoch, which this one has not got from it yet. "
               "Let it follow that one (POST /replication/follow), or add force=1 if that one is "
               "lost for good.";
    }
    if (nx_never_synced(pm->shm) &&
        (!force || atomic_load_explicit(&pm->shm->log.durable_offset, memory_order_acquire) == 0)) {
        return "wrong_role This replica was never synced with its master: it has nothing, or only a "
               "part of what that had; promote one that was.";
    }
    return NULL;
}

void nx_promotion_begin(struct nx_postmaster *pm,
                        unsigned slot,
                        const struct nx_control_message *message)
{
    bool force = (message->status & NX_PROMOTE_FORCE) != 0;
    const char *why = why_not_promote(pm, force);

    if (why != NULL) {
        nx_change_turn_down(pm, slot, message, why);
        return;
    }
    if (!nx_change_begin(pm, NX_ROLE_CHANGE_PROMOTE, slot, message)) {
        return;
    }
    pm->change.force = force;
    pm->change.dry_run = (message->status & NX_PROMOTE_DRY_RUN) != 0;
    pm->change.epoch = nx_role_next_epoch(pm);
    if (!pm->change.dry_run) {
        nx_info("promotion: epoch %" PRIu64 " is to begin%s", pm->change.epoch,
                force ? ", by force" : "");
        nx_change_begin_ending(pm);
    } else {
        nx_promotion_ask(pm);
    }
}

/* ---- the end of a promotion ---- */

/* The members of the answer: what the walwriter did, then what the others said. */
static void answer_promoted(struct nx_postmaster *pm,
                            uint64_t old_epoch,
                            uint64_t epoch,
                            uint64_t offset)
{
    static char text[NX_CONTROL_TEXT];

    (void)snprintf(text, sizeof text,
                   "\"old_epoch\":%" PRIu64 ",\"epoch\":%" PRIu64 ",\"offset\":%" PRIu64 ",%.*s",
                   old_epoch, epoch, offset, NX_VERDICT_TEXT, pm->change.text);
    nx_change_answer(pm, 0, text);
}

/* A note that holds will hold in the new epoch too: replaced before that has begun, it would hold no more, and the
 * fenced master that dies now would be a replica again. */
static int store_note(struct nx_postmaster *pm, uint64_t epoch)
{
    static struct nx_identity identity;

    if (pm->config.replication.role == NX_ROLE_MASTER && nx_role_noted(pm) &&
        nx_role_config_same(&pm->dir.identity.note.configured, &pm->configured)) {
        return 0;
    }
    identity = pm->dir.identity;
    identity.note = (struct nx_role_note){.epoch = epoch, .configured = pm->configured};
    return nx_identity_store(&pm->dir, &identity);
}

void nx_promotion_take_verdict(struct nx_postmaster *pm, const struct nx_control_message *message)
{
    struct nx_role_change *change = &pm->change;
    uint64_t own = atomic_load_explicit(&pm->shm->log.epoch, memory_order_acquire);
    uint64_t durable = atomic_load_explicit(&pm->shm->log.durable_offset, memory_order_acquire);

    if (change->kind != NX_ROLE_CHANGE_PROMOTE || change->step != NX_STEP_ASKING) {
        return;
    }
    if (message->status < 0) {
        nx_change_refuse(pm, message->text);
        return;
    }
    if (pm->life != NX_LIFE_SERVING || pm->dir.identity.fence.epoch >= message->arg) {
        nx_change_refuse(
            pm,
            "role_change This node is stopping, or has heard meanwhile of another one that leads "
            "in a higher epoch; nothing was changed.");
        return;
    }
    memcpy(change->text, message->text, sizeof change->text);
    change->epoch = message->arg;
    if (change->dry_run) {
        answer_promoted(pm, own, change->epoch, durable + 1);
        return;
    }
    int rc = NX_FAILPOINT(promotion_asked);

    rc = rc < 0 ? rc : store_note(pm, change->epoch);
    if (rc < 0) {
        nx_change_refuse_unstored(pm, rc, "the note of the promotion");
        return;
    }
    (void)NX_FAILPOINT(promotion_noted);
    change->step = NX_STEP_COMMITTING;
    if (!nx_change_order_walwriter(pm, NX_CONTROL_BEGIN_EPOCH, change->epoch)) {
        nx_change_refuse(pm, "role_change The walwriter can't be reached; try again.");
    }
}

/* The known replicas of an earlier time as a master: what they acknowledged then is of this history only up to where
 * it forked. */
static void take_up_known(struct nx_postmaster *pm, uint64_t fork)
{
    nx_known_load(pm);
    for (unsigned i = 0; i < pm->known.count; i++) {
        struct nx_known_replica *replica = &pm->known.list[i];

        if (replica->last_ack_offset > fork) {
            replica->last_ack_offset = fork;
        }
    }
    nx_known_publish(pm);
}

/* The epoch's entry is durable: this node is master. */
void nx_promotion_finish(struct nx_postmaster *pm)
{
    static const struct nx_fence nobody;
    uint64_t offset = atomic_load_explicit(&pm->shm->log.durable_offset, memory_order_acquire);
    const char *former = pm->config.replication.master_addr;

    (void)NX_FAILPOINT(promotion_finished);
    (void)snprintf(pm->former_addr, sizeof pm->former_addr, "%s",
                   former[0] != '\0' ? former : pm->dir.identity.fence.addr);
    memcpy(pm->former_http, pm->shm->receiver.master_http, sizeof pm->former_http);
    pm->former_http[sizeof pm->former_http - 1] = '\0';
    if (former[0] == '\0') {
        memcpy(pm->former_http, pm->dir.identity.fence.http_addr, sizeof pm->former_http);
    }
    nx_withdrawal_forget(pm, pm->change.epoch);
    pm->heralding = true;
    pm->herald_due_ms = 0;
    pm->replication_stopped = false;
    pm->epoch_reason[0] = '\0'; /* one has begun */
    nx_follow_forget_master(pm);
    /* The operator's word stands for the quorum's: what this log holds counts as acknowledged. */
    nx_role_reset_quorum(pm, offset, pm->change.epoch);
    nx_role_apply(pm, NX_ROLE_MASTER, "");
    take_up_known(pm, offset - 1);
    if (!nx_role_fence_if_led(pm)) { /* by one of whom it has heard only now */
        nx_fence_publish(pm->shm, &nobody, false);
        nx_info("this node is master in epoch %" PRIu64 ", from offset %" PRIu64
                " on: replicas are accepted, and writes%s",
                pm->change.epoch, offset,
                nx_quorum_rules(pm->shm) ? ", once sync_quorum of them follow" : "");
    }
    nx_latch_ring_quorum(pm->shm, offset);
    answer_promoted(pm, pm->change.old_epoch, pm->change.epoch, offset);
    nx_jobs_clean(pm);
}
