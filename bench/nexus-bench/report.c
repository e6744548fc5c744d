/* See report.h. Pure functions. */
#include "nexus-bench/report.h"

#include "common/json_out.h"
#include "nexus-bench/clock.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

/* All that is told about a run, from what its threads have counted. */
struct summary {
    double seconds;
    uint64_t operations;
    uint64_t errors;
    double operations_per_s;
    double bytes_per_s;
    struct bench_histogram latency; /* of all operations together */
};

static struct summary summary_of(const struct bench_results *results)
{
    struct summary summary = {
        .operations = bench_results_operations(results),
        .errors = bench_results_errors(results),
    };

    if (results->last_ns > results->first_ns) {
        summary.seconds = (double)(results->last_ns - results->first_ns) / BENCH_SECOND_NS;
        summary.operations_per_s = (double)summary.operations / summary.seconds;
        summary.bytes_per_s = (double)results->value_bytes / summary.seconds;
    }
    for (size_t i = 0; i < BENCH_KINDS; i++) {
        bench_histogram_merge(&summary.latency, &results->by_operation[i].latency);
    }
    return summary;
}

static uint64_t requests_of(const struct bench_counts *counts)
{
    return counts->requests + counts->errors;
}

static const struct {
    const char *name;  /* in JSON */
    const char *title; /* for people */
    double share;
} quantiles[] = {{"p50", "p50", 0.5},
                 {"p90", "p90", 0.9},
                 {"p99", "p99", 0.99},
                 {"p999", "p99.9", 0.999}};

#define QUANTILES (sizeof quantiles / sizeof quantiles[0])

#define LATE 1.05 /* times what an open loop was to take */

/* ---- JSON ---- */

static void json_number(struct json *json, const char *name, double value)
{
    nx_json_thousandths(json, name, (uint64_t)llround(value * 1000));
}

/* Nanoseconds are thousandths of what is shown. */
static void json_latency(struct json *json, const struct bench_histogram *latency)
{
    nx_json_open(json, "latency_us", '{');
    nx_json_thousandths(json, "mean", bench_histogram_mean(latency));
    for (size_t i = 0; i < QUANTILES; i++) {
        nx_json_thousandths(json, quantiles[i].name,
                            bench_histogram_at(latency, quantiles[i].share));
    }
    nx_json_thousandths(json, "max", latency->max);
    nx_json_close(json, '}');
}

static const char *answer_name(size_t answer, char *number, size_t cap)
{
    static const char *const names[] = {
        [BENCH_DONE] = "ok", [BENCH_ABSENT] = "absent", [BENCH_FAILED] = "error"};

    if (answer < sizeof names / sizeof names[0]) {
        return names[answer];
    }
    (void)snprintf(number, cap, "%zu", answer);
    return number;
}

static void json_answers(struct json *json, const struct bench_results *results)
{
    char number[24];

    nx_json_open(json, "answers", '{');
    for (size_t i = 0; i < BENCH_STATUSES; i++) {
        if (results->answers[i] > 0) {
            nx_json_u64(json, answer_name(i, number, sizeof number), results->answers[i]);
        }
    }
    nx_json_close(json, '}');
}

static void json_operations(struct json *json, const struct bench_results *results)
{
    nx_json_open(json, "by_operation", '{');
    for (size_t i = 0; i < BENCH_KINDS; i++) {
        const struct bench_counts *counts = &results->by_operation[i];

        if (requests_of(counts) > 0) {
            nx_json_open(json, bench_operation_name((enum bench_operation)i), '{');
            nx_json_u64(json, "operations", counts->operations);
            nx_json_u64(json, "requests", counts->requests);
            nx_json_u64(json, "errors", counts->errors);
            json_latency(json, &counts->latency);
            nx_json_close(json, '}');
        }
    }
    nx_json_close(json, '}');
}

static void json_options(struct json *json, const struct bench_options *options)
{
    nx_json_string(json, "protocol", options->protocol->name);
    nx_json_string(json, "mix", options->probe ? "lag" : options->mix);
    nx_json_u64(json, "clients", options->clients);
    nx_json_u64(json, "threads", options->threads);
    nx_json_u64(json, "pipeline", options->pipeline);
    if (options->rate > 0) {
        json_number(json, "rate", options->rate);
    } else {
        nx_json_null(json, "rate");
    }
    nx_json_u64(json, "value", options->value);
    nx_json_u64(json, "batch", options->batch);
    nx_json_u64(json, "keys", options->keys);
    nx_json_string(json, "order", options->order_text);
    nx_json_u64(json, "seed", options->seed);
}

void bench_report_json(struct text *out,
                       const struct bench_options *options,
                       const struct bench_results *results)
{
    struct summary summary = summary_of(results);
    struct json json = nx_json_of(out);

    nx_json_open(&json, NULL, '{');
    json_options(&json, options);
    json_number(&json, "seconds", summary.seconds);
    nx_json_u64(&json, "operations", summary.operations);
    nx_json_u64(&json, "errors", summary.errors);
    nx_json_u64(&json, "unanswered", results->unanswered);
    nx_json_u64(&json, "unsent", results->unsent);
    json_answers(&json, results);
    json_number(&json, "operations_per_s", summary.operations_per_s);
    json_number(&json, "bytes_per_s", summary.bytes_per_s);
    json_latency(&json, &summary.latency);
    json_operations(&json, results);
    if (options->probe && summary.operations > 0) {
        json_number(&json, "polls", (double)results->polls / (double)summary.operations);
    }
    nx_json_close(&json, '}');
    (void)nx_text_puts(out, "\n");
}

