/* Measures how long after its answer a write is seen on another node (--lag). */
#ifndef NX_BENCH_PROBE_H
#define NX_BENCH_PROBE_H

#include "nexus-bench/results.h"
#include "nexus-bench/worker.h"

/* Probes until the options' end, or until run->stop is set. What was found, in by_operation[BENCH_PROBE] too, is added to
 * results. 0; or negative, and in error (cap bytes) why it could not begin. */
int bench_probe(struct bench_run *run, struct bench_results *results, char *error, size_t cap);

#endif
