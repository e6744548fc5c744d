/* Writing JSON: the one escaper, and members with the commas in the right places.
 *
 *     struct json json = nx_json_of(&text);
 *     nx_json_open(&json, NULL, '{');
 *     nx_json_u64(&json, "offset", 7);
 *     nx_json_close(&json, '}');
 *
 * A name of NULL stands for an element of an array (or the document itself). Memory that runs short
 * shows as text->failed. */
#ifndef NX_COMMON_JSON_OUT_H
#define NX_COMMON_JSON_OUT_H

#include "common/bytes.h"
#include "common/text.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json {
    struct text *out;
    bool comma; /* the next member needs one before it */
};

struct json nx_json_of(struct text *out);
void nx_json_open(struct json *json, const char *name, char bracket);
void nx_json_close(struct json *json, char bracket);
void nx_json_u64(struct json *json, const char *name, uint64_t value);
void nx_json_i64(struct json *json, const char *name, int64_t value);
void nx_json_bool(struct json *json, const char *name, bool value);
void nx_json_null(struct json *json, const char *name);
/* A C string; bytes that aren't UTF-8 become '?' (it is for our own texts). */
void nx_json_string(struct json *json, const char *name, const char *value);
/* Bytes that are known to be UTF-8. */
void nx_json_text(struct json *json, const char *name, const struct text *value);
/* Thousandths as a number with a fraction: 1500 -> 1.5. */
void nx_json_thousandths(struct json *json, const char *name, uint64_t value);
/* A member whose value is JSON already. */
void nx_json_raw(struct json *json, const char *name, const struct text *value);
/* Bytes of a client: "name" when they are UTF-8, else "name_base64". */
void nx_json_bytes(struct json *json, const char *name, struct nx_slice value);
/* Any bytes in base64, under a name that says so. */
void nx_json_base64(struct json *json, const char *name, struct nx_slice value);

/* True when the bytes are well-formed UTF-8 (no surrogates, no overlong forms). */
bool nx_utf8_valid(struct nx_slice bytes);

#endif
