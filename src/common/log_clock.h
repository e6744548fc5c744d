/* The log clock: the time that stamps entries and by which keys expire, the same on all nodes but for what
 * a stamp takes to arrive. Whatever becomes of the wall clock, it goes on with CLOCK_BOOTTIME from where it
 * began. On a master the walwriter begins it, and it never steps; a replica's follows the stamps of its
 * master (nx_log_clock_hear).
 *
 * In shared memory it is one number, its lead over CLOCK_BOOTTIME, so that it is read without a lock. */
#ifndef NX_COMMON_LOG_CLOCK_H
#define NX_COMMON_LOG_CLOCK_H

#include "common/shm_layout.h"

#include <stdbool.h>
#include <stdint.h>

/* The time now, Unix us and ms. The wall clock before anything else is known. */
uint64_t nx_log_clock_us(const struct nx_shm *shm);
uint64_t nx_log_clock_ms(const struct nx_shm *shm);

/* Sets it to what it is now: its writer alone (shm_layout.h). */
void nx_log_clock_set(struct nx_shm *shm, uint64_t now_us);

/* A replica hears a stamp of its master, Unix us: that moment has passed there. Where the clock is ahead it loses less
 * than a millisecond at a stamp, and at most 1 ms in 2 s, until it isn't. anew: the first one in an epoch, and a fresh
 * one. A clock that is more than a second ahead of it was never that master's: it is set back then. */
void nx_log_clock_hear(struct nx_shm *shm, uint64_t stamp_us, bool anew);

/* Whether what expires at expires_at (Unix ms, 0: never) has expired at clock_ms. */
static inline bool nx_expired(uint64_t expires_at, uint64_t clock_ms)
{
    return expires_at != 0 && expires_at <= clock_ms;
}

#endif
