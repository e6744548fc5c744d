/* Reads segments for recovery (walwriter), for readers (walsenders) and for tools. It owns the
 * descriptor and the buffer of a window, and writes nothing. */
#include "storage/wal_scan.h"

#include "storage/file_io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP ((size_t)1 << 20)

/* Bytes of would-be frames with a wrong CRC before a survey gives up. Only values made for it waste
 * more than a few. */
#define WASTE_LIMIT ((uint64_t)1 << 30)

void nx_wal_window_init(struct nx_wal_window *window)
{
    *window = (struct nx_wal_window){.fd = -1};
}

static void window_close(struct nx_wal_window *window)
{
    if (window->fd >= 0) {
        close(window->fd);
    }
    window->fd = -1;
    window->length = 0;
}

void nx_wal_window_done(struct nx_wal_window *window)
{
    window_close(window);
    free(window->buf);
    nx_wal_window_init(window);
}

void nx_wal_window_forget(struct nx_wal_window *window)
{
    free(window->buf);
    window->buf = NULL;
    window->cap = 0;
    window->at = 0;
    window->length = 0;
}

static const char *header_fault(const uint8_t bytes[NX_SEGMENT_HEADER],
                                uint64_t first_offset,
                                const uint8_t *cluster_id)
{
    static const uint8_t any[16];
    struct nx_segment_header header;

    if (nx_segment_header_decode(bytes, &header) < 0) {
        return "its header is damaged";
    }
    if (header.first_offset != first_offset) {
        return "its header names another first offset: it was renamed or copied";
    }
    if (cluster_id != NULL && memcmp(cluster_id, any, sizeof any) != 0 &&
        memcmp(cluster_id, header.cluster_id, sizeof any) != 0) {
        return "it belongs to another cluster";
    }
    return NULL;
}

int nx_wal_window_open(struct nx_wal_window *window,
                       int dir_fd,
                       uint64_t first_offset,
                       const uint8_t *cluster_id,
                       const char **ret_why)
{
    char name[NX_SEGMENT_NAME];
    uint8_t bytes[NX_SEGMENT_HEADER];
    const char *why;
    struct stat st;
    int rc;

    window_close(window);
    nx_segment_name(first_offset, name);
    window->fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (window->fd < 0 || fstat(window->fd, &st) != 0) {
        rc = -errno;
        window_close(window);
        return rc;
    }
    window->size = (uint64_t)st.st_size;
    rc = nx_read_at(window->fd, bytes, sizeof bytes, 0);
    why = rc == -ENODATA ? "it is shorter than its header" : NULL;
    if (rc == 0) {
        why = header_fault(bytes, first_offset, cluster_id);
    }
    if (why != NULL) {
        *ret_why = why;
        rc = -EBADMSG;
    }
    if (rc < 0) {
        window_close(window);
    }
    return rc;
}

static int window_grow(struct nx_wal_window *window, size_t want)
{
    size_t cap = want < STEP ? STEP : (want + STEP - 1) / STEP * STEP;
    uint8_t *buf;

    if (window->cap > 0 && want <= window->cap) {
        return 0;
    }
    buf = realloc(window->buf, cap);
    if (buf == NULL) {
        return -ENOMEM;
    }
    window->buf = buf;
    window->cap = cap;
    return 0;
}

int nx_wal_window_load(struct nx_wal_window *window,
                       uint64_t at,
                       size_t want,
                       const uint8_t **ret_bytes,
                       size_t *ret_length)
{
    uint64_t left = at < window->size ? window->size - at : 0;
    uint64_t end = window->at + window->length;
    size_t keep = 0;
    size_t more;
    int rc;

    if (want > left) {
        want = (size_t)left;
    }
    if (at < window->at || at > end || end - at < want) {
        rc = window_grow(window, want);
        if (rc < 0) {
            return rc;
        }
        if (at >= window->at && at < end) {
            keep = (size_t)(end - at);
            memmove(window->buf, window->buf + (at - window->at), keep);
        }
        window->at = at;
        window->length = keep;
        more = window->cap - keep;
        if (more > left - keep) {
            more = (size_t)(left - keep);
        }
        rc = nx_read_at(window->fd, window->buf + keep, more, at + keep);
        if (rc < 0) {
            return rc == -ENODATA ? -EIO : rc; /* it became shorter under us */
        }
        window->length += more;
    }
    *ret_bytes = window->buf + (at - window->at);
    *ret_length = (size_t)(window->at + window->length - at);
    return 0;
}

/* ---- judgement ---- */

const char *nx_wal_fault_text(enum nx_wal_fault fault)
{
    switch (fault) {
    case NX_WAL_FINE:
        return "a valid entry";
    case NX_WAL_NO_ROOM:
        return "cut off by the end of the segment";
    case NX_WAL_ZEROS:
        return "zeros";
    case NX_WAL_NO_FRAME:
        return "no entry";
    case NX_WAL_WRONG_OFFSET:
        return "an entry of another offset";
    case NX_WAL_WRONG_CRC:
        return "an entry with a wrong CRC";
    case NX_WAL_LOW_EPOCH:
        return "an entry of a lower epoch";
    case NX_WAL_WRONG_LINK:
        return "an entry that doesn't follow the one before (prev_crc)";
    case NX_WAL_UNKNOWN_OPS:
        return "an entry with operations unknown to this version";
    }
    return "";
}

