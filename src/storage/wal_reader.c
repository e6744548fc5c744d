/* Runs in walsenders whose replica is behind the shared log, and in tools, while the walwriter appends to
 * the last segment and the checkpointer takes old ones away. Reads only; owns its descriptors. What it
 * reads may be recycled under it: then offset, CRC or prev_crc don't fit, and it looks where the entry is
 * now. */
#include "storage/file_io.h"
#include "storage/wal_scan.h"
#include "storage/wal_segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#define FIRST_STEP ((size_t)64 << 10) /* read at first; then twice as much each time */
#define TRIES      3

struct nx_wal_reader {
    int dir_fd;
    struct nx_wal_window window; /* the open segment; its buffer serves searching only */
    uint64_t at;                 /* file position of entry chain.next */
    struct nx_wal_chain chain;   /* what was read last; next = 0: nothing */
};

int nx_wal_reader_open(int dir_fd, struct nx_wal_reader **ret_reader)
{
    struct nx_wal_reader *reader = calloc(1, sizeof *reader);
    int rc;

    if (reader == NULL) {
        return -ENOMEM;
    }
    nx_wal_window_init(&reader->window);
    reader->dir_fd = fcntl(dir_fd, F_DUPFD_CLOEXEC, 0);
    if (reader->dir_fd < 0) {
        rc = -errno;
        free(reader);
        return rc;
    }
    *ret_reader = reader;
    return 0;
}

void nx_wal_reader_close(struct nx_wal_reader *reader)
{
    if (reader == NULL) {
        return;
    }
    nx_wal_window_done(&reader->window);
    close(reader->dir_fd);
    free(reader);
}

/* Opens the segment in which an entry must stand, if any does. */
static int open_segment_of(struct nx_wal_reader *reader, uint64_t offset, uint64_t *ret_first)
{
    struct nx_segment_info *list;
    const char *why;
    uint64_t first = 0;
    size_t count;
    int rc = nx_segment_list(reader->dir_fd, &list, &count);

    if (rc < 0) {
        return rc;
    }
    for (size_t i = 0; i < count && list[i].first_offset <= offset; i++) {
        first = list[i].first_offset;
    }
    free(list);
    if (first == 0) {
        return -ENOENT;
    }
    *ret_first = first;
    return nx_wal_window_open(&reader->window, reader->dir_fd, first, NULL, &why);
}

/* Goes from frame to frame by their headers alone, up to an entry. */
static int locate(struct nx_wal_reader *reader, uint64_t offset)
{
    uint64_t at = NX_SEGMENT_HEADER;
    uint64_t next;
    int rc = open_segment_of(reader, offset, &next);

    while (rc == 0 && next < offset) {
        struct nx_entry_header header;
        const uint8_t *frame;
        size_t n;

        rc = nx_wal_window_load(&reader->window, at, NX_ENTRY_HEADER_SIZE, &frame, &n);
        if (rc == 0 && (nx_entry_peek(frame, n, &header) < 0 || header.offset != next)) {
            rc = -EBADMSG;
        }
        if (rc == 0) {
            at += header.frame_length;
            next++;
        }
    }
    if (rc < 0) {
        return rc;
    }
    if (reader->chain.next != offset) {
        reader->chain =
            (struct nx_wal_chain){.next = offset, .linked = offset == 1}; /* entry 1: prev_crc 0 */
    }
    reader->at = at;
    nx_wal_window_forget(
        &reader->window); /* searching is over: many may read on from here for long */
    return 0;
}

/* Reads on into buf until it holds at least `want` bytes, or the file ends. */
static int fill(const struct nx_wal_reader *reader,
                uint8_t *buf,
                size_t cap,
                size_t want,
                size_t *have)
{
    size_t step = *have < FIRST_STEP ? FIRST_STEP : *have;
    size_t got;
    int rc;

    if (step < want - *have) {
        step = want - *have;
    }
    if (step > cap - *have) {
        step = cap - *have;
    }
    rc = nx_read_some(reader->window.fd, buf + *have, step, reader->at + *have, &got);
    if (rc == 0) {
        *have += got;
    }
    return rc;
}

static bool continues(const struct nx_wal_chain *chain, const struct nx_entry_header *header)
{
    return header->offset == chain->next && header->epoch >= chain->epoch &&
           (!chain->linked || header->prev_crc == chain->crc);
}

struct batch {
    uint8_t *buf;
    size_t cap;
    size_t have; /* bytes read */
    size_t used; /* of them: frames taken */
};

/* Takes the next frame into the batch. 0; -EBADMSG; -EMSGSIZE with *ret_length; or -errno. */
static int take_frame(const struct nx_wal_reader *reader,
                      struct nx_wal_chain *chain,
                      struct batch *batch,
                      size_t *ret_length)
{
    size_t want = batch->used + NX_ENTRY_HEADER_SIZE;

    for (;;) {
        struct nx_entry_header header;
        const uint8_t *frame = batch->buf + batch->used;
        int rc;

        if (want > batch->cap) {
            return -EMSGSIZE;
        }
        if (batch->have < want) {
            rc = fill(reader, batch->buf, batch->cap, want, &batch->have);
            if (rc < 0) {
                return rc;
            }
            if (batch->have < want) {
                return -EBADMSG;
            }
        }
        if (nx_entry_peek(frame, batch->have - batch->used, &header) < 0 ||
            !continues(chain, &header)) {
            return -EBADMSG;
        }
        *ret_length = header.frame_length;
        want = batch->used + header.frame_length;
        if (batch->have < want) {
            continue;
        }
        if (nx_entry_decode(frame, header.frame_length, true, &header) < 0) {
            return -EBADMSG;
        }
        batch->used = want;
        nx_wal_chain_add(chain, &header);
        return 0;
    }
}

/* What stands at reader->at, as much as fits. An error counts only at the first frame. */
static int read_here(struct nx_wal_reader *reader,
                     uint64_t last,
                     struct batch *batch,
                     size_t *ret_length)
{
    struct nx_wal_chain chain = reader->chain;
    size_t length = 0;
    int rc = 0;

    while (rc == 0 && chain.next <= last) {
        rc = take_frame(reader, &chain, batch, &length);
    }
    if (batch->used == 0) {
        if (rc == -EMSGSIZE) {
            *ret_length = length;
        }
        return rc;
    }
    reader->chain = chain;
    reader->at += batch->used;
    return 0;
}

int nx_wal_reader_read(struct nx_wal_reader *reader,
                       uint64_t from,
                       uint64_t last,
                       struct nx_log_chunk *chunk)
{
    bool here = reader->window.fd >= 0 && reader->chain.next == from;
    int rc = -EBADMSG;

    if (from == 0 || from > last || chunk->cap < NX_ENTRY_HEADER_SIZE) {
        return -EINVAL;
    }
    /* Not here: the segment ended and the next one holds it, or it was recycled between our look at the
     * directory and our read. */
    for (int i = 0; i < TRIES && (rc == -EBADMSG || rc == -ENOENT); i++) {
        struct batch batch = {.buf = chunk->buf, .cap = chunk->cap};

        rc = here ? 0 : locate(reader, from);
        here = false;
        rc = rc < 0 ? rc : read_here(reader, last, &batch, &chunk->length);
        if (rc == 0) {
            chunk->length = batch.used;
            chunk->last = reader->chain.next - 1;
        }
    }
    if (rc < 0 && rc != -EMSGSIZE) {
        reader->chain.next = 0;
    }
    return rc;
}
