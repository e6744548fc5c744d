/* What one small durable write costs on this disk, at the least: its blocks are there already, so that
 * the file system has nothing to note but the data. */
#include "limits.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BLOCK ((size_t)4096)
#define PIECE ((size_t)1 << 20)

/* A file without a name of that size, written and synced, open again with these flags. */
static int written_file(const char *dir, size_t size, int flags)
{
    char path[64];
    char *piece = NULL;
    int written;
    int fd;

    if (posix_memalign((void **)&piece, BLOCK, PIECE) != 0) {
        fail("memory");
    }
    for (size_t i = 0; i < PIECE; i++) {
        piece[i] = (char)(i * 7);
    }
    written = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (written < 0) {
        fail(dir);
    }
    for (size_t at = 0; at < size; at += PIECE) {
        if (pwrite(written, piece, PIECE, (off_t)at) != (ssize_t)PIECE) {
            fail("writing a file");
        }
    }
    free(piece);
    if (fsync(written) != 0) {
        fail("fsync");
    }
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", written);
    fd = open(path, O_RDWR | O_CLOEXEC | flags);
    if (fd < 0) {
        fail("opening the file again");
    }
    (void)close(written);
    return fd;
}

void measure_syncs(const char *dir, size_t count, int direct)
{
    int fd = written_file(dir, count * BLOCK, direct != 0 ? O_DIRECT | O_DSYNC : 0);
    struct samples samples;
    char *block = NULL;

    samples_open(&samples, count);
    if (posix_memalign((void **)&block, BLOCK, BLOCK) != 0) {
        fail("memory");
    }
    for (size_t i = 0; i < count; i++) {
        double began = now_us();

        for (size_t at = 0; at < BLOCK; at += sizeof(i)) {
            block[at] = (char)(i + at);
        }
        if (pwrite(fd, block, BLOCK, (off_t)(i * BLOCK)) != (ssize_t)BLOCK) {
            fail("pwrite");
        }
        if (direct == 0 && fdatasync(fd) != 0) {
            fail("fdatasync");
        }
        samples_add(&samples, now_us() - began);
    }
    samples_report(&samples, direct != 0 ? "direct" : "sync");
    free(block);
    close(fd);
}
