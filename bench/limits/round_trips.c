/* What one small question and its answer cost on loopback, between two processes that do nothing else. */
#include "limits.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MESSAGE ((size_t)64)

static int listen_on_loopback(struct sockaddr_in *ret_address)
{
    socklen_t length = sizeof(*ret_address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memset(ret_address, 0, sizeof(*ret_address));
    ret_address->sin_family = AF_INET;
    ret_address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (const struct sockaddr *)ret_address, length) != 0 ||
        listen(fd, 1) != 0 || getsockname(fd, (struct sockaddr *)ret_address, &length) != 0) {
        fail("listening on loopback");
    }
    return fd;
}

static void send_at_once(int fd)
{
    int one = 1;

    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0) {
        fail("TCP_NODELAY");
    }
}

static int read_whole(int fd, char *message)
{
    size_t got = 0;

    while (got < MESSAGE) {
        ssize_t count = read(fd, message + got, MESSAGE - got);

        if (count <= 0) {
            return -1;
        }
        got += (size_t)count;
    }
    return 0;
}

/* Gives back all that comes, until the other side closes. */
static _Noreturn void echo(int listener)
{
    char message[MESSAGE];
    int fd = accept4(listener, &(struct sockaddr){0}, &(socklen_t){sizeof(struct sockaddr)},
                     SOCK_CLOEXEC);

    if (fd >= 0) {
        send_at_once(fd);
        while (read_whole(fd, message) == 0 && write(fd, message, MESSAGE) == (ssize_t)MESSAGE) {
        }
    }
    _exit(0);
}

void measure_round_trips(size_t count)
{
    char message[MESSAGE] = {0};
    struct sockaddr_in address;
    struct samples samples;
    int listener = listen_on_loopback(&address);
    pid_t child = fork();
    int fd;

    if (child < 0) {
        fail("fork");
    }
    if (child == 0) {
        echo(listener);
    }
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) != 0) {
        fail("connecting over loopback");
    }
    send_at_once(fd);
    samples_open(&samples, count);
    for (size_t i = 0; i < count; i++) {
        double began = now_us();

        if (write(fd, message, MESSAGE) != (ssize_t)MESSAGE || read_whole(fd, message) != 0) {
            fail("a round trip");
        }
        samples_add(&samples, now_us() - began);
    }
    close(fd);
    close(listener);
    waitpid(child, NULL, 0);
    samples_report(&samples, "round-trip");
}
