/* DATA_DIR/diverged: entries that this node has given up, so that a person can look at them and put back what
 * is still wanted. Two files for each range:
 *
 *     <first>-<last>-<epoch>-<crc>.ndjson   each operation, a line that POST /import takes:
 *                                           {"key", "value", "expires_at"?} or {"key", "delete": true}
 *     <first>-<last>-<epoch>-<crc>.entries  each entry, a line {"offset", "epoch", "keys", "keys_base64"?};
 *                                           keys_base64: those that are not UTF-8
 *
 * first and last (20 digits) bound the range that was given up; epoch and crc (8 hexadecimal digits) are those
 * of its last entry, so that two ranges of the same numbers have two names. The .ndjson gets its name last: a
 * range counts when both stand, which are then whole. An entry that begins an epoch has no operations of a
 * client: it gives no line in .ndjson, and no keys. Nexus never removes these files: a person does.
 *
 * Blocking; the calls own nothing beyond themselves. The walreceiver saves, http workers look. */
#ifndef NX_STORAGE_DIVERGED_H
#define NX_STORAGE_DIVERGED_H

#include "common/bytes.h"
#include "common/config.h"
#include "storage/log_stream.h"
#include "storage/position.h"

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NX_DIVERGED_DIR  "diverged"
#define NX_DIVERGED_NAME 96 /* "<20>-<20>-<20>-<8>.entries.tmp" and NUL fit */
#define NX_DIVERGED_PATH (NX_PATH_SIZE + sizeof NX_DIVERGED_DIR + NX_DIVERGED_NAME)

#define NX_DIVERGED_LINES   ".ndjson"
#define NX_DIVERGED_ENTRIES ".entries"

/* What a name says. */
struct nx_diverged_range {
    uint64_t first;
    struct nx_position last;
};

/* ---- saving ---- */

struct nx_diverged_options {
    const char *data_dir;     /* DATA_DIR, absolute */
    struct nx_stream *stream; /* of the log that is given up, open */
    uint64_t first;           /* the fork + 1 */
    struct nx_position last;  /* where our log ends: durable */
    bool (*stop)(void *arg);  /* NULL, or asked again and again: true ends it early */
    void *arg;
};

struct nx_diverged_saved {
    uint64_t
        first; /* oldest entry that was saved: options.first, or the oldest that the log still held */
    uint64_t last;
    uint64_t
        count;    /* entries saved; fewer than first to last: the log gave some up meanwhile. 0: it
                       holds none of them any more, no file was made and path is "" */
    bool already; /* an earlier call saved this range, and nothing was done now */
    char path[NX_DIVERGED_PATH]; /* absolute, of the .ndjson */
};

/* Saves the entries from options->first to options->last, durably. 0; -ECANCELED: `stop` said so; -EINVAL: no
 * such range; -EBADMSG: what the log holds are not these entries; or -errno, such as -ENOSPC. Of a range that
 * wasn't saved nothing is left. One caller at a time. Up to some hundred MiB of memory, however many entries:
 * what JSON makes of the largest one. */
int nx_diverged_save(const struct nx_diverged_options *options,
                     struct nx_diverged_saved *ret_saved);

/* ---- looking ---- */

/* Opens DATA_DIR/diverged. A descriptor; -ENOENT: nothing was ever saved; or -errno. */
int nx_diverged_dir(const char *data_dir);

/* "<first>-<last>-<epoch>-<crc><suffix>". */
void nx_diverged_name(const struct nx_diverged_range *range,
                      const char *suffix,
                      char ret_name[NX_DIVERGED_NAME]);

/* The path of its .ndjson. */
void nx_diverged_path(const char *data_dir,
                      const struct nx_diverged_range *range,
                      char ret_path[NX_DIVERGED_PATH]);

/* Whether it is the name of a file that is being made, or that a killed process has left. */
bool nx_diverged_is_temporary(const char *name);

/* Whether a range has a regular file with this suffix. */
bool nx_diverged_stands(int dir_fd, const struct nx_diverged_range *range, const char *suffix);

struct nx_diverged_list {
    struct nx_diverged_range
        *ranges; /* in the order of their names; malloc'd, NULL when there is none */
    size_t count;
    size_t foreign;                  /* files that belong to no range */
    char foreign_name[NAME_MAX + 1]; /* one of them */
};

/* All ranges whose .ndjson stands. The caller frees ret_list->ranges. 0 or -errno. */
int nx_diverged_list(int dir_fd, struct nx_diverged_list *ret_list);

/* Calls `each` for every line of a range's .entries, without its LF, until one returns non-zero. Returns that,
 * 0 at the end; -EBADMSG: the file is none that nx_diverged_save makes (what a line holds is not looked at); or
 * -errno, as -ENOENT. */
int nx_diverged_each_entry(int dir_fd,
                           const struct nx_diverged_range *range,
                           int (*each)(void *arg, struct nx_slice line),
                           void *arg);

#endif
