/* Runs in http workers. See json_in.h. */
#include "http/json_in.h"

#include "common/base64.h"
#include "http/expiry.h"
#include "http/json_scan.h"

#include <json-c/json.h>

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct json_tokener *nx_json_tokener(void)
{
    struct json_tokener *tokener = json_tokener_new_ex(NX_JSON_MAX_DEPTH + 1);

    if (tokener != NULL) {
        json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    }
    return tokener;
}

int nx_json_fault(struct json_fault *fault, enum nx_error code, const char *format, ...)
{
    va_list args;

    fault->code = code;
    va_start(args, format);
    vsnprintf(fault->message, sizeof fault->message, format, args);
    va_end(args);
    return -EINVAL;
}

int nx_json_parse(struct json_tokener *tokener,
                  struct nx_slice text,
                  struct json_object **ret_object,
                  struct json_fault *fault)
{
    struct json_object *object;
    enum json_tokener_error error;

    fault->code = NX_ERROR_BAD_JSON;
    if (text.length == 0 || text.length > INT_MAX) {
        return nx_json_fault(fault, NX_ERROR_BAD_JSON, "The JSON text is %s.",
                             text.length == 0 ? "empty" : "too long");
    }
    int rc = nx_json_scan(text, fault->message);

    if (rc < 0) {
        fault->code = rc == -E2BIG ? NX_ERROR_BATCH_TOO_LARGE : NX_ERROR_BAD_JSON;
        return -EINVAL;
    }
    json_tokener_reset(tokener);
    object = json_tokener_parse_ex(tokener, (const char *)text.data, (int)text.length);
    error = json_tokener_get_error(tokener);
    if (error != json_tokener_success) {
        json_object_put(object);
        return nx_json_fault(fault, NX_ERROR_BAD_JSON, "The JSON is malformed at byte %zu: %s.",
                             json_tokener_get_parse_end(tokener) + 1,
                             error == json_tokener_continue ? "it ends too early"
                                                            : json_tokener_error_desc(error));
    }
    if (!json_object_is_type(object, json_type_object)) {
        json_object_put(object);
        return nx_json_fault(fault, NX_ERROR_BAD_JSON, "The JSON must be an object: {...}.");
    }
    *ret_object = object;
    return 0;
}

/* True when `name` is one of the names in `known`. */
static bool is_one_of(const char *name, const char *known)
{
    size_t length = strlen(name);

    while (*known != '\0') {
        size_t n = strcspn(known, " ");

        if (n == length && memcmp(known, name, n) == 0) {
            return true;
        }
        known += n + (known[n] == ' ' ? 1 : 0);
    }
    return false;
}

int nx_json_only(struct json_object *object,
                 const char *known,
                 const char *place,
                 struct json_fault *fault)
{
    json_object_object_foreach(object, name, value)
    {
        (void)value;
        if (!is_one_of(name, known)) {
            return nx_json_fault(fault, NX_ERROR_BAD_JSON,
                                 "%s has an unknown member \"%.40s\"; known: %s.", place, name,
                                 known);
        }
    }
    return 0;
}

static int string_of(struct json_object *value,
                     const char *name,
                     const char *place,
                     struct nx_slice *ret_bytes,
                     struct json_fault *fault)
{
    if (!json_object_is_type(value, json_type_string)) {
        return nx_json_fault(fault, NX_ERROR_BAD_JSON, "%s: \"%s\" must be a string.", place, name);
    }
    *ret_bytes =
        nx_slice_of(json_object_get_string(value), (size_t)json_object_get_string_len(value));
    return 0;
}

int nx_json_bytes_of(struct json_object *object,
                     const char *name,
                     const char *place,
                     struct text *decoded,
                     struct nx_slice *ret_bytes,
                     struct json_fault *fault)
{
    char base64_name[32];
    struct json_object *plain = NULL;
    struct json_object *base64 = NULL;
    struct nx_slice coded = {NULL, 0};

    snprintf(base64_name, sizeof base64_name, "%s_base64", name);
    bool has_plain = json_object_object_get_ex(object, name, &plain);
    bool has_base64 = json_object_object_get_ex(object, base64_name, &base64);

    if (has_plain == has_base64) {
        return nx_json_fault(fault, NX_ERROR_BAD_JSON, "%s must have either \"%s\" or \"%s\"%s.",
                             place, name, base64_name, has_plain ? ", not both" : "");
    }
    if (has_plain) {
        return string_of(plain, name, place, ret_bytes, fault);
    }
    if (string_of(base64, base64_name, place, &coded, fault) < 0) {
        return -EINVAL;
    }
    nx_text_reset(decoded, SIZE_MAX);
    if (nx_base64_decode(decoded, (const char *)coded.data, coded.length, BASE64_PLAIN) < 0) {
        return nx_json_fault(fault, NX_ERROR_BAD_JSON, "%s: \"%s\" is not base64 (RFC 4648).",
                             place, base64_name);
    }
    *ret_bytes = nx_slice_of(decoded->data, decoded->length);
    return 0;
}

int nx_json_offset_of(struct json_object *object,
                      const char *name,
                      const char *place,
                      struct client_offset *ret_offset,
                      struct json_fault *fault)
{
    struct json_object *value = NULL;
    struct nx_slice text;

    if (json_object_object_get_ex(object, name, &value)) {
        if (json_object_is_type(value, json_type_int) && json_object_get_int64(value) >= 0) {
            *ret_offset = (struct client_offset){json_object_get_uint64(value), 0};
            return 0;
        }
        text =
            nx_slice_of(json_object_get_string(value), (size_t)json_object_get_string_len(value));
        if (json_object_is_type(value, json_type_string) &&
            nx_client_offset_parse(text, ret_offset) == 0) {
            return 0;
        }
    }
    return nx_json_fault(fault, NX_ERROR_BAD_JSON,
                         "%s must have \"%s\": an offset as a number, or \"N@E\" with its epoch.",
                         place, name);
}

