/* Runs in every process; writes only for the clock's one writer. See log_clock.h. */
#include "common/log_clock.h"

#include "common/latch.h"

#include <stdatomic.h>

/* What a clock that is ahead loses at a stamp: of the time since the last one this part, since clocks of two machines drift
 * apart by less, and never as much as a millisecond, by which keys expire. */
#define SLEW_PART    2000
#define SLEW_MOST_US 500

/* Further apart than a stamp's way takes. */
#define STEP_US 1000000

/* The year 9999: nobody means a later stamp. */
#define STAMP_MOST 253402300800000000ull

uint64_t nx_log_clock_us(const struct nx_shm *shm)
{
    uint64_t lead = atomic_load_explicit(&shm->clock.lead_us, memory_order_acquire);

    return lead == 0 ? nx_wall_us() : nx_boot_us() + lead;
}

uint64_t nx_log_clock_ms(const struct nx_shm *shm)
{
    return nx_log_clock_us(shm) / 1000;
}

/* What the clock shows as CLOCK_BOOTTIME is boot_us. */
static void publish(struct nx_shm *shm, uint64_t boot_us, uint64_t now_us)
{
    /* A lead of 0 says that it isn't known. */
    atomic_store_explicit(&shm->clock.heard_us, boot_us, memory_order_relaxed);
    atomic_store_explicit(&shm->clock.lead_us, now_us > boot_us ? now_us - boot_us : 1,
                          memory_order_release);
}

void nx_log_clock_set(struct nx_shm *shm, uint64_t now_us)
{
    publish(shm, nx_boot_us(), now_us);
}

void nx_log_clock_hear(struct nx_shm *shm, uint64_t stamp_us, bool anew)
{
    uint64_t lead = atomic_load_explicit(&shm->clock.lead_us, memory_order_relaxed);
    uint64_t boot = nx_boot_us();
    uint64_t now = boot + lead;
    uint64_t slew =
        (boot - atomic_load_explicit(&shm->clock.heard_us, memory_order_relaxed)) / SLEW_PART;

    slew = slew < SLEW_MOST_US ? slew : SLEW_MOST_US;
    if (stamp_us == 0 || stamp_us > STAMP_MOST) {
        return;
    }
    if (lead == 0 || stamp_us >= now || (anew && now - stamp_us > STEP_US)) {
        publish(shm, boot, stamp_us);
    } else if (slew > 0) { /* else it is too soon: the time since the last one goes on counting */
        publish(shm, boot, now - stamp_us < slew ? stamp_us : now - slew);
    }
}
