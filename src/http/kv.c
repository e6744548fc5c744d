/* Runs in http workers. One key: GET, HEAD, PUT, POST, DELETE /kv/{key}. */
#include "common/json_out.h"
#include "common/latch.h"
#include "common/log_clock.h"
#include "http/conditions.h"
#include "http/connection.h"
#include "http/expiry.h"
#include "http/history.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/waits.h"
#include "http/worker.h"
#include "http/writes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAX_WAIT_S 300

/* Where the operation's head (entry.h) holds the length of the value. */
#define OP_VALUE_LENGTH_AT 4

/* ---- reading ---- */

struct read_conditions {
    bool match_given;
    bool none_match_given;
    struct tag_list match;
    struct tag_list none_match;
};

static bool read_condition(struct connection *connection,
                           const char *name,
                           bool *ret_given,
                           struct tag_list *ret_list)
{
    const struct nx_slice *value = nx_request_header(connection->request, name);

    *ret_given = value != NULL;
    if (value == NULL) {
        return true;
    }
    if (nx_request_header_count(connection->request, name) > 1 ||
        nx_tags_parse(*value, ret_list) < 0) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "%s must be given once, as \"N\", N, N@E, a list of at most %d of them, or *.",
                  name, NX_MAX_TAGS);
        return false;
    }
    return true;
}

/* Judged after the read: what it saw is then all within the history, so that a version of another one can't
 * equal it. */
static bool check_history(struct connection *connection, const struct read_conditions *conditions)
{
    return (!conditions->match_given || nx_http_history_check(connection, conditions->match.tags,
                                                              conditions->match.count, true)) &&
           (!conditions->none_match_given ||
            nx_http_history_check(connection, conditions->none_match.tags,
                                  conditions->none_match.count, true));
}

static void respond_absent(struct connection *connection, uint64_t seen, uint64_t epoch)
{
    struct problem problem = {
        .code = NX_ERROR_KEY_NOT_FOUND,
        .message = "There is no such key.",
        .has_offset = true,
        .offset = seen,
        .epoch = epoch,
    };

    nx_respond_problem(connection, &problem);
}

static void respond_mismatch(struct connection *connection,
                             uint64_t version,
                             uint64_t seen,
                             uint64_t epoch)
{
    struct problem problem = {
        .code = NX_ERROR_PRECONDITION_FAILED,
        .has_offset = true,
        .offset = version,
        .seen = seen,
        .epoch = epoch,
    };

    if (version == 0) {
        snprintf(problem.message, sizeof problem.message,
                 "The condition does not hold: the key is absent (offset 0).");
    } else {
        snprintf(problem.message, sizeof problem.message,
                 "The condition does not hold: the key's version is %" PRIu64 ".", version);
    }
    nx_respond_problem(connection, &problem);
}

static void respond_value(struct connection *connection,
                          const struct nx_item *item,
                          uint64_t read_offset,
                          bool modified)
{
    nx_respond(connection, &(struct response){
                               .status = modified ? 200 : 304,
                               .type = modified ? "application/octet-stream" : NULL,
                               .body = nx_slice_of(item->value, modified ? item->value_length : 0),
                               .has_offset = true,
                               .offset = read_offset,
                               .epoch = nx_node_epoch(connection->worker->shm),
                               .has_etag = true,
                               .etag = item->offset,
                               .expires_at = item->expires_at,
                           });
}

/* The version did not change within ?wait=: 304, or 404 for a key that is (still) absent. Or its expiry has
 * come. */
static void wait_expired(struct connection *connection)
{
    nx_wait_cancel(connection);
    connection->request->wait_over = nx_now_ms() >= connection->request->deadline_ms;
    nx_route_body_done(connection);
}

/* When a wait is to be looked at whatever comes: at its end, or when the key expires, of which no entry may
 * tell in time. */
static uint64_t look_ms(const struct connection *connection, const struct nx_item *item)
{
    uint64_t deadline = connection->request->deadline_ms;
    uint64_t clock = nx_log_clock_ms(connection->worker->shm);
    uint64_t expiry;

    if (item == NULL || item->expires_at == 0) {
        return deadline;
    }
    expiry = nx_now_ms() + (item->expires_at > clock ? item->expires_at - clock : 0);
    return expiry < deadline ? expiry : deadline;
}

