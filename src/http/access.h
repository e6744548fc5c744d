/* Who may ask (http.md, "Access"): by the peer's address as long as there are no tokens, and never a
 * page of another site through somebody's browser. */
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

/* The peer's address and the Host header. False: answered with 403. */
bool nx_access_check(struct connection *connection);

/* The Origin header of anything but GET and HEAD. False: answered with 403. */
bool nx_access_check_origin(struct connection *connection);

/* "host:port" of our own end of a TCP connection; leaves text alone on a Unix socket. */
void nx_access_local_address(const struct connection *connection, char *text, size_t cap);

#endif
