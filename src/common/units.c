/* Runs wherever a configuration is read or shown. Pure functions. */
#include "common/units.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

struct unit {
    const char *name;
    uint64_t factor;
};

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)
#define TIB ((uint64_t)1 << 40)

/* clang-format off */
static const struct unit sizes[] = {
    {"", 1}, {"B", 1},
    {"k", KIB}, {"kB", KIB}, {"kiB", KIB},
    {"M", MIB}, {"MB", MIB}, {"MiB", MIB},
    {"G", GIB}, {"GB", GIB}, {"GiB", GIB},
    {"T", TIB}, {"TB", TIB}, {"TiB", TIB},
    {NULL, 0},
};

/* Both in milliseconds; what a bare number counts differs. */
#define TIMES {"ms", 1}, {"s", 1000}, {"min", 60000}, {"h", 3600000}, {"d", 86400000}, {NULL, 0}
static const struct unit ms_times[] = {{"", 1}, TIMES};
static const struct unit seconds_times[] = {{"", 1000}, TIMES};
/* clang-format on */

static int parse(const char *text, const struct unit *units, uint64_t *ret_value)
{
    uint64_t value = 0;

    if (*text < '0' || *text > '9') {
        return -EINVAL;
    }
    for (; *text >= '0' && *text <= '9'; text++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value)) {
            return -ERANGE;
        }
    }
    text += strspn(text, " \t");
    for (; units->name != NULL; units++) {
        if (strcasecmp(text, units->name) == 0) {
            if (__builtin_mul_overflow(value, units->factor, &value)) {
                return -ERANGE;
            }
            *ret_value = value;
            return 0;
        }
    }
    return -EINVAL;
}

int nx_parse_count(const char *text, uint64_t *ret_value)
{
    static const struct unit none[] = {{"", 1}, {NULL, 0}};

    return parse(text, none, ret_value);
}

int nx_parse_size(const char *text, uint64_t *ret_bytes)
{
    return parse(text, sizes, ret_bytes);
}

int nx_parse_ms(const char *text, uint64_t *ret_ms)
{
    return parse(text, ms_times, ret_ms);
}

int nx_parse_seconds(const char *text, uint64_t *ret_seconds)
{
    uint64_t ms;
    int rc = parse(text, seconds_times, &ms);

    if (rc == 0 && ms % 1000 != 0) {
        return -EINVAL;
    }
    if (rc == 0) {
        *ret_seconds = ms / 1000;
    }
    return rc;
}

/* units: largest first, the last one of factor 1. */
static size_t format(uint64_t value, const struct unit *units, char *text, size_t cap)
{
    while (units->factor > 1 && value % units->factor != 0) {
        units++;
    }
    return (size_t)snprintf(text, cap, "%llu%s", (unsigned long long)(value / units->factor),
                            value == 0 ? "" : units->name);
}

size_t nx_format_size(uint64_t bytes, char *text, size_t cap)
{
    static const struct unit units[] = {
        {"TiB", TIB}, {"GiB", GIB}, {"MiB", MIB}, {"kiB", KIB}, {"", 1},
    };

    return format(bytes, units, text, cap);
}

size_t nx_format_seconds(uint64_t seconds, char *text, size_t cap)
{
    static const struct unit units[] = {{"h", 3600}, {"min", 60}, {"s", 1}};

    return format(seconds, units, text, cap);
}
