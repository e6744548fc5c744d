/* The lower and the higher of two numbers: offsets, epochs. */
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

#endif
