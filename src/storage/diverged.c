/* Saves what a node gives up. Runs in the walreceiver, before the log that it reads is replaced. It reads the log
 * through a stream that its caller opened and owns the files it makes until they have their names; a process
 * that is killed meanwhile leaves temporary files, which the next call removes. Looking is in diverged_look.c. */
#include "storage/diverged.h"

#include "common/entry.h"
#include "common/json_out.h"
#include "common/text.h"
#include "storage/file_io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK    ((size_t)1 << 20)
#define FLUSH_AT ((size_t)256 << 10)

#define OFFSET_MEMBER "{\"offset\":"

/* ---- files in the making ---- */

struct sink {
    int fd; /* -1: none */
    const char *suffix;
    struct text text; /* not written yet */
    uint64_t written;
    struct nx_passing passing;
};

static void temporary_name(const struct nx_diverged_range *range,
                           const struct sink *sink,
                           char ret_name[NX_DIVERGED_NAME])
{
    char suffix[sizeof NX_DIVERGED_ENTRIES NX_TEMP_SUFFIX];

    (void)snprintf(suffix, sizeof suffix, "%s" NX_TEMP_SUFFIX, sink->suffix);
    nx_diverged_name(range, suffix, ret_name);
}

static int sink_open(struct sink *sink, int dir_fd, const struct nx_diverged_range *range)
{
    char name[NX_DIVERGED_NAME];

    temporary_name(range, sink, name);
    sink->fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (sink->fd < 0) {
        return -errno;
    }
    return 0;
}

/* Writes what is gathered once it is at least this much. */
static int sink_flush(struct sink *sink, size_t least)
{
    int rc;

    if (sink->text.failed) {
        return -ENOMEM;
    }
    if (sink->text.length < least) {
        return 0;
    }
    rc = nx_write_at(sink->fd, sink->text.data, sink->text.length, sink->written);
    if (rc == 0) {
        sink->written += sink->text.length;
        nx_text_reset(&sink->text, FLUSH_AT * 2);
        nx_pass(&sink->passing, sink->fd, sink->written);
    }
    return rc;
}

static int sink_sync(struct sink *sink)
{
    int rc = sink_flush(sink, 0);

    if (rc == 0 && fdatasync(sink->fd) != 0) {
        rc = -errno;
    }
    return rc;
}

static int sink_name(const struct sink *sink, int dir_fd, const struct nx_diverged_range *range)
{
    char temp[NX_DIVERGED_NAME];
    char name[NX_DIVERGED_NAME];

    temporary_name(range, sink, temp);
    nx_diverged_name(range, sink->suffix, name);
    return renameat(dir_fd, temp, dir_fd, name) == 0 ? 0 : -errno;
}

static void sink_close(struct sink *sink)
{
    if (sink->fd >= 0) {
        close(sink->fd);
    }
    nx_text_free(&sink->text);
}

static void unlink_file(int dir_fd, const struct nx_diverged_range *range, const char *suffix)
{
    char name[NX_DIVERGED_NAME];

    nx_diverged_name(range, suffix, name);
    (void)unlinkat(dir_fd, name, 0);
}

/* ---- entries into lines ---- */

struct saver {
    const struct nx_diverged_options *options;
    struct nx_diverged_range range;
    int dir_fd;
    struct nx_log_chunk chunk;
    struct sink lines;
    struct sink entries;
    struct nx_diverged_saved saved;
};

static void put_operation(struct text *text, const struct nx_op *op)
{
    struct json json = nx_json_of(text);

    nx_json_open(&json, NULL, '{');
    nx_json_bytes(&json, "key", op->key);
    if (op->kind == NX_OP_DELETE) {
        nx_json_bool(&json, "delete", true);
    } else {
        nx_json_bytes(&json, "value", op->value);
    }
    if ((op->flags & NX_OP_HAS_EXPIRY) != 0) {
        nx_json_u64(&json, "expires_at", op->expires_at);
    }
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
}

/* The keys that are UTF-8, or those that are not, as strings. True: there are others too. */
static bool put_keys(struct json *json, const struct nx_entry_header *header, bool utf8)
{
    struct nx_op_iter iter;
    struct nx_op op;
    bool others = false;

    nx_op_iter_init(&iter, header->ops, header->ops_length, header->op_count);
    while (nx_op_next(&iter, &op) > 0) {
        if (op.kind == NX_OP_EPOCH) {
            continue;
        }
        if (nx_utf8_valid(op.key) != utf8) {
            others = true;
        } else if (utf8) {
            nx_json_bytes(json, NULL, op.key);
        } else {
            nx_json_base64(json, NULL, op.key);
        }
    }
    return others;
}

static void put_entry(struct text *text, const struct nx_entry_header *header)
{
    struct json json = nx_json_of(text);
    bool others;

    nx_json_open(&json, NULL, '{');
    nx_json_u64(&json, "offset", header->offset);
    nx_json_u64(&json, "epoch", header->epoch);
    nx_json_open(&json, "keys", '[');
    others = put_keys(&json, header, true);
    nx_json_close(&json, ']');
    if (others) {
        nx_json_open(&json, "keys_base64", '[');
        (void)put_keys(&json, header, false);
        nx_json_close(&json, ']');
    }
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
}

