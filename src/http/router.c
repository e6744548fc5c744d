/* Runs in http workers. Finds the endpoint of a request and makes the checks that all endpoints share,
 * in this order: path, access, method, framing of the body, query, state of the node. See routes.def. */
#include "http/router.h"

#include "common/latch.h"
#include "common/quorum.h"
#include "http/access.h"
#include "http/conditions.h"
#include "http/connection.h"
#include "http/durability.h"
#include "http/history.h"
#include "http/node.h"
#include "http/response.h"
#include "http/waits.h"
#include "http/worker.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define KEY_PATH         "/kv/"
#define KEY_MARK         "{key}"
#define ID_MARK          "{id}"
#define SLASH_MARK       "[/]"
#define BATCH_MOST_BYTES (64u << 20) /* of JSON; 16 MiB decoded is what counts */
#define SMALL_MOST_BYTES (4u << 10)

const struct route nx_routes[] = {
#define NX_ROUTE(verb, path_text, name, body_use, access_class, query_names) \
    {                                                                        \
        .method = HTTP_##verb,                                               \
        .path = (path_text),                                                 \
        .handler = nx_handle_##name,                                         \
        .body = ROUTE_BODY_##body_use,                                       \
        .access = ROUTE_ACCESS_##access_class,                               \
        .params = (query_names),                                             \
    },
#include "http/routes.def"
#undef NX_ROUTE
};

const unsigned nx_route_count = sizeof nx_routes / sizeof *nx_routes;

/* ---- path ---- */

/* What a route's path is made of, so that a request is compared with bytes of known lengths. */
struct pattern {
    enum pattern_kind {
        PATTERN_WHOLE, /* the path itself */
        PATTERN_KEY,   /* a key behind it */
        PATTERN_SLASH, /* perhaps a slash behind it */
        PATTERN_ID,    /* a part without slashes, then `behind` */
    } kind;
    struct nx_slice before;
    struct nx_slice behind;
};

static struct pattern read_pattern(const char *path)
{
    static const struct {
        const char *mark;
        enum pattern_kind kind;
    } marks[] = {{KEY_MARK, PATTERN_KEY}, {ID_MARK, PATTERN_ID}, {SLASH_MARK, PATTERN_SLASH}};

    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++) {
        const char *at = strstr(path, marks[i].mark);

        if (at != NULL) {
            return (struct pattern){.kind = marks[i].kind,
                                    .before = nx_slice_of(path, (size_t)(at - path)),
                                    .behind = nx_slice_text(at + strlen(marks[i].mark))};
        }
    }
    return (struct pattern){.kind = PATTERN_WHOLE, .before = nx_slice_text(path)};
}

/* Read once in the life of a worker. */
static const struct pattern *pattern_of(const struct route *route)
{
    static struct pattern patterns[sizeof nx_routes / sizeof *nx_routes];
    struct pattern *pattern = &patterns[route - nx_routes];

    if (pattern->before.data == NULL) {
        *pattern = read_pattern(route->path);
    }
    return pattern;
}

/* Matches a path with a part {id}; *ret_id is what stands there. */
static bool match_id(const struct pattern *pattern, struct nx_slice path, struct nx_slice *ret_id)
{
    size_t before = pattern->before.length;
    size_t behind = pattern->behind.length;

    if (path.length <= before + behind || memcmp(path.data, pattern->before.data, before) != 0 ||
        memcmp(path.data + path.length - behind, pattern->behind.data, behind) != 0) {
        return false;
    }
    *ret_id = nx_slice_of(path.data + before, path.length - before - behind);
    return memchr(ret_id->data, '/', ret_id->length) == NULL;
}

static bool path_matches(const struct route *route, struct nx_slice path)
{
    const struct pattern *pattern = pattern_of(route);
    struct nx_slice before = pattern->before;
    struct nx_slice id;

    switch (pattern->kind) {
    case PATTERN_KEY:
        return path.length > before.length && memcmp(path.data, before.data, before.length) == 0;
    case PATTERN_SLASH:
        path.length -= path.length == before.length + 1 && path.data[before.length] == '/' ? 1 : 0;
        return nx_slice_equal(path, before);
    case PATTERN_ID:
        return match_id(pattern, path, &id);
    case PATTERN_WHOLE:
        break;
    }
    return nx_slice_equal(path, before);
}

/* HEAD is served by the row of GET. */
static bool method_matches(const struct route *route, unsigned method)
{
    return route->method == method || (method == HTTP_HEAD && route->method == HTTP_GET) ||
           (method == HTTP_OPTIONS && route->access == ROUTE_ACCESS_PROBE);
}

