/* Tars for fuzz targets and seeds, in memory: the project's own writer compresses in a thread of its own, which costs
 * milliseconds an input. */
#ifndef NX_TESTS_FUZZ_TAR_H
#define NX_TESTS_FUZZ_TAR_H

#include "fuzz.h"

#include <archive.h>
#include <archive_entry.h>

struct fuzz_tar {
    struct archive *archive;
    uint8_t *bytes; /* the caller's buffer */
    size_t cap;
    size_t used;
};

static inline la_ssize_t fuzz_tar_take(struct archive *archive,
                                       void *arg,
                                       const void *bytes,
                                       size_t n)
{
    struct fuzz_tar *tar = arg;

    (void)archive;
    HOLDS(n <= tar->cap - tar->used);
    memcpy(tar->bytes + tar->used, bytes, n);
    tar->used += n;
    return (la_ssize_t)n;
}

/* tar->bytes and tar->cap are set: the room for it. */
static inline void fuzz_tar_begin(struct fuzz_tar *tar)
{
    tar->used = 0;
    tar->archive = archive_write_new();
    HOLDS(tar->archive != NULL);
    (void)archive_write_set_format_ustar(tar->archive);
    (void)archive_write_set_bytes_in_last_block(tar->archive, 1);
    HOLDS(archive_write_open(tar->archive, tar, NULL, fuzz_tar_take, NULL) == ARCHIVE_OK);
}

static inline void fuzz_tar_add(struct fuzz_tar *tar, const char *name, const void *bytes, size_t n)
{
    struct archive_entry *entry = archive_entry_new();

    HOLDS(entry != NULL);
    archive_entry_set_pathname(entry, name);
    archive_entry_set_size(entry, (la_int64_t)n);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0600);
    HOLDS(archive_write_header(tar->archive, entry) == ARCHIVE_OK);
    HOLDS(archive_write_data(tar->archive, bytes, n) == (la_ssize_t)n);
    archive_entry_free(entry);
}

/* Returns the length. */
static inline size_t fuzz_tar_end(struct fuzz_tar *tar)
{
    HOLDS(archive_write_close(tar->archive) == ARCHIVE_OK);
    archive_write_free(tar->archive);
    return tar->used;
}

#endif
