/* See options.h. Pure functions, but for the help. */
#include "nexus-bench/options.h"

#include "common/edit_distance.h"
#include "common/units.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_NS        1e9
#define MOST_SECONDS     (365.0 * 86400)
#define MOST_RATE        1e9
#define MOST_VALUE       ((uint64_t)1 << 30)
#define MOST_WEIGHT      1000000
#define LEAST_PROBE      16   /* bytes of a value, half of them random, that no other one has */
#define MOST_PROBE       4096 /* bytes that surely come as one piece */
#define DEFAULT_DURATION 10000000000u

/* Where a wrong option is told. */
struct complaint {
    const char *option;
    char *text;
    size_t cap;
};

static int complain(const struct complaint *complaint, const char *value, const char *expected)
{
    (void)snprintf(complaint->text, complaint->cap, "%s: \"%.60s\" is not what is expected: %s",
                   complaint->option, value, expected);
    return -EINVAL;
}

/* ---- numbers ---- */

/* A plain decimal number: digits, perhaps a point and digits. */
static int parse_decimal(const char *text, double most, double *ret_value)
{
    size_t digits = strspn(text, "0123456789");
    size_t rest = text[digits] == '.' ? 1 + strspn(text + digits + 1, "0123456789") : 0;
    double value;

    if (digits == 0 || rest == 1 || text[digits + rest] != '\0') {
        return -EINVAL;
    }
    value = strtod(text, NULL);
    if (!isfinite(value) || value > most) {
        return -EINVAL;
    }
    *ret_value = value;
    return 0;
}

int bench_parse_seconds(const char *text, uint64_t *ret_ns)
{
    double seconds;
    int rc = parse_decimal(text, MOST_SECONDS, &seconds);

    if (rc == 0) {
        *ret_ns = (uint64_t)llround(seconds * SECOND_NS);
    }
    return rc;
}

static int take_count(const char *value,
                      uint64_t least,
                      uint64_t most,
                      uint64_t *ret_count,
                      const struct complaint *complaint)
{
    uint64_t count;
    char expected[64];

    if (nx_parse_count(value, &count) < 0 || count < least || count > most) {
        (void)snprintf(expected, sizeof expected, "a number from %llu to %llu",
                       (unsigned long long)least, (unsigned long long)most);
        return complain(complaint, value, expected);
    }
    *ret_count = count;
    return 0;
}

/* ---- options.def ---- */

typedef int take_function(struct bench_options *options,
                          const char *value,
                          const struct complaint *complaint);

static int take_protocol(struct bench_options *options,
                         const char *value,
                         const struct complaint *complaint)
{
    options->protocol = bench_protocol_find(value);
    return options->protocol == NULL ? complain(complaint, value, "http, redis or etcd") : 0;
}

/* Calls take for each part of a list that commas divide. */
static int take_each(struct bench_options *options,
                     const char *list,
                     take_function *take,
                     const struct complaint *complaint)
{
    char part[NX_ADDR_SIZE];
    size_t length;
    int rc = 0;

    for (const char *p = list; rc == 0; p += length + 1) {
        length = strcspn(p, ",");
        (void)snprintf(part, sizeof part, "%.*s", length < sizeof part ? (int)length : 0, p);
        rc = take(options, part, complaint);
        if (p[length] == '\0') {
            break;
        }
    }
    return rc;
}

static int take_one_target(struct bench_options *options,
                           const char *value,
                           const struct complaint *complaint)
{
    if (options->target_count == BENCH_MOST_TARGETS) {
        return complain(complaint, value, "at most 64 addresses");
    }
    if (bench_target_set(&options->targets[options->target_count], value) < 0) {
        return complain(complaint, value, "HOST:PORT");
    }
    options->target_count++;
    return 0;
}

static int take_target(struct bench_options *options,
                       const char *value,
                       const struct complaint *complaint)
{
    options->target_count = 0;
    return take_each(options, value, take_one_target, complaint);
}

static int take_rate(struct bench_options *options,
                     const char *value,
                     const struct complaint *complaint)
{
    if (parse_decimal(value, MOST_RATE, &options->rate) < 0 || !(options->rate > 0)) {
        return complain(complaint, value, "requests a second, above 0");
    }
    return 0;
}

static int take_seconds(const char *value, uint64_t *ret_ns, const struct complaint *complaint)
{
    return bench_parse_seconds(value, ret_ns) < 0
               ? complain(complaint, value, "a number of seconds, as 10 or 0.5")
               : 0;
}

