/* See connect.h. */
#include "nexus-bench/connect.h"

#include "common/net.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#define CONNECT_SECONDS 5

int bench_target_set(struct bench_target *target, const char *text)
{
    struct nx_net_addr addr;
    int rc = nx_net_parse(text, &addr);

    if (rc < 0 || addr.host[0] == '\0') {
        return -EINVAL;
    }
    (void)snprintf(target->text, sizeof target->text, "%s", text);
    return 0;
}

/* Linux bounds a blocking connect by the time for sending. */
static int connect_within(int fd, const struct bench_target *target)
{
    const struct timeval limit = {.tv_sec = CONNECT_SECONDS};

    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0 ||
        connect(fd, (const struct sockaddr *)&target->addr, target->length) != 0) {
        return errno == EINPROGRESS ? -ETIMEDOUT : -errno;
    }
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
        return -errno;
    }
    return nx_net_nodelay(fd);
}

int bench_connect(const struct bench_target *target, char *error, size_t cap)
{
    int fd = socket(target->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc = fd < 0 ? -errno : connect_within(fd, target);

    if (rc < 0) {
        (void)snprintf(error, cap, "can't connect to %s: %s", target->text, strerrordesc_np(-rc));
        if (fd >= 0) {
            close(fd);
        }
        return rc;
    }
    return fd;
}

static void set_address(struct bench_target *target, const struct addrinfo *info)
{
    memcpy(&target->addr, info->ai_addr, info->ai_addrlen);
    target->length = info->ai_addrlen;
}

/* The first of several that takes a connection: "localhost" is ::1 first, where many servers don't listen. */
static int choose(struct bench_target *target, const struct addrinfo *list, char *error, size_t cap)
{
    int fd = -1;

    for (; fd < 0 && list != NULL; list = list->ai_next) {
        set_address(target, list);
        fd = bench_connect(target, error, cap);
    }
    if (fd < 0) {
        return fd;
    }
    close(fd);
    return 0;
}

int bench_target_look_up(struct bench_target *target, char *error, size_t cap)
{
    static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct nx_net_addr addr;
    struct addrinfo *list = NULL;
    char port[sizeof "65535"];
    int rc = nx_net_parse(target->text, &addr);

    if (rc < 0) {
        return rc;
    }
    (void)snprintf(port, sizeof port, "%u", (unsigned)addr.port);
    rc = getaddrinfo(addr.host, port, &hints, &list);
    if (rc != 0) {
        (void)snprintf(error, cap, "%s: %s", target->text, gai_strerror(rc));
        return -EADDRNOTAVAIL;
    }
    if (list->ai_next == NULL) {
        set_address(target, list);
    } else {
        rc = choose(target, list, error, cap);
    }
    freeaddrinfo(list);
    return rc;
}
