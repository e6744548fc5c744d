/* Runs in http workers. POST /batch: conditions and operations that become one log entry, all or
 * nothing. */
#include "common/json_out.h"
#include "common/log_clock.h"
#include "http/conditions.h"
#include "http/connection.h"
#include "http/history.h"
#include "http/json_in.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"
#include "http/writes.h"

#include <json-c/json.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PLACE_SIZE 40

/* The batch as it is gathered; ops and conditions go straight into the request's buffers. */
struct batch {
    struct connection *connection;
    struct request *request;
    struct text ops;
    struct json_put item; /* the one being read */
    uint32_t op_count;
    const struct nx_http_history *history; /* once a condition names an epoch */
    struct client_offset foreign; /* the first that may not be of this history; epoch 0: none */
    struct json_fault fault;
};

static int short_of_memory(struct batch *batch)
{
    return nx_json_fault(&batch->fault, NX_ERROR_OVERLOADED, "Memory is short on this node.");
}

/* ---- operations ---- */

static int add_op(struct batch *batch, const struct nx_op *op)
{
    size_t size = nx_op_encoded_size(op);

    if (batch->ops.length + size > NX_ENTRY_MAX_OPS_LENGTH) {
        return nx_json_fault(
            &batch->fault, NX_ERROR_BATCH_TOO_LARGE,
            "The batch is above the 16 MiB that one log entry holds (at ops[%" PRIu32
            "]); send it as several.",
            batch->op_count);
    }
    if (!nx_text_reserve(&batch->ops, size)) {
        return short_of_memory(batch);
    }
    struct nx_writer writer = nx_writer_of(batch->ops.data + batch->ops.length, size);

    if (nx_op_encode(&writer, op) < 0) {
        return nx_json_fault(&batch->fault, NX_ERROR_BAD_JSON, "ops[%" PRIu32 "] can't be stored.",
                             batch->op_count);
    }
    batch->ops.length += size;
    batch->op_count++;
    return 0;
}

static int read_put(struct batch *batch, struct json_object *put, const char *place)
{
    const struct http_worker *worker = batch->connection->worker;
    size_t max_value = (size_t)worker->process->config->http.max_value_size;
    struct nx_op op;

    if (nx_json_put_of(put, place, max_value, &batch->item, &batch->fault) < 0) {
        return -EINVAL;
    }
    batch->request->puts++;
    op = nx_json_put_op(&batch->item, worker->shm);
    return add_op(batch, &op);
}

static int read_delete(struct batch *batch, struct json_object *deletion, const char *place)
{
    if (nx_json_key_of(deletion, "key key_base64", place, &batch->item, &batch->fault) < 0) {
        return -EINVAL;
    }
    return add_op(batch, &(struct nx_op){.kind = NX_OP_DELETE, .key = batch->item.key});
}

static int read_op(struct batch *batch, struct json_object *op, size_t index)
{
    char place[PLACE_SIZE];
    struct json_object *what = NULL;

    snprintf(place, sizeof place, "ops[%zu]", index);
    if (!json_object_is_type(op, json_type_object) || json_object_object_length(op) != 1) {
        return nx_json_fault(&batch->fault, NX_ERROR_BAD_JSON,
                             "%s must be {\"put\": {...}} or {\"delete\": {...}}.", place);
    }
    if (nx_json_only(op, "put delete", place, &batch->fault) < 0) {
        return -EINVAL;
    }
    if (json_object_object_get_ex(op, "put", &what)) {
        snprintf(place, sizeof place, "ops[%zu].put", index);
        return read_put(batch, what, place);
    }
    json_object_object_get_ex(op, "delete", &what);
    snprintf(place, sizeof place, "ops[%zu].delete", index);
    return read_delete(batch, what, place);
}

static int array_of(struct batch *batch,
                    struct json_object *object,
                    const char *name,
                    struct json_object **ret_array)
{
    if (!json_object_object_get_ex(object, name, ret_array)) {
        *ret_array = NULL;
        return 0;
    }
    if (!json_object_is_type(*ret_array, json_type_array)) {
        return nx_json_fault(&batch->fault, NX_ERROR_BAD_JSON, "\"%s\" must be an array.", name);
    }
    if (json_object_array_length(*ret_array) > NX_MAX_OPS) {
        return nx_json_fault(&batch->fault, NX_ERROR_BATCH_TOO_LARGE,
                             "\"%s\" has %zu elements; a batch takes up to %d. Send it as several.",
                             name, json_object_array_length(*ret_array), NX_MAX_OPS);
    }
    return 0;
}

static int read_ops(struct batch *batch, struct json_object *object)
{
    struct json_object *ops = NULL;
    int rc = array_of(batch, object, "ops", &ops);

    if (rc == 0 && ops == NULL) {
        return nx_json_fault(&batch->fault, NX_ERROR_BAD_JSON, "The batch has no \"ops\".");
    }
    for (size_t i = 0; rc == 0 && i < json_object_array_length(ops); i++) {
        rc = read_op(batch, json_object_array_get_idx(ops, i), i);
    }
    return rc;
}

