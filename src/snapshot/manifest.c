/* Prints and reads the manifest. Runs in the snapshot and restore processes; pure. What is read comes from
 * another node, or from a file that a person kept for years. */
#include "snapshot/manifest.h"

#include "common/bytes.h"
#include "common/uuid_text.h"
#include "storage/data_dir.h"

#include <json-c/json.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH 8

void nx_archive_file_name(size_t n, size_t count, char ret_name[NX_ARCHIVE_NAME_MAX])
{
    if (n + 1 == count) {
        (void)snprintf(ret_name, NX_ARCHIVE_NAME_MAX, NX_EPOCHS_NAME);
    } else {
        (void)snprintf(ret_name, NX_ARCHIVE_NAME_MAX, NX_KV_NAME, n % NX_KV_MOST);
    }
}

int nx_manifest_add(struct nx_manifest *manifest, uint64_t size, uint32_t crc)
{
    if (manifest->file_count == manifest->file_cap) {
        size_t cap = manifest->file_cap == 0 ? 64 : manifest->file_cap * 2;
        struct nx_archive_file *files = reallocarray(manifest->files, cap, sizeof *manifest->files);

        if (files == NULL) {
            return -ENOMEM;
        }
        manifest->files = files;
        manifest->file_cap = cap;
    }
    manifest->files[manifest->file_count++] = (struct nx_archive_file){size, crc};
    return 0;
}

void nx_manifest_free(struct nx_manifest *manifest)
{
    free(manifest->files);
    manifest->files = NULL;
    manifest->file_count = 0;
    manifest->file_cap = 0;
}

/* ---- printing ---- */

static bool add(struct json_object *object, const char *name, struct json_object *value)
{
    if (value == NULL || json_object_object_add(object, name, value) != 0) {
        json_object_put(value);
        return false;
    }
    return true;
}

static bool add_number(struct json_object *object, const char *name, uint64_t value)
{
    return add(object, name, json_object_new_uint64(value));
}

static struct json_object *print_file(const struct nx_manifest *manifest, size_t n)
{
    struct json_object *file = json_object_new_object();
    char name[NX_ARCHIVE_NAME_MAX];

    nx_archive_file_name(n, manifest->file_count, name);
    if (file == NULL || !add(file, "name", json_object_new_string(name)) ||
        !add_number(file, "size", manifest->files[n].size) ||
        !add_number(file, "crc32", manifest->files[n].crc)) {
        json_object_put(file);
        return NULL;
    }
    return file;
}

static struct json_object *print_files(const struct nx_manifest *manifest)
{
    struct json_object *files = json_object_new_array();

    for (size_t i = 0; files != NULL && i < manifest->file_count; i++) {
        struct json_object *file = print_file(manifest, i);

        if (file == NULL || json_object_array_add(files, file) != 0) {
            json_object_put(file);
            json_object_put(files);
            return NULL;
        }
    }
    return files;
}

/* The object's text, which stays when the object goes. */
static char *text_of(struct json_object *object, bool whole)
{
    char *text = NULL;

    if (object != NULL && whole) {
        const char *printed = json_object_to_json_string_ext(object, JSON_C_TO_STRING_PRETTY);

        text = printed == NULL ? NULL : strdup(printed);
    }
    json_object_put(object);
    return text;
}

char *nx_manifest_print(const struct nx_manifest *manifest)
{
    struct json_object *object = json_object_new_object();
    bool whole = object != NULL && add(object, "id", json_object_new_string(manifest->id)) &&
                 add_number(object, "format", NX_SNAPSHOT_FORMAT) &&
                 add(object, "cluster_id", json_object_new_string(manifest->cluster_id)) &&
                 add_number(object, "created_at", manifest->created_at) &&
                 add_number(object, "wal_offset", manifest->position.offset) &&
                 add_number(object, "epoch", manifest->position.epoch) &&
                 add_number(object, "wal_crc32", manifest->position.crc) &&
                 add_number(object, "records", manifest->records) &&
                 add(object, "files", print_files(manifest));

    return text_of(object, whole);
}

static struct json_object *print_epoch(const struct nx_epoch *epoch)
{
    struct json_object *object = json_object_new_object();
    char node_id[NX_UUID_TEXT];

    nx_uuid_print(epoch->node_id, node_id);
    if (object == NULL || !add_number(object, "epoch", epoch->epoch) ||
        !add_number(object, "first_offset", epoch->first_offset) ||
        !add(object, "node_id", json_object_new_string(node_id)) ||
        !add_number(object, "crc32", epoch->crc)) {
        json_object_put(object);
        return NULL;
    }
    return object;
}

/* Only what is known: of a log without a history, its last epoch's number. */
static struct json_object *print_list(const struct nx_epochs *epochs, uint64_t last)
{
    struct json_object *list = json_object_new_array();
    bool whole = list != NULL;
    struct json_object *epoch;

