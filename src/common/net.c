/* Runs in the postmaster (listening) and in whatever process has a connection. Owns nothing: each
 * descriptor belongs to the caller. */
#include "common/net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#define NAME_CHARACTERS "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-_"

/* ---- text to address ---- */

static int parse_port(const char *text, uint16_t *ret_port)
{
    size_t digits = strspn(text, "0123456789");
    long port = strtol(text, NULL, 10);

    if (digits == 0 || digits > 5 || text[digits] != '\0' || port < 1 || port > UINT16_MAX) {
        return -EINVAL;
    }
    *ret_port = (uint16_t)port;
    return 0;
}

/* An address in brackets, perhaps with a zone ("fe80::1%eth0"). */
static bool is_ipv6(const char *host)
{
    char address[INET6_ADDRSTRLEN];
    size_t length = strcspn(host, "%");
    struct in6_addr parsed;

    if (length >= sizeof address || (host[length] == '%' && host[length + 1] == '\0')) {
        return false;
    }
    memcpy(address, host, length);
    address[length] = '\0';
    return inet_pton(AF_INET6, address, &parsed) == 1;
}

/* Digits and dots are an IPv4 address in full: "10.1" means something else to each program. */
static bool is_name_or_ipv4(const char *host)
{
    struct in_addr parsed;

    if (strspn(host, "0123456789.") == strlen(host)) {
        return inet_pton(AF_INET, host, &parsed) == 1;
    }
    return strspn(host, NAME_CHARACTERS) == strlen(host);
}

int nx_net_parse(const char *text, struct nx_net_addr *ret_addr)
{
    struct nx_net_addr addr = {.port = 0};
    const char *colon = strrchr(text, ':');
    size_t length;

    if (colon == NULL || parse_port(colon + 1, &addr.port) < 0) {
        return -EINVAL;
    }
    length = (size_t)(colon - text);
    addr.bracketed = length > 2 && text[0] == '[' && text[length - 1] == ']';
    if (addr.bracketed) {
        text++;
        length -= 2;
    }
    if (length >= sizeof addr.host) {
        return -EINVAL;
    }
    memcpy(addr.host, text, length);
    if (strcmp(addr.host, "*") == 0) {
        addr.host[0] = '\0';
    }
    if (addr.bracketed ? !is_ipv6(addr.host)
                       : addr.host[0] != '\0' && !is_name_or_ipv4(addr.host)) {
        return -EINVAL;
    }
    *ret_addr = addr;
    return 0;
}

bool nx_net_is_wildcard(const struct nx_net_addr *addr)
{
    static const struct in6_addr any;
    struct in6_addr parsed;

    if (addr->bracketed) {
        return inet_pton(AF_INET6, addr->host, &parsed) == 1 &&
               memcmp(&parsed, &any, sizeof any) == 0;
    }
    return addr->host[0] == '\0' || strcmp(addr->host, "0.0.0.0") == 0;
}

bool nx_net_overlap(const struct nx_net_addr *a, const struct nx_net_addr *b)
{
    return a->port == b->port &&
           (nx_net_is_wildcard(a) || nx_net_is_wildcard(b) || strcasecmp(a->host, b->host) == 0);
}

/* ---- listening ---- */

static const char *listen_advice(int error)
{
    switch (error) {
    case EADDRINUSE:
        return "; another process listens there: stop that one or choose another port";
    case EADDRNOTAVAIL:
        return "; no network interface of this machine has that address";
    case EACCES:
        return "; ports below 1024 need privileges: choose a higher one";
    default:
        return "";
    }
}

/* A descriptor that listens, or -errno. */
static int listen_on(const struct sockaddr *addr, socklen_t length, int backlog)
{
    static const int on = 1;
    static const int off = 0;
    int error;
    int fd = socket(addr->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0) {
        return -errno;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        (addr->sa_family != AF_INET6 ||
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off) == 0) &&
        bind(fd, addr, length) == 0 && listen(fd, backlog) == 0) {
        return fd;
    }
    error = errno;
    close(fd);
    return -error;
}

static int listen_anywhere(uint16_t port, int backlog)
{
    const struct sockaddr_in6 any6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    const struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = listen_on((const struct sockaddr *)&any6, sizeof any6, backlog);

    if (fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL) {
        fd = listen_on((const struct sockaddr *)&any4, sizeof any4, backlog);
    }
    return fd;
}

int nx_net_listen(const char *text, int backlog, int *ret_fd, char *error, size_t cap)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *list = NULL;
    struct nx_net_addr addr;
    char port[8];
    int fd;
    int rc;

    if (nx_net_parse(text, &addr) < 0) {
        (void)snprintf(error, cap, "\"%s\" is no address to listen on: expected host:port", text);
        return -EINVAL;
    }
    if (addr.host[0] == '\0') {
        fd = listen_anywhere(addr.port, backlog);
    } else {
        (void)snprintf(port, sizeof port, "%u", (unsigned)addr.port);
        rc = getaddrinfo(addr.host, port, &hints, &list);
        if (rc != 0) {
            (void)snprintf(error, cap, "can't listen on %s: \"%s\" is no known host: %s", text,
                           addr.host, gai_strerror(rc));
            return -EADDRNOTAVAIL;
        }
        fd = listen_on(list->ai_addr, list->ai_addrlen, backlog);
        freeaddrinfo(list);
    }
    if (fd < 0) {
        (void)snprintf(error, cap, "can't listen on %s: %s%s", text, strerrordesc_np(-fd),
                       listen_advice(-fd));
        return fd;
    }
    *ret_fd = fd;
    return 0;
}

