/* See keys.h. Pure functions, but for the counter that threads share. */
#include "nexus-bench/keys.h"

#include <math.h>
#include <string.h>

/* ---- Zipf ---- */

#define EXACT_TERMS 100000 /* of the sum, beyond which its integral is exact to ten digits */

/* The sum of 1/r^theta, its tail by Euler and Maclaurin: 20 million keys take no longer than 100,000. */
static double zeta(uint64_t count, double theta)
{
    uint64_t exact = count < EXACT_TERMS ? count : EXACT_TERMS;
    double from = (double)exact;
    double to = (double)count;
    double sum = 0;

    for (uint64_t r = 1; r <= exact; r++) {
        sum += pow((double)r, -theta);
    }
    if (count > exact) {
        sum += (pow(to, 1 - theta) - pow(from, 1 - theta)) / (1 - theta);
        sum += (pow(to, -theta) - pow(from, -theta)) / 2;
    }
    return sum;
}

struct bench_zipf bench_zipf_of(uint64_t count, double theta)
{
    struct bench_zipf zipf = {.count = count, .theta = theta, .zeta_n = zeta(count, theta)};

    zipf.alpha = 1 / (1 - theta);
    zipf.eta = (1 - pow(2 / (double)count, 1 - theta)) / (1 - (1 + pow(0.5, theta)) / zipf.zeta_n);
    return zipf;
}

uint64_t bench_zipf_at(const struct bench_zipf *zipf, double share)
{
    double place = share * zipf->zeta_n;
    double number;

    if (place < 1) {
        return 0;
    }
    if (place < 1 + pow(0.5, zipf->theta)) {
        return zipf->count > 1 ? 1 : 0;
    }
    number = (double)zipf->count * pow(zipf->eta * share - zipf->eta + 1, zipf->alpha);
    return number >= (double)zipf->count ? zipf->count - 1 : (uint64_t)number;
}

/* As YCSB has it, FNV-1a of the number spreads the frequent ones over all keys. */
static uint64_t scramble(uint64_t number)
{
    uint64_t hash = 0xcbf29ce484222325u;

    for (int i = 0; i < 8; i++) {
        hash = (hash ^ (number & 0xff)) * 0x100000001b3u;
        number >>= 8;
    }
    return hash;
}

/* ---- the next keys ---- */

static size_t take_sequential(struct bench_keys *keys, uint64_t *ret_keys, size_t most)
{
    uint64_t first = atomic_fetch_add_explicit(keys->next, most, memory_order_relaxed);
    size_t n = 0;

    while (n < most && first + n < keys->count) {
        ret_keys[n] = first + n;
        n++;
    }
    return n;
}

size_t bench_keys_take(struct bench_keys *keys, uint64_t *ret_keys, size_t most)
{
    if (keys->order == BENCH_SEQUENTIAL) {
        return take_sequential(keys, ret_keys, most);
    }
    for (size_t i = 0; i < most; i++) {
        ret_keys[i] =
            keys->order == BENCH_UNIFORM
                ? bench_random_below(&keys->random, keys->count)
                : scramble(bench_zipf_at(&keys->zipf, bench_random_share(&keys->random))) %
                      keys->count;
    }
    return most;
}

/* ---- bytes ---- */

void bench_key_write(uint8_t *out, uint64_t key)
{
    memcpy(out, "key:", 4);
    for (size_t i = BENCH_KEY_LENGTH; i > 4; i--) {
        out[i - 1] = (uint8_t)('0' + key % 10);
        key /= 10;
    }
}

/* Eight characters from '0' to 'p' at once, six random bits in each; the one among them that JSON escapes, the
 * backslash, becomes the 'p'. */
static uint64_t eight_characters(struct bench_random *random)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t word = (bench_random_next(random) & ones * 0x3f) + ones * '0';
    uint64_t differs = (word ^ ones * '\\') + ones * 0x7f; /* its high bits: not a backslash */

    return word + (~differs >> 7 & ones) * ('p' - '\\');
}

void bench_value_write(uint8_t *out, size_t length, struct bench_random *random)
{
    size_t half = length / 2;
    size_t done = 0;
    uint64_t word;

    for (; half - done >= sizeof word; done += sizeof word) {
        word = eight_characters(random);
        memcpy(out + done, &word, sizeof word);
    }
    if (done < half) {
        word = eight_characters(random);
        memcpy(out + done, &word, half - done);
    }
    memset(out + half, 'x', length - half);
}
