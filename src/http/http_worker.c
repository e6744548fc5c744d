/* The http worker: one of http.workers processes that share the listening sockets. It owns its
 * connections, its pair of rings and its row of shm->http[]; it touches no file but LMDB and snapshots, for
 * reading, and removes a snapshot when a person asks for it.
 *
 * Its loop hands out completions, wakes what waits, and sleeps on its doorbell and its sockets; an idle
 * worker has no timers. It ends when the postmaster asks (fast: at once, but for writes in flight, whose
 * answers are owed, if only that their outcome is unknown; smart: when all open requests are answered; what
 * only waits for changes is ended by both) or is gone. */
#include "common/latch.h"
#include "common/log.h"
#include "common/quorum.h"
#include "http/confirm.h"
#include "http/export.h"
#include "http/json_in.h"
#include "http/response.h"
#include "http/snapshot_api.h"
#include "http/waits.h"
#include "http/worker.h"
#include "storage/file_io.h"

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <json-c/json_tokener.h>

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define POLL_MOST_OPEN  4   /* with more writes in flight there is other work */
#define POLL_MOST_US    200 /* a disk that takes longer is better slept for */
#define MAX_FREE        64  /* requests kept for use */
#define FAST_STOP_MS    2000
#define LAST_ANSWERS_MS 500 /* of that: to tell those whose quorum is still silent */
#define KEEP_SCRATCH    (1u << 20)

/* ---- pool ---- */

struct request *nx_worker_take_request(struct http_worker *worker)
{
    struct request *request = SLIST_FIRST(&worker->free_requests);

    if (request != NULL) {
        SLIST_REMOVE_HEAD(&worker->free_requests, free);
        worker->free_request_count--;
        return request;
    }
    return calloc(1, sizeof *request);
}

void nx_worker_give_request(struct http_worker *worker, struct request *request)
{
    worker->body_bytes -= request->reserved;
    if (worker->free_request_count >= MAX_FREE) {
        nx_request_free(request);
        return;
    }
    nx_request_reset(request);
    SLIST_INSERT_HEAD(&worker->free_requests, request, free);
    worker->free_request_count++;
}

struct nx_http_request_state *nx_worker_row(struct http_worker *worker)
{
    return &worker->shm->http[worker->process->instance];
}

/* ---- state ---- */

int nx_worker_open_state(struct http_worker *worker, struct nx_state **ret_state)
{
    static struct nx_log_limit limit;
    struct nx_state_options options = {
        .map_size = worker->process->config->state.map_size,
        .max_readers = NX_MAX_SLOTS,
    };
    char path[NX_PATH_SIZE + 8];
    char error[256] = "";
    int rc;

    snprintf(path, sizeof path, "%s/state", worker->process->state_root);
    rc = nx_state_open(path, &options, ret_state, error, sizeof error);
    if (rc < 0) {
        nx_log_limited(&limit, NX_LOG_ERROR, "the state can't be opened for reading: %s", error);
    }
    return rc;
}

int nx_worker_open_view(struct http_worker *worker)
{
    int rc;

    if (worker->view != NULL) {
        nx_view_set_local(worker->view, false);
        return 0;
    }
    if (worker->state == NULL) {
        rc = nx_worker_open_state(worker, &worker->state);
        if (rc < 0) {
            return rc;
        }
    }
    return nx_view_create(worker->shm, worker->state, &worker->view);
}

/* ---- the loop ---- */

static void on_nothing(evutil_socket_t fd, short what, void *arg)
{
    (void)fd; /* that the loop turns is all that is wanted */
    (void)what;
    (void)arg;
}

static void on_control(evutil_socket_t fd, short what, void *arg)
{
    struct http_worker *worker = arg;
    struct nx_control_message replies[NX_MOST_ASKS];
    size_t count;

    (void)fd;
    (void)what;
    /* No more than there are questions can be waiting. */
    while ((count = nx_process_control(worker->process, replies, NX_MOST_ASKS)) > 0) {
        for (size_t i = 0; i < count; i++) {
            nx_control_asks_answered(worker, &replies[i]);
        }
    }
}

/* A doorbell costs two wake-ups and, on a virtual machine, the way out of its halted state: as much as a fast disk's
 * sync. So while few writes are in flight, and lately they took no longer than a moment, their completions are
 * polled for, between looks at the sockets, and whoever else wants this processor gets it. */
static bool polls(struct http_worker *worker)
{
    struct completion_poll *poll = &worker->poll;
    uint64_t open = worker->producer.open;

    if (!worker->many_cores || open == 0 || open > POLL_MOST_OPEN) {
        poll->since_us = 0;
        return false;
    }
    if (poll->since_us == 0) {
        poll->since_us = nx_now_us();
        return poll->usual_us <= POLL_MOST_US;
    }
    return poll->usual_us <= POLL_MOST_US && nx_now_us() - poll->since_us <= POLL_MOST_US;
}

