/* Recovery of the log. Runs in the walwriter, once, before anything is published; it alone touches
 * segments then, but for the checkpointer's free files. First everything is read and judged, and nothing
 * is written; only a log that is found good is mended. It owns the segment it reads and, until it
 * returns, the last one.
 *
 * Whether the end of the log is a torn group or corruption:
 *  - what the mark or the state says was durable must be there;
 *  - a segment is begun only when all before it is durable, so damage can be torn only in the last one;
 *  - a group is at most NX_ENTRY_MAX_FRAME, so readable entries further behind were durable, and with
 *    them what is damaged. One entry could be a value that looks like one; a chain of two can't stand
 *    outside the group that is torn. */
#include "storage/wal_recovery.h"

#include "common/crc32.h"
#include "storage/file_io.h"
#include "storage/wal_mend.h"
#include "storage/wal_scan.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LARGEST_GROUP  NX_ENTRY_MAX_FRAME
#define PROGRESS_EVERY 4096 /* entries */

#define REMEDY                                                                                     \
    "; nothing was changed. Recover this node from a replica (start it with an empty data "        \
    "directory and let it follow one) or from a snapshot"

#define POSITION         "offset %" PRIu64 ", epoch %" PRIu64 ", CRC %08" PRIx32
#define POSITION_OF(pos) (pos)->offset, (pos)->epoch, (pos)->crc

struct recovery {
    const struct nx_recovery_options *options;
    struct nx_segment_info *list;
    struct nx_wal_range *ranges; /* one a segment: what is above the mark */
    size_t count;
    size_t start;                /* index of the first segment that is read */
    uint64_t floor;              /* entries up to here were durable */
    struct nx_wal_window window;
    struct nx_wal_chain chain;
    uint64_t at;                 /* in the last segment: where the log ends */
    struct nx_recovery_result result;
    char *error;
    size_t cap;
};

