/* Runs in http workers. Writes the heads of answers and the problems; see response.h. */
#include "http/response.h"

#include "common/json_out.h"
#include "common/log.h"
#include "http/connection.h"
#include "http/router.h"
#include "http/worker.h"
#include "storage/file_io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- heads ---- */

/* The Date header's value; made once a second. */
static const char *date_now(void)
{
    static char text[40];
    static time_t made;
    struct timespec now;
    struct tm parts;

    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    if (now.tv_sec != made || text[0] == '\0') {
        gmtime_r(&now.tv_sec, &parts);
        strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
        made = now.tv_sec;
    }
    return text;
}

static void put_number(struct text *out, const char *before, uint64_t value, const char *after)
{
    nx_text_puts(out, before);
    nx_text_u64(out, value);
    nx_text_puts(out, after);
}

static bool http_1_0(const struct connection *connection)
{
    return connection->request != NULL && connection->request->parser.http_major == 1 &&
           connection->request->parser.http_minor == 0;
}

static bool asks_by(const struct connection *connection, enum http_method method)
{
    return connection->request != NULL && connection->request->parser.method == method;
}

/* Everything up to the headers that frame the body. */
static void put_head(struct connection *connection, const struct response *response)
{
    struct text *out = &connection->worker->out;

    put_number(out, "HTTP/1.1 ", response->status, " ");
    nx_text_puts(out, http_status_str((enum http_status)response->status));
    nx_text_puts(out, "\r\nDate: ");
    nx_text_puts(out, date_now());
    nx_text_puts(out, "\r\nX-Content-Type-Options: nosniff\r\n");
    if (response->has_offset) {
        put_number(out, "Nexus-Offset: ", response->offset, "\r\n");
        put_number(out, "Nexus-Epoch: ", response->epoch, "\r\n");
    }
    if (response->has_etag) {
        put_number(out, "ETag: \"", response->etag, "\"\r\n");
    }
    if (response->expires_at > 0) {
        put_number(out, "Nexus-Expires-At: ", response->expires_at, "\r\n");
    }
    if (response->type != NULL) {
        nx_text_puts(out, "Content-Type: ");
        nx_text_puts(out, response->type);
        nx_text_puts(out, "\r\n");
    }
    if (response->allow != NULL) {
        nx_text_puts(out, "Allow: ");
        nx_text_puts(out, response->allow);
        nx_text_puts(out, "\r\n");
    }
    if (response->retry_after > 0) {
        put_number(out, "Retry-After: ", response->retry_after, "\r\n");
    }
    if (response->headers != NULL) {
        nx_text_puts(out, response->headers);
    }
    if (!nx_connection_keeps(connection)) {
        connection->keep_alive = false;
        nx_text_puts(out, "Connection: close\r\n");
    } else if (http_1_0(connection)) {
        nx_text_puts(out, "Connection: keep-alive\r\n");
    }
}

/* Half an answer can't be taken back: without memory, or when something goes wrong behind a head that
 * is out already, the connection ends. */
static void check_memory(struct connection *connection)
{
    if (connection->worker->out.failed) {
        nx_connection_close(connection);
    }
}

/* Small itself, so that it is sent. */
static void refuse_answer_budget(struct connection *connection)
{
    nx_refuse(connection, NX_ERROR_OVERLOADED,
              "Too many large answers of this node wait until their clients take them; try again.");
}

void nx_respond(struct connection *connection, const struct response *response)
{
    struct text *out = &connection->worker->out;

    if (connection->answering) {
        nx_connection_close(connection);
        return;
    }
    /* A GET's alone: what a write has done must be told. */
    if (asks_by(connection, HTTP_GET) &&
        !nx_connection_may_queue(connection, response->body.length)) {
        refuse_answer_budget(connection);
        return;
    }
    put_head(connection, response);
    if (response->type != NULL) {
        put_number(out, "Content-Length: ", response->body.length, "\r\n");
    } else if (response->status == 200) {
        nx_text_puts(out, "Content-Length: 0\r\n");
    }
    nx_text_puts(out, "\r\n");
    /* Without Content-Length not a byte: the client would take it for the next answer. */
    if (!asks_by(connection, HTTP_HEAD) && response->type != NULL) {
        nx_text_add(out, response->body.data, response->body.length);
    }
    check_memory(connection);
    nx_connection_answered(connection);
}

