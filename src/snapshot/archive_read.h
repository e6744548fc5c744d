/* A tar under zstd, read from front to back in constant memory, as it comes. What comes may be hostile: only
 * plain regular files are let through, and nothing is ever written under a name from the archive. */
#ifndef NX_SNAPSHOT_ARCHIVE_READ_H
#define NX_SNAPSHOT_ARCHIVE_READ_H

#include "snapshot/manifest.h"

#include <stddef.h>
#include <stdint.h>

/* Where the archive's bytes come from. */
struct nx_archive_source {
    /* Up to cap of the next bytes, at least one; waits for them. 0 and *ret_n, which is 0 at the end; or a
     * negative error, which the reader hands on. */
    int (*read)(void *arg, void *buf, size_t cap, size_t *ret_n);
    void *arg;
};

struct nx_archive_reader;

/* 0 or -ENOMEM. The source is borrowed. */
int nx_archive_reader_open(const struct nx_archive_source *source,
                           struct nx_archive_reader **ret_reader);
void nx_archive_reader_close(struct nx_archive_reader *reader); /* NULL is fine */

/* Goes on to the next file; what is left of the last one is passed. 0; -ENOENT: the archive is over, and
 * nothing but padding stood behind its last file; -EBADMSG: it is no good, nx_archive_reader_why says why;
 * or the source's error. */
int nx_archive_reader_next(struct nx_archive_reader *reader,
                           char ret_name[NX_ARCHIVE_NAME_MAX],
                           uint64_t *ret_size);

/* The next bytes of the file; *ret_n is 0 at its end. 0, or an error as above. */
int nx_archive_reader_read(struct nx_archive_reader *reader, void *buf, size_t cap, size_t *ret_n);

/* What is wrong with it, a phrase. */
const char *nx_archive_reader_why(const struct nx_archive_reader *reader);

#endif
