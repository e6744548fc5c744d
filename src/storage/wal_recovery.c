/* Recovery of the log. Runs in the walwriter, once, before anything is published; it alone touches
 * segments then, but for the checkpointer's free files. First everything is read and judged, and nothing
 * but what was read is written; only a log that is found good is mended. It owns the segment it reads and,
 * until it returns, the last one.
 *
 * Whether the end of the log is a torn group or corruption:
 *  - what the mark or the state says was durable must be there;
 *  - a segment is begun only when all before it is durable, so damage can be torn only in the last one;
 *  - a group is at most NX_ENTRY_MAX_FRAME, so readable entries further behind were durable, and with
 *    them what is damaged (not so when groups were not synced one by one). One entry could be a value
 *    that looks like one; a chain of two can't stand outside the group that is torn. */
#include "storage/wal_recovery.h"

#include "common/crc32.h"
#include "common/failpoint.h"
#include "storage/file_io.h"
#include "storage/wal_recovery_steps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LARGEST_GROUP  NX_ENTRY_MAX_FRAME
#define WHY_SIZE       160
#define PROGRESS_EVERY 4096 /* entries */

/* ---- the end of the log ---- */

/* Entries that can still be read behind the damage, in this segment and all later ones. */
static uint64_t count_readable(struct nx_recovery *r, size_t i, uint64_t at)
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

/* Why this can't be the end of the log. */
static void say_why(const struct nx_recovery *r,
                    size_t i,
                    enum nx_wal_fault fault,
                    char why[WHY_SIZE])
{
    int used = 0;

    if (i + 1 < r->count) {
        used = snprintf(why, WHY_SIZE, "the next segment begins at offset %" PRIu64,
                        r->list[i + 1].first_offset);
    }
    if (r->chain.next <= r->floor) {
        (void)snprintf(why + used, WHY_SIZE - (size_t)used,
                       "%sentries up to %" PRIu64 " were durable here", used > 0 ? " and " : "",
                       r->floor);
    } else if (used == 0) {
        (void)snprintf(why, WHY_SIZE, "%s",
                       fault == NX_WAL_UNKNOWN_OPS
                           ? "it is whole (perhaps of a later version of Nexus)"
                           : "what follows is too far behind for a torn write");
    }
}

static int refuse_damage(struct nx_recovery *r, size_t i, uint64_t at, enum nx_wal_fault fault)
{
    uint64_t readable = count_readable(r, i, at);
    char name[NX_SEGMENT_NAME];
    char why[WHY_SIZE];

    say_why(r, i, fault, why);
    return nx_recovery_refuse(
        r, -EBADMSG,
        "the log is damaged or a piece of it is missing: wal/%s, byte %" PRIu64
        ": where entry %" PRIu64 " should be stands %s, but %s; %" PRIu64
        " readable entries behind it" NX_RECOVERY_REMEDY,
        nx_recovery_name(r, i, name), at, r->chain.next, nx_wal_fault_text(fault), why, readable);
}

/* True if the damage can't be the torn last group, in the last segment. */
static int has_successors(struct nx_recovery *r, uint64_t at, bool *ret_found)
{
    struct nx_wal_survey survey = {.above = r->chain.next - 1};
    int rc = nx_wal_survey(&r->window, at + LARGEST_GROUP, &survey);

    *ret_found = survey.linked > 0 || survey.exhausted;
    return rc;
}

static int judge_end(struct nx_recovery *r, size_t i, uint64_t at, const struct nx_wal_found *found)
{
    const struct nx_position *base = &r->options->base;
    bool successors = false;
    char name[NX_SEGMENT_NAME];
    int rc = 0;

    if (found->fault == NX_WAL_WRONG_LINK && r->chain.next == base->offset + 1 &&
        at == NX_SEGMENT_HEADER) {
        return nx_recovery_refuse(
            r, -EBADMSG,
            "state and log don't belong together: the state is at " NX_POSITION_TEXT
            ", and entry %" PRIu64 " in wal/%s follows one with CRC %08" PRIx32 NX_RECOVERY_REMEDY,
            NX_POSITION_ARGS(base), r->chain.next, nx_recovery_name(r, i, name),
            found->header.prev_crc);
    }
    if (NX_PLANTED(truncate_mid_log)) {
        return 0;
    }
    if (i + 1 < r->count || r->chain.next <= r->floor || found->fault == NX_WAL_UNKNOWN_OPS) {
        return refuse_damage(r, i, at, found->fault);
    }
    rc = r->options->unsynced ? 0 : has_successors(r, at, &successors);
    if (rc < 0) {
        return nx_recovery_file_failed(r, rc, i, "reading", at);
    }
    return successors ? refuse_damage(r, i, at, found->fault) : 0;
}

