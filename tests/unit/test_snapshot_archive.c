/* Archives: what is written comes back, and what nobody of us wrote is refused. */
#include "archive_fixture.h"
#include "common/bytes.h"
#include "common/crc32.h"
#include "snapshot/archive_read.h"
#include "snapshot/archive_write.h"

#include <archive.h>
#include <archive_entry.h>
#include <check.h>
#include <zstd.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK  ((size_t)512)
#define END    ((size_t)1024) /* of a tar */
#define LARGE  (((size_t)8 << 20) + 1)
#define ANY    UINT64_MAX
#define RANDOM UINT32_C(2463534242)

static struct bytes archive_bytes;
static struct bytes tar_bytes;
static struct bytes content;
static struct nx_archive_writer *writer;

static void setup(void)
{
    uint32_t x = RANDOM;

    for (uint8_t *p = bytes_extend(&content, LARGE), *end = p + LARGE; p < end; p++) {
        x ^= x << 13; /* nothing that can be compressed */
        x ^= x >> 17;
        x ^= x << 5;
        *p = (uint8_t)x;
    }
}

static void teardown(void)
{
    nx_archive_writer_close(writer);
    writer = NULL;
    bytes_free(&archive_bytes);
    bytes_free(&tar_bytes);
    bytes_free(&content);
}

/* ---- writing ---- */

static void write_begin(struct nx_archive_options options)
{
    nx_archive_writer_close(writer);
    writer = NULL;
    ck_assert_int_eq(nx_archive_writer_open(&options, &writer), 0);
}

static int add(const char *name, size_t size)
{
    return nx_archive_writer_add(writer, name, content.data, size, 1700000000000);
}

static struct nx_archive_options options_of(int fd)
{
    return (struct nx_archive_options){.fd = fd, .level = 1, .max_size = ANY};
}

/* ---- a tar that isn't ours ---- */

static la_ssize_t take(struct archive *tar, void *arg, const void *bytes, size_t n)
{
    (void)tar;
    bytes_add(arg, bytes, n);
    return (la_ssize_t)n;
}

static struct archive *tar_begin(int (*set_format)(struct archive *tar))
{
    struct archive *tar = archive_write_new();

    tar_bytes.length = 0;
    ck_assert_ptr_nonnull(tar);
    ck_assert_int_eq(set_format(tar), ARCHIVE_OK);
    ck_assert_int_eq(archive_write_set_bytes_in_last_block(tar, 1), ARCHIVE_OK);
    ck_assert_int_eq(archive_write_open(tar, &tar_bytes, NULL, take, NULL), ARCHIVE_OK);
    return tar;
}

static void tar_end(struct archive *tar)
{
    ck_assert_int_eq(archive_write_close(tar), ARCHIVE_OK);
    ck_assert_int_eq(archive_write_free(tar), ARCHIVE_OK);
}

static void tar_add(struct archive *tar, struct archive_entry *entry)
{
    size_t size = (size_t)archive_entry_size(entry);

    ck_assert_msg(archive_write_header(tar, entry) == ARCHIVE_OK, "%s", archive_error_string(tar));
    if (size > 0) {
        (void)archive_write_data(tar, content.data, size);
    }
    ck_assert_int_eq(archive_write_finish_entry(tar), ARCHIVE_OK);
    archive_entry_free(entry);
}

static struct archive_entry *plain(const char *name, size_t size)
{
    struct archive_entry *entry = archive_entry_new();

    ck_assert_ptr_nonnull(entry);
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, AE_IFREG);
    archive_entry_set_perm(entry, 0600);
    archive_entry_set_size(entry, (la_int64_t)size);
    return entry;
}

static void tar_sum(uint8_t *header)
{
    unsigned sum = 0;

    memset(header + 148, ' ', 8);
    for (size_t i = 0; i < BLOCK; i++) {
        sum += header[i];
    }
    (void)snprintf((char *)header + 148, 8, "%06o", sum);
}

/* A header of any kind, by hand. */
static uint8_t *tar_header(const char *name, char type, uint64_t size, const char magic[8])
{
    uint8_t *header;

    bytes_add_zeros(&tar_bytes, BLOCK);
    header = tar_bytes.data + tar_bytes.length - BLOCK;
    (void)snprintf((char *)header, 100, "%s", name);
    memcpy(header + 100, "0000600", 8);
    (void)snprintf((char *)header + 124, 12, "%011llo", (unsigned long long)size);
    memcpy(header + 136, "00000000000", 12);
    header[156] = (uint8_t)type;
    memcpy(header + 257, magic, 8);
    tar_sum(header);
    return header;
}

static void tar_data(const void *bytes, size_t n)
{
    bytes_add(&tar_bytes, bytes, n);
    bytes_add_zeros(&tar_bytes, (BLOCK - n % BLOCK) % BLOCK);
}

