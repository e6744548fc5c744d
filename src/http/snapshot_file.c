/* Runs in http workers. GET /replication/snapshot/{id}/file: an archive's bytes, whole or a range of them,
 * in constant memory: the next piece is read when the client has taken the last one. The file stays open,
 * so that an archive which is removed meanwhile is still sent to its end. A client that takes nothing for
 * 10 s is cut (the connection's write timeout). */
#include "common/log.h"
#include "http/conditions.h"
#include "http/connection.h"
#include "http/range.h"
#include "http/response.h"
#include "http/router.h"
#include "http/snapshot_api.h"
#include "http/worker.h"
#include "storage/file_io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE_BYTES ((uint64_t)128 << 10)

struct download {
    int fd;
    char id[NX_UUID_TEXT];
    uint64_t size; /* of the file */
    uint64_t at;
    uint64_t left; /* of what was asked for */
};

static void on_closed(struct connection *connection)
{
    struct download *download = connection->request->state;

    close(download->fd);
    free(download);
    connection->request->state = NULL;
}

/* ---- pieces ---- */

static void send_piece(struct connection *connection)
{
    struct download *download = connection->request->state;
    struct text *text = &connection->worker->json;
    size_t n = (size_t)(download->left < PIECE_BYTES ? download->left : PIECE_BYTES);
    int rc;

    nx_text_reset(text, SIZE_MAX);
    rc = nx_text_reserve(text, n) ? nx_read_at(download->fd, text->data, n, download->at) : -ENOMEM;
    if (rc < 0) {
        nx_error("the transfer of snapshot %s is cut at byte %" PRIu64 " of %" PRIu64 ": %s",
                 download->id, download->at, download->size,
                 rc == -ENODATA ? "the file has become shorter" : nx_errno_text(rc));
        nx_connection_close(connection);
        return;
    }
    nx_respond_piece(connection, nx_slice_of(text->data, n));
    download->at += n;
    download->left -= n;
    if (download->left == 0) {
        nx_respond_end(connection);
    }
}

static void on_drained(struct connection *connection)
{
    if (connection->answering) {
        send_piece(connection);
    }
}

static const struct stream download_stream = {
    .drained = on_drained,
    .closed = on_closed,
};

/* ---- the beginning ---- */

/* Whether any header of this name lists the tag. */
static bool lists_tag(const struct request *request, const char *name, const char *tag, bool weak)
{
    for (unsigned i = 0; i < request->header_count; i++) {
        const struct header *header = &request->headers[i];

        if (nx_equal_nocase(header->name, nx_slice_text(name)) &&
            nx_tag_listed(header->value, nx_slice_text(tag), weak)) {
            return true;
        }
    }
    return false;
}

/* The preconditions (RFC 9110, 13.2.2). False: answered. */
static bool check_conditions(struct connection *connection, const char *tag)
{
    const struct request *request = connection->request;
    char headers[NX_UUID_TEXT + 32];

    if (nx_request_header(request, "If-Match") != NULL &&
        !lists_tag(request, "If-Match", tag, false)) {
        nx_refuse(connection, NX_ERROR_PRECONDITION_FAILED,
                  "The snapshot is %s, which If-Match doesn't list.", tag);
        return false;
    }
    if (lists_tag(request, "If-None-Match", tag, true)) {
        snprintf(headers, sizeof headers, "ETag: %s\r\n", tag);
        nx_respond(connection, &(struct response){.status = 304, .headers = headers});
        return false;
    }
    return true;
}

/* The part that is asked for. If-Range with another tag, or with a date, asks for the whole. */
static enum range_verdict read_range(const struct request *request,
                                     const char *tag,
                                     uint64_t size,
                                     struct byte_range *ret_range)
{
    const struct nx_slice *range = nx_request_header(request, "Range");
    const struct nx_slice *condition = nx_request_header(request, "If-Range");

    if (range == NULL || request->parser.method != HTTP_GET ||
        nx_request_header_count(request, "Range") > 1 ||
        (condition != NULL && !nx_slice_equal(*condition, nx_slice_text(tag)))) {
        return RANGE_WHOLE;
    }
    return nx_range_parse(*range, size, ret_range);
}

