/* Replacing the node's data by what a full sync has brought. prepare and tidy run in the processes that fill
 * data-N and that keep the directory; the switch in the postmaster, while no other process lives. Until
 * `current` is renamed nothing of a data-N counts, and it may be removed at any time. */
#include "common/failpoint.h"
#include "storage/data_dir.h"
#include "storage/data_identity.h"
#include "storage/data_opening.h"
#include "storage/file_io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_directory(int at, const char *path)
{
    int fd = openat(at, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0) {
        return -errno;
    }
    return fd;
}

/* ---- filling ---- */

struct others {
    int fd;
    const char *keep;
};

static int remove_other(void *arg, const char *name)
{
    const struct others *others = arg;
    uint64_t n;

    return nx_name_number(name, NX_ROOT_PREFIX, &n) == 0 && strcmp(name, others->keep) != 0
               ? nx_remove_tree(others->fd, name)
               : 0;
}

static int make_root(int fd, const char *name)
{
    int root_fd = -1;
    int rc = mkdirat(fd, name, 0700) == 0 ? 0 : -errno;

    if (rc == 0) {
        root_fd = open_directory(fd, name);
        rc = root_fd < 0 ? root_fd : 0;
    }
    if (rc == 0 && (mkdirat(root_fd, "wal", 0700) != 0 || mkdirat(root_fd, "state", 0700) != 0)) {
        rc = -errno;
    }
    if (root_fd >= 0) {
        close(root_fd);
    }
    return rc;
}

int nx_data_dir_prepare(const char *path, const char *root_in_use, char ret_root[NX_PATH_SIZE])
{
    const char *slash = strrchr(root_in_use, '/');
    const char *in_use = slash == NULL ? root_in_use : slash + 1;
    struct others others = {.keep = in_use};
    char name[NX_DATA_ROOT_SIZE];
    uint64_t n;
    int rc = nx_name_number(in_use, NX_ROOT_PREFIX, &n);

    if (rc < 0) {
        return rc;
    }
    others.fd = open_directory(AT_FDCWD, path);
    if (others.fd < 0) {
        return others.fd;
    }
    (void)snprintf(name, sizeof name, NX_ROOT_PREFIX "%" PRIu64, n + 1);
    rc = nx_each_name(others.fd, remove_other, &others);
    rc = rc < 0 ? rc : make_root(others.fd, name);
    close(others.fd);
    if (rc == 0 && snprintf(ret_root, NX_PATH_SIZE, "%s/%s", path, name) >= NX_PATH_SIZE) {
        rc = -ENAMETOOLONG;
    }
    return rc;
}

int nx_data_dir_discard(const char *path, const char *root)
{
    const char *slash = strrchr(root, '/');
    int fd = open_directory(AT_FDCWD, path);
    int rc;

    if (fd < 0) {
        return fd;
    }
    rc = slash == NULL ? 0 : nx_remove_tree(fd, slash + 1);
    close(fd);
    return rc;
}

/* ---- the switch ---- */

static int write_identity(int fd, const char *root, const struct nx_identity *identity)
{
    int root_fd = open_directory(fd, root);
    int rc;

    if (root_fd < 0) {
        return root_fd;
    }
    rc = nx_identity_write(root_fd, identity);
    if (rc == 0 && fsync(root_fd) != 0) {
        rc = -errno;
    }
    close(root_fd);
    return rc;
}

/* The commit point. */
static int rename_current(int fd, const char *root)
{
    (void)unlinkat(fd, NX_CURRENT_NAME NX_TEMP_SUFFIX, 0);
    if (fsync(fd) != 0 || symlinkat(root, fd, NX_CURRENT_NAME NX_TEMP_SUFFIX) != 0 ||
        renameat(fd, NX_CURRENT_NAME NX_TEMP_SUFFIX, fd, NX_CURRENT_NAME) != 0) {
        return -errno;
    }
    if (fsync(fd) != 0) {
        return errno == ENOSPC || errno == EDQUOT ? -EIO
                                                  : -errno; /* those say that nothing has changed */
    }
    return 0;
}

/* The one before gets another name, which takes no time. Whoever finds it removes it. */
static void put_aside(int fd, const char *old)
{
    char aside[NX_DATA_ROOT_SIZE + sizeof NX_ASIDE_PREFIX];

    (void)snprintf(aside, sizeof aside, NX_ASIDE_PREFIX "%s", old + strlen(NX_ROOT_PREFIX));
    (void)renameat(fd, old, fd, aside);
}

int nx_data_dir_switch(struct nx_data_dir *dir,
                       const char *root,
                       const struct nx_identity *identity,
                       char *error,
                       size_t cap)
{
    char old[NX_DATA_ROOT_SIZE];
    int fd = open_directory(AT_FDCWD, dir->path);
    int rc = fd < 0 ? fd : write_identity(fd, root, identity);

    rc = rc < 0 ? rc : NX_FAILPOINT(switch_unrenamed);
    rc = rc < 0 ? rc : rename_current(fd, root);
    if (rc == 0) {
        (void)NX_FAILPOINT(switch_renamed);
        (void)snprintf(old, sizeof old, "%s", strrchr(dir->root, '/') + 1);
        (void)snprintf(dir->root, sizeof dir->root, "%.*s/%s",
                       (int)(sizeof dir->root - NX_DATA_ROOT_SIZE - 1), dir->path, root);
        dir->identity = *identity;
        put_aside(fd, old);
    } else {
        (void)snprintf(error, cap, "%s/%s can't be made the node's data: %s", dir->path, root,
                       nx_errno_text(rc));
    }
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

/* ---- tidying ---- */

struct aside {
    int fd;
    bool found;
};

static int remove_aside(void *arg, const char *name)
{
    struct aside *aside = arg;

    if (strncmp(name, NX_ASIDE_PREFIX, strlen(NX_ASIDE_PREFIX)) != 0) {
        return 0;
    }
    aside->found = true;
    return nx_remove_tree(aside->fd, name);
}

int nx_data_dir_tidy(const char *path)
{
    struct aside aside = {.fd = open_directory(AT_FDCWD, path)};
    int rc;

    if (aside.fd < 0) {
        return aside.fd;
    }
    rc = nx_each_name(aside.fd, remove_aside, &aside);
    close(aside.fd);
    return rc < 0 ? rc : aside.found;
}
