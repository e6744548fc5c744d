/* Tells what a run has found. */
#ifndef NX_BENCH_REPORT_H
#define NX_BENCH_REPORT_H

#include "common/text.h"
#include "nexus-bench/options.h"
#include "nexus-bench/results.h"

/* One JSON object and a line end. Memory that runs short shows as out->failed. */
void bench_report_json(struct text *out,
                       const struct bench_options *options,
                       const struct bench_results *results);

/* A few lines for people. */
void bench_report_text(struct text *out,
                       const struct bench_options *options,
                       const struct bench_results *results);

/* What went wrong, a sentence a line, for stderr; true when anything did: a bad answer, or an end before the end. */
bool bench_report_trouble(struct text *out, const struct bench_results *results);

#endif
