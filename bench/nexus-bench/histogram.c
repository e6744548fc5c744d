/* See histogram.h. Pure functions. */
#include "nexus-bench/histogram.h"

#include <assert.h>
#include <math.h>

static_assert(BENCH_BUCKETS == 35 * 256, "34 powers of two, and below them the linear ones");

void bench_histogram_merge(struct bench_histogram *to, const struct bench_histogram *from)
{
    for (uint32_t i = 0; i < BENCH_BUCKETS; i++) {
        to->counts[i] += from->counts[i];
    }
    to->total += from->total;
    to->sum += from->sum;
    if (from->max > to->max) {
        to->max = from->max;
    }
}

uint64_t bench_histogram_at(const struct bench_histogram *histogram, double share)
{
    double wanted = ceil(share * (double)histogram->total);
    uint64_t rank = wanted < 1 ? 1 : (uint64_t)wanted;
    uint64_t seen = 0;

    for (uint32_t i = 0; i < BENCH_BUCKETS; i++) {
        seen += histogram->counts[i];
        if (seen >= rank) {
            uint64_t top = bench_bucket_top(i);

            return i == BENCH_BUCKETS - 1 || top > histogram->max ? histogram->max : top;
        }
    }
    return histogram->max;
}

uint64_t bench_histogram_mean(const struct bench_histogram *histogram)
{
    return histogram->total == 0 ? 0 : histogram->sum / histogram->total;
}
