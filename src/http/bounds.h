/* A range of keys, in byte order, as parameters of a query narrow it. */
#ifndef NX_HTTP_BOUNDS_H
#define NX_HTTP_BOUNDS_H

#include "common/bytes.h"
#include "common/entry.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct connection;

/* All keys while it is zero. */
struct key_bounds {
    uint8_t start[NX_MAX_KEY + 1]; /* inclusive; one byte more: right behind the longest key */
    size_t start_length;
    uint8_t end[NX_MAX_KEY]; /* exclusive */
    size_t end_length;       /* 0: none */
};

/* Nothing below the key (at most NX_MAX_KEY + 1 bytes), if that narrows the range. */
void nx_bounds_from(struct key_bounds *bounds, struct nx_slice key);

/* Nothing from the key (at most NX_MAX_KEY bytes) on, if that narrows the range. */
void nx_bounds_below(struct key_bounds *bounds, struct nx_slice key);

/* Only keys that begin with the prefix (at most NX_MAX_KEY bytes). */
void nx_bounds_prefix(struct key_bounds *bounds, struct nx_slice prefix);

/* Only keys behind this one (at most NX_MAX_KEY bytes). */
void nx_bounds_behind(struct key_bounds *bounds, struct nx_slice key);

/* A parameter that is a key or part of one; empty when it wasn't given. False: answered. */
bool nx_bounds_param(struct connection *connection, const char *name, struct nx_slice *ret_value);

#endif
