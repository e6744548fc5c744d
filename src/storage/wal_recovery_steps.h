/* What the steps of recovery share. Private to src/storage. */
#ifndef NX_STORAGE_WAL_RECOVERY_STEPS_H
#define NX_STORAGE_WAL_RECOVERY_STEPS_H

#include "storage/wal_mend.h"
#include "storage/wal_recovery.h"
#include "storage/wal_scan.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NX_RECOVERY_REMEDY                                                                  \
    "; nothing was changed. Recover this node from a replica (start it with an empty data " \
    "directory and let it follow one) or from a snapshot"

#define NX_POSITION_TEXT      "offset %" PRIu64 ", epoch %" PRIu64 ", CRC %08" PRIx32
#define NX_POSITION_ARGS(pos) (pos)->offset, (pos)->epoch, (pos)->crc

struct nx_recovery {
    const struct nx_recovery_options *options;
    struct nx_segment_info *list;
    struct nx_wal_range *ranges; /* one a segment: what is above the mark */
    size_t count;
    size_t start;   /* index of the first segment that is read */
    uint64_t floor; /* entries up to here were durable */
    struct nx_wal_window window;
    struct nx_wal_chain chain;
    uint64_t at; /* in the last segment: where the log ends */
    struct nx_recovery_result result;
    char *error;
    size_t cap;
};

/* Says why in a sentence; returns rc. */
int nx_recovery_refuse(struct nx_recovery *r, int rc, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The same for a system call that failed at a byte of segment i. */
int nx_recovery_file_failed(struct nx_recovery *r,
                            int rc,
                            size_t i,
                            const char *doing,
                            uint64_t at);
/* The name of segment i, in `name`. */
const char *nx_recovery_name(const struct nx_recovery *r, size_t i, char name[NX_SEGMENT_NAME]);
bool nx_position_same(const struct nx_position *a, const struct nx_position *b);

/* Opens segment i in r->window. */
int nx_recovery_open(struct nx_recovery *r, size_t i);

/* Before anything is read: lists the segments, reads the mark, chooses where to start, and looks at the
 * segments before that. 0 or an error said. */
int nx_recovery_begin(struct nx_recovery *r);

#endif