/* ---- zstd ---- */

/* One frame of the tar, behind what is there. */
static void add_frame(void)
{
    ZSTD_CCtx *zstd = ZSTD_createCCtx();
    size_t cap = ZSTD_compressBound(tar_bytes.length);
    uint8_t *to = bytes_extend(&archive_bytes, cap);
    size_t n;

    ck_assert_ptr_nonnull(zstd);
    (void)ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, 1);
    n = ZSTD_compress2(zstd, to, cap, tar_bytes.data, tar_bytes.length);
    ck_assert(!ZSTD_isError(n));
    archive_bytes.length -= cap - n;
    ZSTD_freeCCtx(zstd);
}

static void compress(void)
{
    archive_bytes.length = 0;
    add_frame();
}

/* A frame with a window of so many bits, which holds the tar as it is. */
static void compress_by_hand(unsigned window_log)
{
    const uint8_t head[] = {0x28, 0xb5, 0x2f, 0xfd, 0, (uint8_t)((window_log - 10) << 3)};

    archive_bytes.length = 0;
    bytes_add(&archive_bytes, head, sizeof head);
    for (size_t at = 0; at < tar_bytes.length; at += BLOCK) {
        bool last = at + BLOCK >= tar_bytes.length;
        size_t n = last ? tar_bytes.length - at : BLOCK;
        uint8_t block[4];

        nx_store_u32(block, (uint32_t)(n << 3) | (last ? 1 : 0));
        bytes_add(&archive_bytes, block, 3);
        bytes_add(&archive_bytes, tar_bytes.data + at, n);
    }
}

/* ---- reading ---- */

struct verdict {
    int rc; /* -ENOENT: all of it is fine */
    unsigned files;
    uint32_t crc; /* of names and contents */
    char why[256];
};

static int read_file(struct nx_archive_reader *reader, uint64_t size, struct verdict *verdict)
{
    static uint8_t buf[100003];
    uint64_t total = 0;
    size_t n = 1;
    int rc = 0;

    while (rc == 0 && n > 0) {
        rc = nx_archive_reader_read(reader, buf, sizeof buf, &n);
        if (rc == 0) {
            verdict->crc = nx_crc32(verdict->crc, buf, n);
            total += n;
        }
    }
    if (rc == 0) {
        ck_assert_uint_eq(total, size);
    }
    return rc;
}

static struct verdict read_from(struct memory *memory)
{
    struct nx_archive_source source = memory_source(memory);
    struct nx_archive_reader *reader = NULL;
    struct verdict verdict = {.rc = 0};
    char name[NX_ARCHIVE_NAME_MAX];
    uint64_t size;

    ck_assert_int_eq(nx_archive_reader_open(&source, &reader), 0);
    while (verdict.rc == 0) {
        verdict.rc = nx_archive_reader_next(reader, name, &size);
        if (verdict.rc == 0) {
            verdict.files++;
            verdict.crc = nx_crc32(verdict.crc, name, strlen(name));
            verdict.rc = read_file(reader, size, &verdict);
        }
    }
    (void)snprintf(verdict.why, sizeof verdict.why, "%s", nx_archive_reader_why(reader));
    if (verdict.rc != -ENOENT) { /* and stays so */
        ck_assert_int_eq(nx_archive_reader_next(reader, name, &size), verdict.rc);
        ck_assert_str_eq(nx_archive_reader_why(reader), verdict.why);
    }
    nx_archive_reader_close(reader);
    return verdict;
}

static struct verdict read_it(void)
{
    struct memory memory = memory_of(&archive_bytes);

    return read_from(&memory);
}

static void refused(const char *why)
{
    struct verdict verdict = read_it();

    ck_assert_msg(verdict.rc == -EBADMSG, "%d instead of a refusal: %s", verdict.rc, why);
    ck_assert_msg(strstr(verdict.why, why) != NULL, "\"%s\" is not in: %s", why, verdict.why);
}

static void accepted(unsigned files)
{
    struct verdict verdict = read_it();

    ck_assert_msg(verdict.rc == -ENOENT, "%d: %s", verdict.rc, verdict.why);
    ck_assert_uint_eq(verdict.files, files);
}

/* Two files, as the writer writes them. */
static void write_small(void)
{
    struct nx_archive_totals totals;
    int fd = file_make();

    write_begin(options_of(fd));
    ck_assert_int_eq(add("kv/000000", 100), 0);
    ck_assert_int_eq(add("epochs.json", 20), 0);
    ck_assert_int_eq(nx_archive_writer_finish(writer, &totals), 0);
    file_take(fd, &archive_bytes);
}

/* The same two, as a tar. */
static void make_small(void)
{
    struct archive *tar = tar_begin(archive_write_set_format_ustar);

    tar_add(tar, plain("kv/000000", 100));
    tar_add(tar, plain("epochs.json", 20));
    tar_end(tar);
}

