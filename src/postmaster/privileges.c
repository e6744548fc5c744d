/* Runs in the postmaster, before there are threads, children or data, and in each child as it begins. See privileges.h. */
#include "postmaster/privileges.h"

#include "common/log.h"
#include "common/user.h"
#include "storage/file_io.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define OOM_SCORE "-900" /* as PostgreSQL has it for its own */

/* What may stand in a data directory before its first start: a person's, and what nexus-ctl begins. */
static const char *const early[] = {"nexus.conf", "nexus.log"};

#define EARLY (sizeof early / sizeof *early)

static int is_no_early(void *arg, const char *name)
{
    (void)arg;
    for (size_t i = 0; i < EARLY; i++) {
        if (strcmp(name, early[i]) == 0) {
            return 0;
        }
    }
    return 1;
}

/* A directory that was used before stays whose it is: the server says so when it opens it. */
static int give_fresh(int fd, const struct nx_user *user)
{
    struct stat st;

    if (fstat(fd, &st) != 0) {
        return -errno;
    }
    if (st.st_uid != 0 || nx_each_name(fd, is_no_early, NULL) != 0) {
        return 0;
    }
    for (size_t i = 0; i < EARLY; i++) {
        if (fchownat(fd, early[i], user->uid, user->gid, AT_SYMLINK_NOFOLLOW) != 0 &&
            errno != ENOENT) {
            return -errno;
        }
    }
    return fchown(fd, user->uid, user->gid) == 0 ? 0 : -errno;
}

/* Through no link in its last part, be there a slash behind it: whoever can set one would have root give another directory away. */
static int open_data_dir(const char *path)
{
    char plain[NX_PATH_SIZE];
    size_t length = strlen(path);
    int fd;

    while (length > 1 && path[length - 1] == '/') {
        length--;
    }
    (void)snprintf(plain, sizeof plain, "%.*s", (int)length, path);
    fd = open(plain, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int give_data_dir(const struct nx_config *config,
                         const struct nx_user *user,
                         char *error,
                         size_t cap)
{
    const char *path = config->server.data_dir;
    int rc = mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : -errno;
    int fd = rc < 0 ? rc : open_data_dir(path);

    rc = fd < 0 ? fd : give_fresh(fd, user);
    if (fd >= 0) {
        close(fd);
    }
    if (rc == -ENOENT || rc == -ENOTDIR) {
        return 0; /* its opening says what is to be done */
    }
    if (rc < 0) {
        (void)snprintf(error, cap, "the data directory %s can't be made user %s's: %s", path,
                       config->server.user, nx_errno_text(rc));
    }
    return rc;
}

/* A file of root's that has something in it stays root's: it may be named by mistake. */
static int give_open_log(int fd,
                         const struct nx_config *config,
                         const struct nx_user *user,
                         char *error,
                         size_t cap)
{
    const char *path = config->server.log_file;
    struct stat st;
    int rc = fstat(fd, &st) != 0 ? -errno : 0;

    if (rc == 0 && (!S_ISREG(st.st_mode) || st.st_uid != 0)) {
        return 0;
    }
    if (rc == 0 && (st.st_size > 0 || st.st_nlink != 1)) {
        (void)snprintf(error, cap,
                       "the log file %s is root's and has something in it: give it to user %s "
                       "(chown %s %s), or move it away",
                       path, config->server.user, config->server.user, path);
        return -EPERM;
    }
    rc = rc < 0 || fchown(fd, user->uid, user->gid) == 0 ? rc : -errno;
    if (rc < 0) {
        (void)snprintf(error, cap, "the log file %s can't be made user %s's: %s", path,
                       config->server.user, nx_errno_text(rc));
    }
    return rc;
}

static int give_log_file(const struct nx_config *config,
                         const struct nx_user *user,
                         char *error,
                         size_t cap)
{
    const int flags =
        O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    const char *path = config->server.log_file;
    int fd = path[0] == '\0' ? -1 : open(path, flags, 0600);
    int rc;

    if (fd < 0) {
        return 0; /* none; or its opening says what is to be done */
    }
    rc = give_open_log(fd, config, user, error, cap);
    close(fd);
    return rc;
}

static int become(const char *name, const struct nx_user *user)
{
    if (initgroups(name, user->gid) != 0 || setresgid(user->gid, user->gid, user->gid) != 0 ||
        setresuid(user->uid, user->uid, user->uid) != 0) {
        return -errno;
    }
    /* Trust, and look: there must be no way back. */
    return user->uid != 0 && (setuid(0) == 0 || seteuid(0) == 0) ? -EPERM : 0;
}

/* What root could read at the start, a reload must be able to read. */
static int check_readable(const struct nx_config *config, const char *file, char *error, size_t cap)
{
    const char *paths[] = {file,
                           config->http.auth_token_file,
                           config->http.read_token_file,
                           config->replication.token_file,
                           config->http.tls_key_file,
                           config->replication.tls_key_file,
                           config->http.tls_cert_file,
                           config->replication.tls_cert_file,
                           config->replication.tls_ca_file};

    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        if (paths[i][0] != '\0' && access(paths[i], R_OK) != 0) {
            int rc = -errno;

            (void)snprintf(error, cap,
                           "user %s (server.user) can't read %s: %s; make it that user's",
                           config->server.user, paths[i], nx_errno_text(rc));
            return rc;
        }
    }
    return 0;
}

int nx_privileges_drop(const struct nx_config *config, const char *file, char *error, size_t cap)
{
    const char *name = config->server.user;
    struct nx_user user;
    int rc;

    if (name[0] == '\0') {
        return 0;
    }
    rc = nx_user_find(name, &user);
    if (rc < 0) {
        (void)snprintf(error, cap, "server.user = %s: %s (adduser --system %s)", name,
                       rc == -ENOENT ? "there is no such user" : nx_errno_text(rc), name);
        return rc;
    }
    if (user.uid == geteuid()) {
        return 0;
    }
    if (geteuid() != 0) {
        (void)snprintf(
            error, cap,
            "server.user = %s, but the server was started by uid %u: start it as root or as %s, or "
            "leave server.user empty",
            name, (unsigned)geteuid(), name);
        return -EPERM;
    }
    rc = give_data_dir(config, &user, error, cap);
    rc = rc < 0 ? rc : give_log_file(config, &user, error, cap);
    if (rc < 0) {
        return rc;
    }
    rc = become(name, &user);
    if (rc < 0) {
        (void)snprintf(error, cap, "the server can't become user %s: %s", name, nx_errno_text(rc));
        return rc;
    }
    return check_readable(config, file, error, cap);
}

static void set_oom_score(const char *score)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd >= 0) {
        if (write(fd, score, strlen(score)) < 0) {
            nx_debug("the out-of-memory score can't be set to %s: %s", score,
                     strerrordesc_np(errno));
        }
        close(fd);
    }
}

void nx_privileges_begin(void)
{
    set_oom_score(OOM_SCORE);
}

void nx_privileges_begin_child(const struct nx_config *config)
{
    (void)prctl(PR_SET_DUMPABLE, 1); /* else the score is root's to set */
    set_oom_score("0");
    nx_config_guard_secrets(config);
}

void nx_privileges_bar_more(void)
{
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}
