/* The mark `wal/durable`. Written by the walwriter, read at start and by tools. It owns nothing beyond a
 * call. */
#include "common/bytes.h"
#include "common/crc32.h"
#include "storage/file_io.h"
#include "storage/wal_segment.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#define MARK_NAME "durable"
#define AT_CRC    (NX_MARK_SIZE - 4)

static_assert(8 + 8 + 4 + 1 + 8 + 8 + 4 == NX_MARK_SIZE, "layout of the mark");

void nx_mark_encode(const struct nx_mark *mark, uint8_t ret_bytes[NX_MARK_SIZE])
{
    struct nx_writer writer = nx_writer_of(ret_bytes, NX_MARK_SIZE);

    nx_write_u64(&writer, mark->position.epoch);
    nx_write_u64(&writer, mark->position.offset);
    nx_write_u32(&writer, mark->position.crc);
    nx_write_u8(&writer, mark->mode);
    nx_write_u64(&writer, mark->quorum_epoch);
    nx_write_u64(&writer, mark->quorum_offset);
    nx_write_u32(&writer, nx_crc32(0, ret_bytes, AT_CRC));
    assert(writer.used == NX_MARK_SIZE);
}

int nx_mark_decode(const uint8_t bytes[NX_MARK_SIZE], struct nx_mark *ret_mark)
{
    struct nx_reader reader = nx_reader_of(bytes, NX_MARK_SIZE);
    struct nx_mark mark;

    mark.position.epoch = nx_read_u64(&reader);
    mark.position.offset = nx_read_u64(&reader);
    mark.position.crc = nx_read_u32(&reader);
    mark.mode = nx_read_bool(&reader) ? 1 : 0;
    mark.quorum_epoch = nx_read_u64(&reader);
    mark.quorum_offset = nx_read_u64(&reader);
    if (nx_read_u32(&reader) != nx_crc32(0, bytes, AT_CRC) || reader.bad) {
        return -EBADMSG;
    }
    *ret_mark = mark;
    return 0;
}

int nx_mark_open(int dir_fd, const struct nx_mark *mark, int *ret_fd)
{
    uint8_t bytes[NX_MARK_SIZE];
    int fd = openat(dir_fd, MARK_NAME, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
    int rc;

    nx_mark_encode(mark, bytes);
    if (fd < 0) {
        rc = errno == ENOENT ? nx_file_replace_at(dir_fd, MARK_NAME, bytes, sizeof bytes, 0600)
                             : -errno;
        if (rc < 0) {
            return rc;
        }
        fd = openat(dir_fd, MARK_NAME, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0) {
            return -errno;
        }
    } else {
        rc = nx_write_at(fd, bytes, sizeof bytes, 0);
        if (rc < 0) {
            close(fd);
            return rc;
        }
    }
    *ret_fd = fd;
    return 0;
}

int nx_mark_read(int dir_fd, struct nx_mark *ret_mark)
{
    uint8_t bytes[NX_MARK_SIZE + 1];
    size_t n = 0;
    int fd = openat(dir_fd, MARK_NAME, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    int rc;

    if (fd < 0) {
        return -errno;
    }
    rc = nx_read_some(fd, bytes, sizeof bytes, 0, &n);
    close(fd);
    if (rc < 0) {
        return rc;
    }
    return n == NX_MARK_SIZE ? nx_mark_decode(bytes, ret_mark) : -EBADMSG;
}
