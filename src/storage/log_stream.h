/* Where the log is read: the shared log while it holds what is wanted, else the WAL files.
 * Every byte is copied to a private buffer before it is used. */
#ifndef NX_STORAGE_LOG_STREAM_H
#define NX_STORAGE_LOG_STREAM_H

#include "common/shared_log.h"
#include "common/shm_layout.h"
#include "storage/wal_segment.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nx_stream {
    struct nx_shm *shm;
    const char *state_root;       /* DATA_DIR/data-N, borrowed */
    int dir_fd;                   /* its wal directory; -1 until files are needed */
    struct nx_wal_reader *reader; /* NULL until files are needed */
};

void nx_stream_open(struct nx_stream *stream, struct nx_shm *shm, const char *state_root);
void nx_stream_close(struct nx_stream *stream);

/* Copies whole frames from offset `from` up to `last` (both inclusive, last at most durable_offset)
 * into chunk->buf, as many as fit. 0 with chunk->length and chunk->last; -EMSGSIZE: the first frame is
 * larger than chunk->cap, chunk->length says how large; -ENOENT: `from` is no longer kept; -EBADMSG: it
 * is kept, but what the files hold is not that frame; or what opening the files says. */
int nx_stream_read(struct nx_stream *stream,
                   uint64_t from,
                   uint64_t last,
                   struct nx_log_chunk *chunk);

/* Epoch and CRC of our own frame at an offset (1 up to durable_offset). 0, or as nx_stream_read. */
int nx_stream_frame_at(struct nx_stream *stream,
                       uint64_t offset,
                       uint64_t *ret_epoch,
                       uint32_t *ret_crc);

/* CRC of our own frame before an offset, as the frame there has it: the one before may be gone. 0, or as
 * nx_stream_read. */
int nx_stream_crc_before(struct nx_stream *stream, uint64_t offset, uint32_t *ret_crc);

#endif
