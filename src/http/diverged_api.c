/* Runs in http workers. GET /replication/diverged: the entries that this node has given up when it went over to
 * another history, and where their operations lie. It reads what the walreceiver has saved (storage/diverged.h)
 * and believes no line that it hasn't looked at: the files lie there for years, and people handle them. */
#include "common/json_out.h"
#include "common/log.h"
#include "http/connection.h"
#include "http/json_in.h"
#include "http/response.h"
#include "http/router.h"
#include "http/worker.h"
#include "storage/diverged.h"
#include "storage/file_io.h"

#include <json-c/json.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#define MOST_ENTRIES 10000
#define MOST_BYTES   ((size_t)4 << 20) /* of their lines, but for the first */
#define FIRST_ROOM   64

/* One entry: its line in shown->lines. */
struct shown_entry {
    uint64_t offset;
    uint64_t epoch;
    size_t at;
    size_t length;
};

struct shown {
    struct json_tokener *tokener;
    const struct nx_diverged_range *range; /* the one being read */
    uint64_t last;                         /* entry of it that was read */
    struct text lines;
    struct shown_entry *entries; /* malloc'd */
    size_t count;
    size_t room;
    bool truncated;
};

/* ---- what a file says ---- */

static bool number_of(struct json_object *object, const char *name, uint64_t *ret_number)
{
    struct json_object *value = NULL;

    if (!json_object_object_get_ex(object, name, &value) ||
        !json_object_is_type(value, json_type_int) || json_object_get_int64(value) <= 0) {
        return false;
    }
    *ret_number = json_object_get_uint64(value);
    return true;
}

static bool holds_strings(struct json_object *object, const char *name, bool needed)
{
    struct json_object *array = NULL;

    if (!json_object_object_get_ex(object, name, &array)) {
        return !needed;
    }
    if (!json_object_is_type(array, json_type_array)) {
        return false;
    }
    for (size_t i = 0; i < json_object_array_length(array); i++) {
        if (!json_object_is_type(json_object_array_get_idx(array, i), json_type_string)) {
            return false;
        }
    }
    return true;
}

/* Reads one line. 0 or -EBADMSG. */
static int read_entry(const struct shown *shown,
                      struct nx_slice line,
                      struct shown_entry *ret_entry)
{
    const struct nx_diverged_range *range = shown->range;
    struct json_object *object = NULL;
    struct json_fault fault;
    bool good;

    if (nx_json_parse(shown->tokener, line, &object, &fault) < 0) {
        return -EBADMSG;
    }
    good = nx_json_only(object, "offset epoch keys keys_base64", "The line", &fault) == 0 &&
           number_of(object, "offset", &ret_entry->offset) &&
           number_of(object, "epoch", &ret_entry->epoch) && holds_strings(object, "keys", true) &&
           holds_strings(object, "keys_base64", false);
    json_object_put(object);
    return good && ret_entry->offset >= range->first && ret_entry->offset > shown->last &&
                   ret_entry->offset <= range->last.offset && ret_entry->epoch <= range->last.epoch
               ? 0
               : -EBADMSG;
}

static int add_entry(struct shown *shown, const struct shown_entry *entry)
{
    if (shown->count == shown->room) {
        size_t room = shown->room > 0 ? shown->room * 2 : FIRST_ROOM;
        struct shown_entry *entries = reallocarray(shown->entries, room, sizeof *entries);

        if (entries == NULL) {
            return -ENOMEM;
        }
        shown->entries = entries;
        shown->room = room;
    }
    shown->entries[shown->count++] = *entry;
    return 0;
}

static int take_line(void *arg, struct nx_slice line)
{
    struct shown *shown = arg;
    struct shown_entry entry = {.at = shown->lines.length, .length = line.length};
    int rc;

    shown->truncated = shown->count == MOST_ENTRIES ||
                       (shown->count > 0 && shown->lines.length + line.length > MOST_BYTES);
    if (shown->truncated) {
        return 1;
    }
    rc = read_entry(shown, line, &entry);
    if (rc < 0) {
        return rc;
    }
    shown->last = entry.offset;
    return nx_text_add(&shown->lines, line.data, line.length) ? add_entry(shown, &entry) : -ENOMEM;
}

/* ---- all files ---- */

/* A want of descriptors or memory is no fault of the file. */
static bool is_shortage(int error)
{
    return error == -EMFILE || error == -ENFILE || error == -ENOMEM;
}

