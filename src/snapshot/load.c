/* Loads a snapshot. Runs in the restore process and in `nexus-server --restore`. Records go into the new state
 * as they come, in constant memory; the manifest, which comes last, decides whether all of them were right.
 */
#include "snapshot/load.h"

#include "common/crc32.h"
#include "snapshot/record.h"
#include "storage/file_io.h"
#include "storage/state_load.h"
#include "storage/wal_segment.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FIRST_CAP     ((size_t)256 << 10)
#define DISK_LEAST    ((uint64_t)16 << 20) /* less is too little for a transaction */
#define MANIFEST_BASE ((size_t)8 << 10)    /* a manifest is at most that long, ... */
#define MANIFEST_EACH ((size_t)256)        /* ... and that for each file */

struct loading {
    const struct nx_load_options *options;
    struct nx_archive_reader *reader;
    struct nx_state_load *state;
    struct nx_manifest seen; /* what came; files in the archive's order */
    uint64_t highest_offset; /* of a record */
    uint8_t *buffer;
    size_t filled;
    size_t cap;
    char *epochs;
    size_t epochs_length;
    struct nx_epochs history; /* of epochs.json, once all was found right */
    char *error;
    size_t error_cap;
};

__attribute__((format(printf, 3, 4))) static int fail(const struct loading *l,
                                                      int rc,
                                                      const char *format,
                                                      ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(l->error, l->error_cap, format, args);
    va_end(args);
    return rc;
}

static int refuse(const struct loading *l, const char *why)
{
    return fail(l, -EBADMSG, "the snapshot is refused: %s", why);
}

/* An error of the reader. */
static int fail_read(const struct loading *l, int rc)
{
    return rc == -EBADMSG ? refuse(l, nx_archive_reader_why(l->reader)) : rc;
}

/* LMDB says EIO of a write that was cut short by a full disk. */
static bool disk_is_full(const char *root)
{
    int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool full = false;

    if (fd >= 0) {
        full = nx_disk_below(fd, DISK_LEAST);
        close(fd);
    }
    return full;
}

static int fail_state(const struct loading *l, int rc)
{
    if (rc == -EINVAL) {
        return refuse(l, "its keys are not in ascending order");
    }
    if (rc == -ENOSPC || (rc == -EIO && disk_is_full(l->options->root))) {
        return fail(
            l, -ENOSPC,
            "the snapshot's records don't fit: the disk of %s is full, or state.map_size (%" PRIu64
            " bytes) is too small; free some space, or raise it and restart",
            l->options->root, l->options->map_size);
    }
    return fail(l, rc, "the snapshot can't be loaded into %s/state: %s", l->options->root,
                nx_errno_text(rc));
}

/* ---- records ---- */

static int load_record(struct loading *l, const struct nx_record *record)
{
    int rc = nx_state_load_put(l->state, record);

    if (rc < 0) {
        return fail_state(l, rc);
    }
    if (record->offset > l->highest_offset) {
        l->highest_offset = record->offset;
    }
    l->seen.records++;
    return 0;
}

/* Loads the whole records in the buffer and moves the rest to its front. *ret_need: bytes of the one that is
 * not whole. */
static int load_records(struct loading *l, size_t *ret_need)
{
    size_t at = 0;
    int rc = 0;

    while (rc == 0) {
        struct nx_record record;

        rc = nx_record_decode(l->buffer + at, l->filled - at, &record, ret_need);
        if (rc == 0) {
            at += *ret_need;
            rc = load_record(l, &record);
        } else if (rc == -EBADMSG) {
            return refuse(l, "it holds a record that can't be one");
        }
    }
    if (rc != -EAGAIN) {
        return rc;
    }
    memmove(l->buffer, l->buffer + at, l->filled - at);
    l->filled -= at;
    return 0;
}

static int make_room(struct loading *l, size_t need)
{
    size_t cap = need > FIRST_CAP ? need : FIRST_CAP;
    uint8_t *buffer;

    if (l->filled < l->cap && need <= l->cap) {
        return 0;
    }
    buffer = realloc(l->buffer, cap);
    if (buffer == NULL) {
        return fail(l, -ENOMEM, "memory is short on this node");
    }
    l->buffer = buffer;
    l->cap = cap;
    return 0;
}