static bool is_open(const struct route *route)
{
    return route->access == ROUTE_ACCESS_OPEN || route->access == ROUTE_ACCESS_PROBE;
}

struct allowed {
    char text[64];
    bool open; /* all rows of the path are */
};

static void allow(struct allowed *allowed, const char *method)
{
    size_t used = strlen(allowed->text);

    if (strstr(allowed->text, method) == NULL) {
        snprintf(allowed->text + used, sizeof allowed->text - used, "%s%s", used > 0 ? ", " : "",
                 method);
    }
}

/* The methods of a path; text is "" when the path is unknown. For refusals: it looks at every route. */
static struct allowed allowed_methods(struct nx_slice path)
{
    struct allowed allowed = {.text = "", .open = true};

    for (unsigned i = 0; i < nx_route_count; i++) {
        if (path_matches(&nx_routes[i], path)) {
            allow(&allowed, http_method_str((enum http_method)nx_routes[i].method));
            if (nx_routes[i].method == HTTP_GET) {
                allow(&allowed, "HEAD");
            }
            allowed.open = allowed.open && is_open(&nx_routes[i]);
        }
    }
    if (allowed.text[0] != '\0') {
        allow(&allowed, "OPTIONS");
    }
    return allowed;
}

static const struct route *find_route(struct nx_slice path, unsigned method)
{
    for (unsigned i = 0; i < nx_route_count; i++) {
        if (method_matches(&nx_routes[i], method) && path_matches(&nx_routes[i], path)) {
            return &nx_routes[i];
        }
    }
    return NULL;
}

/* Splits the target and decodes its path. False: answered. */
static bool take_path(struct connection *connection)
{
    struct request *request = connection->request;
    const uint8_t *mark = memchr(request->target.data, '?', request->target.length);
    struct nx_slice raw = request->target;
    int rc;

    if (mark != NULL) {
        raw.length = (size_t)(mark - raw.data);
        request->query_raw = nx_slice_of(mark + 1, request->target.length - raw.length - 1);
    }
    rc = nx_percent_decode(&request->path, raw, false);
    if (rc == -EINVAL) {
        nx_refuse(connection, NX_ERROR_BAD_KEY,
                  "The path has a '%%' that two hexadecimal digits don't follow; write %%25 for "
                  "'%%'.");
    } else if (rc < 0) {
        nx_refuse(connection, NX_ERROR_OVERLOADED, "Memory is short on this node.");
    }
    return rc == 0;
}

/* The key of a /kv/{key} path. False: answered. */
static bool take_key(struct connection *connection, struct nx_slice path)
{
    struct request *request = connection->request;
    size_t fixed = strlen(KEY_PATH);

    request->key = nx_slice_of(path.data + fixed, path.length - fixed);
    if (request->key.length > NX_MAX_KEY) {
        nx_refuse(connection, NX_ERROR_BAD_KEY,
                  "The key has %zu bytes; a key has 1 to %d bytes, percent-decoded.",
                  request->key.length, NX_MAX_KEY);
        return false;
    }
    return true;
}

/* What the path says beyond naming its route. False: answered. */
static bool take_parts(struct connection *connection, struct nx_slice path)
{
    struct request *request = connection->request;
    const struct pattern *pattern = pattern_of(request->route);

    if (pattern->kind == PATTERN_ID) {
        (void)match_id(pattern, path, &request->id);
    }
    return pattern->kind != PATTERN_KEY || take_key(connection, path);
}

static void refuse_empty_key(struct connection *connection)
{
    nx_refuse(connection, NX_ERROR_BAD_KEY, "The key is empty; a key has 1 to %d bytes.%s",
              NX_MAX_KEY,
              connection->request->parser.method == HTTP_DELETE
                  ? " All keys with a prefix are deleted by DELETE /kv?prefix=P."
                  : "");
}

static void refuse_method(struct connection *connection,
                          struct nx_slice path,
                          const struct allowed *allowed)
{
    struct problem problem = {.code = NX_ERROR_METHOD_NOT_ALLOWED, .allow = allowed->text};
    bool keyless = nx_slice_equal(path, nx_slice_text("/kv"));

    snprintf(problem.message, sizeof problem.message, "This endpoint takes %s.%s", allowed->text,
             keyless ? " A value is stored by PUT /kv/{key}." : "");
    nx_respond_problem(connection, &problem);
}

