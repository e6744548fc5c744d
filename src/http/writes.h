/* What all endpoints that write have in common: conditions from headers, and the sentences for what
 * the walwriter can answer. */
#ifndef NX_HTTP_WRITES_H
#define NX_HTTP_WRITES_H

#include "common/submit.h"
#include "http/response.h"

#include <stdbool.h>
#include <stdint.h>

struct connection;
struct json;

/* Puts If-Match and If-None-Match into request->conditions, about request->key. False: answered. */
bool nx_write_conditions(struct connection *connection);

/* Submits a write; a failure is answered here. */
struct write_request;
void nx_write_submit(struct connection *connection, const struct write_request *write);

/* Fills code, message and what helps for a submission that was refused (any status but DONE, NOTHING
 * and CONDITION). */
void nx_write_problem(struct nx_shm *shm,
                      const struct nx_completion *completion,
                      struct problem *ret_problem);

/* 200 or 201 with the JSON in worker->json, whose last member is still open, at the entry's offset. */
void nx_write_respond(struct connection *connection,
                      const struct nx_completion *completion,
                      unsigned status,
                      bool etag);

#endif
