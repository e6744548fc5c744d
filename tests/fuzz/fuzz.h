/* What the fuzz targets share. A target is a file fuzz_<name>.c with LLVMFuzzerTestOneInput, which returns 0 and aborts
 * where a property doesn't hold; make_seeds.c writes inputs to begin with, by the project's own encoders. */
#ifndef NX_TESTS_FUZZ_H
#define NX_TESTS_FUZZ_H

#include "storage/file_io.h"

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A property. */
#define HOLDS(condition)                                                                         \
    do {                                                                                         \
        if (!(condition)) {                                                                      \
            (void)fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                             \
        }                                                                                        \
    } while (0)

/* A directory of this process, removed at exit: in NEXUS_FUZZ_SCRATCH, whose owner also removes what a process that was
 * ended leaves there, or else in memory where there is such a file system. */
static char fuzz_dir[96];

static inline void fuzz_remove_dir(void)
{
    (void)nx_remove_tree(AT_FDCWD, fuzz_dir);
}

static inline const char *fuzz_directory(void)
{
    if (fuzz_dir[0] == '\0') {
        const char *top =
            getenv("NEXUS_FUZZ_SCRATCH"); /* NOLINT(concurrency-mt-unsafe): one thread */

        if (top == NULL) {
            top = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
        }
        HOLDS(snprintf(fuzz_dir, sizeof fuzz_dir, "%s/nx-fuzz-XXXXXX", top) < (int)sizeof fuzz_dir);
        HOLDS(mkdtemp(fuzz_dir) != NULL);
        HOLDS(atexit(fuzz_remove_dir) == 0);
    }
    return fuzz_dir;
}

static inline void fuzz_write_file(const char *path, const void *bytes, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    HOLDS(fd >= 0);
    HOLDS(nx_write_at(fd, bytes, n, 0) == 0);
    close(fd);
}

/* A data-N in that directory as a full sync makes it to load into: wal/ and state/, both empty. Its path. */
static inline void fuzz_make_data(char *ret_path, size_t cap)
{
    static const char *const names[] = {"", "/wal", "/state"};
    char path[160];

    HOLDS(snprintf(ret_path, cap, "%s/data-2", fuzz_directory()) < (int)cap);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        HOLDS(snprintf(path, sizeof path, "%s%s", ret_path, names[i]) < (int)sizeof path);
        HOLDS(mkdir(path, 0700) == 0);
    }
}

#endif