/* ---- who is there ---- */

/* The IPv4 address, in host order, of an IPv4 peer, mapped or not. */
static bool ipv4_of(const struct sockaddr *addr, uint32_t *ret_ip, uint16_t *ret_port)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;

    if (addr->sa_family == AF_INET) {
        memcpy(&in, addr, sizeof in);
        *ret_ip = ntohl(in.sin_addr.s_addr);
        *ret_port = ntohs(in.sin_port);
        return true;
    }
    if (addr->sa_family == AF_INET6) {
        memcpy(&in6, addr, sizeof in6);
        if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
            memcpy(ret_ip, &in6.sin6_addr.s6_addr[12], sizeof *ret_ip);
            *ret_ip = ntohl(*ret_ip);
            *ret_port = ntohs(in6.sin6_port);
            return true;
        }
    }
    return false;
}

static bool within(uint32_t ip, uint32_t network, unsigned bits)
{
    return ip >> (32 - bits) == network >> (32 - bits);
}

bool nx_net_is_loopback(const struct sockaddr *addr)
{
    struct sockaddr_in6 in6;
    uint32_t ip;
    uint16_t port;

    if (ipv4_of(addr, &ip, &port)) {
        return within(ip, 0x7F000000, 8);
    }
    if (addr->sa_family != AF_INET6) {
        return addr->sa_family == AF_UNIX;
    }
    memcpy(&in6, addr, sizeof in6);
    return IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr);
}

bool nx_net_is_private(const struct sockaddr *addr)
{
    struct sockaddr_in6 in6;
    uint32_t ip;
    uint16_t port;

    if (nx_net_is_loopback(addr)) {
        return true;
    }
    if (ipv4_of(addr, &ip, &port)) {
        return within(ip, 0x0A000000, 8) || within(ip, 0xAC100000, 12) ||
               within(ip, 0xC0A80000, 16) || within(ip, 0xA9FE0000, 16) ||
               within(ip, 0x64400000, 10);
    }
    if (addr->sa_family != AF_INET6) {
        return false;
    }
    memcpy(&in6, addr, sizeof in6);
    return (in6.sin6_addr.s6_addr[0] & 0xFE) == 0xFC || IN6_IS_ADDR_LINKLOCAL(&in6.sin6_addr);
}

bool nx_net_is_allowed(const struct sockaddr *addr, enum nx_allow allow)
{
    switch (allow) {
    case NX_ALLOW_ANY:
        return true;
    case NX_ALLOW_PRIVATE:
        return nx_net_is_private(addr);
    case NX_ALLOW_LOOPBACK:
        return nx_net_is_loopback(addr);
    case NX_ALLOW_NONE:
        break;
    }
    return false;
}

void nx_net_format(const struct sockaddr *addr, char ret_text[NX_ADDR_SIZE])
{
    char host[INET6_ADDRSTRLEN];
    struct sockaddr_in6 in6;
    uint32_t ip;
    uint16_t port;

    if (ipv4_of(addr, &ip, &port)) {
        (void)snprintf(ret_text, NX_ADDR_SIZE, "%u.%u.%u.%u:%u", (unsigned)(ip >> 24),
                       (unsigned)(ip >> 16 & 0xFF), (unsigned)(ip >> 8 & 0xFF),
                       (unsigned)(ip & 0xFF), (unsigned)port);
    } else if (addr->sa_family == AF_INET6) {
        memcpy(&in6, addr, sizeof in6);
        (void)inet_ntop(AF_INET6, &in6.sin6_addr, host, sizeof host);
        (void)snprintf(ret_text, NX_ADDR_SIZE, "[%s]:%u", host, (unsigned)ntohs(in6.sin6_port));
    } else {
        (void)snprintf(ret_text, NX_ADDR_SIZE, "%s",
                       addr->sa_family == AF_UNIX ? "unix" : "unknown");
    }
}

void nx_net_peer(int fd, char ret_text[NX_ADDR_SIZE])
{
    struct sockaddr_storage addr = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof addr;

    if (getpeername(fd, (struct sockaddr *)&addr, &length) != 0) {
        addr.ss_family = AF_UNSPEC;
    }
    nx_net_format((const struct sockaddr *)&addr, ret_text);
}

/* ---- TCP ---- */

static int set_tcp(int fd, int option, int value)
{
    return setsockopt(fd, IPPROTO_TCP, option, &value, sizeof value) == 0 ? 0 : -errno;
}

int nx_net_nodelay(int fd)
{
    return set_tcp(fd, TCP_NODELAY, 1);
}

int nx_net_detect_dead(int fd, unsigned silence_ms)
{
    static const int on = 1;
    static const int probes = 3;
    unsigned seconds = silence_ms / 1000 < 2 ? 2 : silence_ms / 1000;
    int idle = (int)(seconds / 2);
    int interval = idle / probes < 1 ? 1 : idle / probes;
    int rc;

    if (setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) != 0) {
        return -errno;
    }
    rc = set_tcp(fd, TCP_KEEPIDLE, idle);
    rc = rc < 0 ? rc : set_tcp(fd, TCP_KEEPINTVL, interval);
    rc = rc < 0 ? rc : set_tcp(fd, TCP_KEEPCNT, probes);
    return rc < 0 ? rc : set_tcp(fd, TCP_USER_TIMEOUT, (int)silence_ms);
}
