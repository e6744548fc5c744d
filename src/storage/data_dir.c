/* Opens the data directory. Runs in the postmaster, before it forks anything, and in nothing else. It
 * owns the lock; it never opens the state or a segment, and it removes only what it made itself: its
 * temporary files and a data-N that isn't `current`. */
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
#include <uuid/uuid.h>

#define ID_NAME    "nexus.id"
#define FIRST_ROOT NX_ROOT_PREFIX "1"

#define REMEDY_COPY                                                                                  \
    "; nothing was changed. Put it back from a copy of this data directory, or start with an empty " \
    "one and let the node follow a replica"

/* ---- what is there ---- */

struct roots {
    int fd;                          /* DATA_DIR */
    const char *keep;                /* name of `current`, when removing */
    char holding[NX_DATA_ROOT_SIZE]; /* a data-N with state or log in it; "" if none */
};

static int log_piece(void *arg, const char *name)
{
    const char *ending = strrchr(name, '.');

    (void)arg;
    return (ending != NULL && strcmp(ending, ".wal") == 0) || strcmp(name, "durable") == 0;
}

static bool holds_data(int fd, const char *root)
{
    char path[NX_DATA_ROOT_SIZE + 16];
    int wal_fd;
    bool found;

    (void)snprintf(path, sizeof path, "%s/state/data.mdb", root);
    if (faccessat(fd, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        return true;
    }
    (void)snprintf(path, sizeof path, "%s/wal", root);
    wal_fd = openat(fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (wal_fd < 0) {
        return false;
    }
    found = nx_each_name(wal_fd, log_piece, NULL) != 0;
    close(wal_fd);
    return found;
}

static int find_holding(void *arg, const char *name)
{
    struct roots *roots = arg;
    uint64_t n;

    if (nx_name_number(name, NX_ROOT_PREFIX, &n) == 0 && holds_data(roots->fd, name)) {
        (void)snprintf(roots->holding, sizeof roots->holding, NX_ROOT_PREFIX "%" PRIu64, n);
        return 1;
    }
    return 0;
}

static int remove_leftover(void *arg, const char *name)
{
    const struct roots *roots = arg;
    uint64_t n;

    if (strcmp(name, ID_NAME NX_TEMP_SUFFIX) == 0 ||
        strcmp(name, NX_CURRENT_NAME NX_TEMP_SUFFIX) == 0 ||
        strncmp(name, NX_ASIDE_PREFIX, strlen(NX_ASIDE_PREFIX)) == 0 ||
        (nx_name_number(name, NX_ROOT_PREFIX, &n) == 0 && strcmp(name, roots->keep) != 0)) {
        return nx_remove_tree(roots->fd, name);
    }
    return 0;
}

/* `keep`: what `current` names, or "" for none. */
static int remove_leftovers(const struct nx_data_opening *o, const char *keep)
{
    struct roots roots = {.fd = o->fd, .keep = keep};
    int rc = nx_each_name(o->fd, remove_leftover, &roots);

    return rc < 0 ? nx_data_failed_doing(o, rc, "removing leftovers of an earlier run") : 0;
}

/* ---- nexus.id ---- */

static int make_id(struct nx_data_opening *o)
{
    char text[NX_UUID_TEXT + 64];
    uuid_t uuid;
    int length;
    int rc;

    uuid_generate_random(uuid);
    uuid_unparse_lower(uuid, o->dir.node_id);
    length =
        snprintf(text, sizeof text, "node_id = %s\nformat = %d\n", o->dir.node_id, NX_DATA_FORMAT);
    rc = nx_file_replace_at(o->fd, ID_NAME, text, (size_t)length, 0600);
    return rc < 0 ? nx_data_failed_doing(o, rc, "writing " ID_NAME) : 0;
}

static int parse_id(struct nx_data_opening *o, const char *text)
{
    char format[24];
    uint8_t uuid[16];
    uint64_t n;

    if (nx_line_take(&text, "node_id", o->dir.node_id, sizeof o->dir.node_id) < 0 ||
        nx_uuid_parse(o->dir.node_id, uuid) < 0 ||
        nx_line_take(&text, "format", format, sizeof format) < 0 ||
        nx_name_number(format, "", &n) < 0 || n == 0) {
        return nx_data_fail(o, -EBADMSG, "%s/" ID_NAME " is damaged" REMEDY_COPY, o->dir.path);
    }
    if (n > NX_DATA_FORMAT) {
        return nx_data_fail(o, -ENOTSUP,
                            "data directory %s has format %" PRIu64
                            ", this version of Nexus knows %d; start "
                            "it with the version that wrote it, or a later one",
                            o->dir.path, n, NX_DATA_FORMAT);
    }
    return *text == '\0'
               ? 0
               : nx_data_fail(o, -EBADMSG,
                              "%s/" ID_NAME " is damaged: text behind its format" REMEDY_COPY,
                              o->dir.path);
}

static int load_id(struct nx_data_opening *o)
{
    struct roots roots = {.fd = o->fd};
    char text[256];
    int rc = nx_file_read_text(o->fd, ID_NAME, text, sizeof text);

    if (rc == 0) {
        return parse_id(o, text);
    }
    if (rc == -E2BIG) {
        return nx_data_fail(o, -EBADMSG, "%s/" ID_NAME " is damaged: too long" REMEDY_COPY,
                            o->dir.path);
    }
    if (rc != -ENOENT) {
        return nx_data_failed_doing(o, rc, "reading " ID_NAME);
    }
    rc = nx_each_name(o->fd, find_holding, &roots);
    if (rc < 0) {
        return nx_data_failed_doing(o, rc, "listing it");
    }
    if (rc > 0 || faccessat(o->fd, NX_CURRENT_NAME, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
        return nx_data_fail(o, -EBADMSG,
                            "%s/" ID_NAME " is missing, though %s is there" REMEDY_COPY,
                            o->dir.path, rc > 0 ? roots.holding : NX_CURRENT_NAME);
    }
    return make_id(o);
}

/* ---- current and data-N ---- */

/* data-1, whole and synced, then `current`: before that, nothing of it counts. */
static int make_root(const struct nx_data_opening *o)
{
    static const struct nx_identity none;
    int fd;
    int rc = mkdirat(o->fd, FIRST_ROOT, 0700) == 0 ? 0 : -errno;

    if (rc < 0) {
        return nx_data_failed_doing(o, rc, "making " FIRST_ROOT);
    }
    fd = openat(o->fd, FIRST_ROOT, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return nx_data_failed_doing(o, -errno, "opening " FIRST_ROOT);
    }
    if (mkdirat(fd, "wal", 0700) != 0 || mkdirat(fd, "state", 0700) != 0) {
        rc = -errno;
    }
    rc = rc < 0 ? rc : nx_identity_write(fd, &none);
    if (rc == 0 && (fsync(fd) != 0 || fsync(o->fd) != 0)) {
        rc = -errno;
    }
    close(fd);
    if (rc < 0) {
        return nx_data_failed_doing(o, rc, "making " FIRST_ROOT);
    }
    if (symlinkat(FIRST_ROOT, o->fd, NX_CURRENT_NAME NX_TEMP_SUFFIX) != 0 ||
        renameat(o->fd, NX_CURRENT_NAME NX_TEMP_SUFFIX, o->fd, NX_CURRENT_NAME) != 0 ||
        fsync(o->fd) != 0) {
        return nx_data_failed_doing(o, -errno, "making " NX_CURRENT_NAME);
    }
    return 0;
}

/* The first start, or the second after a first that was cut off. */
static int begin_root(const struct nx_data_opening *o)
{
    struct roots roots = {.fd = o->fd};
    int rc = nx_each_name(o->fd, find_holding, &roots);

    if (rc < 0) {
        return nx_data_failed_doing(o, rc, "listing it");
    }
    if (rc > 0) {
        return nx_data_fail(o, -EBADMSG,
                            "%s/" NX_CURRENT_NAME
                            " is missing, though %s holds data; nothing was changed. If "
                            "that is the one in use: ln -s %s %s/" NX_CURRENT_NAME,
                            o->dir.path, roots.holding, roots.holding, o->dir.path);
    }
    rc = remove_leftovers(o, "");
    return rc < 0 ? rc : make_root(o);
}

/* Where `current` points: a data-N beside it. 0; -ENOENT: there is none; or an error said. */
static int read_current(const struct nx_data_opening *o, char ret_name[NX_DATA_ROOT_SIZE])
{
    uint64_t number;
    ssize_t n = readlinkat(o->fd, NX_CURRENT_NAME, ret_name, NX_DATA_ROOT_SIZE);

    if (n < 0 && errno == ENOENT) {
        return -ENOENT;
    }
    if (n < 0 && errno != EINVAL) {
        return nx_data_failed_doing(o, -errno, "reading " NX_CURRENT_NAME);
    }
    if (n > 0 && n < NX_DATA_ROOT_SIZE) {
        ret_name[n] = '\0';
        if (nx_name_number(ret_name, NX_ROOT_PREFIX, &number) == 0) {
            return 0;
        }
    }
    return nx_data_fail(o, -EBADMSG,
                        "%s/" NX_CURRENT_NAME
                        " isn't a symbolic link to a data-<number> beside it; nothing was "
                        "changed. Make it one again (ln -sfn data-<number> %s/" NX_CURRENT_NAME ")",
                        o->dir.path, o->dir.path);
}

static int check_piece(const struct nx_data_opening *o, const char *root, const char *piece)
{
    struct stat st;

    if (fstatat(o->root_fd, piece, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode)) {
        return 0;
    }
    return nx_data_fail(o, -EBADMSG, "%s/%s/%s is missing, or no directory" REMEDY_COPY,
                        o->dir.path, root, piece);
}

static int load_identity(struct nx_data_opening *o, const char *root)
{
    int rc = nx_identity_read(o->root_fd, &o->dir.identity);

    if (rc == -ENOTSUP) {
        return nx_data_fail(
            o, rc, "%s/%s/identity was written by a later version of Nexus; start with that",
            o->dir.path, root);
    }
    if (rc == -ENOENT || rc == -EBADMSG) {
        return nx_data_fail(o, -EBADMSG, "%s/%s/identity is %s" REMEDY_COPY, o->dir.path, root,
                            rc == -ENOENT ? "missing" : "damaged");
    }
    return rc < 0 ? nx_data_failed_doing(o, rc, "reading identity") : 0;
}

static int load_root(struct nx_data_opening *o, const char *root)
{
    int rc;

    (void)snprintf(o->dir.root, sizeof o->dir.root, "%.*s/%s",
                   (int)(sizeof o->dir.root - NX_DATA_ROOT_SIZE - 1), o->dir.path, root);
    o->root_fd = openat(o->fd, root, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (o->root_fd < 0) {
        return nx_data_fail(o, -EBADMSG,
                            "%s/" NX_CURRENT_NAME
                            " points to %s, which can't be opened (%s)" REMEDY_COPY,
                            o->dir.path, root, nx_errno_text(errno));
    }
    rc = check_piece(o, root, "wal");
    rc = rc < 0 ? rc : check_piece(o, root, "state");
    rc = rc < 0 ? rc : load_identity(o, root);
    rc = rc < 0 ? rc : remove_leftovers(o, root);
    if (rc == 0) {
        (void)unlinkat(o->root_fd, "identity" NX_TEMP_SUFFIX, 0);
        (void)unlinkat(o->root_fd, "wal/durable" NX_TEMP_SUFFIX, 0);
    }
    return rc;
}

/* Names that were found may be page cache alone, where the start that made them was killed before it
 * synced their directory. */
static int sync_names(const struct nx_data_opening *o)
{
    if (fsync(o->root_fd) != 0 || fsync(o->fd) != 0) {
        return nx_data_failed_doing(o, -errno, "syncing it");
    }
    return 0;
}

static int load(struct nx_data_opening *o)
{
    char root[NX_DATA_ROOT_SIZE];
    int rc = load_id(o);

    rc = rc < 0 ? rc : read_current(o, root);
    if (rc == -ENOENT) {
        rc = begin_root(o);
        rc = rc < 0 ? rc : read_current(o, root);
    }
    rc = rc < 0 ? rc : load_root(o, root);
    return rc < 0 ? rc : sync_names(o);
}

int nx_data_dir_open(const char *path, struct nx_data_dir *ret_dir, char *error, size_t cap)
{
    struct nx_data_opening o = {.fd = -1, .root_fd = -1, .dir.lock_fd = -1, .cap = cap};
    int rc;

    o.error = error;
    rc = nx_data_dir_claim(&o, path);
    rc = rc < 0 ? rc : load(&o);
    if (o.fd >= 0) {
        close(o.fd);
    }
    if (o.root_fd >= 0) {
        close(o.root_fd);
    }
    if (rc < 0) {
        nx_data_dir_close(&o.dir);
        return rc;
    }
    *ret_dir = o.dir;
    return 0;
}

void nx_data_dir_close(struct nx_data_dir *dir)
{
    if (dir->lock_fd >= 0) {
        close(dir->lock_fd);
    }
    dir->lock_fd = -1;
}