/* A completion has come: how long it took since we had nothing else to do, polled for or slept for. */
static void note_completion(struct http_worker *worker)
{
    struct completion_poll *poll = &worker->poll;

    if (poll->since_us != 0) {
        poll->usual_us = (7 * poll->usual_us + (nx_now_us() - poll->since_us)) / 8;
        poll->since_us = 0;
    }
}

static bool work(struct http_worker *worker)
{
    bool any = nx_submissions_poll(worker);

    if (any) {
        note_completion(worker);
    }
    any = nx_waits_poll(worker) || any;
    any = nx_tail_poll(worker) || any;
    any = nx_changes_poll(worker) || any;
    any = nx_exports_poll(worker) || any;
    any = nx_snapshots_poll(worker) || any;
    nx_text_reset(&worker->json, KEEP_SCRATCH);
    nx_text_reset(&worker->scratch, KEEP_SCRATCH);
    return any;
}

static bool work_waits(struct http_worker *worker)
{
    worker->replicas_seen = false;
    return nx_completion_waiting(&worker->producer) || nx_submit_possible(&worker->producer) ||
           nx_snapshots_due(worker) || nx_exports_due(worker) || nx_confirm_due(worker) ||
           nx_waits_due(worker) || nx_tail_due(worker) || nx_changes_due(worker);
}

/* One look at the sockets. Without EVLOOP_ONCE libevent stays in the loop while anything is ready, and a
 * doorbell that rings late is ready until nx_latch_cancel reads it. */
#define LOOK (EVLOOP_ONCE | EVLOOP_NONBLOCK)

/* The lowest offset that anybody waits for to be committed. */
static uint64_t wanted_offset(const struct http_worker *worker)
{
    uint64_t waits = nx_waits_lowest(worker);
    uint64_t tail = nx_tail_wanted(worker);

    return waits < tail ? waits : tail;
}

static void turn(struct http_worker *worker)
{
    unsigned slot = worker->process->slot;
    uint64_t lowest;
    uint64_t quorum;
    bool waits;

    worker->replicas_seen = false;
    nx_accept_poll(worker);
    if (work(worker)) {
        event_base_loop(worker->base, LOOK);
        return;
    }
    if (polls(worker)) {
        sched_yield();
        event_base_loop(worker->base, LOOK);
        return;
    }
    lowest = wanted_offset(worker);
    quorum = nx_confirm_quorum_wanted(worker);
    nx_latch_prepare_both(worker->shm, slot, lowest, quorum < lowest ? quorum : lowest);
    waits = work_waits(worker);
    worker->replicas_seen = false; /* what comes after a sleep finds others */
    event_base_loop(worker->base, waits ? LOOK : EVLOOP_ONCE);
    nx_latch_cancel(worker->shm, slot);
}

/* ---- stopping ---- */

static void retire_all(struct http_worker *worker)
{
    struct connection *connection = LIST_FIRST(&worker->connections);

    while (connection != NULL) {
        struct connection *next = LIST_NEXT(connection, link);

        nx_connection_retire(connection);
        connection = next;
    }
}

static bool is_fast(const struct http_worker *worker)
{
    return worker->process->control.stop_mode != NX_STOP_SMART;
}

/* Ends what a fast stop doesn't wait for; a smart one may become one. */
static void hurry(struct http_worker *worker)
{
    worker->stop_deadline_ms = nx_now_ms() + FAST_STOP_MS;
    nx_waits_end(worker);
    nx_watches_end(worker);
    nx_confirm_end(worker, worker->stop_deadline_ms - LAST_ANSWERS_MS);
    nx_snapshots_end(worker, true);
}

static void begin_stop(struct http_worker *worker)
{
    worker->stopping = true;
    worker->stop_deadline_ms = UINT64_MAX;
    nx_accept_stop(worker);
    if (is_fast(worker)) {
        hurry(worker);
    } else {
        nx_waits_cut_short(worker);
        nx_watches_wake_all(worker);
        nx_confirm_end(worker, UINT64_MAX);
        nx_snapshots_end(worker, false);
    }
    nx_control_asks_end(worker);
    nx_changes_end(worker);
    retire_all(worker);
}

/* A fast stop owes answers only to writes in flight. */
static bool all_settled(const struct http_worker *worker)
{
    const struct connection *connection;

    LIST_FOREACH(connection, &worker->connections, link) {
        if (!is_fast(worker) || connection->open > 0 || nx_connection_backlog(connection) > 0) {
            return false;
        }
    }
    return true;
}

