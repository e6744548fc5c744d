/* Reads archives. Runs in the restore process and in `nexus-server --restore`. libzstd decompresses here, with
 * a bounded window, one frame and nothing behind it; libarchive reads the tar, and what it would make of
 * extended headers is refused: each header must stand exactly where the file before it ends, and a header
 * of any other kind than a plain file's moves the next one. */
#include "snapshot/archive_read.h"

#include <archive.h>
#include <archive_entry.h>
#include <zstd.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW_LOG_MAX 27 /* 128 MiB: what zstd's own highest levels take */
#define IN_SIZE        ((size_t)128 << 10)
#define OUT_SIZE       ((size_t)128 << 10)
#define BLOCK          ((uint64_t)512) /* of a tar */
#define PADDING_MOST \
    ((uint64_t)64 << 10) /* zeros at a tar's end; the record size of most is 10 KiB */

struct nx_archive_reader {
    struct nx_archive_source source;
    struct archive *tar;
    ZSTD_DStream *zstd;
    uint8_t *in;
    ZSTD_inBuffer input;
    bool frame_over;
    uint8_t *out;
    uint64_t position;   /* bytes of the tar that came so far */
    uint64_t content;    /* position behind the last of them that isn't zero */
    uint64_t left;       /* bytes of the file that have not been read */
    uint64_t next_place; /* where the next header must stand */
    int error;           /* the first one */
    char why[256];
};

static int refuse(struct nx_archive_reader *r, const char *why)
{
    if (r->error == 0) {
        (void)snprintf(r->why, sizeof r->why, "%s", why);
        r->error = -EBADMSG;
    }
    return r->error;
}

/* ---- zstd ---- */

static int fill(struct nx_archive_reader *r)
{
    size_t n = 0;
    int rc = r->source.read(r->source.arg, r->in, IN_SIZE, &n);

    if (rc < 0) {
        r->error = r->error == 0 ? rc : r->error;
        return r->error;
    }
    r->input = (ZSTD_inBuffer){.src = r->in, .size = n};
    return n > 0 ? 0 : -ENOENT;
}

/* The next bytes of the tar into out; *ret_n is 0 at the end of the one frame. */
static int decompress(struct nx_archive_reader *r, size_t *ret_n)
{
    ZSTD_outBuffer out = {.dst = r->out, .size = OUT_SIZE};

    *ret_n = 0;
    while (out.pos == 0 && !r->frame_over) {
        int rc = r->input.pos < r->input.size ? 0 : fill(r);

        if (rc == -ENOENT) {
            return refuse(r, "it ends in the middle");
        }
        if (rc < 0) {
            return rc;
        }
        size_t left = ZSTD_decompressStream(r->zstd, &out, &r->input);

        if (ZSTD_isError(left)) {
            char why[160];

            (void)snprintf(why, sizeof why, "its zstd stream can't be read (%s)",
                           ZSTD_getErrorName(left));
            return refuse(r, why);
        }
        r->frame_over = left == 0;
    }
    *ret_n = out.pos;
    return 0;
}

static void note_content(struct nx_archive_reader *r, size_t n)
{
    for (size_t i = n; i > 0; i--) {
        if (r->out[i - 1] != 0) {
            r->content = r->position + i;
            break;
        }
    }
    r->position += n;
}

static la_ssize_t give_block(struct archive *tar, void *arg, const void **ret_bytes)
{
    struct nx_archive_reader *r = arg;
    size_t n = 0;
    int rc = r->error < 0 ? r->error : decompress(r, &n);

    (void)tar;
    note_content(r, n);
    *ret_bytes = r->out;
    return rc < 0 ? -1 : (la_ssize_t)n;
}

/* ---- tar ---- */

int nx_archive_reader_open(const struct nx_archive_source *source,
                           struct nx_archive_reader **ret_reader)
{
    struct nx_archive_reader *r = calloc(1, sizeof *r);

    if (r == NULL) {
        return -ENOMEM;
    }
    r->source = *source;
    r->zstd = ZSTD_createDStream();
    r->in = malloc(IN_SIZE);
    r->out = malloc(OUT_SIZE);
    r->tar = archive_read_new();
    if (r->zstd == NULL || r->in == NULL || r->out == NULL || r->tar == NULL ||
        ZSTD_isError(ZSTD_DCtx_setParameter(r->zstd, ZSTD_d_windowLogMax, WINDOW_LOG_MAX)) ||
        archive_read_support_format_tar(r->tar) != ARCHIVE_OK ||
        archive_read_support_filter_none(r->tar) != ARCHIVE_OK) {
        nx_archive_reader_close(r);
        return -ENOMEM;
    }
    *ret_reader = r;
    return 0;
}

