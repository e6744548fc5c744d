/* Whole snapshots whose sizes, CRCs and manifest are right, around records that are the input
 * (snapshot/load.h): loaded exactly if they are records whose keys ascend, and then the state holds these and nothing
 * else.
 *
 * The input: a byte that says how many records are in the first file, and whether what is no record goes along; then
 * the records. */
#include "common/bytes.h"
#include "common/crc32.h"
#include "fuzz.h"
#include "fuzz_tar.h"
#include "snapshot/load.h"
#include "snapshot/record.h"

#include <zstd.h>

#include <errno.h>

#define MAP_SIZE     ((uint64_t)16 << 20)
#define MOST         ((size_t)60 << 10)
#define TAR_MOST     (2 * MOST)
#define ARCHIVE_MOST (2 * TAR_MOST)
#define UUID         "550e8400-e29b-41d4-a716-446655440003"

struct given {
    const uint8_t *bytes;
    size_t length; /* of all */
    size_t split;  /* of the first file */
    bool good;     /* they are to be taken */
    uint64_t records;
    uint64_t highest;
};

static bool ascends(const struct nx_record *before, const struct nx_record *next)
{
    size_t n = before->key_length < next->key_length ? before->key_length : next->key_length;
    int order = memcmp(before->key, next->key, n);

    return order < 0 || (order == 0 && before->key_length < next->key_length);
}

/* What is to come of these bytes. */
static struct given look(const uint8_t *bytes, size_t n, uint8_t choices)
{
    struct given given = {.bytes = bytes, .good = true, .highest = 1};
    struct nx_record record;
    struct nx_record before = {.key = NULL};
    size_t at = 0;
    size_t size;

    while (nx_record_decode(bytes + at, n - at, &record, &size) == 0) {
        given.good = given.good && (before.key == NULL || ascends(&before, &record));
        given.highest = record.offset > given.highest ? record.offset : given.highest;
        given.records++;
        before = record;
        at += size;
        if (given.records <= (choices >> 1)) {
            given.split = at;
        }
    }
    given.length = (choices & 1) != 0 ? n : at;
    /* The largest number of all is none that a manifest can say. */
    given.good = given.good && given.length == at && given.highest < UINT64_MAX;
    return given;
}

static void add(struct fuzz_tar *tar, struct nx_manifest *manifest, const void *bytes, size_t n)
{
    char name[NX_ARCHIVE_NAME_MAX];

    (void)snprintf(name, sizeof name, NX_KV_NAME, manifest->file_count);
    fuzz_tar_add(tar, name, bytes, n);
    HOLDS(nx_manifest_add(manifest, n, nx_crc32(0, bytes, n)) == 0);
}

static void add_text(struct fuzz_tar *tar, const char *name, char *text)
{
    HOLDS(text != NULL);
    fuzz_tar_add(tar, name, text, strlen(text));
    free(text);
}

struct source {
    uint8_t bytes[ARCHIVE_MOST];
    size_t length;
    size_t at;
};

/* The snapshot, as it comes from a master. */
static void make_archive(const struct given *given,
                         struct nx_manifest *manifest,
                         struct source *ret_source)
{
    static uint8_t bytes[TAR_MOST];
    static struct nx_epochs epochs;
    const struct nx_epoch epoch = {.epoch = 1, .first_offset = 1};
    struct fuzz_tar tar = {.bytes = bytes, .cap = sizeof bytes};
    char *text;

