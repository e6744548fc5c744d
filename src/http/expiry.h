/* Expiry as clients ask for it: seconds from now, or a moment. What is stored is the moment. */
#ifndef NX_HTTP_EXPIRY_H
#define NX_HTTP_EXPIRY_H

#include "common/entry.h"
#include "common/log_clock.h"

#include <stdint.h>

#define NX_MAX_TTL_S      3153600000u      /* a hundred years */
#define NX_MAX_EXPIRES_AT 253402300799999u /* Unix ms; the end of the year 9999 */

/* What expires in ttl_s seconds (at most NX_MAX_TTL_S; 0: never) expires at: Unix ms, or 0. */
static inline uint64_t nx_expires_in(const struct nx_shm *shm, uint64_t ttl_s)
{
    return ttl_s == 0 ? 0 : nx_log_clock_ms(shm) + ttl_s * 1000;
}

/* A put's expiry; 0: none. */
static inline void nx_op_expire(struct nx_op *op, uint64_t expires_at)
{
    op->flags = expires_at == 0 ? 0 : NX_OP_HAS_EXPIRY;
    op->expires_at = expires_at;
}

#endif
