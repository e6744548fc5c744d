/* A promise to another node that is to be promoted: this one acknowledges nothing of a lower epoch from here on. It is
 * stored before the session with the master ends, and answered with where the log ends then. Runs in the postmaster. */
#include "common/fence.h"
#include "common/log.h"
#include "common/shared_log.h"
#include "common/synced.h"
#include "postmaster/role_change.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Withdrawn of late, by attempt. A promise that is asked for on a slow way may come behind its own withdrawal: it would
 * stand, and nobody would ever take it back. */
#define REMEMBERED 16

static struct {
    struct nx_promise list[REMEMBERED];
    unsigned next;
} withdrawn;

static void remember(const struct nx_promise *promise)
{
    if (promise->attempt != 0) {
        withdrawn.list[withdrawn.next] = *promise;
        withdrawn.next = (withdrawn.next + 1) % REMEMBERED;
    }
}

static bool is_withdrawn(const struct nx_promise *promise)
{
    for (unsigned i = 0; i < REMEMBERED && promise->attempt != 0; i++) {
        if (withdrawn.list[i].attempt == promise->attempt &&
            strcmp(withdrawn.list[i].node_id, promise->node_id) == 0) {
            return true;
        }
    }
    return false;
}

static bool parse_promise(const char *text, struct nx_promise *ret_promise)
{
    const char *rest;
    char *end;

    *ret_promise = (struct nx_promise){.epoch = 0};
    if (nx_role_parse(text, &ret_promise->epoch, ret_promise->node_id, &rest) < 0 || *rest != ' ') {
        return false;
    }
    errno = 0;
    ret_promise->attempt = strtoull(rest + 1, &end, 10);
    return errno == 0 && *end == '\0';
}

static int store_promise(struct nx_postmaster *pm, const struct nx_promise *promise)
{
    static struct nx_identity identity;
    int rc;

    identity = pm->dir.identity;
    identity.promise = *promise;
    rc = nx_identity_store(&pm->dir, &identity);
    if (rc == 0) {
        atomic_store_explicit(&pm->shm->control.promised_epoch, promise->epoch,
                              memory_order_release);
    }
    return rc;
}

/* A promotion asks for so much only where such a promise stands: what ends that comes first. */
static void say_too_far(const struct nx_promise *given,
                        uint64_t asked,
                        uint64_t own,
                        char *text,
                        size_t cap)
{
    int length = snprintf(text, cap,
                          "bad_parameter epoch=%" PRIu64 " Epoch %" PRIu64
                          " is more than %d above this node's (%" PRIu64 ").",
                          own, asked, NX_MOST_PROMISED_AHEAD, own);

    if (given->epoch > own && length > 0 && (size_t)length < cap) {
        (void)snprintf(text + length, cap - (size_t)length,
                       " Epoch %" PRIu64
                       " is promised here already: POST /replication/follow ends that.",
                       given->epoch);
    }
}

/* False: text says why not. */
static bool may_promise(const struct nx_postmaster *pm,
                        const struct nx_promise *asked,
                        char *text,
                        size_t cap)
{
    const struct nx_promise *given = &pm->dir.identity.promise;
    uint64_t own = atomic_load_explicit(&pm->shm->log.epoch, memory_order_acquire);

    if (pm->config.replication.role == NX_ROLE_STANDALONE ||
        (pm->config.replication.role == NX_ROLE_MASTER && !nx_fenced(pm->shm))) {
        (void)snprintf(
            text, cap, "wrong_role epoch=%" PRIu64 " This node is %s, in epoch %" PRIu64 ".", own,
            pm->config.replication.role == NX_ROLE_MASTER ? "a master" : "standalone", own);
        return false;
    }
    if (asked->epoch <= own) {
        (void)snprintf(text, cap,
                       "quorum_not_seen epoch=%" PRIu64 " Epoch %" PRIu64
                       " can't be promised: this node's log is in epoch %" PRIu64 " already.",
                       own, asked->epoch, own);
        return false;
    }
    if (is_withdrawn(asked)) {
        (void)snprintf(text, cap,
                       "quorum_not_seen epoch=%" PRIu64 " Epoch %" PRIu64
                       " isn't promised: that attempt of node %s was withdrawn before this came.",
                       own, asked->epoch, asked->node_id);
        return false;
    }
    if (asked->epoch > own + NX_MOST_PROMISED_AHEAD) {
        say_too_far(given, asked->epoch, own, text, cap);
        return false;
    }
    /* Nor a lower one to the same node: a late message of its last attempt must not take back what it counts on. */
    if (given->epoch > asked->epoch ||
        (given->epoch == asked->epoch && strcmp(given->node_id, asked->node_id) != 0)) {
        (void)snprintf(text, cap,
                       "quorum_not_seen epoch=%" PRIu64 " Epoch %" PRIu64
                       " can't be promised: this node has promised epoch %" PRIu64 " to node %s.",
                       given->epoch, asked->epoch, given->epoch, given->node_id);
        return false;
    }
    return true;
}

