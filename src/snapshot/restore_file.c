/* A new node from a snapshot's file. Runs as `nexus-server --restore`, a process of its own without shared
 * memory. It fills DIR.restoring and renames that to DIR when all of it is right and on disk: a restore that
 * was cut off leaves no DIR that could be started, and the next one begins anew. A note in DIR.restoring tells
 * that it is one of ours, and may be removed. */
#include "common/restore_file.h"

#include "common/latch.h"
#include "snapshot/load.h"
#include "storage/data_dir.h"
#include "storage/file_io.h"
#include "storage/wal_note.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUFFIX   ".restoring"
#define NOTE     "restoring"
#define SHOW_MS  1000
#define TEXT_MAX 1024

struct file_restore {
    const struct nx_config *config;
    char target[NX_PATH_SIZE];
    char scratch[NX_PATH_SIZE + sizeof SUFFIX];
    char root[NX_PATH_SIZE];
    const char *file;
    int fd;
    uint64_t size; /* of the file; 0: not known */
    uint64_t read;
    uint64_t began_ms;
    uint64_t shown_ms;
    struct nx_data_dir dir;
};

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)fputs("restore: ", stderr);
    (void)vfprintf(stderr, format, args);
    (void)fputc('\n', stderr);
    va_end(args);
}

/* ---- the file ---- */

static void show(struct file_restore *r)
{
    uint64_t now = nx_now_ms();
    uint64_t ms = now - r->began_ms;

    if (now - r->shown_ms < SHOW_MS) {
        return;
    }
    r->shown_ms = now;
    if (r->size > 0) {
        say("%" PRIu64 " %% of %" PRIu64 " MB, %" PRIu64 " MB/s", r->read * 100 / r->size,
            r->size / 1000000, r->read / 1000 / ms);
    } else {
        say("%" PRIu64 " MB, %" PRIu64 " MB/s", r->read / 1000000, r->read / 1000 / ms);
    }
}

static int read_file(void *arg, void *buf, size_t cap, size_t *ret_n)
{
    struct file_restore *r = arg;
    ssize_t n;

    do {
        n = read(r->fd, buf, cap);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return -errno;
    }
    r->read += (uint64_t)n;
    *ret_n = (size_t)n;
    show(r);
    return 0;
}

static int open_file(struct file_restore *r)
{
    struct stat st;

    r->fd = strcmp(r->file, "-") == 0 ? STDIN_FILENO : open(r->file, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0 || fstat(r->fd, &st) != 0) {
        say("%s can't be read: %s", r->file, nx_errno_text(errno));
        return -errno;
    }
    if (S_ISDIR(st.st_mode)) {
        say("%s is a directory; name the snapshot's file (....tar.zst)", r->file);
        return -EISDIR;
    }
    r->size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    return 0;
}

/* ---- the directory ---- */

static int one_name(void *arg, const char *name)
{
    (void)arg;
    (void)name;
    return 1;
}

/* A volume can't be renamed to. */
static bool is_mount_point(int fd)
{
    struct stat own;
    struct stat parent;

    return fstat(fd, &own) == 0 && fstatat(fd, "..", &parent, 0) == 0 &&
           (own.st_dev != parent.st_dev || own.st_ino == parent.st_ino);
}