static bool all_zero(const uint8_t *bytes, size_t n)
{
    while (n > 0 && *bytes == 0) {
        bytes++;
        n--;
    }
    return n == 0;
}

/* A frame with a right CRC and offset. */
static enum nx_wal_fault judge_whole(const struct nx_entry_header *header,
                                     const struct nx_wal_chain *chain)
{
    if (header->epoch < chain->epoch) {
        return NX_WAL_LOW_EPOCH;
    }
    if (chain->linked && header->prev_crc != chain->crc) {
        return NX_WAL_WRONG_LINK;
    }
    return nx_entry_validate_ops(header) < 0 ? NX_WAL_UNKNOWN_OPS : NX_WAL_FINE;
}

int nx_wal_judge(struct nx_wal_window *window,
                 uint64_t at,
                 const struct nx_wal_chain *chain,
                 struct nx_wal_found *ret_found)
{
    struct nx_wal_found found = {.fault = NX_WAL_FINE};
    size_t n;
    int rc = nx_wal_window_load(window, at, NX_ENTRY_HEADER_SIZE, &found.frame, &n);

    if (rc < 0) {
        return rc;
    }
    if (n >= NX_ENTRY_HEADER_SIZE && all_zero(found.frame, NX_ENTRY_HEADER_SIZE)) {
        found.fault = NX_WAL_ZEROS;
    } else if (n < NX_ENTRY_HEADER_SIZE) {
        found.fault = all_zero(found.frame, n) ? NX_WAL_ZEROS : NX_WAL_NO_ROOM;
    } else if (nx_entry_peek(found.frame, n, &found.header) < 0) {
        found.fault = NX_WAL_NO_FRAME;
    } else if (found.header.offset != chain->next) {
        found.fault = NX_WAL_WRONG_OFFSET;
    } else if (found.header.frame_length > window->size - at) {
        found.fault = NX_WAL_NO_ROOM;
    } else {
        rc = nx_wal_window_load(window, at, found.header.frame_length, &found.frame, &n);
        if (rc < 0) {
            return rc;
        }
        found.fault = nx_entry_decode(found.frame, n, true, &found.header) < 0
                          ? NX_WAL_WRONG_CRC
                          : judge_whole(&found.header, chain);
    }
    *ret_found = found;
    return 0;
}

void nx_wal_chain_add(struct nx_wal_chain *chain, const struct nx_entry_header *header)
{
    chain->next = header->offset + 1;
    chain->epoch = header->epoch;
    chain->crc = header->crc;
    chain->linked = true;
}

/* ---- survey ---- */

/* The first place from *at on where a frame may begin, to judge by its header alone. *at is the end of
 * the file when there is none. */
static int find_candidate(struct nx_wal_window *window,
                          uint64_t *at,
                          struct nx_entry_header *ret_header)
{
    while (*at < window->size) {
        const uint8_t *bytes;
        const uint8_t *hit;
        size_t n;
        size_t searched;
        int rc = nx_wal_window_load(window, *at, NX_ENTRY_HEADER_SIZE, &bytes, &n);

        if (rc < 0) {
            return rc;
        }
        if (n < NX_ENTRY_HEADER_SIZE) {
            break;
        }
        searched = n - NX_ENTRY_HEADER_SIZE + 1;
        hit = memchr(bytes, NX_MSG_WAL_ENTRY, searched);
        if (hit == NULL) {
            *at += searched;
            continue;
        }
        *at += (uint64_t)(hit - bytes);
        if (nx_entry_peek(hit, n - (size_t)(hit - bytes), ret_header) == 0 &&
            ret_header->frame_length <= window->size - *at) {
            return 0;
        }
        (*at)++;
    }
    *at = window->size;
    return 0;
}

int nx_wal_survey(struct nx_wal_window *window, uint64_t from, struct nx_wal_survey *survey)
{
    struct nx_entry_header header;
    struct nx_wal_chain chain = {.linked = false};
    uint64_t at = from;

    while (!survey->exhausted) {
        const uint8_t *frame;
        size_t n;
        int rc = find_candidate(window, &at, &header);

        if (rc < 0 || at >= window->size) {
            return rc;
        }
        if (header.offset <= survey->above) {
            at++;
            continue;
        }
        rc = nx_wal_window_load(window, at, header.frame_length, &frame, &n);
        if (rc < 0) {
            return rc;
        }
        if (nx_entry_decode(frame, n, true, &header) < 0) {
            survey->wasted += header.frame_length;
            survey->exhausted = survey->wasted > WASTE_LIMIT;
            at++;
            continue;
        }
        survey->readable++;
        if (chain.linked && header.offset == chain.next && header.prev_crc == chain.crc) {
            survey->linked++;
        }
        nx_wal_chain_add(&chain, &header);
        at += header.frame_length;
    }
    return 0;
}
