/* LD_PRELOAD library that has chosen calls of a node fail, come short or wait, while it runs.
 *
 *     NX_FAULTS=/abs/file LD_PRELOAD=libfaults.so nexus-server ...
 *
 * The file has a rule a line; it may be missing, and is looked at again when another one has its name
 * (replace it by rename; tests/lib/disk_faults.py does):
 *
 *     CALL PATH ACTION [after=N] [count=N] [size=N] [in=WORD]
 *
 *     fdatasync /wal/ EIO after=3 count=1       the fourth fdatasync of a file of the log fails
 *     pwrite data.mdb EIO size=120 count=1      LMDB's meta page isn't written
 *     write /wal/ short count=1                 half of the bytes are written
 *     sync /wal/ lose count=1                   EIO, and what was written since the last sync is gone
 *     read /wal/ delay=5000 in=walsender        a disk that stands still for five seconds
 *     malloc - ENOMEM after=100 count=1 in=http
 *
 * CALL    the name of a function, without 64, or a class of them: write (write, writev, pwrite, pwritev), sync
 *         (fsync, fdatasync), read (read, pread), open (open, openat), rename, unlink, truncate (ftruncate),
 *         allocate (fallocate, posix_fallocate), malloc (calloc and realloc too), fork
 * PATH    a part of the file's absolute path, of either one for a rename; - is any
 * ACTION  the name of an error; short, or short=N bytes; delay=MS, behind which the call is made; lose, for syncs of
 *         regular files: EIO, and what this process wrote to the file since its last sync is gone, by whichever call it
 *         wrote. What stood there before stands there again; the file's size stays, zeros are behind its old end
 * after   so many calls that match pass first; count: then so many are touched (all, without it)
 * size    only calls of so many bytes;  in: only in processes whose title has this word
 *
 * Calls are counted over all processes of the node, in NX_FAULTS.count: for each rule two 8-byte numbers, the calls
 * that matched and those that were touched. The first rule that acts decides. What is read through mmap (all that
 * LMDB reads) or by stdio is not seen. Not to be used together with the recorder. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define RULES     32
#define WORD      128
#define FILE_SIZE 8192
#define COUNTERS  (RULES * sizeof(struct counter))

enum action {
    FAIL,
    SHORT,
    LOSE,
    DELAY
};

struct counter {
    _Atomic uint64_t matched;
    _Atomic uint64_t touched;
};

struct rule {
    char call[WORD];
    char path[WORD];
    char in[WORD];
    enum action action;
    int error;
    uint64_t amount; /* bytes of a short one (0: half), milliseconds of a delay */
    uint64_t after;
    uint64_t count; /* 0: all */
    uint64_t size;  /* 0: any */
};

/* What stood where a write went that a later sync may lose; the newest first. */
struct undo {
    struct undo *next;
    dev_t dev;
    ino_t inode;
    off_t at;
    size_t length;
    uint8_t old[];
};

static char control[PATH_MAX];
static char counters_path[PATH_MAX + 8];
static struct rule rules[RULES];
static unsigned rule_count;
static struct counter *counters;
static struct stat loaded; /* the file that the rules are from */
static struct undo *undos;

/* NOLINTBEGIN(readability-identifier-naming): the C library's own */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
/* NOLINTEND(readability-identifier-naming) */

/* ---- rules; nothing here may allocate memory ---- */

static int error_of(const char *name)
{
    static const struct {
        const char *name;
        int error;
    } known[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"ENOMEM", ENOMEM},
                 {"EMFILE", EMFILE}, {"ENFILE", ENFILE}, {"EACCES", EACCES}, {"EROFS", EROFS},
                 {"EINTR", EINTR},   {"EAGAIN", EAGAIN}};

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(name, known[i].name) == 0) {
            return known[i].error;
        }
    }
    abort(); /* a word that isn't understood: a test that fails nothing must not pass */
}

