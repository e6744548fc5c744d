/* Runs as a thread of nexus-bench, from its connections' opening in the main thread to its end; shares with the others
 * only what struct bench_run has. */
#include "nexus-bench/worker.h"

#include "nexus-bench/clock.h"
#include "nexus-bench/traffic.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#define EVENTS     256
#define LOOK_NS    100000000u           /* how often `stop` is looked at, at least */
#define SILENCE_NS (60 * 1000000000ull) /* without answers: longer than limits of servers */

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
    worker->in = malloc(BENCH_IN_SIZE);
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

/* ---- the loop ---- */

/* How long to wait for events: at most until a request is due that has a connection. */
static uint64_t wait_ns(struct bench_worker *worker)
{
    uint64_t due;
    uint64_t now;

    if (!bench_is_open_loop(worker) || worker->roomy_count == 0) {
        return LOOK_NS;
    }
    due = bench_schedule_due(&worker->schedule);
    now = bench_now_ns();
    if (due <= now) {
        return 0;
    }
    return due - now < LOOK_NS ? due - now : LOOK_NS;
}

static const struct bench_connection *a_busy_one(const struct bench_worker *worker)
{
    uint32_t i = 0;

    while (i + 1 < worker->connection_count && worker->connections[i].under_way == 0) {
        i++;
    }
    return &worker->connections[i];
}

/* Nothing is heard any more, or an open loop can't come to its end. */
static void look_for_silence(struct bench_worker *worker)
{
    uint64_t now = bench_now_ns();
    uint64_t end = worker->schedule.end_ns;

    if (worker->under_way > 0 && now - worker->heard_ns > SILENCE_NS) {
        bench_traffic_give_up(worker, a_busy_one(worker), "no answer for 60 seconds");
    } else if (end != UINT64_MAX && now > end && now - end > SILENCE_NS) {
        bench_traffic_give_up(
            worker, a_busy_one(worker),
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
    bool open = bench_is_open_loop(worker);

    while (!is_over(worker)) {
        struct timespec wait = bench_timespec(wait_ns(worker));
        int n = epoll_pwait2(worker->epoll, events, EVENTS, &wait, NULL);

        for (int i = 0; i < n; i++) {
            bench_traffic_event(worker, &events[i]);
        }
        if (n <= 0 || open) {
            look_for_silence(worker);
        }
        if (open) {
            bench_traffic_send_due(worker);
        }
    }
}

/* What an open loop had to send by now, and hasn't. */
static uint64_t count_unsent(struct bench_schedule *schedule, uint64_t now)
{
    uint64_t unsent = 0;

    for (uint64_t due; (due = bench_schedule_due(schedule)) <= now;) {
        bool counted;

        if (!bench_schedule_take(schedule, due, &counted)) {
            break;
        }
        unsent++;
    }
    return unsent;
}

/* What is left over, and where the time that is counted ends. */
static void finish(struct bench_worker *worker)
{
    struct bench_results *results = &worker->results;
    uint64_t end = worker->schedule.end_ns;
    bool stopped = atomic_load_explicit(&worker->run->stop, memory_order_relaxed);
    uint64_t now = bench_now_ns();

    results->unanswered = worker->under_way;
    if (stopped) {
        results->last_ns = now;
        results->unsent = bench_is_open_loop(worker) ? count_unsent(&worker->schedule, now) : 0;
    } else if (end <= now && results->last_ns < end) {
        results->last_ns = end; /* what ended it was the time */
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
    bench_traffic_begin(worker);
    loop(worker);
    finish(worker);
    return NULL;
}
