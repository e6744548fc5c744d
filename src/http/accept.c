/* Runs in http workers. Accepts connections from the listeners that all workers share; see accept.h. */
#include "http/accept.h"

#include "common/latch.h"
#include "common/log.h"
#include "common/net.h"
#include "http/access.h"
#include "http/connection.h"
#include "http/worker.h"
#include "storage/file_io.h"

#include <event2/event.h>

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#define RETRY_US     100000
#define LEAVE_US     5000   /* as long is a new connection left to workers that have fewer */
#define ALONE_US     100000 /* after one was left in vain, as long is none left */
#define DEAD_PEER_MS 120000
#define TURN_AWAY_MOST \
    64 /* connections beyond the limit that are told so; others are just closed */

/* Listens as far as nothing speaks against it: neither a shortage, nor that what comes is left to others. */
static void settle(struct http_worker *worker)
{
    struct acceptor *acceptor = &worker->acceptor;

    if (worker->stopping || acceptor->short_of) {
        event_del(acceptor->tcp);
        event_del(acceptor->local);
        return;
    }
    event_add(acceptor->local, NULL);
    if (acceptor->leaving) {
        event_del(acceptor->tcp);
    } else {
        event_add(acceptor->tcp, NULL);
    }
}

static void on_retry_accept(evutil_socket_t fd, short what, void *arg)
{
    struct http_worker *worker = arg;

    (void)fd;
    (void)what;
    worker->acceptor.short_of = false;
    settle(worker);
}

/* Without descriptors or memory the listener would stay readable and spin: look again a bit later. */
static void pause_accepting(struct http_worker *worker, int error)
{
    static struct nx_log_limit limit;
    struct timeval wait = {.tv_sec = 0, .tv_usec = RETRY_US};

    nx_log_limited(&limit, NX_LOG_ERROR, "no further connections can be accepted for now: %s",
                   nx_errno_text(error));
    worker->acceptor.short_of = true;
    settle(worker);
    evtimer_add(worker->acceptor.retry, &wait);
}

static uint64_t count_connections(const struct http_worker *worker)
{
    uint64_t count = 0;

    for (unsigned i = 0; i < NX_MAX_HTTP_WORKERS; i++) {
        count += atomic_load_explicit(&worker->shm->http[i].connections, memory_order_relaxed);
    }
    return count;
}

static void take_tcp(struct http_worker *worker, int fd, const struct sockaddr *address)
{
    uint64_t most = worker->process->config->http.max_connections;
    uint64_t count = count_connections(worker);

    nx_net_nodelay(fd);
    nx_net_detect_dead(fd, DEAD_PEER_MS);
    if (count >= most && worker->turned_away >= TURN_AWAY_MOST) {
        close(fd);
        return;
    }
    if (nx_connection_open(worker, fd, nx_access_classify(address)) == 0 && count >= most) {
        nx_connection_turn_away(LIST_FIRST(&worker->connections));
    }
}

/* ---- sharing ---- */

/* Worker `index` runs, and has fewer connections than this one by more than one. */
static bool has_fewer(struct http_worker *worker, unsigned index)
{
    const struct nx_shm *shm = worker->shm;
    const struct nx_slot *slot = &shm->slots[nx_process_slot(NX_KIND_HTTP, index)];
    uint32_t own = atomic_load_explicit(&nx_worker_row(worker)->connections, memory_order_relaxed);

    return atomic_load_explicit(&slot->pid, memory_order_relaxed) != 0 &&
           atomic_load_explicit(&shm->http[index].connections, memory_order_relaxed) + 1 < own;
}

static bool others_have_fewer(struct http_worker *worker)
{
    for (unsigned i = 0; i < NX_MAX_HTTP_WORKERS; i++) {
        if (has_fewer(worker, i)) {
            return true;
        }
    }
    return false;
}

/* Those others may be leaving too, since they had more until now. */
static void ring_who_has_fewer(struct http_worker *worker)
{
    for (unsigned i = 0; i < NX_MAX_HTTP_WORKERS; i++) {
        if (has_fewer(worker, i)) {
            nx_latch_ring(worker->shm, nx_process_slot(NX_KIND_HTTP, i));
        }
    }
}

/* Leaves what comes to others. False: it is this worker's to take. */
static bool leave(struct http_worker *worker)
{
    struct timeval most = {.tv_sec = 0, .tv_usec = LEAVE_US};

    if (!others_have_fewer(worker) || nx_now_us() < worker->acceptor.alone_until_us) {
        return false;
    }
    worker->acceptor.leaving = true;
    settle(worker);
    evtimer_add(worker->acceptor.resume, &most);
    ring_who_has_fewer(worker);
    return true;
}

static void stop_leaving(struct http_worker *worker)
{
    worker->acceptor.leaving = false;
    evtimer_del(worker->acceptor.resume);
    settle(worker);
}

void nx_accept_poll(struct http_worker *worker)
{
    if (worker->acceptor.leaving && !worker->stopping && !others_have_fewer(worker)) {
        stop_leaving(worker);
    }
}

/* ---- accepting ---- */

/* False: there was none to take. */
static bool take(struct http_worker *worker, int listener)
{
    struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof address;
    int fd = accept4(listener, (struct sockaddr *)&address, &length, SOCK_NONBLOCK | SOCK_CLOEXEC);

    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            pause_accepting(worker, errno);
        }
        return false; /* another worker was faster, or the client is gone again */
    }
    if (listener == worker->process->http_unix_fd) {
        nx_connection_open(worker, fd, PEER_UNIX);
    } else {
        take_tcp(worker, fd, (const struct sockaddr *)&address);
    }
    return true;
}

static void on_accept(evutil_socket_t listener, short what, void *arg)
{
    struct http_worker *worker = arg;

    (void)what;
    if (listener == worker->process->http_unix_fd || !leave(worker)) {
        (void)take(worker, listener);
    }
}

/* The others had their time. What still waits then says that they are busy: for a while nothing is left to them. */
static void on_resume(evutil_socket_t fd, short what, void *arg)
{
    struct http_worker *worker = arg;

    (void)fd;
    (void)what;
    stop_leaving(worker);
    if (!worker->acceptor.short_of && take(worker, worker->process->http_fd)) {
        worker->acceptor.alone_until_us = nx_now_us() + ALONE_US;
    }
}

bool nx_accept_begin(struct http_worker *worker)
{
    struct acceptor *acceptor = &worker->acceptor;

    acceptor->tcp = nx_worker_listen(worker, worker->process->http_fd, on_accept);
    acceptor->local = nx_worker_listen(worker, worker->process->http_unix_fd, on_accept);
    acceptor->retry = evtimer_new(worker->base, on_retry_accept, worker);
    acceptor->resume = evtimer_new(worker->base, on_resume, worker);
    return acceptor->tcp != NULL && acceptor->local != NULL && acceptor->retry != NULL &&
           acceptor->resume != NULL;
}

void nx_accept_stop(struct http_worker *worker)
{
    event_del(worker->acceptor.tcp);
    event_del(worker->acceptor.local);
    evtimer_del(worker->acceptor.retry);
    evtimer_del(worker->acceptor.resume);
}

void nx_accept_end(struct http_worker *worker)
{
    nx_event_free(worker->acceptor.tcp);
    nx_event_free(worker->acceptor.local);
    nx_event_free(worker->acceptor.retry);
    nx_event_free(worker->acceptor.resume);
}
