/* Looks at what a node has given up: the names of its files, which diverged.c writes, and what they hold. Runs in
 * http workers, and in the walreceiver as it saves. It changes nothing. */
#include "common/entry.h"
#include "common/text.h"
#include "storage/diverged.h"
#include "storage/file_io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE      ((size_t)64 << 10)
#define FIRST_ROOM 16
/* Longer lines are none of ours: a byte of a key takes at most six of JSON. */
#define LINE_MOST ((size_t)NX_MAX_OPS * (NX_MAX_KEY * 6 + 3) + 200)

/* ---- names ---- */

void nx_diverged_name(const struct nx_diverged_range *range,
                      const char *suffix,
                      char ret_name[NX_DIVERGED_NAME])
{
    (void)snprintf(ret_name, NX_DIVERGED_NAME,
                   "%020" PRIu64 "-%020" PRIu64 "-%" PRIu64 "-%08" PRIx32 "%s", range->first,
                   range->last.offset, range->last.epoch, range->last.crc, suffix);
}

void nx_diverged_path(const char *data_dir,
                      const struct nx_diverged_range *range,
                      char ret_path[NX_DIVERGED_PATH])
{
    char name[NX_DIVERGED_NAME];

    nx_diverged_name(range, NX_DIVERGED_LINES, name);
    (void)snprintf(ret_path, NX_DIVERGED_PATH, "%s/" NX_DIVERGED_DIR "/%s", data_dir, name);
}

/* The number that *text begins with; *text goes on behind it and the character that follows. */
static uint64_t take_number(const char **text, int base)
{
    char *end;
    uint64_t n = strtoull(*text, &end, base);

    *text = *end == '\0' ? end : end + 1;
    return n;
}

/* Whether a name is that of a range with this suffix. */
static bool parse_name(const char *name, const char *suffix, struct nx_diverged_range *ret_range)
{
    struct nx_diverged_range range;
    char right_name[NX_DIVERGED_NAME];
    const char *text = name;

    range.first = take_number(&text, 10);
    range.last.offset = take_number(&text, 10);
    range.last.epoch = take_number(&text, 10);
    range.last.crc = (uint32_t)take_number(&text, 16);
    nx_diverged_name(&range, suffix, right_name);
    if (range.first == 0 || range.first > range.last.offset || strcmp(name, right_name) != 0) {
        return false;
    }
    *ret_range = range;
    return true;
}

bool nx_diverged_is_temporary(const char *name)
{
    struct nx_diverged_range range;

    return parse_name(name, NX_DIVERGED_LINES NX_TEMP_SUFFIX, &range) ||
           parse_name(name, NX_DIVERGED_ENTRIES NX_TEMP_SUFFIX, &range);
}

