/* See traffic.h. */
#include "nexus-bench/traffic.h"

#include "nexus-bench/clock.h"

#include <errno.h>
#include <stdio.h>

/* ---- requests ---- */

void bench_traffic_give_up(struct bench_worker *worker,
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
        bench_traffic_give_up(worker, connection, strerrordesc_np(-rc));
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

void bench_traffic_send_due(struct bench_worker *worker)
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

/* The oldest request has its answer. */
static void count_answer(struct bench_worker *worker,
                         struct bench_connection *connection,
                         const struct bench_request *request,
                         const struct bench_answer *answer,
                         uint64_t now)
{
    const struct bench_flight *flight = bench_connection_oldest(connection);

    if (flight->counted) {
        bench_results_add(&worker->results, request, answer, now - flight->due_ns);
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
            count_answer(worker, connection, &request, &answer, now);
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
    int rc = bench_connection_receive(connection, worker->in, BENCH_IN_SIZE, &data, ret_drained);

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
    if (bench_is_open_loop(worker)) {
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
        return "what came is no answer of this --protocol: is --target such a server?";
    case -EMSGSIZE:
        return "an answer's head is too large";
    case -ECONNRESET:
        return "the connection was closed";
    default:
        return strerrordesc_np(-rc);
    }
}

void bench_traffic_event(struct bench_worker *worker, const struct epoll_event *event)
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
        bench_traffic_give_up(worker, connection, reason(rc));
    }
}

void bench_traffic_begin(struct bench_worker *worker)
{
    for (uint32_t i = 0; i < worker->connection_count; i++) {
        if (bench_is_open_loop(worker)) {
            list_roomy(worker, &worker->connections[i]);
        } else {
            fill(worker, &worker->connections[i], bench_now_ns());
        }
    }
}