/* ---- conditions ---- */

/* One look at the history serves all conditions. */
static void judge_history(struct batch *batch, const struct client_offset *wanted)
{
    uint64_t fork;

    if (wanted->epoch == 0 || batch->foreign.epoch > 0) {
        return;
    }
    if ((batch->history == NULL &&
         nx_http_history_now(batch->connection->worker->shm, &batch->history) < 0) ||
        nx_http_history_judge(batch->history, wanted, &fork) != NX_HISTORY_HELD) {
        batch->foreign = *wanted;
    }
}

static int read_condition(struct batch *batch, struct json_object *condition, size_t index)
{
    char place[PLACE_SIZE];
    struct tag_list list = {.any = false, .count = 1};

    snprintf(place, sizeof place, "if[%zu]", index);
    if (nx_json_key_of(condition, "key key_base64 offset", place, &batch->item, &batch->fault) <
            0 ||
        nx_json_offset_of(condition, "offset", place, &list.tags[0], &batch->fault) < 0) {
        return -EINVAL;
    }
    judge_history(batch, &list.tags[0]);
    if (!nx_tags_condition(&batch->request->conditions, batch->item.key, &list, false)) {
        return short_of_memory(batch);
    }
    batch->request->condition_count++;
    return 0;
}

static int read_conditions(struct batch *batch, struct json_object *object)
{
    struct json_object *conditions = NULL;
    int rc = array_of(batch, object, "if", &conditions);

    for (size_t i = 0; rc == 0 && conditions != NULL && i < json_object_array_length(conditions);
         i++) {
        rc = read_condition(batch, json_object_array_get_idx(conditions, i), i);
    }
    return rc;
}

static int read_batch(struct batch *batch)
{
    const struct text *body = &batch->request->body;
    struct json_object *object = NULL;
    int rc = nx_json_parse(batch->connection->worker->tokener,
                           nx_slice_of(body->data + NX_BODY_GAP, body->length - NX_BODY_GAP),
                           &object, &batch->fault);

    if (rc < 0) {
        return rc;
    }
    rc = nx_json_only(object, "if ops", "The batch", &batch->fault);
    rc = rc < 0 ? rc : read_conditions(batch, object);
    rc = rc < 0 ? rc : read_ops(batch, object);
    json_object_put(object);
    return rc;
}

/* ---- answers ---- */

static void respond_batch(struct connection *connection,
                          uint64_t offset,
                          uint64_t epoch,
                          uint64_t puts,
                          uint64_t deletes)
{
    struct text *text = &connection->worker->json;
    struct json json = nx_json_of(text);
    struct nx_completion completion = {.offset = offset, .epoch = epoch};

    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    nx_json_u64(&json, "offset", offset);
    nx_json_u64(&json, "puts", puts);
    nx_json_u64(&json, "deletes", deletes);
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_write_respond(connection, &completion, 200, false);
}

/* Reads the version of a condition's key and adds it to `json` if it isn't the expected one. 1: added;
 * 0: it holds; or a negative error. */
static int judge(struct connection *connection,
                 struct json *json,
                 const struct nx_condition *condition,
                 uint64_t *ret_read_offset)
{
    struct nx_item item = {.offset = 0};
    uint64_t expected = nx_load_u64(condition->versions);
    int rc = nx_view_get(connection->worker->view, condition->key, condition->key_length, false,
                         &item, ret_read_offset);

    if (rc < 0 && rc != -ENOENT) {
        return rc;
    }
    bool there = rc == 0 && !nx_expired(item.expires_at, nx_log_clock_ms(connection->worker->shm));
    uint64_t actual = there ? item.offset : 0;

    if (actual == expected) {
        return 0;
    }
    nx_json_open(json, NULL, '{');
    nx_json_bytes(json, "key", nx_slice_of(condition->key, condition->key_length));
    nx_json_u64(json, "expected", expected);
    nx_json_u64(json, "actual", actual);
    nx_json_close(json, '}');
    return 1;
}

/* Writes the array of conditions that don't hold. Their number, or a negative error. */
static int list_failed(struct connection *connection, struct text *text, uint64_t *ret_read_offset)
{
    const struct request *request = connection->request;
    const uint8_t *at = request->conditions.data;
    size_t left = request->conditions.length;
    struct json json = nx_json_of(text);
    struct nx_condition condition;
    int failed = 0;

    *ret_read_offset = nx_node_durable(connection->worker->shm);
    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '[');
    for (uint32_t i = 0; i < request->condition_count; i++) {
        int rc = nx_condition_decode(&at, &left, &condition);

        rc = rc < 0 ? rc : judge(connection, &json, &condition, ret_read_offset);
        if (rc < 0) {
            return rc;
        }
        failed += rc;
    }
    nx_json_close(&json, ']');
    return failed;
}

