/* Recovery of the log (storage/wal_recovery.h) from one or two segments whose content is the input. It ends, gives
 * entries in order, says why when it refuses; what it has mended is found again as it was given.
 *
 * The input: a byte of choices (frames' CRCs and links are made right; there is a mark; a second segment), a byte that
 * says where the second segment begins, then bytes behind the header of the first. */
#include "common/bytes.h"
#include "common/entry.h"
#include "common/wire_frame.h"
#include "fuzz.h"
#include "storage/position.h"
#include "storage/wal_recovery.h"
#include "storage/wal_segment.h"

#include <errno.h>

#define MOST ((size_t)60 << 10)
#define SIZE ((uint64_t)64 << 10) /* of a segment */

enum choices {
    MEND = 1,
    MARK = 2,
    SECOND = 4,
    UNSYNCED = 8
};

static const uint8_t cluster[16] = {1};

struct given {
    uint64_t last;
    uint32_t crcs; /* of all entries, mixed */
};

static int take(void *arg, const uint8_t *frame, size_t length)
{
    struct given *given = arg;
    struct nx_entry_header header;

    HOLDS(nx_entry_decode(frame, length, true, &header) == 0);
    HOLDS(nx_entry_validate_ops(&header) == 0);
    HOLDS(given->last == 0 || header.offset == given->last + 1);
    given->last = header.offset;
    given->crcs = given->crcs * 31 + header.crc;
    return 0;
}

/* Gives each frame that is whole the number, the link and the CRC that it should have. */
static struct nx_position mend(uint8_t *bytes, size_t n, struct nx_position last)
{
    size_t at = 0;
    size_t length;

    while (nx_entry_frame_length(bytes + at, n - at, &length) == 0 && length <= n - at) {
        struct nx_entry_header header;

        if (nx_entry_decode(bytes + at, n - at, false, &header) < 0) {
            break;
        }
        header.offset = last.offset + 1;
        header.prev_crc = last.crc;
        header.epoch = header.epoch > last.epoch + 1 ? last.epoch : header.epoch;
        header.epoch = header.epoch < 1 ? 1 : header.epoch;
        last =
            (struct nx_position){header.epoch, header.offset, nx_entry_finish(bytes + at, &header)};
        at += length;
    }
    return last;
}

static void put_segment(int dir_fd, uint64_t first, const uint8_t *bytes, size_t n)
{
    struct nx_segment_header header = {.first_offset = first, .epoch = 1};
    int fd = -1;

    memcpy(header.cluster_id, cluster, sizeof cluster);
    HOLDS(nx_segment_begin(dir_fd, &header, SIZE, &fd) == 0);
    HOLDS(nx_write_at(fd, bytes, n, NX_SEGMENT_HEADER) == 0);
    close(fd);
}

static int recover(int dir_fd,
                   bool unsynced,
                   struct given *given,
                   struct nx_recovery_result *result)
{
    struct nx_recovery_options options = {
        .dir_fd = dir_fd, .cluster_id = cluster, .unsynced = unsynced, .entry = take, .arg = given};
    char error[1024] = "";
    int rc = nx_recovery_run(&options, result, error, sizeof error);

    HOLDS(rc == 0 || error[0] != '\0');
    if (rc == 0 && result->segment_fd >= 0) {
        close(result->segment_fd);
    }
    return rc;
}

static int remove_name(void *arg, const char *name)
{
    return unlinkat(*(const int *)arg, name, 0);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int dir_fd = -1;
    static uint8_t bytes[MOST];
    struct nx_recovery_result result;
    struct nx_recovery_result again;
    struct given given = {0};
    struct given twice = {0};
    struct nx_position last = {0};
    size_t n = size - 2;
    size_t split = n;

    if (size < 3 || n > MOST) {
        return 0;
    }
    if (dir_fd < 0) {
        dir_fd = open(fuzz_directory(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        HOLDS(dir_fd >= 0);
    }
    HOLDS(nx_each_name(dir_fd, remove_name, &dir_fd) == 0);
    memcpy(bytes, data + 2, n);
    if ((data[0] & SECOND) != 0) {
        split = n * data[1] / 256;
    }
    if ((data[0] & MEND) != 0) {
        last = mend(bytes, split, last);
    }
    put_segment(dir_fd, 1, bytes, split);
    if ((data[0] & MARK) != 0) {
        struct nx_mark mark = {.position = last};
        int fd = -1;

        HOLDS(nx_mark_open(dir_fd, &mark, &fd) == 0);
        close(fd);
    }
    if ((data[0] & SECOND) != 0) {
        if ((data[0] & MEND) != 0) {
            (void)mend(bytes + split, n - split, last);
        }
        put_segment(dir_fd, last.offset + 1 + (last.offset == 0 ? 1 : 0), bytes + split, n - split);
    }
    if (recover(dir_fd, (data[0] & UNSYNCED) != 0, &given, &result) == 0) {
        HOLDS(recover(dir_fd, (data[0] & UNSYNCED) != 0, &twice, &again) == 0);
        HOLDS(given.last == twice.last && given.crcs == twice.crcs);
        HOLDS(again.cut_bytes == 0 && again.end.offset == result.end.offset &&
              again.end.crc == result.end.crc);
    }
    return 0;
}
