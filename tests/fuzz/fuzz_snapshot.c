/* Snapshots that strangers send (snapshot/load.h): tar under zstd, manifest, epochs, records. First byte: 0: the input
 * is the archive; 1: it is a tar, whose checksums are made right and which is compressed here, so that what is behind
 * zstd and tar is reached; else it goes to the parsers of single files. */
#include "common/epochs.h"
#include "fuzz.h"
#include "snapshot/archive_read.h"
#include "snapshot/load.h"
#include "snapshot/manifest.h"
#include "snapshot/record.h"

#include <zstd.h>

#include <errno.h>

#define MAP_SIZE ((uint64_t)16 << 20)
#define MOST     ((size_t)1 << 20)

struct source {
    const uint8_t *bytes;
    size_t left;
};

static int source_read(void *arg, void *buf, size_t cap, size_t *ret_n)
{
    struct source *source = arg;

    *ret_n = source->left < cap ? source->left : cap;
    memcpy(buf, source->bytes, *ret_n);
    source->bytes += *ret_n;
    source->left -= *ret_n;
    return 0;
}

/* Whatever an archive names, there is nothing but what the loader makes itself. */
static int is_ours(void *arg, const char *name)
{
    const char *const *allowed = arg;

    while (*allowed != NULL && strcmp(*allowed, name) != 0) {
        allowed++;
    }
    return *allowed == NULL ? -EEXIST : 0;
}

static void look_for_strays(const char *path, const char *const *allowed)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    void *arg = NULL;

    memcpy(&arg, &allowed, sizeof arg);
    HOLDS(fd >= 0 && nx_each_name(fd, is_ours, arg) == 0);
    close(fd);
}

static void load(const uint8_t *bytes, size_t n)
{
    static const char *const top[] = {"data-2", NULL};
    static const char *const root[] = {"wal", "state", NULL};
    static const char *const state[] = {"data.mdb", "lock.mdb", NULL};
    static const char *const wal[] = {"durable", NULL};
    char path[128];
    char inner[160];
    char error[1024] = "";
    struct source source = {bytes, n};
    struct nx_manifest manifest = {.files = NULL};
    struct nx_load_options options = {.source = {.read = source_read, .arg = &source},
                                      .root = path,
                                      .map_size = MAP_SIZE,
                                      .id = "",
                                      .cluster_id = ""};
    int rc;

    fuzz_make_data(path, sizeof path);
    rc = nx_load_archive(&options, &manifest, error, sizeof error);
    HOLDS(rc == 0 || error[0] != '\0');
    look_for_strays(fuzz_directory(), top);
    look_for_strays(path, root);
    (void)snprintf(inner, sizeof inner, "%s/state", path);
    look_for_strays(inner, state);
    (void)snprintf(inner, sizeof inner, "%s/wal", path);
    look_for_strays(inner, wal);
    HOLDS(nx_remove_tree(AT_FDCWD, path) == 0);
}

#define TAR_BLOCK    ((size_t)512)
#define TAR_SIZE     124 /* of the file, 12 octal digits */
#define TAR_CHECKSUM 148 /* 8 bytes, counted as spaces */

/* A reader of tars believes no header without its checksum. */
static void mend_tar(uint8_t *bytes, size_t n)
{
    size_t at = 0;

    while (at < n && n - at >= TAR_BLOCK) {
        uint8_t *header = bytes + at;
        char text[13] = "";
        char checksum[8];
        unsigned sum = 0;

        memset(header + TAR_CHECKSUM, ' ', sizeof checksum);
        for (size_t i = 0; i < TAR_BLOCK; i++) {
            sum += header[i];
        }
        (void)snprintf(checksum, sizeof checksum, "%06o", sum);
        memcpy(header + TAR_CHECKSUM, checksum, 7); /* six digits, NUL; the space stays */
        memcpy(text, header + TAR_SIZE, 12);
        size_t size = (size_t)strtoull(text, NULL, 8) % (n + 1);

        at += TAR_BLOCK + (size + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
    }
}

static void compress_and_load(uint8_t *bytes, size_t n)
{
    size_t cap = ZSTD_compressBound(n);
    uint8_t *packed = malloc(cap);
    size_t length;

    HOLDS(packed != NULL);
    mend_tar(bytes, n);
    length = ZSTD_compress(packed, cap, bytes, n, 1);
    HOLDS(!ZSTD_isError(length));
    load(packed, length);
    free(packed);
}

static void parse_files(const uint8_t *bytes, size_t n)
{
    struct nx_position position = {.epoch = 3, .offset = 1000};
    static struct nx_epochs epochs;
    struct nx_manifest manifest = {.files = NULL};
    struct nx_record record;
    const char *why = NULL;
    size_t size;

    if (nx_manifest_parse((const char *)bytes, n, &manifest, &why) == 0) {
        char *text = nx_manifest_print(&manifest);
        struct nx_manifest again = {.files = NULL};

        HOLDS(text != NULL && nx_manifest_parse(text, strlen(text), &again, &why) == 0);
        HOLDS(again.file_count == manifest.file_count && again.records == manifest.records);
        free(text);
        nx_manifest_free(&again);
    } else {
        HOLDS(why != NULL);
    }
    nx_manifest_free(&manifest);
    (void)nx_epochs_parse((const char *)bytes, n, &position, &epochs, &why);
    while (n > 0 && nx_record_decode(bytes, n, &record, &size) == 0) {
        uint8_t *copy = malloc(size);

        HOLDS(copy != NULL && size <= n && nx_record_size(&record) == size);
        nx_record_encode(&record, copy);
        HOLDS(memcmp(copy, bytes, size) == 0);
        free(copy);
        bytes += size;
        n -= size;
    }
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || size > MOST) {
        return 0;
    }
    uint8_t *bytes = malloc(size - 1);

    HOLDS(bytes != NULL);
    memcpy(bytes, data + 1, size - 1);
    if (data[0] == 0) {
        load(bytes, size - 1);
    } else if (data[0] == 1) {
        compress_and_load(bytes, size - 1);
    } else {
        parse_files(bytes, size - 1);
    }
    free(bytes);
    return 0;
}
