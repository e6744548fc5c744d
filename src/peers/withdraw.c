/* Promises for a promotion that is not to be are taken back: who has made one follows no master of a lower epoch
 * until then. Runs in the peers process, as the end of a refused promotion or as a job of its own. */
#include "common/failpoint.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/peer_list.h"
#include "peers/http_ask.h"
#include "peers/peers.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define BACKOFF_FIRST 100
#define BACKOFF_MOST  5000
#define ENOUGH_MS     600000

void nx_peers_promise_body(const struct nx_peers *peers,
                           uint64_t epoch,
                           uint64_t attempt,
                           char *text,
                           size_t cap)
{
    char member[48] = "";

    if (attempt != 0) {
        (void)snprintf(member, sizeof member, ", \"attempt\": %" PRIu64, attempt);
    }
    (void)snprintf(text, cap, "{\"epoch\": %" PRIu64 ", \"node_id\": \"%s\"%s}", epoch,
                   peers->self.node_id, member);
}

/* A node that refuses has no such promise, or none any more; but who isn't let in (a token is being changed, say), or
 * was too slow, hasn't been heard. */
static bool is_heard(int status)
{
    return status >= 200 && status < 500 && status != 401 && status != 403 && status != 408;
}

/* One round. How many haven't heard it; those that have are marked. */
static unsigned tell_all(struct nx_peers *peers, struct nx_withdrawal *list, unsigned count)
{
    static struct nx_http_ask asks[NX_MOST_WITHDRAWALS];
    unsigned left = 0;

    for (unsigned i = 0; i < count; i++) {
        if (list[i].epoch != 0) {
            asks[i].method = NX_ASK_DELETE;
            asks[i].path = NX_PROMISE_PATH;
            nx_peers_promise_body(peers, list[i].epoch, list[i].attempt, asks[i].body,
                                  sizeof asks[i].body);
            nx_http_ask_begin(&peers->loop, &asks[i], list[i].addr, NX_ASK_MS);
        }
    }
    (void)nx_loop_run(&peers->loop);
    for (unsigned i = 0; i < count; i++) {
        if (is_heard(asks[i].status)) {
            list[i].epoch = 0;
        }
        left += list[i].epoch != 0 ? 1 : 0;
        nx_http_ask_end(&asks[i]);
    }
    return left;
}

/* Sleeps whatever the postmaster says, but for a STOP. */
static void pause_for(struct nx_peers *peers, uint64_t ms)
{
    uint64_t until = nx_now_ms() + ms;
    uint64_t now;

    while ((now = nx_now_ms()) < until && !nx_process_stopping(peers->process)) {
        (void)nx_loop_sleep(&peers->loop, until - now);
    }
}

/* Counted from the attempt, whichever process takes it back; without a number, from now. */
static uint64_t last_try_ms(const struct nx_withdrawal *list, unsigned count)
{
    uint64_t latest_us = 0;

    for (unsigned i = 0; i < count; i++) {
        latest_us = list[i].attempt > latest_us ? list[i].attempt : latest_us;
    }
    return (latest_us == 0 ? nx_now_ms() : latest_us / 1000) + ENOUGH_MS;
}

void nx_peers_withdraw(struct nx_peers *peers, struct nx_withdrawal *list, unsigned count)
{
    uint64_t until = last_try_ms(list, count);
    uint64_t backoff = BACKOFF_FIRST;
    unsigned left;

    nx_process_title(peers->process, "withdrawing promises");
    (void)NX_FAILPOINT(withdrawal_untold);
    while ((left = tell_all(peers, list, count)) > 0 && nx_now_ms() < until &&
           !peers->loop.failed && !nx_process_stopping(peers->process)) {
        pause_for(peers, backoff);
        backoff = backoff * 2 < BACKOFF_MOST ? backoff * 2 : BACKOFF_MOST;
    }
    for (unsigned i = 0; left > 0 && !nx_peers_unfinished(peers) && i < count; i++) {
        if (list[i].epoch != 0) {
            nx_warn(
                "the promise of %s for epoch %" PRIu64 " could not be withdrawn: if it made one, "
                "it follows no master of a lower epoch until a promotion, or until it is told to "
                "(POST /replication/follow)",
                list[i].addr, list[i].epoch);
        }
    }
}

void nx_peers_take_back(struct nx_peers *peers)
{
    static struct nx_withdrawal list[NX_MOST_WITHDRAWALS];
    const struct nx_attempts *attempts = &peers->process->peers.attempts;
    const char *rest = peers->process->config->replication.peers;
    char addr[NX_ADDR_TEXT];
    unsigned count = 0;

    for (unsigned i = 0; i < NX_MOST_PEERS && nx_peer_list_next(&rest, addr); i++) {
        for (unsigned j = 0; j < attempts->count; j++) {
            list[count] = (struct nx_withdrawal){.epoch = attempts->list[j].epoch,
                                                 .attempt = attempts->list[j].number};
            memcpy(list[count++].addr, addr, sizeof addr);
        }
    }
    nx_peers_withdraw(peers, list, count);
}
