/* DATA_DIR/snapshots. Runs in the snapshot process, which makes archives; in http workers, which remove
 * what a person doesn't want; in walsenders and tools, which read. It owns nothing beyond a call. An
 * .info without its archive counts for nothing and an archive without its .info is nobody's to remove:
 * so the .info is there first, and goes last. */
#include "storage/snapshot_files.h"

#include "storage/data_dir.h"
#include "storage/file_io.h"
#include "storage/lines.h"
#include "storage/pin.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ARCHIVE    ".tar.zst"
#define TEMP       ARCHIVE NX_TEMP_SUFFIX
#define INFO       ".info"
#define INFO_TEMP  INFO NX_TEMP_SUFFIX
#define FIRST_ROOM 16

int nx_snapshot_dir(const char *data_dir)
{
    int data_fd = open(data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = -1;
    int rc = 0;

    if (data_fd < 0) {
        return -errno;
    }
    if (mkdirat(data_fd, NX_SNAPSHOT_DIR, 0700) == 0) {
        rc = fsync(data_fd) == 0 ? 0 : -errno;
    } else if (errno != EEXIST) {
        rc = -errno;
    }
    if (rc == 0) {
        fd = openat(data_fd, NX_SNAPSHOT_DIR, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        rc = fd < 0 ? -errno : 0;
    }
    close(data_fd);
    return rc < 0 ? rc : fd;
}

int nx_snapshot_in_dir(const char *data_dir, int (*task)(int dir_fd))
{
    int dir_fd = nx_snapshot_dir(data_dir);
    int rc;

    if (dir_fd < 0) {
        return dir_fd;
    }
    rc = task(dir_fd);
    close(dir_fd);
    return rc;
}

void nx_snapshot_name(uint64_t wal_offset,
                      const char *id,
                      const char *suffix,
                      char ret_name[NX_SNAPSHOT_NAME])
{
    (void)snprintf(ret_name, NX_SNAPSHOT_NAME, "%020" PRIu64 "-%s%s", wal_offset, id, suffix);
}

static void name_of(const struct nx_snapshot_info *info, const char *suffix, char *ret_name)
{
    nx_snapshot_name(info->position.offset, info->id, suffix, ret_name);
}

static bool ends_with(const char *name, const char *suffix)
{
    size_t length = strlen(name);
    size_t n = strlen(suffix);

    return length > n && strcmp(name + length - n, suffix) == 0;
}

static bool has_archive(int dir_fd, const struct nx_snapshot_info *info)
{
    char name[NX_SNAPSHOT_NAME];
    struct stat st;

    name_of(info, ARCHIVE, name);
    return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

/* ---- what is known of one ---- */

int nx_snapshot_store_info(int dir_fd, const struct nx_snapshot_info *info)
{
    char text[NX_LINES_MAX];
    char name[NX_SNAPSHOT_NAME];
    uint8_t uuid[16];

    if (nx_uuid_parse(info->id, uuid) < 0) {
        return -EINVAL;
    }
    (void)snprintf(text, sizeof text,
                   "id = %s\n"
                   "reason = %u\n"
                   "created_at = %" PRIu64 "\n"
                   "wal_offset = %" PRIu64 "\n"
                   "epoch = %" PRIu64 "\n"
                   "crc = %" PRIu32 "\n"
                   "records = %" PRIu64 "\n"
                   "files_count = %" PRIu64 "\n"
                   "uncompressed_size = %" PRIu64 "\n"
                   "compressed_size = %" PRIu64 "\n"
                   "checksum = %" PRIu32 "\n",
                   info->id, (unsigned)info->reason, info->created_at, info->position.offset,
                   info->position.epoch, info->position.crc, info->records, info->files_count,
                   info->uncompressed_size, info->compressed_size, info->checksum);
    name_of(info, INFO, name);
    return nx_lines_write(dir_fd, name, text, sizeof text);
}

/* 0 or -EBADMSG. Lines behind the known ones are a later version's, and no damage. */
static int parse_info(const char *text, struct nx_snapshot_info *ret_info)
{
    uint64_t reason = 0;
    uint64_t crc = 0;
    uint64_t checksum = 0;
    const struct nx_line_number numbers[] = {
        {"reason", NX_SNAPSHOT_FULL_SYNC, &reason},
        {"created_at", UINT64_MAX, &ret_info->created_at},
        {"wal_offset", UINT64_MAX, &ret_info->position.offset},
        {"epoch", UINT64_MAX, &ret_info->position.epoch},
        {"crc", UINT32_MAX, &crc},
        {"records", UINT64_MAX, &ret_info->records},
        {"files_count", UINT64_MAX, &ret_info->files_count},
        {"uncompressed_size", UINT64_MAX, &ret_info->uncompressed_size},
        {"compressed_size", UINT64_MAX, &ret_info->compressed_size},
        {"checksum", UINT32_MAX, &checksum},
    };

    if (nx_line_take(&text, "id", ret_info->id, sizeof ret_info->id) < 0 ||
        nx_line_take_numbers(&text, numbers, sizeof numbers / sizeof numbers[0]) < 0) {
        return -EBADMSG;
    }
    ret_info->reason = (enum nx_snapshot_reason)reason;
    ret_info->position.crc = (uint32_t)crc;
    ret_info->checksum = (uint32_t)checksum;
    return 0;
}

/* Reads the .info of this name. One that was copied to another name isn't what it says. 0, -EBADMSG, or
 * -errno. */
static int read_info(int dir_fd, const char *name, struct nx_snapshot_info *ret_info)
{
    char text[NX_LINES_MAX];
    char right_name[NX_SNAPSHOT_NAME];
    int rc = nx_lines_read(dir_fd, name, text, sizeof text);

    rc = rc < 0 ? rc : parse_info(text, ret_info);
    if (rc < 0) {
        return rc;
    }
    name_of(ret_info, INFO, right_name);
    return strcmp(name, right_name) == 0 ? 0 : -EBADMSG;
}

/* ---- all of them ---- */

struct listing {
    int dir_fd;
    struct nx_snapshot_info *list;
    size_t count;
    size_t room;
};

static int append(struct listing *listing, const struct nx_snapshot_info *info)
{
    if (listing->count == listing->room) {
        size_t room = listing->room > 0 ? listing->room * 2 : FIRST_ROOM;
        struct nx_snapshot_info *list = reallocarray(listing->list, room, sizeof *list);

        if (list == NULL) {
            return -ENOMEM;
        }
        listing->list = list;
        listing->room = room;
    }
    listing->list[listing->count++] = *info;
    return 0;
}

/* What is wrong with one file must not hide the others; a want of descriptors or memory is no fault of
 * the file. */
static int list_one(void *arg, const char *name)
{
    struct listing *listing = arg;
    struct nx_snapshot_info info;
    int rc;

    if (!ends_with(name, INFO)) {
        return 0;
    }
    rc = read_info(listing->dir_fd, name, &info);
    if (rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM) {
        return rc;
    }
    return rc == 0 && has_archive(listing->dir_fd, &info) ? append(listing, &info) : 0;
}

static int newest_first(const void *a, const void *b)
{
    const struct nx_snapshot_info *x = a;
    const struct nx_snapshot_info *y = b;

    /* Not by offset: after a full sync another history, with other offsets, is the node's. */
    if (x->created_at != y->created_at) {
        return x->created_at > y->created_at ? -1 : 1;
    }
    if (x->position.offset != y->position.offset) {
        return x->position.offset > y->position.offset ? -1 : 1;
    }
    return strcmp(x->id, y->id);
}

int nx_snapshot_list(int dir_fd, struct nx_snapshot_info **ret_list, size_t *ret_count)
{
    struct listing listing = {.dir_fd = dir_fd};
    int rc = nx_each_name(dir_fd, list_one, &listing);

    if (rc < 0) {
        free(listing.list);
        return rc;
    }
    if (listing.count > 0) {
        qsort(listing.list, listing.count, sizeof listing.list[0], newest_first);
    }
    *ret_list = listing.list;
    *ret_count = listing.count;
    return 0;
}

int nx_snapshot_find(int dir_fd, const char *id, struct nx_snapshot_info *ret_info)
{
    struct nx_snapshot_info *list;
    size_t count;
    int rc = nx_snapshot_list(dir_fd, &list, &count);

    if (rc < 0) {
        return rc;
    }
    rc = -ENOENT;
    for (size_t i = 0; i < count && rc < 0; i++) {
        if (strcmp(id, "last") == 0 || strcmp(id, list[i].id) == 0) {
            *ret_info = list[i];
            rc = 0;
        }
    }
    free(list);
    return rc;
}

int nx_snapshot_open(int dir_fd, const struct nx_snapshot_info *info)
{
    char name[NX_SNAPSHOT_NAME];
    int fd;

    name_of(info, ARCHIVE, name);
    fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    return fd;
}

/* ---- coming and going ---- */

int nx_snapshot_publish(int dir_fd, const struct nx_snapshot_info *info)
{
    char temp[NX_SNAPSHOT_NAME];
    char name[NX_SNAPSHOT_NAME];

    name_of(info, TEMP, temp);
    name_of(info, ARCHIVE, name);
    if (renameat(dir_fd, temp, dir_fd, name) != 0) {
        return -errno;
    }
    return fsync(dir_fd) == 0 ? 0 : -errno;
}

/* 0, also when there is none, or -errno. */
static int unlink_durably(int dir_fd, const char *name)
{
    if (unlinkat(dir_fd, name, 0) != 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    return fsync(dir_fd) == 0 ? 0 : -errno;
}

int nx_snapshot_remove(int dir_fd, const struct nx_snapshot_info *info)
{
    /* In this order, and each synced before the next. */
    static const char *const suffixes[] = {ARCHIVE, INFO_TEMP, INFO};
    char name[NX_SNAPSHOT_NAME];
    int rc = 0;

    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0] && rc == 0; i++) {
        name_of(info, suffixes[i], name);
        rc = unlink_durably(dir_fd, name);
    }
    return rc;
}

static int names_snapshot(void *arg, const struct nx_pin *pin)
{
    const struct nx_snapshot_info *info = arg;

    return strcmp(pin->snapshot_id, info->id) == 0;
}

/* 1 when a pin needs it, 0, or -errno. */
static int is_pinned(int dir_fd, const struct nx_snapshot_info *info)
{
    struct nx_snapshot_info copy = *info;

    return nx_pin_each(dir_fd, names_snapshot, &copy);
}

int nx_snapshot_forget(int dir_fd, const struct nx_snapshot_info *info, int *ret_kept)
{
    struct nx_snapshot_info kept = *info;
    int pinned = is_pinned(dir_fd, info);
    int rc;

    if (pinned < 0) {
        return pinned;
    }
    kept.reason = NX_SNAPSHOT_FULL_SYNC;
    rc = pinned ? nx_snapshot_store_info(dir_fd, &kept) : nx_snapshot_remove(dir_fd, info);
    if (rc == 0) {
        *ret_kept = pinned;
    }
    return rc;
}

/* ---- clearing up ---- */

/* Whether the archive stands that belongs to "<stem><suffix>"; true where that can't be said. */
static bool belongs_to_archive(int dir_fd, const char *name, const char *suffix)
{
    char archive[NX_SNAPSHOT_NAME];
    size_t stem = strlen(name) - strlen(suffix);

    if (stem + sizeof ARCHIVE > sizeof archive) {
        return true;
    }
    (void)snprintf(archive, sizeof archive, "%.*s" ARCHIVE, (int)stem, name);
    return faccessat(dir_fd, archive, F_OK, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

/* The temporary .info of an archive that stands may be another process's, at this very moment; so may
 * that of a pin. */
/* A directory is nothing that a job has left. */
static int clean_one(void *arg, const char *name)
{
    int rc = 0;
    const int *dir_fd = arg;
    bool left = ends_with(name, TEMP) ||
                (ends_with(name, INFO) && !belongs_to_archive(*dir_fd, name, INFO)) ||
                (ends_with(name, INFO_TEMP) && !belongs_to_archive(*dir_fd, name, INFO_TEMP));

    rc = left ? unlink_durably(*dir_fd, name) : 0;
    return rc == -EISDIR ? 0 : rc;
}

int nx_snapshot_clean(int dir_fd)
{
    return nx_each_name(dir_fd, clean_one, &dir_fd);
}

int nx_snapshot_prune(int dir_fd, uint64_t keep)
{
    struct nx_snapshot_info *list;
    size_t count;
    uint64_t seen = 0;
    int rc = nx_snapshot_list(dir_fd, &list, &count);

    if (rc < 0) {
        return rc;
    }
    for (size_t i = 0; i < count && rc == 0; i++) {
        if (list[i].reason == NX_SNAPSHOT_REQUEST || seen++ < keep) {
            continue;
        }
        rc = is_pinned(dir_fd, &list[i]);
        rc = rc == 0 ? nx_snapshot_remove(dir_fd, &list[i]) : (rc > 0 ? 0 : rc);
    }
    free(list);
    return rc;
}
