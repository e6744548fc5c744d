/* Reading what clients send as JSON: one text by json-c behind nx_json_scan, and the members that
 * /batch and /import know. Every failure is a sentence that names the place. */
#ifndef NX_HTTP_JSON_IN_H
#define NX_HTTP_JSON_IN_H

#include "common/bytes.h"
#include "common/entry.h"
#include "common/error_codes.h"
#include "common/text.h"
#include "http/conditions.h"
#include "http/query.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;
struct nx_shm;
struct json_tokener;

/* A tokener for nx_json_parse; free it with json_tokener_free. NULL when memory is short. */
struct json_tokener *nx_json_tokener(void);

/* What is wrong with what a client sent. */
struct json_fault {
    enum nx_error code;
    char message[NX_MESSAGE_SIZE];
};

/* Sets a fault; returns -EINVAL. */
int nx_json_fault(struct json_fault *fault, enum nx_error code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Parses one JSON object. 0 and *ret_object (free it with json_object_put), or -EINVAL and a fault. */
int nx_json_parse(struct json_tokener *tokener,
                  struct nx_slice text,
                  struct json_object **ret_object,
                  struct json_fault *fault);

/* Refuses members that `known` (names separated by spaces) doesn't hold. `place` begins the sentence. */
int nx_json_only(struct json_object *object,
                 const char *known,
                 const char *place,
                 struct json_fault *fault);

/* The bytes of member `name`, or of `name`_base64, of which exactly one must be there. base64 is
 * decoded into `decoded`; the slice points there or into the object. */
int nx_json_bytes_of(struct json_object *object,
                     const char *name,
                     const char *place,
                     struct text *decoded,
                     struct nx_slice *ret_bytes,
                     struct json_fault *fault);

/* An offset: a number, or a string N or N@E. */
int nx_json_offset_of(struct json_object *object,
                      const char *name,
                      const char *place,
                      struct client_offset *ret_offset,
                      struct json_fault *fault);

/* A put as /batch and /import have it, checked: lengths of key and value, and one expiry at most. */
struct json_put {
    struct nx_slice key;
    struct nx_slice value;
    uint64_t ttl_s;          /* from when it is stored; 0: not given */
    uint64_t expires_at;     /* Unix ms; 0: not given */
    struct text key_decoded; /* kept for the next */
    struct text value_decoded;
};

int nx_json_put_of(struct json_object *object,
                   const char *place,
                   size_t max_value,
                   struct json_put *put,
                   struct json_fault *fault);
/* The operation that stores it, with what expires counted from now. */
struct nx_op nx_json_put_op(const struct json_put *put, const struct nx_shm *shm);

/* A line of /import: a put, or {"key", "delete": true} (*ret_delete; put->value is not set then). */
int nx_json_line_of(struct json_object *object,
                    const char *place,
                    size_t max_value,
                    struct json_put *put,
                    bool *ret_delete,
                    struct json_fault *fault);
/* A key alone ({"key"} of a delete or a condition); `known` as in nx_json_only. */
int nx_json_key_of(struct json_object *object,
                   const char *known,
                   const char *place,
                   struct json_put *put,
                   struct json_fault *fault);
void nx_json_put_free(struct json_put *put);

#endif
