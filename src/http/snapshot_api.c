/* Runs in http workers. /replication/snapshot: having one made, looking at those that stand, and removing
 * one. A snapshot is made by a process of its own, which the postmaster starts when it is asked over the
 * control channel; requests wait for shm->snapshot to say how it went. One question is under way at a
 * time: whoever comes meanwhile shares its answer. See snapshot_file.c for an archive's bytes. */
#include "http/snapshot_api.h"

#include "common/json_out.h"
#include "common/log.h"
#include "common/snapshot_job.h"
#include "http/connection.h"
#include "http/control_ask.h"
#include "http/node.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"
#include "storage/file_io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct snapshot_wait {
    char id[NX_UUID_TEXT]; /* "" until the postmaster has answered */
    bool for_end;          /* else the id alone is wanted */
    bool asked_again;
};

static struct snapshot_wait *wait_of(const struct connection *connection)
{
    return connection->request->state;
}

/* Whether a path names no snapshot of its own. */
static bool is_newest(struct nx_slice id)
{
    return id.length == 0 || nx_slice_equal(id, nx_slice_text("last"));
}

/* ---- answers ---- */

static const char *reason_name(enum nx_snapshot_reason reason)
{
    switch (reason) {
    case NX_SNAPSHOT_SCHEDULE:
        return "schedule";
    case NX_SNAPSHOT_FULL_SYNC:
        return "full_sync";
    case NX_SNAPSHOT_REQUEST:
        break;
    }
    return "request";
}

static void put_path(struct json *json,
                     const struct http_worker *worker,
                     const struct nx_snapshot_info *info)
{
    char name[NX_SNAPSHOT_NAME];
    char path[NX_PATH_SIZE + sizeof NX_SNAPSHOT_DIR + NX_SNAPSHOT_NAME];

    nx_snapshot_name(info->position.offset, info->id, ".tar.zst", name);
    snprintf(path, sizeof path, "%s/" NX_SNAPSHOT_DIR "/%s", worker->process->data_dir, name);
    nx_json_string(json, "path", path);
}

static void respond_info(struct connection *connection, const struct nx_snapshot_info *info)
{
    struct http_worker *worker = connection->worker;
    struct text *text = &worker->json;
    struct json json = nx_json_of(text);
    char checksum[9];

    snprintf(checksum, sizeof checksum, "%08" PRIx32, info->checksum);
    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    nx_json_string(&json, "id", info->id);
    nx_json_u64(&json, "created_at", info->created_at);
    nx_json_u64(&json, "wal_offset", info->position.offset);
    nx_json_u64(&json, "uncompressed_size", info->uncompressed_size);
    nx_json_u64(&json, "compressed_size", info->compressed_size);
    nx_json_u64(&json, "files_count", info->files_count);
    nx_json_string(&json, "checksum", checksum);
    nx_json_u64(&json, "epoch", info->position.epoch);
    put_path(&json, worker, info);
    nx_json_u64(&json, "records", info->records);
    nx_json_string(&json, "reason", reason_name(info->reason));
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_respond_json(connection, text);
}

/* 202: it is being made. */
static void respond_id(struct connection *connection, const char *id)
{
    struct text *text = &connection->worker->json;
    struct json json = nx_json_of(text);

    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    nx_json_string(&json, "id", id);
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    if (text->failed) {
        nx_refuse(connection, NX_ERROR_OVERLOADED, "Memory is short on this node.");
        return;
    }
    nx_respond(connection, &(struct response){
                               .status = 202,
                               .type = "application/json",
                               .body = nx_slice_of(text->data, text->length),
                           });
}

void nx_snapshot_refuse(struct connection *connection, int error)
{
    static struct nx_log_limit limit;
    const char *data_dir = connection->worker->process->data_dir;

    if (error == -ENOENT && is_newest(connection->request->id)) {
        nx_refuse(connection, NX_ERROR_NO_SNAPSHOT,
                  "There is no snapshot on this node; POST /replication/snapshot makes one.");
        return;
    }
    if (error == -ENOENT) {
        nx_refuse(connection, NX_ERROR_NO_SNAPSHOT,
                  "There is no snapshot of this id on this node; GET /replication/snapshot shows "
                  "the newest that there is.");
        return;
    }
    nx_log_limited(&limit, NX_LOG_ERROR, "snapshots in %s/" NX_SNAPSHOT_DIR " can't be used: %s",
                   data_dir, nx_errno_text(error));
    nx_refuse(connection, NX_ERROR_INTERNAL,
              "Snapshots in %s/" NX_SNAPSHOT_DIR " can't be used: %s.", data_dir,
              nx_errno_text(error));
}

/* ---- those that stand ---- */

static int find(const struct http_worker *worker,
                const char *id,
                int *ret_dir_fd,
                struct nx_snapshot_info *ret_info)
{
    int dir_fd = nx_snapshot_dir(worker->process->data_dir);
    int rc;

