/* Made, read and removed by the processes that wal_note.h names; owns nothing beyond a call. */
#include "storage/wal_note.h"

#include "storage/file_io.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int nx_wal_note_make(int dir_fd, const char *name, const char *text)
{
    return nx_file_replace_at(dir_fd, name, text, strlen(text), 0600);
}

bool nx_wal_note_stands(int dir_fd, const char *name)
{
    return faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int nx_wal_note_remove(int dir_fd, const char *name)
{
    if (unlinkat(dir_fd, name, 0) != 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    return fsync(dir_fd) == 0 ? 0 : -errno;
}
