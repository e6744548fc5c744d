/* Names, headers and making of WAL files. Runs in the walwriter (begin), in the checkpointer (prepare,
 * recycle, count) and wherever the log is listed. It owns nothing beyond a call. Frames are none of its
 * business. */
#include "storage/wal_segment.h"

#include "common/bytes.h"
#include "common/crc32.h"
#include "common/order.h"
#include "storage/file_io.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC        "NXWAL\0\0\1"
#define MAGIC_SIZE   8
#define AT_CRC       (NX_SEGMENT_HEADER - 4)
#define NAME_DIGITS  20
#define NAME_ENDING  ".wal"
#define FREE_PREFIX  "free-"
#define TEMP_PREFIX  "tmp-"
#define CLAIMED      "begin"     /* a whole file, taken from the free ones, perhaps with a header */
#define CLAIMED_NEW  "begin-new" /* perhaps half-made */
#define SEGMENT_MODE 0600
#define ZEROS_PIECE  ((uint64_t)1 << 20)

static_assert(MAGIC_SIZE + 16 + 8 + 8 + 4 == NX_SEGMENT_HEADER, "layout of the header");

void nx_segment_name(uint64_t first_offset, char ret_name[NX_SEGMENT_NAME])
{
    (void)snprintf(ret_name, NX_SEGMENT_NAME, "%020" PRIu64 NAME_ENDING, first_offset);
}

void nx_segment_header_encode(const struct nx_segment_header *header,
                              uint8_t ret_bytes[NX_SEGMENT_HEADER])
{
    struct nx_writer writer = nx_writer_of(ret_bytes, NX_SEGMENT_HEADER);

    nx_write_bytes(&writer, nx_slice_of(MAGIC, MAGIC_SIZE));
    nx_write_bytes(&writer, nx_slice_of(header->cluster_id, sizeof header->cluster_id));
    nx_write_u64(&writer, header->first_offset);
    nx_write_u64(&writer, header->epoch);
    nx_write_u32(&writer, nx_crc32(0, ret_bytes, AT_CRC));
    assert(writer.used == NX_SEGMENT_HEADER);
}

int nx_segment_header_decode(const uint8_t bytes[NX_SEGMENT_HEADER],
                             struct nx_segment_header *ret_header)
{
    struct nx_reader reader = nx_reader_of(bytes, NX_SEGMENT_HEADER);
    struct nx_slice magic = nx_read_bytes(&reader, MAGIC_SIZE);
    struct nx_slice cluster_id = nx_read_bytes(&reader, sizeof ret_header->cluster_id);
    uint64_t first_offset = nx_read_u64(&reader);
    uint64_t epoch = nx_read_u64(&reader);

    if (!nx_slice_equal(magic, nx_slice_of(MAGIC, MAGIC_SIZE)) ||
        nx_read_u32(&reader) != nx_crc32(0, bytes, AT_CRC)) {
        return -EBADMSG;
    }
    memcpy(ret_header->cluster_id, cluster_id.data, sizeof ret_header->cluster_id);
    ret_header->first_offset = first_offset;
    ret_header->epoch = epoch;
    return 0;
}

/* ---- lists ---- */

/* The first offset that a segment's name says; 0 when it isn't one. */
static uint64_t segment_of_name(const char *name)
{
    uint64_t first = 0;

    if (strlen(name) != NAME_DIGITS + strlen(NAME_ENDING) ||
        strcmp(name + NAME_DIGITS, NAME_ENDING) != 0) {
        return 0;
    }
    for (size_t i = 0; i < NAME_DIGITS; i++) {
        uint64_t digit = (uint64_t)(unsigned char)name[i] - '0';

        if (digit > 9 || first > (UINT64_MAX - digit) / 10) {
            return 0;
        }
        first = first * 10 + digit;
    }
    return first;
}

struct listing {
    int dir_fd;
    struct nx_segment_info *list;
    size_t count;
    size_t cap;
};