/* ---- making it disk ---- */

static int mend_failed(struct nx_recovery *r, size_t i, const char *doing, int rc)
{
    char name[NX_SEGMENT_NAME];

    return nx_recovery_refuse(
        r, -EIO,
        "%s wal/%s failed in recovery: %s. What the disk holds is unknown; mend the disk before the "
        "next start",
        doing, nx_recovery_name(r, i, name), nx_errno_text(rc));
}

static int open_for_writing(struct nx_recovery *r, size_t i, int *ret_fd)
{
    char name[NX_SEGMENT_NAME];
    int fd =
        openat(r->options->dir_fd, nx_recovery_name(r, i, name), O_RDWR | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0) {
        return mend_failed(r, i, "opening", -errno);
    }
    *ret_fd = fd;
    return 0;
}

/* Makes disk of what was read of a segment since the last call. */
static int secure(struct nx_recovery *r, size_t i, int fd)
{
    int rc = nx_wal_rewrite(fd, &r->ranges[i]);

    if (rc < 0) {
        return mend_failed(r, i, "rewriting", rc);
    }
    if (fdatasync(fd) != 0) {
        return mend_failed(r, i, "syncing", -errno);
    }
    r->ranges[i] = (struct nx_wal_range){.from = 0};
    return 0;
}

