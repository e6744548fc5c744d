/* Why a conversation is over: noted by any part of the walsender, acted on by its loop. Runs in
 * walsenders; owns nothing but its part of two counts. */
#include "common/latch.h"
#include "walsender/walsender.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define PERIOD_MS 10000
#define MOST      50 /* lines in a period */

void nx_walsender_end(struct nx_walsender *ws,
                      enum nx_ending_kind kind,
                      uint32_t code,
                      const char *format,
                      ...)
{
    va_list args;

    if (nx_walsender_ended(ws)) {
        return;
    }
    ws->ending.kind = kind;
    ws->ending.code = code;
    va_start(args, format);
    (void)vsnprintf(ws->ending.text, sizeof ws->ending.text, format, args);
    va_end(args);
}

/* Each connection has a process of its own, so the count is all walsenders' together. */
bool nx_walsender_may_say(struct nx_walsender *ws, char *more, size_t cap)
{
    struct nx_control_block *control = &ws->shm->control;
    nx_atomic_u64 *lines =
        ws->ending.kind == NX_ENDING_REFUSED ? &control->refusals : &control->departures;
    uint64_t period = nx_now_ms() / PERIOD_MS;
    uint64_t old = atomic_load_explicit(lines, memory_order_relaxed);
    uint64_t count;

    do {
        count = old >> 32 == period ? old & UINT32_MAX : 0;
    } while (!atomic_compare_exchange_weak_explicit(lines, &old, period << 32 | (count + 1),
                                                    memory_order_relaxed, memory_order_relaxed));
    uint64_t before = count == 0 ? old & UINT32_MAX : 0;

    more[0] = '\0';
    if (before > MOST) {
        (void)snprintf(more, cap, " (%" PRIu64 " more were left out)", before - MOST);
    }
    return count < MOST;
}
