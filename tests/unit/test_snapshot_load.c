/* A snapshot's way into a data-N: all of it arrives, or nothing counts and nothing else is touched. */
#include "archive_fixture.h"
#include "common/config.h"
#include "common/crc32.h"
#include "snapshot/archive_write.h"
#include "snapshot/load.h"
#include "snapshot/record.h"
#include "storage/state_handle.h"
#include "storage/wal_segment.h"

#include <check.h>
#include <lmdb.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ID       "550e8400-e29b-41d4-a716-446655440003"
#define CLUSTER  "550e8400-e29b-41d4-a716-446655440000"
#define OTHER    "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
#define EPOCH    3
#define OFFSET   1000
#define CRC      UINT32_C(0xdeadbeef)
#define MAP_SIZE (UINT64_C(256) << 20)
#define NAMES    512

static char top[64];
static char root[128]; /* data-2, in it */
static struct nx_load_options options;
static struct bytes archive; /* the whole of it */
static struct memory memory; /* where it is read */
static char error[1024];
static uint64_t progressed;

static struct nx_archive_writer *writer;
static int writer_fd;
static struct bytes kv;         /* the file that is being filled */
static struct nx_manifest made; /* so far */

/* ---- data-N ---- */

static const char *in_top(const char *name)
{
    static char path[256];

    (void)snprintf(path, sizeof path, "%s/%s", top, name);
    return path;
}

static int note_progress(void *arg, uint64_t records)
{
    (void)arg;
    ck_assert_uint_ge(records, progressed);
    progressed = records;
    return 0;
}

static void setup(void)
{
    static const char *const names[] = {"data-1", "data-2", "data-2/wal", "data-2/state"};

    (void)snprintf(top, sizeof top, "/tmp/nexus-load-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(top));
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        ck_assert_int_eq(mkdir(in_top(names[i]), 0700), 0);
    }
    (void)snprintf(root, sizeof root, "%s/data-2", top);
    options = (struct nx_load_options){
        .source = memory_source(&memory),
        .root = root,
        .map_size = MAP_SIZE,
        .id = ID,
        .cluster_id = CLUSTER,
        .wal_offset = OFFSET,
        .epoch = EPOCH,
        .progress = note_progress,
    };
}

static void teardown(void)
{
    nx_archive_writer_close(writer);
    nx_manifest_free(&made);
    bytes_free(&kv);
    bytes_free(&archive);
    ck_assert_int_eq(nx_remove_tree(AT_FDCWD, top), 0);
}

static int append_name(void *arg, const char *name)
{
    char *names = arg;
    size_t length = strlen(names);

    (void)snprintf(names + length, NAMES - length, "%s ", name);
    return 0;
}

