/* Runs in the peers process. See status.h. */
#include "peers/status.h"

#include "common/advertised.h"
#include "common/net.h"
#include "common/uuid_text.h"
#include "storage/data_dir.h"

#include <json-c/json_object.h>
#include <json-c/json_tokener.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#define DEPTH 8

/* ---- members ---- */

/* The object that the whole text is, or NULL. */
static struct json_object *parse(const char *text, size_t length)
{
    struct json_tokener *tokener = length > INT_MAX ? NULL : json_tokener_new_ex(DEPTH);
    struct json_object *object = NULL;

    if (tokener != NULL) {
        json_tokener_set_flags(tokener, JSON_TOKENER_VALIDATE_UTF8);
        object = json_tokener_parse_ex(tokener, text, (int)length);
        json_tokener_free(tokener);
    }
    if (object != NULL && !json_object_is_type(object, json_type_object)) {
        json_object_put(object);
        object = NULL;
    }
    return object;
}

/* A text without a NUL in it, or NULL. */
static const char *text_of(const struct json_object *object, const char *name)
{
    struct json_object *member = NULL;
    const char *text;

    if (!json_object_object_get_ex(object, name, &member) ||
        !json_object_is_type(member, json_type_string)) {
        return NULL;
    }
    text = json_object_get_string(member);
    return strlen(text) == (size_t)json_object_get_string_len(member) ? text : NULL;
}

static bool number_of(const struct json_object *object, const char *name, uint64_t *ret_number)
{
    struct json_object *member = NULL;
    int64_t number;

    if (!json_object_object_get_ex(object, name, &member) ||
        !json_object_is_type(member, json_type_int)) {
        return false;
    }
    number = json_object_get_int64(member); /* larger ones give the largest */
    if (number < 0 || number == INT64_MAX) {
        return false;
    }
    *ret_number = (uint64_t)number;
    return true;
}

/* or_none: "" is taken too. */
static bool id_of(const struct json_object *object,
                  const char *name,
                  bool or_none,
                  char ret_id[NX_UUID_TEXT])
{
    const char *text = text_of(object, name);

    if (text == NULL) {
        return false;
    }
    if (or_none && text[0] == '\0') {
        ret_id[0] = '\0';
        return true;
    }
    if (!nx_slice_is_uuid(nx_slice_text(text))) {
        return false;
    }
    nx_uuid_canonical(nx_slice_text(text), ret_id);
    return true;
}

/* The three parts of a position; names: of offset and crc. */
static bool position_of(const struct json_object *object,
                        const char *offset,
                        const char *crc,
                        struct nx_position *ret_position)
{
    uint64_t number;

    if (!number_of(object, "epoch", &ret_position->epoch) ||
        !number_of(object, offset, &ret_position->offset) || !number_of(object, crc, &number) ||
        number > UINT32_MAX) {
        return false;
    }
    ret_position->crc = (uint32_t)number;
    if (ret_position->offset == 0) {
        *ret_position = (struct nx_position){.epoch = 0};
    }
    return true;
}

/* ---- status ---- */

static bool role_of(const struct json_object *object, enum nx_node_role *ret_role)
{
    static const char *const names[] = {
        [NX_NODE_STANDALONE] = "standalone",
        [NX_NODE_MASTER] = "master",
        [NX_NODE_REPLICA] = "replica",
    };
    const char *text = text_of(object, "role");

    for (unsigned i = 0; text != NULL && i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret_role = (enum nx_node_role)i;
            return true;
        }
    }
    return false;
}

/* An address is told to the postmaster as one word. */
static bool is_word(const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text <= ' ' || *text > '~') {
            return false;
        }
    }
    return true;
}

static void address_of(const struct json_object *object,
                       const char *name,
                       const char *asked,
                       char ret_addr[NX_ADDR_TEXT])
{
    const char *text = text_of(object, name);

    if (text == NULL || !is_word(text) ||
        nx_advertised_resolve(nx_slice_text(text), asked, ret_addr) < 0) {
        ret_addr[0] = '\0';
    }
}

static void leader_of(const struct json_object *object, const char *asked, struct nx_fence *leader)
{
    struct json_object *member = NULL;

    *leader = (struct nx_fence){.epoch = 0};
    if (!json_object_object_get_ex(object, "leader", &member) ||
        !json_object_is_type(member, json_type_object) ||
        !id_of(member, "node_id", false, leader->node_id) ||
        !number_of(member, "epoch", &leader->epoch)) {
        leader->epoch = 0;
        return;
    }
    address_of(member, "replication_addr", asked, leader->addr);
    address_of(member, "http_addr", asked, leader->http_addr);
}

/* With a full sync that isn't complete: where it is to lead. */
static void vouched_of(const struct json_object *object, struct nx_peer_status *status)
{
    struct json_object *member = NULL;
    struct nx_position goal = {.crc = 0};

    status->vouched = status->position;
    if (json_object_object_get_ex(object, "sync_goal", &member) &&
        json_object_is_type(member, json_type_object) && number_of(member, "epoch", &goal.epoch) &&
        number_of(member, "offset", &goal.offset) && goal.offset > status->position.offset) {
        status->vouched = goal;
    }
}

