/* See probe.h. One thread, two connections, a request at a time: a write at the one, and from its answer on reads at the
 * other, as fast as they are answered. What is measured is so at most one read's time too long. */
#include "nexus-bench/probe.h"

#include "nexus-bench/clock.h"
#include "nexus-bench/keys.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#define IN_SIZE     ((size_t)64 << 10)
#define LOOK_MS     100                  /* how often `stop` is looked at, at least */
#define LONGEST_NS  (60 * 1000000000ull) /* for an answer, and for a value to be seen */
#define PAUSE_NS    1000000u             /* between probes, and up to as much twice more */
#define PAUSE_MORE  2000000u
#define KEY         (BENCH_MOST_KEYS - 1) /* no load has that many */
#define RANDOM_PART 0x1a90000000000000u   /* no thread has that number */

struct probe {
    struct bench_run *run;
    struct bench_results *results;
    struct bench_connection writer;
    struct bench_connection reader;
    void *reader_templates;
    struct bench_random random;
    struct bench_schedule schedule;
    struct text out;
    uint8_t *in;
    uint8_t *value; /* that is waited for */
};

static bool is_stopped(const struct probe *probe)
{
    return atomic_load_explicit(&probe->run->stop, memory_order_relaxed);
}

/* The run is over: why. */
static int give_up(struct probe *probe,
                   const struct bench_connection *connection,
                   const char *what,
                   int rc)
{
    (void)snprintf(probe->results->gone, sizeof probe->results->gone, "%s: %s",
                   connection->target->text, what);
    return rc;
}

/* ---- a request and its answer ---- */

static int wait_for(struct probe *probe, const struct bench_connection *connection)
{
    struct pollfd readable = {.fd = connection->fd, .events = POLLIN};
    uint64_t began = bench_now_ns();

    while (poll(&readable, 1, LOOK_MS) <= 0) {
        if (is_stopped(probe)) {
            return -ECANCELED;
        }
        if (bench_now_ns() - began > LONGEST_NS) {
            return -ETIMEDOUT;
        }
    }
    return 0;
}

/* Reads once. 1 when that brought the answer, 0 when not yet, or negative. */
static int hear(struct probe *probe,
                struct bench_connection *connection,
                const struct bench_request *request,
                struct bench_answer *ret_answer)
{
    struct nx_slice data = {.data = NULL};
    size_t used = 0;
    bool drained;
    int answered;
    int rc = wait_for(probe, connection);

    rc = rc < 0 ? rc : bench_connection_receive(connection, probe->in, IN_SIZE, &data, &drained);
    if (rc < 0) {
        return rc == -EAGAIN ? 0 : rc;
    }
    answered = connection->protocol->read(connection->state, request, data, &used, ret_answer,
                                          &probe->out);
    if (answered >= 0 && used < data.length) {
        rc = bench_connection_keep(connection, nx_slice_of(data.data + used, data.length - used));
    }
    if (rc == 0 && probe->out.length > 0) {
        rc = bench_connection_send(connection, &probe->out);
        probe->out.length = 0;
    }
    return rc < 0 ? rc : answered;
}

static int ask(struct probe *probe,
               struct bench_connection *connection,
               enum bench_operation operation,
               struct bench_answer *ret_answer)
{
    static const uint64_t key = KEY;
    const struct bench_request request = {.operation = operation, .keys = &key, .count = 1};
    int rc;

    connection->protocol->write(connection->templates, connection->state, &request, &probe->random,
                                &probe->out);
    rc = probe->out.failed ? -ENOMEM : bench_connection_send(connection, &probe->out);
    probe->out.length = 0;
    while (rc == 0) {
        rc = bench_connection_flush(connection);
        rc = rc < 0 ? rc : hear(probe, connection, &request, ret_answer);
    }
    if (rc < 0 && rc != -ECANCELED) {
        return give_up(probe, connection,
                       rc == -ECONNRESET ? "the connection was closed" : strerrordesc_np(-rc), rc);
    }
    return rc < 0 ? rc : 0;
}

/* ---- a probe ---- */

static void count(struct probe *probe,
                  const struct bench_answer *answer,
                  uint64_t since_ns,
                  bool counted)
{
    static const struct bench_request request = {.operation = BENCH_PROBE, .count = 1};
    uint64_t now = bench_now_ns();

    if (counted) {
        bench_results_add(probe->results, &request, answer, now - since_ns);
        probe->results->last_ns = now;
    }
}

