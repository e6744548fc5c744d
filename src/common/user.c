/* See user.h. */
#include "common/user.h"

#include <errno.h>
#include <pwd.h>
#include <stddef.h>

#define RECORD_SIZE 4096 /* bytes of a line of the user database */

int nx_user_find(const char *name, struct nx_user *ret_user)
{
    char buffer[RECORD_SIZE];
    struct passwd record;
    struct passwd *found = NULL;
    int error = getpwnam_r(name, &record, buffer, sizeof buffer, &found);

    if (found == NULL) {
        return error == 0 ? -ENOENT : -error;
    }
    *ret_user = (struct nx_user){.uid = found->pw_uid, .gid = found->pw_gid};
    return 0;
}
