/* Runs in the peers process. A try's callbacks may stand anywhere in libevent, so what frees it is done in an event
 * of its own (`turn`). See reach.h. */
#include "peers/reach.h"

#include "common/latch.h"
#include "common/net.h"

#include <event2/dns.h>
#include <event2/event.h>
#include <event2/util.h>

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A query of the resolver; it may outlive whoever asked. */
struct nx_reach_query {
    struct nx_reach *reach; /* NULL: nobody waits for it any more */
    struct evdns_getaddrinfo_request *request;
};

#define UNDECIDED 1 /* outcome while a try is under way */

/* ---- the time ---- */

static void arm(struct nx_reach *reach, uint64_t ms)
{
    struct timeval time = {.tv_sec = (time_t)(ms / 1000),
                           .tv_usec = (suseconds_t)(ms % 1000) * 1000};

    (void)event_add(reach->timer, &time);
}

static uint64_t time_left(const struct nx_reach *reach)
{
    uint64_t now = nx_now_ms();

    return reach->deadline_ms > now ? reach->deadline_ms - now : 0;
}

/* Until the deadline, or as long as the next address may take. */
static void arm_share(struct nx_reach *reach)
{
    unsigned addresses = reach->count - reach->next + 1; /* this one is taken already */

    reach->last = addresses <= 1;
    arm(reach, reach->last ? time_left(reach) : time_left(reach) / addresses);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct nx_reach *reach = arg;

    (void)fd;
    (void)what;
    if (reach->last) {
        reach->next = reach->count;
        nx_reach_fail(reach, -ETIMEDOUT);
    } else if (reach->kind->connected(reach)) {
        reach->last = true;
        arm(reach, time_left(reach));
    } else {
        nx_reach_fail(reach, -ETIMEDOUT);
    }
}

/* ---- tries ---- */

/* The resolver still holds it, and frees it when it is through. */
static void forget_query(struct nx_reach *reach)
{
    struct nx_reach_query *query = reach->query;

    if (query != NULL) {
        reach->query = NULL;
        query->reach = NULL;
        evdns_getaddrinfo_cancel(query->request);
    }
}

static void end(struct nx_reach *reach)
{
    assert(reach->open);
    forget_query(reach);
    (void)event_del(reach->timer);
    reach->open = false;
    reach->loop->open--;
}

static void try_next(struct nx_reach *reach)
{
    const struct nx_address *address = &reach->addresses[reach->next++];
    int rc;

    reach->outcome = UNDECIDED;
    reach->why[0] = '\0';
    arm_share(reach);
    rc = reach->kind->begin(reach, address);
    if (rc < 0) {
        nx_reach_fail(reach, rc);
    }
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
    struct nx_reach *reach = arg;

    (void)fd;
    (void)what;
    reach->kind->drop(reach);
    if (reach->outcome < 0 && reach->next < reach->count && time_left(reach) > 0) {
        try_next(reach);
    } else {
        end(reach);
    }
}

static void decide(struct nx_reach *reach, int outcome)
{
    if (reach->open && reach->outcome == UNDECIDED) {
        reach->outcome = outcome;
        event_active(reach->turn, EV_TIMEOUT, 0);
    }
}

void nx_reach_succeed(struct nx_reach *reach)
{
    decide(reach, 0);
}

void nx_reach_fail(struct nx_reach *reach, int outcome)
{
    assert(outcome < 0);
    decide(reach, outcome);
}

/* ---- addresses ---- */

static void take_addresses(struct nx_reach *reach, const struct evutil_addrinfo *list)
{
    for (; list != NULL && reach->count < NX_MOST_ADDRESSES; list = list->ai_next) {
        struct nx_address *address = &reach->addresses[reach->count];

        if ((list->ai_family == AF_INET || list->ai_family == AF_INET6) &&
            list->ai_addrlen <= sizeof address->addr) {
            memcpy(&address->addr, list->ai_addr, list->ai_addrlen);
            address->length = list->ai_addrlen;
            reach->count++;
        }
    }
}

static void on_resolved(int result, struct evutil_addrinfo *list, void *arg)
{
    struct nx_reach_query *query = arg;
    struct nx_reach *reach = query->reach;

    if (reach != NULL) {
        reach->query = NULL;
        if (result == 0) {
            take_addresses(reach, list);
        }
        if (reach->count == 0) {
            nx_reach_fail(reach, -ENXIO);
        } else if (reach->outcome == UNDECIDED) {
            try_next(reach);
        }
    }
    if (list != NULL) {
        evutil_freeaddrinfo(list);
    }
    free(query);
}

