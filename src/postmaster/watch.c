/* Sees when the data directory of a running server is taken away: its lock file, which nothing ever renames
 * or removes, must stay under its name. A server that went on would open files by names that may be
 * another server's by now. By inotify, so that an idle node has nothing to look at. Runs in the
 * postmaster. */
#include "common/log.h"
#include "postmaster/postmaster.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

/* Links come and go (IN_ATTRIB tells of an unlink), the directory is moved or removed. */
#define EVENTS (IN_ATTRIB | IN_MOVE_SELF | IN_DELETE_SELF)

static void lock_path(const struct nx_postmaster *pm, char path[NX_PATH_SIZE + 16])
{
    (void)snprintf(path, NX_PATH_SIZE + 16, "%s/" NX_LOCK_NAME, pm->dir.path);
}

int nx_watch_open(struct nx_postmaster *pm)
{
    char path[NX_PATH_SIZE + 16];

    lock_path(pm, path);
    pm->watch_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (pm->watch_fd < 0 || inotify_add_watch(pm->watch_fd, path, EVENTS) < 0 ||
        inotify_add_watch(pm->watch_fd, pm->dir.path, EVENTS | IN_ONLYDIR) < 0) {
        return -errno;
    }
    return 0;
}

void nx_watch_handle(struct nx_postmaster *pm)
{
    char path[NX_PATH_SIZE + 16];
    char events[4096];
    struct stat named;
    struct stat held;

    while (read(pm->watch_fd, events, sizeof events) > 0) {
        ; /* what happened is seen below */
    }
    lock_path(pm, path);
    if (fstat(pm->dir.lock_fd, &held) == 0 && stat(path, &named) == 0 &&
        held.st_dev == named.st_dev && held.st_ino == named.st_ino) {
        return;
    }
    nx_error("the server stops: the data directory %s was removed, moved or replaced while it ran; "
             "move it back, or restore the data, before the next start",
             pm->dir.path);
    close(pm->watch_fd);
    pm->watch_fd = -1;
    nx_postmaster_kill(pm, NX_EXIT_PERSON);
}
