/* Runs in every process that has files of its own: the postmaster (data directory), the walwriter and
 * the checkpointer (segments), walsenders (reading). It owns no descriptor beyond a call. */
#include "storage/file_io.h"

#include "common/failpoint.h"
#include "storage/data_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define ZEROS_STEP    ((size_t)1 << 20)
#define CONTENT_STEP  ((size_t)64 << 10)
#define REMOVE_ROUNDS 3

int nx_read_some(int fd, void *buf, size_t n, uint64_t at, size_t *ret_n)
{
    uint8_t *p = buf;
    size_t done = 0;

    while (done < n) {
        ssize_t got = pread(fd, p + done, n - done, (off_t)(at + done));

        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return -errno;
        }
        if (got == 0) {
            break;
        }
        done += (size_t)got;
    }
    *ret_n = done;
    return 0;
}

int nx_read_at(int fd, void *buf, size_t n, uint64_t at)
{
    size_t got;
    int rc = nx_read_some(fd, buf, n, at, &got);

    if (rc < 0) {
        return rc;
    }
    return got < n ? -ENODATA : 0;
}

int nx_write_at(int fd, const void *buf, size_t n, uint64_t at)
{
    const uint8_t *p = buf;

    while (n > 0) {
        ssize_t done = pwrite(fd, p, n, (off_t)at);

        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            return done < 0 ? -errno : -EIO;
        }
        p += done;
        at += (uint64_t)done;
        n -= (size_t)done;
    }
    return 0;
}

int nx_write_zeros(int fd, uint64_t from, uint64_t to)
{
    uint8_t *zeros;
    int rc = 0;

    if (from >= to) {
        return 0;
    }
    zeros = calloc(1, ZEROS_STEP);
    if (zeros == NULL) {
        return -ENOMEM;
    }
    while (rc == 0 && from < to) {
        size_t step = to - from < ZEROS_STEP ? (size_t)(to - from) : ZEROS_STEP;

        rc = nx_write_at(fd, zeros, step, from);
        from += step;
    }
    free(zeros);
    return rc;
}

int nx_content_end(int fd, uint64_t from, uint64_t size, uint64_t *ret_end)
{
    uint8_t *step = malloc(CONTENT_STEP);
    uint64_t end = size;
    int rc = step == NULL ? -ENOMEM : 0;

    while (rc == 0 && end > from) {
        size_t n = end - from < CONTENT_STEP ? (size_t)(end - from) : CONTENT_STEP;

        rc = nx_read_at(fd, step, n, end - n);
        if (rc < 0) {
            break;
        }
        while (n > 0 && step[n - 1] == 0) {
            n--;
            end--;
        }
        if (n > 0) {
            break;
        }
    }
    free(step);
    if (rc == 0) {
        *ret_end = end > from ? end : from;
    }
    return rc;
}

int nx_each_name(int dir_fd, int (*each)(void *arg, const char *name), void *arg)
{
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry;
    int rc = 0;

    if (dir == NULL) {
        rc = -errno;
        if (fd >= 0) {
            close(fd);
        }
        return rc;
    }
    while (rc == 0) {
        errno = 0;
        entry = readdir(dir); /* NOLINT(concurrency-mt-unsafe): a stream of our own */
        if (entry == NULL) {
            rc = -errno;
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            rc = each(arg, entry->d_name);
        }
    }
    closedir(dir);
    return rc;
}

int nx_name_number(const char *name, const char *prefix, uint64_t *ret_n)
{
    size_t skip = strlen(prefix);
    uint64_t n = 0;

    if (strncmp(name, prefix, skip) != 0 || name[skip] == '\0' ||
        (name[skip] == '0' && name[skip + 1] != '\0')) {
        return -EINVAL;
    }
    for (const char *p = name + skip; *p != '\0'; p++) {
        if (*p < '0' || *p > '9' || n > (UINT64_MAX - 9) / 10) {
            return -EINVAL;
        }
        n = n * 10 + (uint64_t)(*p - '0');
    }
    *ret_n = n;
    return 0;
}