static void parse_action(struct rule *rule, const char *word)
{
    rule->action = FAIL;
    if (strncmp(word, "delay=", 6) == 0) {
        rule->action = DELAY;
        rule->amount = strtoull(word + 6, NULL, 10);
    } else if (strncmp(word, "short", 5) == 0) {
        rule->action = SHORT;
        rule->amount = word[5] == '=' ? strtoull(word + 6, NULL, 10) : 0;
    } else if (strcmp(word, "lose") == 0) {
        rule->action = LOSE;
        rule->error = EIO;
    } else {
        rule->error = error_of(word);
    }
}

static void parse_option(struct rule *rule, const char *word)
{
    const char *value = strchr(word, '=');

    if (strncmp(word, "after=", 6) == 0) {
        rule->after = strtoull(value + 1, NULL, 10);
    } else if (strncmp(word, "count=", 6) == 0) {
        rule->count = strtoull(value + 1, NULL, 10);
    } else if (strncmp(word, "size=", 5) == 0) {
        rule->size = strtoull(value + 1, NULL, 10);
    } else if (strncmp(word, "in=", 3) == 0) {
        (void)strncpy(rule->in, value + 1, WORD - 1);
    } else {
        abort();
    }
}

static void parse_line(char *line)
{
    struct rule *rule = &rules[rule_count];
    char *rest = NULL;
    char *words[8] = {NULL};
    unsigned n = 0;

    for (char *word = strtok_r(line, " \t", &rest); word != NULL && n < 8;
         word = strtok_r(NULL, " \t", &rest)) {
        words[n++] = word;
    }
    if (n == 0) {
        return;
    }
    if (n < 3 || rule_count == RULES) {
        abort();
    }
    memset(rule, 0, sizeof *rule);
    (void)strncpy(rule->call, words[0], WORD - 1);
    (void)strncpy(rule->path, words[1], WORD - 1);
    parse_action(rule, words[2]);
    for (unsigned i = 3; i < n; i++) {
        parse_option(rule, words[i]);
    }
    rule_count++;
}

static void map_counters(void)
{
    int fd = (int)syscall(SYS_openat, AT_FDCWD, counters_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    if (counters != NULL) {
        (void)munmap(counters, COUNTERS);
        counters = NULL;
    }
    if (fd < 0 || syscall(SYS_ftruncate, fd, COUNTERS) != 0) {
        abort();
    }
    void *memory = mmap(NULL, COUNTERS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    if (memory == MAP_FAILED) {
        abort();
    }
    counters = memory;
    (void)syscall(SYS_close, fd);
}

static void load(int fd)
{
    static char text[FILE_SIZE];
    char *rest = NULL;
    long n = syscall(SYS_read, fd, text, sizeof text - 1);

    text[n < 0 ? 0 : n] = '\0';
    map_counters();
    for (char *line = strtok_r(text, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest)) {
        parse_line(line);
    }
}

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static void look_again(void)
{
    struct stat info;
    int saved = errno;

    if (stat(control, &info) != 0) {
        rule_count = 0;
        loaded.st_ino = 0;
    } else if (!same_file(&info, &loaded)) {
        int fd = (int)syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC, 0);

        rule_count = 0;
        loaded = info;
        if (fd >= 0) {
            load(fd);
            (void)syscall(SYS_close, fd);
        }
    }
    errno = saved;
}

__attribute__((constructor)) static void start(void)
{
    const char *path = secure_getenv("NX_FAULTS");

    if (path != NULL) {
        (void)snprintf(control, sizeof control, "%s", path);
        (void)snprintf(counters_path, sizeof counters_path, "%s.count", control);
        look_again();
    }
}

static bool in_process(const char *word)
{
    char title[256];
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY | O_CLOEXEC, 0);
    long n = fd < 0 ? -1 : syscall(SYS_read, fd, title, sizeof title - 1);

    if (fd >= 0) {
        (void)syscall(SYS_close, fd);
    }
    title[n < 0 ? 0 : n] = '\0';
    return strncmp(title, "nexus: ", 7) == 0 && strstr(title, word) != NULL;
}