/* The walwriter's own finding, for when the key has changed once more since. */
static void list_first_failed(struct connection *connection,
                              struct text *text,
                              const struct nx_completion *completion)
{
    const struct request *request = connection->request;
    const uint8_t *at = request->conditions.data;
    size_t left = request->conditions.length;
    struct json json = nx_json_of(text);
    struct nx_condition condition = {.key_length = 0};
    bool found = false;

    for (uint32_t i = 0; i <= completion->failed_index && i < request->condition_count; i++) {
        found = nx_condition_decode(&at, &left, &condition) == 0;
    }
    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '[');
    if (found) {
        nx_json_open(&json, NULL, '{');
        nx_json_bytes(&json, "key", nx_slice_of(condition.key, condition.key_length));
        nx_json_u64(&json, "expected", nx_load_u64(condition.versions));
        nx_json_u64(&json, "actual", completion->actual);
        nx_json_close(&json, '}');
    }
    nx_json_close(&json, ']');
}

static void respond_failed(struct connection *connection,
                           const struct text *failed,
                           uint64_t offset,
                           uint64_t epoch)
{
    struct problem problem = {
        .code = NX_ERROR_PRECONDITION_FAILED,
        .message = "Nothing was written: the keys under 'failed' don't have the expected offsets "
                   "(0 is an absent key).",
        .has_offset = true,
        .offset = offset,
        .epoch = epoch,
        .failed = failed,
    };

    nx_respond_problem(connection, &problem);
}

static void batch_done(struct connection *connection,
                       const struct nx_completion *completion,
                       uint64_t argument)
{
    const struct request *request = connection->request;
    struct text *failed = &connection->worker->json;
    struct problem problem = {.has_offset = false};
    uint64_t read_offset;

    (void)argument;
    switch ((enum nx_submit_status)completion->status) {
    case NX_SUBMIT_DONE:
        respond_batch(connection, completion->offset, completion->epoch, request->puts,
                      completion->hits);
        break;
    case NX_SUBMIT_NOTHING:
        respond_batch(connection, completion->offset, completion->epoch, 0, 0);
        break;
    case NX_SUBMIT_CONDITION:
        if (nx_worker_open_view(connection->worker) < 0 ||
            list_failed(connection, failed, &read_offset) <= 0) {
            list_first_failed(connection, failed, completion);
        }
        respond_failed(connection, failed, completion->offset, completion->epoch);
        break;
    case NX_SUBMIT_OVERLOADED:
    case NX_SUBMIT_DISK_FULL:
    case NX_SUBMIT_MAP_FULL:
    case NX_SUBMIT_READ_ONLY:
    case NX_SUBMIT_BAD_FRAME:
    case NX_SUBMIT_TOO_LARGE:
    case NX_SUBMIT_DAMAGED:
    case NX_SUBMIT_NO_QUORUM:
    case NX_SUBMIT_FENCED:
    case NX_SUBMIT_UNCONFIRMED:
    case NX_SUBMIT_UNSETTLED:
    case NX_SUBMIT_STOPPED:
    case NX_SUBMIT_DRAINING:
        nx_write_problem(connection->worker->shm, completion, &problem);
        nx_respond_problem(connection, &problem);
        break;
    }
}

/* A batch without operations only asks whether its conditions hold, which reading answers. */
static void answer_without_ops(struct connection *connection)
{
    struct http_worker *worker = connection->worker;
    uint64_t read_offset = 0;
    int rc = nx_worker_open_view(worker);

    rc = rc < 0 ? rc : list_failed(connection, &worker->json, &read_offset);
    if (rc < 0) {
        nx_refuse_read(connection, rc);
    } else if (rc > 0) {
        respond_failed(connection, &worker->json, read_offset, nx_node_epoch(worker->shm));
    } else {
        respond_batch(connection, read_offset, nx_node_epoch(worker->shm), 0, 0);
    }
}

static void submit(struct batch *batch)
{
    struct request *request = batch->request;
    struct text kept = {.data = NULL};

    /* The conditions are needed again to say which ones failed, so the submission gets a copy. */
    if (!nx_text_add(&kept, request->conditions.data, request->conditions.length)) {
        nx_refuse(batch->connection, NX_ERROR_OVERLOADED, "Memory is short on this node.");
        return;
    }
    nx_write_submit(batch->connection, &(struct write_request){
                                           .body = &batch->ops,
                                           .conditions = &kept,
                                           .op_count = batch->op_count,
                                           .condition_count = request->condition_count,
                                           .done = batch_done,
                                       });
    nx_text_free(&kept);
}

void nx_handle_batch(struct connection *connection)
{
    struct batch batch = {.connection = connection, .request = connection->request};

    if (read_batch(&batch) < 0) {
        nx_refuse(connection, batch.fault.code, "%s Nothing was written.", batch.fault.message);
    } else if (nx_http_history_check(connection, &batch.foreign, 1, false)) {
        if (batch.op_count == 0) {
            answer_without_ops(connection);
        } else {
            submit(&batch);
        }
    }
    nx_text_free(&batch.ops);
    nx_json_put_free(&batch.item);
}
