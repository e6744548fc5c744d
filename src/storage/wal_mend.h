/* What recovery does to segments once it knows the log's end, and what it asks of those it needn't read.
 * Private to src/storage and its tests. */
#ifndef NX_STORAGE_WAL_MEND_H
#define NX_STORAGE_WAL_MEND_H

#include "storage/wal_segment.h"

#include <stdbool.h>
#include <stdint.h>

/* A run of frames in one segment that were read and found valid. */
struct nx_wal_range {
    uint64_t from; /* file positions */
    uint64_t to;
    uint32_t crc; /* of all bytes between */
};

/* Writes the run again in place, the same bytes: they may have been read from a page cache that the disk
 * never got. The caller syncs. 0; -EBADMSG: they aren't what was read before; or -errno. */
int nx_wal_rewrite(int fd, const struct nx_wal_range *range);

/* Zeroes what stands behind `at`. *ret_cut: bytes up to the last one that wasn't zero. The caller syncs.
 * 0 or -errno. */
int nx_wal_cut(int fd, uint64_t at, uint64_t *ret_cut);

/* Whether the last frame of a full segment is the one that the first frame of the next segment names
 * as its predecessor: by its CRC, without reading either. 0 and *ret_linked; or -errno of a file (-ENOENT:
 * recycled meanwhile). */
int nx_wal_segments_linked(int dir_fd,
                           const struct nx_segment_info *older,
                           const struct nx_segment_info *newer,
                           bool *ret_linked);

#endif
