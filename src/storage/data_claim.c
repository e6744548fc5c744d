/* Claims the data directory: its place, its mode, its lock. Runs in the postmaster, before it forks
 * anything. The lock is its opening's; it writes nothing but nexus.lock. */
#include "storage/data_opening.h"
#include "storage/file_io.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define POLL_MS   20
#define GLANCE_MS 500 /* how long the lock of one that lives is looked at */

int nx_data_fail(const struct nx_data_opening *o, int rc, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(o->error, o->cap, format, args);
    va_end(args);
    return rc;
}

int nx_data_failed_doing(const struct nx_data_opening *o, int rc, const char *doing)
{
    return nx_data_fail(o, rc, "data directory %s: %s: %s", o->dir.path, doing, nx_errno_text(rc));
}

/* ---- the directory itself ---- */

static int make_directory(const struct nx_data_opening *o, const char *path)
{
    int rc = mkdir(path, 0700) == 0 ? 0 : -errno;

    if (rc == -ENOENT) {
        return nx_data_fail(o, rc,
                            "data directory %s: the directory that should hold it doesn't exist; "
                            "create that one first",
                            path);
    }
    if (rc < 0 && rc != -EEXIST) {
        return nx_data_fail(o, rc, "data directory %s: can't be created: %s", path,
                            nx_errno_text(rc));
    }
    return 0;
}

static int fail_foreign(const struct nx_data_opening *o, uid_t owner)
{
    return nx_data_fail(
        o, -EPERM,
        "data directory %s belongs to uid %u, but this server runs as uid %u; start it "
        "as the owner, or give it the directory (chown -R %u %s)",
        o->dir.path, (unsigned)owner, (unsigned)geteuid(), (unsigned)geteuid(), o->dir.path);
}

static int fail_closed(const struct nx_data_opening *o, int error)
{
    struct stat st;

    if (error == EACCES && stat(o->dir.path, &st) == 0 && st.st_uid != geteuid()) {
        return fail_foreign(o, st.st_uid);
    }
    return nx_data_failed_doing(o, -error, "opening it");
}

static int resolve(struct nx_data_opening *o, const char *path)
{
    char *absolute = realpath(path, NULL);
    size_t length;

    if (absolute == NULL) {
        return nx_data_fail(o, -errno, "data directory %s: %s", path, nx_errno_text(errno));
    }
    length = strlen(absolute);
    if (length + NX_DATA_ROOT_SIZE >= sizeof o->dir.path) {
        free(absolute);
        return nx_data_fail(o, -ENAMETOOLONG,
                            "the path of the data directory is too long, at most %zu bytes: %s",
                            sizeof o->dir.path - NX_DATA_ROOT_SIZE - 1, path);
    }
    memcpy(o->dir.path, absolute, length + 1);
    free(absolute);
    o->fd = open(o->dir.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (o->fd < 0 && errno == ENOTDIR) {
        return nx_data_fail(o, -ENOTDIR, "data directory %s: it is a file; name a directory", path);
    }
    return o->fd < 0 ? fail_closed(o, errno) : 0;
}

static int one_name(void *arg, const char *name)
{
    (void)arg;
    (void)name;
    return 1;
}

/* Only its owner may look at it. An empty one is made so, as a person's mkdir doesn't. */
static int check_mode(const struct nx_data_opening *o)
{
    struct stat st;

    if (fstat(o->fd, &st) != 0) {
        return nx_data_failed_doing(o, -errno, "looking at it");
    }
    if (st.st_uid != geteuid()) {
        return fail_foreign(o, st.st_uid);
    }
    if ((st.st_mode & 077) == 0) {
        return 0;
    }
    if (nx_each_name(o->fd, one_name, NULL) == 0) {
        return fchmod(o->fd, 0700) == 0 ? 0 : nx_data_failed_doing(o, -errno, "chmod 700");
    }
    return nx_data_fail(
        o, -EPERM,
        "data directory %s is open to others (mode %03o); only its owner may have access: "
        "chmod 700 %s",
        o->dir.path, (unsigned)st.st_mode & 0777, o->dir.path);
}

/* ---- the lock ---- */

static pid_t read_pid(int fd)
{
    char text[32] = "";
    size_t n;

    if (nx_read_some(fd, text, sizeof text - 1, 0, &n) < 0) {
        return 0;
    }
    return (pid_t)strtol(text, NULL, 10);
}

/* Whether a process has this pid; one that ended counts until its parent has asked for its status. */
static bool is_alive(pid_t pid)
{
    return pid > 0 && (kill(pid, 0) == 0 || errno != ESRCH);
}

/* The children of a postmaster that was killed end within a second and the lock with them. nexus-ctl holds
 * it for a moment, to see whether it is free: the pid in it is an earlier server's then. */
static int take_lock(const struct nx_data_opening *o, int fd)
{
    static const struct timespec pause = {.tv_nsec = POLL_MS * 1000000L};
    int waited = 0;
    pid_t pid;

    while (flock(fd, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return nx_data_failed_doing(o, -errno, "locking " NX_LOCK_NAME);
        }
        pid = read_pid(fd);
        if (waited >= (is_alive(pid) ? GLANCE_MS : NX_LOCK_WAIT_MS)) {
            return nx_data_fail(
                o, -EBUSY,
                "data directory %s is in use by another server (pid %ld%s); stop that one "
                "(nexus-ctl stop -D %s) or name another directory",
                o->dir.path, (long)pid, is_alive(pid) ? "" : ", or processes that it left",
                o->dir.path);
        }
        (void)nanosleep(&pause, NULL);
        waited += POLL_MS;
    }
    return 0;
}

static int lock(struct nx_data_opening *o)
{
    char text[32];
    int length;
    int rc;
    int fd = openat(o->fd, NX_LOCK_NAME, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0) {
        return nx_data_failed_doing(o, -errno, "opening " NX_LOCK_NAME);
    }
    rc = take_lock(o, fd);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    o->dir.lock_fd = fd;
    /* For the message above only, so a full disk doesn't matter. */
    length = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (ftruncate(fd, 0) == 0) {
        (void)nx_write_at(fd, text, (size_t)length, 0);
    }
    return 0;
}

/* At each start: the one that made the directory may have been killed before it got here. */
static int sync_parent(const struct nx_data_opening *o)
{
    int parent = openat(o->fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc;

    if (parent < 0 && errno == EACCES) {
        return 0; /* not ours to sync, and so whoever made us a directory there did it long ago */
    }
    rc = parent >= 0 && fsync(parent) == 0 ? 0 : -errno;
    if (parent >= 0) {
        close(parent);
    }
    return rc < 0 ? nx_data_failed_doing(o, rc, "syncing the directory that holds it") : 0;
}

int nx_data_dir_claim(struct nx_data_opening *o, const char *path)
{
    int rc = make_directory(o, path);

    rc = rc < 0 ? rc : resolve(o, path);
    rc = rc < 0 ? rc : check_mode(o);
    rc = rc < 0 ? rc : sync_parent(o);
    return rc < 0 ? rc : lock(o);
}
