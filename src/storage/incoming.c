/* Keeps an incoming snapshot. Runs in the walreceiver; the restore process only opens the file, the postmaster retires it,
 * the checkpointer drops what is retired. A chunk counts when its length and CRC stand in the list: what was written
 * before is overwritten by the next attempt. */
#include "storage/incoming.h"

#include "common/bytes.h"
#include "common/crc32.h"
#include "common/uuid_text.h"
#include "storage/file_io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PREFIX    "incoming-"
#define RETIRED   "restored-"
#define PART      ".part"
#define CHUNKS    ".chunks"
#define NAME_SIZE 64
#define HEAD      20 /* bytes of a list before its first chunk */
#define EACH      8
#define PIECE     ((size_t)64 << 10)

static void name_of(const char *id, const char *suffix, char ret_name[NAME_SIZE])
{
    (void)snprintf(ret_name, NAME_SIZE, PREFIX "%s%s", id, suffix);
}

static int open_file(int dir_fd, const char *id, const char *suffix, int flags)
{
    char name[NAME_SIZE];
    int fd;

    name_of(id, suffix, name);
    fd = openat(dir_fd, name, flags | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -errno;
    }
    return fd;
}

static int open_both(int dir_fd, const char *id, int flags, struct nx_incoming *incoming)
{
    incoming->part_fd = open_file(dir_fd, id, PART, flags);
    if (incoming->part_fd < 0) {
        return incoming->part_fd;
    }
    incoming->chunks_fd = open_file(dir_fd, id, CHUNKS, flags);
    return incoming->chunks_fd < 0 ? incoming->chunks_fd : 0;
}

void nx_incoming_close(struct nx_incoming *incoming)
{
    if (incoming->part_fd >= 0) {
        close(incoming->part_fd);
    }
    if (incoming->chunks_fd >= 0) {
        close(incoming->chunks_fd);
    }
    *incoming = NX_INCOMING_NONE;
}

int nx_incoming_open(int dir_fd, const char *id)
{
    return open_file(dir_fd, id, PART, O_RDONLY);
}

/* ---- removing ---- */

/* Which names in a directory. */
struct named {
    int dir_fd;
    const char *prefix;
};

static bool has_prefix(const char *name, const char *prefix)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static int remove_one(void *arg, const char *name)
{
    const struct named *named = arg;

    if (!has_prefix(name, named->prefix)) {
        return 0;
    }
    /* A directory is not ours. */
    return unlinkat(named->dir_fd, name, 0) == 0 || errno == ENOENT || errno == EISDIR ? 0 : -errno;
}

int nx_incoming_remove(int dir_fd)
{
    return nx_each_name(dir_fd, remove_one, &(struct named){dir_fd, PREFIX});
}

int nx_incoming_drop(int dir_fd)
{
    return nx_each_name(dir_fd, remove_one, &(struct named){dir_fd, RETIRED});
}

static int retire_one(void *arg, const char *name)
{
    const int *dir_fd = arg;
    char retired[NAME_SIZE];

    if (!has_prefix(name, PREFIX)) {
        return 0;
    }
    int length = snprintf(retired, sizeof retired, RETIRED "%s", name + strlen(PREFIX));

    if (length < 0 || (size_t)length >= sizeof retired) {
        return 0; /* not ours */
    }
    return renameat(*dir_fd, name, *dir_fd, retired) == 0 ? 0 : -errno;
}

int nx_incoming_retire(int dir_fd)
{
    return nx_each_name(dir_fd, retire_one, &dir_fd);
}

/* ---- beginning ---- */

static int write_head(const struct nx_incoming *incoming)
{
    uint8_t head[HEAD];

    nx_store_u64(head, incoming->wal_offset);
    nx_store_u64(head + 8, incoming->epoch);
    nx_store_u32(head + 16, nx_crc32(0, head, 16));
    return nx_write_at(incoming->chunks_fd, head, sizeof head, 0);
}

int nx_incoming_begin(int dir_fd,
                      const char *id,
                      uint64_t wal_offset,
                      uint64_t epoch,
                      struct nx_incoming *ret_incoming)
{
    struct nx_incoming incoming = NX_INCOMING_NONE;
    int rc = nx_incoming_remove(dir_fd);

    (void)snprintf(incoming.id, sizeof incoming.id, "%s", id);
    incoming.wal_offset = wal_offset;
    incoming.epoch = epoch;
    rc = rc < 0 ? rc : open_both(dir_fd, id, O_RDWR | O_CREAT | O_TRUNC, &incoming);
    rc = rc < 0 ? rc : write_head(&incoming);
    if (rc < 0) {
        nx_incoming_close(&incoming);
        return rc;
    }
    *ret_incoming = incoming;
    return 0;
}

/* ---- going on ---- */

struct found {
    char id[NX_UUID_TEXT];
};

