/* The bodies of POST /replication/follow and of POST and DELETE /replication/promise: one small JSON object. */
#ifndef NX_HTTP_ROLE_BODIES_H
#define NX_HTTP_ROLE_BODIES_H

#include "common/config.h"
#include "common/shm_layout.h"
#include "http/json_in.h"

#include <stdbool.h>
#include <stdint.h>

struct connection;
struct json_object;

struct follow_body {
    char master_addr[NX_ADDR_SIZE]; /* host:port, whole and no wildcard */
    bool force;
};

struct promise_body {
    uint64_t epoch; /* 1 at least */
    char node_id[NX_UUID_TEXT];
    uint64_t attempt; /* 0: not told */
};

/* Read the members of an object. 0, or -EINVAL and a fault. */
int nx_follow_body_of(struct json_object *object,
                      struct follow_body *ret_body,
                      struct json_fault *fault);
int nx_promise_body_of(struct json_object *object,
                       struct promise_body *ret_body,
                       struct json_fault *fault);

/* Read the request's body. False: answered, with 400. */
bool nx_follow_body_take(struct connection *connection, struct follow_body *ret_body);
bool nx_promise_body_take(struct connection *connection, struct promise_body *ret_body);

#endif
