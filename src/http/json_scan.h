/* The strict look at a JSON text before json-c reads it: json-c keeps the last of duplicate members,
 * replaces lone surrogates, and takes more than the standard has. What passes here means one thing. */
#ifndef NX_HTTP_JSON_SCAN_H
#define NX_HTTP_JSON_SCAN_H

#include "common/bytes.h"
#include "http/query.h"

#define NX_JSON_MAX_DEPTH   8
#define NX_JSON_MAX_MEMBERS 16 /* of one object; no object that this server takes has more */

/* Checks strings (UTF-8, escapes, no control bytes), depth, and that no object has a member twice; the
 * grammar itself is left to json-c. 0, or -EINVAL and a sentence with the place (byte, from 1). */
int nx_json_scan(struct nx_slice text, char message[NX_MESSAGE_SIZE]);

#endif
