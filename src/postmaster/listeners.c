/* The listening sockets, made before anything is forked: an address in use fails now, not at 3 a.m.
 * Runs in the postmaster. */
#include "common/net.h"
#include "postmaster/postmaster.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 1024

/* DATA_DIR/nexus.sock. One that a dead server left is removed: the lock on the directory says that
 * nobody lives behind it. The umask, not a later chmod, keeps others out. */
static int listen_unix(const char *data_dir, int *ret_fd, char *error, size_t cap)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int length = snprintf(addr.sun_path, sizeof addr.sun_path, "%s/nexus.sock", data_dir);
    mode_t before;
    int rc = 0;

    if (length < 0 || (size_t)length >= sizeof addr.sun_path) {
        (void)snprintf(
            error, cap,
            "the data directory's path is too long for the socket in it (%s/nexus.sock): at "
            "most %zu bytes; use a shorter path",
            data_dir, sizeof addr.sun_path - 1);
        return -ENAMETOOLONG;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0) {
        return -errno;
    }
    (void)unlink(addr.sun_path);
    before = umask(0177);
    if (bind(fd, (const struct sockaddr *)&addr, sizeof addr) != 0 || listen(fd, BACKLOG) != 0) {
        rc = -errno;
        (void)snprintf(error, cap, "the socket %s can't be made: %s", addr.sun_path,
                       rc == -EADDRINUSE ? "what stands there can't be removed: move it away"
                                         : strerrordesc_np(-rc));
        close(fd);
    }
    (void)umask(before);
    if (rc == 0) {
        *ret_fd = fd;
    }
    return rc;
}

int nx_listeners_open(struct nx_postmaster *pm, char *error, size_t cap)
{
    int rc = nx_net_listen(pm->config.http.bind_addr, BACKLOG, &pm->http_fd, error, cap);

    if (rc == 0) {
        rc = listen_unix(pm->dir.path, &pm->unix_fd, error, cap);
    }
    if (rc == 0 && pm->config.replication.role != NX_ROLE_STANDALONE) {
        rc = nx_net_listen(pm->config.replication.bind_addr, BACKLOG, &pm->replication_fd, error,
                           cap);
    }
    return rc;
}

void nx_listeners_close(struct nx_postmaster *pm)
{
    char path[NX_PATH_SIZE + 16];

    if (pm->http_fd >= 0) {
        close(pm->http_fd);
        pm->http_fd = -1;
    }
    if (pm->unix_fd >= 0) {
        (void)snprintf(path, sizeof path, "%s/nexus.sock", pm->dir.path);
        (void)unlink(path);
        close(pm->unix_fd);
        pm->unix_fd = -1;
    }
}
