/* Runs in every process; writes only for the clock's one writer. See log_clock.h. */
#include "common/log_clock.h"

#include "common/latch.h"

#include <stdatomic.h>

/* Of the time between two stamps, what a clock that is ahead may lose: clocks of two machines drift apart by less. */
#define SLEW_PART 2000

/* Further apart than a stamp's way takes. */
#define STEP_US 1000000

/* The year 9999: nobody means a later stamp. */
#define STAMP_MOST 253402300800000000ull

static uint64_t now_by(uint64_t lead_us)
{
    return nx_boot_us() + lead_us;
}

uint64_t nx_log_clock_us(const struct nx_shm *shm)
{
    uint64_t lead = atomic_load_explicit(&shm->clock.lead_us, memory_order_acquire);

    return lead == 0 ? nx_wall_us() : now_by(lead);
}

uint64_t nx_log_clock_ms(const struct nx_shm *shm)
{
    return nx_log_clock_us(shm) / 1000;
}

void nx_log_clock_set(struct nx_shm *shm, uint64_t now_us)
{
    uint64_t boot = nx_boot_us();

    /* 0 says that it isn't known. */
    atomic_store_explicit(&shm->clock.heard_us, boot, memory_order_relaxed);
    atomic_store_explicit(&shm->clock.lead_us, now_us > boot ? now_us - boot : 1,
                          memory_order_release);
}

void nx_log_clock_hear(struct nx_shm *shm, uint64_t stamp_us, bool anew)
{
    uint64_t lead = atomic_load_explicit(&shm->clock.lead_us, memory_order_relaxed);
    uint64_t heard = atomic_load_explicit(&shm->clock.heard_us, memory_order_relaxed);
    uint64_t boot = nx_boot_us();
    uint64_t least = now_by(lead) - (boot - heard) / SLEW_PART;

    bool other = lead == 0 || (anew && least > stamp_us + STEP_US);

    if (stamp_us != 0 && stamp_us <= STAMP_MOST) {
        nx_log_clock_set(shm, other || stamp_us > least ? stamp_us : least);
    }
}
