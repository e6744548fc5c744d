/* nexus-bench-limits: floors that the benchmarks compare with, measured in the same run.
 *
 *   nexus-bench-limits sync DIR [COUNT]         4 KiB over written blocks and fdatasync, each
 *   nexus-bench-limits direct DIR [COUNT]       the same with O_DIRECT and O_DSYNC
 *   nexus-bench-limits round-trip [COUNT]       64 bytes over loopback TCP and back
 *   nexus-bench-limits http PORT                an HTTP server that does nothing: 200, no body
 *   nexus-bench-limits take SLICE_US EVERY_US   takes so much processor time so often
 *
 * Prints one JSON object; `http` and `take` print nothing and run until a signal ends them. */
#include "limits.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MOST_SAMPLES      ((size_t)1000000)
#define USUAL_SYNCS       ((size_t)3000)
#define LONGEST_US        ((size_t)1000000)
#define USUAL_ROUND_TRIPS ((size_t)20000)

double now_us(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec * 1e-3;
}

void fail(const char *what)
{
    fputs("nexus-bench-limits: ", stderr);
    perror(what);
    exit(1);
}

void samples_open(struct samples *samples, size_t room)
{
    samples->values = calloc(room, sizeof(double));
    samples->count = 0;
    samples->room = room;
    if (samples->values == NULL) {
        fail("memory");
    }
}

void samples_add(struct samples *samples, double us)
{
    if (samples->count < samples->room) {
        samples->values[samples->count++] = us;
    }
}

static int compare(const void *a, const void *b)
{
    double first = *(const double *)a;
    double second = *(const double *)b;

    return (first > second) - (first < second);
}

static double at_share(const struct samples *samples, double share)
{
    return samples->values[(size_t)(share * (double)(samples->count - 1))];
}

void samples_report(struct samples *samples, const char *name)
{
    double sum = 0;

    if (samples->count > 0) {
        qsort(samples->values, samples->count, sizeof(double), compare);
        for (size_t i = 0; i < samples->count; i++) {
            sum += samples->values[i];
        }
        printf("{\"name\": \"%s\", \"count\": %zu, \"mean_us\": %.1f, \"p50_us\": %.1f, "
               "\"p99_us\": %.1f, \"max_us\": %.1f}\n",
               name, samples->count, sum / (double)samples->count, at_share(samples, 0.5),
               at_share(samples, 0.99), at_share(samples, 1));
    }
    free(samples->values);
}

/* The argument, a whole number from 1 to most; without one what is usual. */
static size_t number(const char *argument, size_t usual, size_t most)
{
    char *end = NULL;
    unsigned long value;

    if (argument == NULL) {
        return usual;
    }
    errno = 0;
    value = strtoul(argument, &end, 10);
    if (errno != 0 || end == argument || *end != '\0' || value < 1 || value > most) {
        fprintf(stderr, "nexus-bench-limits: not a number from 1 to %zu: %s\n", most, argument);
        exit(2);
    }
    return value;
}

static int usage(void)
{
    fputs("usage: nexus-bench-limits sync DIR [COUNT] | direct DIR [COUNT] | round-trip [COUNT] | "
          "http PORT | take SLICE_US EVERY_US\n",
          stderr);
    return 2;
}

int main(int argc, char **argv)
{
    const char *second = argc > 2 ? argv[2] : NULL;
    const char *third = argc > 3 ? argv[3] : NULL;
    const char *what = argc > 1 ? argv[1] : "";

    if (strcmp(what, "sync") == 0 && second != NULL) {
        measure_syncs(second, number(third, USUAL_SYNCS, MOST_SAMPLES), 0);
    } else if (strcmp(what, "direct") == 0 && second != NULL) {
        measure_syncs(second, number(third, USUAL_SYNCS, MOST_SAMPLES), 1);
    } else if (strcmp(what, "round-trip") == 0) {
        measure_round_trips(number(second, USUAL_ROUND_TRIPS, MOST_SAMPLES));
    } else if (strcmp(what, "http") == 0 && second != NULL) {
        serve_nothing((uint16_t)number(second, 0, UINT16_MAX));
    } else if (strcmp(what, "take") == 0 && second != NULL && third != NULL) {
        take_slices(number(second, 0, LONGEST_US), number(third, 0, LONGEST_US));
    } else {
        return usage();
    }
    return 0;
}
