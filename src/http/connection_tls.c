/* Runs in http workers. What is particular to a connection that is TLS: its beginning, within
 * http.request_timeout_ms, and its end. All between is the bufferevent's. See connection.h. */
#include "common/log.h"
#include "common/net.h"
#include "common/tls.h"
#include "http/connection_parts.h"
#include "http/worker.h"

#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

struct bufferevent *nx_connection_tls_new(const struct http_worker *worker, int fd)
{
    struct ssl_st *tls = nx_tls_begin(NX_TLS_HTTP, -1, NULL);

    return tls == NULL
               ? NULL
               : bufferevent_openssl_socket_new(worker->base, fd, tls, BUFFEREVENT_SSL_ACCEPTING,
                                                BEV_OPT_CLOSE_ON_FREE);
}

void nx_connection_tls_begin(struct connection *connection)
{
    char peer[NX_ADDR_SIZE];

    connection->shaking = true;
    nx_net_peer(bufferevent_getfd(connection->bev), peer);
    connection->shaking_peer = strdup(peer); /* a socket that was reset doesn't know any more */
    nx_connection_timer(connection, connection->worker->process->config->http.request_timeout_ms);
}

static void note_failure(const struct connection *connection)
{
    static struct nx_log_limit limit;
    char reason[160];
    unsigned long error = bufferevent_get_openssl_error(connection->bev);

    if (nx_tls_error_text(error) == NULL) {
        return; /* it went away; libevent has a number of its own for that */
    }
    nx_log_limited(&limit, NX_LOG_WARNING, "an HTTPS connection of %s failed: %s",
                   connection->shaking_peer == NULL ? "a client" : connection->shaking_peer,
                   nx_tls_reason(NX_TLS_HTTP, NULL, error, reason, sizeof reason));
}

void nx_connection_tls_event(struct connection *connection, short what)
{
    if ((what & BEV_EVENT_CONNECTED) != 0) {
        connection->shaking = false;
        free(connection->shaking_peer);
        connection->shaking_peer = NULL;
        nx_connection_timer(connection, 0);
        return;
    }
    note_failure(connection);
    nx_connection_close(connection);
    nx_connection_run(connection);
}

/* libevent takes the end of what comes in for that of both directions, and stops writing: a client that goes away
 * before it has taken its answer would be kept for ever, and one that still listens would wait for the rest. */
void nx_connection_tls_eof(struct connection *connection)
{
    if (nx_connection_backlog(connection) > 0 &&
        bufferevent_enable(connection->bev, EV_WRITE) < 0) {
        nx_connection_close(connection);
    }
}

void nx_connection_tls_end(struct connection *connection)
{
    (void)SSL_shutdown(bufferevent_openssl_get_ssl(connection->bev));
    ERR_clear_error();
}
