/* What the command line asks for. */
#ifndef NX_BENCH_OPTIONS_H
#define NX_BENCH_OPTIONS_H

#include "common/token.h"
#include "nexus-bench/connect.h"
#include "nexus-bench/keys.h"
#include "nexus-bench/operation.h"
#include "nexus-bench/protocol.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BENCH_MOST_TARGETS 64
#define BENCH_MOST_HEADERS 16

enum bench_action {
    BENCH_RUN,
    BENCH_HELP,
    BENCH_VERSION
};

/* Texts are borrowed from the command line. */
struct bench_options {
    enum bench_action action;
    const struct bench_protocol *protocol;
    struct bench_target targets[BENCH_MOST_TARGETS];
    size_t target_count;
    struct bench_target lag; /* where a probe polls */
    bool probe;
    bool json;
    uint64_t clients;
    uint64_t threads;
    uint64_t pipeline;
    uint64_t batch;
    uint64_t value;
    uint64_t keys;
    uint64_t requests;    /* 0: no such limit */
    uint64_t duration_ns; /* 0: no such limit */
    uint64_t warmup_ns;
    double rate; /* requests a second; 0: a closed loop */
    const char *mix;
    uint64_t weights[BENCH_OPERATIONS];
    uint64_t weight; /* of all together */
    const char *order_text;
    enum bench_order order;
    double theta;
    uint64_t seed;
    bool seeded;
    const char *headers[BENCH_MOST_HEADERS];
    unsigned header_count;
    const char *token_file;
    char token[NX_TOKEN_SIZE]; /* read from the file by who runs it; "": none */
};

/* Reads the arguments behind argv[0]. 0; or -EINVAL and in error (cap bytes) which one is wrong and what was
 * expected. No file is read and no name server asked. */
int bench_options_parse(int argc,
                        char **argv,
                        struct bench_options *ret_options,
                        char *error,
                        size_t cap);

/* What --help shows; written to stdout. */
void bench_options_help(void);

/* What a duration in decimal seconds is in ns: "1.5". 0 or -EINVAL. At most a year. */
int bench_parse_seconds(const char *text, uint64_t *ret_ns);

/* The operation that a draw (0 to options->weight - 1) stands for. */
enum bench_operation bench_options_draw(const struct bench_options *options, uint64_t draw);

#endif
