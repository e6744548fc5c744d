/* Runs in the peers process: its beginning and end, and its words with the postmaster. See peers.h. */
#include "peers/peers.h"

#include "common/bytes.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/net.h"
#include "common/shared_log.h"
#include "common/uuid_text.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#define FENCE_MS 10000 /* for the postmaster to store a fence */

struct nx_position nx_peers_position(const struct nx_peers *peers)
{
    struct nx_position position;

    nx_log_position(peers->shm, &position.offset, &position.epoch, &position.crc);
    return position;
}

void nx_peers_copy_addr(const char *from, char ret_addr[NX_ADDR_TEXT])
{
    struct nx_net_addr addr;

    memcpy(ret_addr, from, NX_ADDR_TEXT);
    ret_addr[NX_ADDR_TEXT - 1] = '\0';
    if (nx_net_parse(ret_addr, &addr) < 0 || addr.host[0] == '\0') {
        ret_addr[0] = '\0';
    }
}

bool nx_peers_tell(struct nx_peers *peers,
                   enum nx_control_type type,
                   int32_t status,
                   uint64_t arg,
                   const char *text)
{
    struct nx_process *process = peers->process;
    struct pollfd pollfd = {.fd = process->control.fd, .events = POLLIN | POLLOUT};
    int rc;

    while ((rc = nx_control_send(process->control.fd, type, status, arg, text)) == -EAGAIN &&
           !nx_process_stopping(process)) {
        (void)poll(&pollfd, 1, -1);
        (void)nx_process_control(process, NULL, 0);
    }
    return rc == 0;
}

int nx_peers_await_done(struct nx_peers *peers, uint64_t most_ms)
{
    struct nx_process *process = peers->process;
    struct pollfd pollfd = {.fd = process->control.fd, .events = POLLIN};
    struct nx_control_message reply;
    uint64_t until = nx_now_ms() + most_ms;
    uint64_t now;

    while ((now = nx_now_ms()) < until && !nx_process_stopping(process)) {
        (void)poll(&pollfd, 1, (int)(until - now));
        while (nx_process_control(process, &reply, 1) > 0) {
            if (reply.type == NX_CONTROL_DONE) {
                return reply.status;
            }
        }
    }
    return nx_process_stopping(process) ? -ECANCELED : -ETIMEDOUT;
}

int nx_peers_fence(struct nx_peers *peers, const char *text)
{
    static struct nx_log_limit limit; /* a herald asks again and again */
    int rc = nx_peers_tell(peers, NX_CONTROL_FENCE, 0, 0, text)
                 ? nx_peers_await_done(peers, FENCE_MS)
                 : -ECANCELED;

    if (rc < 0 && rc != -ECANCELED && rc != -ESTALE) {
        nx_log_limited(&limit, NX_LOG_ERROR,
                       "the postmaster has not stored that another node leads (%s): %s", text,
                       strerrordesc_np(-rc));
    }
    return rc;
}

static void know_self(struct nx_peers *peers)
{
    const struct nx_control_block *control = &peers->shm->control;
    struct nx_self *self = &peers->self;

    nx_uuid_canonical(nx_slice_text(control->node_id), self->node_id);
    if (atomic_load_explicit(&control->cluster_known, memory_order_acquire) != 0 &&
        nx_slice_is_uuid(nx_slice_of(control->cluster_id, NX_UUID_LENGTH))) {
        nx_uuid_canonical(nx_slice_of(control->cluster_id, NX_UUID_LENGTH), self->cluster_id);
    }
}

int nx_peers_main(struct nx_process *process)
{
    static struct nx_peers peers;
    bool failed;
    int rc;

    peers = (struct nx_peers){.process = process, .shm = process->shm};
    know_self(&peers);
    rc = nx_loop_open(&peers.loop, process);
    if (rc < 0) {
        nx_error("other nodes can't be asked: %s", strerrordesc_np(-rc));
        return NX_EXIT_FAILURE;
    }
    nx_process_ready(process);
    switch (process->peers.job) {
    case NX_PEERS_LOOK:
        nx_peers_look(&peers);
        break;
    case NX_PEERS_ASK:
        nx_peers_ask(&peers);
        break;
    case NX_PEERS_HERALD:
        nx_peers_herald(&peers);
        break;
    case NX_PEERS_WITHDRAW:
        nx_peers_take_back(&peers);
        break;
    }
    failed = nx_peers_unfinished(&peers);
    nx_loop_close(&peers.loop);
    return failed ? NX_EXIT_FAILURE : NX_EXIT_OK;
}