/* ---- round trips ---- */

static const size_t sizes[] = {0, 1, 511, 512, 513, 131072, LARGE, 0};

#define FILES (sizeof sizes / sizeof sizes[0])

static void write_files(struct nx_archive_totals *ret_totals)
{
    char name[NX_ARCHIVE_NAME_MAX];
    int fd = file_make();

    write_begin(options_of(fd));
    for (size_t i = 0; i < FILES; i++) {
        nx_archive_file_name(i, FILES, name);
        ck_assert_int_eq(add(name, sizes[i]), 0);
    }
    ck_assert_int_eq(nx_archive_writer_finish(writer, ret_totals), 0);
    file_take(fd, &archive_bytes);
}

START_TEST(files_of_any_size_come_back)
{
    struct nx_archive_totals totals;
    struct nx_archive_source source;
    struct nx_archive_reader *reader;
    struct memory memory;
    uint8_t *buf = malloc(LARGE + 1);
    char expected[NX_ARCHIVE_NAME_MAX];
    char name[NX_ARCHIVE_NAME_MAX];
    uint64_t size;

    write_files(&totals);
    memory = memory_of(&archive_bytes);
    source = memory_source(&memory);
    ck_assert_int_eq(nx_archive_reader_open(&source, &reader), 0);
    for (size_t i = 0; i < FILES; i++) {
        size_t filled = 0;
        size_t n = 1;

        ck_assert_int_eq(nx_archive_reader_next(reader, name, &size), 0);
        nx_archive_file_name(i, FILES, expected);
        ck_assert_str_eq(name, expected);
        ck_assert_uint_eq(size, sizes[i]);
        for (; n > 0; filled += n) {
            ck_assert_int_eq(nx_archive_reader_read(reader, buf + filled, LARGE + 1 - filled, &n),
                             0);
        }
        ck_assert_uint_eq(filled, sizes[i]);
        ck_assert_mem_eq(buf, content.data, filled);
    }
    ck_assert_int_eq(nx_archive_reader_next(reader, name, &size), -ENOENT);
    nx_archive_reader_close(reader);
    free(buf);
}
END_TEST

START_TEST(the_totals_are_those_of_the_file)
{
    struct nx_archive_totals totals;
    size_t sum = 0;

    write_files(&totals);
    for (size_t i = 0; i < FILES; i++) {
        sum += sizes[i];
    }
    ck_assert_uint_eq(totals.files_count, FILES);
    ck_assert_uint_eq(totals.uncompressed_size, sum);
    ck_assert_uint_eq(totals.compressed_size, archive_bytes.length);
    ck_assert_uint_eq(totals.checksum, nx_crc32(0, archive_bytes.data, archive_bytes.length));
}
END_TEST

/* The one who waits for it decides how much time it may take. */
START_TEST(the_level_may_change)
{
    static const int levels[] = {22, -5, 1, 3};
    struct nx_archive_totals totals;
    struct verdict verdict;
    int fd = file_make();

    write_begin(options_of(fd));
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        nx_archive_writer_level(writer, levels[i]);
        ck_assert_int_eq(add("kv/000000", LARGE), 0);
    }
    ck_assert_int_eq(nx_archive_writer_finish(writer, &totals), 0);
    file_take(fd, &archive_bytes);
    verdict = read_it();
    ck_assert_int_eq(verdict.rc, -ENOENT);
    ck_assert_uint_eq(verdict.files, 4);
}
END_TEST

START_TEST(an_archive_without_files_is_one)
{
    struct nx_archive_totals totals;
    int fd = file_make();

    write_begin(options_of(fd));
    ck_assert_int_eq(nx_archive_writer_finish(writer, &totals), 0);
    ck_assert_uint_eq(totals.files_count, 0);
    file_take(fd, &archive_bytes);
    accepted(0);
}
END_TEST

START_TEST(what_is_not_read_of_a_file_is_passed)
{
    struct nx_archive_totals totals;
    struct nx_archive_source source;
    struct nx_archive_reader *reader;
    struct memory memory;
    char name[NX_ARCHIVE_NAME_MAX];
    uint8_t byte;
    uint64_t size;
    size_t n;

    write_files(&totals);
    memory = memory_of(&archive_bytes);
    source = memory_source(&memory);
    ck_assert_int_eq(nx_archive_reader_open(&source, &reader), 0);
    for (size_t i = 0; i < FILES; i++) {
        ck_assert_int_eq(nx_archive_reader_next(reader, name, &size), 0);
        ck_assert_int_eq(nx_archive_reader_read(reader, &byte, _i == 0 ? 0 : 1, &n), 0);
    }
    ck_assert_int_eq(nx_archive_reader_next(reader, name, &size), -ENOENT);
    nx_archive_reader_close(reader);
}
END_TEST

