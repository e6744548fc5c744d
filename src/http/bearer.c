/* Runs in http workers. See bearer.h. */
#include "http/bearer.h"

#include "common/token.h"
#include "http/access.h"
#include "http/connection.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"

#include <stdio.h>

static const struct nx_tokens *tokens_of(const struct connection *connection)
{
    return &connection->worker->process->config->tokens;
}

/* What a request shows. */
enum shown {
    SHOWS_NOTHING,
    SHOWS_A_WRONG_ONE,
    SHOWS_READ,
    SHOWS_NODE,
    SHOWS_AUTH,
};

/* The token of "Bearer TOKEN"; nothing: another scheme, or none. */
static struct nx_slice bearer(struct nx_slice value)
{
    static const char scheme[] = "Bearer ";
    size_t length = sizeof scheme - 1;

    if (value.length < length ||
        !nx_equal_nocase(nx_slice_of(value.data, length), nx_slice_text(scheme))) {
        return nx_slice_of(NULL, 0);
    }
    while (length < value.length && value.data[length] == ' ') {
        length++;
    }
    return nx_slice_of(value.data + length, value.length - length);
}

/* All are compared, whichever it is. */
static enum shown look_token(const struct connection *connection)
{
    const struct nx_slice *header = nx_request_header(connection->request, "Authorization");
    const struct nx_tokens *tokens = tokens_of(connection);

    if (header == NULL) {
        return SHOWS_NOTHING;
    }
    struct nx_slice token = bearer(*header);
    bool auth = nx_token_matches(tokens->http_auth, token);
    bool read = nx_token_matches(tokens->http_read, token);
    bool node = nx_token_matches(tokens->replication, token);

    if (nx_request_header_count(connection->request, "Authorization") != 1) {
        return SHOWS_A_WRONG_ONE;
    }
    if (auth || node) {
        return auth ? SHOWS_AUTH : SHOWS_NODE;
    }
    return read ? SHOWS_READ : SHOWS_A_WRONG_ONE;
}

static bool only_reads(const struct request *request)
{
    return request->parser.method == HTTP_GET || request->parser.method == HTTP_HEAD ||
           request->parser.method == HTTP_OPTIONS;
}

/* What nodes ask of each other: who leads, where they stand, and promises. */
static bool is_of_nodes(const struct request *request)
{
    const struct route *route = request->route;

    return route != NULL &&
           (route->access == ROUTE_ACCESS_NODE || route->access == ROUTE_ACCESS_SHARED);
}

bool nx_bearer_needed(const struct connection *connection)
{
    const struct nx_tokens *tokens = tokens_of(connection);
    const struct route *route = connection->request->route;

    return tokens->http_auth[0] != '\0' ||
           (route != NULL && route->access == ROUTE_ACCESS_NODE && tokens->replication[0] != '\0');
}

static bool opens(enum shown shown, const struct request *request)
{
    switch (shown) {
    case SHOWS_AUTH:
        return true;
    case SHOWS_NODE:
        return is_of_nodes(request);
    case SHOWS_READ:
        return only_reads(request);
    case SHOWS_NOTHING:
    case SHOWS_A_WRONG_ONE:
        break;
    }
    return false;
}

static void refuse(struct connection *connection, enum shown shown)
{
    struct problem problem = {.code = NX_ERROR_UNAUTHORIZED,
                              .headers = "WWW-Authenticate: Bearer realm=\"nexus\"\r\n"};

    if (shown == SHOWS_READ || shown == SHOWS_NODE) {
        nx_access_note_refusal(connection, "its token doesn't open what it asks for");
        nx_refuse(connection, NX_ERROR_TOKEN_REQUIRED, "%s",
                  shown == SHOWS_READ
                      ? "This token opens GET and HEAD only; anything else needs the one of "
                        "http.auth_token_file."
                      : "The replication token opens what nodes ask of each other only.");
        return;
    }
    nx_access_note_refusal(connection,
                           shown == SHOWS_NOTHING ? "it shows no token" : "its token is wrong");
    (void)snprintf(
        problem.message, sizeof problem.message, "%s",
        shown == SHOWS_NOTHING
            ? "A token is needed here: send the header \"Authorization: Bearer TOKEN\"."
            : "The token is wrong; the header must be \"Authorization: Bearer TOKEN\", once.");
    nx_respond_problem(connection, &problem);
}

bool nx_bearer_opens(const struct connection *connection)
{
    return opens(look_token(connection), connection->request);
}

bool nx_bearer_check(struct connection *connection)
{
    enum shown shown = look_token(connection);

    if (!opens(shown, connection->request)) {
        refuse(connection, shown);
        return false;
    }
    return true;
}