static int list_name(void *arg, const char *name)
{
    struct listing *listing = arg;
    uint64_t first = segment_of_name(name);
    struct stat st;

    if (first == 0) {
        return 0;
    }
    if (fstatat(listing->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return errno == ENOENT ? 0 : -errno; /* recycled meanwhile */
    }
    if (listing->count == listing->cap) {
        size_t cap = listing->cap == 0 ? 64 : listing->cap * 2;
        struct nx_segment_info *list = realloc(listing->list, cap * sizeof *list);

        if (list == NULL) {
            return -ENOMEM;
        }
        listing->list = list;
        listing->cap = cap;
    }
    listing->list[listing->count++] = (struct nx_segment_info){first, (uint64_t)st.st_size};
    return 0;
}

static int compare_first(const void *a, const void *b)
{
    const struct nx_segment_info *left = a;
    const struct nx_segment_info *right = b;

    return (left->first_offset > right->first_offset) - (left->first_offset < right->first_offset);
}

int nx_segment_list(int dir_fd, struct nx_segment_info **ret_list, size_t *ret_count)
{
    struct listing listing = {.dir_fd = dir_fd};
    int rc = nx_each_name(dir_fd, list_name, &listing);

    if (rc < 0) {
        free(listing.list);
        return rc;
    }
    if (listing.count > 1) {
        qsort(listing.list, listing.count, sizeof *listing.list, compare_first);
    }
    *ret_list = listing.list;
    *ret_count = listing.count;
    return 0;
}

struct free_count {
    int dir_fd;
    uint64_t size;
    bool clean;
    size_t count;
    uint64_t lowest;
};

static int count_name(void *arg, const char *name)
{
    struct free_count *count = arg;
    bool half_made = strncmp(name, TEMP_PREFIX, strlen(TEMP_PREFIX)) == 0;
    struct stat st;
    uint64_t n;

    if (!half_made) {
        if (nx_name_number(name, FREE_PREFIX, &n) < 0) {
            return 0;
        }
        if (fstatat(count->dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            return errno == ENOENT ? 0 : -errno; /* taken meanwhile */
        }
        if (S_ISREG(st.st_mode) && (uint64_t)st.st_size >= count->size) {
            count->lowest = count->count == 0 || n < count->lowest ? n : count->lowest;
            count->count++;
            return 0;
        }
    }
    if (count->clean && unlinkat(count->dir_fd, name, 0) != 0 && errno != ENOENT) {
        return -errno;
    }
    return 0;
}

int nx_segment_free_count(int dir_fd,
                          uint64_t size,
                          bool clean,
                          size_t *ret_count,
                          uint64_t *ret_lowest)
{
    struct free_count count = {.dir_fd = dir_fd, .size = size, .clean = clean};
    int rc = nx_each_name(dir_fd, count_name, &count);

    if (rc < 0) {
        return rc;
    }
    *ret_count = count.count;
    *ret_lowest = count.lowest;
    return 0;
}

/* ---- making them ---- */

static void free_name(uint64_t n, char ret_name[NX_SEGMENT_NAME])
{
    (void)snprintf(ret_name, NX_SEGMENT_NAME, FREE_PREFIX "%" PRIu64, n);
}

static int write_zeros(int fd, uint64_t size, const struct nx_pause *pause)
{
    unsigned pieces = (unsigned)((size + ZEROS_PIECE - 1) / ZEROS_PIECE);
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < pieces; i++) {
        uint64_t from = i * ZEROS_PIECE;

        if (i > 0 && pause != NULL) {
            pause->call(pause->arg, i, pieces);
        }
        rc = nx_write_zeros(fd, from, nx_lower(from + ZEROS_PIECE, size));
    }
    return rc;
}

/* Makes it `size` zero bytes, whatever it was. Written, not only allocated: a write into blocks that
 * were never written costs a metadata update at each sync. */
static int fill_with_zeros(int fd, uint64_t size, const struct nx_pause *pause)
{
    int rc;

    /* Asks for the room first, so that a full disk shows before it is filled. */
    do {
        rc = fallocate(fd, 0, 0, (off_t)size) == 0 ? 0 : -errno;
    } while (rc == -EINTR);
    if (rc < 0 && rc != -EOPNOTSUPP) {
        return rc;
    }
    if (ftruncate(fd, (off_t)size) != 0) {
        return -errno;
    }
    return write_zeros(fd, size, pause);
}

/* Gives a whole file the name free-<n>, which must be free itself: the walwriter may have an older one
 * of that name in its hands. */
static int name_free(int dir_fd, const char *temp, uint64_t n)
{
    char name[NX_SEGMENT_NAME];

    free_name(n, name);
    if (renameat2(dir_fd, temp, dir_fd, name, RENAME_NOREPLACE) != 0) {
        if (errno != EINVAL && errno != ENOSYS) {
            return -errno;
        }
        if (faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
            return -EEXIST;
        }
        if (renameat(dir_fd, temp, dir_fd, name) != 0) {
            return -errno;
        }
    }
    return fsync(dir_fd) == 0 ? 0 : -errno;
}

/* Zeroes, syncs and names the file that stands at `temp`; unlinks it on failure. Consumes fd. */
static int finish_free(int dir_fd,
                       int fd,
                       const char *temp,
                       uint64_t n,
                       uint64_t size,
                       const struct nx_pause *pause)
{
    int rc = fill_with_zeros(fd, size, pause);

    rc = rc < 0 ? rc : nx_paced_sync(fd, pause);
    close(fd);
    if (rc == 0) {
        rc = name_free(dir_fd, temp, n);
    }
    if (rc < 0) {
        (void)unlinkat(dir_fd, temp, 0);
    }
    return rc;
}

bool nx_segment_free_exists(int dir_fd, uint64_t n)
{
    char name[NX_SEGMENT_NAME];

    free_name(n, name);
    return faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

int nx_segment_prepare(int dir_fd, uint64_t n, uint64_t size, const struct nx_pause *pause)
{
    static const char temp[] = TEMP_PREFIX "prepare";
    int fd =
        openat(dir_fd, temp, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, SEGMENT_MODE);

    return fd < 0 ? -errno : finish_free(dir_fd, fd, temp, n, size, pause);
}

int nx_segment_recycle(int dir_fd,
                       uint64_t first_offset,
                       uint64_t n,
                       uint64_t size,
                       const struct nx_pause *pause)
{
    static const char temp[] = TEMP_PREFIX "recycle";
    char name[NX_SEGMENT_NAME];
    int fd;

    nx_segment_name(first_offset, name);
    if (renameat(dir_fd, name, dir_fd, temp) != 0) {
        return -errno;
    }
    /* Before a byte of it changes: zeros under a segment's name would be a damaged log. */
    if (fsync(dir_fd) != 0) {
        return -errno;
    }
    fd = openat(dir_fd, temp, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    return fd < 0 ? -errno : finish_free(dir_fd, fd, temp, n, size, pause);
}

/* ---- beginning one ---- */

static int open_if_whole(int dir_fd, const char *name, uint64_t size, int *ret_fd)
{
    int fd = openat(dir_fd, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;

    if (fd < 0) {
        return -errno;
    }
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size < size) {
        close(fd);
        return -ENOENT;
    }
    *ret_fd = fd;
    return 0;
}

/* The file that becomes the segment, and the name it has now. The claim of an earlier call that was cut
 * off comes first: all of it behind the header is zeros still. */
static int claim(int dir_fd, uint64_t size, int *ret_fd, const char **ret_name)
{
    char name[NX_SEGMENT_NAME];
    size_t count;
    uint64_t lowest;
    int fd;
    int rc = open_if_whole(dir_fd, CLAIMED, size, ret_fd);

    *ret_name = CLAIMED;
    if (rc != -ENOENT) {
        return rc;
    }
    (void)unlinkat(dir_fd, CLAIMED, 0); /* too short for this one */
    (void)unlinkat(dir_fd, CLAIMED_NEW, 0);
    rc = nx_segment_free_count(dir_fd, size, false, &count, &lowest);
    if (rc < 0) {
        return rc;
    }
    if (count > 0) {
        free_name(lowest, name);
        if (renameat(dir_fd, name, dir_fd, CLAIMED) != 0) {
            return -errno;
        }
        return open_if_whole(dir_fd, CLAIMED, size, ret_fd);
    }
    fd = openat(dir_fd, CLAIMED_NEW, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
                SEGMENT_MODE);
    if (fd < 0) {
        return -errno;
    }
    rc = fill_with_zeros(fd, size, NULL);
    if (rc < 0) {
        close(fd);
        (void)unlinkat(dir_fd, CLAIMED_NEW, 0);
        return rc;
    }
    *ret_name = CLAIMED_NEW;
    *ret_fd = fd;
    return 0;
}

/* A mark of nothing, so that frames never stand in a directory without one. */
static int ensure_mark(int dir_fd)
{
    static const struct nx_mark nothing;
    struct nx_mark found;
    int fd;
    int rc = nx_mark_read(dir_fd, &found);

    if (rc != -ENOENT) {
        return rc;
    }
    rc = nx_mark_open(dir_fd, &nothing, &fd);
    if (rc == 0) {
        close(fd);
    }
    return rc;
}

int nx_segment_begin(int dir_fd, const struct nx_segment_header *header, uint64_t size, int *ret_fd)
{
    uint8_t bytes[NX_SEGMENT_HEADER];
    char name[NX_SEGMENT_NAME];
    const char *claimed = CLAIMED;
    int fd = -1;
    int rc = ensure_mark(dir_fd);

    rc = rc < 0 ? rc : claim(dir_fd, size, &fd, &claimed);
    if (rc < 0) {
        return rc;
    }
    nx_segment_header_encode(header, bytes);
    nx_segment_name(header->first_offset, name);
    rc = nx_write_at(fd, bytes, sizeof bytes, 0);
    if (rc == 0 && (fdatasync(fd) != 0 || renameat(dir_fd, claimed, dir_fd, name) != 0 ||
                    fsync(dir_fd) != 0)) {
        rc = -errno;
    }
    if (rc < 0) {
        close(fd);
        (void)unlinkat(dir_fd, claimed, 0); /* what a failed sync left of it is unknown */
        /* From here on it may have its name: going on in the segment before would be a second history. */
        return rc == -ENOSPC ? -EIO : rc;
    }
    *ret_fd = fd;
    return 0;
}
