/* What connection.c and its parts (connection_*.c) share; nobody else includes it. */
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

/* Its client has said its last word (eof), or it is broken. Frees the connection, unless an answer is under way. */
void nx_connection_ended(struct connection *connection, bool eof);

/* ---- connection_read.c ---- */

/* Begins to read. 0 or -ENOMEM. */
int nx_connection_read_begin(struct connection *connection);
/* Reads no more; the events are freed. */
void nx_connection_read_end(struct connection *connection);
/* A client that sends faster than it is answered is left waiting in its socket. By hand, since a bufferevent at its
 * high watermark calls back without end. */
void nx_connection_settle_reading(struct connection *connection);

/* ---- connection_output.c ---- */

/* Sends what was gathered: most answers leave with one send and never see the event loop. */
void nx_connection_flush(struct connection *connection);

/* So much waits for the client to take it that its next request has to wait too: NX_BACKLOG_HIGH, or anything at
 * all where the worker's budget for answers is spent. */
bool nx_connection_sated(const struct connection *connection);

/* It goes away: nothing of it waits any more. */
void nx_connection_forget_output(struct connection *connection);

/* ---- connection_tls.c ---- */

/* The end of a TLS connection on an accepted socket; NULL: no memory, and the socket is still the caller's. */
struct bufferevent *nx_connection_tls_new(const struct http_worker *worker, int fd);
/* Its handshake begins: it has request_timeout_ms. */
void nx_connection_tls_begin(struct connection *connection);
/* An event while hands are shaken: they are, or the connection ends (and may be gone). */
void nx_connection_tls_event(struct connection *connection, short what);
/* The client has said its last word; what waits for it still goes out. */
void nx_connection_tls_eof(struct connection *connection);
/* All is sent: says so to the client. */
void nx_connection_tls_end(struct connection *connection);

#endif