/* Whether it is the entry of our log at this offset. */
static bool is_entry(const struct saver *saver,
                     uint64_t offset,
                     const struct nx_entry_header *header)
{
    const struct nx_position *last = &saver->range.last;

    if (header->offset != offset || header->epoch > last->epoch) {
        return false;
    }
    return offset < last->offset ||
           (header->epoch == last->epoch && (last->crc == 0 || header->crc == last->crc));
}

static int save_entry(struct saver *saver, const struct nx_entry_header *header)
{
    struct nx_op_iter iter;
    struct nx_op op;
    int rc;

    nx_op_iter_init(&iter, header->ops, header->ops_length, header->op_count);
    while ((rc = nx_op_next(&iter, &op)) > 0) {
        if (op.kind != NX_OP_EPOCH) {
            put_operation(&saver->lines.text, &op);
            rc = sink_flush(&saver->lines, FLUSH_AT);
        }
        if (rc < 0) {
            return rc;
        }
    }
    if (rc < 0) {
        return rc;
    }
    put_entry(&saver->entries.text, header);
    if (saver->saved.count == 0) {
        saver->saved.first = header->offset;
    }
    saver->saved.count++;
    return sink_flush(&saver->entries, FLUSH_AT);
}

/* Saves what was read, from entry *from on, which moves behind it. */
static int save_chunk(struct saver *saver, uint64_t *from)
{
    const struct nx_log_chunk *chunk = &saver->chunk;
    struct nx_entry_header header;
    size_t used = 0;
    int rc = 0;

    while (rc == 0 && used < chunk->length) {
        rc = nx_entry_decode(chunk->buf + used, chunk->length - used, true, &header);
        if (rc == 0 && !is_entry(saver, *from, &header)) {
            rc = -EBADMSG;
        }
        rc = rc < 0 ? rc : save_entry(saver, &header);
        if (rc == 0) {
            used += header.frame_length;
            ++*from;
        }
    }
    return rc;
}

/* ---- reading the log ---- */

static int read_chunk(struct saver *saver, uint64_t from)
{
    struct nx_log_chunk *chunk = &saver->chunk;
    uint64_t last = saver->range.last.offset;
    int rc = nx_stream_read(saver->options->stream, from, last, chunk);

    if (rc == -EMSGSIZE) {
        uint8_t *buf = realloc(chunk->buf, chunk->length);

        if (buf == NULL) {
            return -ENOMEM;
        }
        chunk->buf = buf;
        chunk->cap = chunk->length;
        rc = nx_stream_read(saver->options->stream, from, last, chunk);
    }
    return rc;
}

/* The log doesn't hold entry *from any more: goes on at the oldest one behind it that it does, which may be
 * behind the range. */
static int skip_gone(const struct saver *saver, uint64_t *from)
{
    char path[NX_PATH_SIZE + sizeof "/wal"];
    struct nx_segment_info *list = NULL;
    size_t count = 0;
    uint64_t next = UINT64_MAX;
    int dir_fd;
    int rc;

    (void)snprintf(path, sizeof path, "%s/wal", saver->options->stream->state_root);
    dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir_fd < 0) {
        return -errno;
    }
    rc = nx_segment_list(dir_fd, &list, &count);
    close(dir_fd);
    for (size_t i = count; i > 0 && list[i - 1].first_offset > *from; i--) {
        next = list[i - 1].first_offset;
    }
    free(list);
    if (rc == 0) {
        *from = next;
    }
    return rc;
}

static int save_range(struct saver *saver)
{
    const struct nx_diverged_options *options = saver->options;
    uint64_t from = saver->range.first;
    uint64_t last = saver->range.last.offset;
    int rc = 0;

    while (rc == 0 && from <= last) {
        if (options->stop != NULL && options->stop(options->arg)) {
            return -ECANCELED;
        }
        rc = read_chunk(saver, from);
        if (rc == -ENOENT) {
            rc = skip_gone(saver, &from);
        } else if (rc == 0) {
            rc = save_chunk(saver, &from);
        }
    }
    /* Only its beginning can be gone: the newest segment is never given up. */
    return rc == 0 && saver->saved.count > 0 && from != last + 1 ? -EBADMSG : rc;
}

/* ---- saving ---- */

