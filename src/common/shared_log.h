/* The shared log: the last entries as WalEntry frames in a ring of bytes (the arena), and a ring of
 * places by offset (the index). The walwriter appends; everybody reads.
 *
 * Frames stand back to back, without alignment, and never wrap: where one doesn't fit before the
 * arena's end it starts at its beginning. Readers copy out, then look whether what they copied has
 * been given up meanwhile (oldest_offset); nothing is used or sent from the arena itself. */
#ifndef NX_COMMON_SHARED_LOG_H
#define NX_COMMON_SHARED_LOG_H

#include "common/shm_layout.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Place of one entry. W:walwriter. */
struct nx_log_slot {
    nx_atomic_u64 pos;
    nx_atomic_u64 length; /* bytes of the frame */
};

/* Kept free for one epoch entry, so that a full node can be promoted. */
#define NX_LOG_RESERVE 512

/* ---- the walwriter's side; its private cursor ---- */
struct nx_log_writer {
    struct nx_shm *shm;
    uint64_t newest;        /* last appended offset */
    uint64_t next_pos;      /* where the next frame would start */
    uint64_t tail_pos;      /* start of the oldest entry still held (= next_pos when none) */
    uint64_t pinned_offset; /* entries from here on are not merged yet and stay */
};

/* Starts an empty log whose next entry is first_offset. */
void nx_log_writer_init(struct nx_log_writer *writer, struct nx_shm *shm, uint64_t first_offset);

/* Room for a frame of `length` bytes: gives up old entries below pinned_offset as needed (publishing
 * oldest_offset first) and returns the place to build the frame at, or NULL when what is pinned
 * leaves no room. reserve: bytes that must stay free behind it, and with them one place in the index
 * (NX_LOG_RESERVE, 0 for the epoch entry itself). Nothing is appended yet: calling again without commit gives a place again.
 * *ret_pos is its position. */
uint8_t *nx_log_reserve(struct nx_log_writer *writer,
                        size_t length,
                        size_t reserve,
                        uint64_t *ret_pos);

/* Appends the frame that was built at the reserved place: offset newest + 1. Not visible to readers
 * before durable_offset covers it. */
void nx_log_commit(struct nx_log_writer *writer, uint64_t pos, size_t length);

/* ---- readers ---- */

/* Where frames are copied to, and which: of the shared log here, of WAL files in wal_segment.h. */
struct nx_log_chunk {
    uint8_t *buf;  /* the caller's */
    size_t cap;    /* its bytes */
    size_t length; /* bytes copied; with -EMSGSIZE: of the first frame */
    uint64_t last; /* last offset copied */
};

/* Copies whole frames from offset `from` up to `last` (both inclusive, last <= durable_offset) into
 * chunk->buf, as many as fit. 0 with chunk->length and chunk->last; -ERANGE when `from` is no longer
 * (or not yet) in the arena; -EMSGSIZE when the first frame is larger than chunk->cap. */
int nx_log_read(struct nx_shm *shm, uint64_t from, uint64_t last, struct nx_log_chunk *chunk);

/* Bytes that the frames behind `after` up to `last` (at most durable_offset) take; UINT64_MAX when the first of
 * them is no longer in the arena. */
uint64_t nx_log_bytes_between(struct nx_shm *shm, uint64_t after, uint64_t last);

/* The durable position, the three parts of one moment. Offset 0 has epoch 0 and crc 0. */
void nx_log_position(struct nx_shm *shm,
                     uint64_t *ret_offset,
                     uint64_t *ret_epoch,
                     uint32_t *ret_crc);

/* The oldest entry that replicas can still ask for: what the files hold, and of that the last
 * max_log_size entries, counted. 1 when nothing is gone yet. */
uint64_t nx_log_oldest_kept(const struct nx_shm *shm, uint64_t max_log_size);

/* Publishes it together with durable_offset (walwriter). */
void nx_log_publish(struct nx_shm *shm, uint64_t offset, uint64_t epoch, uint32_t crc);

/* Where the bytes of [from, last] stand, in at most two runs, for the walwriter's own pwritev; the
 * entries must be pinned or newer. Returns the number of runs. */
int nx_log_runs(struct nx_shm *shm, uint64_t from, uint64_t last, struct iovec ret_runs[2]);

#endif
