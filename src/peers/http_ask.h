/* Small HTTP requests to other nodes, side by side. Each has an answer in the end or hasn't; what comes is a
 * stranger's, and bounded. */
#ifndef NX_PEERS_HTTP_ASK_H
#define NX_PEERS_HTTP_ASK_H

#include "peers/reach.h"

#include <stdbool.h>
#include <stddef.h>

#define NX_ASK_BODY    256   /* of a request, NUL included */
#define NX_ASK_MOST    65536 /* bytes of an answer's body */
#define NX_ASK_HEADERS 16384 /* of its headers */

enum nx_ask_method {
    NX_ASK_GET,
    NX_ASK_POST,
    NX_ASK_DELETE
};

struct evhttp_connection;

/* Zeroed, then method, path and body filled, then begun. */
struct nx_http_ask {
    struct nx_reach reach; /* the first member: its kind finds the ask by it */
    enum nx_ask_method method;
    const char *path;
    char body[NX_ASK_BODY]; /* JSON; "": none */
    struct evhttp_connection *connection;
    bool requested; /* the request has gone out, at least in part: the other side may act on it */
    int error;      /* what evhttp has said went wrong; 0: nothing yet */
    int status;     /* of the answer; 0: there is none (nx_reach_text(&ask->reach) says why) */
    char *reply;    /* its body, NUL-terminated */
    size_t length;
};

/* Begins. addr: "host:port", and no longer than limit_ms. Its end: !ask->reach.open (nx_loop_run). */
void nx_http_ask_begin(struct nx_loop *loop,
                       struct nx_http_ask *ask,
                       const char *addr,
                       unsigned limit_ms);

/* Frees what it has, over or not, and makes it ready for the next time: method, path and body stay. */
void nx_http_ask_end(struct nx_http_ask *ask);

#endif
