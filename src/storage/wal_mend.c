/* Runs in the walwriter, at the end of recovery. Writes only what was read as it is, or zeros. It owns no
 * descriptor beyond a call; a failure here leaves a log that the next recovery reads the same. */
#include "storage/wal_mend.h"

#include "common/crc32.h"
#include "common/entry.h"
#include "storage/file_io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP ((size_t)1 << 20)

int nx_wal_rewrite(int fd, const struct nx_wal_range *range)
{
    uint8_t *step = malloc(STEP);
    uint32_t crc = 0;
    int rc = step == NULL ? -ENOMEM : 0;

    for (uint64_t at = range->from; rc == 0 && at < range->to;) {
        size_t n = range->to - at < STEP ? (size_t)(range->to - at) : STEP;

        rc = nx_read_at(fd, step, n, at);
        if (rc == 0) {
            crc = nx_crc32(crc, step, n);
            rc = nx_write_at(fd, step, n, at);
        }
        at += n;
    }
    free(step);
    if (rc == 0 && range->from < range->to && crc != range->crc) {
        rc = -EBADMSG;
    }
    return rc;
}

int nx_wal_cut(int fd, uint64_t at, uint64_t *ret_cut)
{
    struct stat st;
    uint64_t end;
    int rc;

    if (fstat(fd, &st) != 0) {
        return -errno;
    }
    rc = nx_content_end(fd, at, (uint64_t)st.st_size, &end);
    rc = rc < 0 ? rc : nx_write_zeros(fd, at, end);
    if (rc == 0) {
        *ret_cut = end > at ? end - at : 0;
    }
    return rc;
}

/* prev_crc of the segment's first frame. */
static int first_link(int dir_fd, uint64_t first_offset, uint32_t *ret_crc, bool *ret_found)
{
    uint8_t bytes[NX_ENTRY_HEADER_SIZE];
    struct nx_entry_header header;
    char name[NX_SEGMENT_NAME];
    int fd;
    int rc;

    nx_segment_name(first_offset, name);
    fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    rc = nx_read_at(fd, bytes, sizeof bytes, NX_SEGMENT_HEADER);
    close(fd);
    if (rc < 0 && rc != -ENODATA) {
        return rc;
    }
    *ret_found = rc == 0 && nx_entry_peek(bytes, sizeof bytes, &header) == 0 &&
                 header.offset == first_offset;
    if (*ret_found) {
        *ret_crc = header.prev_crc;
    }
    return 0;
}

/* Whether the last thing in the file is a frame with this CRC, which is its last four bytes; they may
 * end with zeros themselves. */
static int ends_with(int fd, uint64_t size, uint32_t crc, bool *ret_found)
{
    uint8_t tail[NX_FRAME_TRAILER * 2] = {0};
    uint64_t end;
    size_t n;
    int rc = nx_content_end(fd, NX_SEGMENT_HEADER, size, &end);

    if (rc < 0) {
        return rc;
    }
    rc = nx_read_some(fd, tail, sizeof tail, end - NX_FRAME_TRAILER, &n);
    if (rc < 0) {
        return rc;
    }
    *ret_found = false;
    for (size_t i = 0; i <= NX_FRAME_TRAILER; i++) {
        *ret_found = *ret_found || nx_load_u32(tail + i) == crc;
    }
    return 0;
}

int nx_wal_segments_linked(int dir_fd,
                           const struct nx_segment_info *older,
                           const struct nx_segment_info *newer,
                           bool *ret_linked)
{
    char name[NX_SEGMENT_NAME];
    uint32_t crc = 0;
    bool linked = false;
    int fd;
    int rc = first_link(dir_fd, newer->first_offset, &crc, &linked);

    if (rc < 0) {
        return rc;
    }
    if (linked) {
        nx_segment_name(older->first_offset, name);
        fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0) {
            return -errno;
        }
        rc = ends_with(fd, older->size, crc, &linked);
        close(fd);
    }
    if (rc == 0) {
        *ret_linked = linked;
    }
    return rc;
}
