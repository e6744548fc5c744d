/* Runs as a thread of nexus-bench; shares with the others only what struct bench_run has. A closed loop follows each
 * answer with the next request; an open loop gives each request that is due to the connection that has waited
 * longest for one, or, when all are busy, keeps it due until one isn't. */
#include "nexus-bench/worker.h"

#include "nexus-bench/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#define IN_SIZE ((size_t)256 << 10)
#define EVENTS  256
#define LOOK_NS 100000000u /* how often `stop` is looked at, at least */
#define SILENCE_NS \
    (60 * 1000000000ull) /* without any answer: longer than all time limits of a server */

/* ---- opening ---- */

static int open_connection(struct bench_worker *worker, uint32_t number, char *error, size_t cap)
{
    const struct bench_options *options = worker->run->options;
    struct bench_connection *connection = &worker->connections[number];
    size_t target = (worker->number + number * options->threads) % options->target_count;
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                                .data.ptr = connection};
    int rc;

    connection->protocol = options->protocol;
    connection->target = &options->targets[target];
    connection->templates = worker->run->templates[target];
    connection->depth = (uint32_t)options->pipeline;
    rc = bench_connection_open(connection, error, cap);
    if (rc == 0 && epoll_ctl(worker->epoll, EPOLL_CTL_ADD, connection->fd, &event) != 0) {
        rc = -errno;
        (void)snprintf(error, cap, "epoll: %s", strerrordesc_np(-rc));
    }
    return rc;
}

static void begin_keys(struct bench_worker *worker)
{
    const struct bench_options *options = worker->run->options;

    worker->random = bench_random_of(options->seed, 2 * worker->number);
    worker->keys = (struct bench_keys){
        .order = options->order,
        .count = options->keys,
        .next = &worker->run->next_key,
        .random = bench_random_of(options->seed, 2 * worker->number + 1),
    };
    if (options->order == BENCH_ZIPF) {
        worker->keys.zipf = bench_zipf_of(options->keys, options->theta);
    }
}

int bench_worker_open(struct bench_worker *worker,
                      struct bench_run *run,
                      uint64_t number,
                      char *error,
                      size_t cap)
{
    const struct bench_options *options = run->options;
    uint32_t connections = (uint32_t)(options->clients / options->threads) +
                           (number < options->clients % options->threads ? 1 : 0);
    int rc = 0;

    worker->run = run;
    worker->number = number;
    worker->epoll = epoll_create1(EPOLL_CLOEXEC);
    worker->connections = calloc(connections, sizeof *worker->connections);
    worker->roomy = calloc(connections, sizeof *worker->roomy);
    worker->drawn = calloc(options->batch, sizeof *worker->drawn);
    worker->in = malloc(IN_SIZE);
    if (worker->connections == NULL || worker->roomy == NULL || worker->drawn == NULL ||
        worker->in == NULL || worker->epoll < 0) {
        (void)snprintf(error, cap, "memory or descriptors are short");
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < connections; i++) {
        worker->connections[i].fd = -1;
    }
    worker->connection_count = connections;
    worker->results.value = options->value;
    worker->results.absent_is_good = options->weights[BENCH_DELETE] > 0;
    begin_keys(worker);
    for (uint32_t i = 0; rc == 0 && i < connections; i++) {
        rc = open_connection(worker, i, error, cap);
    }
    return rc;
}

void bench_worker_close(struct bench_worker *worker)
{
    for (uint32_t i = 0; i < worker->connection_count; i++) {
        bench_connection_close(&worker->connections[i]);
    }
    free(worker->connections);
    free(worker->roomy);
    free(worker->drawn);
    free(worker->in);
    nx_text_free(&worker->out);
    if (worker->epoll >= 0) {
        close(worker->epoll);
    }
}

/* ---- requests ---- */

/* The run is over for all: what happened on a connection is why. */
static void give_up(struct bench_worker *worker,
                    const struct bench_connection *connection,
                    const char *what)
{
    (void)snprintf(worker->results.gone, sizeof worker->results.gone, "%s: %s",
                   connection->target->text, what);
    atomic_store_explicit(&worker->run->stop, true, memory_order_relaxed);
}

/* Adds the next request to worker->out, if there is one. */
static bool write_next(struct bench_worker *worker,
                       struct bench_connection *connection,
                       uint64_t due_ns)
{
    const struct bench_options *options = worker->run->options;
    struct bench_flight flight = {.due_ns = due_ns};
    struct bench_request request = {.keys = worker->drawn};

    if (!bench_schedule_take(&worker->schedule, due_ns, &flight.counted)) {
        return false;
    }
    request.operation =
        bench_options_draw(options, bench_random_below(&worker->random, options->weight));
    request.count = bench_keys_take(&worker->keys, worker->drawn,
                                    request.operation == BENCH_IMPORT ? options->batch : 1);
    if (request.count == 0) {
        worker->schedule.ended = true;
        return false;
    }
    connection->protocol->write(connection->templates, connection->state, &request, &worker->random,
                                &worker->out);
    flight.count = (uint32_t)request.count;
    flight.operation = (uint16_t)request.operation;
    bench_connection_push(connection, &flight);
    if (worker->under_way == 0 && due_ns > worker->heard_ns) {
        worker->heard_ns = due_ns; /* silence begins with a question */
    }
    worker->under_way++;
    return true;
}

