/* Pins. Runs in walsenders, which write those of their replicas, in the checkpointer, which removes what
 * is over, and wherever a snapshot may be removed. It owns nothing beyond a call. */
#include "storage/pin.h"

#include "common/latch.h"
#include "storage/data_dir.h"
#include "storage/file_io.h"
#include "storage/lines.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUFFIX    ".pin"
#define NAME_SIZE (NX_UUID_TEXT + sizeof SUFFIX NX_TEMP_SUFFIX)

/* The id becomes part of a name: nothing but a UUID may. 0 or -EINVAL. */
static int name_of(const char *replica_id, const char *suffix, char ret_name[NAME_SIZE])
{
    uint8_t uuid[16];

    if (nx_uuid_parse(replica_id, uuid) < 0) {
        return -EINVAL;
    }
    (void)snprintf(ret_name, NAME_SIZE, "%s%s", replica_id, suffix);
    return 0;
}

/* ---- writing ---- */

int nx_pin_write(int dir_fd, const struct nx_pin *pin)
{
    char text[NX_LINES_MAX];
    char name[NAME_SIZE];
    uint8_t uuid[16];

    if (name_of(pin->replica_id, SUFFIX, name) < 0 || nx_uuid_parse(pin->snapshot_id, uuid) < 0) {
        return -EINVAL;
    }
    (void)snprintf(text, sizeof text,
                   "replica_id = %s\n"
                   "snapshot_id = %s\n"
                   "snapshot_offset = %" PRIu64 "\n"
                   "chunk_size = %" PRIu64 "\n"
                   "sent = %" PRIu64 "\n"
                   "offset = %" PRIu64 "\n",
                   pin->replica_id, pin->snapshot_id, pin->snapshot_offset, pin->chunk_size,
                   pin->sent, pin->offset);
    return nx_lines_write(dir_fd, name, text, sizeof text);
}

int nx_pin_touch(int dir_fd, const char *replica_id)
{
    char name[NAME_SIZE];
    int rc = name_of(replica_id, SUFFIX, name);

    if (rc < 0) {
        return rc;
    }
    return utimensat(dir_fd, name, NULL, AT_SYMLINK_NOFOLLOW) == 0 ? 0 : -errno;
}

int nx_pin_remove(int dir_fd, const char *replica_id)
{
    static const char *const suffixes[] = {SUFFIX NX_TEMP_SUFFIX, SUFFIX};
    char name[NAME_SIZE];

    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
        int rc = name_of(replica_id, suffixes[i], name);

        if (rc < 0) {
            return rc;
        }
        if (unlinkat(dir_fd, name, 0) != 0 && errno != ENOENT) {
            return -errno;
        }
    }
    return 0;
}

/* ---- reading ---- */

/* 0 or -EBADMSG. */
static int parse(const char *text, struct nx_pin *ret_pin)
{
    const struct nx_line_number numbers[] = {
        {"snapshot_offset", UINT64_MAX, &ret_pin->snapshot_offset},
        {"chunk_size", UINT64_MAX, &ret_pin->chunk_size},
        {"sent", 1, &ret_pin->sent},
        {"offset", UINT64_MAX, &ret_pin->offset},
    };
    uint8_t uuid[16];

    if (nx_line_take(&text, "replica_id", ret_pin->replica_id, sizeof ret_pin->replica_id) < 0 ||
        nx_line_take(&text, "snapshot_id", ret_pin->snapshot_id, sizeof ret_pin->snapshot_id) < 0 ||
        nx_line_take_numbers(&text, numbers, sizeof numbers / sizeof numbers[0]) < 0 ||
        *text != '\0' || nx_uuid_parse(ret_pin->snapshot_id, uuid) < 0) {
        return -EBADMSG;
    }
    return 0;
}

/* Age 0 of a time that is still to come, as after the clock was set back. 0 or -errno. */
static int read_progress(int dir_fd, const char *name, struct nx_pin *ret_pin)
{
    struct stat st;
    uint64_t now = nx_wall_ms();
    uint64_t then;

    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return -errno;
    }
    then = st.st_mtim.tv_sec < 0
               ? 0
               : (uint64_t)st.st_mtim.tv_sec * 1000 + (uint64_t)st.st_mtim.tv_nsec / 1000000;
    ret_pin->progress_ms = then;
    ret_pin->age_ms = now > then ? now - then : 0;
    return 0;
}

int nx_pin_read(int dir_fd, const char *replica_id, struct nx_pin *ret_pin)
{
    char text[NX_LINES_MAX];
    char name[NAME_SIZE];
    struct nx_pin pin;
    int rc = name_of(replica_id, SUFFIX, name);

    rc = rc < 0 ? rc : nx_lines_read(dir_fd, name, text, sizeof text);
    rc = rc < 0 ? rc : parse(text, &pin);
    rc = rc < 0 ? rc : read_progress(dir_fd, name, &pin);
    if (rc < 0) {
        return rc;
    }
    if (strcmp(pin.replica_id, replica_id) != 0) {
        return -EBADMSG;
    }
    *ret_pin = pin;
    return 0;
}

/* ---- all of them ---- */

struct visit {
    int dir_fd;
    int (*each)(void *arg, const struct nx_pin *pin);
    void *arg;
};

/* The replica of "<replica id>.pin". Any other name is nobody's pin. */
static bool replica_of(const char *name, char ret_id[NX_UUID_TEXT])
{
    uint8_t uuid[16];

    if (strlen(name) != NX_UUID_TEXT - 1 + sizeof SUFFIX - 1 ||
        strcmp(name + NX_UUID_TEXT - 1, SUFFIX) != 0) {
        return false;
    }
    memcpy(ret_id, name, NX_UUID_TEXT - 1);
    ret_id[NX_UUID_TEXT - 1] = '\0';
    return nx_uuid_parse(ret_id, uuid) == 0;
}

static int visit_one(void *arg, const char *name)
{
    const struct visit *visit = arg;
    char id[NX_UUID_TEXT];
    struct nx_pin pin;
    int rc;

    if (!replica_of(name, id)) {
        return 0;
    }
    rc = nx_pin_read(visit->dir_fd, id, &pin);
    if (rc == -EBADMSG) {
        return nx_pin_remove(visit->dir_fd, id);
    }
    if (rc == -ENOENT || rc == -EINVAL || rc == -ELOOP) {
        return 0; /* removed meanwhile; or no file, and so no pin of ours */
    }
    if (rc < 0) {
        return rc;
    }
    return visit->each(visit->arg, &pin);
}

int nx_pin_each(int dir_fd, int (*each)(void *arg, const struct nx_pin *pin), void *arg)
{
    struct visit visit = {.dir_fd = dir_fd, .each = each, .arg = arg};

    return nx_each_name(dir_fd, visit_one, &visit);
}
