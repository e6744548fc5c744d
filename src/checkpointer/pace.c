/* Runs in the checkpointer. See pace.h. */
#include "checkpointer/pace.h"

#include "common/latch.h"
#include "common/order.h"

#include <poll.h>

#define SHARE     4    /* a stage takes this part of the time between merges ... */
#define SPREAD_MS 2000 /* ... at most ... */
#define PIECE_MS  8    /* ... and no more than this a piece */
#define LOOK_MS   20   /* between looks whether it has become urgent */

uint64_t nx_pace_spread(uint64_t interval_ms, unsigned pieces)
{
    return nx_lower(interval_ms / SHARE, nx_lower(SPREAD_MS, (uint64_t)pieces * PIECE_MS));
}

void nx_pace_begin(struct nx_pace *pace)
{
    uint64_t now = nx_now_ms();

    pace->interval_ms = pace->began_ms == 0 ? UINT64_MAX : now - pace->began_ms;
    pace->began_ms = now;
}

static bool hurries(struct nx_pace *pace)
{
    return nx_process_stopping(pace->process) || pace->urgent(pace->arg);
}

/* Sleeps for a moment, unless the postmaster says something. */
static void look(struct nx_pace *pace, uint64_t most_ms)
{
    struct pollfd control = {.fd = pace->process->control.fd, .events = POLLIN};

    if (poll(&control, 1, (int)nx_lower(most_ms, LOOK_MS)) > 0) {
        (void)nx_process_control(pace->process, NULL, 0);
    }
    if (pace->meanwhile != NULL) {
        pace->meanwhile(pace->arg);
    }
}

static void pause_stage(void *arg, unsigned done, unsigned pieces)
{
    struct nx_pace *pace = arg;
    uint64_t now = nx_now_ms();

    if (done <= 1) {
        pace->stage_ms = now;
    }
    uint64_t due = pace->stage_ms + nx_pace_spread(pace->interval_ms, pieces) * done / pieces;

    while (now < due && !hurries(pace)) {
        look(pace, due - now);
        now = nx_now_ms();
    }
}

struct nx_pause nx_pace_pause(struct nx_pace *pace)
{
    return (struct nx_pause){.call = pause_stage, .arg = pace};
}
