/* The table of options: a row for each line of options.def, and what one takes of its value. */
#ifndef NX_BENCH_OPTION_TABLE_H
#define NX_BENCH_OPTION_TABLE_H

#include "nexus-bench/options.h"

#include <stddef.h>
#include <stdint.h>

/* Where it is told what is wrong with an option. */
struct bench_complaint {
    const char *option;
    char *text;
    size_t cap;
};

/* Takes a value into the options: 0; or -EINVAL, and it is complained. */
typedef int bench_take(struct bench_options *options,
                       const char *value,
                       const struct bench_complaint *complaint);

struct bench_option {
    const char *name;
    const char *value; /* what it is called; NULL: it has none */
    bench_take
        *take; /* NULL: a number from least to most, kept at `offset` of struct bench_options */
    size_t offset;
    uint64_t least;
    uint64_t most;
    const char *help; /* lines */
};

extern const struct bench_option bench_option_table[];
extern const size_t bench_option_count;

/* Takes the value of that option, "" when it has none. 0; or -EINVAL, and it is complained. */
int bench_option_take(const struct bench_option *option,
                      struct bench_options *options,
                      const char *value,
                      const struct bench_complaint *complaint);

#endif
