/* Runs in http workers. See bounds.h. */
#include "http/bounds.h"

#include "http/connection.h"
#include "http/response.h"

#include <string.h>

void nx_bounds_from(struct key_bounds *bounds, struct nx_slice key)
{
    if (nx_slice_compare(key, nx_slice_of(bounds->start, bounds->start_length)) > 0) {
        memcpy(bounds->start, key.data, key.length);
        bounds->start_length = key.length;
    }
}

void nx_bounds_below(struct key_bounds *bounds, struct nx_slice key)
{
    if (bounds->end_length == 0 ||
        nx_slice_compare(key, nx_slice_of(bounds->end, bounds->end_length)) < 0) {
        memcpy(bounds->end, key.data, key.length);
        bounds->end_length = key.length;
    }
}

/* The first key behind all that begin with the prefix: its last byte that can be raised, raised. */
void nx_bounds_prefix(struct key_bounds *bounds, struct nx_slice prefix)
{
    uint8_t key[NX_MAX_KEY];
    size_t length = prefix.length;

    nx_bounds_from(bounds, prefix);
    while (length > 0 && prefix.data[length - 1] == 0xff) {
        length--;
    }
    if (length > 0) {
        memcpy(key, prefix.data, length);
        key[length - 1]++;
        nx_bounds_below(bounds, nx_slice_of(key, length));
    }
}

void nx_bounds_behind(struct key_bounds *bounds, struct nx_slice key)
{
    uint8_t next[NX_MAX_KEY + 1];

    memcpy(next, key.data, key.length);
    next[key.length] = 0;
    nx_bounds_from(bounds, nx_slice_of(next, key.length + 1));
}

bool nx_bounds_param(struct connection *connection, const char *name, struct nx_slice *ret_value)
{
    const struct nx_slice *given = nx_query_find(&connection->request->query, name);

    *ret_value = given == NULL ? nx_slice_of(NULL, 0) : *given;
    if (ret_value->length > NX_MAX_KEY) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "Parameter '%s' is longer than a key (%d bytes).", name, NX_MAX_KEY);
        return false;
    }
    return true;
}
