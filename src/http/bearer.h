/* Bearer tokens of requests (RFC 6750; http.md, "Access"). The auth token opens all; the read token GET and HEAD; the
 * replication token what nodes ask of each other. */
#ifndef NX_HTTP_BEARER_H
#define NX_HTTP_BEARER_H

#include <stdbool.h>

struct connection;

/* Whether what the connection's request asks for is to be opened by a token. Its route is known, or NULL. */
bool nx_bearer_needed(const struct connection *connection);

/* Whether its token opens what it asks for, needed or not: one node asks another that serves strangers nothing. */
bool nx_bearer_opens(const struct connection *connection);

/* Whether its token opens that. False: answered, with 401 (no token, or a wrong one) or 403 (one for less). */
bool nx_bearer_check(struct connection *connection);

#endif