static bool is_called(const struct rule *rule, const char *call, const char *class)
{
    return strcmp(rule->call, call) == 0 || strcmp(rule->call, class) == 0;
}

/* Whether any rule is about such calls at all. */
static bool concerned(const char *call, const char *class)
{
    if (control[0] == '\0') {
        return false;
    }
    look_again();
    for (unsigned i = 0; i < rule_count; i++) {
        if (is_called(&rules[i], call, class)) {
            return true;
        }
    }
    return false;
}

static bool on_path(const struct rule *rule, const char *path, const char *other)
{
    return strcmp(rule->path, "-") == 0 || (path != NULL && strstr(path, rule->path) != NULL) ||
           (other != NULL && strstr(other, rule->path) != NULL);
}

/* The rule that acts on this call, counted; NULL: none. */
static const struct rule *acting(const char *call,
                                 const char *class,
                                 const char *path,
                                 const char *other,
                                 size_t size)
{
    for (unsigned i = 0; i < rule_count; i++) {
        const struct rule *rule = &rules[i];

        if (!is_called(rule, call, class) || !on_path(rule, path, other) ||
            (rule->size != 0 && rule->size != size) ||
            (rule->in[0] != '\0' && !in_process(rule->in))) {
            continue;
        }
        uint64_t matched = atomic_fetch_add(&counters[i].matched, 1);

        if (matched < rule->after || (rule->count != 0 && matched >= rule->after + rule->count)) {
            continue;
        }
        atomic_fetch_add(&counters[i].touched, 1);
        return rule;
    }
    return NULL;
}

static void wait_ms(uint64_t ms)
{
    struct timespec left = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000 * 1000000)};

    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

/* Does what is asked for. True: the call fails, with errno set. *size, if given, may become smaller. */
static bool touched(const struct rule *rule, size_t *size)
{
    if (rule == NULL) {
        return false;
    }
    switch (rule->action) {
    case DELAY:
        wait_ms(rule->amount);
        return false;
    case SHORT:
        if (size != NULL && *size > 1) {
            *size = rule->amount == 0 || rule->amount >= *size ? *size / 2 : (size_t)rule->amount;
        }
        return false;
    case FAIL:
    case LOSE:
        errno = rule->error;
        return true;
    }
    return false;
}

/* ---- paths ---- */

