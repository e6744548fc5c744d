/* See paced_sync.h. The fdatasync that is defined here is that of every process of the server, the walwriter's for each group
 * included: outside begin and end, which only the checkpointer calls, it is a comparison and the call of libc's. LMDB
 * 0.9's mdb_env_sync0 is what it is made for. */
#include "storage/paced_sync.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PIECE ((off_t)1 << 20)
#define MOST  256 /* pieces; those of a larger file are larger */

static struct {
    int fd;
    struct nx_pause pause;
} paced = {.fd = -1};

void nx_paced_sync_begin(int fd, const struct nx_pause *pause)
{
    if (pause != NULL) {
        paced.fd = fd;
        paced.pause = *pause;
    }
}

void nx_paced_sync_end(void)
{
    paced.fd = -1;
}

/* Hands the dirty pages to the disk. Whatever goes wrong is the fdatasync's to find that follows. */
static void hand_over(int fd, const struct nx_pause *pause)
{
    struct stat file;
    off_t piece = PIECE;
    unsigned pieces;

    if (fstat(fd, &file) != 0) {
        return;
    }
    if (file.st_size > PIECE * MOST) {
        piece = (file.st_size + MOST - 1) / MOST;
    }
    pieces = (unsigned)((file.st_size + piece - 1) / piece);
    for (unsigned i = 0; i < pieces; i++) {
        if (i > 0) {
            pause->call(pause->arg, i, pieces);
        }
        (void)sync_file_range(fd, (off_t)i * piece, piece, SYNC_FILE_RANGE_WRITE);
    }
}

/* Behind this one: libc's, or that of a preloaded library; without any, the system's. */
static int next_fdatasync(int fd)
{
    static int (*next)(int);

    if (next == NULL) {
        void *found = dlsym(RTLD_NEXT, "fdatasync");

        memcpy(&next, &found, sizeof next); /* ISO C has no conversion of the one to the other */
    }
    return next != NULL ? next(fd) : (int)syscall(SYS_fdatasync, fd);
}

int nx_paced_sync(int fd, const struct nx_pause *pause)
{
    if (pause != NULL) {
        hand_over(fd, pause);
    }
    return next_fdatasync(fd) == 0 ? 0 : -errno;
}

/* Weak: a unit test that has one of its own comes first. */
__attribute__((weak)) int fdatasync(int fildes)
{
    if (fildes == paced.fd && fildes >= 0) {
        hand_over(fildes, &paced.pause);
    }
    return next_fdatasync(fildes);
}