static int load_kv(struct loading *l)
{
    struct nx_archive_file file = {0, 0};
    size_t need = 0;
    size_t n = 1;
    int rc = 0;

    l->filled = 0;
    while (rc == 0 && n > 0) {
        rc = make_room(l, need);
        if (rc < 0) {
            return rc;
        }
        rc = nx_archive_reader_read(l->reader, l->buffer + l->filled, l->cap - l->filled, &n);
        if (rc < 0) {
            return fail_read(l, rc);
        }
        file.crc = nx_crc32(file.crc, l->buffer + l->filled, n);
        file.size += n;
        l->filled += n;
        rc = load_records(l, &need);
    }
    if (rc == 0 && l->filled > 0) {
        return refuse(l, "one of its files ends in the middle of a record");
    }
    if (rc == 0 && l->options->progress != NULL) {
        rc = l->options->progress(l->options->arg, l->seen.records);
        rc = rc < 0 ? fail_state(l, rc) : rc;
    }
    return rc < 0 ? rc : nx_manifest_add(&l->seen, file.size, file.crc);
}

/* ---- texts ---- */

/* A file of at most `most` bytes; malloc'd. */
static int read_text(struct loading *l, uint64_t size, size_t most, char **ret_text)
{
    size_t filled = 0;
    size_t n = 1;
    char *text;

    if (size > most) {
        return refuse(l, "its epochs.json or manifest.json is too long");
    }
    text = malloc((size_t)size + 1);
    if (text == NULL) {
        return fail(l, -ENOMEM, "memory is short on this node");
    }
    while (n > 0 && filled < size) {
        int rc = nx_archive_reader_read(l->reader, text + filled, (size_t)size - filled, &n);

        if (rc < 0) {
            free(text);
            return fail_read(l, rc);
        }
        filled += n;
    }
    text[filled] = '\0';
    *ret_text = text;
    return 0;
}

static int load_epochs(struct loading *l, uint64_t size)
{
    int rc = read_text(l, size, NX_EPOCHS_MAX, &l->epochs);

    if (rc < 0) {
        return rc;
    }
    l->epochs_length = (size_t)size;
    return nx_manifest_add(&l->seen, size, nx_crc32(0, l->epochs, l->epochs_length));
}

/* ---- the verdict ---- */

static bool same_files(const struct nx_manifest *a, const struct nx_manifest *b)
{
    if (a->file_count != b->file_count) {
        return false;
    }
    for (size_t i = 0; i < a->file_count; i++) {
        if (a->files[i].size != b->files[i].size || a->files[i].crc != b->files[i].crc) {
            return false;
        }
    }
    return true;
}

static bool differs(const char *wanted, const char *is)
{
    return wanted[0] != '\0' && strcasecmp(wanted, is) != 0;
}

static int judge(struct loading *l, const struct nx_manifest *manifest)
{
    const struct nx_load_options *options = l->options;
    const struct nx_position *position = &manifest->position;
    const char *why = "";
    int rc;

    if (differs(options->id, manifest->id) || differs(options->cluster_id, manifest->cluster_id)) {
        return refuse(l, "its manifest is of another snapshot or another cluster");
    }
    if ((options->id[0] != '\0' && position->offset != options->wal_offset) ||
        (options->epoch != 0 && position->epoch != options->epoch)) {
        return fail(l, -EBADMSG,
                    "the snapshot is refused: its manifest says offset %" PRIu64
                    " of epoch %" PRIu64 ", announced was %" PRIu64 " of %" PRIu64,
                    position->offset, position->epoch, options->wal_offset, options->epoch);
    }
    if (!same_files(&l->seen, manifest)) {
        return refuse(l, "sizes or CRCs of its files are not those of its manifest");
    }
    if (l->seen.records != manifest->records || l->highest_offset > position->offset) {
        return refuse(l, "its records are not those of its manifest");
    }
    rc = nx_epochs_parse(l->epochs, l->epochs_length, position, &l->history, &why);
    return rc == -EBADMSG ? fail(l, rc, "the snapshot is refused: epochs.json: %s", why) : rc;
}

/* The last file: what all the others must have been. */
static int load_manifest(struct loading *l, uint64_t size, struct nx_manifest *ret_manifest)
{
    size_t most = MANIFEST_BASE + MANIFEST_EACH * l->seen.file_count;
    const char *why = "";
    char *text = NULL;
    int rc = read_text(l, size, most < NX_MANIFEST_MAX ? most : NX_MANIFEST_MAX, &text);

    if (rc < 0) {
        return rc;
    }
    rc = nx_manifest_parse(text, (size_t)size, ret_manifest, &why);
    free(text);
    if (rc == -EBADMSG) {
        return fail(l, rc, "the snapshot is refused: manifest.json: %s", why);
    }
    rc = rc < 0 ? rc : judge(l, ret_manifest);
    nx_manifest_free(ret_manifest);
    return rc;
}

