/* See operation.h. */
#include "nexus-bench/operation.h"

const char *bench_operation_name(enum bench_operation operation)
{
    static const char *const names[] = {
#define BENCH_OPERATION(symbol, name, help) name,
#include "nexus-bench/operations.def"
#undef BENCH_OPERATION
        "probe",
    };

    return names[operation];
}
