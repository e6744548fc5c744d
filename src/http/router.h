/* From a parsed head to its handler, with every check that doesn't depend on the endpoint. */
#ifndef NX_HTTP_ROUTER_H
#define NX_HTTP_ROUTER_H

#include "common/bytes.h"

#include <stdbool.h>

struct connection;

enum route_body {
    ROUTE_BODY_NONE,
    ROUTE_BODY_EMPTY,
    ROUTE_BODY_VALUE,
    ROUTE_BODY_BATCH,
    ROUTE_BODY_SMALL,
    ROUTE_BODY_STREAM
};
enum route_access {
    ROUTE_ACCESS_OPEN,
    ROUTE_ACCESS_PROBE,
    ROUTE_ACCESS_STATUS,
    ROUTE_ACCESS_NODE,
    ROUTE_ACCESS_SHARED,
    ROUTE_ACCESS_READ,
    ROUTE_ACCESS_WRITE
};

struct route {
    unsigned method; /* enum http_method */
    const char *path;
    void (*handler)(struct connection *connection);
    enum route_body body;
    enum route_access access;
    const char *params;
};

/* What a person is told who took POST for the way to store a value. */
#define NX_POST_KEY_HELP                                                                                \
    "POST /kv/{key}?ttl=S changes only when a key expires, in S seconds (0: never). A value is stored " \
    "by PUT (curl: -T FILE, or -X PUT --data-binary @FILE)."

/* All routes, and how many. */
extern const struct route nx_routes[];
extern const unsigned nx_route_count;

/* Answers the request, or prepares it for its body. unknown_method: the parser has no name for it. */
void nx_route(struct connection *connection, bool unknown_method);

/* The body is whole: calls the handler. */
void nx_route_body_done(struct connection *connection);

#define NX_ROUTE(method, path, handler, body, access, params) \
    void nx_handle_##handler(struct connection *connection);
#include "http/routes.def"
#undef NX_ROUTE

#endif