    if (dir_fd < 0) {
        return dir_fd;
    }
    rc = nx_snapshot_find(dir_fd, id, ret_info);
    if (rc < 0) {
        close(dir_fd);
    } else {
        *ret_dir_fd = dir_fd;
    }
    return rc;
}

bool nx_snapshot_take(struct connection *connection,
                      int *ret_dir_fd,
                      struct nx_snapshot_info *ret_info)
{
    struct nx_slice named = connection->request->id;
    char id[NX_UUID_TEXT] = "last";
    int rc = 0;

    if (!is_newest(named)) {
        int length = (int)(named.length < sizeof id ? named.length : sizeof id - 1);

        snprintf(id, sizeof id, "%.*s", length, (const char *)named.data);
        rc = nx_slice_equal(nx_slice_text(id), named) ? 0 : -ENOENT;
    }
    rc = rc < 0 ? rc : find(connection->worker, id, ret_dir_fd, ret_info);
    if (rc < 0) {
        nx_snapshot_refuse(connection, rc);
    }
    return rc == 0;
}

void nx_handle_snapshot_get(struct connection *connection)
{
    struct nx_snapshot_info info;
    int dir_fd;

    if (nx_snapshot_take(connection, &dir_fd, &info)) {
        close(dir_fd);
        respond_info(connection, &info);
    }
}

void nx_handle_snapshot_newest(struct connection *connection)
{
    nx_handle_snapshot_get(connection);
}

static void respond_deleted(struct connection *connection, bool kept)
{
    nx_respond_success(
        connection,
        kept ? "A full sync needs this snapshot: it is kept until that is done, and then "
               "only as one of the newest snapshot.keep."
             : "Snapshot deleted");
}

void nx_handle_snapshot_delete(struct connection *connection)
{
    struct nx_snapshot_info info;
    int dir_fd;
    int kept;
    int rc;

    /* Sent twice, since its answer was lost, it would delete two. */
    if (nx_slice_equal(connection->request->id, nx_slice_text("last"))) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "Name the snapshot that is to be deleted by its id; GET /replication/snapshot "
                  "shows that of the newest.");
        return;
    }
    if (!nx_snapshot_take(connection, &dir_fd, &info)) {
        return;
    }
    rc = nx_snapshot_forget(dir_fd, &info, &kept);
    close(dir_fd);
    if (rc < 0) {
        nx_snapshot_refuse(connection, rc);
        return;
    }
    nx_info("snapshot %s of offset %" PRIu64 " is %s, as a client asked", info.id,
            info.position.offset, kept ? "deleted after the full sync that needs it" : "deleted");
    respond_deleted(connection, kept != 0);
}

/* ---- having one made ---- */

static void on_answered(struct http_worker *worker, const struct nx_control_message *reply);

/* Asks the postmaster, where no question is under way already. 0 or -errno. */
static int ask(struct http_worker *worker)
{
    int rc = 0;

    if (!worker->snapshot_asked) {
        rc = nx_control_ask(worker, NX_CONTROL_SNAPSHOT, NX_SNAPSHOT_REQUEST, NULL, on_answered);
        worker->snapshot_asked = rc == 0;
    }
    return rc;
}

static void refuse_begin(struct connection *connection, int error, const char *why)
{
    bool again = error == -EAGAIN || error == -ENOMEM;

    nx_refuse(connection, again ? NX_ERROR_OVERLOADED : NX_ERROR_INTERNAL,
              "No snapshot can be begun%s: %s.", again ? " at the moment" : "", why);
}

static void on_closed(struct connection *connection)
{
    LIST_REMOVE(connection, wait_link);
    free(wait_of(connection));
    connection->request->state = NULL;
}

static const struct stream wait_stream = {
    .closed = on_closed,
};

void nx_handle_snapshot_make(struct connection *connection)
{
    struct http_worker *worker = connection->worker;
    char message[NX_MESSAGE_SIZE];
    struct snapshot_wait *wait;
    bool for_end = true;
    int rc;

    if (nx_query_bool(&connection->request->query, "wait", &for_end, message) < 0) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER, "%s", message);
        return;
    }
    if (!nx_node_check_serving(connection, "makes no more snapshots")) {
        return;
    }
    wait = calloc(1, sizeof *wait);
    rc = wait == NULL ? -ENOMEM : ask(worker);
    if (rc < 0) {
        free(wait);
        refuse_begin(connection, rc, nx_errno_text(rc));
        return;
    }
    wait->for_end = for_end;
    connection->request->state = wait;
    connection->request->stream = &wait_stream;
    LIST_INSERT_HEAD(&worker->snapshots, connection, wait_link);
}

static void take_answer(struct connection *connection, const struct nx_control_message *reply)
{
    struct snapshot_wait *wait = wait_of(connection);

    if (reply->status < 0) {
        refuse_begin(connection, reply->status, reply->text);
        return;
    }
    snprintf(wait->id, sizeof wait->id, "%.*s", (int)sizeof wait->id - 1, reply->text);
    if (!wait->for_end) {
        respond_id(connection, wait->id);
    }
}