void nx_respond_json(struct connection *connection, const struct text *text)
{
    if (text->failed) {
        nx_refuse(connection, NX_ERROR_OVERLOADED, "Memory is short on this node.");
        return;
    }
    nx_respond(connection, &(struct response){
                               .status = 200,
                               .type = "application/json",
                               .body = nx_slice_of(text->data, text->length),
                           });
}

void nx_respond_success(struct connection *connection, const char *message)
{
    struct text *text = &connection->worker->json;
    struct json json = nx_json_of(text);

    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    nx_json_bool(&json, "success", true);
    nx_json_string(&json, "message", message);
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_respond_json(connection, text);
}

bool nx_respond_begin(struct connection *connection, const struct response *response)
{
    struct text *out = &connection->worker->out;

    connection->chunked = !response->has_length && !http_1_0(connection);
    if (!response->has_length && http_1_0(connection)) {
        connection->keep_alive = false;
    }
    put_head(connection, response);
    if (response->has_length) {
        put_number(out, "Content-Length: ", response->length, "\r\n");
    }
    nx_text_puts(out, connection->chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
    check_memory(connection);
    if (asks_by(connection, HTTP_HEAD)) {
        nx_connection_answered(connection);
        return false;
    }
    connection->answering = true;
    return true;
}

/* What stands around a piece that is a chunk. */
static void put_chunk_begin(struct connection *connection, size_t length)
{
    char line[20];

    if (connection->chunked) {
        snprintf(line, sizeof line, "%zx\r\n", length);
        nx_text_puts(&connection->worker->out, line);
    }
}

static void put_chunk_end(struct connection *connection)
{
    if (connection->chunked) {
        nx_text_puts(&connection->worker->out, "\r\n");
    }
    check_memory(connection);
}

void nx_respond_piece(struct connection *connection, struct nx_slice piece)
{
    if (piece.length > 0) {
        put_chunk_begin(connection, piece.length);
        nx_text_add(&connection->worker->out, piece.data, piece.length);
        put_chunk_end(connection);
    }
}

void nx_respond_shared_piece(struct connection *connection,
                             struct nx_slice piece,
                             void (*release)(const void *bytes, size_t length, void *arg),
                             void *arg)
{
    put_chunk_begin(connection, piece.length);
    nx_connection_send_shared(connection, piece, release, arg);
    put_chunk_end(connection);
}

void nx_respond_end(struct connection *connection)
{
    if (connection->chunked) {
        nx_text_puts(&connection->worker->out, "0\r\n\r\n");
        check_memory(connection);
    }
    connection->answering = false;
    nx_connection_answered(connection);
}

/* ---- problems ---- */

static void put_progress(struct json *json, const struct problem *problem)
{
    if (problem->line > 0) {
        nx_json_u64(json, "line", problem->line);
    }
    nx_json_u64(json, "imported", problem->imported);
    nx_json_u64(json, "entries", problem->entries);
}

/* Where to ask what has become of an entry: the same path on every node. */
static void put_check(struct json *json, const struct problem *problem)
{
    char path[96];

    snprintf(path, sizeof path, "/replication/entry/%" PRIu64 "?epoch=%" PRIu64,
             problem->check_offset, problem->check_epoch);
    nx_json_string(json, "check", path);
}

static void put_problem(struct text *text, const struct problem *problem)
{
    struct json json = nx_json_of(text);

    nx_json_open(&json, NULL, '{');
    nx_json_u64(&json, "status", nx_error_status(problem->code));
    nx_json_string(&json, "title", nx_error_title(problem->code));
    nx_json_string(&json, "code", nx_error_name(problem->code));
    nx_json_bool(&json, "success", false);
    nx_json_string(&json, "message", problem->message);
    if (problem->has_offset) {
        nx_json_u64(&json, "offset", problem->offset);
    }
    if (problem->has_offset || problem->has_epoch) {
        nx_json_u64(&json, "epoch", problem->epoch);
    }
    if (problem->oldest > 0) {
        nx_json_u64(&json, "oldest", problem->oldest);
    }
    if (problem->has_progress) {
        put_progress(&json, problem);
    }
    if (problem->has_deleted) {
        nx_json_u64(&json, "deleted", problem->deleted);
    }
    if (problem->check_offset > 0) {
        put_check(&json, problem);
    }
    if (nx_error_retryable(problem->code)) {
        nx_json_bool(&json, "retryable", true);
    }
    if (problem->master[0] != '\0') {
        nx_json_string(&json, "master", problem->master);
    }
    if (problem->failed != NULL) {
        nx_json_raw(&json, "failed", problem->failed);
    }
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
}

/* Seconds after which trying again makes sense; 0: it doesn't. */
static unsigned retry_after(const struct problem *problem)
{
    return problem->retry_after == 0 && nx_error_retryable(problem->code) ? 1
                                                                          : problem->retry_after;
}

void nx_respond_problem(struct connection *connection, const struct problem *problem)
{
    struct text *text = &connection->worker->scratch;

    nx_text_reset(text, SIZE_MAX);
    put_problem(text, problem);
    if (text->failed) {
        nx_connection_close(connection);
        return;
    }
    nx_respond(connection, &(struct response){
                               .status = nx_error_status(problem->code),
                               .type = "application/problem+json",
                               .body = nx_slice_of(text->data, text->length),
                               .has_offset = problem->has_offset,
                               .offset = problem->seen > 0 ? problem->seen : problem->offset,
                               .epoch = problem->epoch,
                               .allow = problem->allow,
                               .headers = problem->headers,
                               .retry_after = retry_after(problem),
                           });
}

void nx_refuse(struct connection *connection, enum nx_error code, const char *format, ...)
{
    struct problem problem = {.code = code};
    va_list args;

    va_start(args, format);
    vsnprintf(problem.message, sizeof problem.message, format, args);
    va_end(args);
    nx_respond_problem(connection, &problem);
}

void nx_refuse_too_large(struct connection *connection)
{
    const struct request *request = connection->request;

    if (request->route->body == ROUTE_BODY_VALUE) {
        nx_refuse(connection, NX_ERROR_VALUE_TOO_LARGE,
                  "The value is above http.max_value_size (%zu bytes).", request->body_most);
    } else if (request->route->body == ROUTE_BODY_EMPTY) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "A body came with POST, and nothing was stored. " NX_POST_KEY_HELP);
    } else if (request->route->body == ROUTE_BODY_SMALL) {
        nx_refuse(connection, NX_ERROR_VALUE_TOO_LARGE,
                  "The body is above %zu bytes; this endpoint takes one small JSON object.",
                  request->body_most);
    } else {
        nx_refuse(connection, NX_ERROR_BATCH_TOO_LARGE,
                  "The body is above %zu bytes; send the operations in several batches, or use "
                  "/import.",
                  request->body_most);
    }
}