static int refuse(struct recovery *r, int rc, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int refuse(struct recovery *r, int rc, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(r->error, r->cap, format, args);
    va_end(args);
    return rc;
}

static const char *name_of(const struct recovery *r, size_t i, char name[NX_SEGMENT_NAME])
{
    nx_segment_name(r->list[i].first_offset, name);
    return name;
}

static int file_failed(struct recovery *r, int rc, size_t i, const char *doing, uint64_t at)
{
    char name[NX_SEGMENT_NAME];

    return refuse(r, rc, "%s wal/%s at byte %" PRIu64 ": %s", doing, name_of(r, i, name), at,
                  nx_errno_text(rc));
}

static bool same_position(const struct nx_position *a, const struct nx_position *b)
{
    return a->offset == b->offset && a->epoch == b->epoch && a->crc == b->crc;
}

/* ---- before reading ---- */

static int read_mark(struct recovery *r)
{
    const struct nx_position *base = &r->options->base;
    const struct nx_position *mark = &r->result.mark.position;
    int rc = nx_mark_read(r->options->dir_fd, &r->result.mark);

    if (rc == -ENOENT && r->count == 0 && base->offset == 0) {
        return 0;
    }
    if (rc == -ENOENT) {
        return refuse(r, -EBADMSG,
                      "wal/durable is missing, though %zu segments and a state at offset %" PRIu64
                      " are there, so the end of the log can't be judged" REMEDY,
                      r->count, base->offset);
    }
    if (rc == -EBADMSG) {
        return refuse(r, rc, "wal/durable is damaged (size or CRC), so the end of the log can't be "
                             "judged" REMEDY);
    }
    if (rc < 0) {
        return refuse(r, rc, "reading wal/durable: %s", nx_errno_text(rc));
    }
    if (mark->offset == base->offset && !same_position(mark, base)) {
        return refuse(r, -EBADMSG,
                      "state and wal/durable don't belong together: the state is at " POSITION
                      ", wal/durable at " POSITION REMEDY,
                      POSITION_OF(base), POSITION_OF(mark));
    }
    r->floor = mark->offset > base->offset ? mark->offset : base->offset;
    return 0;
}

/* No segment at all: nothing was ever written, or all of it is in the state (after a full sync). */
static int judge_empty(struct recovery *r)
{
    uint64_t base = r->options->base.offset;

    if (r->floor > base) {
        return refuse(r, -EBADMSG,
                      "the log is missing: wal/ holds no segments, but entries %" PRIu64
                      " to %" PRIu64 " were durable (wal/durable) and the state ends at %" PRIu64
                      REMEDY,
                      base + 1, r->floor, base);
    }
    return 0;
}

/* The segment with the state's own entry, to compare the two; else the one right behind it. */
static int find_start(struct recovery *r)
{
    uint64_t base = r->options->base.offset;
    char name[NX_SEGMENT_NAME];

    if (r->list[0].first_offset > base + 1) {
        return refuse(r, -EBADMSG,
                      "the log doesn't continue the state: the state ends at offset %" PRIu64
                      ", the oldest segment is wal/%s: entries %" PRIu64 " to %" PRIu64
                      " are missing" REMEDY,
                      base, name_of(r, 0, name), base + 1, r->list[0].first_offset - 1);
    }
    r->start = 0;
    for (size_t i = 1; i < r->count && r->list[i].first_offset <= base; i++) {
        r->start = i;
    }
    r->chain = (struct nx_wal_chain){.next = r->list[r->start].first_offset};
    if (r->chain.next == base + 1) {
        r->chain.epoch = r->options->base.epoch;
        r->chain.crc = r->options->base.crc;
        r->chain.linked = true;
    } else if (r->chain.next == 1) {
        r->chain.linked = true; /* to nothing: prev_crc 0 */
    }
    return 0;
}

/* Whether the file that was listed has gone meanwhile: the checkpointer may recycle old ones. */
static bool is_gone(const struct recovery *r, size_t i)
{
    char name[NX_SEGMENT_NAME];
    struct stat st;

    return fstatat(r->options->dir_fd, name_of(r, i, name), &st, AT_SYMLINK_NOFOLLOW) != 0 &&
           errno == ENOENT;
}

static int open_segment(struct recovery *r, size_t i)
{
    const char *why = "";
    char name[NX_SEGMENT_NAME];
    int rc = nx_wal_window_open(&r->window, r->options->dir_fd, r->list[i].first_offset,
                                r->options->cluster_id, &why);

    if (rc == -EBADMSG) {
        return refuse(r, rc, "wal/%s can't be used: %s" REMEDY, name_of(r, i, name), why);
    }
    return rc < 0 ? file_failed(r, rc, i, "opening", 0) : 0;
}

/* Segments that needn't be read, because the state has all of them, are only looked at: each header, and
 * that each ends with the entry that the next one continues. */
static int check_older(struct recovery *r)
{
    for (size_t i = 0; i < r->start; i++) {
        char name[NX_SEGMENT_NAME];
        char next[NX_SEGMENT_NAME];
        bool linked = false;
        int rc = open_segment(r, i);

        rc = rc < 0 ? rc
                    : nx_wal_segments_linked(r->options->dir_fd, &r->list[i], &r->list[i + 1],
                                             &linked);
        if ((rc < 0 || !linked) && is_gone(r, i)) {
            continue;
        }
        if (rc < 0) {
            return rc == -EBADMSG ? rc : file_failed(r, rc, i, "reading", 0);
        }
        if (!linked) {
            return refuse(r, -EBADMSG,
                          "the log has a hole: wal/%s doesn't end with the entry that wal/%s "
                          "continues; a segment between them is missing, or one of them is damaged "
                          "or not of this log" REMEDY,
                          name_of(r, i, name), name_of(r, i + 1, next));
        }
    }
    return 0;
}

/* ---- the end of the log ---- */

/* Entries that can still be read behind the damage, in this segment and all later ones. */
static uint64_t count_readable(struct recovery *r, size_t i, uint64_t at)
{
    struct nx_wal_survey survey = {.above = r->chain.next - 1};
    const char *why = "";

    for (;;) {
        if (nx_wal_survey(&r->window, at, &survey) < 0 || ++i >= r->count ||
            nx_wal_window_open(&r->window, r->options->dir_fd, r->list[i].first_offset, NULL,
                               &why) < 0) {
            break;
        }
        at = NX_SEGMENT_HEADER;
    }
    return survey.readable;
}

static int refuse_damage(struct recovery *r, size_t i, uint64_t at, enum nx_wal_fault fault)
{
    uint64_t readable = count_readable(r, i, at);
    char name[NX_SEGMENT_NAME];
    char why[128];

    if (r->chain.next <= r->floor) {
        (void)snprintf(why, sizeof why, "entries up to %" PRIu64 " were durable here", r->floor);
    } else if (i + 1 < r->count) {
        (void)snprintf(why, sizeof why, "the next segment begins at offset %" PRIu64,
                       r->list[i + 1].first_offset);
    } else {
        (void)snprintf(why, sizeof why, "what follows is too far behind for a torn write");
    }
    return refuse(r, -EBADMSG,
                  "the log is damaged or a piece of it is missing: wal/%s, byte %" PRIu64
                  ": where entry %" PRIu64 " should be stands %s, but %s; %" PRIu64
                  " readable entries behind it" REMEDY,
                  name_of(r, i, name), at, r->chain.next, nx_wal_fault_text(fault), why, readable);
}

/* True if the damage can't be the torn last group, in the last segment. */
static int has_successors(struct recovery *r, uint64_t at, bool *ret_found)
{
    struct nx_wal_survey survey = {.above = r->chain.next - 1};
    int rc = nx_wal_survey(&r->window, at + LARGEST_GROUP, &survey);

    *ret_found = survey.linked > 0 || survey.exhausted;
    return rc;
}

static int judge_end(struct recovery *r, size_t i, uint64_t at, const struct nx_wal_found *found)
{
    const struct nx_position *base = &r->options->base;
    bool successors = false;
    char name[NX_SEGMENT_NAME];
    int rc = 0;

    if (found->fault == NX_WAL_WRONG_LINK && r->chain.next == base->offset + 1 &&
        at == NX_SEGMENT_HEADER) {
        return refuse(r, -EBADMSG,
                      "state and log don't belong together: the state is at " POSITION
                      ", and entry %" PRIu64 " in wal/%s follows one with CRC %08" PRIx32 REMEDY,
                      POSITION_OF(base), r->chain.next, name_of(r, i, name),
                      found->header.prev_crc);
    }
    if (i + 1 < r->count || r->chain.next <= r->floor || found->fault == NX_WAL_UNKNOWN_OPS) {
        return refuse_damage(r, i, at, found->fault);
    }
    rc = has_successors(r, at, &successors);
    if (rc < 0) {
        return file_failed(r, rc, i, "reading", at);
    }
    return successors ? refuse_damage(r, i, at, found->fault) : 0;
}

/* ---- reading ---- */

/* An entry that state or mark know must be theirs. */
static int check_known(struct recovery *r, size_t i, const struct nx_position *found)
{
    const struct nx_position *base = &r->options->base;
    const struct nx_position *mark = &r->result.mark.position;
    char name[NX_SEGMENT_NAME];

    if (found->offset == base->offset && !same_position(found, base)) {
        return refuse(r, -EBADMSG,
                      "state and log don't belong together: the state is at " POSITION
                      ", the log has " POSITION " in wal/%s" REMEDY,
                      POSITION_OF(base), POSITION_OF(found), name_of(r, i, name));
    }
    if (found->offset == mark->offset && !same_position(found, mark)) {
        return refuse(r, -EBADMSG,
                      "wal/durable and log don't belong together: durable was " POSITION
                      ", the log has " POSITION " in wal/%s" REMEDY,
                      POSITION_OF(mark), POSITION_OF(found), name_of(r, i, name));
    }
    return 0;
}

static void report_progress(const struct recovery *r, bool always)
{
    const struct nx_recovery_options *options = r->options;
    uint64_t offset = r->chain.next - 1;

    if (options->progress != NULL && (always || offset % PROGRESS_EVERY == 0)) {
        options->progress(options->arg, offset, r->floor > offset ? r->floor : offset);
    }
}

static int accept(struct recovery *r, size_t i, uint64_t at, const struct nx_wal_found *found)
{
    const struct nx_recovery_options *options = r->options;
    const struct nx_entry_header *header = &found->header;
    struct nx_position position = {header->epoch, header->offset, header->crc};
    struct nx_wal_range *range = &r->ranges[i];
    int rc = check_known(r, i, &position);

    if (rc < 0) {
        return rc;
    }
    if (header->offset > r->result.mark.position.offset) {
        range->from = range->to == 0 ? at : range->from;
        range->to = at + header->frame_length;
        range->crc = nx_crc32(range->crc, found->frame, header->frame_length);
    }
    if (header->offset > options->base.offset) {
        rc = options->entry(options->arg, found->frame, header->frame_length);
        if (rc < 0) {
            return refuse(r, rc, "replaying entry %" PRIu64 ": %s", header->offset,
                          nx_errno_text(rc));
        }
        r->result.replayed++;
    }
    nx_wal_chain_add(&r->chain, header);
    r->result.end = position;
    r->result.end_timestamp = header->timestamp;
    report_progress(r, false);
    return 0;
}

static int scan_segment(struct recovery *r, size_t i)
{
    uint64_t at = NX_SEGMENT_HEADER;
    int rc = open_segment(r, i);

    while (rc == 0) {
        bool border = i + 1 < r->count && r->chain.next == r->list[i + 1].first_offset;
        struct nx_wal_found found;

        rc = nx_wal_judge(&r->window, at, &r->chain, &found);
        if (rc < 0) {
            return file_failed(r, rc, i, "reading", at);
        }
        if (border && found.fault == NX_WAL_FINE) {
            char name[NX_SEGMENT_NAME];
            char next[NX_SEGMENT_NAME];

            return refuse(r, -EBADMSG,
                          "the log stands there twice: entry %" PRIu64 " is in wal/%s at byte "
                          "%" PRIu64 ", and wal/%s begins with it" REMEDY,
                          r->chain.next, name_of(r, i, name), at, name_of(r, i + 1, next));
        }
        if (border) {
            return 0;
        }
        if (found.fault != NX_WAL_FINE) {
            r->at = at;
            return judge_end(r, i, at, &found);
        }
        rc = accept(r, i, at, &found);
        at += found.header.frame_length;
    }
    return rc;
}

/* ---- mending ---- */

static int mend_failed(struct recovery *r, size_t i, const char *doing, int rc)
{
    char name[NX_SEGMENT_NAME];

    return refuse(r, -EIO,
                  "%s wal/%s failed at the end of recovery: %s. What the disk holds is unknown; mend "
                  "the disk before the next start",
                  doing, name_of(r, i, name), nx_errno_text(rc));
}

/* Makes disk of what was read, and zeros of what is cut. The last segment stays open. */
static int mend_segment(struct recovery *r, size_t i)
{
    bool last = i + 1 == r->count;
    char name[NX_SEGMENT_NAME];
    const char *doing = "opening";
    int rc = 0;
    int fd;

    if (!last && r->ranges[i].to == 0) {
        return 0;
    }
    fd = openat(r->options->dir_fd, name_of(r, i, name), O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return mend_failed(r, i, doing, -errno);
    }
    if (last) {
        doing = "cutting";
        rc = nx_wal_cut(fd, r->at, &r->result.cut_bytes);
    }
    if (rc == 0) {
        doing = "rewriting";
        rc = nx_wal_rewrite(fd, &r->ranges[i]);
    }
    if (rc == 0 && fdatasync(fd) != 0) {
        doing = "syncing";
        rc = -errno;
    }
    if (rc < 0 || !last) {
        close(fd);
        return rc < 0 ? mend_failed(r, i, doing, rc) : 0;
    }
    r->result.segment_fd = fd;
    r->result.segment_first = r->list[i].first_offset;
    r->result.segment_at = r->at;
    r->result.segment_size = r->window.size;
    return 0;
}

static int mend(struct recovery *r)
{
    for (size_t i = r->start; i < r->count; i++) {
        int rc = mend_segment(r, i);

        if (rc < 0) {
            return rc;
        }
    }
    if (fsync(r->options->dir_fd) != 0) {
        return refuse(r, -EIO, "syncing the directory wal failed at the end of recovery: %s",
                      nx_errno_text(errno));
    }
    return 0;
}

static int run(struct recovery *r)
{
    int rc = nx_segment_list(r->options->dir_fd, &r->list, &r->count);

    if (rc < 0) {
        return refuse(r, rc, "listing the directory wal: %s", nx_errno_text(rc));
    }
    rc = read_mark(r);
    if (rc < 0) {
        return rc;
    }
    if (r->count == 0) {
        rc = judge_empty(r);
        return rc < 0 ? rc : mend(r);
    }
    r->ranges = calloc(r->count, sizeof *r->ranges);
    if (r->ranges == NULL) {
        return refuse(r, -ENOMEM, "recovery of the log: %s", nx_errno_text(-ENOMEM));
    }
    rc = find_start(r);
    rc = rc < 0 ? rc : check_older(r);
    for (size_t i = r->start; rc == 0 && i < r->count; i++) {
        rc = scan_segment(r, i);
    }
    return rc < 0 ? rc : mend(r);
}

int nx_recovery_run(const struct nx_recovery_options *options, struct nx_recovery_result *ret_result,
                    char *error, size_t cap)
{
    struct recovery r = {.options = options, .error = error, .cap = cap};
    int rc;

    nx_wal_window_init(&r.window);
    r.chain.next = options->base.offset + 1;
    r.result.end = options->base;
    r.result.segment_fd = -1;
    rc = run(&r);
    if (rc == 0) {
        r.result.oldest_offset =
            r.count > 0 ? r.list[0].first_offset : r.result.end.offset + 1;
        report_progress(&r, true);
        *ret_result = r.result;
    }
    nx_wal_window_done(&r.window);
    free(r.ranges);
    free(r.list);
    return rc;
}
