/* LD_PRELOAD recorder of what a node does to its data directory, for power-cut tests.
 *
 *     NX_RECORD_DIR=/abs/data NX_RECORD_LOG=/abs/log LD_PRELOAD=librecorder.so nexus-server ...
 *
 * Every write, truncation, sync and change of a directory entry below NX_RECORD_DIR becomes one record
 * in NX_RECORD_LOG, appended with a single write, so that the records of all processes stand in one
 * order, those of several nodes too that share a log: a write is recorded before it is made, a sync after
 * it has returned. A change of a name and its record are one step under a lock, and so is the sync of a
 * directory: of two changes one relies on the other, and one that a sync doesn't cover is promised by
 * nobody. tests/lib/power_cut.py
 * reads the log and rebuilds the directories that a power cut could have left. Writes through mmap are
 * not seen: LMDB's lock file alone is written so, and a reboot makes it anew. sync_file_range only hands
 * pages to the disk early: it promises nothing, and so leaves no record. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum record_type {
    RECORD_WRITE = 1,    /* a: position, payload */
    RECORD_ZERO = 2,     /* a: position, b: length; a write of zeros */
    RECORD_TRUNCATE = 3, /* a: length */
    RECORD_SYNC = 4,    /* of a file or a directory; b: length, of one write at a alone (O_DSYNC) */
    RECORD_CREATE = 5,  /* payload: path */
    RECORD_MKDIR = 6,   /* payload: path */
    RECORD_RENAME = 7,  /* payload: from \0 to */
    RECORD_UNLINK = 8,  /* payload: path */
    RECORD_SYMLINK = 9, /* payload: path \0 target */
};

struct record {
    uint32_t type;
    uint32_t length; /* of the payload */
    uint64_t inode;
    uint64_t a;
    uint64_t b;
};

static int log_fd = -1;
static char root[PATH_MAX];
static size_t root_length;
static off_t root_inode; /* each node has its own lock, in the log */

#define NEXT(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void start(void)
{
    const char *dir = secure_getenv("NX_RECORD_DIR");
    const char *log = secure_getenv("NX_RECORD_LOG");

    struct stat info;

    if (dir != NULL && log != NULL) {
        snprintf(root, sizeof root, "%s", dir);
        root_length = strlen(root);
        root_inode = stat(root, &info) == 0 ? (off_t)info.st_ino : 0;
        log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC,
                              0600);
    }
}

/* iovec has no const form; writev only reads. */
static void *discard_const(const void *p)
{
    void *q;

    memcpy(&q, &p, sizeof q);
    return q;
}

static void record(uint32_t type,
                   uint64_t inode,
                   uint64_t a,
                   uint64_t b,
                   const void *payload,
                   size_t length)
{
    struct record head = {type, (uint32_t)length, inode, a, b};
    struct iovec parts[2] = {{&head, sizeof head}, {discard_const(payload), length}};

    if (log_fd >= 0 && syscall(SYS_writev, log_fd, parts, 2L) < 0) {
        abort(); /* a hole in the record would prove nothing */
    }
}

/* Taken (F_WRLCK) and given back (F_UNLCK) around a change of a name. It is the kernel's: a process that is
 * killed lets go of it. The server has no threads. */
static void lock_names(short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = root_inode, .l_len = 1};
    int saved = errno;

    while (log_fd >= 0 && fcntl(log_fd, F_SETLKW, &lock) != 0) {
        if (errno != EINTR) {
            abort();
        }
    }
    errno = saved;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text);
    size_t m = strlen(end);

    return n >= m && strcmp(text + n - m, end) == 0;
}

/* What belongs to the durable state: not logs, locks, sockets or the pid file. */
static bool wanted(const char *path)
{
    static const char *const left_out[] = {".log", "lock.mdb", ".pid", ".lock", ".sock"};

    if (log_fd < 0 || strncmp(path, root, root_length) != 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++) {
        if (ends_with(path, left_out[i])) {
            return false;
        }
    }
    return true;
}