int nx_json_key_of(struct json_object *object,
                   const char *known,
                   const char *place,
                   struct json_put *put,
                   struct json_fault *fault)
{
    if (!json_object_is_type(object, json_type_object)) {
        return nx_json_fault(fault, NX_ERROR_BAD_JSON, "%s must be an object.", place);
    }
    if (nx_json_only(object, known, place, fault) < 0 ||
        nx_json_bytes_of(object, "key", place, &put->key_decoded, &put->key, fault) < 0) {
        return -EINVAL;
    }
    if (put->key.length == 0 || put->key.length > NX_MAX_KEY) {
        return nx_json_fault(fault, NX_ERROR_BAD_KEY,
                             "%s: the key has %zu bytes; a key has 1 to %d.", place,
                             put->key.length, NX_MAX_KEY);
    }
    return 0;
}

/* What a number may be: whole, from 1 to `most`. */
struct number {
    const char *name;
    uint64_t most;
    const char *must_be;
};

static const struct number ttl_number = {"ttl", NX_MAX_TTL_S,
                                         "a whole number of seconds, 1 to 3153600000"};
/* To the end of the year 9999: who gives microseconds is told so. */
static const struct number expires_at_number = {
    "expires_at", NX_MAX_EXPIRES_AT,
    "a whole number of Unix milliseconds, 1 to 253402300799999 (the year 9999)"};

/* *ret_value is 0 where it isn't given. */
static int number_of(struct json_object *object,
                     const struct number *number,
                     const char *place,
                     uint64_t *ret_value,
                     struct json_fault *fault)
{
    struct json_object *value = NULL;

    *ret_value = 0;
    if (!json_object_object_get_ex(object, number->name, &value)) {
        return 0;
    }
    if (!json_object_is_type(value, json_type_int) || json_object_get_int64(value) < 1 ||
        json_object_get_uint64(value) > number->most) {
        return nx_json_fault(fault, NX_ERROR_BAD_JSON, "%s: \"%s\" must be %s.", place,
                             number->name, number->must_be);
    }
    *ret_value = json_object_get_uint64(value);
    return 0;
}

static int expiry_of(struct json_object *object,
                     const char *place,
                     struct json_put *put,
                     struct json_fault *fault)
{
    if (number_of(object, &ttl_number, place, &put->ttl_s, fault) < 0 ||
        number_of(object, &expires_at_number, place, &put->expires_at, fault) < 0) {
        return -EINVAL;
    }
    if (put->ttl_s > 0 && put->expires_at > 0) {
        return nx_json_fault(fault, NX_ERROR_BAD_JSON,
                             "%s has \"ttl\" and \"expires_at\"; give one of them.", place);
    }
    return 0;
}

int nx_json_put_of(struct json_object *object,
                   const char *place,
                   size_t max_value,
                   struct json_put *put,
                   struct json_fault *fault)
{
    if (nx_json_key_of(object, "key key_base64 value value_base64 ttl expires_at", place, put,
                       fault) < 0 ||
        nx_json_bytes_of(object, "value", place, &put->value_decoded, &put->value, fault) < 0) {
        return -EINVAL;
    }
    if (put->value.length > max_value) {
        return nx_json_fault(fault, NX_ERROR_VALUE_TOO_LARGE,
                             "%s: the value has %zu bytes; http.max_value_size is %zu.", place,
                             put->value.length, max_value);
    }
    return expiry_of(object, place, put, fault);
}

struct nx_op nx_json_put_op(const struct json_put *put, const struct nx_shm *shm)
{
    struct nx_op op = {.kind = NX_OP_PUT, .key = put->key, .value = put->value};

    nx_op_expire(&op, put->ttl_s > 0 ? nx_expires_in(shm, put->ttl_s) : put->expires_at);
    return op;
}

/* The members of a line that deletes: "delete" is true, and nothing says what to store. */
static int check_delete(struct json_object *object,
                        struct json_object *delete,
                        const char *place,
                        struct json_fault *fault)
{
    static const char *const of_puts[] = {"value", "value_base64", "ttl", "expires_at"};

    if (!json_object_is_type(delete, json_type_boolean) || !json_object_get_boolean(delete)) {
        return nx_json_fault(fault, NX_ERROR_BAD_JSON,
                             "%s: \"delete\" can only be true; a line without it stores a value.",
                             place);
    }
    for (size_t i = 0; i < sizeof of_puts / sizeof of_puts[0]; i++) {
        if (json_object_object_get_ex(object, of_puts[i], NULL)) {
            return nx_json_fault(fault, NX_ERROR_BAD_JSON,
                                 "%s has \"delete\" and \"%s\"; a line deletes a key or stores it.",
                                 place, of_puts[i]);
        }
    }
    return 0;
}

int nx_json_line_of(struct json_object *object,
                    const char *place,
                    size_t max_value,
                    struct json_put *put,
                    bool *ret_delete,
                    struct json_fault *fault)
{
    static const char known[] = "key key_base64 value value_base64 ttl expires_at delete";
    struct json_object *delete = NULL;
    int rc = nx_json_only(object, known, place, fault);

    if (rc < 0) {
        return rc;
    }
    *ret_delete = json_object_object_get_ex(object, "delete", &delete);
    if (!*ret_delete) {
        return nx_json_put_of(object, place, max_value, put, fault);
    }
    rc = check_delete(object, delete, place, fault);
    return rc < 0 ? rc : nx_json_key_of(object, known, place, put, fault);
}

void nx_json_put_free(struct json_put *put)
{
    nx_text_free(&put->key_decoded);
    nx_text_free(&put->value_decoded);
}