/* Reads until the new value is there, or a read fails. */
static int look_for_value(struct probe *probe, uint64_t written_ns, bool counted)
{
    const struct nx_slice wanted = nx_slice_of(probe->value, probe->run->options->value);
    struct bench_answer answer = {.result = BENCH_FAILED};
    bool over = false;

    while (!over) {
        int rc = is_stopped(probe) ? -ECANCELED : ask(probe, &probe->reader, BENCH_PROBE, &answer);

        if (rc < 0) {
            return rc;
        }
        probe->results->polls += counted ? 1 : 0;
        over = answer.result == BENCH_FAILED ||
               (answer.result == BENCH_DONE && nx_slice_equal(answer.text, wanted));
        if (!over && bench_now_ns() - written_ns > LONGEST_NS) {
            return give_up(probe, &probe->reader,
                           "what was written isn't seen there after 60 seconds", -ETIMEDOUT);
        }
    }
    count(probe, &answer, written_ns, counted);
    return 0;
}

static int probe_once(struct probe *probe, bool counted)
{
    struct bench_random same = probe->random; /* what makes the value that is written now */
    struct bench_answer answer = {.result = BENCH_FAILED};
    uint64_t began = bench_now_ns();
    int rc;

    bench_value_write(probe->value, probe->run->options->value, &same);
    rc = ask(probe, &probe->writer, BENCH_PUT, &answer);
    if (rc < 0) {
        return rc;
    }
    if (answer.result != BENCH_DONE) {
        count(probe, &answer, began, counted);
        return 0;
    }
    return look_for_value(probe, bench_now_ns(), counted);
}

static void run_probes(struct probe *probe)
{
    bool counted;
    int rc = 0;

    while (rc == 0 && !is_stopped(probe) &&
           bench_schedule_take(&probe->schedule, bench_now_ns(), &counted)) {
        const struct timespec pause =
            bench_timespec(PAUSE_NS + bench_random_below(&probe->random, PAUSE_MORE));

        rc = probe_once(probe, counted);
        if (rc == 0) {
            (void)nanosleep(&pause, NULL);
        }
    }
}

/* ---- beginning and end ---- */

/* A connection to that target, still to be opened. */
static struct bench_connection connection_to(const struct bench_target *target,
                                             const struct bench_options *options,
                                             const void *templates)
{
    return (struct bench_connection){.fd = -1,
                                     .depth = 1,
                                     .protocol = options->protocol,
                                     .target = target,
                                     .templates = templates};
}

static int open_probe(struct probe *probe, char *error, size_t cap)
{
    const struct bench_options *options = probe->run->options;
    void **templates = &probe->run->templates[0];
    int rc;

    *templates = options->protocol->prepare(options, &options->targets[0]);
    probe->reader_templates = options->protocol->prepare(options, &options->lag);
    probe->writer = connection_to(&options->targets[0], options, *templates);
    probe->reader = connection_to(&options->lag, options, probe->reader_templates);
    probe->in = malloc(IN_SIZE);
    probe->value = malloc(options->value);
    if (probe->in == NULL || probe->value == NULL || *templates == NULL ||
        probe->reader_templates == NULL) {
        (void)snprintf(error, cap, "memory is short");
        return -ENOMEM;
    }
    rc = bench_connection_open(&probe->writer, error, cap);
    return rc < 0 ? rc : bench_connection_open(&probe->reader, error, cap);
}

static void close_probe(struct probe *probe)
{
    const struct bench_protocol *protocol = probe->run->options->protocol;

    bench_connection_close(&probe->writer);
    bench_connection_close(&probe->reader);
    if (probe->run->templates[0] != NULL) {
        protocol->release(probe->run->templates[0]);
    }
    if (probe->reader_templates != NULL) {
        protocol->release(probe->reader_templates);
    }
    nx_text_free(&probe->out);
    free(probe->in);
    free(probe->value);
}

int bench_probe(struct bench_run *run, struct bench_results *results, char *error, size_t cap)
{
    struct probe probe = {
        .run = run,
        .results = results,
        .writer = {.fd = -1},
        .reader = {.fd = -1},
        .random = bench_random_of(run->options->seed, RANDOM_PART),
    };
    int rc = open_probe(&probe, error, cap);

    if (rc == 0) {
        results->value = run->options->value;
        probe.schedule = bench_schedule_of(run->options, 0, bench_now_ns());
        results->first_ns = probe.schedule.count_from_ns;
        results->last_ns = results->first_ns;
        run_probes(&probe);
    }
    close_probe(&probe);
    return rc;
}
