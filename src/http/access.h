/* Who may ask (http.md, "Access"): who shows a token, or, where none is set, by the peer's
 * address; and never a page of another site through somebody's browser. */
#ifndef NX_HTTP_ACCESS_H
#define NX_HTTP_ACCESS_H

#include <stdbool.h>
#include <stddef.h>

struct connection;
struct http_worker;
struct sockaddr;

enum peer_class {
    PEER_UNIX, /* over DATA_DIR/nexus.sock: the directory's mode is its guard */
    PEER_LOOPBACK,
    PEER_PRIVATE,
    PEER_PUBLIC,
};

/* The class of an accepted TCP connection's address. */
enum peer_class nx_access_classify(const struct sockaddr *address);

/* Whether this node serves without any token. */
bool nx_access_is_open(const struct http_worker *worker);

/* The token where one is needed, or opens what is asked for; else the peer's address and the Host header. The request's
 * route is known, or NULL. False: answered with 401 or 403. */
bool nx_access_check(struct connection *connection);

/* A line in the log, not more than some, for a request that is refused. */
void nx_access_note_refusal(const struct connection *connection, const char *why);

/* A line in the log that says who asks for a change of the node (promote, stop, ...). The route is known. */
void nx_access_log(const struct connection *connection);

/* The Origin header of anything but GET and HEAD. False: answered with 403. */
bool nx_access_check_origin(struct connection *connection);

/* "host:port" of our own end of a TCP connection; leaves text alone on a Unix socket. */
void nx_access_local_address(const struct connection *connection, char *text, size_t cap);

#endif
