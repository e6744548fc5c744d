/* Changes of the role at run time: promotions (promotion.c), promises to others (promise.c), following another master
 * (follow.c); one at a time, step by step (enum nx_change_step), each answered to the http worker that asked. Runs in
 * the postmaster, which waits for nobody: a step ends with a child's end or message. When children crash meanwhile, the
 * change is over without an answer, and what is on disk says what became of it. */
#include "postmaster/role_change.h"

#include "common/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

/* ---- answers ---- */

void nx_change_answer_to(const struct nx_postmaster *pm,
                         unsigned slot,
                         uint64_t ticket,
                         int status,
                         const char *text)
{
    (void)nx_control_send(pm->children[slot].control_fd, NX_CONTROL_DONE, status, ticket, text);
}

/* Whoever gathered promises for a promotion hears what became of it. */
static void tell_asker(const struct nx_postmaster *pm, int status)
{
    const struct nx_child *peers = &pm->children[nx_process_slot(NX_KIND_PEERS, 0)];

    if (pm->change.kind == NX_ROLE_CHANGE_PROMOTE && !pm->change.dry_run && peers->pid != 0) {
        (void)nx_control_send(peers->control_fd, NX_CONTROL_DONE, status, 0, NULL);
    }
}

/* Ends the change with its answer; what was sent away comes back. */
void nx_change_answer(struct nx_postmaster *pm, int status, const char *text)
{
    struct nx_role_change *change = &pm->change;

    tell_asker(pm, status);

    if (change->pid != 0 && pm->children[change->slot].pid == change->pid) {
        nx_change_answer_to(pm, change->slot, change->ticket, status, text);
    }
    change->kind = NX_ROLE_CHANGE_NONE;
}

/* The text begins with the code of the error, as the answer does. */
void nx_change_refuse(struct nx_postmaster *pm, const char *text)
{
    size_t code = strcspn(text, " ");

    nx_warn("%s is refused (%.*s):%s",
            pm->change.kind == NX_ROLE_CHANGE_PROMOTE ? "the promotion" : "the change of role",
            (int)code, text, text + code);
    nx_change_answer(pm, -ECANCELED, text);
}

void nx_change_log_unstored(const struct nx_postmaster *pm, int rc, const char *what)
{
    nx_error("%s can't be stored in %s/identity: %s", what, pm->dir.root, strerrordesc_np(-rc));
}

void nx_change_refuse_unstored(struct nx_postmaster *pm, int rc, const char *what)
{
    char text[256];

    nx_change_log_unstored(pm, rc, what);
    (void)snprintf(text, sizeof text,
                   rc == -ENOSPC || rc == -EDQUOT
                       ? "disk_full The disk is full, and %s can't be stored: free some space."
                       : "internal This node's log says why %s can't be stored.",
                   what);
    nx_change_refuse(pm, text);
}

/* What can't be done at the moment, or ever, without a change having begun. */
void nx_change_turn_down(const struct nx_postmaster *pm,
                         unsigned slot,
                         const struct nx_control_message *message,
                         const char *text)
{
    nx_change_answer_to(pm, slot, message->arg, -ECANCELED, text);
}

/* ---- processes that are in the way ---- */

void nx_role_dismiss(struct nx_postmaster *pm, enum nx_process_kind kind)
{
    struct nx_child *child = &pm->children[nx_process_slot(kind, 0)];

    child->start_due_ms = 0;
    if (child->pid != 0) {
        child->dismissed = true;
        (void)kill(child->pid, SIGKILL); /* nothing submitted is lost by it */
    }
}

static bool is_gone(const struct nx_postmaster *pm, enum nx_process_kind kind)
{
    return pm->children[nx_process_slot(kind, 0)].pid == 0;
}

bool nx_change_order_walwriter(struct nx_postmaster *pm, enum nx_control_type type, uint64_t arg)
{
    const struct nx_child *child = &pm->children[nx_process_slot(NX_KIND_WALWRITER, 0)];

    return child->pid != 0 && nx_control_send(child->control_fd, type, 0, arg, NULL) == 0;
}

/* ---- the steps ---- */

static void settle(struct nx_postmaster *pm)
{
    pm->change.step = NX_STEP_SETTLING;
    if (!nx_change_order_walwriter(pm, NX_CONTROL_SETTLE, pm->change.ticket)) {
        nx_change_refuse(pm, "role_change The walwriter can't be reached; try again.");
    }
}

/* Goes on once all that was sent away is gone. */
static void go_on(struct nx_postmaster *pm)
{
    if (pm->change.kind == NX_ROLE_CHANGE_NONE || pm->change.step != NX_STEP_ENDING ||
        !is_gone(pm, NX_KIND_WALRECEIVER) || !is_gone(pm, NX_KIND_RESTORE) ||
        !is_gone(pm, NX_KIND_PEERS)) {
        return;
    }
    if (pm->change.kind == NX_ROLE_CHANGE_FOLLOW) {
        nx_follow_now(pm);
    } else {
        settle(pm);
    }
}