void nx_refuse_body_budget(struct connection *connection)
{
    nx_refuse(connection, NX_ERROR_OVERLOADED,
              "This node is receiving too many large bodies at once; try again.");
}

void nx_read_problem(int error, struct problem *ret_problem)
{
    ret_problem->code = NX_ERROR_OVERLOADED;
    switch (error) {
    case -EAGAIN:
        snprintf(ret_problem->message, sizeof ret_problem->message,
                 "What was read was overtaken by writes too often; try again.");
        break;
    case -ESTALE:
        ret_problem->code = NX_ERROR_QUORUM_UNAVAILABLE;
        snprintf(ret_problem->message, sizeof ret_problem->message,
                 "The committed state is not known yet; try again when the quorum is back.");
        break;
    case -EBADMSG:
        nx_error("a damaged record was found in the state while reading; restore this node from a "
                 "replica");
        ret_problem->code = NX_ERROR_INTERNAL;
        snprintf(ret_problem->message, sizeof ret_problem->message,
                 "A stored record is damaged (its checksum is wrong); see this node's log.");
        break;
    default:
        nx_error("reading the state failed: %s", nx_errno_text(error));
        snprintf(ret_problem->message, sizeof ret_problem->message, "Reading the state failed: %s.",
                 nx_errno_text(error));
        break;
    }
}

void nx_refuse_read(struct connection *connection, int error)
{
    struct problem problem = {.has_offset = false};

    nx_read_problem(error, &problem);
    nx_respond_problem(connection, &problem);
}
