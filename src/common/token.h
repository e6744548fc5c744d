/* Access tokens: shared secrets that clients (HTTP's bearer tokens, RFC 6750) and replicas (Hello) show. Each
 * stands in a file of its own, never on a command line, in the environment or in a log. */
#ifndef NX_COMMON_TOKEN_H
#define NX_COMMON_TOKEN_H

#include "common/bytes.h"

#include <stdbool.h>
#include <stddef.h>

#define NX_TOKEN_SIZE 257 /* bytes, NUL included */

/* Opens a secret's file for reading, if it can be trusted to be secret: a regular file of this process's user, or of
 * `user` ("": nobody else), that nobody else can read; or of root's that at most its group can (as PostgreSQL has it
 * for keys). A descriptor, the caller's; or a negative errno and in error (cap bytes) what is wrong and what to do. */
int nx_secret_open(const char *path, const char *user, char *error, size_t cap);

/* Reads a token file, which may be `user`'s: one line of 1 to 256 visible ASCII characters; a line end behind it is
 * ignored. 0; or a negative errno and in error (cap bytes) what is wrong with the file and what to do; *ret_token is ""
 * then. */
int nx_token_read(const char *path,
                  const char *user,
                  char ret_token[NX_TOKEN_SIZE],
                  char *error,
                  size_t cap);

/* Whether a stranger's text is the token, in a time that tells nothing about it. Nothing is "". */
bool nx_token_matches(const char token[NX_TOKEN_SIZE], struct nx_slice text);

#endif
