/* See protocol.h. */
#include "nexus-bench/protocol.h"

static const struct bench_protocol *const protocols[] = {&bench_http, &bench_redis, &bench_etcd};

const struct bench_protocol *bench_protocol_find(const char *name)
{
    for (size_t i = 0; i < sizeof protocols / sizeof protocols[0]; i++) {
        if (strcmp(name, protocols[i]->name) == 0) {
            return protocols[i];
        }
    }
    return NULL;
}
