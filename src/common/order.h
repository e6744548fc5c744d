/* The lower and the higher of two numbers: offsets, epochs; the shorter of two waits. */
#ifndef NX_COMMON_ORDER_H
#define NX_COMMON_ORDER_H

#include <stdint.h>

static inline uint64_t nx_lower(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t nx_higher(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Of two timeouts in milliseconds, as poll has them: negative is for ever. */
static inline int nx_shorter_wait(int a, int b)
{
    if (a < 0 || b < 0) {
        return a < 0 ? b : a;
    }
    return a < b ? a : b;
}

#endif
