/* Waiting and waking between processes. One doorbell (an eventfd) a slot, all made before the first
 * fork, so that anybody can ring anybody; an eventfd can't fill up and needs one descriptor where a
 * pipe needs two.
 *
 * The correct loop of a sleeper:
 *
 *     for (;;) {
 *         do_all_work_there_is();
 *         nx_latch_prepare(shm, slot, wake_offset);   // sleeping = 1, seq_cst fence
 *         if (there_is_work_after_all()) {            // look once more
 *             nx_latch_cancel(shm, slot);
 *             continue;
 *         }
 *         poll(doorbell and others, timeout);         // or event_base_loop
 *         nx_latch_cancel(shm, slot);                 // sleeping = 0, drains the doorbell
 *     }
 *
 * and of a waker: publish, then nx_latch_ring (seq_cst fence, looks at the flag, rings).
 * Either the sleeper sees what was published or the waker sees the flag. A ring too many is
 * harmless. */
#ifndef NX_COMMON_LATCH_H
#define NX_COMMON_LATCH_H

#include "common/shm_layout.h"

#include <poll.h>

#define NX_WAKE_NEVER UINT64_MAX

/* Makes the doorbells of all slots; once, in the postmaster, before the first fork (they outlive
 * crash restarts). 0 or -errno. */
int nx_latch_create_doorbells(void);

/* The descriptor that becomes readable when the slot is rung (for poll and libevent). */
int nx_latch_fd(unsigned slot);

/* Announces sleep. wake_offset: also be rung when durable_offset reaches it, or NX_WAKE_NEVER. */
void nx_latch_prepare(struct nx_shm *shm, unsigned slot, uint64_t wake_offset);

/* The same; wake_quorum: also be rung when the quorum's offset reaches it, or NX_WAKE_NEVER. */
void nx_latch_prepare_both(struct nx_shm *shm,
                           unsigned slot,
                           uint64_t wake_offset,
                           uint64_t wake_quorum);

/* Awake again: clears the flag and drains the doorbell (the latter only if it was rung). */
void nx_latch_cancel(struct nx_shm *shm, unsigned slot);

/* Wakes the slot's process if it sleeps or is about to. Never blocks. */
void nx_latch_ring(struct nx_shm *shm, unsigned slot);

/* The walwriter, after publishing durable_offset: rings every sleeper whose wake_offset it reached. */
void nx_latch_ring_durable(struct nx_shm *shm, uint64_t durable_offset);

/* Whoever has raised the quorum's offset: rings every sleeper whose wake_quorum it reached. */
void nx_latch_ring_quorum(struct nx_shm *shm, uint64_t quorum_offset);

/* poll() on the doorbell and on `count` (at most 7) further descriptors, between prepare and cancel.
 * timeout_ms -1: none. Returns as poll does; EINTR counts as 0. */
int nx_latch_poll(unsigned slot, struct pollfd *fds, unsigned count, int timeout_ms);

/* CLOCK_MONOTONIC in ms and in µs, CLOCK_BOOTTIME in µs, CLOCK_REALTIME in ms and in µs. */
uint64_t nx_now_ms(void);
uint64_t nx_now_us(void);
uint64_t nx_boot_us(void);
uint64_t nx_wall_ms(void);
uint64_t nx_wall_us(void);

#endif
