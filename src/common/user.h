/* Users of this machine. */
#ifndef NX_COMMON_USER_H
#define NX_COMMON_USER_H

#include <sys/types.h>

struct nx_user {
    uid_t uid;
    gid_t gid;
};

/* Looks a user up by name. 0; -ENOENT: there is no such user; or another negative errno of looking. */
int nx_user_find(const char *name, struct nx_user *ret_user);

#endif