static int take_duration(struct bench_options *options,
                         const char *value,
                         const struct complaint *complaint)
{
    int rc = take_seconds(value, &options->duration_ns, complaint);

    return rc == 0 && options->duration_ns == 0 ? complain(complaint, value, "more than 0 seconds")
                                                : rc;
}

static int take_warmup(struct bench_options *options,
                       const char *value,
                       const struct complaint *complaint)
{
    return take_seconds(value, &options->warmup_ns, complaint);
}

/* "get=95" */
static int take_weight(struct bench_options *options,
                       const char *value,
                       const struct complaint *complaint)
{
    const char *equals = strchr(value, '=');
    size_t length = equals == NULL ? 0 : (size_t)(equals - value);

    for (size_t i = 0; i < BENCH_OPERATIONS; i++) {
        const char *name = bench_operation_name((enum bench_operation)i);

        if (strlen(name) == length && strncmp(value, name, length) == 0) {
            return take_count(equals + 1, 0, MOST_WEIGHT, &options->weights[i], complaint);
        }
    }
    return complain(complaint, value, "get=, put=, delete=, import= or wait=, and a weight");
}

static int take_mix(struct bench_options *options,
                    const char *value,
                    const struct complaint *complaint)
{
    int rc;

    memset(options->weights, 0, sizeof options->weights);
    rc = take_each(options, value, take_weight, complaint);
    options->mix = value;
    options->weight = 0;
    for (size_t i = 0; i < BENCH_OPERATIONS; i++) {
        options->weight += options->weights[i];
    }
    return rc == 0 && options->weight == 0 ? complain(complaint, value, "a weight above 0") : rc;
}

static int take_order(struct bench_options *options,
                      const char *value,
                      const struct complaint *complaint)
{
    static const char zipf[] = "zipf:";

    options->order_text = value;
    options->theta = 0.99;
    if (strcmp(value, "uniform") == 0) {
        options->order = BENCH_UNIFORM;
    } else if (strcmp(value, "sequential") == 0) {
        options->order = BENCH_SEQUENTIAL;
    } else if (strcmp(value, "zipf") == 0) {
        options->order = BENCH_ZIPF;
    } else if (strncmp(value, zipf, sizeof zipf - 1) == 0) {
        options->order = BENCH_ZIPF;
        if (parse_decimal(value + sizeof zipf - 1, 1, &options->theta) < 0 ||
            !(options->theta > 0 && options->theta < 1)) {
            return complain(complaint, value, "zipf:THETA, above 0 and below 1");
        }
    } else {
        return complain(complaint, value, "uniform, zipf, zipf:THETA or sequential");
    }
    return 0;
}

static int take_value(struct bench_options *options,
                      const char *value,
                      const struct complaint *complaint)
{
    uint64_t bytes;

    if (nx_parse_size(value, &bytes) < 0 || bytes > MOST_VALUE) {
        return complain(complaint, value, "bytes, at most 1GiB");
    }
    options->value = bytes;
    return 0;
}

static int take_header(struct bench_options *options,
                       const char *value,
                       const struct complaint *complaint)
{
    size_t name = strcspn(value, ": \t\r\n");

    if (name == 0 || value[name] != ':' || strpbrk(value, "\r\n") != NULL) {
        return complain(complaint, value, "'Name: value'");
    }
    if (options->header_count == BENCH_MOST_HEADERS) {
        return complain(complaint, value, "at most 16 headers");
    }
    options->headers[options->header_count++] = value;
    return 0;
}

static int take_token_file(struct bench_options *options,
                           const char *value,
                           const struct complaint *complaint)
{
    (void)complaint;
    options->token_file = value;
    return 0;
}

static int take_lag(struct bench_options *options,
                    const char *value,
                    const struct complaint *complaint)
{
    options->probe = true;
    return bench_target_set(&options->lag, value) < 0 ? complain(complaint, value, "HOST:PORT") : 0;
}

static int take_seed(struct bench_options *options,
                     const char *value,
                     const struct complaint *complaint)
{
    options->seeded = true;
    return take_count(value, 0, UINT64_MAX, &options->seed, complaint);
}

static int take_json(struct bench_options *options,
                     const char *value,
                     const struct complaint *complaint)
{
    (void)value;
    (void)complaint;
    options->json = true;
    return 0;
}

static int take_help(struct bench_options *options,
                     const char *value,
                     const struct complaint *complaint)
{
    (void)value;
    (void)complaint;
    options->action = BENCH_HELP;
    return 0;
}