/* Opens DATA_DIR/diverged, which is there, durably, afterwards. A descriptor or -errno. */
static int make_dir(const char *data_dir)
{
    int data_fd = open(data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = -1;
    int rc = 0;

    if (data_fd < 0) {
        return -errno;
    }
    if (mkdirat(data_fd, NX_DIVERGED_DIR, 0700) != 0 && errno != EEXIST) {
        rc = -errno;
    }
    if (rc == 0 && fsync(data_fd) != 0) {
        rc = -errno;
    }
    close(data_fd);
    if (rc == 0) {
        fd = nx_diverged_dir(data_dir);
    }
    return rc < 0 ? rc : fd;
}

/* A directory of such a name is a person's. */
static int remove_temporary(void *arg, const char *name)
{
    const int *dir_fd = arg;

    if (!nx_diverged_is_temporary(name) || unlinkat(*dir_fd, name, 0) == 0) {
        return 0;
    }
    return errno == ENOENT || errno == EISDIR || errno == EPERM ? 0 : -errno;
}

/* Counts the entries of a range that stands. */
struct recount {
    uint64_t first;
    uint64_t last;
    uint64_t count;
};

static int recount_one(void *arg, struct nx_slice line)
{
    struct recount *recount = arg;
    size_t skip = sizeof OFFSET_MEMBER - 1;
    uint64_t offset = 0;

    if (line.length <= skip || memcmp(line.data, OFFSET_MEMBER, skip) != 0) {
        return -EBADMSG;
    }
    for (size_t i = skip; i < line.length && line.data[i] >= '0' && line.data[i] <= '9'; i++) {
        offset = offset * 10 + (uint64_t)(line.data[i] - '0');
    }
    if (offset <= recount->last) {
        return -EBADMSG;
    }
    if (recount->count == 0) {
        recount->first = offset;
    }
    recount->last = offset;
    recount->count++;
    return 0;
}

/* Whether an earlier call saved the range. It may have been ended before its names were on disk. 1, 0 (also
 * when the files aren't whole: they are made again), or -errno. */
static int find_saved(struct saver *saver)
{
    struct nx_diverged_saved *saved = &saver->saved;
    struct recount recount = {.count = 0};
    int rc;

    if (!nx_diverged_stands(saver->dir_fd, &saver->range, NX_DIVERGED_LINES)) {
        return 0;
    }
    rc = nx_diverged_each_entry(saver->dir_fd, &saver->range, recount_one, &recount);
    if (rc == -ENOENT || rc == -EBADMSG ||
        (rc == 0 && (recount.last != saved->last || recount.first < saver->range.first))) {
        return 0;
    }
    if (rc < 0) {
        return rc;
    }
    saved->first = recount.first;
    saved->count = recount.count;
    saved->already = true;
    return fsync(saver->dir_fd) == 0 ? 1 : -errno;
}

/* Gives both synced files their names, durably, or neither. */
static int name_both(const struct saver *saver)
{
    int rc = sink_name(&saver->entries, saver->dir_fd, &saver->range);

    if (rc < 0) {
        return rc;
    }
    rc = sink_name(&saver->lines, saver->dir_fd, &saver->range);
    if (rc == 0 && fsync(saver->dir_fd) != 0) {
        rc = -errno;
        unlink_file(saver->dir_fd, &saver->range, NX_DIVERGED_LINES);
    }
    if (rc < 0) {
        unlink_file(saver->dir_fd, &saver->range, NX_DIVERGED_ENTRIES);
    }
    return rc;
}

static int publish(struct saver *saver)
{
    int rc = sink_sync(&saver->lines);

    rc = rc < 0 ? rc : sink_sync(&saver->entries);
    return rc < 0 ? rc : name_both(saver);
}

static int save_anew(struct saver *saver)
{
    int rc;

    saver->lines = (struct sink){.fd = -1, .suffix = NX_DIVERGED_LINES};
    saver->entries = (struct sink){.fd = -1, .suffix = NX_DIVERGED_ENTRIES};
    saver->chunk = (struct nx_log_chunk){.buf = malloc(CHUNK), .cap = CHUNK};
    rc = saver->chunk.buf == NULL ? -ENOMEM : 0;
    rc = rc < 0 ? rc : sink_open(&saver->lines, saver->dir_fd, &saver->range);
    rc = rc < 0 ? rc : sink_open(&saver->entries, saver->dir_fd, &saver->range);
    rc = rc < 0 ? rc : save_range(saver);
    if (rc == 0 && saver->saved.count > 0) {
        rc = publish(saver);
    }
    sink_close(&saver->lines);
    sink_close(&saver->entries);
    free(saver->chunk.buf);
    unlink_file(saver->dir_fd, &saver->range, NX_DIVERGED_LINES NX_TEMP_SUFFIX);
    unlink_file(saver->dir_fd, &saver->range, NX_DIVERGED_ENTRIES NX_TEMP_SUFFIX);
    return rc;
}

int nx_diverged_save(const struct nx_diverged_options *options, struct nx_diverged_saved *ret_saved)
{
    struct saver saver = {
        .options = options,
        .range = {.first = options->first, .last = options->last},
        .saved = {.first = options->first, .last = options->last.offset},
    };
    int rc;

    if (options->first == 0 || options->first > options->last.offset) {
        return -EINVAL;
    }
    saver.dir_fd = make_dir(options->data_dir);
    if (saver.dir_fd < 0) {
        return saver.dir_fd;
    }
    rc = nx_each_name(saver.dir_fd, remove_temporary, &saver.dir_fd);
    rc = rc < 0 ? rc : find_saved(&saver);
    rc = rc == 0 ? save_anew(&saver) : rc;
    close(saver.dir_fd);
    if (rc < 0) {
        return rc;
    }
    if (saver.saved.count > 0) {
        nx_diverged_path(options->data_dir, &saver.range, saver.saved.path);
    }
    *ret_saved = saver.saved;
    return 0;
}