/* No route: 404, 405, OPTIONS, an empty key. */
static void answer_unrouted(struct connection *connection,
                            struct nx_slice path,
                            const struct allowed *allowed,
                            bool unknown_method)
{
    unsigned method = connection->request->parser.method;
    bool star = nx_slice_equal(path, nx_slice_text("*"));

    if (nx_slice_equal(path, nx_slice_text(KEY_PATH)) &&
        (method == HTTP_PUT || method == HTTP_DELETE || method == HTTP_POST)) {
        refuse_empty_key(connection);
    } else if (allowed->text[0] == '\0' && !star) {
        nx_refuse(connection, NX_ERROR_NO_SUCH_ENDPOINT,
                  "There is no such endpoint; GET / lists all that there are.");
    } else if (method == HTTP_OPTIONS && !unknown_method) {
        nx_respond(connection,
                   &(struct response){
                       .status = 204,
                       .allow = star ? "GET, HEAD, PUT, POST, DELETE, OPTIONS" : allowed->text,
                   });
    } else {
        refuse_method(connection, path, allowed);
    }
}

/* Finds the route and checks who asks. False: answered. */
static bool take_route(struct connection *connection, bool unknown_method)
{
    struct request *request = connection->request;
    struct nx_slice path = nx_slice_of(request->path.data, request->path.length);
    struct allowed allowed = {.open = false};

    request->route = unknown_method ? NULL : find_route(path, request->parser.method);
    if (request->route == NULL || is_open(request->route)) {
        allowed = allowed_methods(path);
    }
    if (!(allowed.text[0] != '\0' && allowed.open) && !nx_access_check(connection)) {
        return false;
    }
    if (!nx_access_check_origin(connection)) {
        return false;
    }
    if (request->route == NULL) {
        answer_unrouted(connection, path, &allowed, unknown_method);
        return false;
    }
    nx_access_log(connection);
    return take_parts(connection, path);
}

/* ---- body ---- */

static bool check_coding(struct connection *connection)
{
    const struct request *request = connection->request;
    const struct nx_slice *type = nx_request_header(request, "Content-Type");

    if (nx_request_header_count(request, "Content-Encoding") > 1 ||
        (nx_request_header(request, "Content-Encoding") != NULL &&
         !nx_request_header_is(request, "Content-Encoding", "identity"))) {
        nx_refuse(connection, NX_ERROR_UNSUPPORTED_ENCODING,
                  "Bodies are taken as they are; send it without Content-Encoding.");
        return false;
    }
    if (type != NULL && type->length >= 10 &&
        nx_equal_nocase(nx_slice_of(type->data, 10), nx_slice_text("multipart/"))) {
        nx_refuse(connection, NX_ERROR_UNSUPPORTED_ENCODING,
                  "A multipart form is no value; send the bytes themselves (curl: --data-binary "
                  "@FILE, not -F).");
        return false;
    }
    return true;
}

static size_t most_bytes(const struct connection *connection)
{
    const struct nx_config *config = connection->worker->process->config;

    switch (connection->request->route->body) {
    case ROUTE_BODY_VALUE:
        return (size_t)config->http.max_value_size;
    case ROUTE_BODY_BATCH:
        return BATCH_MOST_BYTES;
    case ROUTE_BODY_SMALL:
        return SMALL_MOST_BYTES;
    case ROUTE_BODY_EMPTY:
        return 0;
    case ROUTE_BODY_NONE:
    case ROUTE_BODY_STREAM:
        break;
    }
    return SIZE_MAX;
}

/* What can be decided about the body before any of it is read: 411, 413, 415, 503. */
static bool check_body(struct connection *connection)
{
    struct request *request = connection->request;

    if (request->route->body == ROUTE_BODY_NONE) {
        request->body_use = BODY_DISCARD;
        return true;
    }
    if (request->route->body != ROUTE_BODY_SMALL && request->route->body != ROUTE_BODY_EMPTY &&
        !request->has_body && nx_request_header(request, "Content-Length") == NULL) {
        connection->keep_alive = false;
        nx_refuse(connection, NX_ERROR_LENGTH_REQUIRED,
                  "Send a body with Content-Length or Transfer-Encoding: chunked.");
        return false;
    }
    if (!check_coding(connection)) {
        return false;
    }
    if (request->route->body == ROUTE_BODY_STREAM) {
        request->body_use = BODY_STREAM;
        return true;
    }
    request->body_use = BODY_COLLECT;
    request->body_most = most_bytes(connection);
    if (!request->chunked && request->body_left > request->body_most) {
        nx_refuse_too_large(connection);
        return false;
    }
    request->body.length = 0;
    /* Only what has come is counted: a client that announces much and sends nothing takes nothing. */
    if (request->body_left > NX_BODY_BUDGET - connection->worker->body_bytes ||
        !nx_text_reserve(&request->body, NX_BODY_GAP)) {
        nx_refuse_body_budget(connection);
        return false;
    }
    request->body.length = NX_BODY_GAP;
    return true;
}

