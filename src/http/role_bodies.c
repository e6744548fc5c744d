/* Runs in http workers. See role_bodies.h. */
#include "http/role_bodies.h"

#include "common/net.h"
#include "common/uuid_text.h"
#include "http/connection.h"
#include "http/response.h"
#include "http/worker.h"

#include <json-c/json.h>

#include <errno.h>
#include <string.h>

#define PLACE "The body"

/* ---- members ---- */

/* A string without a NUL in it. */
static int string_of(struct json_object *object,
                     const char *name,
                     struct nx_slice *ret_text,
                     struct json_fault *fault)
{
    struct json_object *value = NULL;
    struct nx_slice text;

    if (!json_object_object_get_ex(object, name, &value) ||
        !json_object_is_type(value, json_type_string)) {
        (void)nx_json_fault(fault, NX_ERROR_BAD_JSON, PLACE " must have \"%s\", a string.", name);
        return -EINVAL;
    }
    text = nx_slice_of(json_object_get_string(value), (size_t)json_object_get_string_len(value));
    if (memchr(text.data, '\0', text.length) != NULL) {
        (void)nx_json_fault(fault, NX_ERROR_BAD_PARAMETER, "\"%s\" holds a NUL.", name);
        return -EINVAL;
    }
    *ret_text = text;
    return 0;
}

static int address_of(struct json_object *object,
                      char ret_addr[NX_ADDR_SIZE],
                      struct json_fault *fault)
{
    struct nx_net_addr addr;
    struct nx_slice text;

    if (string_of(object, "master_addr", &text, fault) < 0) {
        return -EINVAL;
    }
    /* json-c ends its strings by a NUL. */
    if (text.length >= NX_ADDR_SIZE || nx_net_parse((const char *)text.data, &addr) < 0) {
        return nx_json_fault(fault, NX_ERROR_BAD_PARAMETER,
                             "\"master_addr\" is no address: expected the replication address of a "
                             "master, host:port, such as 10.0.0.1:15475 or [fd00::1]:15475.");
    }
    if (nx_net_is_wildcard(&addr)) {
        return nx_json_fault(fault, NX_ERROR_BAD_PARAMETER,
                             "\"master_addr\" is any address (%s): expected the host of one node.",
                             (const char *)text.data);
    }
    memcpy(ret_addr, text.data, text.length + 1);
    return 0;
}

static int bool_of(struct json_object *object,
                   const char *name,
                   bool *ret_value,
                   struct json_fault *fault)
{
    struct json_object *value = NULL;

    *ret_value = false;
    if (!json_object_object_get_ex(object, name, &value)) {
        return 0;
    }
    if (!json_object_is_type(value, json_type_boolean)) {
        return nx_json_fault(fault, NX_ERROR_BAD_JSON, "\"%s\" must be true or false.", name);
    }
    *ret_value = json_object_get_boolean(value) != 0;
    return 0;
}

/* json-c takes the largest number for one that is too large. */
static int epoch_of(struct json_object *object, uint64_t *ret_epoch, struct json_fault *fault)
{
    struct json_object *value = NULL;
    uint64_t epoch = 0;

    if (json_object_object_get_ex(object, "epoch", &value) &&
        json_object_is_type(value, json_type_int) && json_object_get_int64(value) > 0) {
        epoch = json_object_get_uint64(value);
    }
    if (epoch == 0 || epoch == UINT64_MAX) {
        return nx_json_fault(fault, NX_ERROR_BAD_JSON,
                             PLACE " must have \"epoch\", a number: 1, 2, 3, ...");
    }
    *ret_epoch = epoch;
    return 0;
}

static int attempt_of(struct json_object *object, uint64_t *ret_attempt, struct json_fault *fault)
{
    struct json_object *value = NULL;

    *ret_attempt = 0;
    if (!json_object_object_get_ex(object, "attempt", &value)) {
        return 0;
    }
    if (!json_object_is_type(value, json_type_int) || json_object_get_int64(value) < 0) {
        return nx_json_fault(fault, NX_ERROR_BAD_JSON, "\"attempt\" must be a number.");
    }
    *ret_attempt = json_object_get_uint64(value);
    return 0;
}

static int node_id_of(struct json_object *object,
                      char ret_id[NX_UUID_TEXT],
                      struct json_fault *fault)
{
    struct nx_slice text;

    if (string_of(object, "node_id", &text, fault) < 0) {
        return -EINVAL;
    }
    if (!nx_slice_is_uuid(text)) {
        return nx_json_fault(fault, NX_ERROR_BAD_PARAMETER,
                             "\"node_id\" is no node's id: expected a UUID, 8-4-4-4-12 hexadecimal "
                             "digits.");
    }
    nx_uuid_canonical(text, ret_id);
    return 0;
}

/* ---- objects ---- */

int nx_follow_body_of(struct json_object *object,
                      struct follow_body *ret_body,
                      struct json_fault *fault)
{
    struct follow_body body;

    if (nx_json_only(object, "master_addr force", PLACE, fault) < 0 ||
        address_of(object, body.master_addr, fault) < 0 ||
        bool_of(object, "force", &body.force, fault) < 0) {
        return -EINVAL;
    }
    *ret_body = body;
    return 0;
}

int nx_promise_body_of(struct json_object *object,
                       struct promise_body *ret_body,
                       struct json_fault *fault)
{
    struct promise_body body;

    if (nx_json_only(object, "epoch node_id attempt", PLACE, fault) < 0 ||
        epoch_of(object, &body.epoch, fault) < 0 || node_id_of(object, body.node_id, fault) < 0 ||
        attempt_of(object, &body.attempt, fault) < 0) {
        return -EINVAL;
    }
    *ret_body = body;
    return 0;
}

/* ---- requests ---- */

/* The body's object, to be freed by json_object_put; NULL: it is none. */
static struct json_object *parse_body(struct connection *connection, struct json_fault *fault)
{
    const struct text *body = &connection->request->body;
    struct json_object *object = NULL;

    (void)nx_json_parse(connection->worker->tokener,
                        nx_slice_of(body->data + NX_BODY_GAP, body->length - NX_BODY_GAP), &object,
                        fault);
    return object;
}

static void refuse_body(struct connection *connection,
                        const struct json_fault *fault,
                        const char *expected)
{
    nx_refuse(connection, fault->code, "%s The endpoint takes %s; nothing was changed.",
              fault->message, expected);
}

bool nx_follow_body_take(struct connection *connection, struct follow_body *ret_body)
{
    struct json_fault fault;
    struct json_object *object = parse_body(connection, &fault);
    bool good = object != NULL && nx_follow_body_of(object, ret_body, &fault) == 0;

    json_object_put(object);
    if (!good) {
        refuse_body(connection, &fault, "{\"master_addr\": \"host:port\", \"force\"?: true}");
    }
    return good;
}

bool nx_promise_body_take(struct connection *connection, struct promise_body *ret_body)
{
    struct json_fault fault;
    struct json_object *object = parse_body(connection, &fault);
    bool good = object != NULL && nx_promise_body_of(object, ret_body, &fault) == 0;

    json_object_put(object);
    if (!good) {
        refuse_body(connection, &fault, "{\"epoch\": N, \"node_id\": \"uuid\"}");
    }
    return good;
}
