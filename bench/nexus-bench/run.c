/* See run.h. */
#include "nexus-bench/run.h"

#include "nexus-bench/clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define LEAD_NS            5000000 /* for the threads to be there when the run starts */
#define DESCRIPTORS_BESIDE 64

/* As many descriptors as the clients need, if the limit can be raised so far. */
static void fit_descriptors(const struct bench_options *options)
{
    struct rlimit limit;
    rlim_t wanted = options->clients + options->threads + DESCRIPTORS_BESIDE;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < wanted) {
        limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static int prepare_templates(struct bench_run *run, char *error, size_t cap)
{
    const struct bench_options *options = run->options;

    for (size_t i = 0; i < options->target_count; i++) {
        run->templates[i] = options->protocol->prepare(options, &options->targets[i]);
        if (run->templates[i] == NULL) {
            (void)snprintf(error, cap, "memory is short");
            return -ENOMEM;
        }
    }
    return 0;
}

static int open_workers(struct bench_run *run,
                        struct bench_worker *workers,
                        char *error,
                        size_t cap)
{
    int rc = prepare_templates(run, error, cap);

    for (uint64_t i = 0; rc == 0 && i < run->options->threads; i++) {
        rc = bench_worker_open(&workers[i], run, i, error, cap);
    }
    return rc;
}

/* Starts all threads and waits for their ends. */
static int run_threads(struct bench_run *run, struct bench_worker *workers, char *error, size_t cap)
{
    uint64_t started = 0;
    int rc = 0;

    run->start_ns = bench_now_ns() + LEAD_NS;
    while (rc == 0 && started < run->options->threads) {
        rc = pthread_create(&workers[started].thread, NULL, bench_worker_main, &workers[started]);
        started += rc == 0 ? 1 : 0;
    }
    if (rc != 0) {
        (void)snprintf(error, cap, "a thread can't be started: %s", strerrordesc_np(rc));
        atomic_store_explicit(&run->stop, true, memory_order_relaxed);
    }
    for (uint64_t i = 0; i < started; i++) {
        (void)pthread_join(workers[i].thread, NULL);
    }
    return -rc;
}

int bench_run(struct bench_run *run, struct bench_results *results, char *error, size_t cap)
{
    uint64_t threads = run->options->threads;
    struct bench_worker *workers = calloc(threads, sizeof *workers);
    int rc;

    if (workers == NULL) {
        (void)snprintf(error, cap, "memory is short");
        return -ENOMEM;
    }
    for (uint64_t i = 0; i < threads; i++) {
        workers[i].epoll = -1;
    }
    fit_descriptors(run->options);
    rc = open_workers(run, workers, error, cap);
    rc = rc < 0 ? rc : run_threads(run, workers, error, cap);
    for (uint64_t i = 0; i < threads; i++) {
        if (rc == 0) {
            bench_results_merge(results, &workers[i].results);
            results->first_ns = workers[i].results.first_ns;
        }
        bench_worker_close(&workers[i]);
    }
    free(workers);
    for (size_t i = 0; i < run->options->target_count; i++) {
        if (run->templates[i] != NULL) {
            run->options->protocol->release(run->templates[i]);
        }
    }
    return rc;
}
