/* wal.fsync = everysec or off: after a power cut, entries that were acknowledged and shipped may be
 * gone here, and new ones would take their numbers. A note of the boot id tells such a start, which
 * then begins a new epoch. Runs in the walwriter. */
#include "walwriter/walwriter.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NOTE         "boot"
#define BOOT_ID_SIZE 64

static int read_small(int dir_fd, const char *name, char ret_text[BOOT_ID_SIZE])
{
    int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return -errno;
    }
    ssize_t n = read(fd, ret_text, BOOT_ID_SIZE - 1);

    close(fd);
    if (n < 0) {
        return -EIO;
    }
    ret_text[n] = '\0';
    return 0;
}

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

static int read_boot_id(char ret_id[BOOT_ID_SIZE])
{
    return read_small(AT_FDCWD, "/proc/sys/kernel/random/boot_id", ret_id);
}

enum nx_boot_note nx_boot_look(int dir_fd)
{
    char now[BOOT_ID_SIZE];
    char then[BOOT_ID_SIZE];

    int rc = read_small(dir_fd, NOTE, then);

    if (rc == -ENOENT) {
        return NX_BOOT_CLEAN;
    }
    return rc == 0 && read_boot_id(now) == 0 && strcmp(now, then) == 0 ? NX_BOOT_SAME
                                                                       : NX_BOOT_LOST;
}

int nx_boot_begin(int dir_fd)
{
    char now[BOOT_ID_SIZE];
    int rc = read_boot_id(now);

    return rc < 0 ? rc : write_note(dir_fd, now);
}

void nx_boot_end(int dir_fd)
{
    if (unlinkat(dir_fd, NOTE, 0) == 0) {
        (void)fsync(dir_fd);
    }
}