static const struct evutil_addrinfo hints = {
    .ai_family = AF_UNSPEC,
    .ai_socktype = SOCK_STREAM,
};

static int resolve(struct nx_reach *reach, const char *host, const char *port)
{
    struct evdns_base *dns = nx_loop_dns(reach->loop);
    struct nx_reach_query *query = dns == NULL ? NULL : calloc(1, sizeof *query);
    struct evdns_getaddrinfo_request *request;

    if (query == NULL) {
        return -ENOMEM;
    }
    query->reach = reach;
    reach->query = query;
    request = evdns_getaddrinfo(dns, host, port, &hints, on_resolved, query);
    if (request != NULL) { /* else it has been answered already, and freed */
        query->request = request;
    }
    return 0;
}

/* An address in digits needs nobody's help. 0, -ENXIO: it is a name, or -errno. */
static int take_numeric(struct nx_reach *reach, const char *host, const char *port)
{
    const struct addrinfo numeric = {.ai_family = AF_UNSPEC,
                                     .ai_socktype = SOCK_STREAM,
                                     .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *list = NULL;

    if (getaddrinfo(host, port, &numeric, &list) != 0) {
        return -ENXIO;
    }
    take_addresses(reach, list);
    freeaddrinfo(list);
    return reach->count > 0 ? 0 : -EAFNOSUPPORT;
}

static int find_addresses(struct nx_reach *reach)
{
    struct nx_net_addr addr;
    char port[8];
    int rc = nx_net_parse(reach->addr, &addr);

    if (rc < 0 || addr.host[0] == '\0') {
        return -EINVAL;
    }
    (void)snprintf(port, sizeof port, "%u", (unsigned)addr.port);
    rc = take_numeric(reach, addr.host, port);
    if (rc == 0) {
        try_next(reach);
    } else if (rc == -ENXIO) {
        rc = resolve(reach, addr.host, port);
    }
    return rc;
}

/* ---- from outside ---- */

void nx_reach_begin(struct nx_reach *reach,
                    struct nx_loop *loop,
                    const struct nx_reach_kind *kind,
                    const char *addr,
                    unsigned limit_ms)
{
    int rc;

    *reach = (struct nx_reach){
        .loop = loop,
        .kind = kind,
        .limit_ms = limit_ms,
        .deadline_ms = nx_now_ms() + limit_ms,
        .last = true,
        .outcome = UNDECIDED,
    };
    (void)snprintf(reach->addr, sizeof reach->addr, "%s", addr);
    reach->timer = event_new(loop->base, -1, 0, on_timer, reach);
    reach->turn = event_new(loop->base, -1, 0, on_turn, reach);
    if (reach->timer == NULL || reach->turn == NULL) {
        reach->outcome = -ENOMEM;
        return;
    }
    reach->open = true;
    loop->open++;
    arm(reach, limit_ms);
    rc = find_addresses(reach);
    if (rc < 0) {
        nx_reach_fail(reach, rc);
    }
}

void nx_reach_abandon(struct nx_reach *reach)
{
    if (reach->loop == NULL) {
        return;
    }
    reach->kind->drop(reach);
    if (reach->open) {
        end(reach);
    }
    if (reach->timer != NULL) {
        event_free(reach->timer);
    }
    if (reach->turn != NULL) {
        event_free(reach->turn);
    }
    reach->timer = NULL;
    reach->turn = NULL;
    reach->loop = NULL;
}

const char *nx_reach_text(const struct nx_reach *reach, char *buf, size_t cap)
{
    if (reach->open) {
        (void)snprintf(buf, cap, "no answer by the time when enough others had answered");
        return buf;
    }
    if (reach->outcome < 0 && reach->outcome != -ETIMEDOUT && reach->why[0] != '\0') {
        (void)snprintf(buf, cap, "%s", reach->why);
        return buf;
    }
    switch (-reach->outcome) {
    case ETIMEDOUT:
        (void)snprintf(buf, cap, "no answer within %u ms", reach->limit_ms);
        break;
    case ENXIO:
        (void)snprintf(buf, cap, "its name can't be resolved");
        break;
    case ENOTCONN: /* evhttp doesn't say why */
        (void)snprintf(buf, cap, "no connection");
        break;
    case EPIPE:
        (void)snprintf(buf, cap, "it closed the connection without an answer");
        break;
    case EMSGSIZE:
        (void)snprintf(buf, cap, "its answer is too long");
        break;
    case EBADMSG:
        (void)snprintf(buf, cap, "it speaks another language");
        break;
    default:
        (void)snprintf(buf, cap, "%s",
                       reach->outcome < 0 ? strerrordesc_np(-reach->outcome) : "it was not asked");
        break;
    }
    return buf;
}
