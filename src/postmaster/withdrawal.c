/* Promises that others made, or may have made, for promotions of this node that came to nothing: each is taken back,
 * whatever becomes of the process that does it, for who has made one follows no master of a lower epoch until then. The
 * process that asked for them takes them back itself (peers/withdraw.c); where it died first, or was in the way of
 * another change, one is started for it. The postmaster's death ends that, and so does a peer that isn't reached in ten
 * minutes: then it needs a person's word (docs/failover.md, "Promises"). Runs in the postmaster. */
#include "common/latch.h"
#include "common/log.h"
#include "common/peer_list.h"
#include "postmaster/role_change.h"

#include <inttypes.h>
#include <string.h>

#define AGAIN_MS      500
#define AGAIN_MOST_MS 5000 /* of a process that fails each time */

void nx_withdrawal_note(struct nx_postmaster *pm, uint64_t epoch, uint64_t number)
{
    struct nx_attempts *open = &pm->open_attempts;

    if (open->count == NX_MOST_ATTEMPTS) { /* the oldest one's peer has been away for long */
        nx_warn(
            "%d promotions wait for peers to hear that they were given up: what was promised for "
            "the oldest one, of epoch %" PRIu64 ", is not taken back any more",
            NX_MOST_ATTEMPTS, open->list[0].epoch);
        memmove(&open->list[0], &open->list[1], sizeof open->list - sizeof open->list[0]);
        open->count--;
    }
    open->list[open->count++] = (struct nx_attempt){.epoch = epoch, .number = number};
}

void nx_withdrawal_peers_changed(const struct nx_postmaster *pm, const char *fresh)
{
    const struct nx_attempts *open = &pm->open_attempts;
    const char *rest = pm->config.replication.peers;
    char addr[NX_ADDR_TEXT];
    bool all = true;

    while (nx_peer_list_next(&rest, addr)) {
        all = all && nx_peer_list_has(fresh, addr);
    }
    if (open->count > 0 && !all) {
        nx_warn("replication.peers has changed while promises for epoch %" PRIu64
                " wait to be taken back: a node that isn't listed any more isn't told; if it made "
                "one, it needs POST /replication/follow",
                open->list[open->count - 1].epoch);
    }
}

/* Those of an epoch up to this one, and the one of this number. */
static void drop(struct nx_attempts *open, uint64_t epoch, uint64_t number)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < open->count; i++) {
        if (open->list[i].epoch > epoch && open->list[i].number != number) {
            open->list[kept++] = open->list[i];
        }
    }
    open->count = kept;
}

void nx_withdrawal_forget(struct nx_postmaster *pm, uint64_t epoch)
{
    drop(&pm->open_attempts, epoch, 0);
}

/* Longer each time, until one has done its work. */
static void wait_again(struct nx_postmaster *pm)
{
    uint64_t wait = pm->withdrawal_wait_ms;

    pm->withdrawal_wait_ms = wait == 0                  ? AGAIN_MS
                             : wait * 2 < AGAIN_MOST_MS ? wait * 2
                                                        : AGAIN_MOST_MS;
    pm->withdrawal_due_ms = nx_now_ms() + pm->withdrawal_wait_ms;
}

void nx_withdrawal_peers_gone(struct nx_postmaster *pm, bool done)
{
    struct nx_attempts *open = &pm->open_attempts;

    pm->withdrawal_wait_ms = done ? 0 : pm->withdrawal_wait_ms;
    wait_again(pm);
    if (!done) {
        return;
    }
    if (pm->peers_job == NX_PEERS_WITHDRAW) {
        open->count = 0;
    } else if (pm->peers_job == NX_PEERS_ASK) {
        drop(open, 0, pm->peers_attempt);
    }
}

static bool is_wanted(const struct nx_postmaster *pm)
{
    return pm->open_attempts.count > 0 && pm->life == NX_LIFE_SERVING &&
           pm->change.kind == NX_ROLE_CHANGE_NONE &&
           pm->children[nx_process_slot(NX_KIND_PEERS, 0)].pid == 0;
}

void nx_withdrawal_run_due(struct nx_postmaster *pm)
{
    static struct nx_log_limit limit;
    struct nx_peers_task task = {.job = NX_PEERS_WITHDRAW, .attempts = pm->open_attempts};
    int rc;

    if (!is_wanted(pm) || nx_now_ms() < pm->withdrawal_due_ms) {
        return;
    }
    rc = nx_launch_peers(pm, nx_process_slot(NX_KIND_PEERS, 0), &task);
    if (rc < 0) {
        wait_again(pm);
        nx_log_limited(&limit, NX_LOG_WARNING, "no process to take promises back: %s",
                       strerrordesc_np(-rc));
    }
}

uint64_t nx_withdrawal_due_ms(const struct nx_postmaster *pm)
{
    return is_wanted(pm) ? pm->withdrawal_due_ms : 0;
}
