/* What has come of a snapshot from the master: one file that grows by chunks, beside it what each chunk must be,
 * so that after a restart, or a power cut, it is known how much of it can be relied on. Nothing is synced.
 *
 *     DATA_DIR/snapshots/incoming-<id>.part    the chunks, one behind the other
 *     DATA_DIR/snapshots/incoming-<id>.chunks  wal_offset u64, epoch u64, their CRC32 u32; then for each chunk
 *                                              its length u32 and its CRC32 u32
 *
 * Written by the walreceiver, at most one at a time; read by the restore process as it grows. When its data has become
 * the node's, the postmaster retires it, and the checkpointer removes it, which takes its time. */
#ifndef NX_STORAGE_INCOMING_H
#define NX_STORAGE_INCOMING_H

#include "common/shm_layout.h"
#include "storage/position.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nx_incoming {
    int part_fd;           /* -1: there is none */
    int chunks_fd;         /* -1: there is none */
    char id[NX_UUID_TEXT]; /* of the snapshot */
    uint64_t wal_offset;   /* its position */
    uint64_t epoch;
    uint32_t chunks; /* that have come */
    uint64_t bytes;  /* of them */
    uint32_t crc;    /* CRC32 of these bytes */
};

#define NX_INCOMING_NONE ((struct nx_incoming){.part_fd = -1, .chunks_fd = -1})

/* Begins one; what there was of another is removed. 0 or -errno. */
int nx_incoming_begin(int dir_fd,
                      const char *id,
                      uint64_t wal_offset,
                      uint64_t epoch,
                      struct nx_incoming *ret_incoming);

/* Takes up what an earlier process has left, as far as each chunk is what it should be: all of it is read. One whose
 * position is `restored` has done its work. `stop` (may be NULL) ends the reading early. 0; -ENOENT: nothing of use is
 * left (what there was is removed); -ECANCELED; or -errno. */
int nx_incoming_resume(int dir_fd,
                       const struct nx_position *restored,
                       bool (*stop)(void *arg),
                       void *arg,
                       struct nx_incoming *ret_incoming);

/* Adds a chunk, whose CRC32 is known. 0 or -errno; then nothing is added. */
int nx_incoming_add(struct nx_incoming *incoming, const void *bytes, size_t length, uint32_t crc);

/* Closes it; the files stay. */
void nx_incoming_close(struct nx_incoming *incoming);

/* All there is has done its work: it is called restored-<id>.* from now on, and never taken up again. For the
 * postmaster, while no process is alive that could write one. 0 or -errno. */
int nx_incoming_retire(int dir_fd);

/* Removes what was retired, for which a large file takes its time. Whoever receives the next one isn't disturbed. 0 or
 * -errno. */
int nx_incoming_drop(int dir_fd);

/* Removes all there is but what was retired. 0 or -errno. */
int nx_incoming_remove(int dir_fd);

/* Opens the file of chunks for reading. A descriptor or -errno. */
int nx_incoming_open(int dir_fd, const char *id);

#endif