/* True when the request waits for another version: parked. */
static bool parked(struct connection *connection,
                   uint64_t wait_s,
                   const struct nx_item *item,
                   uint64_t read_offset)
{
    struct request *request = connection->request;

    if (wait_s == 0 || request->wait_over || connection->worker->stopping) {
        return false;
    }
    if (request->deadline_ms == 0) {
        request->deadline_ms = nx_now_ms() + wait_s * 1000;
    }
    if (request->local) { /* what it sees the tail doesn't know yet */
        nx_wait_park(connection, read_offset + 1, look_ms(connection, item), nx_route_body_done,
                     wait_expired);
    } else {
        nx_watch_park(connection, read_offset, look_ms(connection, item), nx_route_body_done,
                      wait_expired);
    }
    return true;
}

static void answer_read(struct connection *connection,
                        const struct read_conditions *conditions,
                        const struct nx_item *item,
                        uint64_t read_offset)
{
    uint64_t version = item == NULL ? 0 : item->offset;
    bool unchanged =
        conditions->none_match_given && nx_tags_match(&conditions->none_match, version);
    uint64_t wait_s = 0;
    char message[NX_MESSAGE_SIZE];

    if (nx_query_u64(&connection->request->query, "wait", 1, MAX_WAIT_S, &wait_s, message) < 0) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER, "%s", message);
        return;
    }
    if (wait_s > 0 && !conditions->none_match_given) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "wait needs If-None-Match with the version that you have (0: absent).");
        return;
    }
    if (unchanged && parked(connection, wait_s, item, read_offset)) {
        return;
    }
    if (conditions->match_given && !nx_tags_match(&conditions->match, version)) {
        respond_mismatch(connection, version, read_offset, nx_node_epoch(connection->worker->shm));
    } else if (item == NULL) {
        respond_absent(connection, read_offset, nx_node_epoch(connection->worker->shm));
    } else {
        respond_value(connection, item, read_offset, !unchanged);
    }
}

void nx_handle_kv_get(struct connection *connection)
{
    struct request *request = connection->request;
    struct read_conditions conditions;
    struct nx_item item;
    uint64_t read_offset;
    int rc;

    if (!read_condition(connection, "If-Match", &conditions.match_given, &conditions.match) ||
        !read_condition(connection, "If-None-Match", &conditions.none_match_given,
                        &conditions.none_match)) {
        return;
    }
    rc = nx_view_get(connection->worker->view, request->key.data, request->key.length,
                     request->parser.method == HTTP_GET, &item, &read_offset);
    if (rc == 0 && nx_expired(item.expires_at, nx_log_clock_ms(connection->worker->shm))) {
        rc = -ENOENT;
    }
    if (rc < 0 && rc != -ENOENT) {
        nx_refuse_read(connection, rc);
    } else if (check_history(connection, &conditions)) {
        answer_read(connection, &conditions, rc == 0 ? &item : NULL, read_offset);
    }
}

/* ---- writing ---- */

static void respond_offset(struct connection *connection,
                           const struct nx_completion *completion,
                           unsigned status)
{
    struct text *text = &connection->worker->json;
    struct json json = nx_json_of(text);

    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    nx_json_u64(&json, "offset", completion->offset);
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_write_respond(connection, completion, status, true);
}

static void respond_refused(struct connection *connection, const struct nx_completion *completion)
{
    struct problem problem = {.has_offset = false};

    if (completion->status == NX_SUBMIT_CONDITION) {
        respond_mismatch(connection, completion->actual, completion->offset, completion->epoch);
        return;
    }
    nx_write_problem(connection->worker->shm, completion, &problem);
    nx_respond_problem(connection, &problem);
}

static void put_done(struct connection *connection,
                     const struct nx_completion *completion,
                     uint64_t argument)
{
    (void)argument;
    if (completion->status == NX_SUBMIT_DONE) {
        respond_offset(connection, completion, completion->hits > 0 ? 200 : 201);
    } else {
        respond_refused(connection, completion);
    }
}

/* Writes the operation's head into the gap right before the value, which stays where it is. */
static int wrap_value(struct request *request, uint64_t expires_at, size_t *ret_from)
{
    struct nx_op op = {.kind = NX_OP_PUT, .key = request->key};
    struct nx_writer writer;
    size_t head;
    size_t from;
    int rc;

    nx_op_expire(&op, expires_at);
    head = nx_op_encoded_size(&op);
    from = NX_BODY_GAP - head;
    writer = nx_writer_of(request->body.data + from, head);
    rc = nx_op_encode(&writer, &op);
    if (rc == 0) {
        nx_store_u32(request->body.data + from + OP_VALUE_LENGTH_AT,
                     (uint32_t)(request->body.length - NX_BODY_GAP));
        *ret_from = from;
    }
    return rc;
}

