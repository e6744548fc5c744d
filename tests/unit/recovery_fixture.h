/* Running recovery in a test: what it gave to its callback, and what the result must be. */
#ifndef NX_TESTS_RECOVERY_FIXTURE_H
#define NX_TESTS_RECOVERY_FIXTURE_H

#include "storage/wal_recovery.h"
#include "wal_fixture.h"

#include <check.h>

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

#define FIRST "00000000000000000001.wal"
#define GROUP ((uint64_t)16 << 20) /* largest */

static struct wal wal;

static inline void setup(void)
{
    wal_open(&wal);
}

static inline void teardown(void)
{
    wal_close(&wal);
}

/* ---- running it ---- */

struct run {
    struct nx_position base;
    uint8_t cluster[16];
    bool unsynced;
    int rc;
    char error[1024];
    struct nx_recovery_result result;
    uint64_t first; /* entries given to the callback */
    uint64_t last;
    uint64_t progress;
    int stop_rc; /* what the callback answers at stop_at */
    uint64_t stop_at;
};

static inline int take_entry(void *arg, const uint8_t *frame, size_t length)
{
    struct run *run = arg;
    struct nx_entry_header header;

    ck_assert_int_eq(nx_entry_decode(frame, length, true, &header), 0);
    ck_assert_uint_eq(header.frame_length, length);
    if (run->last == 0) {
        run->first = header.offset;
    } else {
        ck_assert_uint_eq(header.offset, run->last + 1);
    }
    run->last = header.offset;
    return header.offset == run->stop_at ? run->stop_rc : 0;
}

static inline void take_progress(void *arg, uint64_t offset, uint64_t goal)
{
    struct run *run = arg;

    ck_assert_uint_ge(offset, run->progress);
    ck_assert_uint_ge(goal, offset);
    run->progress = offset;
}

static inline void recover_with(struct run *run)
{
    struct nx_recovery_options options = {
        .dir_fd = wal.dir_fd,
        .base = run->base,
        .cluster_id = run->cluster,
        .unsynced = run->unsynced,
        .entry = take_entry,
        .progress = take_progress,
        .arg = run,
    };

    memcpy(run->cluster, test_cluster, sizeof test_cluster);
    run->result = (struct nx_recovery_result){.segment_fd = -1};
    run->rc = nx_recovery_run(&options, &run->result, run->error, sizeof run->error);
    if (run->result.segment_fd >= 0) {
        close(run->result.segment_fd);
    }
}

static inline struct run recover_from(const struct nx_position *base)
{
    struct run run = {.base = *base};

    recover_with(&run);
    return run;
}

static inline struct run recover(void)
{
    static const struct nx_position nothing;

    return recover_from(&nothing);
}

static inline void assert_end(const struct run *run, const struct nx_position *end)
{
    ck_assert_msg(run->rc == 0, "refused: %s", run->error);
    ck_assert_uint_eq(run->result.end.offset, end->offset);
    ck_assert_uint_eq(run->result.end.epoch, end->epoch);
    ck_assert_uint_eq(run->result.end.crc, end->crc);
}

/* Recovers, expects the log to end there with something cut, and the same end at a second time, clean:
 * and that the log can go on. */
static inline void assert_cut_to(const struct nx_position *end, uint64_t at)
{
    struct run run = recover();
    struct run again;

    assert_end(&run, end);
    ck_assert_uint_eq(run.last, end->offset);
    ck_assert_uint_gt(run.result.cut_bytes, 0);
    ck_assert_uint_eq(run.result.segment_at, at);
    again = recover();
    assert_end(&again, end);
    ck_assert_uint_eq(again.result.cut_bytes, 0);
    ck_assert_uint_eq(again.result.segment_at, at);

    wal.last = *end;
    wal.at = at;
    wal_append_n(&wal, 3);
    again = recover();
    assert_end(&again, &wal.last);
}

static inline void assert_refused(const struct run *run, const char *const *words, size_t count)
{
    ck_assert_msg(run->rc == -EBADMSG, "rc %d, end %" PRIu64, run->rc, run->result.end.offset);
    for (size_t i = 0; i < count; i++) {
        ck_assert_msg(strstr(run->error, words[i]) != NULL, "\"%s\" is not in: %s", words[i],
                      run->error);
    }
}

#define ASSERT_REFUSED(run, ...)                                       \
    do {                                                               \
        static const char *const words_[] = {__VA_ARGS__};             \
        assert_refused(run, words_, sizeof words_ / sizeof words_[0]); \
    } while (0)

static struct nx_position good_end;
static uint64_t good_at;

/* Ten entries, five of them known durable, and where they end. */
static inline void good_log(void)
{
    wal_append_n(&wal, 5);
    wal_mark(&wal, &wal.last);
    wal_append_n(&wal, 5);
    good_end = wal.last;
    good_at = wal.at;
}

#endif
