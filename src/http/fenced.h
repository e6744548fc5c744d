/* What a fenced master (common/fence.h) answers: 409 with who leads instead, and the way back. */
#ifndef NX_HTTP_FENCED_H
#define NX_HTTP_FENCED_H

#include "http/response.h"

#include <stdbool.h>

struct connection;
struct nx_shm;

/* Of a write. */
#define NX_FENCED_WRITE "Nothing was written; send it to that node."

/* The problem `fenced`; `consequence` is a sentence about what was asked. */
void nx_fenced_describe(struct nx_shm *shm, const char *consequence, struct problem *ret_problem);

/* Answers with it. */
void nx_fenced_refuse(struct connection *connection, const char *consequence);

#endif
