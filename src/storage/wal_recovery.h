/* Recovery of the log at start (docs/architecture.md, "Recovery"): finds where the log continues
 * after LMDB's position, feeds every entry to its caller, finds the log's end, tells a torn last
 * group from corruption, and makes what it read durable. Run by the walwriter. */
#ifndef NX_STORAGE_WAL_RECOVERY_H
#define NX_STORAGE_WAL_RECOVERY_H

#include "storage/position.h"
#include "storage/wal_segment.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nx_recovery_options {
    int dir_fd;                /* the wal directory */
    struct nx_position base;   /* LMDB's position: replay starts behind it */
    const uint8_t *cluster_id; /* 16 bytes every segment header must carry; all zero: none yet */
    bool unsynced;             /* groups behind the mark were not synced one by one (wal.fsync) */
    /* One entry behind base, in order; the frame is valid (CRC, chain, operations) and only borrowed.
     * -EAGAIN: no room for it now; what was given before is made durable, then `wait` is called, then
     * the same entry is given again. Any other negative return ends recovery with that error. */
    int (*entry)(void *arg, const uint8_t *frame, size_t length);
    /* All entries given so far are on disk. Waits for room; a negative return ends recovery. */
    int (*wait)(void *arg);
    /* Progress: offset reached, and the last one known to exist (0: not known). May be NULL. */
    void (*progress)(void *arg, uint64_t offset, uint64_t goal);
    void *arg;
};

struct nx_recovery_result {
    struct nx_position end; /* last entry of the log; = base when nothing follows */
    uint64_t end_timestamp; /* of that entry, Unix µs; 0 if none was read */
    uint64_t oldest_offset; /* oldest entry that WAL files hold; end.offset + 1 if none */
    uint64_t replayed;      /* entries given to `entry` */
    uint64_t cut_bytes;     /* bytes of a torn last group that were cut off; 0: clean */
    struct nx_mark mark;    /* as found; zero if the log was empty */
    int segment_fd;         /* last segment, open read-write at segment_at; -1: begin a new one */
    uint64_t segment_first;
    uint64_t segment_at; /* file position where the next frame goes */
    uint64_t segment_size;
};

/* 0 with *ret_result (segment_fd is the caller's then), or a negative error with *error a sentence
 * that names segment, byte, offset, and for corruption the number of readable entries behind it, and
 * what to do (-EBADMSG: corruption or a missing piece; a person must mend it). Before it returns 0:
 * the torn end is zeroed, frames above the mark written again in place and fdatasynced, directory
 * synced. -EIO from that last step must stop the server. */
int nx_recovery_run(const struct nx_recovery_options *options,
                    struct nx_recovery_result *ret_result,
                    char *error,
                    size_t cap);

#endif