START_TEST(a_source_may_give_single_bytes)
{
    struct memory memory;
    struct verdict whole;
    struct verdict pieces;

    write_small();
    whole = read_it();
    memory = memory_of(&archive_bytes);
    memory.most = 1;
    pieces = read_from(&memory);
    ck_assert_int_eq(pieces.rc, -ENOENT);
    ck_assert_uint_eq(pieces.files, 2);
    ck_assert_uint_eq(pieces.crc, whole.crc);
}
END_TEST

/* _i: 1 where the error comes between single bytes. */
START_TEST(an_error_of_the_source_is_handed_on)
{
    write_small();
    for (size_t n = 0; n <= archive_bytes.length; n++) {
        struct memory memory = memory_of(&archive_bytes);

        memory.length = n;
        memory.most = (size_t)_i;
        memory.error = -ECANCELED;
        ck_assert_int_eq(read_from(&memory).rc, -ECANCELED);
    }
}
END_TEST

/* ---- limits of the writer ---- */

static int write_limited(uint64_t max_size, struct nx_archive_totals *ret_totals)
{
    struct nx_archive_options options;
    int fd = file_make();
    int rc;

    options = options_of(fd);
    options.max_size = max_size;
    write_begin(options);
    rc = add("kv/000000", 1 << 20);
    rc = rc < 0 ? rc : add("epochs.json", 20);
    rc = rc < 0 ? rc : nx_archive_writer_finish(writer, ret_totals);
    file_take(fd, &archive_bytes);
    ck_assert_uint_le(archive_bytes.length, max_size);
    return rc;
}

START_TEST(no_archive_becomes_larger_than_it_may)
{
    struct nx_archive_totals totals;
    uint64_t size;

    ck_assert_int_eq(write_limited(ANY, &totals), 0);
    size = totals.compressed_size;
    ck_assert_int_eq(write_limited(size, &totals), 0);
    ck_assert_uint_eq(totals.compressed_size, size);
    totals.compressed_size = 77;
    ck_assert_int_eq(write_limited(size - 1, &totals), -EFBIG);
    ck_assert_int_eq(write_limited(size / 2, &totals), -EFBIG);
    ck_assert_int_eq(write_limited(0, &totals), -EFBIG);
    ck_assert_uint_eq(totals.compressed_size, 77);
}
END_TEST

struct progress {
    uint64_t written;
    unsigned calls;
    unsigned fail_at; /* so many calls */
};

static int note_progress(void *arg, uint64_t written)
{
    struct progress *progress = arg;

    ck_assert_uint_ge(written, progress->written);
    progress->written = written;
    progress->calls++;
    return progress->calls == progress->fail_at ? -ECANCELED : 0;
}

static int write_watched(struct progress *progress)
{
    struct nx_archive_options options;
    struct nx_archive_totals totals;
    int fd = file_make();
    int rc;

    options = options_of(fd);
    options.progress = note_progress;
    options.arg = progress;
    write_begin(options);
    rc = add("kv/000000", LARGE);
    rc = rc < 0 ? rc : add("kv/000001", LARGE);
    rc = rc < 0 ? rc : nx_archive_writer_finish(writer, &totals);
    file_take(fd, &archive_bytes);
    return rc;
}

START_TEST(progress_ends_at_the_size)
{
    struct progress progress = {.calls = 0};

    ck_assert_int_eq(write_watched(&progress), 0);
    ck_assert_uint_gt(progress.calls, 10);
    ck_assert_uint_eq(progress.written, archive_bytes.length);
}
END_TEST

START_TEST(an_error_of_progress_is_handed_on)
{
    struct progress all = {.calls = 0};
    struct progress progress = {.calls = 0};

    ck_assert_int_eq(write_watched(&all), 0);
    for (unsigned i = 0; i < 3; i++) {
        unsigned at[] = {1, all.calls / 2, all.calls};

        progress = (struct progress){.fail_at = at[i]};
        ck_assert_int_eq(write_watched(&progress), -ECANCELED);
        ck_assert_uint_eq(progress.calls, at[i]); /* and then never again */
        ck_assert_uint_eq(archive_bytes.length, progress.written);
    }
}
END_TEST

START_TEST(one_that_is_given_up_leaves_nothing)
{
    int fd = file_make();

    write_begin(options_of(fd));
    if (_i > 0) {
        ck_assert_int_eq(add("kv/000000", 100), 0);
    }
    nx_archive_writer_close(writer); /* leaks are told at the end */
    writer = NULL;
    file_take(fd, &archive_bytes);
    ck_assert_uint_eq(archive_bytes.length, 0);
}
END_TEST

