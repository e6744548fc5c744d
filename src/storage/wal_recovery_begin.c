/* The first look of recovery: do state, mark and segments belong together? Runs in the walwriter. It
 * reads and writes nothing. */
#include "storage/file_io.h"
#include "storage/wal_recovery_steps.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

int nx_recovery_refuse(struct nx_recovery *r, int rc, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(r->error, r->cap, format, args);
    va_end(args);
    return rc;
}

const char *nx_recovery_name(const struct nx_recovery *r, size_t i, char name[NX_SEGMENT_NAME])
{
    nx_segment_name(r->list[i].first_offset, name);
    return name;
}

int nx_recovery_file_failed(struct nx_recovery *r, int rc, size_t i, const char *doing, uint64_t at)
{
    char name[NX_SEGMENT_NAME];

    return nx_recovery_refuse(r, rc, "%s wal/%s at byte %" PRIu64 ": %s", doing,
                              nx_recovery_name(r, i, name), at, nx_errno_text(rc));
}

bool nx_position_same(const struct nx_position *a, const struct nx_position *b)
{
    return a->offset == b->offset && a->epoch == b->epoch && a->crc == b->crc;
}

/* ---- before reading ---- */

static int read_mark(struct nx_recovery *r)
{
    const struct nx_position *base = &r->options->base;
    const struct nx_position *mark = &r->result.mark.position;
    int rc = nx_mark_read(r->options->dir_fd, &r->result.mark);

    if (rc == -ENOENT && r->count == 0 && base->offset == 0) {
        return 0;
    }
    if (rc == -ENOENT) {
        return nx_recovery_refuse(
            r, -EBADMSG,
            "wal/durable is missing, though %zu segments and a state at offset %" PRIu64
            " are there, so the end of the log can't be judged" NX_RECOVERY_REMEDY,
            r->count, base->offset);
    }
    if (rc == -EBADMSG) {
        return nx_recovery_refuse(
            r, rc,
            "wal/durable is damaged (size or CRC), so the end of the log can't be "
            "judged" NX_RECOVERY_REMEDY);
    }
    if (rc < 0) {
        return nx_recovery_refuse(r, rc, "reading wal/durable: %s", nx_errno_text(rc));
    }
    if (mark->offset == base->offset && !nx_position_same(mark, base)) {
        return nx_recovery_refuse(
            r, -EBADMSG,
            "state and wal/durable don't belong together: the state is at " NX_POSITION_TEXT
            ", wal/durable at " NX_POSITION_TEXT NX_RECOVERY_REMEDY,
            NX_POSITION_ARGS(base), NX_POSITION_ARGS(mark));
    }
    r->floor = mark->offset > base->offset ? mark->offset : base->offset;
    return 0;
}

/* No segment at all: nothing was ever written, or all of it is in the state (after a full sync). */
static int judge_empty(struct nx_recovery *r)
{
    uint64_t base = r->options->base.offset;

    if (r->floor > base) {
        return nx_recovery_refuse(
            r, -EBADMSG,
            "the log is missing: wal/ holds no segments, but entries %" PRIu64 " to %" PRIu64
            " were durable (wal/durable) and the state ends at %" PRIu64 NX_RECOVERY_REMEDY,
            base + 1, r->floor, base);
    }
    return 0;
}

/* The segment with the state's own entry, to compare the two; else the one right behind it. */
static int find_start(struct nx_recovery *r)
{
    uint64_t base = r->options->base.offset;
    char name[NX_SEGMENT_NAME];

    if (r->list[0].first_offset > base + 1) {
        return nx_recovery_refuse(
            r, -EBADMSG,
            "the log doesn't continue the state: the state ends at offset %" PRIu64
            ", the oldest segment is wal/%s: entries %" PRIu64 " to %" PRIu64
            " are missing" NX_RECOVERY_REMEDY,
            base, nx_recovery_name(r, 0, name), base + 1, r->list[0].first_offset - 1);
    }
    r->start = 0;
    for (size_t i = 1; i < r->count && r->list[i].first_offset <= base; i++) {
        r->start = i;
    }
    r->chain = (struct nx_wal_chain){.next = r->list[r->start].first_offset};
    if (r->chain.next == base + 1) {
        r->chain.epoch = r->options->base.epoch;
        r->chain.crc = r->options->base.crc;
        r->chain.linked = base == 0 || r->chain.crc != 0;
    } else if (r->chain.next == 1) {
        r->chain.linked = true; /* to nothing: prev_crc 0 */
    }
    return 0;
}

/* Whether the file that was listed has gone meanwhile: the checkpointer may recycle old ones. */
static bool is_gone(const struct nx_recovery *r, size_t i)
{
    char name[NX_SEGMENT_NAME];
    struct stat st;

    return fstatat(r->options->dir_fd, nx_recovery_name(r, i, name), &st, AT_SYMLINK_NOFOLLOW) !=
               0 &&
           errno == ENOENT;
}

int nx_recovery_open(struct nx_recovery *r, size_t i)
{
    const char *why = "";
    char name[NX_SEGMENT_NAME];
    int rc = nx_wal_window_open(&r->window, r->options->dir_fd, r->list[i].first_offset,
                                r->options->cluster_id, &why);

    if (rc == -EBADMSG) {
        return nx_recovery_refuse(r, rc, "wal/%s can't be used: %s" NX_RECOVERY_REMEDY,
                                  nx_recovery_name(r, i, name), why);
    }
    return rc < 0 ? nx_recovery_file_failed(r, rc, i, "opening", 0) : 0;
}

/* Segments that needn't be read, because the state has all of them, are only looked at: each header, and
 * that each ends with the entry that the next one continues. */
static int check_link(struct nx_recovery *r, size_t i)
{
    char name[NX_SEGMENT_NAME];
    char next[NX_SEGMENT_NAME];
    bool linked = false;
    int rc = nx_wal_segments_linked(r->options->dir_fd, &r->list[i], &r->list[i + 1], &linked);

    if ((rc < 0 || !linked) && is_gone(r, i)) {
        return 0;
    }
    if (rc < 0) {
        return nx_recovery_file_failed(r, rc, i, "reading", 0);
    }
    if (!linked) {
        return nx_recovery_refuse(
            r, -EBADMSG,
            "the log has a hole: wal/%s doesn't end with the entry that wal/%s continues; a "
            "segment between them is missing, or one of them is damaged or not of this "
            "log" NX_RECOVERY_REMEDY,
            nx_recovery_name(r, i, name), nx_recovery_name(r, i + 1, next));
    }
    return 0;
}

static int check_older(struct nx_recovery *r)
{
    for (size_t i = 0; i <= r->start; i++) {
        int rc = nx_recovery_open(r, i);

        if (rc < 0 && (i == r->start || !is_gone(r, i))) {
            return rc;
        }
    }
    for (size_t i = 0; i < r->start; i++) {
        int rc = check_link(r, i);

        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

int nx_recovery_begin(struct nx_recovery *r)
{
    int rc = nx_segment_list(r->options->dir_fd, &r->list, &r->count);

    if (rc < 0) {
        return nx_recovery_refuse(r, rc, "listing the directory wal: %s", nx_errno_text(rc));
    }
    rc = read_mark(r);
    if (rc < 0 || r->count == 0) {
        return rc < 0 ? rc : judge_empty(r);
    }
    rc = find_start(r);
    return rc < 0 ? rc : check_older(r);
}