int nx_file_replace_at(int dir_fd, const char *name, const void *bytes, size_t n, unsigned mode)
{
    char temp[NAME_MAX + 1];
    int fd;
    int rc;

    if (strlen(name) + sizeof NX_TEMP_SUFFIX > sizeof temp) {
        return -ENAMETOOLONG;
    }
    (void)snprintf(temp, sizeof temp, "%s" NX_TEMP_SUFFIX, name);
    fd = openat(dir_fd, temp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);
    if (fd < 0) {
        return -errno;
    }
    rc = nx_write_at(fd, bytes, n, 0);
    if (rc == 0 && fdatasync(fd) != 0) {
        rc = -errno;
    }
    if (close(fd) != 0 && rc == 0) {
        rc = -errno;
    }
    rc = rc < 0 ? rc : NX_FAILPOINT(file_unrenamed);
    if (rc == 0 && renameat(dir_fd, temp, dir_fd, name) != 0) {
        rc = -errno;
    }
    if (rc < 0) {
        (void)unlinkat(dir_fd, temp, 0);
        return rc;
    }
    (void)NX_FAILPOINT(file_renamed);
    return fsync(dir_fd) == 0 ? 0 : -errno;
}

int nx_file_replace(const char *path, const void *bytes, size_t length, unsigned mode)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash == NULL ? path : slash + 1;
    char dir[NX_PATH_SIZE];
    int dir_fd;
    int rc;

    if ((size_t)(name - path) >= sizeof dir) {
        return -ENAMETOOLONG;
    }
    (void)snprintf(dir, sizeof dir, "%.*s", (int)(name - path), path);
    dir_fd = open(dir[0] == '\0' ? "." : dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0) {
        return -errno;
    }
    rc = nx_file_replace_at(dir_fd, name, bytes, length, mode);
    close(dir_fd);
    return rc;
}

int nx_file_read_text(int dir_fd, const char *name, char *ret_text, size_t cap)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    struct stat st;
    size_t n = 0;
    int rc;

    if (fd < 0) {
        return -errno;
    }
    rc = fstat(fd, &st) != 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
    rc = rc < 0 ? rc : nx_read_some(fd, ret_text, cap, 0, &n);
    close(fd);
    if (rc < 0) {
        return rc;
    }
    if (n == cap) {
        return -E2BIG;
    }
    ret_text[n] = '\0';
    return 0;
}

static int remove_inside(void *arg, const char *name)
{
    const int *dir_fd = arg;

    return nx_remove_tree(*dir_fd, name);
}

int nx_remove_tree(int dir_fd, const char *name)
{
    int fd;
    int rc = 0;

    if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT) {
        return 0;
    }
    if (errno != EISDIR && errno != EPERM) {
        return -errno;
    }
    fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    /* A listing may miss names while others are removed from under it. */
    for (int round = 0; round < REMOVE_ROUNDS; round++) {
        rc = nx_each_name(fd, remove_inside, &fd);
        if (rc == 0 && unlinkat(dir_fd, name, AT_REMOVEDIR) != 0) {
            rc = -errno;
        }
        if (rc != -ENOTEMPTY) {
            break;
        }
    }
    close(fd);
    return rc;
}

const char *nx_errno_text(int error)
{
    const char *text = strerrordesc_np(error < 0 ? -error : error);

    return text == NULL ? "unknown error" : text;
}

int nx_sync_parent(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *parent = slash == NULL   ? strdup(".")
                   : slash == path ? strdup("/")
                                   : strndup(path, (size_t)(slash - path));
    int fd = -1;
    int rc = 0;

    if (parent == NULL) {
        return -ENOMEM;
    }
    fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0) {
        rc = -errno;
    }
    if (fd >= 0) {
        close(fd);
    }
    free(parent);
    return rc;
}

#define PASS_STEP ((uint64_t)8 << 20)
#define PASS_BEHIND \
    ((uint64_t)32 << 20) /* kept: the disk is given time, and readers find it in memory */

void nx_pass(struct nx_passing *passing, int fd, uint64_t end)
{
    while (end - passing->flushed >= PASS_STEP) {
        (void)sync_file_range(fd, (off64_t)passing->flushed, (off64_t)PASS_STEP,
                              SYNC_FILE_RANGE_WRITE);
        passing->flushed += PASS_STEP;
    }
    while (passing->flushed - passing->dropped >= PASS_BEHIND + PASS_STEP) {
        (void)sync_file_range(fd, (off64_t)passing->dropped, (off64_t)PASS_STEP,
                              SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                  SYNC_FILE_RANGE_WAIT_AFTER);
        (void)posix_fadvise(fd, (off_t)passing->dropped, (off_t)PASS_STEP, POSIX_FADV_DONTNEED);
        passing->dropped += PASS_STEP;
    }
}

bool nx_disk_below(int fd, uint64_t least)
{
    struct statvfs fs;

    return fstatvfs(fd, &fs) == 0 && fs.f_blocks != 0 &&
           (uint64_t)fs.f_bavail * fs.f_frsize < least;
}
