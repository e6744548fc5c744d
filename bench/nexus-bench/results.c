/* See results.h. Pure functions. */
#include "nexus-bench/results.h"

#include <ctype.h>
#include <stdio.h>

/* The first bad answer in words: what was asked, and the beginning of what came. */
static void keep_error(struct bench_results *results,
                       const struct bench_request *request,
                       const struct bench_answer *answer)
{
    char status[32] = "";
    char text[384];
    size_t length = answer->text.length < sizeof text - 1 ? answer->text.length : sizeof text - 1;

    for (size_t i = 0; i < length; i++) {
        text[i] = (char)(isprint(answer->text.data[i]) != 0 ? answer->text.data[i] : '.');
    }
    text[length] = '\0';
    if (answer->status != 0) {
        (void)snprintf(status, sizeof status, " %u", answer->status);
    }
    (void)snprintf(results->error, sizeof results->error, "%s was answered%s: %s",
                   bench_operation_name(request->operation), status,
                   length > 0                       ? text
                   : answer->result == BENCH_ABSENT ? "there is no such key"
                                                    : "without a text");
}

void bench_results_add(struct bench_results *results,
                       const struct bench_request *request,
                       const struct bench_answer *answer,
                       uint64_t latency_ns)
{
    struct bench_counts *counts = &results->by_operation[request->operation];

    results->answers[answer->status != 0 ? answer->status % BENCH_STATUSES
                                         : (unsigned)answer->result]++;
    if (answer->result == BENCH_FAILED ||
        (answer->result == BENCH_ABSENT && !results->absent_is_good)) {
        counts->errors++;
        if (results->error[0] == '\0') {
            keep_error(results, request, answer);
        }
        return;
    }
    counts->requests++;
    counts->operations += request->count;
    results->value_bytes += bench_written(request, results->value) + answer->value_bytes;
    bench_histogram_add(&counts->latency, latency_ns);
}

void bench_results_merge(struct bench_results *to, const struct bench_results *from)
{
    for (size_t i = 0; i < BENCH_KINDS; i++) {
        to->by_operation[i].operations += from->by_operation[i].operations;
        to->by_operation[i].requests += from->by_operation[i].requests;
        to->by_operation[i].errors += from->by_operation[i].errors;
        bench_histogram_merge(&to->by_operation[i].latency, &from->by_operation[i].latency);
    }
    for (size_t i = 0; i < BENCH_STATUSES; i++) {
        to->answers[i] += from->answers[i];
    }
    to->value_bytes += from->value_bytes;
    to->polls += from->polls;
    to->unanswered += from->unanswered;
    to->unsent += from->unsent;
    to->last_ns = from->last_ns > to->last_ns ? from->last_ns : to->last_ns;
    if (to->error[0] == '\0') {
        memcpy(to->error, from->error, sizeof to->error);
    }
    if (to->gone[0] == '\0') {
        memcpy(to->gone, from->gone, sizeof to->gone);
    }
}

uint64_t bench_results_operations(const struct bench_results *results)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < BENCH_KINDS; i++) {
        sum += results->by_operation[i].operations;
    }
    return sum;
}

uint64_t bench_results_errors(const struct bench_results *results)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < BENCH_KINDS; i++) {
        sum += results->by_operation[i].errors;
    }
    return sum;
}
