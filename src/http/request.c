/* Runs in http workers. Takes a request's head apart and checks what its headers say about the body
 * (RFC 9112, section 6): a request whose length can be understood in two ways is refused. */
#include "http/request.h"

#include "http/connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define KEEP_BYTES  (64u << 10) /* of each buffer, for the next request */
#define FEW_HEADERS 8

bool nx_equal_nocase(struct nx_slice a, struct nx_slice b)
{
    return a.length == b.length &&
           (a.length == 0 ||
            strncasecmp((const char *)a.data, (const char *)b.data, a.length) == 0);
}

const struct nx_slice *nx_request_header(const struct request *request, const char *name)
{
    struct nx_slice wanted = nx_slice_text(name);

    for (unsigned i = 0; i < request->header_count; i++) {
        if (nx_equal_nocase(request->headers[i].name, wanted)) {
            return &request->headers[i].value;
        }
    }
    return NULL;
}

unsigned nx_request_header_count(const struct request *request, const char *name)
{
    struct nx_slice wanted = nx_slice_text(name);
    unsigned count = 0;

    for (unsigned i = 0; i < request->header_count; i++) {
        count += nx_equal_nocase(request->headers[i].name, wanted) ? 1 : 0;
    }
    return count;
}

bool nx_request_header_is(const struct request *request, const char *name, const char *value)
{
    const struct nx_slice *sent = nx_request_header(request, name);

    return sent != NULL && nx_equal_nocase(*sent, nx_slice_text(value));
}

/* ---- callbacks of the parser ---- */

static struct request *request_of(const http_parser *parser)
{
    return parser->data;
}

static int on_url(http_parser *parser, const char *at, size_t length)
{
    request_of(parser)->target = nx_slice_of(at, length);
    return 0;
}

/* Room for one more header. */
static bool reserve_header(struct request *request)
{
    unsigned cap = request->header_cap == 0 ? FEW_HEADERS : request->header_cap * 2;
    struct header *headers;

    if (request->header_count < request->header_cap) {
        return true;
    }
    headers = realloc(request->headers, cap * sizeof *headers);
    if (headers == NULL) {
        return false;
    }
    request->headers = headers;
    request->header_cap = cap;
    return true;
}

static int on_field(http_parser *parser, const char *at, size_t length)
{
    struct request *request = request_of(parser);

    if (!request->head_done && request->header_count < NX_HEAD_MAX_FIELDS) {
        if (!reserve_header(request)) {
            return -1;
        }
        request->headers[request->header_count++] = (struct header){
            .name = nx_slice_of(at, length),
            .value = nx_slice_of("", 0),
        };
    }
    return 0;
}

static int on_value(http_parser *parser, const char *at, size_t length)
{
    struct request *request = request_of(parser);

    while (length > 0 && (at[length - 1] == ' ' || at[length - 1] == '\t')) {
        length--;
    }
    if (!request->head_done && request->header_count > 0) {
        request->headers[request->header_count - 1].value = nx_slice_of(at, length);
    }
    return 0;
}

static int on_head_done(http_parser *parser)
{
    request_of(parser)->head_done = true;
    return 0;
}

static int on_body(http_parser *parser, const char *at, size_t length)
{
    nx_connection_body(request_of(parser), nx_slice_of(at, length));
    return 0;
}

static int on_message_done(http_parser *parser)
{
    request_of(parser)->message_done = true;
    http_parser_pause(parser, 1); /* what follows is the next request */
    return 0;
}

static const http_parser_settings callbacks = {
    .on_url = on_url,
    .on_header_field = on_field,
    .on_header_value = on_value,
    .on_headers_complete = on_head_done,
    .on_body = on_body,
    .on_message_complete = on_message_done,
};

/* ---- head ---- */

static int malformed(struct request *request, const char *why)
{
    request->malformed = why;
    return -EBADMSG;
}

static int check_length(struct request *request)
{
    const struct nx_slice *length = nx_request_header(request, "Content-Length");

    if (length == NULL) {
        return 0;
    }
    if (nx_request_header_count(request, "Content-Length") > 1) {
        return malformed(request, "Content-Length is given twice");
    }
    if (length->length > 18 || nx_parse_u64(*length, &request->body_left) < 0) {
        return malformed(request, "Content-Length isn't a plain number");
    }
    request->has_body = request->body_left > 0;
    return 0;
}

static int check_coding(struct request *request)
{
    if (nx_request_header(request, "Transfer-Encoding") == NULL) {
        return 0;
    }
    if (nx_request_header(request, "Content-Length") != NULL) {
        return malformed(request, "both Content-Length and Transfer-Encoding are given");
    }
    if (nx_request_header_count(request, "Transfer-Encoding") > 1 ||
        !nx_request_header_is(request, "Transfer-Encoding", "chunked")) {
        return malformed(request, "the only Transfer-Encoding is 'chunked', once");
    }
    if (request->parser.http_minor == 0) {
        return malformed(request, "HTTP/1.0 has no Transfer-Encoding");
    }
    request->has_body = true;
    request->chunked = true;
    nx_chunk_guard_init(&request->guard);
    return 0;
}