/* ---- the order of files ---- */

/* kv files, epochs.json, manifest.json, and nothing else. */
static int load_files(struct loading *l, struct nx_manifest *ret_manifest)
{
    char expected[NX_ARCHIVE_NAME_MAX];
    char name[NX_ARCHIVE_NAME_MAX];
    bool ended = false;
    uint64_t size;
    int rc;

    while ((rc = nx_archive_reader_next(l->reader, name, &size)) == 0) {
        (void)snprintf(expected, sizeof expected, NX_KV_NAME, l->seen.file_count % NX_KV_MOST);
        if (l->seen.file_count >= NX_KV_MOST) {
            return refuse(l, "it holds too many files");
        }
        if (l->epochs == NULL && strcmp(name, expected) == 0) {
            rc = size > NX_KV_SIZE_MAX ? refuse(l, "one of its files is larger than 64 MiB")
                                       : load_kv(l);
        } else if (l->epochs == NULL && strcmp(name, NX_EPOCHS_NAME) == 0) {
            rc = load_epochs(l, size);
        } else if (l->epochs != NULL && !ended && strcmp(name, NX_MANIFEST_NAME) == 0) {
            rc = load_manifest(l, size, ret_manifest);
            ended = true;
        } else {
            return refuse(l, "it holds a file that no snapshot has, or one at the wrong place");
        }
        if (rc < 0) {
            return rc;
        }
    }
    if (rc != -ENOENT) {
        return fail_read(l, rc);
    }
    return ended ? 0 : refuse(l, "it has no manifest");
}

/* ---- the rest of data-N ---- */

static int sync_directory(const char *root, const char *name)
{
    char path[NX_PATH_SIZE + 16];
    int fd;
    int rc;

    (void)snprintf(path, sizeof path, "%s%s", root, name);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    rc = fsync(fd) == 0 ? 0 : -errno;
    close(fd);
    return rc;
}

/* A log without a segment, that goes on behind the snapshot. */
static int make_mark(const char *root, const struct nx_position *position, bool quorum_rules)
{
    struct nx_mark mark = {.position = *position, .mode = quorum_rules ? 1 : 0};
    char path[NX_PATH_SIZE + 16];
    int dir_fd;
    int mark_fd = -1;
    int rc;

    (void)snprintf(path, sizeof path, "%s/wal", root);
    dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0) {
        return -errno;
    }
    rc = nx_mark_open(dir_fd, &mark, &mark_fd);
    if (rc == 0 && fdatasync(mark_fd) != 0) {
        rc = -errno;
    }
    if (mark_fd >= 0) {
        close(mark_fd);
    }
    close(dir_fd);
    return rc;
}

static int make_durable(struct loading *l, const struct nx_position *position)
{
    const char *root = l->options->root;
    int rc = l->history.count == 0 ? 0 : nx_state_load_epochs(l->state, &l->history);

    rc = rc < 0 ? rc : nx_state_load_finish(l->state, position);

    if (rc < 0) {
        return fail_state(l, rc);
    }
    rc = make_mark(root, position, l->options->quorum_rules);
    rc = rc < 0 ? rc : sync_directory(root, "/wal");
    rc = rc < 0 ? rc : sync_directory(root, "");
    return rc < 0 ? fail_state(l, rc) : 0;
}

int nx_load_archive(const struct nx_load_options *options,
                    struct nx_manifest *ret_manifest,
                    char *error,
                    size_t cap)
{
    static struct loading l; /* the history is large */
    char dir[NX_PATH_SIZE + 16];
    int rc;

    l = (struct loading){.options = options, .error = error, .error_cap = cap};
    (void)snprintf(dir, sizeof dir, "%s/state", options->root);
    rc = nx_state_load_begin(dir, options->map_size, &l.state, error, cap);
    if (rc == 0 && nx_archive_reader_open(&options->source, &l.reader) < 0) {
        rc = fail(&l, -ENOMEM, "memory is short on this node");
    }
    rc = rc < 0 ? rc : load_files(&l, ret_manifest);
    rc = rc < 0 ? rc : make_durable(&l, &ret_manifest->position);
    nx_archive_reader_close(l.reader);
    nx_state_load_close(l.state);
    nx_manifest_free(&l.seen);
    free(l.buffer);
    free(l.epochs);
    return rc;
}
