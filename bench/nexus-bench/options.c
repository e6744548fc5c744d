/* See options.h. Pure functions. */
#include "nexus-bench/options.h"

#include "common/edit_distance.h"
#include "nexus-bench/option_table.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LEAST_PROBE      16   /* bytes of a value, half of them random, that no other one has */
#define MOST_PROBE       4096 /* bytes that surely come as one piece */
#define DEFAULT_DURATION 10000000000u
#define DEFAULT_CLIENTS  64

static const struct bench_option *find(const char *name,
                                       size_t length,
                                       const struct bench_option **ret_near)
{
    unsigned best = UINT32_MAX;
    char text[32];

    (void)snprintf(text, sizeof text, "%.*s", length < sizeof text ? (int)length : 31, name);
    for (size_t i = 0; i < bench_option_count; i++) {
        unsigned distance = nx_edit_distance(text, bench_option_table[i].name);

        if (strcmp(text, bench_option_table[i].name) == 0) {
            return &bench_option_table[i];
        }
        if (distance < best) {
            best = distance;
            *ret_near = &bench_option_table[i];
        }
    }
    return NULL;
}

/* Takes the option at *i, and its value from the same argument ("--x=1") or the next one. */
static int take_argument(struct bench_options *options,
                         int argc,
                         char **argv,
                         int *i,
                         struct bench_complaint *complaint)
{
    const char *argument = argv[*i];
    const char *equals = strchr(argument, '=');
    size_t length = equals == NULL ? strlen(argument) : (size_t)(equals - argument);
    const struct bench_option *near = &bench_option_table[0];
    const struct bench_option *option = find(argument, length, &near);
    const char *value = equals == NULL ? NULL : equals + 1;

    if (option == NULL) {
        (void)snprintf(complaint->text, complaint->cap,
                       "unknown option \"%.60s\"; did you mean %s? (--help lists all)", argument,
                       near->name);
        return -EINVAL;
    }
    complaint->option = option->name;
    if (option->value == NULL && value != NULL) {
        (void)snprintf(complaint->text, complaint->cap, "%s takes no value", option->name);
        return -EINVAL;
    }
    if (option->value != NULL && value == NULL) {
        if (*i + 1 == argc) {
            (void)snprintf(complaint->text, complaint->cap, "%s needs a value: %s", option->name,
                           option->value);
            return -EINVAL;
        }
        value = argv[++*i];
    }
    return bench_option_take(option, options, value, complaint);
}

/* What doesn't go together. NULL: all does. */
static const char *contradiction(const struct bench_options *options)
{
    if (options->pipeline > 1 && !options->protocol->pipelines) {
        return "--pipeline: this protocol has one request under way on a connection";
    }
    if ((options->header_count > 0 || options->token_file != NULL) && !options->protocol->headers) {
        return "--header and --token-file: for http alone";
    }
    if (options->threads > options->clients) {
        return "--threads: more than --clients, so that some would have no connection";
    }
    if (options->probe && (options->value < LEAST_PROBE || options->value > MOST_PROBE)) {
        return "--value: a probe's is 16 to 4096 bytes";
    }
    if (options->probe && (options->rate > 0 || options->target_count > 1)) {
        return "--lag: has one --target, and no --rate";
    }
    if (options->probe && ((options->clients != 1 && options->clients != DEFAULT_CLIENTS) ||
                           options->threads > 1 || options->pipeline > 1)) {
        return "--lag: is one client's, with one request under way";
    }
    if (options->probe && options->weights[BENCH_PUT] != options->weight) {
        return "--lag: writes a key and reads it, whatever the --mix: leave that out";
    }
    return NULL;
}

/* What follows from other options: a probe is one client's, and something must end each run. */
static void complete(struct bench_options *options)
{
    if (options->probe) {
        options->clients = 1;
        options->threads = 1;
        options->pipeline = 1;
    }
    if (options->duration_ns == 0 && options->requests == 0 &&
        (options->probe || options->order != BENCH_SEQUENTIAL)) {
        options->duration_ns = DEFAULT_DURATION;
    }
}

static void set_defaults(struct bench_options *options)
{
    *options = (struct bench_options){
        .protocol = bench_protocol_find("http"),
        .target_count = 1,
        .clients = DEFAULT_CLIENTS,
        .threads = 1,
        .pipeline = 1,
        .batch = 1000,
        .value = 100,
        .keys = 1000000,
        .mix = "put=1",
        .weights = {[BENCH_PUT] = 1},
        .weight = 1,
        .order_text = "uniform",
    };
    (void)bench_target_set(&options->targets[0], "127.0.0.1:15474");
}

int bench_options_parse(int argc,
                        char **argv,
                        struct bench_options *ret_options,
                        char *error,
                        size_t cap)
{
    struct bench_options options;
    struct bench_complaint complaint = {.text = error, .cap = cap};
    const char *wrong;

    set_defaults(&options);
    for (int i = 1; i < argc && options.action == BENCH_RUN; i++) {
        int rc = take_argument(&options, argc, argv, &i, &complaint);

        if (rc < 0) {
            return rc;
        }
    }
    wrong = contradiction(&options);
    if (wrong != NULL && options.action == BENCH_RUN) {
        (void)snprintf(error, cap, "%s", wrong);
        return -EINVAL;
    }
    complete(&options);
    *ret_options = options;
    return 0;
}

enum bench_operation bench_options_draw(const struct bench_options *options, uint64_t draw)
{
    size_t operation = 0;

    while (draw >= options->weights[operation]) {
        draw -= options->weights[operation];
        operation++;
    }
    return (enum bench_operation)operation;
}
