/* Random numbers that a seed repeats: splitmix64 (Steele, Lea and Flood, 2014). A few cycles each; each thread has
 * its own. Not for secrets. */
#ifndef NX_BENCH_RANDOM_H
#define NX_BENCH_RANDOM_H

#include <stdint.h>

struct bench_random {
    uint64_t state;
};

/* Any 64 bits, each as likely. */
static inline uint64_t bench_random_next(struct bench_random *random)
{
    uint64_t z = random->state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 0 to below - 1, by a multiplication instead of a division (Lemire, 2019); its bias is below 2^-20 for all counts
 * used here. */
static inline uint64_t bench_random_below(struct bench_random *random, uint64_t below)
{
    __extension__ typedef unsigned __int128 product;

    return (uint64_t)(((product)bench_random_next(random) * below) >> 64);
}

/* 0 to less than 1. */
static inline double bench_random_share(struct bench_random *random)
{
    return (double)(bench_random_next(random) >> 11) * 0x1p-53;
}

/* A generator of its own for a part of the run (a thread, the probe). */
static inline struct bench_random bench_random_of(uint64_t seed, uint64_t part)
{
    struct bench_random random = {.state = seed};
    uint64_t first = bench_random_next(&random);

    random.state = first + part * 0xd1342543de82ef95u;
    (void)bench_random_next(&random);
    return random;
}

#endif