static int take_version(struct bench_options *options,
                        const char *value,
                        const struct complaint *complaint)
{
    (void)value;
    (void)complaint;
    options->action = BENCH_VERSION;
    return 0;
}

static const struct row {
    const char *name;
    const char *value;
    take_function *take; /* NULL: a number, kept at `offset` */
    size_t offset;
    uint64_t least;
    uint64_t most;
    const char *help;
} rows[] = {
#define BENCH_COUNT(name, value, member, least, most, help) \
    {name, value, NULL, offsetof(struct bench_options, member), least, most, help},
#define BENCH_OPTION(name, value, take, help) {name, value, take, 0, 0, 0, help},
#include "nexus-bench/options.def"
#undef BENCH_OPTION
#undef BENCH_COUNT
};

#define ROWS (sizeof rows / sizeof rows[0])

/* ---- the command line ---- */

static const struct row *find(const char *name, size_t length, const struct row **ret_near)
{
    unsigned best = UINT32_MAX;
    char text[32];

    (void)snprintf(text, sizeof text, "%.*s", length < sizeof text ? (int)length : 31, name);
    for (size_t i = 0; i < ROWS; i++) {
        unsigned distance = nx_edit_distance(text, rows[i].name);

        if (strcmp(text, rows[i].name) == 0) {
            return &rows[i];
        }
        if (distance < best) {
            best = distance;
            *ret_near = &rows[i];
        }
    }
    return NULL;
}

static int take_value_of(struct bench_options *options,
                         const struct row *row,
                         const char *value,
                         const struct complaint *complaint)
{
    uint64_t count;
    int rc;

    if (row->take != NULL) {
        return row->take(options, value, complaint);
    }
    rc = take_count(value, row->least, row->most, &count, complaint);
    if (rc == 0) {
        memcpy((char *)options + row->offset, &count, sizeof count);
    }
    return rc;
}

/* Takes the option at *i, and its value from the same argument ("--x=1") or the next one. */
static int take_argument(struct bench_options *options,
                         int argc,
                         char **argv,
                         int *i,
                         struct complaint *complaint)
{
    const char *argument = argv[*i];
    const char *equals = strchr(argument, '=');
    size_t length = equals == NULL ? strlen(argument) : (size_t)(equals - argument);
    const struct row *near = NULL;
    const struct row *row = find(argument, length, &near);
    const char *value = equals == NULL ? NULL : equals + 1;

    if (row == NULL) {
        (void)snprintf(complaint->text, complaint->cap,
                       "unknown option \"%.60s\"; did you mean %s? (--help lists all)", argument,
                       near->name);
        return -EINVAL;
    }
    complaint->option = row->name;
    if (row->value == NULL && value != NULL) {
        (void)snprintf(complaint->text, complaint->cap, "%s takes no value", row->name);
        return -EINVAL;
    }
    if (row->value != NULL && value == NULL) {
        if (*i + 1 == argc) {
            (void)snprintf(complaint->text, complaint->cap, "%s needs a value: %s", row->name,
                           row->value);
            return -EINVAL;
        }
        value = argv[++*i];
    }
    return take_value_of(options, row, value, complaint);
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
        .clients = 64,
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
    struct complaint complaint = {.text = error, .cap = cap};
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

/* ---- help ---- */

#define HELP_COLUMN 28

static void help_row(const char *name, const char *value, const char *help)
{
    int width = printf("  %s %s", name, value == NULL ? "" : value);

    if (width >= HELP_COLUMN) {
        (void)printf("\n");
        width = 0;
    }
    for (; *help != '\0'; help += *help == '\n') {
        size_t line = strcspn(help, "\n");

        (void)printf("%*s%.*s\n", HELP_COLUMN - width, "", (int)line, help);
        help += line;
        width = 0;
    }
}

void bench_options_help(void)
{
    (void)printf("nexus-bench: puts a load on a server, and tells what became of it\n\n"
                 "  nexus-bench [options]\n\n");
    for (size_t i = 0; i < ROWS; i++) {
        help_row(rows[i].name, rows[i].value, rows[i].help);
    }
    (void)printf("\nOperations of --mix:\n");
#define BENCH_OPERATION(symbol, name, help) help_row(name, NULL, help);
#include "nexus-bench/operations.def"
#undef BENCH_OPERATION
    (void)printf(
        "\n"
        "Operations are keys: an import is as many as its batch has. Latencies are those of good answers.\n"
        "A get that finds no key is an error, unless the mix deletes some.\n"
        "Exit status: 0 when every answer was good, 1 when some weren't or the server went away,\n"
        "2 when the options are wrong.\n");
}