/* What is wrong with one file hides none of the others. 0, or a shortage as -errno. */
static int read_range(struct shown *shown,
                      const struct http_worker *worker,
                      int dir_fd,
                      const struct nx_diverged_range *range)
{
    static struct nx_log_limit limit;
    char name[NX_DIVERGED_NAME];
    size_t count = shown->count;
    size_t length = shown->lines.length;
    int rc;

    shown->range = range;
    shown->last = 0;
    rc = nx_diverged_each_entry(dir_fd, range, take_line, shown);
    if (rc >= 0 || is_shortage(rc)) {
        return rc < 0 ? rc : 0;
    }
    shown->count = count;
    shown->lines.length = length;
    nx_diverged_name(range, NX_DIVERGED_ENTRIES, name);
    nx_log_limited(&limit, NX_LOG_WARNING,
                   "%s/" NX_DIVERGED_DIR "/%s is left out of /replication/diverged: %s",
                   worker->process->data_dir, name,
                   rc == -EBADMSG ? "it is damaged" : nx_errno_text(rc));
    return 0;
}

static void warn_of_foreign(const struct http_worker *worker, const struct nx_diverged_list *list)
{
    static struct nx_log_limit limit;

    if (list->foreign > 0) {
        nx_log_limited(&limit, NX_LOG_WARNING,
                       "%s/" NX_DIVERGED_DIR " holds %zu file%s that belong%s to nothing that was "
                       "saved there, as %s",
                       worker->process->data_dir, list->foreign, list->foreign == 1 ? "" : "s",
                       list->foreign == 1 ? "s" : "", list->foreign_name);
    }
}

static int in_order(const void *a, const void *b)
{
    const struct shown_entry *x = a;
    const struct shown_entry *y = b;

    if (x->offset != y->offset) {
        return x->offset < y->offset ? -1 : 1;
    }
    if (x->epoch != y->epoch) {
        return x->epoch < y->epoch ? -1 : 1;
    }
    return x->at < y->at ? -1 : 1;
}

/* 0, also when nothing was ever saved, or -errno. */
static int read_all(struct shown *shown,
                    const struct http_worker *worker,
                    struct nx_diverged_list *list)
{
    int dir_fd = nx_diverged_dir(worker->process->data_dir);
    int rc;

    if (dir_fd < 0) {
        return dir_fd == -ENOENT ? 0 : dir_fd;
    }
    rc = nx_diverged_list(dir_fd, list);
    for (size_t i = 0; rc == 0 && i < list->count && !shown->truncated; i++) {
        rc = read_range(shown, worker, dir_fd, &list->ranges[i]);
    }
    close(dir_fd);
    if (shown->count > 0) {
        qsort(shown->entries, shown->count, sizeof shown->entries[0], in_order);
    }
    return rc;
}

/* ---- the answer ---- */

static void put_files(struct json *json,
                      const struct http_worker *worker,
                      const struct nx_diverged_list *list)
{
    char path[NX_DIVERGED_PATH];

    nx_json_open(json, "files", '[');
    for (size_t i = 0; i < list->count; i++) {
        nx_diverged_path(worker->process->data_dir, &list->ranges[i], path);
        nx_json_string(json, NULL, path);
    }
    nx_json_close(json, ']');
}

static void respond(struct connection *connection,
                    const struct shown *shown,
                    const struct nx_diverged_list *list)
{
    struct text *text = &connection->worker->json;
    struct json json = nx_json_of(text);

    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    nx_json_open(&json, "entries", '[');
    for (size_t i = 0; i < shown->count; i++) {
        const struct shown_entry *entry = &shown->entries[i];

        nx_json_raw(&json, NULL,
                    &(struct text){
                        .data = shown->lines.data + entry->at,
                        .length = entry->length,
                    });
    }
    nx_json_close(&json, ']');
    put_files(&json, connection->worker, list);
    if (shown->truncated) {
        nx_json_bool(&json, "truncated", true);
    }
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_respond_json(connection, text);
}

static void refuse(struct connection *connection, int error)
{
    static struct nx_log_limit limit;
    const char *data_dir = connection->worker->process->data_dir;

    if (is_shortage(error)) {
        nx_refuse(connection, NX_ERROR_OVERLOADED,
                  "%s/" NX_DIVERGED_DIR " can't be read at the moment: %s.", data_dir,
                  nx_errno_text(error));
        return;
    }
    nx_log_limited(&limit, NX_LOG_ERROR, "%s/" NX_DIVERGED_DIR " can't be read: %s", data_dir,
                   nx_errno_text(error));
    nx_refuse(connection, NX_ERROR_INTERNAL, "%s/" NX_DIVERGED_DIR " can't be read: %s.", data_dir,
              nx_errno_text(error));
}

void nx_handle_diverged(struct connection *connection)
{
    struct http_worker *worker = connection->worker;
    struct shown shown = {.tokener = worker->tokener};
    struct nx_diverged_list list = {.count = 0};
    int rc = read_all(&shown, worker, &list);

    if (rc < 0) {
        refuse(connection, rc);
    } else {
        warn_of_foreign(worker, &list);
        respond(connection, &shown, &list);
    }
    free(list.ranges);
    free(shown.entries);
    nx_text_free(&shown.lines);
}
