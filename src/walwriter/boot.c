/* wal.fsync = everysec or off: after a power cut, entries that were acknowledged and shipped may be
 * gone here, and new ones would take their numbers. A note of the boot id tells such a start, which
 * then begins a new epoch. Runs in the walwriter. */
#include "storage/file_io.h"
#include "walwriter/walwriter.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NOTE "boot"

static int write_note(int dir_fd, const char *boot_id)
{
    int fd = openat(dir_fd, NOTE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int rc = 0;

    if (fd < 0) {
        return -errno;
    }
    if (write(fd, boot_id, strlen(boot_id)) != (ssize_t)strlen(boot_id) || fdatasync(fd) != 0) {
        rc = -EIO;
    }
    close(fd);
    return rc < 0 || fsync(dir_fd) == 0 ? rc : -errno;
}

int nx_boot_id(char ret_id[NX_BOOT_ID_SIZE])
{
    int rc =
        nx_file_read_text(AT_FDCWD, "/proc/sys/kernel/random/boot_id", ret_id, NX_BOOT_ID_SIZE);

    if (rc == 0) {
        ret_id[strcspn(ret_id, "\n")] = '\0';
    }
    return rc;
}

enum nx_boot_note nx_boot_look(int dir_fd)
{
    char now[NX_BOOT_ID_SIZE];
    char then[NX_BOOT_ID_SIZE];

    int rc = nx_file_read_text(dir_fd, NOTE, then, sizeof then);

    if (rc == -ENOENT) {
        return NX_BOOT_CLEAN;
    }
    return rc == 0 && nx_boot_id(now) == 0 && strcmp(now, then) == 0 ? NX_BOOT_SAME : NX_BOOT_LOST;
}

int nx_boot_begin(int dir_fd)
{
    char now[NX_BOOT_ID_SIZE];
    int rc = nx_boot_id(now);

    return rc < 0 ? rc : write_note(dir_fd, now);
}

void nx_boot_end(int dir_fd)
{
    if (unlinkat(dir_fd, NOTE, 0) == 0) {
        (void)fsync(dir_fd);
    }
}