static int secure_all(struct nx_recovery *r)
{
    for (size_t i = r->start; i < r->count; i++) {
        int fd = -1;
        int rc = r->ranges[i].to == 0 ? 0 : open_for_writing(r, i, &fd);

        if (rc == 0 && fd >= 0) {
            rc = secure(r, i, fd);
            close(fd);
        }
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

/* ---- reading ---- */

/* An entry that state or mark know must be theirs. */
static int check_known(struct nx_recovery *r, size_t i, const struct nx_position *found)
{
    const struct nx_position *base = &r->options->base;
    const struct nx_position *mark = &r->result.mark.position;
    char name[NX_SEGMENT_NAME];

    if (found->offset == base->offset && !nx_position_same(found, base)) {
        return nx_recovery_refuse(
            r, -EBADMSG,
            "state and log don't belong together: the state is at " NX_POSITION_TEXT
            ", the log has " NX_POSITION_TEXT " in wal/%s" NX_RECOVERY_REMEDY,
            NX_POSITION_ARGS(base), NX_POSITION_ARGS(found), nx_recovery_name(r, i, name));
    }
    if (found->offset == mark->offset && !nx_position_same(found, mark)) {
        return nx_recovery_refuse(
            r, -EBADMSG,
            "wal/durable and log don't belong together: durable was " NX_POSITION_TEXT
            ", the log has " NX_POSITION_TEXT " in wal/%s" NX_RECOVERY_REMEDY,
            NX_POSITION_ARGS(mark), NX_POSITION_ARGS(found), nx_recovery_name(r, i, name));
    }
    return 0;
}

static void report_progress(const struct nx_recovery *r, bool always)
{
    const struct nx_recovery_options *options = r->options;
    uint64_t offset = r->chain.next - 1;

    if (options->progress != NULL && (always || offset % PROGRESS_EVERY == 0)) {
        options->progress(options->arg, offset, r->floor > offset ? r->floor : offset);
    }
}

static int replay(struct nx_recovery *r, const struct nx_wal_found *found)
{
    const struct nx_recovery_options *options = r->options;
    int rc;

    while ((rc = options->entry(options->arg, found->frame, found->header.frame_length)) ==
           -EAGAIN) {
        rc = secure_all(r);
        if (rc < 0) {
            return rc; /* said already */
        }
        rc = options->wait(options->arg);
        if (rc < 0) {
            break;
        }
    }
    if (rc < 0) {
        return nx_recovery_refuse(r, rc, "replaying entry %" PRIu64 ": %s", found->header.offset,
                                  nx_errno_text(rc));
    }
    r->result.replayed++;
    return 0;
}

static int accept(struct nx_recovery *r, size_t i, uint64_t at, const struct nx_wal_found *found)
{
    const struct nx_entry_header *header = &found->header;
    struct nx_position position = {header->epoch, header->offset, header->crc};
    struct nx_wal_range *range = &r->ranges[i];
    int rc = check_known(r, i, &position);

    if (rc < 0) {
        return rc;
    }
    if (header->offset > r->options->base.offset) {
        rc = replay(r, found);
        if (rc < 0) {
            return rc;
        }
    }
    if (header->offset > r->result.mark.position.offset) {
        range->from = range->to == 0 ? at : range->from;
        range->to = at + header->frame_length;
        range->crc = nx_crc32(range->crc, found->frame, header->frame_length);
    }
    nx_wal_chain_add(&r->chain, header);
    r->result.end = position;
    r->result.end_timestamp = header->timestamp;
    report_progress(r, false);
    return 0;
}

static int scan_segment(struct nx_recovery *r, size_t i)
{
    uint64_t at = NX_SEGMENT_HEADER;
    int rc = nx_recovery_open(r, i);

    while (rc == 0) {
        bool border = i + 1 < r->count && r->chain.next == r->list[i + 1].first_offset;
        struct nx_wal_found found;

        rc = nx_wal_judge(&r->window, at, &r->chain, &found);
        if (rc < 0) {
            return nx_recovery_file_failed(r, rc, i, "reading", at);
        }
        if (border && found.fault == NX_WAL_FINE) {
            char name[NX_SEGMENT_NAME];
            char next[NX_SEGMENT_NAME];

            return nx_recovery_refuse(
                r, -EBADMSG,
                "the log stands there twice: entry %" PRIu64 " is in wal/%s at byte "
                "%" PRIu64 ", and wal/%s begins with it" NX_RECOVERY_REMEDY,
                r->chain.next, nx_recovery_name(r, i, name), at, nx_recovery_name(r, i + 1, next));
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

/* Zeros of what is cut, and disk of what was read. The segment stays open, the caller's. */
static int mend_last(struct nx_recovery *r, size_t i)
{
    int fd = -1;
    int rc = open_for_writing(r, i, &fd);

    if (rc < 0) {
        return rc;
    }
    rc = nx_wal_cut(fd, r->at, &r->result.cut_bytes);
    rc = rc < 0 ? mend_failed(r, i, "cutting", rc) : secure(r, i, fd);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    r->result.segment_fd = fd;
    r->result.segment_first = r->list[i].first_offset;
    r->result.segment_at = r->at;
    r->result.segment_size = r->window.size;
    return 0;
}

static int mend(struct nx_recovery *r)
{
    int rc = secure_all(r);

    if (rc == 0 && r->count > r->start) {
        rc = mend_last(r, r->count - 1);
    }
    if (rc < 0) {
        return rc;
    }
    if (fsync(r->options->dir_fd) != 0) {
        return nx_recovery_refuse(r, -EIO,
                                  "syncing the directory wal failed at the end of recovery: %s",
                                  nx_errno_text(errno));
    }
    return 0;
}

static int run(struct nx_recovery *r)
{
    int rc = nx_recovery_begin(r);

    if (rc < 0) {
        return rc;
    }
    report_progress(r, true);
    r->ranges = calloc(r->count + 1, sizeof *r->ranges);
    if (r->ranges == NULL) {
        return nx_recovery_refuse(r, -ENOMEM, "recovery of the log: %s", nx_errno_text(-ENOMEM));
    }
    for (size_t i = r->start; rc == 0 && i < r->count; i++) {
        rc = scan_segment(r, i);
    }
    return rc < 0 ? rc : mend(r);
}

int nx_recovery_run(const struct nx_recovery_options *options,
                    struct nx_recovery_result *ret_result,
                    char *error,
                    size_t cap)
{
    struct nx_recovery r = {.options = options, .cap = cap};
    int rc;

    r.error = error;
    nx_wal_window_init(&r.window);
    r.chain.next = options->base.offset + 1;
    r.result.end = options->base;
    r.result.segment_fd = -1;
    rc = run(&r);
    if (rc == 0) {
        r.result.oldest_offset = r.count > 0 ? r.list[0].first_offset : r.result.end.offset + 1;
        report_progress(&r, true);
        *ret_result = r.result;
    }
    nx_wal_window_done(&r.window);
    free(r.ranges);
    free(r.list);
    return rc;
}