static const char *path_of_fd(int fd, char ret_target[PATH_MAX])
{
    char fd_link[64];
    int saved = errno;

    (void)snprintf(fd_link, sizeof fd_link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(fd_link, ret_target, PATH_MAX - 1);

    ret_target[n < 0 ? 0 : n] = '\0';
    errno = saved;
    return ret_target;
}

/* Symbolic links stay in what the name itself says. */
static const char *path_at(int dir_fd, const char *name, char ret_path[PATH_MAX])
{
    char dir[PATH_MAX] = "";

    if (name[0] == '/') {
        return name;
    }
    if (dir_fd != AT_FDCWD) {
        (void)path_of_fd(dir_fd, dir);
    } else if (getcwd(dir, sizeof dir) == NULL) {
        dir[0] = '\0';
    }
    if (snprintf(ret_path, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX) {
        abort();
    }
    return ret_path;
}

static bool fails_on_fd(const char *call, const char *class, int fd, size_t *size)
{
    char path[PATH_MAX];

    return concerned(call, class) &&
           touched(acting(call, class, path_of_fd(fd, path), NULL, size == NULL ? 0 : *size), size);
}

/* ---- writes that a sync may lose ---- */

static bool may_be_lost(int fd)
{
    char path[PATH_MAX];

    for (unsigned i = 0; i < rule_count; i++) {
        if (rules[i].action == LOSE && on_path(&rules[i], path_of_fd(fd, path), NULL)) {
            return true;
        }
    }
    return false;
}

/* The same file for that: one that is only written can't be read, and what appends writes nowhere else. */
static int reopen(int fd, int flags)
{
    char fd_link[64];

    (void)snprintf(fd_link, sizeof fd_link, "/proc/self/fd/%d", fd);
    int again = (int)syscall(SYS_openat, AT_FDCWD, fd_link, flags | O_CLOEXEC, 0);

    if (again < 0) {
        abort();
    }
    return again;
}

static void remember(int fd, off_t at, size_t length)
{
    struct stat info;

    if (rule_count == 0 || !may_be_lost(fd) || fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        return;
    }
    struct undo *undo = __libc_calloc(1, sizeof *undo + length);

    if (undo == NULL) {
        abort();
    }
    undo->dev = info.st_dev;
    undo->inode = info.st_ino;
    undo->at = at;
    undo->length = length;
    int source = reopen(fd, O_RDONLY);

    (void)syscall(SYS_pread64, source, undo->old, length, at);
    (void)syscall(SYS_close, source);
    undo->next = undos;
    undos = undo;
}

/* The same where the call itself doesn't say to which place it goes. */
static void remember_next(int fd, size_t length)
{
    struct stat info;
    int saved = errno;

    if (rule_count > 0 && may_be_lost(fd) && fstat(fd, &info) == 0) {
        bool appends = (syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND) != 0;

        remember(fd, appends ? info.st_size : (off_t)syscall(SYS_lseek, fd, 0L, SEEK_CUR), length);
    }
    errno = saved;
}

/* Of this file: behind a sync there is nothing more to be lost; behind one that failed, all is. */
static void settle(int fd, bool lost)
{
    struct stat info;

    if (undos == NULL || fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        return;
    }
    int target = lost ? reopen(fd, O_WRONLY) : -1;

    for (struct undo **at = &undos; *at != NULL;) {
        struct undo *undo = *at;

        if (undo->dev != info.st_dev || undo->inode != info.st_ino) {
            at = &undo->next;
            continue;
        }
        if (lost && syscall(SYS_pwrite64, target, undo->old, undo->length, undo->at) < 0) {
            abort();
        }
        *at = undo->next;
        free(undo);
    }
    if (lost) {
        (void)syscall(SYS_close, target);
    }
}

/* ---- writes ---- */

static ssize_t checked_pwrite(int fd, const void *buf, size_t n, off_t at)
{
    if (fails_on_fd("pwrite", "write", fd, &n)) {
        return -1;
    }
    remember(fd, at, n);
    return syscall(SYS_pwrite64, fd, buf, n, at);
}

ssize_t pwrite(int fd, const void *buf, size_t n, off_t at)
{
    return checked_pwrite(fd, buf, n, at);
}

ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t at)
{
    return checked_pwrite(fd, buf, n, at);
}

ssize_t write(int fd, const void *buf, size_t n)
{
    if (fails_on_fd("write", "write", fd, &n)) {
        return -1;
    }
    remember_next(fd, n);
    return syscall(SYS_write, fd, buf, n);
}

static size_t length_of(const struct iovec *iov, int count)
{
    size_t length = 0;

    for (int i = 0; i < count; i++) {
        length += iov[i].iov_len;
    }
    return length;
}

/* Writes the first `left` bytes, in as many calls as it takes: a short write is one all the same. */
static ssize_t write_part(int fd, const struct iovec *iov, size_t left, off_t at)
{
    ssize_t done = 0;

    for (int i = 0; left > 0; i++) {
        size_t n = iov[i].iov_len < left ? iov[i].iov_len : left;
        ssize_t written = at < 0 ? syscall(SYS_write, fd, iov[i].iov_base, n)
                                 : syscall(SYS_pwrite64, fd, iov[i].iov_base, n, at + done);

        if (written < 0) {
            return done > 0 ? done : written;
        }
        done += written;
        left -= n;
    }
    return done;
}

static ssize_t checked_pwritev(int fd, const struct iovec *iov, int count, off_t at)
{
    size_t whole = length_of(iov, count);
    size_t n = whole;

    if (fails_on_fd("pwritev", "write", fd, &n)) {
        return -1;
    }
    remember(fd, at, n);
    return n < whole ? write_part(fd, iov, n, at)
                     : syscall(SYS_pwritev, fd, iov, (long)count, at, 0L);
}

ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t at)
{
    return checked_pwritev(fd, iov, count, at);
}

