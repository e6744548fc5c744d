/* Runs in the checkpointer, after a full sync, and in the snapshot process; it reads nothing itself. */
#include "storage/warming.h"

#include "common/config.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE ((uint64_t)16 << 20)
#define CALL \
    ((uint64_t)128 << 10) /* the kernel fetches no more at a time, whatever it is asked for */
#define MEMORY_PART 4     /* more than a quarter of it is left where it is */

static uint64_t memory_size(void)
{
    long pages = sysconf(_SC_PHYS_PAGES);
    long size = sysconf(_SC_PAGESIZE);

    return pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : 0;
}

void nx_warming_begin(struct nx_warming *warming, const char *state_root)
{
    char path[NX_PATH_SIZE + 32];
    struct stat st;

    nx_warming_end(warming);
    (void)snprintf(path, sizeof path, "%s/state/data.mdb", state_root);
    warming->fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (warming->fd >= 0 && fstat(warming->fd, &st) == 0 &&
        (uint64_t)st.st_size <= memory_size() / MEMORY_PART) {
        warming->end = (uint64_t)st.st_size;
    } else {
        nx_warming_end(warming);
    }
}

bool nx_warming_step(struct nx_warming *warming)
{
    if (warming->fd < 0) {
        return false;
    }
    if (warming->at >= warming->end) {
        nx_warming_end(warming);
        return false;
    }
    for (uint64_t end = warming->at + PIECE; warming->at < end; warming->at += CALL) {
        (void)posix_fadvise(warming->fd, (off_t)warming->at, (off_t)CALL, POSIX_FADV_WILLNEED);
    }
    return true;
}

void nx_warming_end(struct nx_warming *warming)
{
    if (warming->fd >= 0) {
        close(warming->fd);
    }
    *warming = NX_WARMING_NONE;
}
