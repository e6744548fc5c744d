/* Writes archives. Runs in the snapshot process; owns its buffers, the file is its caller's. libarchive makes
 * the tar, libzstd compresses it here rather than in libarchive's filter: its window must be bounded, whatever
 * the level, since both ends hold it in memory. */
#include "snapshot/archive_write.h"

#include "common/crc32.h"
#include "storage/file_io.h"

#include <archive.h>
#include <archive_entry.h>
#include <zstd.h>

#include <errno.h>
#include <stdlib.h>

#define WINDOW_LOG 21 /* 2 MiB; what zstd takes up to level 8 or so */
#define JOB_SIZE   ((int)2 << 20)
#define OUT_SIZE   ((size_t)128 << 10)

struct nx_archive_writer {
    struct nx_archive_options options;
    struct archive *tar;
    ZSTD_CCtx *zstd;
    uint8_t *out;
    size_t filled; /* of out */
    struct nx_archive_totals totals;
    int error; /* the first one; libarchive knows only that there was one */
};

/* ---- the file ---- */

static int flush(struct nx_archive_writer *w)
{
    int rc;

    if (w->filled > w->options.max_size - w->totals.compressed_size) {
        return -EFBIG;
    }
    rc = nx_write_at(w->options.fd, w->out, w->filled, w->totals.compressed_size);
    if (rc < 0) {
        return rc;
    }
    w->totals.checksum = nx_crc32(w->totals.checksum, w->out, w->filled);
    w->totals.compressed_size += w->filled;
    w->filled = 0;
    return w->options.progress == NULL
               ? 0
               : w->options.progress(w->options.arg, w->totals.compressed_size);
}

static int compress(struct nx_archive_writer *w,
                    const void *bytes,
                    size_t length,
                    ZSTD_EndDirective how)
{
    ZSTD_inBuffer in = {.src = bytes, .size = length};
    size_t left;

    do {
        ZSTD_outBuffer out = {.dst = w->out, .size = OUT_SIZE, .pos = w->filled};

        left = ZSTD_compressStream2(w->zstd, &out, &in, how);
        w->filled = out.pos;
        if (ZSTD_isError(left)) {
            return -ENOMEM; /* the one thing that can go wrong in memory */
        }
        if (w->filled == OUT_SIZE || (how == ZSTD_e_end && left == 0)) {
            int rc = flush(w);

            if (rc < 0) {
                return rc;
            }
        }
    } while (in.pos < in.size || (how == ZSTD_e_end && left > 0));
    return 0;
}

/* ---- the tar ---- */

static la_ssize_t take_block(struct archive *tar, void *arg, const void *bytes, size_t length)
{
    struct nx_archive_writer *w = arg;

    (void)tar;
    if (w->error == 0) {
        w->error = compress(w, bytes, length, ZSTD_e_continue);
    }
    return w->error < 0 ? -1 : (la_ssize_t)length;
}

static int error_of(const struct nx_archive_writer *w)
{
    return w->error < 0 ? w->error : -ENOMEM;
}

static int open_tar(struct nx_archive_writer *w)
{
    w->tar = archive_write_new();
    if (w->tar == NULL || archive_write_set_format_ustar(w->tar) != ARCHIVE_OK ||
        archive_write_add_filter_none(w->tar) != ARCHIVE_OK ||
        archive_write_set_bytes_per_block(w->tar, 0) != ARCHIVE_OK || /* no copy of its own */
        archive_write_open(w->tar, w, NULL, take_block, NULL) != ARCHIVE_OK) {
        return -ENOMEM;
    }
    return 0;
}

static int open_zstd(struct nx_archive_writer *w)
{
    w->zstd = ZSTD_createCCtx();
    w->out = malloc(OUT_SIZE);
    if (w->zstd == NULL || w->out == NULL ||
        ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, w->options.level)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_windowLog, WINDOW_LOG)) ||
        ZSTD_isError(ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_checksumFlag, 1))) {
        return -ENOMEM;
    }
    /* One thread beside this one compresses, in jobs of contiguous memory: while it does, the next records are
     * read, and it is twice as fast as in zstd's own ring of a window. Without threads in the library all of it
     * happens here. */
    (void)ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_nbWorkers, 1);
    (void)ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_jobSize, JOB_SIZE);
    return 0;
}

int nx_archive_writer_open(const struct nx_archive_options *options,
                           struct nx_archive_writer **ret_writer)
{
    struct nx_archive_writer *w = calloc(1, sizeof *w);
    int rc;

    if (w == NULL) {
        return -ENOMEM;
    }
    w->options = *options;
    rc = open_zstd(w);
    rc = rc < 0 ? rc : open_tar(w);
    if (rc < 0) {
        nx_archive_writer_close(w);
        return rc;
    }
    *ret_writer = w;
    return 0;
}

void nx_archive_writer_level(struct nx_archive_writer *w, int level)
{
    if (level != w->options.level) {
        w->options.level = level;
        /* Without a thread of its own zstd stays at the first one. */
        (void)ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, level);
    }
}

int nx_archive_writer_add(struct nx_archive_writer *w,
                          const char *name,
                          const void *bytes,
                          size_t length,
                          uint64_t mtime_ms)
{
    struct archive_entry *entry = archive_entry_new();
    int rc = 0;

    if (entry == NULL) {
        return -ENOMEM;
    }
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0600);
    archive_entry_set_size(entry, (la_int64_t)length);
    archive_entry_set_mtime(entry, (time_t)(mtime_ms / 1000), 0);
    if (archive_write_header(w->tar, entry) != ARCHIVE_OK ||
        archive_write_data(w->tar, bytes, length) != (la_ssize_t)length ||
        archive_write_finish_entry(w->tar) != ARCHIVE_OK) {
        rc = error_of(w);
    }
    archive_entry_free(entry);
    w->totals.uncompressed_size += length;
    w->totals.files_count++;
    return rc;
}

int nx_archive_writer_finish(struct nx_archive_writer *w, struct nx_archive_totals *ret_totals)
{
    int rc = archive_write_close(w->tar) == ARCHIVE_OK ? 0 : error_of(w);

    rc = rc < 0 ? rc : compress(w, NULL, 0, ZSTD_e_end);
    if (rc == 0) {
        *ret_totals = w->totals;
    }
    return rc;
}

void nx_archive_writer_close(struct nx_archive_writer *w)
{
    if (w == NULL) {
        return;
    }
    if (w->tar != NULL) {
        w->error = w->error < 0 ? w->error : -ECANCELED; /* no end is written ... */
        (void)archive_write_close(w->tar); /* ... but free alone would leak after an error */
        (void)archive_write_free(w->tar);
    }
    (void)ZSTD_freeCCtx(w->zstd);
    free(w->out);
    free(w);
}
