/* Made by `nexus-server --restore`, read and removed by the walwriter. */
#include "storage/restored_note.h"

#include "common/config.h"
#include "storage/file_io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define NOTE "restored"

int nx_restored_note_make(const char *root)
{
    static const char text[] = "a new epoch begins with this node's first start as a master\n";
    char path[NX_PATH_SIZE + sizeof "/wal"];
    int dir_fd;
    int rc;

    (void)snprintf(path, sizeof path, "%s/wal", root);
    dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0) {
        return -errno;
    }
    rc = nx_file_replace_at(dir_fd, NOTE, text, sizeof text - 1, 0600);
    close(dir_fd);
    return rc;
}

bool nx_restored_note_stands(int dir_fd)
{
    return faccessat(dir_fd, NOTE, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int nx_restored_note_remove(int dir_fd)
{
    if (unlinkat(dir_fd, NOTE, 0) != 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    return fsync(dir_fd) == 0 ? 0 : -errno;
}
