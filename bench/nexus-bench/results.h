/* What a thread has counted. Requests that were due in the warm-up aren't. */
#ifndef NX_BENCH_RESULTS_H
#define NX_BENCH_RESULTS_H

#include "nexus-bench/histogram.h"
#include "nexus-bench/operation.h"
#include "nexus-bench/protocol.h"

#define BENCH_STATUSES   600 /* of HTTP; below 100 stand the results of other protocols */
#define BENCH_ERROR_SIZE 512

struct bench_counts {
    uint64_t operations;            /* keys, with a good answer */
    uint64_t requests;              /* with a good answer */
    uint64_t errors;                /* requests with another one */
    struct bench_histogram latency; /* ns, of the requests with a good one */
};

/* All zero, but for what is asked for, is nothing yet. */
struct bench_results {
    size_t value;        /* bytes of one, as asked for */
    bool absent_is_good; /* a key that isn't there is no error */
    struct bench_counts by_operation[BENCH_KINDS];
    uint64_t answers[BENCH_STATUSES]; /* by HTTP status, or by enum bench_result */
    uint64_t value_bytes;             /* read and written, by good requests */
    uint64_t polls;                   /* of probes */
    uint64_t unanswered;              /* requests under way when the run ended */
    uint64_t unsent;                  /* of an open loop: due, and never sent */
    uint64_t first_ns;                /* where counting began */
    uint64_t last_ns;                 /* where it ended */
    char error[BENCH_ERROR_SIZE];     /* the first bad answer; "": none */
    char gone[BENCH_ERROR_SIZE];      /* why the run couldn't go on; "": it could */
};

/* Counts an answer, which came `latency_ns` after its request was due. */
void bench_results_add(struct bench_results *results,
                       const struct bench_request *request,
                       const struct bench_answer *answer,
                       uint64_t latency_ns);

/* Adds what another thread has counted. */
void bench_results_merge(struct bench_results *to, const struct bench_results *from);

/* Sums over all operations. */
uint64_t bench_results_operations(const struct bench_results *results);
uint64_t bench_results_errors(const struct bench_results *results);

#endif
