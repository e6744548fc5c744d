/* From replication.master_addr to a connected socket. Runs in the walreceiver. The name is resolved anew
 * at each attempt, in glibc's helper thread, because a name server that doesn't answer must not keep this
 * process from its other duties; a query that outlives its attempt is waited for by the next one. */
#include "common/latch.h"
#include "common/net.h"
#include "common/quorum.h"
#include "walreceiver/walreceiver.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define IN_TYPICAL   ((size_t)256 << 10)
#define OUT_TYPICAL  ((size_t)8 << 10)
#define LONGEST_MS   3600000
#define RESOLVE_LOOK 20 /* ms between looks at a running query */

/* The query under way; static, because the helper thread writes to it whenever it is done. */
static struct query {
    bool running;
    struct nx_net_addr master;
    char port[8];
    struct addrinfo hints;
    struct gaicb request;
} query;

static const char *master_addr(const struct nx_walreceiver *r)
{
    return r->process->config->replication.master_addr;
}

/* Whom to ask for, which TLS wants to know too. 0 or an EAI code. */
static int parse_master(const struct nx_walreceiver *r)
{
    if (nx_net_parse(master_addr(r), &query.master) < 0) {
        return EAI_NONAME;
    }
    (void)snprintf(query.port, sizeof query.port, "%u", (unsigned)query.master.port);
    return 0;
}