ssize_t pwritev64(int fd, const struct iovec *iov, int count, off64_t at)
{
    return checked_pwritev(fd, iov, count, at);
}

ssize_t writev(int fd, const struct iovec *iov, int count)
{
    size_t whole = length_of(iov, count);
    size_t n = whole;

    if (fails_on_fd("writev", "write", fd, &n)) {
        return -1;
    }
    remember_next(fd, n);
    return n < whole ? write_part(fd, iov, n, -1) : syscall(SYS_writev, fd, iov, (long)count);
}

/* ---- syncs ---- */

static int checked_sync(const char *call, long number, int fd)
{
    char path[PATH_MAX];
    const struct rule *rule =
        concerned(call, "sync") ? acting(call, "sync", path_of_fd(fd, path), NULL, 0) : NULL;

    if (touched(rule, NULL)) {
        if (rule != NULL && rule->action == LOSE) {
            settle(fd, true);
            errno = EIO;
        }
        return -1;
    }
    int rc = (int)syscall(number, fd);

    if (rc == 0) {
        settle(fd, false);
    }
    return rc;
}

int fsync(int fd)
{
    return checked_sync("fsync", SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return checked_sync("fdatasync", SYS_fdatasync, fd);
}

/* ---- reads; the second names are what a hardened build calls ---- */

static ssize_t checked_pread(int fd, void *buf, size_t n, off_t at)
{
    return fails_on_fd("pread", "read", fd, &n) ? -1 : syscall(SYS_pread64, fd, buf, n, at);
}

ssize_t pread(int fd, void *buf, size_t n, off_t at)
{
    return checked_pread(fd, buf, n, at);
}

ssize_t pread64(int fd, void *buf, size_t n, off64_t at)
{
    return checked_pread(fd, buf, n, at);
}

ssize_t read(int fd, void *buf, size_t n)
{
    return fails_on_fd("read", "read", fd, &n) ? -1 : syscall(SYS_read, fd, buf, n);
}

static void fits(size_t n, size_t room)
{
    if (n > room) {
        abort();
    }
}

/* NOLINTBEGIN(readability-identifier-naming): the C library's own */
ssize_t __read_chk(int fd, void *buf, size_t n, size_t room);
ssize_t __pread_chk(int fd, void *buf, size_t n, off_t at, size_t room);
ssize_t __pread64_chk(int fd, void *buf, size_t n, off64_t at, size_t room);

ssize_t __read_chk(int fd, void *buf, size_t n, size_t room)
{
    fits(n, room);
    return read(fd, buf, n);
}

ssize_t __pread_chk(int fd, void *buf, size_t n, off_t at, size_t room)
{
    fits(n, room);
    return checked_pread(fd, buf, n, at);
}

ssize_t __pread64_chk(int fd, void *buf, size_t n, off64_t at, size_t room)
{
    fits(n, room);
    return checked_pread(fd, buf, n, at);
}
/* NOLINTEND(readability-identifier-naming) */

/* ---- names ---- */

static int checked_open(int dir_fd, const char *name, int flags, mode_t mode)
{
    char path[PATH_MAX];

    if (concerned("open", "open") &&
        touched(acting("open", "open", path_at(dir_fd, name, path), NULL, 0), NULL)) {
        return -1;
    }
    return (int)syscall(SYS_openat, dir_fd, name, flags, mode);
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
    return checked_open(dir, name, flags, mode)

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

/* NOLINTBEGIN(readability-identifier-naming): the C library's own */
int __open_2(const char *name, int flags);
int __open64_2(const char *name, int flags);
int __openat_2(int dir_fd, const char *name, int flags);
int __openat64_2(int dir_fd, const char *name, int flags);

int __open_2(const char *name, int flags)
{
    return checked_open(AT_FDCWD, name, flags, 0);
}

int __open64_2(const char *name, int flags)
{
    return checked_open(AT_FDCWD, name, flags, 0);
}

int __openat_2(int dir_fd, const char *name, int flags)
{
    return checked_open(dir_fd, name, flags, 0);
}

int __openat64_2(int dir_fd, const char *name, int flags)
{
    return checked_open(dir_fd, name, flags, 0);
}
/* NOLINTEND(readability-identifier-naming) */

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    char old[PATH_MAX];
    char new[PATH_MAX];

    if (concerned("rename", "rename") &&
        touched(
            acting("rename", "rename", path_at(from_dir, from, old), path_at(to_dir, to, new), 0),
            NULL)) {
        return -1;
    }
    return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    return renameat2(from_dir, from, to_dir, to, 0);
}

int rename(const char *from, const char *to)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlinkat(int dir_fd, const char *name, int flags)
{
    char path[PATH_MAX];

    if (concerned("unlink", "unlink") &&
        touched(acting("unlink", "unlink", path_at(dir_fd, name, path), NULL, 0), NULL)) {
        return -1;
    }
    return (int)syscall(SYS_unlinkat, dir_fd, name, flags);
}

int unlink(const char *name)
{
    return unlinkat(AT_FDCWD, name, 0);
}

/* ---- sizes ---- */

int ftruncate(int fd, off_t length)
{
    return fails_on_fd("ftruncate", "truncate", fd, NULL) ? -1
                                                          : (int)syscall(SYS_ftruncate, fd, length);
}

int ftruncate64(int fd, off64_t length)
{
    return ftruncate(fd, length);
}

int fallocate(int fd, int mode, off_t at, off_t length)
{
    return fails_on_fd("fallocate", "allocate", fd, NULL)
               ? -1
               : (int)syscall(SYS_fallocate, fd, mode, at, length);
}

int fallocate64(int fd, int mode, off64_t at, off64_t length)
{
    return fallocate(fd, mode, at, length);
}

int posix_fallocate(int fd, off_t at, off_t length)
{
    int saved = errno;
    int rc = fails_on_fd("posix_fallocate", "allocate", fd, NULL) ||
                     syscall(SYS_fallocate, fd, 0, at, length) != 0
                 ? errno
                 : 0;

    errno = saved;
    return rc;
}

int posix_fallocate64(int fd, off64_t at, off64_t length)
{
    return posix_fallocate(fd, at, length);
}

/* ---- processes ---- */

pid_t fork(void)
{
    static pid_t (*real)(void);

    if (real == NULL) {
        void *found = dlsym(RTLD_NEXT, "fork");

        memcpy(&real, &found, sizeof real);
    }
    if (concerned("fork", "fork") && touched(acting("fork", "fork", NULL, NULL, 0), NULL)) {
        return -1;
    }
    return real();
}

/* ---- memory: by the rules that were there when the process last did something else ---- */

static bool memory_fails(size_t size)
{
    bool asked = false;

    for (unsigned i = 0; i < rule_count && !asked; i++) {
        asked = strcmp(rules[i].call, "malloc") == 0;
    }
    return asked && touched(acting("malloc", "malloc", NULL, NULL, size), NULL);
}

void *malloc(size_t size)
{
    return memory_fails(size) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
    return memory_fails(size) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *old, size_t size)
{
    return memory_fails(size) ? NULL : __libc_realloc(old, size);
}