/* ---- text ---- */

__attribute__((format(printf, 2, 3))) static void say(struct text *out, const char *format, ...)
{
    char line[1200];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    (void)nx_text_puts(out, line);
}

static const char *plural(uint64_t n)
{
    return n == 1 ? "" : "s";
}

static void say_options(struct text *out, const struct bench_options *options)
{
    if (options->probe) {
        say(out, "lag over %s: written at %s, seen at %s; %llu-byte values\n",
            options->protocol->name, options->targets[0].text, options->lag.text,
            (unsigned long long)options->value);
        return;
    }
    say(out, "%s over %s: %llu client%s, %llu thread%s, pipeline %llu, ", options->mix,
        options->protocol->name, (unsigned long long)options->clients, plural(options->clients),
        (unsigned long long)options->threads, plural(options->threads),
        (unsigned long long)options->pipeline);
    if (options->rate > 0) {
        say(out, "%.10g requests/s due, ", options->rate);
    }
    if (options->weights[BENCH_IMPORT] > 0) {
        say(out, "imports of %llu, ", (unsigned long long)options->batch);
    }
    say(out, "%llu-byte values, %llu keys, %s\n", (unsigned long long)options->value,
        (unsigned long long)options->keys, options->order_text);
}

static double microseconds(uint64_t ns)
{
    return (double)ns / 1000;
}

static void say_latency(struct text *out,
                        const char *name,
                        uint64_t operations,
                        const struct bench_histogram *latency)
{
    say(out, "  %-8s %12llu   mean %8.1f", name, (unsigned long long)operations,
        microseconds(bench_histogram_mean(latency)));
    for (size_t i = 0; i < QUANTILES; i++) {
        say(out, "  %s %8.1f", quantiles[i].title,
            microseconds(bench_histogram_at(latency, quantiles[i].share)));
    }
    say(out, "  max %8.1f us\n", microseconds(latency->max));
}

static void say_answers(struct text *out, const struct bench_results *results)
{
    char number[24];

    say(out, "  answers");
    for (size_t i = 0; i < BENCH_STATUSES; i++) {
        if (results->answers[i] > 0) {
            say(out, "  %s: %llu", answer_name(i, number, sizeof number),
                (unsigned long long)results->answers[i]);
        }
    }
    say(out, "\n");
}

/* Of an open loop that took longer than it was to: its latencies are those of a queue. */
static void say_lateness(struct text *out,
                         const struct bench_options *options,
                         const struct summary *summary)
{
    double wanted = (double)options->duration_ns / BENCH_SECOND_NS;

    if (options->rate > 0 && wanted > 0 && summary->seconds > wanted * LATE) {
        say(out, "  the rate is too high: what was due within %.3f s was done after %.3f s\n",
            wanted, summary->seconds);
    }
}

void bench_report_text(struct text *out,
                       const struct bench_options *options,
                       const struct bench_results *results)
{
    struct summary summary = summary_of(results);
    unsigned kinds = 0;

    say_options(out, options);
    say(out, "  %.0f operations/s, %.2f MB/s of values: %llu operation%s in %.3f s, %llu error%s\n",
        summary.operations_per_s, summary.bytes_per_s / 1e6, (unsigned long long)summary.operations,
        plural(summary.operations), summary.seconds, (unsigned long long)summary.errors,
        plural(summary.errors));
    for (size_t i = 0; i < BENCH_KINDS; i++) {
        const struct bench_counts *counts = &results->by_operation[i];

        if (requests_of(counts) > 0) {
            kinds++;
            say_latency(out, bench_operation_name((enum bench_operation)i), counts->operations,
                        &counts->latency);
        }
    }
    if (kinds > 1) {
        say_latency(out, "all", summary.operations, &summary.latency);
    }
    say_answers(out, results);
    say_lateness(out, options, &summary);
    if (options->probe && summary.operations > 0) {
        say(out, "  %.2f polls a probe\n", (double)results->polls / (double)summary.operations);
    }
}

/* ---- trouble ---- */

bool bench_report_trouble(struct text *out, const struct bench_results *results)
{
    uint64_t done = bench_results_operations(results);
    uint64_t errors = bench_results_errors(results);

    if (errors > 0) {
        say(out, "nexus-bench: %llu bad answer%s; the first: %s\n", (unsigned long long)errors,
            plural(errors), results->error);
    }
    if (results->gone[0] != '\0') {
        say(out,
            "nexus-bench: ended early: %s; until then %llu operation%s done, %llu bad answer%s\n",
            results->gone, (unsigned long long)done, plural(done), (unsigned long long)errors,
            plural(errors));
    }
    if (results->unanswered > 0) {
        say(out, "nexus-bench: %llu request%s without an answer: done or not, nobody knows\n",
            (unsigned long long)results->unanswered, plural(results->unanswered));
    }
    if (results->unsent > 0) {
        say(out, "nexus-bench: %llu request%s due and not sent\n",
            (unsigned long long)results->unsent, plural(results->unsent));
    }
    return out->length > 0;
}