static int start_query(void)
{
    struct gaicb *list[1] = {&query.request};
    int rc;

    query.hints = (struct addrinfo){.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    query.request = (struct gaicb){
        .ar_name = query.master.host,
        .ar_service = query.port,
        .ar_request = &query.hints,
    };
    rc = getaddrinfo_a(GAI_NOWAIT, list, 1, NULL);
    query.running = rc == 0;
    return rc;
}

/* Waits for the running query. An EAI code, or 0. */
static int finish_query(struct nx_walreceiver *r)
{
    int rc = gai_error(&query.request);

    while (rc == EAI_INPROGRESS && !nx_receiver_ended(r)) {
        if (nx_now_ms() >= r->deadline_ms) {
            nx_receiver_end(r, NX_CAUSE_TIMEOUT, 0,
                            "the name of %s was not resolved within connect_timeout_ms (%llu): "
                            "check this host's name servers",
                            master_addr(r),
                            (unsigned long long)r->process->config->replication.connect_timeout_ms);
            return rc;
        }
        nx_latch_prepare(r->shm, r->process->slot, NX_WAKE_NEVER);
        nx_receiver_sleep(r, -1, 0, RESOLVE_LOOK, NULL);
        rc = gai_error(&query.request);
    }
    if (rc != EAI_INPROGRESS) {
        query.running = false;
    }
    return rc;
}

/* Of an address in numbers, for which nobody is asked; NULL: it is a name. */
static struct addrinfo *numeric_address(void)
{
    const struct addrinfo hints = {
        .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
    struct addrinfo *list = NULL;

    return getaddrinfo(query.master.host, query.port, &hints, &list) == 0 ? list : NULL;
}

/* The addresses of the master, to be freed with freeaddrinfo, or NULL when the attempt has ended. */
static struct addrinfo *resolve(struct nx_walreceiver *r)
{
    int rc = 0;

    if (!query.running) {
        rc = parse_master(r);

        struct addrinfo *numeric = rc == 0 ? numeric_address() : NULL;

        if (numeric != NULL) {
            return numeric;
        }
        rc = rc == 0 ? start_query() : rc;
    }
    if (rc == 0) {
        rc = finish_query(r);
    }
    if (rc != 0) {
        nx_receiver_end(r, NX_CAUSE_RESOLVE, (uint32_t)-rc,
                        "can't resolve %s: %s: check the name in replication.master_addr and this "
                        "host's name servers",
                        master_addr(r), gai_strerror(rc));
        return NULL;
    }
    return query.request.ar_result;
}

/* Waits until the socket is connected, at most until `until`. 0 or -errno. */
static int await_connection(struct nx_walreceiver *r, int fd, uint64_t until)
{
    int error = 0;
    socklen_t size = sizeof error;
    short revents = 0;

    while (revents == 0) {
        uint64_t now = nx_now_ms();

        if (now >= until || nx_receiver_ended(r)) {
            return -ETIMEDOUT;
        }
        nx_latch_prepare(r->shm, r->process->slot, NX_WAKE_NEVER);
        nx_receiver_sleep(r, fd, POLLOUT, (int)(until - now), &revents);
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
        return -errno;
    }
    return -error;
}

/* Connects to one address. A descriptor, or -errno. */
static int connect_to(struct nx_walreceiver *r, const struct addrinfo *address, uint64_t until)
{
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int rc;

    if (fd < 0) {
        return -errno;
    }
    rc = connect(fd, address->ai_addr, address->ai_addrlen) == 0 ? 0 : -errno;
    if (rc == -EINPROGRESS) {
        rc = await_connection(r, fd, until);
    }
    if (rc < 0) {
        close(fd);
        return rc;
    }
    return fd;
}

/* Tries the addresses in turn, each with its share of the time that is left. */
static int connect_any(struct nx_walreceiver *r, const struct addrinfo *addresses)
{
    uint64_t left = 0;
    int fd = -EHOSTUNREACH;

    for (const struct addrinfo *a = addresses; a != NULL; a = a->ai_next) {
        left++;
    }
    for (const struct addrinfo *a = addresses; a != NULL && !nx_receiver_ended(r); a = a->ai_next) {
        uint64_t now = nx_now_ms();
        uint64_t time = r->deadline_ms > now ? r->deadline_ms - now : 0;

        fd = connect_to(r, a, now + time / left--);
        if (fd >= 0) {
            return fd;
        }
    }
    return fd;
}

/* In words that lead to the operator's next step; `error` is an errno. */
static void end_unconnected(struct nx_walreceiver *r, int error)
{
    const struct nx_config *config = r->process->config;
    const char *reason = strerrordesc_np(error);

    if (error == ETIMEDOUT) {
        nx_receiver_end(
            r, NX_CAUSE_TIMEOUT, ETIMEDOUT,
            "can't connect to master %s: no answer within connect_timeout_ms (%llu): check "
            "that its host is up and that firewall rules allow this port",
            master_addr(r), (unsigned long long)config->replication.connect_timeout_ms);
    } else if (error == ECONNREFUSED) {
        nx_receiver_end(
            r, NX_CAUSE_CONNECT, ECONNREFUSED,
            "can't connect to master %s: %s: nothing listens there; verify that the "
            "master is running and that this is its replication port (15475, unless its "
            "replication.bind_addr says otherwise), and check firewall rules",
            master_addr(r), reason);
    } else {
        nx_receiver_end(
            r, NX_CAUSE_CONNECT, (uint32_t)error,
            "can't connect to master %s: %s: check network connectivity and firewall rules",
            master_addr(r), reason);
    }
}

void nx_connect(struct nx_walreceiver *r)
{
    const struct nx_config *config = r->process->config;
    uint64_t silence = nx_silence_limit_ms(config);
    struct addrinfo *addresses = resolve(r);
    int fd;

    if (addresses == NULL) {
        return;
    }
    fd = connect_any(r, addresses);
    freeaddrinfo(addresses);
    if (fd < 0) {
        end_unconnected(r, -fd);
        return;
    }
    (void)nx_net_nodelay(fd);
    (void)nx_net_detect_dead(fd, (unsigned)(silence < LONGEST_MS ? silence : LONGEST_MS));
    nx_net_peer(fd, r->peer);
    nx_frame_io_open(&r->io, fd, NX_WIRE_MASTER, IN_TYPICAL, OUT_TYPICAL);
    if (nx_tls_on(NX_TLS_DIAL) && nx_frame_io_secure(&r->io, NX_TLS_DIAL, query.master.host) < 0) {
        nx_receiver_end(r, NX_CAUSE_OWN, ENOMEM, "no memory for TLS");
    }
}