/* Sends what was written. */
static void send_written(struct bench_worker *worker, struct bench_connection *connection)
{
    int rc = worker->out.failed ? -ENOMEM : 0;

    if (rc == 0 && worker->out.length > 0) {
        rc = bench_connection_send(connection, &worker->out);
    }
    worker->out.length = 0;
    if (rc < 0) {
        give_up(worker, connection, strerrordesc_np(-rc));
    }
}

/* ---- closed loop ---- */

static void fill(struct bench_worker *worker, struct bench_connection *connection, uint64_t now)
{
    while (connection->under_way < connection->depth && write_next(worker, connection, now)) {
    }
    send_written(worker, connection);
}

/* ---- open loop ---- */

static void list_roomy(struct bench_worker *worker, struct bench_connection *connection)
{
    uint32_t at = worker->roomy_first + worker->roomy_count;

    if (connection->listed || connection->under_way == connection->depth) {
        return;
    }
    worker->roomy[at % worker->connection_count] = (uint32_t)(connection - worker->connections);
    worker->roomy_count++;
    connection->listed = true;
}

static struct bench_connection *take_roomy(struct bench_worker *worker)
{
    struct bench_connection *connection = &worker->connections[worker->roomy[worker->roomy_first]];

    worker->roomy_first = (worker->roomy_first + 1) % worker->connection_count;
    worker->roomy_count--;
    connection->listed = false;
    return connection;
}

/* Sends what is due and has a connection. */
static void send_due(struct bench_worker *worker)
{
    uint64_t due = bench_schedule_due(&worker->schedule);

    while (worker->roomy_count > 0 && due <= bench_now_ns() && !worker->schedule.ended) {
        struct bench_connection *connection = take_roomy(worker);

        (void)write_next(worker, connection, due);
        send_written(worker, connection);
        list_roomy(worker, connection);
        due = bench_schedule_due(&worker->schedule);
    }
}

/* ---- answers ---- */

static void count_answer(struct bench_worker *worker,
                         struct bench_connection *connection,
                         const struct bench_answer *answer,
                         uint64_t now)
{
    const struct bench_flight *flight = bench_connection_oldest(connection);
    const struct bench_request request = {.operation = (enum bench_operation)flight->operation,
                                          .count = flight->count};

    if (flight->counted) {
        bench_results_add(&worker->results, &request, answer, now - flight->due_ns);
        worker->results.last_ns = now;
    }
    bench_connection_pop(connection);
    worker->under_way--;
}

/* Reads all answers that data holds. 0 or negative; *ret_used: bytes that are done with. */
static int take_answers(struct bench_worker *worker,
                        struct bench_connection *connection,
                        struct nx_slice data,
                        uint64_t now,
                        size_t *ret_used)
{
    size_t used = 0;
    int rc = 1;

    while (rc > 0 && used < data.length) {
        const struct bench_flight *flight = bench_connection_oldest(connection);
        const struct bench_request request = {.operation = (enum bench_operation)flight->operation,
                                              .count = flight->count};
        struct bench_answer answer;
        size_t n = 0;

        rc = connection->protocol->read(
            connection->state, connection->under_way > 0 ? &request : NULL,
            nx_slice_of(data.data + used, data.length - used), &n, &answer, &worker->out);
        used += n;
        if (rc > 0) {
            count_answer(worker, connection, &answer, now);
        }
    }
    *ret_used = used;
    return rc < 0 ? rc : 0;
}

/* One read, the answers in it, and what follows them. */
static int hear(struct bench_worker *worker, struct bench_connection *connection, bool *ret_drained)
{
    struct nx_slice data;
    size_t used = 0;
    uint64_t now;
    int rc = bench_connection_receive(connection, worker->in, IN_SIZE, &data, ret_drained);

    if (rc < 0) {
        return rc;
    }
    now = bench_now_ns();
    worker->heard_ns = now;
    rc = take_answers(worker, connection, data, now, &used);
    if (rc == 0 && used < data.length) {
        rc = bench_connection_keep(connection, nx_slice_of(data.data + used, data.length - used));
    }
    if (rc < 0) {
        return rc;
    }
    if (worker->schedule.interval_ns > 0) {
        send_written(worker, connection);
        list_roomy(worker, connection);
    } else {
        fill(worker, connection, now);
    }
    return 0;
}

