/* A program that takes a share of the processors in slices, as a server does that is woken over and over:
 * what is left beside some of them is what any neighbour would leave. */
#include "limits.h"

#include <errno.h>
#include <time.h>

#define NS_PER_US ((uint64_t)1000)
#define NS_PER_S  ((uint64_t)1000000000)

static uint64_t read_clock(clockid_t clock)
{
    struct timespec time;

    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * NS_PER_S + (uint64_t)time.tv_nsec;
}

static void sleep_until(uint64_t ns)
{
    struct timespec time = {.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL) == EINTR) {
    }
}

_Noreturn void take_slices(uint64_t slice_us, uint64_t every_us)
{
    uint64_t due = read_clock(CLOCK_MONOTONIC);

    for (;;) {
        /* By its own processor time: what others take meanwhile is no part of the slice. */
        uint64_t end = read_clock(CLOCK_PROCESS_CPUTIME_ID) + slice_us * NS_PER_US;
        uint64_t now;

        while (read_clock(CLOCK_PROCESS_CPUTIME_ID) < end) {
        }
        now = read_clock(CLOCK_MONOTONIC);
        due += every_us * NS_PER_US;
        if (due > now) {
            sleep_until(due);
        } else {
            due = now; /* late: what was missed is not made up for */
        }
    }
}