    for (unsigned i = 0; whole && i < epochs->count; i++) {
        epoch = print_epoch(&epochs->list[i]);
        whole = epoch != NULL && json_object_array_add(list, epoch) == 0;
    }
    if (whole && epochs->count == 0) {
        epoch = json_object_new_object();
        whole = epoch != NULL && add_number(epoch, "epoch", last) &&
                json_object_array_add(list, epoch) == 0;
    }
    if (!whole) {
        json_object_put(list);
        return NULL;
    }
    return list;
}

static struct json_object *print_claim(const struct nx_epochs *epochs)
{
    char text[2 * NX_CLAIM_SIZE + 1] = "";

    for (uint32_t i = 0; i < epochs->claim_length; i++) {
        (void)snprintf(text + (size_t)i * 2, sizeof text - (size_t)i * 2, "%02x", epochs->claim[i]);
    }
    return json_object_new_string(text);
}

char *nx_epochs_print(const struct nx_position *position, const struct nx_epochs *epochs)
{
    struct json_object *object = json_object_new_object();
    bool whole = object != NULL && add(object, "epochs", print_list(epochs, position->epoch)) &&
                 add(object, "claim", print_claim(epochs));

    return text_of(object, whole);
}

/* ---- reading ---- */

static int parse(const char *text, size_t length, struct json_object **ret_object, const char **why)
{
    struct json_tokener *tokener = json_tokener_new_ex(DEPTH);
    int rc = 0;

    if (tokener == NULL) {
        return -ENOMEM;
    }
    json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
    *ret_object = json_tokener_parse_ex(tokener, text, (int)length);
    if (*ret_object == NULL || json_tokener_get_parse_end(tokener) != length ||
        !json_object_is_type(*ret_object, json_type_object)) {
        *why = "it is not one JSON object";
        json_object_put(*ret_object);
        rc = -EBADMSG;
    }
    json_tokener_free(tokener);
    return rc;
}

/* A whole number, not negative. */
static bool get_number(struct json_object *object, const char *name, uint64_t *ret_value)
{
    struct json_object *value = NULL;

    if (!json_object_object_get_ex(object, name, &value) ||
        !json_object_is_type(value, json_type_int)) {
        return false;
    }
    *ret_value = json_object_get_uint64(value);
    return *ret_value < UINT64_MAX && /* json-c makes that of all that is larger */
           (*ret_value > (uint64_t)INT64_MAX || json_object_get_int64(value) >= 0);
}

static bool get_crc(struct json_object *object, const char *name, uint32_t *ret_value)
{
    uint64_t value = 0;
    bool found = get_number(object, name, &value) && value <= UINT32_MAX;

    *ret_value = (uint32_t)value;
    return found;
}

/* As ids are stored and compared. */
static void make_lower(char *id)
{
    for (; *id != '\0'; id++) {
        if (*id >= 'A' && *id <= 'F') {
            *id = (char)(*id - 'A' + 'a');
        }
    }
}

static bool get_uuid(struct json_object *object, const char *name, char ret_id[NX_UUID_TEXT])
{
    struct json_object *value = NULL;

    if (!json_object_object_get_ex(object, name, &value) ||
        !json_object_is_type(value, json_type_string) ||
        !nx_slice_is_uuid(nx_slice_of(json_object_get_string(value),
                                      (size_t)json_object_get_string_len(value)))) {
        return false;
    }
    memcpy(ret_id, json_object_get_string(value), NX_UUID_TEXT);
    make_lower(ret_id);
    return true;
}

static bool parse_file(struct json_object *file, const char *expected, struct nx_archive_file *ret)
{
    struct json_object *name = NULL;

    return json_object_is_type(file, json_type_object) &&
           json_object_object_get_ex(file, "name", &name) &&
           json_object_is_type(name, json_type_string) &&
           (size_t)json_object_get_string_len(name) == strlen(expected) &&
           strcmp(json_object_get_string(name), expected) == 0 &&
           get_number(file, "size", &ret->size) && get_crc(file, "crc32", &ret->crc);
}