bool nx_diverged_stands(int dir_fd, const struct nx_diverged_range *range, const char *suffix)
{
    char name[NX_DIVERGED_NAME];
    struct stat st;

    nx_diverged_name(range, suffix, name);
    return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

/* ---- looking ---- */

int nx_diverged_dir(const char *data_dir)
{
    char path[NX_DIVERGED_PATH];
    int fd;

    (void)snprintf(path, sizeof path, "%s/" NX_DIVERGED_DIR, data_dir);
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    return fd;
}

struct listing {
    int dir_fd;
    size_t room;
    struct nx_diverged_list list;
};

static int append(struct listing *listing, const struct nx_diverged_range *range)
{
    struct nx_diverged_list *list = &listing->list;

    if (list->count == listing->room) {
        size_t room = listing->room > 0 ? listing->room * 2 : FIRST_ROOM;
        struct nx_diverged_range *ranges = reallocarray(list->ranges, room, sizeof *ranges);

        if (ranges == NULL) {
            return -ENOMEM;
        }
        list->ranges = ranges;
        listing->room = room;
    }
    list->ranges[list->count++] = *range;
    return 0;
}

static int list_one(void *arg, const char *name)
{
    struct listing *listing = arg;
    struct nx_diverged_range range;

    if (parse_name(name, NX_DIVERGED_LINES, &range) &&
        nx_diverged_stands(listing->dir_fd, &range, NX_DIVERGED_LINES)) {
        return append(listing, &range);
    }
    if (nx_diverged_is_temporary(name) ||
        (parse_name(name, NX_DIVERGED_ENTRIES, &range) &&
         nx_diverged_stands(listing->dir_fd, &range, NX_DIVERGED_LINES))) {
        return 0;
    }
    listing->list.foreign++;
    (void)snprintf(listing->list.foreign_name, sizeof listing->list.foreign_name, "%s", name);
    return 0;
}

static int compare_numbers(uint64_t a, uint64_t b)
{
    return a == b ? 0 : a < b ? -1 : 1;
}

static int in_order(const void *a, const void *b)
{
    const struct nx_diverged_range *x = a;
    const struct nx_diverged_range *y = b;
    int rc = compare_numbers(x->first, y->first);

    rc = rc != 0 ? rc : compare_numbers(x->last.offset, y->last.offset);
    rc = rc != 0 ? rc : compare_numbers(x->last.epoch, y->last.epoch);
    return rc != 0 ? rc : compare_numbers(x->last.crc, y->last.crc);
}

int nx_diverged_list(int dir_fd, struct nx_diverged_list *ret_list)
{
    struct listing listing = {.dir_fd = dir_fd};
    int rc = nx_each_name(dir_fd, list_one, &listing);

    if (rc < 0) {
        free(listing.list.ranges);
        return rc;
    }
    if (listing.list.count > 0) {
        qsort(listing.list.ranges, listing.list.count, sizeof listing.list.ranges[0], in_order);
    }
    *ret_list = listing.list;
    return 0;
}

/* Hands out the whole lines of `text`, and keeps the beginning of the next one. The bytes before `seen` hold no
 * LF. */
static int take_lines(struct text *text,
                      size_t seen,
                      int (*each)(void *arg, struct nx_slice line),
                      void *arg)
{
    size_t begin = 0;
    const uint8_t *lf;
    int rc = 0;

    while (rc == 0 && seen < text->length &&
           (lf = memchr(text->data + seen, '\n', text->length - seen)) != NULL) {
        size_t end = (size_t)(lf - text->data);

        rc = each(arg, nx_slice_of(text->data + begin, end - begin));
        begin = end + 1;
        seen = begin;
    }
    if (begin > 0) {
        text->length -= begin;
        memmove(text->data, text->data + begin, text->length);
    }
    return rc;
}

static int each_line(int fd, int (*each)(void *arg, struct nx_slice line), void *arg)
{
    struct text text = {.data = NULL};
    uint64_t at = 0;
    size_t got = PIECE;
    int rc = 0;

    while (rc == 0 && got == PIECE) {
        size_t seen = text.length;

        if (seen > LINE_MOST) {
            rc = -EBADMSG;
        } else if (!nx_text_reserve(&text, PIECE)) {
            rc = -ENOMEM;
        } else {
            rc = nx_read_some(fd, text.data + seen, PIECE, at, &got);
        }
        if (rc == 0) {
            at += got;
            text.length += got;
            rc = take_lines(&text, seen, each, arg);
        }
    }
    rc = rc == 0 && text.length > 0 ? -EBADMSG : rc;
    nx_text_free(&text);
    return rc;
}

int nx_diverged_each_entry(int dir_fd,
                           const struct nx_diverged_range *range,
                           int (*each)(void *arg, struct nx_slice line),
                           void *arg)
{
    char name[NX_DIVERGED_NAME];
    struct stat st;
    int fd;
    int rc;

    nx_diverged_name(range, NX_DIVERGED_ENTRIES, name);
    fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return errno == ELOOP ? -EBADMSG : -errno;
    }
    rc = fstat(fd, &st) != 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -EBADMSG;
    rc = rc < 0 ? rc : each_line(fd, each, arg);
    close(fd);
    return rc;
}