static bool has_names(const char *directory, size_t count, const char *const *expected)
{
    char names[NAMES] = "";
    size_t length = 0;
    int fd = open(in_top(directory), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(nx_each_name(fd, append_name, names), 0);
    close(fd);
    for (size_t i = 0; i < count; i++) {
        length += strlen(expected[i]) + 1;
        if (strstr(names, expected[i]) == NULL) {
            return false;
        }
    }
    return strlen(names) == length;
}

static void only_the_state_was_touched(void)
{
    static const char *const of_top[] = {"data-1", "data-2"};
    static const char *const of_root[] = {"wal", "state"};

    ck_assert(has_names(".", 2, of_top));
    ck_assert(has_names("data-1", 0, NULL));
    ck_assert(has_names("data-2", 2, of_root));
    ck_assert(has_names("data-2/wal", 0, NULL)); /* no mark */
}

/* ---- an archive ---- */

static void begin(void)
{
    struct nx_archive_options how = {.level = 1, .max_size = UINT64_MAX};

    writer_fd = file_make();
    how.fd = writer_fd;
    ck_assert_int_eq(nx_archive_writer_open(&how, &writer), 0);
    made = (struct nx_manifest){
        .id = ID,
        .cluster_id = CLUSTER,
        .created_at = 1700000000000,
        .position = {.epoch = EPOCH, .offset = OFFSET, .crc = CRC},
    };
}

static void add_file(const char *name, const void *bytes, size_t length)
{
    ck_assert_int_eq(nx_archive_writer_add(writer, name, bytes, length, 0), 0);
}

static void add_record(const struct nx_record *record)
{
    nx_record_encode(record, bytes_extend(&kv, nx_record_size(record)));
    made.records++;
}

static void add(const char *key, const char *value, uint64_t offset)
{
    struct nx_record record = {
        .key = (const uint8_t *)key,
        .key_length = strlen(key),
        .value = (const uint8_t *)value,
        .value_length = strlen(value),
        .offset = offset,
    };

    add_record(&record);
}

static void add_expiring(const char *key, uint64_t offset, uint64_t expires_at)
{
    struct nx_record record = {
        .key = (const uint8_t *)key,
        .key_length = strlen(key),
        .value = (const uint8_t *)"v",
        .value_length = 1,
        .offset = offset,
        .expires_at = expires_at,
    };

    add_record(&record);
}

static void note_file(const void *bytes, size_t length)
{
    ck_assert_int_eq(nx_manifest_add(&made, length, nx_crc32(0, bytes, length)), 0);
}

static void end_kv(void)
{
    char name[NX_ARCHIVE_NAME_MAX];

    nx_archive_file_name(made.file_count, SIZE_MAX, name);
    add_file(name, kv.data, kv.length);
    note_file(kv.data, kv.length);
    kv.length = 0;
}

static void add_epochs_text(const char *text)
{
    add_file("epochs.json", text, strlen(text));
    note_file(text, strlen(text));
}

static void add_epochs(void)
{
    static const struct nx_epochs none;
    char *text = nx_epochs_print(&made.position, &none);

    add_epochs_text(text);
    free(text);
}

static void add_manifest(void)
{
    char *text = nx_manifest_print(&made);

    add_file("manifest.json", text, strlen(text));
    free(text);
}

static void finish(void)
{
    struct nx_archive_totals totals;

    ck_assert_int_eq(nx_archive_writer_finish(writer, &totals), 0);
    nx_archive_writer_close(writer);
    writer = NULL;
    file_take(writer_fd, &archive);
    memory = memory_of(&archive);
}

static void finish_all(void)
{
    add_epochs();
    add_manifest();
    finish();
}

static int load(struct nx_manifest *ret_manifest)
{
    memset(error, 0, sizeof error);
    progressed = 0;
    return nx_load_archive(&options, ret_manifest, error, sizeof error);
}

static void loaded(struct nx_manifest *ret_manifest)
{
    int rc = load(ret_manifest);

    ck_assert_msg(rc == 0, "%d: %s", rc, error);
    ck_assert_ptr_null(ret_manifest->files);
    ck_assert_uint_eq(progressed, ret_manifest->records);
}

static struct nx_state *open_state(struct nx_position *ret_position)
{
    struct nx_state_options how = {.map_size = MAP_SIZE};
    struct nx_state *state = NULL;
    int rc = nx_state_open(in_top("data-2/state"), &how, &state, error, sizeof error);

    ck_assert_msg(rc == 0, "%s", error);
    ck_assert_int_eq(nx_state_read_begin(state, ret_position), 0);
    return state;
}

static void close_state(struct nx_state *state)
{
    nx_state_read_end(state);
    nx_state_close(state);
}

static void refused(const char *words)
{
    struct nx_manifest manifest;
    int rc = load(&manifest);

    ck_assert_msg(rc == -EBADMSG, "%d instead of a refusal: %s", rc, words);
    ck_assert_msg(strstr(error, words) != NULL, "\"%s\" is not in: %s", words, error);
    ck_assert_ptr_eq(strstr(error, "the snapshot is refused: "), error);
    only_the_state_was_touched();
}

/* ---- all of it arrives ---- */

static void has(struct nx_state *state, const char *key, const char *value, uint64_t offset)
{
    struct nx_record record;

    ck_assert_int_eq(nx_state_get(state, (const uint8_t *)key, strlen(key), &record), 0);
    ck_assert_uint_eq(record.offset, offset);
    ck_assert_uint_eq(record.value_length, strlen(value));
    ck_assert_mem_eq(record.value, value, strlen(value));
}

static void make_some(void)
{
    begin();
    add("a", "1", 1);
    add("b", "", OFFSET);
    end_kv();
    add("c", "3", 2);
    end_kv();
}

/* _i: bytes that the source gives at a time; 0: all. */
START_TEST(records_and_position_arrive)
{
    struct nx_manifest manifest;
    struct nx_position position;
    struct nx_state *state;

    make_some();
    finish_all();
    memory.most = (size_t)_i;
    loaded(&manifest);
    ck_assert_str_eq(manifest.id, ID);
    ck_assert_str_eq(manifest.cluster_id, CLUSTER);
    ck_assert_uint_eq(manifest.records, 3);
    ck_assert_uint_eq(manifest.position.offset, OFFSET);

    state = open_state(&position);
    ck_assert_uint_eq(position.offset, OFFSET);
    ck_assert_uint_eq(position.epoch, EPOCH);
    ck_assert_uint_eq(position.crc, CRC);
    ck_assert_uint_eq(nx_state_records(state), 3);
    has(state, "a", "1", 1);
    has(state, "b", "", OFFSET);
    has(state, "c", "3", 2);
    close_state(state);
}
END_TEST

START_TEST(the_log_goes_on_behind_it)
{
    static const char *const names[] = {"durable"};
    struct nx_manifest manifest;
    struct nx_mark mark;
    int fd;

    make_some();
    finish_all();
    options.quorum_rules = _i == 1;
    loaded(&manifest);
    ck_assert(has_names("data-2/wal", 1, names));
    fd = open(in_top("data-2/wal"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_eq(nx_mark_read(fd, &mark), 0);
    close(fd);
    ck_assert_uint_eq(mark.position.offset, OFFSET);
    ck_assert_uint_eq(mark.position.epoch, EPOCH);
    ck_assert_uint_eq(mark.position.crc, CRC);
    ck_assert_int_eq(mark.mode, _i);
    ck_assert_uint_eq(mark.quorum_offset, 0);
}
END_TEST

static size_t expiry_rows(const struct nx_state *state)
{
    MDB_stat stat;

    ck_assert_int_eq(mdb_stat(state->read, state->environment->expiry, &stat), 0);
    return stat.ms_entries;
}

/* Two puts of one entry may have the same moment and offset: their rows must not be one. */
START_TEST(each_expiry_has_its_row)
{
    static const char *const keys[] = {"a", "b", "d"};
    struct nx_state_options how = {.map_size = MAP_SIZE, .writer = true};
    struct nx_manifest manifest;
    struct nx_position position;
    struct nx_record record;
    struct nx_state *state;

    begin();
    add_expiring("a", 7, 5000);
    add_expiring("b", 7, 5000);
    add("c", "stays", 7);
    end_kv();
    add_expiring("d", 7, UINT64_MAX);
    end_kv();
    finish_all();
    loaded(&manifest);
    state = open_state(&position);
    ck_assert_uint_eq(expiry_rows(state), 3);
    for (size_t i = 0; i < 3; i++) {
        ck_assert_int_eq(nx_state_get(state, (const uint8_t *)keys[i], 1, &record), 0);
        ck_assert_uint_eq(record.expires_at, i < 2 ? 5000 : UINT64_MAX);
    }
    close_state(state);

    /* And goes with its record. */
    ck_assert_int_eq(nx_state_open(in_top("data-2/state"), &how, &state, error, sizeof error), 0);
    ck_assert_int_eq(nx_state_write_begin(state), 0);
    ck_assert_int_eq(nx_state_delete(state, (const uint8_t *)"a", 1), 0);
    ck_assert_int_eq(nx_state_delete(state, (const uint8_t *)"d", 1), 0);
    position.offset++;
    ck_assert_int_eq(nx_state_write_commit(state, &position), 0);
    ck_assert_int_eq(nx_state_read_begin(state, &position), 0);
    ck_assert_uint_eq(expiry_rows(state), 1);
    ck_assert_int_eq(nx_state_get(state, (const uint8_t *)"b", 1, &record), 0);
    close_state(state);
}
END_TEST

/* More than one transaction takes, and than the buffer for records at first has room for. */
START_TEST(large_values_arrive)
{
    static const size_t lengths[] = {NX_MAX_VALUE, 0, 300000, 9 << 20, 1, NX_MAX_VALUE};
    uint8_t *value = calloc(1, NX_MAX_VALUE);
    struct nx_manifest manifest;
    struct nx_position position;
    struct nx_record record;
    struct nx_state *state;
    char key[NX_MAX_KEY + 1];

    memset(key, 'k', sizeof key);
    begin();
    for (size_t i = 0; i < 6; i++) {
        key[NX_MAX_KEY - 1] = (char)('a' + i);
        memset(value, 'a' + (int)i, NX_MAX_VALUE);
        record = (struct nx_record){.key = (const uint8_t *)key,
                                    .key_length = NX_MAX_KEY,
                                    .value = value,
                                    .value_length = lengths[i],
                                    .offset = i + 1,
                                    .expires_at = i % 2};
        add_record(&record);
        if (i % 3 == 2) {
            end_kv();
        }
    }
    finish_all();
    loaded(&manifest);
    state = open_state(&position);
    ck_assert_uint_eq(nx_state_records(state), 6);
    for (size_t i = 0; i < 6; i++) {
        key[NX_MAX_KEY - 1] = (char)('a' + i);
        memset(value, 'a' + (int)i, NX_MAX_VALUE);
        ck_assert_int_eq(nx_state_get(state, (const uint8_t *)key, NX_MAX_KEY, &record), 0);
        ck_assert_uint_eq(record.offset, i + 1);
        ck_assert_uint_eq(record.value_length, lengths[i]);
        ck_assert_mem_eq(record.value, value, lengths[i]);
    }
    close_state(state);
    free(value);
}
END_TEST

/* _i: with a kv file that is empty. */
START_TEST(an_empty_snapshot_is_one)
{
    struct nx_manifest manifest;
    struct nx_position position;

    begin();
    if (_i > 0) {
        end_kv();
    }
    finish_all();
    loaded(&manifest);
    close_state(open_state(&position));
    ck_assert_uint_eq(position.offset, OFFSET);
}
END_TEST

START_TEST(a_crc_that_the_manifest_does_not_tell_is_0)
{
    struct nx_manifest manifest;
    struct nx_position position;
    char *text;
    char *at;

    make_some();
    add_epochs();
    text = nx_manifest_print(&made);
    at = strstr(text, "wal_crc32");
    ck_assert_ptr_nonnull(at);
    *at = 'x';
    add_file("manifest.json", text, strlen(text));
    free(text);
    finish();
    loaded(&manifest);
    ck_assert_uint_eq(manifest.position.crc, 0);
    close_state(open_state(&position));
    ck_assert_uint_eq(position.offset, OFFSET);
    ck_assert_uint_eq(position.crc, 0);
}
END_TEST

START_TEST(a_file_is_loaded_without_being_announced)
{
    struct nx_manifest manifest;

    options.id = "";
    options.cluster_id = "";
    options.wal_offset = 0;
    options.epoch = 0;
    options.progress = NULL;
    make_some();
    finish_all();
    ck_assert_int_eq(load(&manifest), 0);
    ck_assert_str_eq(manifest.id, ID);
    ck_assert_str_eq(manifest.cluster_id, CLUSTER);
}
END_TEST

START_TEST(ids_are_the_same_in_either_case)
{
    struct nx_manifest manifest;

    options.id = "550E8400-E29B-41D4-A716-446655440003";
    make_some();
    finish_all();
    loaded(&manifest);
}
END_TEST

/* ---- refusals: of the announced ---- */

static void want_another_id(void)
{
    options.id = OTHER;
}

static void want_another_cluster(void)
{
    options.cluster_id = OTHER;
}

static void want_another_offset(void)
{
    options.wal_offset = OFFSET + 1;
}

static void want_another_epoch(void)
{
    options.epoch = EPOCH - 1;
}

static const struct {
    void (*want)(void);
    const char *words;
} wishes[] = {
    {want_another_id, "of another snapshot or another cluster"},
    {want_another_cluster, "of another snapshot or another cluster"},
    {want_another_offset, "its manifest says offset 1000 of epoch 3, announced was 1001 of 3"},
    {want_another_epoch, "its manifest says offset 1000 of epoch 3, announced was 1000 of 2"},
};

START_TEST(another_snapshot_than_the_announced_is_refused)
{
    wishes[_i].want();
    make_some();
    finish_all();
    refused(wishes[_i].words);
}
END_TEST

/* ---- refusals: of the archive ---- */

static struct nx_archive_file *listed(const char *number)
{
    size_t n = strtoull(number, NULL, 10);

    ck_assert(made.files != NULL && n < made.file_count);
    return made.files + n;
}

/* One step of a script:
 *
 *     k7           a record, its key and offset         /   the records so far are the next kv file
 *     .            one byte less of the records         E M epochs.json, manifest.json
 *     =kv/000009   the records so far are a file of this name, which isn't listed
 *     + -          the manifest counts a record more, less
 *     crc1 size1   its CRC or size of the file 1 is wrong
 *     less more    it lists a file less, more
 */
static void step(const char *word)
{
    if (strcmp(word, "/") == 0) {
        end_kv();
    } else if (strcmp(word, ".") == 0) {
        kv.length--;
    } else if (strcmp(word, "E") == 0) {
        add_epochs();
    } else if (strcmp(word, "M") == 0) {
        add_manifest();
    } else if (word[0] == '=') {
        add_file(word + 1, kv.data, kv.length);
    } else if (strcmp(word, "+") == 0 || strcmp(word, "-") == 0) {
        made.records += word[0] == '+' ? 1 : UINT64_MAX;
    } else if (strncmp(word, "crc", 3) == 0) {
        listed(word + 3)->crc ^= 1;
    } else if (strncmp(word, "size", 4) == 0) {
        listed(word + 4)->size++;
    } else if (strcmp(word, "less") == 0) {
        made.file_count--;
    } else if (strcmp(word, "more") == 0) {
        note_file("x", 1);
    } else {
        add((char[]){word[0], '\0'}, "value", strtoull(word + 1, NULL, 10));
    }
}

static void run(const char *script)
{
    char *words = strdup(script);
    char *rest = NULL;

    begin();
    for (char *word = strtok_r(words, " ", &rest); word != NULL;
         word = strtok_r(NULL, " ", &rest)) {
        step(word);
    }
    free(words);
    finish();
}

#define NOT_ASCENDING "not in ascending order"
#define CUT_RECORD    "ends in the middle of a record"
#define NOT_RECORDS   "its records are not those of its manifest"
#define NOT_FILES     "sizes or CRCs of its files are not those of its manifest"
#define WRONG_PLACE   "that no snapshot has, or one at the wrong place"
#define NO_MANIFEST   "it has no manifest"

static const struct {
    const char *script;
    const char *words;
} refusals[] = {
    {"k1 k2 / E M", NOT_ASCENDING},
    {"k1 j2 / E M", NOT_ASCENDING},
    {"k1 / j2 / E M", NOT_ASCENDING},
    {"k1 / k1 / E M", NOT_ASCENDING},
    {"a1 b2 . / E M", CUT_RECORD},
    {"a1 b2 . / c3 / E M", CUT_RECORD},
    {"a1 . . . . . . / E M", CUT_RECORD}, /* the value and the key are gone */
    {"a1 . . . . . . . / E M", CUT_RECORD},
    {"a0 / E M", "a record that can't be one"},
    {"a1001 / E M", NOT_RECORDS},
    {"a1001 b1 / E M", NOT_RECORDS},
    {"a1 b2 / + E M", NOT_RECORDS},
    {"a1 b2 / - E M", NOT_RECORDS},
    {"a1 / b1 / crc0 E M", NOT_FILES},
    {"a1 / b1 / crc1 E M", NOT_FILES},
    {"a1 / b1 / size1 E M", NOT_FILES},
    {"a1 / E crc1 M", NOT_FILES},
    {"a1 / E size1 M", NOT_FILES},
    {"a1 / b1 / E less M", NOT_FILES},
    {"a1 / b1 / E more M", NOT_FILES},
    {"a1 =kv/000001 E M", WRONG_PLACE},
    {"a1 / b1 =kv/000002 E M", WRONG_PLACE},
    {"a1 / =kv/000000 E M", WRONG_PLACE},
    {"a1 =kv/0 E M", WRONG_PLACE},
    {"a1 =./kv/000000 E M", WRONG_PLACE},
    {"a1 =/kv/000000 E M", WRONG_PLACE},
    {"a1 / =kv/README E M", WRONG_PLACE},
    {"E a1 / M", WRONG_PLACE},
    {"a1 / E E M", WRONG_PLACE},
    {"a1 / M", WRONG_PLACE},
    {"M a1 / E", WRONG_PLACE},
    {"a1 / M E", WRONG_PLACE},
    {"a1 / E M M", WRONG_PLACE},
    {"a1 / E M =kv/000001", WRONG_PLACE},
    {"a1 / E M E", WRONG_PLACE},
    {"a1 / E", NO_MANIFEST},
    {"a1 /", NO_MANIFEST},
    {"", NO_MANIFEST},
};

START_TEST(what_is_not_right_is_refused_and_touches_nothing)
{
    run(refusals[_i].script);
    refused(refusals[_i].words);
}
END_TEST

START_TEST(a_script_that_is_right_is_loaded)
{
    struct nx_manifest manifest;

    run("a1 b1000 / c1 / / d1 / E M");
    loaded(&manifest);
    ck_assert_uint_eq(manifest.records, 4);
}
END_TEST

START_TEST(keys_ascend_over_transactions_too)
{
    char *value = calloc(1, (9 << 20) + 1);

    memset(value, 'v', 9 << 20);
    begin();
    add("k", value, 1);
    add("a", "2", 2);
    end_kv();
    finish_all();
    free(value);
    refused(NOT_ASCENDING);
}
END_TEST

START_TEST(a_record_does_not_go_on_in_the_next_file)
{
    begin();
    add("k", "value", 1);
    kv.length -= 4;
    end_kv();
    bytes_add(&kv, "alue", 4);
    end_kv();
    finish_all();
    refused(CUT_RECORD);
}
END_TEST

START_TEST(a_record_that_cannot_be_is_refused)
{
    begin();
    add("k", "1", 1);
    kv.data[8] = 2; /* a flag */
    end_kv();
    finish_all();
    refused("a record that can't be one");
}
END_TEST

static const struct {
    const char *epochs;
    const char *words;
} bad_epochs[] = {
    {"{\"epochs\":[{\"epoch\":2}]}", "epochs.json: its last epoch is not the manifest's"},
    {"{\"epochs\":[]}", "epochs.json: it has no epochs"},
    {"", "epochs.json: it is not one JSON object"},
};

START_TEST(other_epochs_are_refused)
{
    make_some();
    add_epochs_text(bad_epochs[_i].epochs);
    add_manifest();
    finish();
    refused(bad_epochs[_i].words);
}
END_TEST

START_TEST(a_manifest_that_is_none_is_refused)
{
    make_some();
    add_epochs();
    add_file("manifest.json", "{", (size_t)_i);
    finish();
    refused("manifest.json: it is not one JSON object");
}
END_TEST

/* What is in memory as a whole is small. */
START_TEST(texts_that_are_too_long_are_refused)
{
    static const size_t lengths[] = {NX_EPOCHS_MAX + 1, 8192 + 3 * 256 + 1};
    static const char *const names[] = {"epochs.json", "manifest.json"};
    char *text = calloc(1, lengths[_i]);

    memset(text, ' ', lengths[_i]);
    make_some();
    if (_i > 0) {
        add_epochs();
    }
    add_file(names[_i], text, lengths[_i]);
    finish();
    free(text);
    refused("too long");
}
END_TEST

START_TEST(what_the_archive_says_is_handed_on)
{
    make_some();
    finish_all();
    memory.length--;
    refused("it ends in the middle");
}
END_TEST

START_TEST(an_archive_with_something_behind_it_is_refused)
{
    make_some();
    finish_all();
    bytes_add(&archive, "x", 1);
    memory = memory_of(&archive);
    refused("something stands behind its end");
}
END_TEST

/* ---- other errors ---- */

START_TEST(an_error_of_the_source_is_handed_on)
{
    struct nx_manifest manifest;

    make_some();
    finish_all();
    memory.length /= 2;
    memory.error = -ECANCELED;
    ck_assert_int_eq(load(&manifest), -ECANCELED);
    only_the_state_was_touched();
}
END_TEST

START_TEST(a_map_that_is_too_small_is_named)
{
    static const uint64_t sizes[] = {1 << 20, 5 << 20};
    struct nx_manifest manifest;
    char number[32];
    char *value = calloc(1, (3 << 20) + 1);

    memset(value, 'v', 3 << 20);
    options.map_size = sizes[_i];
    begin();
    add("a", value, 1);
    add("b", value, 2);
    end_kv();
    finish_all();
    free(value);
    ck_assert_int_eq(load(&manifest), -ENOSPC);
    (void)snprintf(number, sizeof number, "(%" PRIu64 " bytes)", options.map_size);
    ck_assert_ptr_nonnull(strstr(error, "state.map_size"));
    ck_assert_ptr_nonnull(strstr(error, number));
    only_the_state_was_touched();
}
END_TEST

/* _i: which of its directories. */
START_TEST(a_directory_that_is_missing_is_named)
{
    static const char *const names[] = {"data-2/state", "data-2/wal"};
    struct nx_manifest manifest;

    ck_assert_int_eq(rmdir(in_top(names[_i])), 0);
    make_some();
    finish_all();
    ck_assert_int_lt(load(&manifest), 0);
    ck_assert_ptr_nonnull(strstr(error, root));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("snapshot_load");
    TCase *tcase = tcase_create("loading");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, records_and_position_arrive, 0, 2);
    tcase_add_loop_test(tcase, the_log_goes_on_behind_it, 0, 2);
    tcase_add_test(tcase, each_expiry_has_its_row);
    tcase_add_test(tcase, large_values_arrive);
    tcase_add_loop_test(tcase, an_empty_snapshot_is_one, 0, 2);
    tcase_add_test(tcase, a_crc_that_the_manifest_does_not_tell_is_0);
    tcase_add_test(tcase, a_file_is_loaded_without_being_announced);
    tcase_add_test(tcase, ids_are_the_same_in_either_case);
    tcase_add_loop_test(tcase, another_snapshot_than_the_announced_is_refused, 0,
                        (int)(sizeof wishes / sizeof wishes[0]));
    tcase_add_loop_test(tcase, what_is_not_right_is_refused_and_touches_nothing, 0,
                        (int)(sizeof refusals / sizeof refusals[0]));
    tcase_add_test(tcase, a_script_that_is_right_is_loaded);
    tcase_add_test(tcase, keys_ascend_over_transactions_too);
    tcase_add_test(tcase, a_record_does_not_go_on_in_the_next_file);
    tcase_add_test(tcase, a_record_that_cannot_be_is_refused);
    tcase_add_loop_test(tcase, other_epochs_are_refused, 0, 3);
    tcase_add_loop_test(tcase, a_manifest_that_is_none_is_refused, 0, 2);
    tcase_add_loop_test(tcase, texts_that_are_too_long_are_refused, 0, 2);
    tcase_add_test(tcase, what_the_archive_says_is_handed_on);
    tcase_add_test(tcase, an_archive_with_something_behind_it_is_refused);
    tcase_add_test(tcase, an_error_of_the_source_is_handed_on);
    tcase_add_loop_test(tcase, a_map_that_is_too_small_is_named, 0, 2);
    tcase_add_loop_test(tcase, a_directory_that_is_missing_is_named, 0, 2);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