int nx_status_parse(const char *text,
                    size_t length,
                    const char *addr,
                    struct nx_peer_status *ret_status)
{
    struct json_object *object = parse(text, length);
    struct nx_peer_status status = {.fenced = false};
    const char *state;
    bool good;

    if (object == NULL) {
        return -EBADMSG;
    }
    state = text_of(object, "state");
    good = state != NULL && role_of(object, &status.role) &&
           id_of(object, "node_id", false, status.node_id) &&
           id_of(object, "cluster_id", true, status.cluster_id) &&
           number_of(object, "epoch", &status.epoch) &&
           position_of(object, "durable_offset", "last_crc", &status.position);
    if (good) {
        status.fenced = strcmp(state, "fenced") == 0;
        status.starting = strcmp(state, "starting") == 0;
        address_of(object, "replication_addr", addr, status.replication_addr);
        leader_of(object, addr, &status.leader);
        vouched_of(object, &status);
        *ret_status = status;
    }
    json_object_put(object);
    return good ? 0 : -EBADMSG;
}

/* ---- the history in it ---- */

static int add_epoch(const struct json_object *object, struct nx_epochs *epochs)
{
    struct nx_epoch epoch;
    char node_id[NX_UUID_TEXT];
    uint64_t crc;

    if (!json_object_is_type(object, json_type_object) ||
        !number_of(object, "epoch", &epoch.epoch) ||
        !number_of(object, "first_offset", &epoch.first_offset) ||
        !id_of(object, "node_id", false, node_id) || !number_of(object, "crc", &crc) ||
        crc > UINT32_MAX || nx_uuid_parse(node_id, epoch.node_id) < 0) {
        return -EBADMSG;
    }
    epoch.crc = (uint32_t)crc;
    return nx_epochs_add(epochs, &epoch, NULL) < 0 ? -EBADMSG : 0;
}

int nx_history_parse(const char *text, size_t length, struct nx_epochs *ret_epochs)
{
    struct json_object *object = parse(text, length);
    struct json_object *list = NULL;
    int rc = -EBADMSG;

    ret_epochs->count = 0;
    ret_epochs->claim_length = 0;
    if (object != NULL && json_object_object_get_ex(object, "epochs", &list) &&
        json_object_is_type(list, json_type_array)) {
        rc = 0;
        for (size_t i = 0; rc == 0 && i < json_object_array_length(list); i++) {
            rc = add_epoch(json_object_array_get_idx(list, i), ret_epochs);
        }
    }
    if (rc < 0) {
        ret_epochs->count = 0;
    }
    json_object_put(object);
    return rc;
}

/* ---- promises ---- */

int nx_promise_parse(const char *text, size_t length, struct nx_peer_promise *ret_promise)
{
    struct json_object *object = parse(text, length);
    struct json_object *success = NULL;
    struct nx_peer_promise promise = {.node_id = ""};
    bool good;

    if (object == NULL) {
        return -EBADMSG;
    }
    good = json_object_object_get_ex(object, "success", &success) &&
           json_object_is_type(success, json_type_boolean) && json_object_get_boolean(success) &&
           id_of(object, "node_id", false, promise.node_id) &&
           id_of(object, "cluster_id", true, promise.cluster_id) &&
           position_of(object, "offset", "crc", &promise.position);
    if (good) {
        *ret_promise = promise;
    }
    json_object_put(object);
    return good ? 0 : -EBADMSG;
}

/* Cut where it is too long; what could be half a character then becomes a question mark. */
static void copy_plain(const char *text, char *out, size_t cap)
{
    size_t length = strnlen(text, cap - 1);

    for (size_t i = 0; i < length; i++) {
        out[i] = (char)(text[i] >= ' ' && text[i] <= '~' ? text[i] : '?');
    }
    out[length] = '\0';
}

void nx_refusal_parse(const char *text, size_t length, struct nx_peer_refusal *ret_refusal)
{
    struct json_object *object = parse(text, length);
    const char *code;
    const char *message;

    *ret_refusal = (struct nx_peer_refusal){.epoch = 0};
    if (object == NULL) {
        return;
    }
    code = text_of(object, "code");
    message = text_of(object, "message");
    (void)number_of(object, "epoch", &ret_refusal->epoch);
    /* A message may be cut; a code is one that is known whole, or none. */
    if (code != NULL && strlen(code) < sizeof ret_refusal->code && is_word(code)) {
        copy_plain(code, ret_refusal->code, sizeof ret_refusal->code);
    }
    if (message != NULL) {
        copy_plain(message, ret_refusal->message, sizeof ret_refusal->message);
    }
    json_object_put(object);
}

int nx_position_compare(const struct nx_position *a, const struct nx_position *b)
{
    if (a->epoch != b->epoch) {
        return a->epoch < b->epoch ? -1 : 1;
    }
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}