START_TEST(an_error_of_the_file_is_handed_on)
{
    static const char *const paths[] = {"/dev/full", "/dev/null"};
    static const int flags[] = {O_WRONLY, O_RDONLY};
    static const int errors[] = {-ENOSPC, -EBADF};
    struct nx_archive_totals totals;
    int fd = open(paths[_i], flags[_i] | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    write_begin(options_of(fd));
    ck_assert_int_eq(add("kv/000000", 1), 0);
    ck_assert_int_eq(nx_archive_writer_finish(writer, &totals), errors[_i]);
    write_begin(options_of(fd));
    ck_assert_int_eq(add("kv/000000", LARGE), errors[_i]);
    close(fd);
}
END_TEST

/* ---- damage ---- */

START_TEST(a_part_of_an_archive_is_none)
{
    write_small();
    for (size_t n = 0; n < archive_bytes.length; n++) {
        struct memory memory = memory_of(&archive_bytes);
        struct verdict verdict;

        memory.length = n;
        verdict = read_from(&memory);
        ck_assert_msg(verdict.rc == -EBADMSG, "cut at %zu: %d", n, verdict.rc);
        ck_assert_str_eq(verdict.why, "it ends in the middle");
    }
}
END_TEST

START_TEST(a_part_of_a_large_archive_is_none)
{
    struct nx_archive_totals totals;

    write_files(&totals);
    for (size_t at = 1; at < archive_bytes.length; at += archive_bytes.length / 7) {
        struct memory memory = memory_of(&archive_bytes);

        memory.length -= at;
        ck_assert_int_eq(read_from(&memory).rc, -EBADMSG);
    }
}
END_TEST

/* In a frame that is whole. */
START_TEST(a_part_of_a_tar_is_none)
{
    size_t whole;

    make_small();
    whole = tar_bytes.length;
    for (size_t n = 0; n < whole; n++) {
        tar_bytes.length = n;
        compress();
        ck_assert_msg(read_it().rc == -EBADMSG, "a tar cut at %zu is taken", n);
    }
    tar_bytes.length = whole;
    compress();
    accepted(2);
}
END_TEST

/* A few flips leave the content as it was: a larger window, zeros copied from other zeros. */
START_TEST(no_flipped_bit_changes_what_is_read)
{
    struct verdict sound;
    unsigned taken = 0;

    write_small();
    sound = read_it();
    for (size_t bit = 0; bit < archive_bytes.length * 8; bit++) {
        uint8_t *byte = &archive_bytes.data[bit / 8];
        uint8_t mask = (uint8_t)(1u << bit % 8);
        struct verdict verdict;

        *byte ^= mask;
        verdict = read_it();
        *byte ^= mask;
        if (verdict.rc == -ENOENT) {
            ck_assert_uint_eq(verdict.crc, sound.crc);
            taken++;
        } else {
            ck_assert_int_eq(verdict.rc, -EBADMSG);
        }
    }
    ck_assert_uint_lt(taken, archive_bytes.length * 8 / 20);
}
END_TEST

START_TEST(a_flipped_bit_in_a_tar_s_header_is_found)
{
    make_small();
    for (size_t bit = 0; bit < BLOCK * 8; bit += 7) {
        uint8_t mask = (uint8_t)(1u << bit % 8);

        tar_bytes.data[bit / 8] ^= mask;
        compress();
        ck_assert_msg(read_it().rc == -EBADMSG, "bit %zu", bit);
        tar_bytes.data[bit / 8] ^= mask;
    }
}
END_TEST

START_TEST(nothing_may_stand_behind_the_frame)
{
    static const uint8_t skippable[] = {0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 'x'};
    size_t size;

    make_small();
    compress();
    size = archive_bytes.length;
    bytes_add_zeros(&archive_bytes, 1);
    refused("something stands behind its end");
    archive_bytes.length = size;
    bytes_add(&archive_bytes, "x", 1);
    refused("something stands behind its end");
    archive_bytes.length = size;
    bytes_add(&archive_bytes, skippable, sizeof skippable);
    refused("something stands behind its end");
    archive_bytes.length = size;
    add_frame();
    refused("something stands behind its end");
}
END_TEST

/* _i: where the first one ends, of three places. */
START_TEST(a_second_frame_is_refused)
{
    struct bytes whole;
    size_t places[] = {BLOCK, 2 * BLOCK, 0};
    size_t length;

    make_small();
    whole = tar_bytes;
    length = whole.length;
    places[2] = length - END;
    tar_bytes.length = places[_i];
    compress();
    tar_bytes = (struct bytes){.data = whole.data + places[_i], .length = length - places[_i]};
    add_frame();
    tar_bytes = whole;
    ck_assert_int_eq(read_it().rc, -EBADMSG);
}
END_TEST

START_TEST(a_frame_before_the_first_is_refused)
{
    static const uint8_t skippable[] = {0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 'x'};

    make_small();
    archive_bytes.length = 0;
    bytes_add(&archive_bytes, skippable, sizeof skippable);
    add_frame();
    ck_assert_int_eq(read_it().rc, -EBADMSG);
}
END_TEST

START_TEST(what_is_no_zstd_is_refused)
{
    make_small();
    archive_bytes.length = 0;
    bytes_add(&archive_bytes, tar_bytes.data, tar_bytes.length);
    refused("its zstd stream can't be read");
}
END_TEST

START_TEST(what_is_no_tar_is_refused)
{
    tar_bytes.length = 0;
    bytes_add(&tar_bytes, content.data, 10000);
    compress();
    refused("its tar is malformed");
    tar_bytes.length = 0;
    compress();
    refused("its tar is malformed");
}
END_TEST

static const struct {
    unsigned log;
    bool fits;
} windows[] = {{10, true}, {21, true}, {27, true}, {28, false}, {31, false}, {41, false}};

START_TEST(a_window_that_takes_too_much_memory_is_refused)
{
    make_small();
    compress_by_hand(windows[_i].log);
    if (windows[_i].fits) {
        accepted(2);
    } else {
        refused("its zstd stream can't be read (Frame requires too much memory for decoding)");
    }
}
END_TEST

/* ---- the end of a tar ---- */

static void add_padding(size_t n)
{
    make_small();
    bytes_add_zeros(&tar_bytes, n);
}

START_TEST(a_tar_may_be_padded)
{
    static const size_t paddings[] = {0, 512, 10240, (64 << 10) - END};

    add_padding(paddings[_i]);
    compress();
    accepted(2);
}
END_TEST

/* 1 GiB of zeros is 33 kB of zstd. */
START_TEST(but_not_without_an_end)
{
    static const size_t paddings[] = {(64 << 10) - END + 1, 64 << 10, 16 << 20};

    add_padding(paddings[_i]);
    compress();
    refused("its tar has something behind its end");
}
END_TEST

START_TEST(nothing_may_stand_behind_a_tar_s_end)
{
    static const size_t paddings[] = {1, 512, 513, 10240, (64 << 10) - END, 200000};

    add_padding(paddings[_i]);
    tar_bytes.data[tar_bytes.length - 1] = 1;
    compress();
    refused("its tar has something behind its end");
}
END_TEST

START_TEST(nor_within_it)
{
    make_small();
    tar_bytes.data[tar_bytes.length - END + (size_t)_i * 511] = 'x';
    compress();
    ck_assert_int_eq(read_it().rc, -EBADMSG);
}
END_TEST

START_TEST(a_second_tar_behind_the_first_is_refused)
{
    struct bytes first = {.length = 0};

    make_small();
    bytes_add(&first, tar_bytes.data, tar_bytes.length);
    bytes_add(&tar_bytes, first.data, first.length);
    bytes_free(&first);
    compress();
    refused("its tar has something behind its end");
}
END_TEST

/* ---- entries that no snapshot has ---- */

static void make_directory(struct archive_entry *entry)
{
    archive_entry_set_filetype(entry, AE_IFDIR);
    archive_entry_set_size(entry, 0);
}

static void make_symlink(struct archive_entry *entry)
{
    archive_entry_set_filetype(entry, AE_IFLNK);
    archive_entry_set_symlink(entry, "/etc/passwd");
    archive_entry_set_size(entry, 0);
}

static void make_hardlink(struct archive_entry *entry)
{
    archive_entry_set_hardlink(entry, "/etc/passwd");
    archive_entry_set_size(entry, 0);
}

static void make_fifo(struct archive_entry *entry)
{
    archive_entry_set_filetype(entry, AE_IFIFO);
    archive_entry_set_size(entry, 0);
}

static void make_char_device(struct archive_entry *entry)
{
    archive_entry_set_filetype(entry, AE_IFCHR);
    archive_entry_set_rdevmajor(entry, 1);
    archive_entry_set_rdevminor(entry, 3);
    archive_entry_set_size(entry, 0);
}

static void make_block_device(struct archive_entry *entry)
{
    make_char_device(entry);
    archive_entry_set_filetype(entry, AE_IFBLK);
}

static void make_setuid(struct archive_entry *entry)
{
    archive_entry_set_perm(entry, 04755);
}

static void make_setgid(struct archive_entry *entry)
{
    archive_entry_set_perm(entry, 02755);
}

static void make_sticky(struct archive_entry *entry)
{
    archive_entry_set_perm(entry, 01600);
}

static void make_long_name(struct archive_entry *entry)
{
    char name[200];

    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    archive_entry_set_pathname(entry, name);
}

static void make_name_of_32(struct archive_entry *entry)
{
    archive_entry_set_pathname(entry, "kv/00000000000000000000000000000");
}

static void make_sparse(struct archive_entry *entry)
{
    archive_entry_set_size(entry, 1 << 20);
    archive_entry_sparse_add_entry(entry, 512 << 10, 512);
}

static void make_attribute(struct archive_entry *entry)
{
    archive_entry_xattr_add_entry(entry, "user.some", "thing", 5);
}

static void make_precise_time(struct archive_entry *entry)
{
    archive_entry_set_mtime(entry, 1700000000, 123456789);
}

static const struct {
    const char *what;
    int (*set_format)(struct archive *tar);
    void (*make)(struct archive_entry *entry);
    const char *why;
} odd[] = {
    {"a directory", archive_write_set_format_ustar, make_directory, "other than regular files"},
    {"a symlink", archive_write_set_format_ustar, make_symlink, "other than regular files"},
    {"a hard link", archive_write_set_format_ustar, make_hardlink, "other than regular files"},
    {"a FIFO", archive_write_set_format_ustar, make_fifo, "other than regular files"},
    {"/dev/null", archive_write_set_format_ustar, make_char_device, "other than regular files"},
    {"a block device", archive_write_set_format_ustar, make_block_device,
     "other than regular files"},
    {"setuid", archive_write_set_format_ustar, make_setuid, "a special mode"},
    {"setgid", archive_write_set_format_ustar, make_setgid, "a special mode"},
    {"sticky", archive_write_set_format_ustar, make_sticky, "a special mode"},
    {"pax, a long name", archive_write_set_format_pax, make_long_name, "whose name"},
    {"gnu, a long name", archive_write_set_format_gnutar, make_long_name, "no snapshot has"},
    {"a name of 32", archive_write_set_format_ustar, make_name_of_32, "whose name"},
    {"pax, sparse", archive_write_set_format_pax, make_sparse, "extended headers"},
    {"pax, an attribute", archive_write_set_format_pax, make_attribute, "extended headers"},
    {"pax, a time", archive_write_set_format_pax, make_precise_time, "extended headers"},
};

/* The first, or one among plain ones. */
START_TEST(entries_that_no_snapshot_has_are_refused)
{
    for (int before = 0; before < 2; before++) {
        struct archive *tar = tar_begin(odd[_i].set_format);
        struct archive_entry *entry = plain("kv/000001", 5);

        if (before > 0) {
            tar_add(tar, plain("kv/000000", 100));
        }
        odd[_i].make(entry);
        tar_add(tar, entry);
        tar_add(tar, plain("epochs.json", 20));
        tar_end(tar);
        compress();
        refused(odd[_i].why);
    }
}
END_TEST

#define USTAR "ustar\00000"
#define GNU   "ustar  "

/* By hand: what libarchive's writer makes of no entry. */
static const struct {
    const char *what;
    char type;
    const char *magic;
    const char *data;
} extended[] = {
    {"global pax", 'g', USTAR, "18 comment=nothing\n"},
    {"pax, the same name", 'x', USTAR, "18 path=kv/000000\n"},
    {"pax, a size", 'x', USTAR, "9 size=5\n"},
    {"pax, a link", 'x', USTAR, "24 linkpath=/etc/passwd\n"},
    {"pax, the size on disk", 'x', USTAR, "22 GNU.sparse.size=99\n"},
    {"solaris pax", 'X', USTAR, "9 size=5\n"},
    {"gnu long name", 'L', GNU, "kv/000000"},
    {"gnu long link", 'K', GNU, "/etc/passwd"},
    {"gnu volume label", 'V', GNU, ""},
    {"link", '1', USTAR, ""},
    {"symlink", '2', USTAR, ""},
    {"gnu directory", 'D', GNU, ""},
};

START_TEST(extended_headers_are_refused)
{
    size_t n = strlen(extended[_i].data);

    tar_bytes.length = 0;
    (void)tar_header("odd", extended[_i].type, n, extended[_i].magic);
    tar_data(extended[_i].data, n);
    (void)tar_header("kv/000000", '0', 5, extended[_i].magic);
    tar_data("hello", 5);
    bytes_add_zeros(&tar_bytes, END);
    compress();
    ck_assert_msg(read_it().rc == -EBADMSG, "%s", extended[_i].what);
}
END_TEST

START_TEST(a_plain_header_by_hand_is_read)
{
    tar_bytes.length = 0;
    (void)tar_header("kv/000000", _i == 0 ? '0' : '\0', 5, USTAR);
    tar_data("hello", 5);
    bytes_add_zeros(&tar_bytes, END);
    compress();
    accepted(1);
}
END_TEST

/* GNU's old sparse files: so many bytes stand there, and the file is said to have another size. */
static const struct {
    bool map; /* it tells where the bytes belong */
    uint64_t stored;
    uint64_t real;
} sparse[] = {
    {true, 5, 10},  {true, 5, 500}, {true, 5, 513},  {true, 0, 500},  {true, 0, UINT64_C(1) << 32},
    {true, 512, 0}, {false, 5, 10}, {false, 5, 500}, {false, 0, 500}, {false, 500, 5},
};

START_TEST(an_old_sparse_file_is_refused)
{
    uint8_t *header;

    tar_bytes.length = 0;
    header = tar_header("kv/000000", 'S', sparse[_i].stored, GNU);
    if (sparse[_i].map) {
        (void)snprintf((char *)header + 386, 12, "%011o", 0u);
        (void)snprintf((char *)header + 398, 12, "%011llo", (unsigned long long)sparse[_i].stored);
    }
    (void)snprintf((char *)header + 483, 12, "%011llo", (unsigned long long)sparse[_i].real);
    tar_sum(header);
    tar_data(content.data, sparse[_i].stored);
    bytes_add_zeros(&tar_bytes, END);
    compress();
    refused("");
}
END_TEST

START_TEST(a_size_that_cannot_be_is_refused)
{
    static const uint8_t numbers[][12] = {
        {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, /* -1 */
        {0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},          /* 2^63 - 1 */
        {0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},          /* 2^64 - 1 */
        {0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
        "77777777777", /* 8 GiB */
    };
    uint8_t *header;

    tar_bytes.length = 0;
    header = tar_header("kv/000000", '0', 5, USTAR);
    memcpy(header + 124, numbers[_i], 12);
    tar_sum(header);
    tar_data("hello", 5);
    bytes_add_zeros(&tar_bytes, END);
    compress();
    refused("");
}
END_TEST

static void add_writing(Suite *suite)
{
    TCase *tcase = tcase_create("writing");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, files_of_any_size_come_back);
    tcase_add_test(tcase, the_totals_are_those_of_the_file);
    tcase_add_test(tcase, the_level_may_change);
    tcase_add_test(tcase, an_archive_without_files_is_one);
    tcase_add_loop_test(tcase, what_is_not_read_of_a_file_is_passed, 0, 2);
    tcase_add_test(tcase, a_source_may_give_single_bytes);
    tcase_add_loop_test(tcase, an_error_of_the_source_is_handed_on, 0, 2);
    tcase_add_test(tcase, no_archive_becomes_larger_than_it_may);
    tcase_add_test(tcase, progress_ends_at_the_size);
    tcase_add_test(tcase, an_error_of_progress_is_handed_on);
    tcase_add_loop_test(tcase, one_that_is_given_up_leaves_nothing, 0, 2);
    tcase_add_loop_test(tcase, an_error_of_the_file_is_handed_on, 0, 2);
    suite_add_tcase(suite, tcase);
}

static void add_damage(Suite *suite)
{
    TCase *tcase = tcase_create("damage");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_part_of_an_archive_is_none);
    tcase_add_test(tcase, a_part_of_a_large_archive_is_none);
    tcase_add_test(tcase, a_part_of_a_tar_is_none);
    tcase_add_test(tcase, no_flipped_bit_changes_what_is_read);
    tcase_add_test(tcase, a_flipped_bit_in_a_tar_s_header_is_found);
    tcase_add_test(tcase, nothing_may_stand_behind_the_frame);
    tcase_add_loop_test(tcase, a_second_frame_is_refused, 0, 3);
    tcase_add_test(tcase, a_frame_before_the_first_is_refused);
    tcase_add_test(tcase, what_is_no_zstd_is_refused);
    tcase_add_test(tcase, what_is_no_tar_is_refused);
    tcase_add_loop_test(tcase, a_window_that_takes_too_much_memory_is_refused, 0,
                        (int)(sizeof windows / sizeof windows[0]));
    tcase_add_loop_test(tcase, a_tar_may_be_padded, 0, 4);
    tcase_add_loop_test(tcase, but_not_without_an_end, 0, 3);
    tcase_add_loop_test(tcase, nothing_may_stand_behind_a_tar_s_end, 0, 6);
    tcase_add_loop_test(tcase, nor_within_it, 0, 3);
    tcase_add_test(tcase, a_second_tar_behind_the_first_is_refused);
    suite_add_tcase(suite, tcase);
}

static void add_entries(Suite *suite)
{
    TCase *tcase = tcase_create("entries");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, entries_that_no_snapshot_has_are_refused, 0,
                        (int)(sizeof odd / sizeof odd[0]));
    tcase_add_loop_test(tcase, extended_headers_are_refused, 0,
                        (int)(sizeof extended / sizeof extended[0]));
    tcase_add_loop_test(tcase, a_plain_header_by_hand_is_read, 0, 2);
    tcase_add_loop_test(tcase, an_old_sparse_file_is_refused, 0,
                        (int)(sizeof sparse / sizeof sparse[0]));
    tcase_add_loop_test(tcase, a_size_that_cannot_be_is_refused, 0, 5);
    suite_add_tcase(suite, tcase);
}

int main(void)
{
    Suite *suite = suite_create("snapshot_archive");
    SRunner *runner = srunner_create(suite);
    int failed;

    add_writing(suite);
    add_damage(suite);
    add_entries(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
