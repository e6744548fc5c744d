/* Runs once, in the postmaster, before there are threads, children or data. See privileges.h. */
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

static int one_more(void *arg, const char *name)
{
    (void)arg;
    (void)name;
    return 1;
}

/* An existing directory with something in it stays whose it is: the server says so when it opens it. */
static int give_data_dir(const struct nx_config *config,
                         const struct nx_user *user,
                         char *error,
                         size_t cap)
{
    const char *path = config->server.data_dir;
    struct stat st;
    int rc = mkdir(path, 0700) == 0 || errno == EEXIST ? 0 : -errno;
    int fd = -1;

    if (rc == 0) {
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        rc = fd < 0 ? -errno : 0;
    }
    if (rc == -ENOENT || rc == -ENOTDIR) {
        return 0; /* its opening says what is to be done */
    }
    if (rc == 0 && fstat(fd, &st) != 0) {
        rc = -errno;
    }
    if (rc == 0 && st.st_uid == 0 && nx_each_name(fd, one_more, NULL) == 0 &&
        fchown(fd, user->uid, user->gid) != 0) {
        rc = -errno;
    }
    if (rc < 0) {
        (void)snprintf(error, cap, "the data directory %s can't be made user %s's: %s", path,
                       config->server.user, nx_errno_text(rc));
    }
    if (fd >= 0) {
        close(fd);
    }
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
static int check_secrets(const struct nx_config *config, char *error, size_t cap)
{
    const char *paths[] = {config->http.auth_token_file,      config->http.read_token_file,
                           config->replication.token_file,    config->http.tls_key_file,
                           config->replication.tls_key_file,  config->http.tls_cert_file,
                           config->replication.tls_cert_file, config->replication.tls_ca_file};

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

int nx_privileges_drop(const struct nx_config *config, char *error, size_t cap)
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
    if (rc < 0) {
        return rc;
    }
    rc = become(name, &user);
    if (rc < 0) {
        (void)snprintf(error, cap, "the server can't become user %s: %s", name, nx_errno_text(rc));
        return rc;
    }
    return check_secrets(config, error, cap);
}

void nx_privileges_guard_memory(const struct nx_config *config)
{
    if (config->tokens.http_auth[0] != '\0' || config->tokens.replication[0] != '\0' ||
        config->http.tls_key_file[0] != '\0' || config->replication.tls_key_file[0] != '\0') {
        (void)prctl(PR_SET_DUMPABLE, 0);
    }
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
    nx_privileges_guard_memory(config);
}
