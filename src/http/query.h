/* Paths and queries of a request target, percent-decoded. */
#ifndef NX_HTTP_QUERY_H
#define NX_HTTP_QUERY_H

#include "common/bytes.h"
#include "common/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NX_QUERY_MAX_PARAMS 16
#define NX_MESSAGE_SIZE     512 /* of a problem's message, NUL included */

/* Appends `raw` with its %XX decoded once (plus_is_space: and '+' as a space). 0; -EINVAL: a '%' that
 * two hexadecimal digits don't follow; -ENOMEM. out is as before on failure. */
int nx_percent_decode(struct text *out, struct nx_slice raw, bool plus_is_space);

struct query_param {
    struct nx_slice name;
    struct nx_slice value;
};

struct query {
    struct query_param params[NX_QUERY_MAX_PARAMS];
    unsigned count;
    struct text bytes; /* what the slices point into */
};

/* Takes `raw` (what follows the '?') apart. `known` names the parameters that the endpoint takes,
 * separated by spaces. 0, -ENOMEM, or -EINVAL and a sentence in message: an unknown parameter (it
 * names the nearest known one), a repeated one, a bad '%'. */
int nx_query_parse(struct query *query,
                   struct nx_slice raw,
                   const char *known,
                   char message[NX_MESSAGE_SIZE]);

/* The value of a parameter, or NULL when it wasn't given. */
const struct nx_slice *nx_query_find(const struct query *query, const char *name);

/* A number from min to max; *ret_value stays as it is when the parameter wasn't given. 0 or -EINVAL
 * and a sentence. */
int nx_query_u64(const struct query *query,
                 const char *name,
                 uint64_t min,
                 uint64_t max,
                 uint64_t *ret_value,
                 char message[NX_MESSAGE_SIZE]);

/* A boolean (1, 0, true, false); as above. */
int nx_query_bool(const struct query *query,
                  const char *name,
                  bool *ret_value,
                  char message[NX_MESSAGE_SIZE]);

/* Digits only, no sign, no overflow. 0 or -EINVAL. */
int nx_parse_u64(struct nx_slice digits, uint64_t *ret_value);

#endif
