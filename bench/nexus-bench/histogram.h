/* Latencies by Gil Tene's HDR method: buckets that are linear within a power of two and logarithmic above, so
 * that each is at most 0.4 % as wide as what it holds, in fixed memory, from a nanosecond to an hour. Debian 12
 * has no C library of it, and the method is the few lines below. One thread adds to a histogram; those of several
 * threads are merged at the end. */
#ifndef NX_BENCH_HISTOGRAM_H
#define NX_BENCH_HISTOGRAM_H

#include <stdint.h>

#define BENCH_BUCKET_BITS  8                         /* 256 buckets for each power of two */
#define BENCH_LARGEST_BITS 42                        /* 2^42 ns are 73 minutes */
#define BENCH_LINEAR       (1u << BENCH_BUCKET_BITS) /* below this, a bucket for each value */
#define BENCH_BUCKETS      ((BENCH_LARGEST_BITS - BENCH_BUCKET_BITS + 1) << BENCH_BUCKET_BITS)

/* All zero is an empty one. */
struct bench_histogram {
    uint64_t counts[BENCH_BUCKETS];
    uint64_t total;
    uint64_t sum; /* of the values as they were: 2^64 ns are 584 years */
    uint64_t max;
};

/* The bucket that a value belongs to; the last one for what is larger than all. */
static inline uint32_t bench_bucket(uint64_t value)
{
    uint32_t shift;

    if (value < BENCH_LINEAR) {
        return (uint32_t)value;
    }
    if (value >> BENCH_LARGEST_BITS != 0) {
        return BENCH_BUCKETS - 1;
    }
    shift = 63u - (uint32_t)__builtin_clzll(value) - BENCH_BUCKET_BITS;
    /* The leading bit, which all of a power have, is what makes the next 256 of `shift`. */
    return (shift << BENCH_BUCKET_BITS) + (uint32_t)(value >> shift);
}

/* The largest value that a bucket holds. */
static inline uint64_t bench_bucket_top(uint32_t bucket)
{
    uint32_t shift;

    if (bucket < 2 * BENCH_LINEAR) {
        return bucket;
    }
    shift = (bucket >> BENCH_BUCKET_BITS) - 1;
    return ((bucket - ((uint64_t)shift << BENCH_BUCKET_BITS) + 1) << shift) - 1;
}

static inline void bench_histogram_add(struct bench_histogram *histogram, uint64_t value)
{
    histogram->counts[bench_bucket(value)]++;
    histogram->total++;
    histogram->sum += value;
    if (value > histogram->max) {
        histogram->max = value;
    }
}

/* Adds all that `from` holds. */
void bench_histogram_merge(struct bench_histogram *to, const struct bench_histogram *from);

/* The value that a share (0 to 1) of all is not above: at most a bucket's width more than the true one, and never
 * more than the largest. 0 when empty. */
uint64_t bench_histogram_at(const struct bench_histogram *histogram, double share);

/* The mean, exact; 0 when empty. */
uint64_t bench_histogram_mean(const struct bench_histogram *histogram);

#endif
