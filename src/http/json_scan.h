/* The strict look at a JSON text before json-c reads it: json-c keeps the last of duplicate members,
 * replaces lone surrogates, and takes more than the standard has. What passes here means one thing. */
#ifndef NX_HTTP_JSON_SCAN_H
#define NX_HTTP_JSON_SCAN_H

#include "common/bytes.h"
#include "common/entry.h"
#include "http/query.h"

#define NX_JSON_MAX_DEPTH   8
#define NX_JSON_MAX_MEMBERS 16 /* of one object; no object that this server takes has more */

/* What the largest batch has: an object in an object for each operation, one for each condition, and some room. json-c
 * takes hundreds of bytes for each, however short it is. */
#define NX_JSON_MAX_NODES  (3 * NX_MAX_OPS + 8)
#define NX_JSON_MAX_VALUES (12 * NX_MAX_OPS) /* strings, numbers and words, names included */

/* Checks strings (UTF-8, escapes, no control bytes), depth, that no object has a member twice, and how much it is; the
 * grammar itself is left to json-c. 0; -EINVAL; or -E2BIG, it is more than any batch; and a sentence with the place
 * (byte, from 1). */
int nx_json_scan(struct nx_slice text, char message[NX_MESSAGE_SIZE]);

#endif
