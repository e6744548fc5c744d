/* Runs in the peers process. evhttp is given one address in digits at a time (reach.h), and the Host header is
 * that address: a node takes no request for a name that it doesn't know as its own. */
#include "peers/http_ask.h"

#include "common/net.h"
#include "common/peer_list.h"
#include "common/tls.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct nx_http_ask *ask_of(struct nx_reach *reach)
{
    return (struct nx_http_ask *)(void *)reach;
}

/* ---- what comes back ---- */

static int take_reply(struct nx_http_ask *ask, struct evhttp_request *request)
{
    struct evbuffer *input = evhttp_request_get_input_buffer(request);
    size_t length = evbuffer_get_length(input);
    char *reply = malloc(length + 1);

    if (reply == NULL) {
        return -ENOMEM;
    }
    if (length > 0 && evbuffer_copyout(input, reply, length) != (ev_ssize_t)length) {
        free(reply);
        return -EIO;
    }
    reply[length] = '\0';
    ask->reply = reply;
    ask->length = length;
    ask->status = evhttp_request_get_response_code(request);
    return 0;
}

static void on_error(enum evhttp_request_error error, void *arg)
{
    struct nx_http_ask *ask = arg;

    switch (error) {
    case EVREQ_HTTP_DATA_TOO_LONG:
        ask->error = -EMSGSIZE;
        break;
    case EVREQ_HTTP_INVALID_HEADER:
        ask->error = -EBADMSG;
        break;
    case EVREQ_HTTP_TIMEOUT:
        ask->error = -ETIMEDOUT;
        break;
    case EVREQ_HTTP_EOF:
    case EVREQ_HTTP_BUFFER_ERROR:
    case EVREQ_HTTP_REQUEST_CANCEL:
        ask->error = -EPIPE;
        break;
    }
}

/* evhttp doesn't say why there is no connection; where TLS is why, it is still to be seen. */
static void note_tls_failure(struct nx_http_ask *ask)
{
    struct bufferevent *bev = evhttp_connection_get_bufferevent(ask->connection);
    struct ssl_st *tls = bufferevent_openssl_get_ssl(bev);
    unsigned long error = tls == NULL ? 0 : bufferevent_get_openssl_error(bev);

    if (nx_tls_error_text(error) != NULL) { /* libevent has numbers of its own among them */
        (void)nx_tls_reason(NX_TLS_ASK, tls, error, ask->reach.why, sizeof ask->reach.why);
    }
}

/* request: NULL when on_error was called before; without a status when there was no connection. */
static void on_over(struct evhttp_request *request, void *arg)
{
    struct nx_http_ask *ask = arg;
    int rc;

    if (request == NULL) {
        note_tls_failure(ask);
        nx_reach_fail(&ask->reach, ask->error < 0 ? ask->error : -EPIPE);
    } else if (evhttp_request_get_response_code(request) == 0) {
        note_tls_failure(ask);
        nx_reach_fail(&ask->reach, -ENOTCONN);
    } else {
        rc = take_reply(ask, request);
        if (rc < 0) {
            nx_reach_fail(&ask->reach, rc);
        } else {
            nx_reach_succeed(&ask->reach);
        }
    }
}

/* ---- a try ---- */

static enum evhttp_cmd_type command_of(enum nx_ask_method method)
{
    switch (method) {
    case NX_ASK_POST:
        return EVHTTP_REQ_POST;
    case NX_ASK_DELETE:
        return EVHTTP_REQ_DELETE;
    case NX_ASK_GET:
        break;
    }
    return EVHTTP_REQ_GET;
}

/* The token that opens other nodes to this one: the replication token, which is made for that. Else ours of HTTP,
 * which should be theirs; but that one opens everything, so only who is configured gets it, and nobody by another
 * node's word. "": none. */
static const char *token_for(const struct nx_http_ask *ask)
{
    const struct nx_config *config = ask->reach.loop->process->config;

    if (config->tokens.replication[0] != '\0') {
        return config->tokens.replication;
    }
    return nx_peer_list_has(config->replication.peers, ask->reach.addr) ? config->tokens.http_auth
                                                                        : "";
}

static int add_token(const struct nx_http_ask *ask, struct evkeyvalq *headers)
{
    const char *token = token_for(ask);
    char text[sizeof "Bearer " + NX_TOKEN_SIZE];
    int rc;

    if (token[0] == '\0') {
        return 0;
    }
    (void)snprintf(text, sizeof text, "Bearer %s", token);
    rc = evhttp_add_header(headers, "Authorization", text);
    explicit_bzero(text, sizeof text);
    return rc;
}

