/* See option_table.h: what each option takes. Pure functions. */
#include "nexus-bench/option_table.h"

#include "common/units.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND_NS    1e9
#define MOST_SECONDS (365.0 * 86400)
#define MOST_RATE    1e9
#define MOST_VALUE   ((uint64_t)1 << 30)
#define MOST_WEIGHT  1000000

static int complain(const struct bench_complaint *complaint,
                    const char *value,
                    const char *expected)
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
                      const struct bench_complaint *complaint)
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

static int take_protocol(struct bench_options *options,
                         const char *value,
                         const struct bench_complaint *complaint)
{
    options->protocol = bench_protocol_find(value);
    return options->protocol == NULL ? complain(complaint, value, "http, redis or etcd") : 0;
}

/* Calls take for each part of a list that commas divide. */
static int take_each(struct bench_options *options,
                     const char *list,
                     bench_take *take,
                     const struct bench_complaint *complaint)
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
                           const struct bench_complaint *complaint)
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
                       const struct bench_complaint *complaint)
{
    options->target_count = 0;
    return take_each(options, value, take_one_target, complaint);
}

static int take_rate(struct bench_options *options,
                     const char *value,
                     const struct bench_complaint *complaint)
{
    if (parse_decimal(value, MOST_RATE, &options->rate) < 0 || !(options->rate > 0)) {
        return complain(complaint, value, "requests a second, above 0");
    }
    return 0;
}

static int take_seconds(const char *value,
                        uint64_t *ret_ns,
                        const struct bench_complaint *complaint)
{
    return bench_parse_seconds(value, ret_ns) < 0
               ? complain(complaint, value, "a number of seconds, as 10 or 0.5")
               : 0;
}

static int take_duration(struct bench_options *options,
                         const char *value,
                         const struct bench_complaint *complaint)
{
    int rc = take_seconds(value, &options->duration_ns, complaint);

    return rc == 0 && options->duration_ns == 0 ? complain(complaint, value, "more than 0 seconds")
                                                : rc;
}

static int take_warmup(struct bench_options *options,
                       const char *value,
                       const struct bench_complaint *complaint)
{
    return take_seconds(value, &options->warmup_ns, complaint);
}

/* "get=95" */
static int take_weight(struct bench_options *options,
                       const char *value,
                       const struct bench_complaint *complaint)
{
    const char *equals = strchr(value, '=');
    size_t length = equals == NULL ? 0 : (size_t)(equals - value);

    for (size_t i = 0; i < BENCH_OPERATIONS; i++) {
        const char *name = bench_operation_name((enum bench_operation)i);

        if (strlen(name) == length && strncmp(value, name, length) == 0) {
            if (options->weights[i] != 0) {
                return complain(complaint, value, "each operation once");
            }
            return take_count(equals + 1, 0, MOST_WEIGHT, &options->weights[i], complaint);
        }
    }
    return complain(complaint, value, "get=, put=, delete=, import= or wait=, and a weight");
}

static int take_mix(struct bench_options *options,
                    const char *value,
                    const struct bench_complaint *complaint)
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
                      const struct bench_complaint *complaint)
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
                      const struct bench_complaint *complaint)
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
                       const struct bench_complaint *complaint)
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
                           const struct bench_complaint *complaint)
{
    (void)complaint;
    options->token_file = value;
    return 0;
}

static int take_lag(struct bench_options *options,
                    const char *value,
                    const struct bench_complaint *complaint)
{
    options->probe = true;
    return bench_target_set(&options->lag, value) < 0 ? complain(complaint, value, "HOST:PORT") : 0;
}

static int take_seed(struct bench_options *options,
                     const char *value,
                     const struct bench_complaint *complaint)
{
    options->seeded = true;
    return take_count(value, 0, UINT64_MAX, &options->seed, complaint);
}

static int take_json(struct bench_options *options,
                     const char *value,
                     const struct bench_complaint *complaint)
{
    (void)value;
    (void)complaint;
    options->json = true;
    return 0;
}

static int take_help(struct bench_options *options,
                     const char *value,
                     const struct bench_complaint *complaint)
{
    (void)value;
    (void)complaint;
    options->action = BENCH_HELP;
    return 0;
}

static int take_version(struct bench_options *options,
                        const char *value,
                        const struct bench_complaint *complaint)
{
    (void)value;
    (void)complaint;
    options->action = BENCH_VERSION;
    return 0;
}

const struct bench_option bench_option_table[] = {
#define BENCH_COUNT(name, value, member, least, most, help) \
    {name, value, NULL, offsetof(struct bench_options, member), least, most, help},
#define BENCH_OPTION(name, value, take, help) {name, value, take, 0, 0, 0, help},
#include "nexus-bench/options.def"
#undef BENCH_OPTION
#undef BENCH_COUNT
};

const size_t bench_option_count = sizeof bench_option_table / sizeof bench_option_table[0];

int bench_option_take(const struct bench_option *option,
                      struct bench_options *options,
                      const char *value,
                      const struct bench_complaint *complaint)
{
    uint64_t count;
    int rc;

    if (option->take != NULL) {
        return option->take(options, value, complaint);
    }
    rc = take_count(value, option->least, option->most, &count, complaint);
    if (rc == 0) {
        memcpy((char *)options + option->offset, &count, sizeof count);
    }
    return rc;
}