static void drain(struct http_worker *worker)
{
    struct timeval tick = {.tv_sec = 0, .tv_usec = 20000};
    struct event *timer = event_new(worker->base, -1, EV_PERSIST, on_nothing, NULL);

    if (timer != NULL) {
        event_add(timer, &tick);
    }
    while (timer != NULL && !all_settled(worker) && nx_now_ms() < worker->stop_deadline_ms) {
        turn(worker);
        if (is_fast(worker) && worker->stop_deadline_ms == UINT64_MAX) {
            hurry(worker);
        }
        retire_all(worker);
    }
    if (timer != NULL) {
        event_free(timer);
    }
}

/* ---- beginning and end ---- */

/* As many descriptors as the system lets us have: one a connection. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

struct event *nx_worker_listen(struct http_worker *worker,
                               int fd,
                               void (*call)(int fd, short what, void *arg))
{
    struct event *event = event_new(worker->base, fd, EV_READ | EV_PERSIST, call, worker);

    if (event != NULL && event_add(event, NULL) < 0) {
        event_free(event);
        event = NULL;
    }
    return event;
}

static bool open_loop(struct http_worker *worker)
{
    struct nx_process *process = worker->process;

    worker->base = event_base_new();
    if (worker->base == NULL) {
        return false;
    }
    worker->doorbell = nx_worker_listen(worker, nx_latch_fd(process->slot), on_nothing);
    worker->control = nx_worker_listen(worker, process->control.fd, on_control);
    worker->confirm_timer = evtimer_new(worker->base, on_nothing, worker);
    return worker->doorbell != NULL && worker->control != NULL && worker->confirm_timer != NULL &&
           nx_accept_begin(worker);
}

static void reset_row(struct http_worker *worker)
{
    struct nx_http_request_state *row = nx_worker_row(worker);

    /* What a predecessor that was killed has left. */
    atomic_store_explicit(&row->exports, 0, memory_order_relaxed);
    atomic_store_explicit(&row->connections, 0, memory_order_relaxed);
    atomic_store_explicit(&row->acks_wanted, 0, memory_order_relaxed);
}

static bool begin(struct http_worker *worker)
{
    struct nx_process *process = worker->process;

    worker->shm = process->shm;
    LIST_INIT(&worker->connections);
    LIST_INIT(&worker->waits);
    LIST_INIT(&worker->exports);
    LIST_INIT(&worker->snapshots);
    SLIST_INIT(&worker->free_requests);
    nx_submissions_init(&worker->submissions);
    reset_row(worker);
    raise_descriptor_limit();
    nx_producer_attach(
        &worker->producer, worker->shm, process->instance,
        atomic_load_explicit(&worker->shm->slots[process->slot].generation, memory_order_relaxed));
    if (gethostname(worker->host_name, sizeof worker->host_name - 1) < 0) {
        worker->host_name[0] = '\0';
    }
    nx_tail_init(worker);
    worker->many_cores = sysconf(_SC_NPROCESSORS_ONLN) > 1;
    worker->tokener = nx_json_tokener();
    return worker->tokener != NULL && open_loop(worker) && nx_changes_init(worker);
}

void nx_event_free(struct event *event)
{
    if (event != NULL) {
        event_free(event);
    }
}

static void end(struct http_worker *worker)
{
    struct connection *connection;
    struct request *request;

    while ((connection = LIST_FIRST(&worker->connections)) != NULL) {
        nx_connection_close(connection);
        nx_connection_run(connection);
    }
    while ((request = SLIST_FIRST(&worker->free_requests)) != NULL) {
        SLIST_REMOVE_HEAD(&worker->free_requests, free);
        nx_request_free(request);
    }
    nx_submissions_free(&worker->submissions);
    nx_changes_free(worker);
    nx_tail_free(worker);
    nx_view_destroy(worker->view);
    nx_state_close(worker->state);
    nx_text_free(&worker->out);
    nx_text_free(&worker->json);
    nx_text_free(&worker->scratch);
    if (worker->tokener != NULL) {
        json_tokener_free(worker->tokener);
    }
    nx_event_free(worker->doorbell);
    nx_event_free(worker->control);
    nx_accept_end(worker);
    nx_event_free(worker->confirm_timer);
    if (worker->base != NULL) {
        event_base_free(worker->base);
    }
}

int nx_http_main(struct nx_process *process)
{
    struct http_worker worker = {.process = process};
    int status = NX_EXIT_FAILURE;

    if (begin(&worker)) {
        nx_process_title(process, "serving");
        nx_process_ready(process);
        while (!nx_process_stopping(process)) {
            turn(&worker);
        }
        begin_stop(&worker);
        drain(&worker);
        status = NX_EXIT_OK;
    } else {
        nx_error("an http worker can't begin: %s", nx_errno_text(errno));
    }
    end(&worker);
    return status;
}