void nx_change_begin_ending(struct nx_postmaster *pm)
{
    pm->change.step = NX_STEP_ENDING;
    nx_role_dismiss(pm, NX_KIND_WALRECEIVER);
    nx_role_dismiss(pm, NX_KIND_RESTORE);
    nx_role_dismiss(pm, NX_KIND_PEERS);
    go_on(pm);
}

void nx_role_change_end(struct nx_postmaster *pm)
{
    bool follow = pm->change.kind == NX_ROLE_CHANGE_FOLLOW;

    pm->change.kind = NX_ROLE_CHANGE_NONE;
    if (follow) {
        nx_follow_put_in_effect(pm);
    }
}

void nx_role_child_gone(struct nx_postmaster *pm, unsigned slot)
{
    const struct nx_role_change *change = &pm->change;

    if (change->kind == NX_ROLE_CHANGE_NONE) {
        return;
    }
    if (change->step == NX_STEP_ENDING) {
        go_on(pm);
    } else if (change->step == NX_STEP_ASKING && slot == nx_promotion_asker(change)) {
        nx_change_refuse(
            pm, "internal The process that asked the other nodes has ended before its word; try "
                "again.");
    } else if (change->step == NX_STEP_LEAVING) {
        nx_follow_http_gone(pm);
    }
}

/* ---- beginning ---- */

bool nx_change_begin(struct nx_postmaster *pm,
                     enum nx_change_kind kind,
                     unsigned slot,
                     const struct nx_control_message *message)
{
    if (pm->life != NX_LIFE_SERVING) {
        nx_change_turn_down(
            pm, slot, message,
            "role_change This node is starting or stopping; try again in a moment.");
        return false;
    }
    if (pm->change.kind != NX_ROLE_CHANGE_NONE) {
        nx_change_turn_down(
            pm, slot, message,
            "role_change Another change of this node's role is under way; try again in a "
            "moment.");
        return false;
    }
    pm->change = (struct nx_role_change){
        .kind = kind,
        .slot = slot,
        .pid = pm->children[slot].pid,
        .ticket = message->arg,
    };
    return true;
}

/* ---- messages ---- */

static void hear_walwriter(struct nx_postmaster *pm, const struct nx_control_message *message)
{
    struct nx_role_change *change = &pm->change;

    if (change->kind == NX_ROLE_CHANGE_NONE) {
        nx_role_epoch_begun(pm, message);
        return;
    }
    if (change->step == NX_STEP_SETTLING && message->arg == change->ticket) {
        change->old_epoch = atomic_load_explicit(&pm->shm->log.epoch, memory_order_acquire);
        if (change->kind == NX_ROLE_CHANGE_PROMISE) {
            nx_promise_answer(pm);
        } else {
            nx_promotion_ask(pm);
        }
    } else if (change->step == NX_STEP_COMMITTING && message->arg == change->epoch) {
        if (message->status == 0) {
            nx_promotion_finish(pm);
        } else {
            nx_change_refuse(
                pm,
                message->status == -ENOSPC
                    ? "disk_full The entry that begins the epoch finds no room on disk: free some space."
                    : "role_change The log is in a higher epoch by now; ask again.");
        }
    }
}

void nx_role_message(struct nx_postmaster *pm,
                     unsigned slot,
                     const struct nx_control_message *message)
{
    unsigned instance;

    switch ((int)message->type) {
    case NX_CONTROL_PROMOTE:
        nx_promotion_begin(pm, slot, message);
        break;
    case NX_CONTROL_FOLLOW:
        nx_follow_begin(pm, slot, message);
        break;
    case NX_CONTROL_PROMISE:
        nx_promise_begin(pm, slot, message);
        break;
    case NX_CONTROL_WITHDRAW:
        nx_promise_withdraw(pm, slot, message);
        break;
    case NX_CONTROL_FENCE:
        nx_change_answer_to(pm, slot, message->arg, nx_role_fence(pm, message->text), NULL);
        break;
    case NX_CONTROL_VERDICT:
        if (slot == nx_promotion_asker(&pm->change)) {
            nx_promotion_take_verdict(pm, message);
        }
        break;
    case NX_CONTROL_FOLLOWING:
        nx_follow_end_force(pm);
        break;
    case NX_CONTROL_DONE:
        if (nx_process_slot_kind(slot, &instance) == NX_KIND_WALWRITER) {
            hear_walwriter(pm, message);
        }
        break;
    default: /* LOOKED: its end says the same */
        break;
    }
}
