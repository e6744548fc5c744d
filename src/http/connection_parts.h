/* What connection.c, connection_input.c and connection_timer.c share; nobody else includes it. */
#ifndef NX_HTTP_CONNECTION_PARTS_H
#define NX_HTTP_CONNECTION_PARTS_H

#include "http/connection.h"

#include <stdbool.h>

#define NX_READ_HIGH    (64u << 10)  /* bytes read ahead, and at once */
#define NX_BACKLOG_HIGH (256u << 10) /* no further request is begun above this many unsent bytes */

/* The next head, as far as it is there; begins the request when it is whole. True: something has
 * happened, look again. */
bool nx_connection_take_head(struct connection *connection);

/* The next piece of the body. True: something has happened, look again. */
bool nx_connection_take_body(struct connection *connection);

/* Starts, restarts or stops the timer as the connection's state has it; call it last. */
void nx_connection_settle_timer(struct connection *connection);

#endif
