/* Questions of this worker to the postmaster, over the control channel: each has a ticket, and the
 * postmaster's DONE names it. A request that asks waits for its answer:
 *
 *     if (nx_control_ask_for(connection, NX_CONTROL_..., 0, NULL, on_reply)) { return; } // else it is answered
 *
 * and what must be shared by many requests asks by nx_control_ask. */
#ifndef NX_HTTP_CONTROL_ASK_H
#define NX_HTTP_CONTROL_ASK_H

#include "common/control.h"

#include <stdbool.h>
#include <stdint.h>

struct connection;
struct http_worker;

/* Questions of a worker that may be open at one time. */
#define NX_MOST_ASKS 32

typedef void nx_control_reply(struct http_worker *worker, const struct nx_control_message *reply);

/* The reply to a request's question; it answers the request. */
typedef void nx_control_request_reply(struct connection *connection,
                                      const struct nx_control_message *reply);

struct nx_control_ask {
    uint64_t ticket;       /* 0: free */
    nx_control_reply *all; /* who hears the reply: the worker, or one request */
    nx_control_request_reply *one;
    struct connection *connection; /* NULL: of no request, or of one that is gone */
};

struct nx_control_asks {
    struct nx_control_ask list[NX_MOST_ASKS];
    uint64_t last_ticket;
};

/* Asks for the worker as a whole. 0, -EAGAIN (too many questions are open) or -errno. */
int nx_control_ask(struct http_worker *worker,
                   enum nx_control_type type,
                   int32_t status,
                   const char *text,
                   nx_control_reply *reply);

/* Asks for a request, which waits; its client may go meanwhile. False: it was answered, with 503. */
bool nx_control_ask_for(struct connection *connection,
                        enum nx_control_type type,
                        int32_t status,
                        const char *text,
                        nx_control_request_reply *reply);

/* The postmaster has answered this worker. */
void nx_control_asks_answered(struct http_worker *worker, const struct nx_control_message *reply);

/* This node stops: requests that wait for the postmaster wait no longer. */
void nx_control_asks_end(struct http_worker *worker);

#endif
