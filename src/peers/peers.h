/* The peers process: what a node asks of the others, and tells them, when it is about who leads. The postmaster
 * forks it for one job (common/peers_task.h), which it does and ends:
 *
 *     look.c      a starting master: does somebody else lead?
 *     ask.c       a promotion: promises or positions, gathered; withdraw.c takes them back
 *     herald.c    a promoted master: tells its former master and all peers, until each has heard
 *
 *     verdict.c, leader.c, status.c    what follows from the answers: pure functions
 *     http_ask.c, dial.c, reach.c, loop.c    asking: side by side, each within its limit
 *
 * It writes nothing: no file, no shared memory. It may wait, but a STOP ends it at once, and what it was about is the
 * postmaster's to begin anew. */
#ifndef NX_PEERS_PEERS_H
#define NX_PEERS_PEERS_H

#include "common/process.h"
#include "peers/leader.h"
#include "peers/loop.h"
#include "storage/position.h"

#include <stdbool.h>
#include <stdint.h>

#define NX_STATUS_PATH  "/replication/status"
#define NX_PROMISE_PATH "/replication/promise"
#define NX_ASK_MS       1000 /* for a peer to answer */

struct nx_peers {
    struct nx_process *process;
    struct nx_shm *shm;
    struct nx_loop loop;
    struct nx_self self; /* epoch: what the job has set */
};

/* ---- peers.c ---- */

/* Our durable position. */
struct nx_position nx_peers_position(const struct nx_peers *peers);

/* A string of shared memory that another process may be writing: with its end, and an address or "". */
void nx_peers_copy_addr(const char *from, char ret_addr[NX_ADDR_TEXT]);

/* Says something to the postmaster, whatever it is busy with. False: it is gone, or we shall stop. */
bool nx_peers_tell(struct nx_peers *peers,
                   enum nx_control_type type,
                   int32_t status,
                   uint64_t arg,
                   const char *text);

/* Waits for the postmaster's DONE. Its status; -ECANCELED: we shall stop; -ETIMEDOUT. */
int nx_peers_await_done(struct nx_peers *peers, uint64_t most_ms);

/* Has the postmaster fence this node: text as of NX_CONTROL_FENCE. Waits until that is stored. 0; -ECANCELED: we
 * shall stop; -ETIMEDOUT; or what the postmaster says (-ESTALE: that node leads in no higher epoch). */
int nx_peers_fence(struct nx_peers *peers, const char *text);

/* ---- the jobs ---- */

void nx_peers_look(struct nx_peers *peers);
void nx_peers_ask(struct nx_peers *peers);
void nx_peers_herald(struct nx_peers *peers);
void nx_peers_take_back(struct nx_peers *peers);

/* ---- withdraw.c ---- */

struct nx_withdrawal {
    char addr[NX_ADDR_TEXT];
    uint64_t epoch; /* promised, or perhaps; 0: nothing */
    uint64_t attempt;
};

/* What it was to tell others isn't told, and the postmaster has it done again: the loop failed, or the process ends
 * though nobody told it to. */
static inline bool nx_peers_unfinished(const struct nx_peers *peers)
{
    return peers->loop.failed ||
           (nx_process_stopping(peers->process) && peers->process->control.told == 0);
}

#define NX_MOST_WITHDRAWALS (NX_MOST_PEERS * NX_MOST_ATTEMPTS)

/* Takes promises back, again and again until each has heard it, we shall stop, or ten minutes are over. */
void nx_peers_withdraw(struct nx_peers *peers, struct nx_withdrawal *list, unsigned count);

/* The body of a promise and of its withdrawal. attempt 0: none is named. */
void nx_peers_promise_body(const struct nx_peers *peers,
                           uint64_t epoch,
                           uint64_t attempt,
                           char *text,
                           size_t cap);

#endif
