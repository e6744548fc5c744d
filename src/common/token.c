/* See token.h. */
#include "common/token.h"

#include "common/user.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_of(uid_t uid, const char *name)
{
    struct nx_user user;

    return uid == 0 || uid == geteuid() ||
           (name[0] != '\0' && nx_user_find(name, &user) == 0 && uid == user.uid);
}

static int check_secret(int fd, const char *user, char *error, size_t cap)
{
    struct stat st;

    if (fstat(fd, &st) != 0) {
        int rc = -errno;

        (void)snprintf(error, cap, "it can't be looked at: %s", strerrordesc_np(-rc));
        return rc;
    }
    mode_t barred = st.st_uid == 0 ? 027 : 077;

    if (!S_ISREG(st.st_mode)) {
        (void)snprintf(error, cap, "it is no regular file");
        return -EPERM;
    }
    if (!is_of(st.st_uid, user)) {
        char who[32];

        (void)snprintf(who, sizeof who, "uid %u", (unsigned)geteuid());
        (void)snprintf(error, cap,
                       "it belongs to uid %u; it must be this server's user's (%.64s) or root's: "
                       "chown it",
                       (unsigned)st.st_uid, user[0] == '\0' ? who : user);
        return -EPERM;
    }
    if ((st.st_mode & barred) != 0) {
        (void)snprintf(error, cap, "others can read or change it (mode %04o): chmod 600 it",
                       (unsigned)st.st_mode & 07777);
        return -EPERM;
    }
    return 0;
}

int nx_secret_open(const char *path, const char *user, char *error, size_t cap)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    int rc = fd < 0 ? -errno : check_secret(fd, user, error, cap);

    if (fd < 0) {
        (void)snprintf(error, cap, "it can't be opened: %s%s%.64s%s", strerrordesc_np(-rc),
                       rc == -EACCES ? "; it must be this server's user's (chown it to " : "",
                       rc != -EACCES     ? ""
                       : user[0] == '\0' ? "that one"
                                         : user,
                       rc == -EACCES ? ")" : "");
        return rc;
    }
    if (rc < 0) {
        close(fd);
        return rc;
    }
    return fd;
}

/* Cuts one line end off; length 0: what stands there is no token. */
static size_t token_length(const char *text, size_t length)
{
    if (length > NX_TOKEN_SIZE + 1) {
        return 0;
    }
    if (length > 0 && text[length - 1] == '\n') {
        length--;
        length -= length > 0 && text[length - 1] == '\r' ? 1 : 0;
    }
    if (length >= NX_TOKEN_SIZE) {
        return 0;
    }
    for (size_t i = 0; i < length; i++) {
        if (text[i] <= ' ' || text[i] > '~') {
            return 0;
        }
    }
    return length;
}

static int read_open(int fd, char *token, char *error, size_t cap)
{
    char text[NX_TOKEN_SIZE + 2]; /* and CR, LF: what fills it is too long */
    ssize_t n = read(fd, text, sizeof text);
    size_t length;

    if (n < 0) {
        int rc = -errno;

        (void)snprintf(error, cap, "it can't be read: %s", strerrordesc_np(-rc));
        return rc;
    }
    length = token_length(text, (size_t)n);
    if (length == 0) {
        (void)snprintf(
            error, cap,
            "it must hold one line of 1 to %d visible ASCII characters without blanks, such as "
            "\"openssl rand -hex 32\" prints",
            NX_TOKEN_SIZE - 1);
    }
    memcpy(token, text, length);
    explicit_bzero(text, sizeof text);
    return length > 0 ? 0 : -EINVAL;
}

int nx_token_read(const char *path,
                  const char *user,
                  char ret_token[NX_TOKEN_SIZE],
                  char *error,
                  size_t cap)
{
    int fd = nx_secret_open(path, user, error, cap);
    int rc;

    memset(ret_token, 0, NX_TOKEN_SIZE);
    if (fd < 0) {
        return fd;
    }
    rc = read_open(fd, ret_token, error, cap);
    close(fd);
    return rc;
}

/* The comparison is always of the whole buffers; how long the text is, its sender knows. */
bool nx_token_matches(const char token[NX_TOKEN_SIZE], struct nx_slice text)
{
    char given[NX_TOKEN_SIZE] = "";
    size_t length = text.length < sizeof given ? text.length : 0;
    bool set = token[0] != '\0';

    if (length > 0) {
        memcpy(given, text.data, length);
    }
    bool same = CRYPTO_memcmp(token, given, sizeof given) == 0;
    bool whole = memchr(given, '\0', length == 0 ? 1 : length) == NULL;

    explicit_bzero(given, sizeof given);
    return same && set && whole;
}