void nx_archive_reader_close(struct nx_archive_reader *r)
{
    if (r == NULL) {
        return;
    }
    if (r->tar != NULL) {
        (void)archive_read_free(r->tar);
    }
    (void)ZSTD_freeDStream(r->zstd);
    free(r->in);
    free(r->out);
    free(r);
}

/* What libarchive says of the tar, unless it only passes on what went wrong below it. */
static int refuse_tar(struct nx_archive_reader *r)
{
    const char *said = archive_error_string(r->tar);
    char why[200];

    (void)snprintf(why, sizeof why, "its tar is malformed (%s)", said == NULL ? "?" : said);
    return refuse(r, why);
}

/* Everything behind the last file: a tar's end of two blocks of zeros, perhaps more of them as padding; then the
 * frame's end, and the file's. */
static int check_end(struct nx_archive_reader *r)
{
    size_t n = 1;

    while (n > 0) {
        int rc = decompress(r, &n);

        if (rc < 0) {
            return rc;
        }
        note_content(r, n);
        if (r->content > r->next_place || r->position > r->next_place + PADDING_MOST) {
            return refuse(r, "its tar has something behind its end");
        }
    }
    if (r->position < r->next_place + 2 * BLOCK) {
        return refuse(r, "its tar has no end");
    }
    if (r->input.pos < r->input.size || fill(r) == 0) {
        return refuse(r, "something stands behind its end");
    }
    return r->error < 0 ? r->error : -ENOENT;
}

static int check_entry(struct nx_archive_reader *r, struct archive_entry *entry)
{
    const char *name = archive_entry_pathname(entry);

    if (archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry) != NULL ||
        archive_entry_symlink(entry) != NULL) {
        return refuse(r, "it holds something other than regular files");
    }
    if ((archive_entry_perm(entry) & 07000) != 0) {
        return refuse(r, "it holds a file with a special mode");
    }
    if (name == NULL || strlen(name) >= NX_ARCHIVE_NAME_MAX) {
        return refuse(r, "it holds a file whose name no snapshot has");
    }
    if (archive_format(r->tar) != ARCHIVE_FORMAT_TAR_USTAR ||
        archive_read_header_position(r->tar) != (la_int64_t)r->next_place ||
        archive_entry_sparse_count(entry) > 0) {
        return refuse(
            r, "it holds extended headers, which no snapshot has (a snapshot is a plain ustar)");
    }
    if (!archive_entry_size_is_set(entry) || archive_entry_size(entry) < 0) {
        return refuse(r, "it holds a file without a size");
    }
    return 0;
}

/* libarchive opens at the first call, since that reads. */
static int next_header(struct nx_archive_reader *r, struct archive_entry **ret_entry)
{
    int rc = ARCHIVE_OK;

    if (r->position == 0) {
        rc = archive_read_open(r->tar, r, NULL, give_block, NULL);
    }
    return rc == ARCHIVE_OK ? archive_read_next_header(r->tar, ret_entry) : rc;
}

int nx_archive_reader_next(struct nx_archive_reader *r,
                           char ret_name[NX_ARCHIVE_NAME_MAX],
                           uint64_t *ret_size)
{
    struct archive_entry *entry = NULL;
    int rc = r->error < 0 ? ARCHIVE_FATAL : next_header(r, &entry);

    if (rc == ARCHIVE_EOF && r->error == 0) {
        return check_end(r);
    }
    if (rc != ARCHIVE_OK) {
        return refuse_tar(r);
    }
    rc = check_entry(r, entry);
    if (rc < 0) {
        return rc;
    }
    (void)snprintf(ret_name, NX_ARCHIVE_NAME_MAX, "%s", archive_entry_pathname(entry));
    *ret_size = (uint64_t)archive_entry_size(entry);
    r->left = *ret_size;
    r->next_place += BLOCK + (*ret_size + BLOCK - 1) / BLOCK * BLOCK;
    return 0;
}

int nx_archive_reader_read(struct nx_archive_reader *r, void *buf, size_t cap, size_t *ret_n)
{
    la_ssize_t n = r->error < 0 ? -1 : archive_read_data(r->tar, buf, cap);

    if (n < 0) {
        return refuse_tar(r);
    }
    if (n == 0 && cap > 0 && r->left > 0) {
        return refuse(r, "one of its files is shorter than its header says");
    }
    r->left -= (uint64_t)n;
    *ret_n = (size_t)n;
    return 0;
}

const char *nx_archive_reader_why(const struct nx_archive_reader *r)
{
    return r->why;
}