static int check_host(struct request *request)
{
    unsigned hosts = nx_request_header_count(request, "Host");

    if (hosts > 1) {
        return malformed(request, "Host is given twice");
    }
    if (hosts == 0 && request->parser.http_minor > 0) {
        return malformed(request, "HTTP/1.1 needs a Host header");
    }
    return 0;
}

static int check_target(struct request *request)
{
    if (request->target.length == 0) {
        return malformed(request, "there is no request target");
    }
    bool star = request->parser.method == HTTP_OPTIONS &&
                nx_slice_equal(request->target, nx_slice_text("*"));

    if (request->target.data[0] != '/' && !star) {
        return malformed(request, "the request target must be a path that begins with '/' (this "
                                  "server is no proxy)");
    }
    if (memchr(request->target.data, '#', request->target.length) != NULL) {
        return malformed(request, "a '#' in the request target; write %23");
    }
    return 0;
}

static enum http_errno parse(struct request *request, const char *bytes, size_t length)
{
    http_parser_execute(&request->parser, &callbacks, bytes, length);
    return HTTP_PARSER_ERRNO(&request->parser);
}

static void begin_parsing(struct request *request)
{
    http_parser_init(&request->parser, HTTP_REQUEST);
    request->parser.data = request;
}

/* A method that no endpoint can have: the rest of the head as that of a POST, so that target and headers are
 * known and checked all the same. */
static enum http_errno parse_behind_method(struct request *request)
{
    const uint8_t *space = memchr(request->head.data, ' ', request->head.length);
    size_t before = (size_t)(space - request->head.data);

    begin_parsing(request);
    parse(request, "POST", 4);
    return parse(request, (const char *)space, request->head.length - before);
}

int nx_request_parse_head(struct request *request)
{
    enum http_errno error;
    bool unknown_method;
    int rc;

    begin_parsing(request);
    error = parse(request, (const char *)request->head.data, request->head.length);
    /* The parser ends a CONNECT with its head, whatever body is announced: what follows would be a request. */
    unknown_method = error == HPE_INVALID_METHOD || request->parser.method == HTTP_CONNECT;
    if (unknown_method) {
        error = parse_behind_method(request);
    }
    if (error == HPE_CB_header_field) {
        return -ENOMEM;
    }
    /* Our own words first: they name the header. */
    rc = check_length(request);
    rc = rc < 0 ? rc : check_coding(request);
    rc = rc < 0 ? rc : check_host(request);
    if (rc < 0) {
        return rc;
    }
    if ((error != HPE_OK && error != HPE_PAUSED) || !request->head_done) {
        return malformed(request, http_errno_description(error));
    }
    rc = check_target(request);
    return rc == 0 && unknown_method ? -ENOTSUP : rc;
}

/* ---- body ---- */

int nx_request_parse_body(struct request *request, struct nx_slice bytes, size_t *ret_used)
{
    size_t n = bytes.length;

    if (request->chunked) {
        if (nx_chunk_guard(&request->guard, bytes.data, bytes.length, &n) < 0) {
            return malformed(request, request->guard.why);
        }
    } else if (n > request->body_left) {
        n = (size_t)request->body_left;
    }
    http_parser_execute(&request->parser, &callbacks, (const char *)bytes.data, n);
    enum http_errno error = HTTP_PARSER_ERRNO(&request->parser);

    if (error != HPE_OK && error != HPE_PAUSED) {
        return malformed(request, http_errno_description(error));
    }
    request->body_left -= request->chunked ? 0 : n;
    *ret_used = n;
    return 0;
}

/* ---- life ---- */

void nx_request_shed(struct request *request)
{
    nx_text_free(&request->head);
    nx_text_free(&request->path);
    nx_text_free(&request->query.bytes);
    nx_text_free(&request->body);
    nx_text_free(&request->conditions);
    free(request->headers);
    request->headers = NULL;
    request->header_count = request->header_cap = 0;
    request->query.count = 0;
    request->target = request->query_raw = request->key = request->id = nx_slice_of(NULL, 0);
}

void nx_request_reset(struct request *request)
{
    struct text head = request->head;
    struct text path = request->path;
    struct text query_bytes = request->query.bytes;
    struct text body = request->body;
    struct text conditions = request->conditions;
    struct header *headers = request->headers;
    unsigned header_cap = request->header_cap;

    nx_text_reset(&head, KEEP_BYTES);
    nx_text_reset(&path, KEEP_BYTES);
    nx_text_reset(&query_bytes, KEEP_BYTES);
    nx_text_reset(&body, KEEP_BYTES);
    nx_text_reset(&conditions, KEEP_BYTES);
    memset(request, 0, sizeof *request);
    request->headers = headers;
    request->header_cap = header_cap;
    request->head = head;
    request->path = path;
    request->query.bytes = query_bytes;
    request->body = body;
    request->conditions = conditions;
}

void nx_request_free(struct request *request)
{
    free(request->headers);
    nx_text_free(&request->head);
    nx_text_free(&request->path);
    nx_text_free(&request->query.bytes);
    nx_text_free(&request->body);
    nx_text_free(&request->conditions);
    free(request);
}