static void refuse_range(struct connection *connection, uint64_t size)
{
    char headers[64];
    struct problem problem = {.code = NX_ERROR_RANGE_NOT_SATISFIABLE, .headers = headers};

    snprintf(headers, sizeof headers, "Content-Range: bytes */%" PRIu64 "\r\n", size);
    snprintf(problem.message, sizeof problem.message,
             "The file has %" PRIu64 " bytes, none of which is in the range.", size);
    nx_respond_problem(connection, &problem);
}

/* Sends the head and the first piece; the connection owns the download. */
static void begin(struct connection *connection,
                  const struct nx_snapshot_info *info,
                  const char *tag,
                  bool part)
{
    const struct download *download = connection->request->state;
    char name[NX_SNAPSHOT_NAME];
    char range[96] = "";
    char headers[512];

    nx_snapshot_name(info->position.offset, info->id, ".tar.zst", name);
    if (part) {
        snprintf(range, sizeof range,
                 "Content-Range: bytes %" PRIu64 "-%" PRIu64 "/%" PRIu64 "\r\n", download->at,
                 download->at + download->left - 1, download->size);
    }
    snprintf(headers, sizeof headers,
             "ETag: %s\r\nAccept-Ranges: bytes\r\n%s"
             "Content-Disposition: attachment; filename=\"%s\"\r\n",
             tag, range, name);
    if (nx_respond_begin(connection, &(struct response){
                                         .status = part ? 206 : 200,
                                         .type = "application/zstd",
                                         .headers = headers,
                                         .has_length = true,
                                         .length = download->left,
                                     })) {
        send_piece(connection);
    }
}

/* Opens the archive. A descriptor, or -errno; -ENOENT: it was removed just now. */
static int open_file(int dir_fd, const struct nx_snapshot_info *info, uint64_t *ret_size)
{
    int fd = nx_snapshot_open(dir_fd, info);
    struct stat st;

    if (fd < 0) {
        return fd;
    }
    if (fstat(fd, &st) != 0) {
        int rc = -errno;

        close(fd);
        return rc;
    }
    *ret_size = (uint64_t)st.st_size;
    return fd;
}

/* Gives the open file to the connection, for the range. False: answered; the file is closed. */
static bool take_download(struct connection *connection,
                          const struct nx_snapshot_info *info,
                          int fd,
                          uint64_t size,
                          struct byte_range range)
{
    struct download *download = calloc(1, sizeof *download);

    if (download == NULL) {
        close(fd);
        nx_refuse(connection, NX_ERROR_OVERLOADED, "Memory is short on this node.");
        return false;
    }
    *download = (struct download){.fd = fd, .size = size, .at = range.first, .left = range.length};
    memcpy(download->id, info->id, sizeof download->id);
    connection->request->state = download;
    connection->request->stream = &download_stream;
    return true;
}

void nx_handle_snapshot_file(struct connection *connection)
{
    struct nx_snapshot_info info;
    struct byte_range range;
    enum range_verdict verdict;
    char tag[NX_UUID_TEXT + 2];
    uint64_t size = 0;
    int dir_fd;
    int fd;

    if (!nx_snapshot_take(connection, &dir_fd, &info)) {
        return;
    }
    fd = open_file(dir_fd, &info, &size);
    close(dir_fd);
    if (fd < 0) {
        nx_snapshot_refuse(connection, fd);
        return;
    }
    snprintf(tag, sizeof tag, "\"%s\"", info.id);
    if (!check_conditions(connection, tag)) {
        close(fd);
        return;
    }
    verdict = read_range(connection->request, tag, size, &range);
    if (verdict == RANGE_OUTSIDE) {
        close(fd);
        refuse_range(connection, size);
        return;
    }
    range = verdict == RANGE_PART ? range : (struct byte_range){0, size};
    if (take_download(connection, &info, fd, size, range)) {
        begin(connection, &info, tag, verdict == RANGE_PART);
    }
}