static void on_answered(struct http_worker *worker, const struct nx_control_message *reply)
{
    struct connection *connection = LIST_FIRST(&worker->snapshots);

    worker->snapshot_asked = false;
    /* One that comes while these are answered goes to the front, where it isn't met. */
    while (connection != NULL) {
        struct connection *next = LIST_NEXT(connection, wait_link);

        if (wait_of(connection)->id[0] == '\0') {
            take_answer(connection, reply);
            nx_connection_run(connection);
        }
        connection = next;
    }
}

/* ---- its end ---- */

static void refuse_failed(struct connection *connection, const struct nx_snapshot_look *look)
{
    struct nx_shm *shm = connection->worker->shm;
    struct nx_snapshot_look after;
    char text[sizeof shm->snapshot.text];
    uint32_t code = atomic_load_explicit(&shm->snapshot.code, memory_order_relaxed);

    memcpy(text, shm->snapshot.text, sizeof text);
    text[sizeof text - 1] = '\0';
    if (!nx_snapshot_job_look(shm, &after) || after.job != look->job || code >= NX_ERROR_COUNT) {
        code = NX_ERROR_INTERNAL;
        snprintf(text, sizeof text, "The snapshot failed; this node's log says why.");
    }
    nx_refuse(connection, (enum nx_error)code, "%s", text);
}

/* A scheduled job that finds nothing new ends without an archive; who joined that one wants it anyway. */
static void ask_again(struct connection *connection)
{
    struct snapshot_wait *wait = wait_of(connection);
    int rc = ask(connection->worker);

    if (rc < 0) {
        refuse_begin(connection, rc, nx_errno_text(rc));
        return;
    }
    wait->id[0] = '\0';
    wait->asked_again = true;
}

static void finish(struct connection *connection, const struct nx_snapshot_look *look)
{
    struct snapshot_wait *wait = wait_of(connection);
    struct nx_snapshot_info info;
    bool same = strcmp(wait->id, look->id) == 0;
    int dir_fd;
    int rc;

    if (same && look->stage == NX_SNAPSHOT_FAILED) {
        refuse_failed(connection, look);
        return;
    }
    rc = find(connection->worker, wait->id, &dir_fd, &info);
    if (rc == 0) {
        close(dir_fd);
        respond_info(connection, &info);
    } else if (rc == -ENOENT && same && !wait->asked_again) {
        ask_again(connection);
    } else if (rc == -ENOENT) {
        nx_refuse(
            connection, NX_ERROR_INTERNAL,
            "Snapshot %s isn't there: it failed, or was deleted at once; this node's log says "
            "which.",
            wait->id);
    } else {
        nx_snapshot_refuse(connection, rc);
    }
}

static bool any_has_job(const struct http_worker *worker)
{
    const struct connection *connection;

    LIST_FOREACH(connection, &worker->snapshots, wait_link) {
        if (wait_of(connection)->id[0] != '\0') {
            return true;
        }
    }
    return false;
}

/* One whose job is over, or NULL. */
static struct connection *next_over(const struct http_worker *worker,
                                    const struct nx_snapshot_look *look)
{
    struct connection *connection;

    LIST_FOREACH(connection, &worker->snapshots, wait_link) {
        const char *id = wait_of(connection)->id;

        if (id[0] != '\0' && (strcmp(id, look->id) != 0 || look->stage >= NX_SNAPSHOT_DONE)) {
            return connection;
        }
    }
    return NULL;
}

bool nx_snapshots_due(const struct http_worker *worker)
{
    struct nx_snapshot_look look;

    return any_has_job(worker) &&
           (!nx_snapshot_job_look(worker->shm, &look) || next_over(worker, &look) != NULL);
}

bool nx_snapshots_poll(struct http_worker *worker)
{
    struct nx_snapshot_look look;
    struct connection *connection;
    bool any = false;

    if (!any_has_job(worker)) {
        return false;
    }
    if (!nx_snapshot_job_look(worker->shm, &look)) {
        return true; /* the next job begins at this very moment */
    }
    while ((connection = next_over(worker, &look)) != NULL) {
        finish(connection, &look);
        nx_connection_run(connection);
        any = true;
    }
    return any;
}

void nx_snapshots_end(struct http_worker *worker, bool fast)
{
    struct connection *connection = LIST_FIRST(&worker->snapshots);

    while (connection != NULL) {
        struct connection *next = LIST_NEXT(connection, wait_link);

        if (fast || wait_of(connection)->id[0] == '\0') {
            nx_refuse(connection, NX_ERROR_ROLE_CHANGE,
                      "This node is stopping; the snapshot isn't waited for.");
            nx_connection_run(connection);
        }
        connection = next;
    }
}
