/* A tar under zstd, written to a file from front to back in constant memory. */
#ifndef NX_SNAPSHOT_ARCHIVE_WRITE_H
#define NX_SNAPSHOT_ARCHIVE_WRITE_H

#include <stddef.h>
#include <stdint.h>

struct nx_archive_writer;

struct nx_archive_options {
    int fd;            /* of the new file, borrowed */
    int level;         /* zstd's: 1 to 22, 0 (its default), or below 0 (faster) */
    uint64_t max_size; /* of the file, bytes */
    /* So many bytes of the file stand now. A negative return ends the writing with that error. */
    int (*progress)(void *arg, uint64_t written);
    void *arg;
};

/* What became of it. */
struct nx_archive_totals {
    uint64_t uncompressed_size; /* bytes in its files */
    uint64_t compressed_size;   /* bytes of the archive */
    uint64_t files_count;
    uint32_t checksum; /* CRC32 of the archive */
};

/* 0 or -ENOMEM. */
int nx_archive_writer_open(const struct nx_archive_options *options,
                           struct nx_archive_writer **ret_writer);

/* What follows, some MiB from now on, is compressed at this level. */
void nx_archive_writer_level(struct nx_archive_writer *writer, int level);

/* Adds a regular file, mode 0600. 0; -EFBIG: the archive would become larger than max_size; or another
 * negative error: of writing, or of progress. After an error only close is left. */
int nx_archive_writer_add(struct nx_archive_writer *writer,
                          const char *name,
                          const void *bytes,
                          size_t length,
                          uint64_t mtime_ms);

/* Ends the archive; it is not synced. 0 or an error as above. */
int nx_archive_writer_finish(struct nx_archive_writer *writer,
                             struct nx_archive_totals *ret_totals);

void nx_archive_writer_close(struct nx_archive_writer *writer); /* NULL is fine */

#endif
