/* A load from beginning to end. */
#ifndef NX_BENCH_RUN_H
#define NX_BENCH_RUN_H

#include "nexus-bench/options.h"
#include "nexus-bench/results.h"
#include "nexus-bench/worker.h"

/* Runs what the options ask for; run->stop ends it early. The counts of all threads are added to results, as far as it
 * came. 0; or negative, and in error (cap bytes) why it could not begin. */
int bench_run(struct bench_run *run, struct bench_results *results, char *error, size_t cap);

#endif