static const char *reason(int rc)
{
    switch (rc) {
    case -EPROTO:
        return "what came is no answer of this protocol";
    case -EMSGSIZE:
        return "an answer's head is too large";
    case -ECONNRESET:
        return "the connection was closed";
    default:
        return strerrordesc_np(-rc);
    }
}

static void on_event(struct bench_worker *worker, const struct epoll_event *event)
{
    struct bench_connection *connection = event->data.ptr;
    bool hangs_up = (event->events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    bool drained = false;
    int rc = 0;

    if ((event->events & EPOLLOUT) != 0 && connection->unsent.length > 0) {
        rc = bench_connection_flush(connection);
    }
    if ((event->events & ~(uint32_t)EPOLLOUT) != 0) {
        /* A read that didn't fill its buffer has taken all; the next bytes are a new event. */
        while (rc == 0 && (!drained || hangs_up)) {
            rc = hear(worker, connection, &drained);
        }
    }
    if (rc < 0 && rc != -EAGAIN) {
        give_up(worker, connection, reason(rc));
    }
}

/* ---- the loop ---- */

/* How long to wait for events: at most until a request is due that has a connection. */
static uint64_t wait_ns(struct bench_worker *worker)
{
    uint64_t due;
    uint64_t now;

    if (!(worker->schedule.interval_ns > 0) || worker->roomy_count == 0) {
        return LOOK_NS;
    }
    due = bench_schedule_due(&worker->schedule);
    now = bench_now_ns();
    if (due <= now) {
        return 0;
    }
    return due - now < LOOK_NS ? due - now : LOOK_NS;
}

/* Nothing is heard any more, or an open loop can't come to its end. */
static void look_for_silence(struct bench_worker *worker)
{
    uint64_t now = bench_now_ns();
    uint64_t end = worker->schedule.end_ns;

    if (worker->under_way > 0 && now - worker->heard_ns > SILENCE_NS) {
        give_up(worker, &worker->connections[0], "no answer for 60 seconds");
    } else if (end != UINT64_MAX && now > end && now - end > SILENCE_NS) {
        give_up(worker, &worker->connections[0],
                "what was due is not done 60 seconds after the end: the rate is too high");
    }
}

static bool is_over(struct bench_worker *worker)
{
    return (worker->schedule.ended && worker->under_way == 0) ||
           atomic_load_explicit(&worker->run->stop, memory_order_relaxed);
}

static void loop(struct bench_worker *worker)
{
    struct epoll_event events[EVENTS];
    bool open = worker->schedule.interval_ns > 0;

    while (!is_over(worker)) {
        struct timespec wait = bench_timespec(wait_ns(worker));
        int n = epoll_pwait2(worker->epoll, events, EVENTS, &wait, NULL);

        for (int i = 0; i < n; i++) {
            on_event(worker, &events[i]);
        }
        if (n <= 0 || open) {
            look_for_silence(worker);
        }
        if (open) {
            send_due(worker);
        }
    }
}

/* What was due and never sent, and where the time that is counted ends. */
static void finish(struct bench_worker *worker)
{
    struct bench_results *results = &worker->results;
    struct bench_schedule *schedule = &worker->schedule;
    bool stopped = atomic_load_explicit(&worker->run->stop, memory_order_relaxed);
    uint64_t now = bench_now_ns();

    results->unanswered = worker->under_way;
    if (stopped) {
        results->last_ns = now;
        if (schedule->interval_ns > 0) {
            for (uint64_t due = bench_schedule_due(schedule); due <= now;
                 due = bench_schedule_due(schedule)) {
                schedule->issued++;
                results->unsent++;
            }
        }
    } else if (schedule->end_ns != UINT64_MAX && results->last_ns < schedule->end_ns) {
        results->last_ns = schedule->end_ns;
    }
}

void *bench_worker_main(void *arg)
{
    struct bench_worker *worker = arg;
    struct timespec start = bench_timespec(worker->run->start_ns);

    worker->schedule =
        bench_schedule_of(worker->run->options, worker->number, worker->run->start_ns);
    worker->results.first_ns = worker->schedule.count_from_ns;
    worker->heard_ns = worker->run->start_ns;
    /* Requests are sent when they are due, not up to 50 us later. */
    (void)prctl(PR_SET_TIMERSLACK, 1);
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &start, NULL) == EINTR) {
    }
    for (uint32_t i = 0; i < worker->connection_count; i++) {
        if (worker->schedule.interval_ns > 0) {
            list_roomy(worker, &worker->connections[i]);
        } else {
            fill(worker, &worker->connections[i], bench_now_ns());
        }
    }
    loop(worker);
    finish(worker);
    return NULL;
}
