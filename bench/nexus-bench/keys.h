/* Which key is next, by the order that was asked for, and how keys and values are written. */
#ifndef NX_BENCH_KEYS_H
#define NX_BENCH_KEYS_H

#include "nexus-bench/random.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_KEY_LENGTH 16             /* "key:" and twelve digits */
#define BENCH_MOST_KEYS  1000000000000u /* what twelve digits can tell apart */

enum bench_order {
    BENCH_UNIFORM,
    BENCH_ZIPF,
    BENCH_SEQUENTIAL /* each key once, all threads together */
};

/* Numbers that are the rarer the larger they are: number r with a probability proportional to 1/(r+1)^theta, by
 * the method of Gray et al., "Quickly generating billion-record synthetic databases", 1994. */
struct bench_zipf {
    uint64_t count;
    double theta;
    double zeta_n; /* the sum of 1/r^theta for r from 1 to count */
    double alpha;
    double eta;
};

/* theta: above 0, below 1. */
struct bench_zipf bench_zipf_of(uint64_t count, double theta);

/* The number that belongs to a share (0 to less than 1) of all draws. */
uint64_t bench_zipf_at(const struct bench_zipf *zipf, double share);

/* A thread's source of keys. */
struct bench_keys {
    enum bench_order order;
    uint64_t count;
    struct bench_zipf zipf;
    atomic_uint_fast64_t *next; /* of BENCH_SEQUENTIAL; all threads take from it */
    struct bench_random random;
};

/* The next keys, up to `most` of them, into ret_keys; fewer, or none, only at the end of BENCH_SEQUENTIAL. */
size_t bench_keys_take(struct bench_keys *keys, uint64_t *ret_keys, size_t most);

/* Writes "key:%012llu" at out, without a NUL. */
void bench_key_write(uint8_t *out, uint64_t key);

/* Writes a value: one half random characters (64 different ones, none that JSON escapes, so that every protocol
 * writes the same bytes as they are), the other half 'x'. */
void bench_value_write(uint8_t *out, size_t length, struct bench_random *random);

#endif