/* Nothing is ever restored over something. */
static int check_target(const struct file_restore *r)
{
    int fd = open(r->target, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int rc = 0;

    if (fd < 0 && errno == ENOENT) {
        return 0;
    }
    if (fd < 0) {
        say("%s can't be used: %s; name a directory that is new or empty", r->target,
            errno == ELOOP ? "it is a symbolic link" : nx_errno_text(errno));
        return -errno;
    }
    if (nx_each_name(fd, one_name, NULL) != 0) {
        say("%s is not empty; a snapshot is restored into a new directory", r->target);
        rc = -ENOTEMPTY;
    } else if (is_mount_point(fd)) {
        say("%s is a mount point; name a directory in it, such as %s/data", r->target, r->target);
        rc = -EBUSY;
    }
    close(fd);
    return rc;
}

/* What stands under the scratch name must be an earlier restore's. */
static int check_scratch(const struct file_restore *r, int fd)
{
    if (faccessat(fd, NOTE, F_OK, AT_SYMLINK_NOFOLLOW) == 0 ||
        nx_each_name(fd, one_name, NULL) == 0) {
        return 0;
    }
    say("%s is there, and no restore made it; move it away first", r->scratch);
    return -EEXIST;
}

static int mark_scratch(const struct file_restore *r)
{
    int fd = -1;
    int rc = mkdir(r->scratch, 0700) == 0 || errno == EEXIST ? 0 : -errno;

    if (rc == 0) {
        fd = open(r->scratch, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        rc = fd < 0 ? -errno : 0;
    }
    if (rc < 0) {
        say("%s can't be made: %s", r->scratch, nx_errno_text(rc));
        return rc;
    }
    rc = check_scratch(r, fd);
    if (rc == 0) {
        rc = nx_file_replace_at(fd, NOTE, "", 0, 0600);
        if (rc < 0) {
            say("%s can't be written: %s", r->scratch, nx_errno_text(rc));
        }
    }
    close(fd);
    return rc;
}

static int open_scratch(struct file_restore *r)
{
    char error[TEXT_MAX] = "";
    int rc = mark_scratch(r);

    if (rc < 0) {
        return rc;
    }
    rc = nx_data_dir_open(r->scratch, &r->dir, error, sizeof error);
    if (rc == -EBUSY) {
        say("another restore into %s is running", r->target);
        return rc;
    }
    if (rc < 0) {
        say("%s", error);
        return rc;
    }
    rc = nx_data_dir_prepare(r->scratch, r->dir.root, r->root);
    if (rc < 0) {
        say("%s can't be filled: %s", r->scratch, nx_errno_text(rc));
    }
    return rc;
}

static int load(struct file_restore *r, struct nx_manifest *ret_manifest)
{
    struct nx_load_options options = {
        .source = {.read = read_file, .arg = r},
        .root = r->root,
        .map_size = r->config->state.map_size,
        .id = "",
        .cluster_id = "",
        .quorum_rules = true,
    };
    char error[TEXT_MAX] = "";
    int rc = nx_load_archive(&options, ret_manifest, error, sizeof error);

    if (rc < 0) {
        say("%s: %s", r->file, error[0] != '\0' ? error : nx_errno_text(rc));
    }
    return rc;
}

/* Its first start as a master begins a new epoch. */
static int note_restored(const char *root)
{
    char path[NX_PATH_SIZE + sizeof "/wal"];
    int dir_fd;
    int rc;

    (void)snprintf(path, sizeof path, "%s/wal", root);
    dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0) {
        return -errno;
    }
    rc = nx_wal_note_make(dir_fd, NX_NOTE_RESTORED,
                          "a new epoch begins with this node's first start as a master\n");
    close(dir_fd);
    return rc;
}

/* Makes it the scratch directory's data, and that the target. */
static int commit(struct file_restore *r, const struct nx_manifest *manifest)
{
    struct nx_identity identity = r->dir.identity;
    char error[TEXT_MAX] = "";
    char note[sizeof r->scratch + sizeof NOTE];
    int rc = note_restored(r->root);

    memcpy(identity.cluster_id, manifest->cluster_id, sizeof identity.cluster_id);
    if (rc < 0) {
        say("%s can't be written: %s", r->root, nx_errno_text(rc));
        return rc;
    }
    rc = nx_data_dir_switch(&r->dir, strrchr(r->root, '/') + 1, &identity, error, sizeof error);
    if (rc < 0) {
        say("%s", error);
        return rc;
    }
    (void)nx_data_dir_tidy(r->scratch);
    (void)snprintf(note, sizeof note, "%s/" NOTE, r->scratch);
    if (unlink(note) != 0 || rename(r->scratch, r->target) != 0) {
        say("%s can't become %s: %s", r->scratch, r->target, nx_errno_text(errno));
        return -errno;
    }
    rc = nx_sync_parent(r->target);
    if (rc < 0) {
        say("the directory that holds %s can't be synced: %s", r->target, nx_errno_text(rc));
    }
    return rc;
}

static void say_done(const struct file_restore *r, const struct nx_manifest *manifest)
{
    say("%" PRIu64 " records at offset %" PRIu64 " of epoch %" PRIu64
        " (cluster %s) are in %s after "
        "%" PRIu64 " ms",
        manifest->records, manifest->position.offset, manifest->position.epoch,
        manifest->cluster_id, r->target, nx_now_ms() - r->began_ms);
    say("it is node %s; as a master it begins epoch %" PRIu64 ". Start it: nexus-ctl start -D %s",
        r->dir.node_id, manifest->position.epoch + 1, r->target);
}

static int run(struct file_restore *r)
{
    struct nx_manifest manifest;
    int rc = check_target(r);

    rc = rc < 0 ? rc : open_file(r);
    rc = rc < 0 ? rc : open_scratch(r);
    rc = rc < 0 ? rc : load(r, &manifest);
    rc = rc < 0 ? rc : commit(r, &manifest);
    if (rc == 0) {
        say_done(r, &manifest);
    } else if (r->dir.lock_fd >= 0) {
        (void)nx_remove_tree(AT_FDCWD, r->scratch);
    }
    nx_data_dir_close(&r->dir);
    return rc;
}

int nx_restore_file_main(const struct nx_config *config, const char *file)
{
    static struct file_restore r;

    r = (struct file_restore){.config = config, .file = file, .fd = -1, .dir = {.lock_fd = -1}};
    r.began_ms = nx_now_ms();
    r.shown_ms = r.began_ms;
    (void)umask(077);
    (void)snprintf(r.target, sizeof r.target, "%s", config->server.data_dir);
    for (size_t n = strlen(r.target); n > 1 && r.target[n - 1] == '/'; n--) {
        r.target[n - 1] = '\0';
    }
    (void)snprintf(r.scratch, sizeof r.scratch, "%s" SUFFIX, r.target);
    return run(&r) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
