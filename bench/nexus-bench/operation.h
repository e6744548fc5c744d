/* The operations, from operations.def. */
#ifndef NX_BENCH_OPERATION_H
#define NX_BENCH_OPERATION_H

enum bench_operation {
#define BENCH_OPERATION(symbol, name, help) BENCH_##symbol,
#include "nexus-bench/operations.def"
#undef BENCH_OPERATION
    BENCH_OPERATIONS,
    BENCH_PROBE = BENCH_OPERATIONS /* of --lag alone: a read of what this very node has */
};

#define BENCH_KINDS (BENCH_PROBE + 1)

/* As in a mix: "get". Static. */
const char *bench_operation_name(enum bench_operation operation);

#endif