    fuzz_tar_begin(&tar);
    if (given->split > 0) {
        add(&tar, manifest, given->bytes, given->split);
    }
    if (given->length > given->split) {
        add(&tar, manifest, given->bytes + given->split, given->length - given->split);
    }
    epochs.count = 0;
    HOLDS(nx_epochs_add(&epochs, &epoch, NULL) == 0);
    text = nx_epochs_print(&manifest->position, &epochs);
    HOLDS(text != NULL);
    HOLDS(nx_manifest_add(manifest, strlen(text), nx_crc32(0, text, strlen(text))) == 0);
    add_text(&tar, NX_EPOCHS_NAME, text);
    add_text(&tar, NX_MANIFEST_NAME, nx_manifest_print(manifest));
    ret_source->length =
        ZSTD_compress(ret_source->bytes, sizeof ret_source->bytes, bytes, fuzz_tar_end(&tar), 1);
    HOLDS(!ZSTD_isError(ret_source->length));
    ret_source->at = 0;
}

static int source_read(void *arg, void *buf, size_t cap, size_t *ret_n)
{
    struct source *source = arg;
    size_t left = source->length - source->at;

    *ret_n = left < cap ? left : cap;
    memcpy(buf, source->bytes + source->at, *ret_n);
    source->at += *ret_n;
    return 0;
}

/* The state holds these records, in this order, and is sound. */
static void look_through(const char *dir, const struct given *given)
{
    const struct nx_state_options options = {.map_size = MAP_SIZE, .max_readers = 4};
    struct nx_state_cursor *cursor = NULL;
    struct nx_state *state = NULL;
    struct nx_position base;
    struct nx_record record;
    struct nx_record wanted;
    char error[1024];
    size_t at = 0;
    size_t size;
    int rc;

    HOLDS(nx_state_open(dir, &options, &state, error, sizeof error) == 0);
    HOLDS(nx_state_read_begin(state, &base) == 0);
    HOLDS(base.epoch == 1 && base.offset == given->highest);
    HOLDS(nx_state_records(state) == given->records);
    HOLDS(nx_state_cursor_open(state, &cursor) == 0);
    for (rc = nx_state_cursor_seek(cursor, NULL, 0, &record); rc == 0;
         rc = nx_state_cursor_next(cursor, &record)) {
        HOLDS(nx_record_decode(given->bytes + at, given->length - at, &wanted, &size) == 0);
        HOLDS(record.offset == wanted.offset && record.expires_at == wanted.expires_at);
        HOLDS(nx_slice_equal(nx_slice_of(record.key, record.key_length),
                             nx_slice_of(wanted.key, wanted.key_length)));
        HOLDS(nx_slice_equal(nx_slice_of(record.value, record.value_length),
                             nx_slice_of(wanted.value, wanted.value_length)));
        at += size;
    }
    HOLDS(rc == -ENOENT && at == given->length);
    nx_state_cursor_close(cursor);
    nx_state_read_end(state);
    nx_state_close(state);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct source source;
    char root[128];
    char path[160];
    char error[1024] = "";
    struct nx_manifest manifest = {
        .id = UUID, .cluster_id = UUID, .created_at = 1, .position = {.epoch = 1}};
    struct nx_manifest loaded = {.files = NULL};
    struct given given;
    int rc;

    if (size < 1 || size > MOST) {
        return 0;
    }
    given = look(data + 1, size - 1, data[0]);
    manifest.position.offset = given.highest;
    manifest.records = given.records;
    make_archive(&given, &manifest, &source);
    nx_manifest_free(&manifest);

    fuzz_make_data(root, sizeof root);
    (void)snprintf(path, sizeof path, "%s/state", root);
    struct nx_load_options options = {.source = {.read = source_read, .arg = &source},
                                      .root = root,
                                      .map_size = MAP_SIZE,
                                      .id = UUID,
                                      .cluster_id = UUID,
                                      .wal_offset = given.highest,
                                      .epoch = 1};

    rc = nx_load_archive(&options, &loaded, error, sizeof error);
    HOLDS((rc == 0) == given.good);
    HOLDS(rc == 0 || (rc == -EBADMSG && error[0] != '\0'));
    if (rc == 0) {
        look_through(path, &given);
    }
    HOLDS(nx_remove_tree(AT_FDCWD, root) == 0);
    return 0;
}