void nx_promise_begin(struct nx_postmaster *pm,
                      unsigned slot,
                      const struct nx_control_message *message)
{
    struct nx_promise asked;
    char text[512];
    int rc;

    if (!parse_promise(message->text, &asked)) {
        nx_change_turn_down(pm, slot, message,
                            "bad_request A promise needs an epoch and a node id.");
        return;
    }
    if (!may_promise(pm, &asked, text, sizeof text)) {
        nx_change_turn_down(pm, slot, message, text);
        return;
    }
    if (!nx_change_begin(pm, NX_ROLE_CHANGE_PROMISE, slot, message)) {
        return;
    }
    pm->change.epoch = asked.epoch;
    rc = store_promise(pm, &asked);
    if (rc < 0) {
        nx_change_refuse_unstored(pm, rc, "the promise");
        return;
    }
    nx_info("epoch %" PRIu64
            " is promised to node %s: until it begins, or the promise is withdrawn, this "
            "node acknowledges nothing of a lower epoch",
            asked.epoch, asked.node_id);
    nx_change_begin_ending(pm);
}

/* With a full sync that isn't complete: the position that this node has acknowledged, not the one it has. Whoever asks
 * counts on an answer's being that of all that a quorum had here. */
void nx_promise_answer(struct nx_postmaster *pm)
{
    struct nx_sync_goal goal = nx_sync_goal(pm->shm);
    uint64_t offset;
    uint64_t epoch;
    uint32_t crc;
    char text[96];

    nx_log_position(pm->shm, &offset, &epoch, &crc);
    if (goal.offset != 0) {
        offset = goal.offset;
        epoch = goal.epoch;
        crc = 0;
    }
    (void)snprintf(text, sizeof text, "%" PRIu64 " %" PRIu64 " %" PRIu32, epoch, offset, crc);
    nx_change_answer(pm, 0, text);
}

/* Whether it is what is taken back: by its attempt, else by its epoch. */
static bool is_meant(const struct nx_promise *given, const struct nx_promise *asked)
{
    return given->epoch != 0 && strcmp(given->node_id, asked->node_id) == 0 &&
           (asked->attempt != 0 ? given->attempt == asked->attempt : given->epoch == asked->epoch);
}

void nx_promise_withdraw(struct nx_postmaster *pm,
                         unsigned slot,
                         const struct nx_control_message *message)
{
    static const struct nx_promise none;
    const struct nx_promise *given = &pm->dir.identity.promise;
    uint64_t withdrawn_epoch = given->epoch;
    struct nx_promise asked;
    int rc;

    if (!parse_promise(message->text, &asked)) {
        nx_change_turn_down(pm, slot, message,
                            "bad_request A promise needs an epoch and a node id.");
        return;
    }
    if (!is_withdrawn(&asked)) {
        remember(&asked);
    }
    if (!is_meant(given, &asked)) {
        nx_change_answer_to(pm, slot, message->arg, 0,
                            NULL); /* there is none like it: all is well */
    } else if ((rc = store_promise(pm, &none)) < 0) {
        nx_change_log_unstored(pm, rc, "that the promise is withdrawn");
        nx_change_turn_down(pm, slot, message,
                            "internal The promise can't be withdrawn on disk; try again.");
    } else {
        nx_info("the promise of epoch %" PRIu64 " to node %s is withdrawn", withdrawn_epoch,
                asked.node_id);
        nx_change_answer_to(pm, slot, message->arg, 0, NULL);
    }
}