/* The ttl, from `least` on; *ret_ttl_s stays as it is without one. False: answered. */
static bool take_ttl(struct connection *connection, uint64_t least, uint64_t *ret_ttl_s)
{
    char message[NX_MESSAGE_SIZE];

    if (nx_query_u64(&connection->request->query, "ttl", least, NX_MAX_TTL_S, ret_ttl_s, message) ==
        0) {
        return true;
    }
    nx_refuse(connection, NX_ERROR_BAD_PARAMETER, "%s It is in seconds; nothing was written.",
              message);
    return false;
}

void nx_handle_kv_put(struct connection *connection)
{
    struct request *request = connection->request;
    uint64_t ttl_s = 0;
    size_t from = 0;

    if (!take_ttl(connection, 1, &ttl_s) || !nx_write_conditions(connection)) {
        return;
    }
    if (wrap_value(request, nx_expires_in(connection->worker->shm, ttl_s), &from) < 0) {
        nx_refuse(connection, NX_ERROR_BAD_KEY, "A key has 1 to %d bytes.", NX_MAX_KEY);
        return;
    }
    nx_write_submit(connection, &(struct write_request){
                                    .body = &request->body,
                                    .body_from = from,
                                    .conditions = &request->conditions,
                                    .op_count = 1,
                                    .condition_count = request->condition_count,
                                    .flags = NX_SUBMIT_WANT_HITS,
                                    .done = put_done,
                                });
}

static void delete_done(struct connection *connection,
                        const struct nx_completion *completion,
                        uint64_t argument)
{
    struct text *text = &connection->worker->json;
    struct json json = nx_json_of(text);

    (void)argument;
    if (completion->status != NX_SUBMIT_DONE && completion->status != NX_SUBMIT_NOTHING) {
        respond_refused(connection, completion);
        return;
    }
    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    nx_json_u64(&json, "offset", completion->offset);
    nx_json_bool(&json, "deleted", completion->status == NX_SUBMIT_DONE);
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_write_respond(connection, completion, 200, false);
}

/* Submits one operation without a value. */
static void submit_op(struct connection *connection,
                      const struct nx_op *op,
                      uint32_t flags,
                      submission_done done)
{
    struct request *request = connection->request;
    size_t size = nx_op_encoded_size(op);
    struct nx_writer writer;

    nx_text_reset(&request->body, SIZE_MAX);
    if (!nx_text_reserve(&request->body, size)) {
        nx_refuse(connection, NX_ERROR_OVERLOADED, "Memory is short on this node.");
        return;
    }
    writer = nx_writer_of(request->body.data, size);
    if (nx_op_encode(&writer, op) < 0) {
        nx_refuse(connection, NX_ERROR_BAD_KEY, "A key has 1 to %d bytes.", NX_MAX_KEY);
        return;
    }
    request->body.length = size;
    nx_write_submit(connection, &(struct write_request){
                                    .body = &request->body,
                                    .conditions = &request->conditions,
                                    .op_count = 1,
                                    .condition_count = request->condition_count,
                                    .flags = flags,
                                    .done = done,
                                });
}

void nx_handle_kv_delete(struct connection *connection)
{
    struct nx_op op = {.kind = NX_OP_DELETE, .key = connection->request->key};

    if (nx_write_conditions(connection)) {
        submit_op(connection, &op, NX_SUBMIT_WANT_HITS, delete_done);
    }
}

static void expire_done(struct connection *connection,
                        const struct nx_completion *completion,
                        uint64_t argument)
{
    (void)argument;
    if (completion->status == NX_SUBMIT_DONE) {
        respond_offset(connection, completion, 200);
    } else if (completion->status == NX_SUBMIT_NOTHING) {
        respond_absent(connection, completion->offset, completion->epoch);
    } else {
        respond_refused(connection, completion);
    }
}

void nx_handle_kv_expire(struct connection *connection)
{
    struct nx_op op = {.kind = NX_OP_PUT, .key = connection->request->key};
    uint64_t ttl_s = 0;

    if (nx_query_find(&connection->request->query, "ttl") == NULL) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "POST without ttl, and nothing was changed. " NX_POST_KEY_HELP);
        return;
    }
    if (!take_ttl(connection, 0, &ttl_s) || !nx_write_conditions(connection)) {
        return;
    }
    nx_op_expire(&op, nx_expires_in(connection->worker->shm, ttl_s));
    submit_op(connection, &op, NX_SUBMIT_TOUCH, expire_done);
}
