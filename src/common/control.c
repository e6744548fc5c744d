/* The control channel; see control.h. Runs in the postmaster and in every child. */
#include "common/control.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int nx_control_pair(int ret[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret) == 0 ? 0
                                                                                           : -errno;
}

int nx_control_send(int fd,
                    enum nx_control_type type,
                    int32_t status,
                    uint64_t arg,
                    const char *text)
{
    struct nx_control_message message = {.type = type, .status = status, .arg = arg};

    (void)snprintf(message.text, sizeof message.text, "%s", text == NULL ? "" : text);
    if (send(fd, &message, sizeof message, MSG_NOSIGNAL) == (ssize_t)sizeof message) {
        return 0;
    }
    return errno == EWOULDBLOCK ? -EAGAIN : -errno;
}

int nx_control_receive(int fd, struct nx_control_message *ret_message)
{
    struct nx_control_message message;
    ssize_t n = recv(fd, &message, sizeof message, 0);

    if (n == (ssize_t)sizeof message) {
        message.text[sizeof message.text - 1] = '\0';
        *ret_message = message;
        return 0;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return -EAGAIN;
    }
    return n < 0 && errno != ECONNRESET ? -errno : -EPIPE;
}
