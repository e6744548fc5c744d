/* Runs in every process. Owns nothing but the doorbells' descriptors; see latch.h for the loops. */
#include "common/latch.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_POLL_FDS 8

static int doorbells[NX_MAX_SLOTS];

int nx_latch_create_doorbells(void)
{
    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        doorbells[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (doorbells[i] < 0) {
            return -errno;
        }
    }
    return 0;
}

int nx_latch_fd(unsigned slot)
{
    return doorbells[slot];
}

void nx_latch_prepare(struct nx_shm *shm, unsigned slot, uint64_t wake_offset)
{
    nx_latch_prepare_both(shm, slot, wake_offset, NX_WAKE_NEVER);
}

void nx_latch_prepare_both(struct nx_shm *shm,
                           unsigned slot,
                           uint64_t wake_offset,
                           uint64_t wake_quorum)
{
    struct nx_latch *latch = &shm->slots[slot].latch;

    atomic_store_explicit(&latch->wake_offset, wake_offset, memory_order_relaxed);
    atomic_store_explicit(&latch->wake_quorum, wake_quorum, memory_order_relaxed);
    atomic_store_explicit(&latch->sleeping, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);
}

void nx_latch_cancel(struct nx_shm *shm, unsigned slot)
{
    uint64_t rings;

    atomic_store_explicit(&shm->slots[slot].latch.sleeping, 0, memory_order_relaxed);
    if (read(doorbells[slot], &rings, sizeof rings) < 0) {
        return; /* EAGAIN: nobody rang */
    }
}

static void ring(unsigned slot)
{
    static const uint64_t one = 1;

    if (write(doorbells[slot], &one, sizeof one) < 0) {
        return; /* EAGAIN: the counter is full, so the bell rings already */
    }
}

void nx_latch_ring(struct nx_shm *shm, unsigned slot)
{
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&shm->slots[slot].latch.sleeping, memory_order_relaxed) != 0) {
        ring(slot);
    }
}

void nx_latch_ring_durable(struct nx_shm *shm, uint64_t durable_offset)
{
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        const struct nx_latch *latch = &shm->slots[i].latch;

        if (atomic_load_explicit(&latch->sleeping, memory_order_relaxed) != 0 &&
            atomic_load_explicit(&latch->wake_offset, memory_order_relaxed) <= durable_offset) {
            ring(i);
        }
    }
}

void nx_latch_ring_quorum(struct nx_shm *shm, uint64_t quorum_offset)
{
    atomic_thread_fence(memory_order_seq_cst);
    for (unsigned i = 0; i < NX_MAX_SLOTS; i++) {
        const struct nx_latch *latch = &shm->slots[i].latch;

        if (atomic_load_explicit(&latch->sleeping, memory_order_relaxed) != 0 &&
            atomic_load_explicit(&latch->wake_quorum, memory_order_relaxed) <= quorum_offset) {
            ring(i);
        }
    }
}

int nx_latch_poll(unsigned slot, struct pollfd *fds, unsigned count, int timeout_ms)
{
    struct pollfd all[MAX_POLL_FDS] = {{.fd = doorbells[slot], .events = POLLIN}};

    if (count > MAX_POLL_FDS - 1) {
        return -EINVAL;
    }
    memcpy(all + 1, fds, count * sizeof *fds);
    int ready = poll(all, count + 1, timeout_ms);

    if (ready < 0) {
        for (unsigned i = 0; i < count; i++) {
            fds[i].revents = 0;
        }
        return errno == EINTR ? 0 : -errno;
    }
    memcpy(fds, all + 1, count * sizeof *fds);
    return ready;
}

static uint64_t clock_us(clockid_t clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

uint64_t nx_now_ms(void)
{
    return clock_us(CLOCK_MONOTONIC) / 1000;
}

uint64_t nx_now_us(void)
{
    return clock_us(CLOCK_MONOTONIC);
}

uint64_t nx_boot_us(void)
{
    return clock_us(CLOCK_BOOTTIME);
}

uint64_t nx_wall_ms(void)
{
    return clock_us(CLOCK_REALTIME) / 1000;
}

uint64_t nx_wall_us(void)
{
    return clock_us(CLOCK_REALTIME);
}
