/* Runs in the peers process; owns the event base and the resolver. See loop.h. */
#include "peers/loop.h"

#include "common/latch.h"
#include "common/log.h"

#include <event2/dns.h>
#include <event2/event.h>

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>

#define RESOLV_CONF "/etc/resolv.conf"

/* What libevent has to say would go to standard error. */
static void log_event(int severity, const char *text)
{
    if (severity >= EVENT_LOG_ERR) {
        nx_error("libevent: %s", text);
    } else {
        nx_debug("libevent: %s", text);
    }
}

static void on_control(evutil_socket_t fd, short what, void *arg)
{
    struct nx_loop *loop = arg;

    (void)fd;
    (void)what;
    (void)nx_process_control(loop->process, NULL, 0);
}

int nx_loop_open(struct nx_loop *loop, struct nx_process *process)
{
    *loop = (struct nx_loop){.process = process};
    event_set_log_callback(log_event);
    loop->base = event_base_new();
    if (loop->base == NULL) {
        return -ENOMEM;
    }
    loop->control =
        event_new(loop->base, process->control.fd, EV_READ | EV_PERSIST, on_control, loop);
    if (loop->control == NULL || event_add(loop->control, NULL) < 0) {
        nx_loop_close(loop);
        return -ENOMEM;
    }
    return 0;
}

void nx_loop_close(struct nx_loop *loop)
{
    if (loop->dns != NULL) {
        evdns_base_free(loop->dns, 1);
        (void)event_base_loop(loop->base, EVLOOP_NONBLOCK); /* queries hear of it there */
    }
    if (loop->control != NULL) {
        event_free(loop->control);
    }
    if (loop->base != NULL) {
        event_base_free(loop->base);
    }
    *loop = (struct nx_loop){.process = loop->process};
}

struct evdns_base *nx_loop_dns(struct nx_loop *loop)
{
    if (loop->dns == NULL) {
        loop->dns = evdns_base_new(loop->base, 0);
        if (loop->dns != NULL) {
            /* Without that file there still are the hosts file and a name server on this host. */
            (void)evdns_base_resolv_conf_parse(loop->dns, DNS_OPTIONS_ALL, RESOLV_CONF);
        }
    }
    return loop->dns;
}

static bool run_once(struct nx_loop *loop)
{
    loop->failed = loop->failed || event_base_loop(loop->base, EVLOOP_ONCE) < 0;
    if (loop->failed) {
        nx_error("the event loop failed: %s", strerrordesc_np(errno));
    }
    return !loop->failed;
}

bool nx_loop_run(struct nx_loop *loop)
{
    while (loop->open > 0 && !nx_process_stopping(loop->process)) {
        if (!run_once(loop)) {
            return false;
        }
    }
    return !nx_process_stopping(loop->process);
}

bool nx_loop_run_for(struct nx_loop *loop, bool (*enough)(void *arg), void *arg, uint64_t least_ms)
{
    uint64_t began = nx_now_ms();
    uint64_t until = UINT64_MAX;

    while (loop->open > 0 && !nx_process_stopping(loop->process) && nx_now_ms() < until) {
        if (!run_once(loop)) {
            return false;
        }
        if (until == UINT64_MAX && enough(arg)) {
            uint64_t more = nx_now_ms() - began;
            struct timeval wait;

            more = more > least_ms ? more : least_ms;
            until = nx_now_ms() + more;
            wait = (struct timeval){.tv_sec = (time_t)(more / 1000),
                                    .tv_usec = (suseconds_t)(more % 1000 * 1000)};
            (void)event_base_loopexit(loop->base, &wait); /* it would wait for an answer else */
        }
    }
    return !nx_process_stopping(loop->process);
}

bool nx_loop_sleep(struct nx_loop *loop, uint64_t ms)
{
    struct pollfd pollfd = {.fd = loop->process->control.fd, .events = POLLIN};

    if (poll(&pollfd, 1, ms < INT_MAX ? (int)ms : INT_MAX) <= 0) {
        return false;
    }
    (void)nx_process_control(loop->process, NULL, 0);
    return true;
}