/* 100 Continue, for a client that waits for it and whose body is wanted. */
static void invite_body(struct connection *connection)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct evbuffer *input = bufferevent_get_input(connection->bev);

    if (connection->request->has_body && connection->request->parser.http_minor > 0 &&
        evbuffer_get_length(input) == 0 &&
        nx_request_header_is(connection->request, "Expect", "100-continue")) {
        nx_connection_send(connection, go_on, sizeof go_on - 1);
    }
}

/* ---- state of the node ---- */

/* Why an offset may not be reached: by the role, since only a replica has somebody behind whom it can be. */
static const char *unreached(struct nx_shm *shm)
{
    if (nx_node_role(shm) == NX_NODE_REPLICA) {
        return "ask again, or ask the master.";
    }
    return nx_quorum_rules(shm) ? "it was not written here, or the quorum has not confirmed it "
                                  "(Nexus-Read: local doesn't wait for that)."
                                : "nothing with that offset was written here.";
}

static void min_offset_expired(struct connection *connection)
{
    struct problem problem = {
        .code = NX_ERROR_MIN_OFFSET_TIMEOUT,
        .has_offset = true,
        .offset = nx_committed_offset(connection->worker->shm),
        .epoch = nx_node_epoch(connection->worker->shm),
    };

    snprintf(problem.message, sizeof problem.message,
             "This node did not reach the offset of Nexus-Min-Offset within "
             "http.request_timeout_ms: %s",
             unreached(connection->worker->shm));
    nx_respond_problem(connection, &problem);
}

/* Waits for Nexus-Min-Offset. True: go on now. */
static bool reached_min_offset(struct connection *connection)
{
    const struct nx_slice *header = nx_request_header(connection->request, "Nexus-Min-Offset");
    struct nx_shm *shm = connection->worker->shm;
    struct client_offset wanted;

    if (header == NULL) {
        return true;
    }
    if (nx_client_offset_parse(*header, &wanted) < 0 ||
        nx_request_header_count(connection->request, "Nexus-Min-Offset") > 1) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "Nexus-Min-Offset must be an offset N, or N@E with its epoch, once.");
        return false;
    }
    if (!nx_http_history_check(connection, &wanted, 1, true)) {
        return false;
    }
    if (wanted.offset <=
        (connection->request->local ? nx_node_durable(shm) : nx_committed_offset(shm))) {
        return true;
    }
    nx_wait_park(connection, wanted.offset,
                 nx_now_ms() + connection->worker->process->config->http.request_timeout_ms,
                 nx_route_body_done, min_offset_expired);
    return false;
}

static bool check_state(struct connection *connection)
{
    switch (connection->request->route->access) {
    case ROUTE_ACCESS_OPEN:
    case ROUTE_ACCESS_PROBE:
    case ROUTE_ACCESS_STATUS:
    case ROUTE_ACCESS_NODE:
    case ROUTE_ACCESS_SHARED:
        return true;
    case ROUTE_ACCESS_READ:
        return nx_node_check_readable(connection);
    case ROUTE_ACCESS_WRITE:
        return nx_node_check_writable(connection);
    }
    return false;
}

static bool take_query(struct connection *connection)
{
    struct request *request = connection->request;
    char message[NX_MESSAGE_SIZE];
    int rc = nx_query_parse(&request->query, request->query_raw, request->route->params, message);

    if (rc == -EINVAL) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER, "%s", message);
    } else if (rc < 0) {
        nx_refuse(connection, NX_ERROR_OVERLOADED, "Memory is short on this node.");
    }
    return rc == 0;
}

void nx_route(struct connection *connection, bool unknown_method)
{
    struct request *request = connection->request;

    if (!take_path(connection) || !take_route(connection, unknown_method) ||
        !check_body(connection) || !take_query(connection) || !check_state(connection)) {
        return;
    }
    if (request->body_use == BODY_STREAM) {
        request->route->handler(connection);
        if (connection->request != request || request->stream == NULL) {
            return; /* refused */
        }
    }
    if (request->has_body) {
        invite_body(connection);
    } else if (request->body_use == BODY_STREAM) {
        request->stream->end(connection);
    } else {
        nx_route_body_done(connection);
    }
}

void nx_route_body_done(struct connection *connection)
{
    const struct request *request = connection->request;

    if (request->route->access == ROUTE_ACCESS_READ) {
        if (!reached_min_offset(connection) || !nx_durability_leads(connection)) {
            return; /* it waits, and comes back here; or it is answered */
        }
        nx_view_set_local(connection->worker->view, request->local);
    }
    request->route->handler(connection);
}
