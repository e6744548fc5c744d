/* Reading the log wherever it stands. Runs in walsenders and http workers; owns a descriptor of the wal
 * directory and a file reader, both only while what is wanted is behind the shared log. Reads shared memory and files, writes
 * neither. Segments may be recycled under it: then what it asks for is no longer kept. */
#include "storage/log_stream.h"

#include "common/entry.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void nx_stream_open(struct nx_stream *stream, struct nx_shm *shm, const char *state_root)
{
    *stream = (struct nx_stream){.shm = shm, .state_root = state_root, .dir_fd = -1};
}

static void close_files(struct nx_stream *stream)
{
    if (stream->reader != NULL) {
        nx_wal_reader_close(stream->reader);
        stream->reader = NULL;
    }
    if (stream->dir_fd >= 0) {
        close(stream->dir_fd);
        stream->dir_fd = -1;
    }
}

void nx_stream_close(struct nx_stream *stream)
{
    close_files(stream);
}

static int open_files(struct nx_stream *stream)
{
    char path[NX_PATH_SIZE + sizeof "/wal"];

    if (stream->reader != NULL) {
        return 0;
    }
    (void)snprintf(path, sizeof path, "%s/wal", stream->state_root);
    stream->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (stream->dir_fd < 0) {
        return -errno;
    }
    return nx_wal_reader_open(stream->dir_fd, &stream->reader);
}

static bool gone_from_files(const struct nx_stream *stream, uint64_t offset)
{
    return offset <
           atomic_load_explicit(&stream->shm->checkpoint.oldest_kept, memory_order_acquire);
}

/* One read from the files. A reader may stand in a segment that was recycled meanwhile, so a failure
 * counts only when a fresh reader says the same. */
static int read_files(struct nx_stream *stream,
                      uint64_t from,
                      uint64_t last,
                      struct nx_log_chunk *chunk)
{
    int rc = -ENOENT;

    for (int attempt = 0; attempt < 2; attempt++) {
        rc = open_files(stream);
        if (rc == 0) {
            rc = nx_wal_reader_read(stream->reader, from, last, chunk);
        }
        if (rc == 0 || rc == -EMSGSIZE) {
            return rc;
        }
        close_files(stream);
    }
    return gone_from_files(stream, from) ? -ENOENT : rc;
}

int nx_stream_read(struct nx_stream *stream,
                   uint64_t from,
                   uint64_t last,
                   struct nx_log_chunk *chunk)
{
    int rc = nx_log_read(stream->shm, from, last, chunk);

    if (rc != -ERANGE) {
        close_files(stream);
        return rc;
    }
    return read_files(stream, from, last, chunk);
}

/* What stands before the operations; nothing of it points into the frame. */
static int read_header(struct nx_stream *stream,
                       uint64_t offset,
                       struct nx_entry_header *ret_header)
{
    struct nx_log_chunk chunk = {.cap = 4096};
    int rc = -EMSGSIZE;

    for (int attempt = 0; attempt < 2 && rc == -EMSGSIZE; attempt++) {
        free(chunk.buf);
        chunk.cap = chunk.length > chunk.cap ? chunk.length : chunk.cap;
        chunk.buf = malloc(chunk.cap);
        rc = chunk.buf == NULL ? -ENOMEM : nx_stream_read(stream, offset, offset, &chunk);
    }
    if (rc == 0) {
        rc = nx_entry_decode(chunk.buf, chunk.length, false, ret_header);
    }
    free(chunk.buf);
    return rc;
}

int nx_stream_crc_before(struct nx_stream *stream, uint64_t offset, uint32_t *ret_crc)
{
    struct nx_entry_header header;
    int rc = read_header(stream, offset, &header);

    if (rc == 0) {
        *ret_crc = header.prev_crc;
    }
    return rc;
}

int nx_stream_frame_at(struct nx_stream *stream,
                       uint64_t offset,
                       uint64_t *ret_epoch,
                       uint32_t *ret_crc)
{
    struct nx_entry_header header;
    int rc = read_header(stream, offset, &header);

    if (rc == 0) {
        *ret_epoch = header.epoch;
        *ret_crc = header.crc;
    }
    return rc;
}
