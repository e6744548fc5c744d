/* The line that almost every line of /import is, read at the speed of memory:
 *
 *     {"key": "...", "value": "..."}
 *
 * json-c takes some 2 µs for it, most of them for objects that are thrown away at once. A line that has
 * anything else (an escape, a control byte, another member, a fault) is no plain one, and json_in.h's to
 * judge; what is plain means there what it means here. */
#ifndef NX_HTTP_JSON_PLAIN_H
#define NX_HTTP_JSON_PLAIN_H

#include "http/json_in.h"

/* True: the line is a plain put with a key and a value of lengths that can be stored, and put->key and
 * put->value point into it. False: nothing is said, and what put holds means nothing. */
bool nx_json_plain_put(struct nx_slice line, size_t max_value, struct json_put *put);

#endif
