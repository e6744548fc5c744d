/* See schedule.h. Pure functions. */
#include "nexus-bench/schedule.h"

#include "nexus-bench/clock.h"

/* The part of thread `number` of what all of them do together. */
static uint64_t part_of(uint64_t all, uint64_t threads, uint64_t number)
{
    return all / threads + (number < all % threads ? 1 : 0);
}

struct bench_schedule bench_schedule_of(const struct bench_options *options,
                                        uint64_t number,
                                        uint64_t start_ns)
{
    struct bench_schedule schedule = {
        .start_ns = start_ns,
        .count_from_ns = start_ns + options->warmup_ns,
        .end_ns = UINT64_MAX,
        .left = UINT64_MAX,
    };

    if (options->duration_ns > 0) {
        schedule.end_ns = schedule.count_from_ns + options->duration_ns;
    }
    if (options->requests > 0) {
        schedule.left = part_of(options->requests, options->threads, number);
    }
    if (options->rate > 0) {
        schedule.interval_ns = BENCH_SECOND_NS / options->rate * (double)options->threads;
        schedule.offset_ns = BENCH_SECOND_NS / options->rate * (double)number;
    }
    return schedule;
}

uint64_t bench_schedule_due(struct bench_schedule *schedule)
{
    uint64_t due;

    if (schedule->ended) {
        return UINT64_MAX;
    }
    due = schedule->start_ns +
          (uint64_t)(schedule->offset_ns + (double)schedule->issued * schedule->interval_ns);
    if (due >= schedule->end_ns || schedule->left == 0) {
        schedule->ended = true;
        return UINT64_MAX;
    }
    return due;
}

bool bench_schedule_take(struct bench_schedule *schedule, uint64_t due_ns, bool *ret_counted)
{
    bool counted = due_ns >= schedule->count_from_ns;

    if (due_ns >= schedule->end_ns || (counted && schedule->left == 0)) {
        schedule->ended = true;
    }
    if (schedule->ended) {
        return false;
    }
    schedule->issued++;
    if (counted && schedule->left != UINT64_MAX) {
        schedule->left--;
    }
    *ret_counted = counted;
    return true;
}