static int fill(const struct nx_http_ask *ask,
                struct evhttp_request *request,
                const char *host,
                const char *port)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    char text[NI_MAXHOST + 16];
    size_t length = strlen(ask->body);
    int rc;

    (void)snprintf(text, sizeof text, strchr(host, ':') == NULL ? "%s:%s" : "[%s]:%s", host, port);
    rc = evhttp_add_header(headers, "Host", text);
    rc |= evhttp_add_header(headers, "Connection", "close");
    rc |= add_token(ask, headers);
    if (length > 0) {
        (void)snprintf(text, sizeof text, "%zu", length);
        rc |= evhttp_add_header(headers, "Content-Type", "application/json");
        rc |= evhttp_add_header(headers, "Content-Length", text);
        rc |= evbuffer_add(evhttp_request_get_output_buffer(request), ask->body, length);
    }
    return rc == 0 ? 0 : -ENOMEM;
}

/* A connection's end of its own where it is TLS; NULL: evhttp makes a plain one, or there is no memory. */
static struct bufferevent *secured(const struct nx_reach *reach)
{
    struct nx_net_addr addr;
    struct ssl_st *tls = NULL;

    if (nx_net_parse(reach->addr, &addr) == 0) {
        tls = nx_tls_begin(NX_TLS_ASK, -1, addr.host);
    }
    return tls == NULL
               ? NULL
               : bufferevent_openssl_socket_new(reach->loop->base, -1, tls,
                                                BUFFEREVENT_SSL_CONNECTING, BEV_OPT_CLOSE_ON_FREE);
}

static int begin(struct nx_reach *reach, const struct nx_address *address)
{
    struct nx_http_ask *ask = ask_of(reach);
    struct bufferevent *bev = NULL;
    struct evhttp_request *request;
    char host[NI_MAXHOST];
    char port[NI_MAXSERV];

    if (getnameinfo((const struct sockaddr *)&address->addr, address->length, host, sizeof host,
                    port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return -EINVAL;
    }
    ask->error = 0;
    if (nx_tls_on(NX_TLS_ASK)) {
        bev = secured(reach);
        if (bev == NULL) {
            return -ENOMEM;
        }
        bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    }
    ask->connection = evhttp_connection_base_bufferevent_new(
        reach->loop->base, NULL, bev, host, (unsigned short)strtoul(port, NULL, 10));
    request = ask->connection == NULL ? NULL : evhttp_request_new(on_over, ask);
    if (request == NULL) {
        return -ENOMEM;
    }
    evhttp_connection_set_max_body_size(ask->connection, NX_ASK_MOST);
    evhttp_connection_set_max_headers_size(ask->connection, NX_ASK_HEADERS);
    evhttp_connection_set_timeout(ask->connection, (int)(reach->limit_ms / 1000) + 1);
    evhttp_request_set_error_cb(request, on_error);
    if (fill(ask, request, host, port) < 0) {
        evhttp_request_free(request);
        return -ENOMEM;
    }
    /* It owns the request from here on, whatever it returns. */
    return evhttp_make_request(ask->connection, request, command_of(ask->method), ask->path) == 0
               ? 0
               : -ENOTCONN;
}

static bool connected(const struct nx_reach *reach)
{
    const struct nx_http_ask *ask = (const struct nx_http_ask *)(const void *)reach;
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;
    int fd = -1;

    if (ask->connection != NULL) {
        fd = bufferevent_getfd(evhttp_connection_get_bufferevent(ask->connection));
    }
    return fd >= 0 && getpeername(fd, (struct sockaddr *)&peer, &length) == 0;
}

static void drop(struct nx_reach *reach)
{
    struct nx_http_ask *ask = ask_of(reach);

    /* Once connected the request may be there already, whatever came of it. */
    ask->requested = ask->requested || ask->status != 0 || ask->error < 0 || connected(reach);
    if (ask->connection != NULL) {
        evhttp_connection_free(ask->connection);
        ask->connection = NULL;
    }
}

static const struct nx_reach_kind http_kind = {
    .begin = begin,
    .connected = connected,
    .drop = drop,
};

void nx_http_ask_begin(struct nx_loop *loop,
                       struct nx_http_ask *ask,
                       const char *addr,
                       unsigned limit_ms)
{
    static_assert(offsetof(struct nx_http_ask, reach) == 0, "ask_of");

    nx_reach_begin(&ask->reach, loop, &http_kind, addr, limit_ms);
}

void nx_http_ask_end(struct nx_http_ask *ask)
{
    nx_reach_abandon(&ask->reach);
    free(ask->reply);
    ask->reply = NULL;
    ask->length = 0;
    ask->status = 0;
    ask->error = 0;
    ask->requested = false;
}