static bool path_of_fd(int fd, char ret_target[PATH_MAX])
{
    char fd_link[64];

    snprintf(fd_link, sizeof fd_link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(fd_link, ret_target, PATH_MAX - 1);

    if (n <= 0) {
        return false;
    }
    ret_target[n] = '\0';
    return true;
}

/* Absolute path of (dir_fd, name), symlinks of directories resolved. */
static bool absolute(int dir_fd, const char *name, char ret_path[PATH_MAX])
{
    char dir[PATH_MAX];
    char joined[PATH_MAX * 2];

    if (name[0] == '/') {
        snprintf(joined, sizeof joined, "%s", name);
    } else if (dir_fd == AT_FDCWD) {
        if (getcwd(dir, sizeof dir) == NULL) {
            return false;
        }
        snprintf(joined, sizeof joined, "%s/%s", dir, name);
    } else {
        if (!path_of_fd(dir_fd, dir)) {
            return false;
        }
        snprintf(joined, sizeof joined, "%s/%s", dir, name);
    }
    char *slash = strrchr(joined, '/');

    *slash = '\0';
    if (realpath(joined[0] == '\0' ? "/" : joined, dir) == NULL) {
        return false;
    }
    return snprintf(ret_path, PATH_MAX, "%s/%s", dir, slash + 1) < PATH_MAX;
}

static bool inode_of(int fd, uint64_t *ret_inode, bool *ret_dsync)
{
    char path[PATH_MAX];
    struct stat info;
    int saved = errno;
    bool found = log_fd >= 0 && path_of_fd(fd, path) && wanted(path) && fstat(fd, &info) == 0;

    if (found) {
        *ret_inode = (uint64_t)info.st_ino;
        *ret_dsync = (fcntl(fd, F_GETFL) & O_DSYNC) != 0;
    }
    errno = saved;
    return found;
}

static bool all_zero(const uint8_t *bytes, size_t length)
{
    return length > 0 && bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

static void record_write(uint64_t inode, uint64_t at, const void *bytes, size_t length)
{
    if (all_zero(bytes, length)) {
        record(RECORD_ZERO, inode, at, length, NULL, 0);
    } else {
        record(RECORD_WRITE, inode, at, 0, bytes, length);
    }
}

/* O_DSYNC covers what this one call wrote, and nothing that was written before it. */
static void record_dsync(uint64_t inode, off_t at, ssize_t written)
{
    if (written > 0) {
        record(RECORD_SYNC, inode, (uint64_t)at, (uint64_t)written, NULL, 0);
    }
}

/* ---- writes ---- */

static ssize_t traced_pwrite(int fd, const void *buf, size_t n, off_t at)
{
    uint64_t inode = 0;
    bool dsync = false;
    bool traced = inode_of(fd, &inode, &dsync);

    if (traced) {
        record_write(inode, (uint64_t)at, buf, n);
    }
    ssize_t written = syscall(SYS_pwrite64, fd, buf, n, at);

    if (traced && dsync) {
        record_dsync(inode, at, written);
    }
    return written;
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t at)
{
    return traced_pwrite(fd, buf, n, at);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t at)
{
    return traced_pwrite(fd, buf, n, at);
}

/* Where the next write goes that names no position. */
static off_t write_position(int fd)
{
    return lseek(fd, 0, (fcntl(fd, F_GETFL) & O_APPEND) != 0 ? SEEK_END : SEEK_CUR);
}

ssize_t write(int fd, const void *buf, size_t n)
{
    uint64_t inode = 0;
    bool dsync = false;
    bool traced = fd != log_fd && inode_of(fd, &inode, &dsync);
    off_t at = traced ? write_position(fd) : 0;

    if (traced) {
        record_write(inode, (uint64_t)at, buf, n);
    }
    ssize_t written = syscall(SYS_write, fd, buf, n);

    if (traced && dsync) {
        record_dsync(inode, at, written);
    }
    return written;
}

static void record_parts(uint64_t inode, off_t at, const struct iovec *iov, int count)
{
    for (int i = 0; i < count; i++) {
        record_write(inode, (uint64_t)at, iov[i].iov_base, iov[i].iov_len);
        at += (off_t)iov[i].iov_len;
    }
}

static size_t length_of(const struct iovec *iov, int count)
{
    size_t length = 0;

    for (int i = 0; i < count; i++) {
        length += iov[i].iov_len;
    }
    return length;
}

/* The parts of one call, made durable by it. */
static void record_parts_dsync(uint64_t inode,
                               off_t at,
                               const struct iovec *iov,
                               int count,
                               ssize_t written)
{
    if (written != (ssize_t)length_of(iov, count)) {
        return; /* cut short: which part of it is durable, nobody relies on */
    }
    for (int i = 0; i < count; i++) {
        record_dsync(inode, at, (ssize_t)iov[i].iov_len);
        at += (off_t)iov[i].iov_len;
    }
}

static ssize_t traced_pwritev(int fd, const struct iovec *iov, int count, off_t at)
{
    uint64_t inode = 0;
    bool dsync = false;
    bool traced = inode_of(fd, &inode, &dsync);

    if (traced) {
        record_parts(inode, at, iov, count);
    }
    ssize_t written = syscall(SYS_pwritev, fd, iov, count, at, 0L);

    if (traced && dsync) {
        record_parts_dsync(inode, at, iov, count, written);
    }
    return written;
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t at)
{
    return traced_pwritev(fd, iov, count, at);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int count, off64_t at)
{
    return traced_pwritev(fd, iov, count, at);
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
    uint64_t inode = 0;
    bool dsync = false;
    bool traced = fd != log_fd && inode_of(fd, &inode, &dsync);
    off_t at = traced ? write_position(fd) : 0;

    if (traced) {
        record_parts(inode, at, iov, count);
    }
    ssize_t written = syscall(SYS_writev, fd, iov, (long)count);

    if (traced && dsync) {
        record_parts_dsync(inode, at, iov, count, written);
    }
    return written;
}

static int traced_truncate(int fd, off_t length)
{
    uint64_t inode = 0;
    bool dsync = false;

    if (inode_of(fd, &inode, &dsync)) {
        record(RECORD_TRUNCATE, inode, (uint64_t)length, 0, NULL, 0);
    }
    return (int)syscall(SYS_ftruncate, fd, length);
}

int ftruncate(int fd, off_t length)
{
    return traced_truncate(fd, length);
}

int ftruncate64(int fd, off64_t length)
{
    return traced_truncate(fd, length);
}

/* A file that grows by it reads as zeros there, until the sync perhaps; where it doesn't grow, nothing
 * changes. Punching holes isn't known here. */
static int traced_fallocate(int fd, int mode, off_t at, off_t length)
{
    uint64_t inode = 0;
    bool dsync = false;
    bool traced = inode_of(fd, &inode, &dsync);
    int rc = (int)syscall(SYS_fallocate, fd, mode, at, length);
    struct stat info;

    if (traced && (mode & ~FALLOC_FL_KEEP_SIZE) != 0) {
        abort(); /* it would be missing from the record */
    }
    if (rc == 0 && traced && mode == 0 && fstat(fd, &info) == 0 && info.st_size == at + length) {
        record(RECORD_TRUNCATE, inode, (uint64_t)info.st_size, 0, NULL, 0);
    }
    return rc;
}

int fallocate(int fd, int mode, off_t at, off_t length)
{
    return traced_fallocate(fd, mode, at, length);
}

int fallocate64(int fd, int mode, off64_t at, off64_t length)
{
    return traced_fallocate(fd, mode, at, length);
}

int posix_fallocate(int fd, off_t at, off_t length)
{
    int saved = errno;
    int rc = traced_fallocate(fd, 0, at, length) == 0 ? 0 : errno;

    errno = saved;
    return rc;
}

int posix_fallocate64(int fd, off64_t at, off64_t length)
{
    return posix_fallocate(fd, at, length);
}

/* ---- syncs ---- */

static int traced_sync(int fd, long call)
{
    uint64_t inode = 0;
    bool dsync = false;
    struct stat info;
    bool directory = fstat(fd, &info) == 0 && S_ISDIR(info.st_mode);

    if (directory) {
        lock_names(F_WRLCK);
    }
    int rc = (int)syscall(call, fd);

    if (rc == 0 && inode_of(fd, &inode, &dsync)) {
        record(RECORD_SYNC, inode, 0, 0, NULL, 0);
    }
    if (directory) {
        lock_names(F_UNLCK);
    }
    return rc;
}

int fsync(int fd)
{
    return traced_sync(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return traced_sync(fd, SYS_fdatasync);
}

/* ---- names ---- */

static int traced_open(int dir_fd, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX];
    bool make =
        (flags & O_CREAT) != 0 && log_fd >= 0 && absolute(dir_fd, name, path) && wanted(path);
    if (make) {
        lock_names(F_WRLCK);
    }
    bool existed = make && access(path, F_OK) == 0;
    int fd = (int)syscall(SYS_openat, dir_fd, name, flags, mode);
    struct stat info;

    if (fd >= 0 && make && fstat(fd, &info) == 0) {
        if (!existed) {
            record(RECORD_CREATE, (uint64_t)info.st_ino, 0, 0, path, strlen(path));
        } else if ((flags & O_TRUNC) != 0) {
            record(RECORD_TRUNCATE, (uint64_t)info.st_ino, 0, 0, NULL, 0);
        }
    }
    if (make) {
        lock_names(F_UNLCK);
    }
    return fd;
}

static mode_t mode_of(int flags, va_list arguments)
{
    return (flags & (O_CREAT | __O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
}

#define OPEN_BODY(dir)                       \
    va_list arguments;                       \
    va_start(arguments, flags);              \
    mode_t mode = mode_of(flags, arguments); \
    va_end(arguments);                       \
    return traced_open(dir, name, flags, mode)

int open(const char *name, int flags, ...)
{
    OPEN_BODY(AT_FDCWD);
}

int open64(const char *name, int flags, ...)
{
    OPEN_BODY(AT_FDCWD);
}

int openat(int dir_fd, const char *name, int flags, ...)
{
    OPEN_BODY(dir_fd);
}

int openat64(int dir_fd, const char *name, int flags, ...)
{
    OPEN_BODY(dir_fd);
}

int mkdirat(int dir_fd, const char *name, mode_t mode)
{
    char path[PATH_MAX];
    struct stat info;

    lock_names(F_WRLCK);
    int rc = (int)syscall(SYS_mkdirat, dir_fd, name, mode);

    if (rc == 0 && log_fd >= 0 && absolute(dir_fd, name, path) && wanted(path) &&
        stat(path, &info) == 0) {
        record(RECORD_MKDIR, (uint64_t)info.st_ino, 0, 0, path, strlen(path));
    }
    lock_names(F_UNLCK);
    return rc;
}

int mkdir(const char *name, mode_t mode)
{
    return mkdirat(AT_FDCWD, name, mode);
}

/* Two texts with a NUL between them. */
static void record_pair(uint32_t type, const char *old, const char *other)
{
    char both[PATH_MAX * 2];
    size_t first = strlen(old) + 1;
    size_t second = strlen(other) + 1;

    memcpy(both, old, first);
    memcpy(both + first, other, second);
    record(type, 0, 0, 0, both, first + second - 1);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    char old[PATH_MAX];
    char other[PATH_MAX];
    bool traced = log_fd >= 0 && absolute(from_dir, from, old) && absolute(to_dir, to, other) &&
                  (wanted(old) || wanted(other));

    lock_names(F_WRLCK);
    int rc = (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);

    if (rc == 0 && traced) {
        record_pair(RECORD_RENAME, old, other);
    }
    lock_names(F_UNLCK);
    return rc;
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    return renameat2(from_dir, from, to_dir, to, 0);
}

int rename(const char *from, const char *to)
{
    return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int unlinkat(int dir_fd, const char *name, int flags)
{
    char path[PATH_MAX];
    bool traced = log_fd >= 0 && absolute(dir_fd, name, path) && wanted(path);

    lock_names(F_WRLCK);
    int rc = (int)syscall(SYS_unlinkat, dir_fd, name, flags);

    if (rc == 0 && traced) {
        record(RECORD_UNLINK, 0, 0, 0, path, strlen(path));
    }
    lock_names(F_UNLCK);
    return rc;
}

int unlink(const char *name)
{
    return unlinkat(AT_FDCWD, name, 0);
}

int symlinkat(const char *target, int dir_fd, const char *name)
{
    char path[PATH_MAX];

    lock_names(F_WRLCK);
    int rc = (int)syscall(SYS_symlinkat, target, dir_fd, name);

    if (rc == 0 && log_fd >= 0 && absolute(dir_fd, name, path) && wanted(path)) {
        record_pair(RECORD_SYMLINK, path, target);
    }
    lock_names(F_UNLCK);
    return rc;
}

int symlink(const char *target, const char *name)
{
    return symlinkat(target, AT_FDCWD, name);
}