static int find_list(void *arg, const char *name)
{
    struct found *found = arg;
    size_t fixed = strlen(PREFIX);

    if (strncmp(name, PREFIX, fixed) != 0 ||
        strlen(name) != fixed + NX_UUID_LENGTH + strlen(CHUNKS) ||
        strcmp(name + fixed + NX_UUID_LENGTH, CHUNKS) != 0 ||
        !nx_slice_is_uuid(nx_slice_of(name + fixed, NX_UUID_LENGTH))) {
        return 0;
    }
    memcpy(found->id, name + fixed, NX_UUID_LENGTH);
    found->id[NX_UUID_LENGTH] = '\0';
    return 1;
}

static int read_head(struct nx_incoming *incoming)
{
    uint8_t head[HEAD];

    if (nx_read_at(incoming->chunks_fd, head, sizeof head, 0) < 0 ||
        nx_load_u32(head + 16) != nx_crc32(0, head, 16)) {
        return -ENOENT;
    }
    incoming->wal_offset = nx_load_u64(head);
    incoming->epoch = nx_load_u64(head + 8);
    return 0;
}

/* The next chunk, if it is what the list says: counted. -ENOENT: it isn't, or there is none. */
static int check_chunk(struct nx_incoming *incoming)
{
    uint8_t each[EACH];
    uint8_t piece[PIECE];
    uint32_t crc = 0;
    uint32_t whole = incoming->crc;
    uint32_t length;

    if (nx_read_at(incoming->chunks_fd, each, sizeof each,
                   HEAD + (uint64_t)EACH * incoming->chunks) < 0) {
        return -ENOENT;
    }
    length = nx_load_u32(each);
    for (uint32_t at = 0; at < length;) {
        size_t n = length - at < sizeof piece ? length - at : sizeof piece;

        if (nx_read_at(incoming->part_fd, piece, n, incoming->bytes + at) < 0) {
            return -ENOENT;
        }
        crc = nx_crc32(crc, piece, n);
        whole = nx_crc32(whole, piece, n);
        at += (uint32_t)n;
    }
    if (length == 0 || crc != nx_load_u32(each + 4)) {
        return -ENOENT;
    }
    incoming->chunks++;
    incoming->bytes += length;
    incoming->crc = whole;
    return 0;
}

static int check_all(struct nx_incoming *incoming,
                     const struct nx_position *restored,
                     bool (*stop)(void *arg),
                     void *arg)
{
    /* A crash kept it from being retired. */
    if (incoming->wal_offset == restored->offset && incoming->epoch == restored->epoch) {
        return -ENOENT;
    }
    while (check_chunk(incoming) == 0) {
        if (stop != NULL && stop(arg)) {
            return -ECANCELED;
        }
    }
    return incoming->chunks > 0 ? 0 : -ENOENT;
}

/* Opens the one that is there and reads its head. 0; -ENOENT: there is none, or none of use; or -errno. */
static int open_found(int dir_fd, struct nx_incoming *incoming)
{
    struct found found;
    int rc = nx_each_name(dir_fd, find_list, &found);

    if (rc <= 0) {
        return rc < 0 ? rc : -ENOENT;
    }
    memcpy(incoming->id, found.id, sizeof incoming->id);
    rc = open_both(dir_fd, found.id, O_RDWR, incoming);
    return rc < 0 ? rc : read_head(incoming);
}

int nx_incoming_resume(int dir_fd,
                       const struct nx_position *restored,
                       bool (*stop)(void *arg),
                       void *arg,
                       struct nx_incoming *ret_incoming)
{
    struct nx_incoming incoming = NX_INCOMING_NONE;
    int rc = open_found(dir_fd, &incoming);

    rc = rc < 0 ? rc : check_all(&incoming, restored, stop, arg);
    if (rc < 0) {
        nx_incoming_close(&incoming);
    }
    if (rc == -ENOENT) {
        int removed = nx_incoming_remove(dir_fd);

        return removed < 0 ? removed : rc;
    }
    if (rc == 0) {
        *ret_incoming = incoming;
    }
    return rc;
}

int nx_incoming_add(struct nx_incoming *incoming, const void *bytes, size_t length, uint32_t crc)
{
    uint8_t each[EACH];
    int rc = nx_write_at(incoming->part_fd, bytes, length, incoming->bytes);

    nx_store_u32(each, (uint32_t)length);
    nx_store_u32(each + 4, crc);
    rc = rc < 0 ? rc
                : nx_write_at(incoming->chunks_fd, each, sizeof each,
                              HEAD + (uint64_t)EACH * incoming->chunks);
    if (rc < 0) {
        return rc;
    }
    incoming->chunks++;
    incoming->bytes += length;
    incoming->crc = nx_crc32(incoming->crc, bytes, length);
    return 0;
}
