/* Runs in http workers. See access.h. */
#include "http/access.h"

#include "common/log.h"
#include "common/net.h"
#include "http/bearer.h"
#include "http/connection.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"

#include <event2/bufferevent.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum peer_class nx_access_classify(const struct sockaddr *address)
{
    if (nx_net_is_loopback(address)) {
        return PEER_LOOPBACK;
    }
    return nx_net_is_private(address) ? PEER_PRIVATE : PEER_PUBLIC;
}

bool nx_access_is_open(const struct http_worker *worker)
{
    const struct nx_config *config = worker->process->config;

    return config->tokens.http_auth[0] == '\0' && config->http.allow_without_token != NX_ALLOW_NONE;
}

static bool peer_allowed(const struct connection *connection)
{
    switch (connection->worker->process->config->http.allow_without_token) {
    case NX_ALLOW_NONE:
        return false;
    case NX_ALLOW_LOOPBACK:
        return connection->peer == PEER_LOOPBACK;
    case NX_ALLOW_PRIVATE:
        return connection->peer == PEER_LOOPBACK || connection->peer == PEER_PRIVATE;
    case NX_ALLOW_ANY:
        break;
    }
    return true;
}

/* ---- names ---- */

/* Nothing, or ":port". */
static bool is_port(const uint8_t *from, const uint8_t *end)
{
    if (from < end && *from++ != ':') {
        return false;
    }
    while (from < end && *from >= '0' && *from <= '9') {
        from++;
    }
    return from == end;
}

/* The host of "host", "host:port", "[v6]" or "[v6]:port", without brackets; nothing: it is none of them. */
static struct nx_slice host_part(struct nx_slice text)
{
    const uint8_t *end = text.data + text.length;
    bool bracket = text.length > 0 && text.data[0] == '[';
    const uint8_t *begin = text.data + (bracket ? 1 : 0);
    const uint8_t *stop =
        text.length > 0 ? memchr(begin, bracket ? ']' : ':', (size_t)(end - begin)) : NULL;

    if (stop == NULL) {
        return bracket ? nx_slice_of(NULL, 0) : text;
    }
    return is_port(stop + (bracket ? 1 : 0), end) ? nx_slice_of(begin, (size_t)(stop - begin))
                                                  : nx_slice_of(NULL, 0);
}

static bool is_address(const char *host)
{
    struct in6_addr address;

    return inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
}

static bool is_listed(const char *host, const char *names)
{
    size_t length = strlen(host);

    while (*names != '\0') {
        size_t n = strcspn(names, ", \t");

        if (n == length && strncasecmp(names, host, n) == 0) {
            return true;
        }
        names += n;
        names += strspn(names, ", \t");
    }
    return false;
}

/* A page of another site that has its own name resolve to this node (DNS rebinding) sends that name as
 * Host. So without a token only names that no stranger can own are taken. */
static bool host_allowed(const struct connection *connection)
{
    const struct nx_slice *header = nx_request_header(connection->request, "Host");
    const struct http_worker *worker = connection->worker;
    char host[256];

    if (header == NULL) {
        return true; /* HTTP/1.0; no browser */
    }
    struct nx_slice name = host_part(*header);

    if (name.length == 0 || name.length >= sizeof host) {
        return false;
    }
    memcpy(host, name.data, name.length);
    host[name.length] = '\0';
    return strchr(host, '.') == NULL || is_address(host) ||
           strcasecmp(host, worker->host_name) == 0 ||
           is_listed(host, worker->process->config->http.allowed_hosts);
}

/* ---- checks ---- */

void nx_access_note_refusal(const struct connection *connection, const char *why)
{
    static struct nx_log_limit limit;
    char peer[NX_ADDR_SIZE];

    nx_net_peer(bufferevent_getfd(connection->bev), peer);
    nx_log_limited(&limit, NX_LOG_WARNING, "a request of %s is refused: %s", peer, why);
}

static bool check_without_token(struct connection *connection)
{
    if (!peer_allowed(connection)) {
        nx_access_note_refusal(connection, "http.allow_without_token doesn't include its address");
        nx_refuse(connection, NX_ERROR_TOKEN_REQUIRED,
                  "Your address is not served without a token; ask from this host, or have "
                  "http.auth_token_file set, or http.allow_without_token include your network.");
        return false;
    }
    if (!host_allowed(connection)) {
        nx_access_note_refusal(connection,
                               "its Host header names a host that isn't in http.allowed_hosts");
        nx_refuse(
            connection, NX_ERROR_CROSS_ORIGIN,
            "Host must be an IP address, localhost, a name without a dot or this host's name; "
            "add others to http.allowed_hosts.");
        return false;
    }
    return true;
}

bool nx_access_check(struct connection *connection)
{
    if (connection->peer == PEER_UNIX) {
        return true;
    }
    if (nx_bearer_needed(connection)) {
        return nx_bearer_check(connection);
    }
    return nx_bearer_opens(connection) || check_without_token(connection);
}

void nx_access_log(const struct connection *connection)
{
    const struct request *request = connection->request;
    char peer[NX_ADDR_SIZE];

    if (request->route->access != ROUTE_ACCESS_STATUS || request->route->method == HTTP_GET) {
        return;
    }
    nx_net_peer(bufferevent_getfd(connection->bev), peer);
    nx_info("%s %s is asked for by %s", http_method_str((enum http_method)request->parser.method),
            request->route->path, peer);
}

static bool cut_scheme(struct nx_slice *origin, const char *scheme)
{
    size_t length = strlen(scheme);

    if (origin->length <= length ||
        !nx_equal_nocase(nx_slice_of(origin->data, length), nx_slice_text(scheme))) {
        return false;
    }
    *origin = nx_slice_of(origin->data + length, origin->length - length);
    return true;
}

/* Leaves a port out that is the scheme's own. */
static struct nx_slice cut_port(struct nx_slice host, const char *port)
{
    size_t length = strlen(port);

    if (host.length > length &&
        nx_slice_equal(nx_slice_of(host.data + host.length - length, length),
                       nx_slice_text(port))) {
        host.length -= length;
    }
    return host;
}

bool nx_access_check_origin(struct connection *connection)
{
    const struct request *request = connection->request;
    const struct nx_slice *origin = nx_request_header(request, "Origin");
    const struct nx_slice *host = nx_request_header(request, "Host");
    const char *port = ":80";

    if (origin == NULL || connection->peer == PEER_UNIX || request->parser.method == HTTP_GET ||
        request->parser.method == HTTP_HEAD) {
        return true;
    }
    struct nx_slice site = *origin;

    if (!cut_scheme(&site, "http://") && cut_scheme(&site, "https://")) {
        port = ":443";
    }
    if (host != NULL && nx_request_header_count(request, "Origin") == 1 &&
        site.length < origin->length &&
        nx_equal_nocase(cut_port(site, port), cut_port(*host, port))) {
        return true;
    }
    nx_access_note_refusal(connection, "its Origin is another site");
    nx_refuse(connection, NX_ERROR_CROSS_ORIGIN,
              "The request comes from a page of another site (Origin differs from Host).");
    return false;
}

void nx_access_local_address(const struct connection *connection, char *text, size_t cap)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    char formatted[NX_ADDR_SIZE];

    if (connection->peer == PEER_UNIX ||
        getsockname(bufferevent_getfd(connection->bev), (struct sockaddr *)&address, &length) < 0) {
        return;
    }
    nx_net_format((const struct sockaddr *)&address, formatted);
    snprintf(text, cap, "%s", formatted);
}