static int parse_files(struct json_object *object, struct nx_manifest *manifest, const char **why)
{
    struct json_object *files = NULL;
    size_t count;

    if (!json_object_object_get_ex(object, "files", &files) ||
        !json_object_is_type(files, json_type_array)) {
        *why = "it lists no files";
        return -EBADMSG;
    }
    count = json_object_array_length(files);
    for (size_t i = 0; i < count; i++) {
        struct nx_archive_file file = {0, 0};
        char name[NX_ARCHIVE_NAME_MAX];

        nx_archive_file_name(i, count, name);
        if (i >= NX_KV_MOST || !parse_file(json_object_array_get_idx(files, i), name, &file)) {
            *why = "its list of files is not that of a snapshot";
            return -EBADMSG;
        }
        if (nx_manifest_add(manifest, file.size, file.crc) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

static int parse_fields(struct json_object *object, struct nx_manifest *manifest, const char **why)
{
    uint64_t format = 0;

    if (!get_number(object, "format", &format) || format != NX_SNAPSHOT_FORMAT) {
        *why = "its format is not 1, which this version reads";
        return -EBADMSG;
    }
    if (!get_uuid(object, "id", manifest->id) ||
        !get_uuid(object, "cluster_id", manifest->cluster_id) ||
        !get_number(object, "created_at", &manifest->created_at) ||
        !get_number(object, "wal_offset", &manifest->position.offset) ||
        !get_number(object, "epoch", &manifest->position.epoch) ||
        !get_number(object, "records", &manifest->records)) {
        *why = "id, cluster_id, created_at, wal_offset, epoch or records is missing or malformed";
        return -EBADMSG;
    }
    if (json_object_object_get_ex(object, "wal_crc32", NULL) &&
        !get_crc(object, "wal_crc32", &manifest->position.crc)) {
        *why = "its wal_crc32 is malformed";
        return -EBADMSG;
    }
    if (manifest->position.offset > 0 && manifest->position.epoch == 0) {
        *why = "its epoch is 0";
        return -EBADMSG;
    }
    return parse_files(object, manifest, why);
}

int nx_manifest_parse(const char *text,
                      size_t length,
                      struct nx_manifest *ret_manifest,
                      const char **why)
{
    struct json_object *object = NULL;
    int rc = parse(text, length, &object, why);

    *ret_manifest = (struct nx_manifest){.records = 0};
    if (rc < 0) {
        return rc;
    }
    rc = parse_fields(object, ret_manifest, why);
    json_object_put(object);
    if (rc < 0) {
        nx_manifest_free(ret_manifest);
    }
    return rc;
}

static bool parse_epoch(struct json_object *object, struct nx_epoch *ret_epoch)
{
    char node_id[NX_UUID_TEXT];

    return get_number(object, "epoch", &ret_epoch->epoch) &&
           get_number(object, "first_offset", &ret_epoch->first_offset) &&
           get_uuid(object, "node_id", node_id) &&
           nx_uuid_parse(node_id, ret_epoch->node_id) == 0 &&
           get_crc(object, "crc32", &ret_epoch->crc);
}

static bool parse_claim(struct json_object *object, struct nx_epochs *epochs)
{
    struct json_object *value;
    struct nx_epoch claimed;
    const char *text;

    if (!json_object_object_get_ex(object, "claim", &value) ||
        json_object_get_string_len(value) == 0) {
        return true;
    }
    text = json_object_get_string(value);
    if (strlen(text) != (size_t)2 * NX_CLAIM_SIZE) {
        return false;
    }
    for (size_t i = 0; i < NX_CLAIM_SIZE; i++) {
        char digits[3] = {text[2 * i], text[2 * i + 1], '\0'};
        char *end;

        epochs->claim[i] = (uint8_t)strtoul(digits, &end, 16);
        if (end != digits + 2) {
            return false;
        }
    }
    epochs->claim_length = NX_CLAIM_SIZE;
    return nx_claim_decode(nx_slice_of(epochs->claim, NX_CLAIM_SIZE), &claimed) == 0 &&
           nx_epoch_same(&claimed, nx_epochs_last(epochs));
}

/* The records, where each tells all of its epoch; else none. */
static bool parse_list(struct json_object *list, struct nx_epochs *epochs)
{
    size_t count = json_object_array_length(list);

    for (size_t i = 0; i < count; i++) {
        struct nx_epoch epoch;

        if (!parse_epoch(json_object_array_get_idx(list, i), &epoch) ||
            nx_epochs_add(epochs, &epoch, NULL) < 0) {
            epochs->count = 0;
            return false;
        }
    }
    return true;
}

static bool is_history_of(struct json_object *object,
                          const struct nx_position *position,
                          struct nx_epochs *epochs)
{
    const struct nx_epoch *last = nx_epochs_last(epochs);

    return last != NULL && last->first_offset <= position->offset && parse_claim(object, epochs);
}

int nx_epochs_parse(const char *text,
                    size_t length,
                    const struct nx_position *position,
                    struct nx_epochs *ret_epochs,
                    const char **why)
{
    struct json_object *object = NULL;
    struct json_object *list = NULL;
    uint64_t last = 0;
    int rc = parse(text, length, &object, why);

    ret_epochs->count = 0;
    ret_epochs->claim_length = 0;
    if (rc < 0) {
        return rc;
    }
    if (!json_object_object_get_ex(object, "epochs", &list) ||
        !json_object_is_type(list, json_type_array) || json_object_array_length(list) == 0) {
        *why = "it has no epochs";
        rc = -EBADMSG;
    } else if (!get_number(json_object_array_get_idx(list, json_object_array_length(list) - 1),
                           "epoch", &last) ||
               last != position->epoch) {
        *why = "its last epoch is not the manifest's";
        rc = -EBADMSG;
    } else if (parse_list(list, ret_epochs) && !is_history_of(object, position, ret_epochs)) {
        *why = "its last epoch is not of this history";
        rc = -EBADMSG;
    }
    json_object_put(object);
    return rc;
}
