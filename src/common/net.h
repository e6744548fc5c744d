/* Addresses and TCP sockets. All functions return at once, but for nx_net_listen on a name. */
#ifndef NX_COMMON_NET_H
#define NX_COMMON_NET_H

#include "common/config.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* "host:port" taken apart. */
struct nx_net_addr {
    char host[NX_ADDR_SIZE]; /* without brackets; "" is any address (":15474", "*:15474") */
    uint16_t port;           /* 1 to 65535 */
    bool bracketed;          /* the host was an IPv6 address in brackets */
};

/* Takes apart "name:port", "1.2.3.4:port", "[::1]:port", ":port" or "*:port". 0 or -EINVAL. Asks no name
 * server: a name need not exist, but has only characters that a host name can have. */
int nx_net_parse(const char *text, struct nx_net_addr *ret_addr);

/* The host is "", or the address 0.0.0.0 or ::. */
bool nx_net_is_wildcard(const struct nx_net_addr *addr);

/* One listening socket can't have both: same port, and same host or one of them a wildcard. Names are
 * compared as text. */
bool nx_net_overlap(const struct nx_net_addr *a, const struct nx_net_addr *b);

/* Listens on "host:port" with SO_REUSEADDR, non-blocking and close-on-exec. An IPv6 wildcard takes IPv4
 * peers too; any address ("" or "*") falls back to IPv4 where there is no IPv6. 0, or -errno and a
 * sentence in error (cap bytes) that says what is wrong and what to do. May ask a name server when the
 * host is a name. */
int nx_net_listen(const char *text, int backlog, int *ret_fd, char *error, size_t cap);

/* 127/8, ::1, and 127/8 mapped into IPv6. A Unix socket counts too. */
bool nx_net_is_loopback(const struct sockaddr *addr);
/* Loopback, 10/8, 172.16/12, 192.168/16, 169.254/16, 100.64/10, fc00::/7, fe80::/10, and the IPv4 ones
 * mapped into IPv6. */
bool nx_net_is_private(const struct sockaddr *addr);
/* Whether a peer without a token is served. */
bool nx_net_is_allowed(const struct sockaddr *addr, enum nx_allow allow);

/* "1.2.3.4:5", "[::1]:5", "unix". A mapped IPv4 address is written as IPv4. */
void nx_net_format(const struct sockaddr *addr, char ret_text[NX_ADDR_SIZE]);

/* The other end of a connected socket as text; "unknown" when the kernel doesn't say. */
void nx_net_peer(int fd, char ret_text[NX_ADDR_SIZE]);

/* TCP_NODELAY: what is written is sent. 0 or -errno. */
int nx_net_nodelay(int fd);
/* Keepalive probes, so that a peer that is gone is noticed within about `silence_ms` on an idle
 * connection, and TCP_USER_TIMEOUT, so that it is on a busy one. 0 or -errno. */
int nx_net_detect_dead(int fd, unsigned silence_ms);

#endif
