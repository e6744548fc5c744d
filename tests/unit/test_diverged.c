/* Entries that are given up are saved whole or not at all, once, and are found again. */
#include "http/json_in.h"
#include "shm_fixture.h"
#include "storage/diverged.h"
#include "wal_fixture.h"

#include <check.h>
#include <json-c/json.h>

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>

static struct wal wal;
static char data_dir[64];
static char root[80];
static struct nx_stream stream;
static struct nx_diverged_saved saved;
static int dir_fd; /* DATA_DIR/diverged; -1 until open_dir */

static void setup(void)
{
    char path[96];

    shm_setup();
    wal_open(&wal);
    memcpy(data_dir, "/tmp/nexus-diverged-XXXXXX", sizeof "/tmp/nexus-diverged-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(data_dir));
    (void)snprintf(root, sizeof root, "%s/data-1", data_dir);
    (void)snprintf(path, sizeof path, "%s/wal", root);
    ck_assert_int_eq(mkdir(root, 0700), 0);
    ck_assert_int_eq(symlink(wal.path, path), 0);
    nx_stream_open(&stream, shm, root);
    memset(&saved, 0x55, sizeof saved);
    dir_fd = -1;
}

static void teardown(void)
{
    nx_stream_close(&stream);
    if (dir_fd >= 0) {
        close(dir_fd);
    }
    wal_close(&wal);
    ck_assert_int_eq(nx_remove_tree(AT_FDCWD, data_dir), 0);
    shm_teardown();
}

/* ---- a log ---- */

static struct nx_op put(const char *key, const char *value)
{
    return (struct nx_op){
        .kind = NX_OP_PUT, .key = nx_slice_text(key), .value = nx_slice_text(value)};
}

static struct nx_op deletion(const char *key)
{
    return (struct nx_op){.kind = NX_OP_DELETE, .key = nx_slice_text(key)};
}

/* Appends an entry of these operations. */
static void append_ops(const struct nx_op *ops, uint32_t count)
{
    struct nx_entry_header header = next_header(&wal);
    size_t size = 0;
    uint8_t *frame;
    struct nx_writer writer;

    for (uint32_t i = 0; i < count; i++) {
        size += nx_op_encoded_size(&ops[i]);
    }
    frame = malloc(nx_entry_frame_size(size));
    ck_assert_ptr_nonnull(frame);
    writer = nx_writer_of(frame + NX_ENTRY_HEADER_SIZE, size);
    for (uint32_t i = 0; i < count; i++) {
        ck_assert_int_eq(nx_op_encode(&writer, &ops[i]), 0);
    }
    if (ops[0].kind == NX_OP_EPOCH) {
        header.epoch++;
    }
    header.op_count = count;
    header.ops_length = size;
    header.crc = nx_entry_finish(frame, &header);
    if (wal.fd < 0) {
        wal_segment(&wal);
    }
    wal_put_raw(&wal, frame, nx_entry_frame_size(size), wal.at);
    free(frame);
    wal.frame_at = wal.at;
    wal.at += nx_entry_frame_size(size);
    wal.last = (struct nx_position){header.epoch, header.offset, header.crc};
}

static void append_op(struct nx_op op)
{
    append_ops(&op, 1);
}

/* Segments of 100 entries. */
static void segments(unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        wal_segment(&wal);
        wal_append_n(&wal, 100);
    }
}

/* ---- saving ---- */

static struct nx_diverged_options options_from(uint64_t first)
{
    return (struct nx_diverged_options){
        .data_dir = data_dir, .stream = &stream, .first = first, .last = wal.last};
}

static int save_rc(uint64_t first)
{
    struct nx_diverged_options options = options_from(first);

    return nx_diverged_save(&options, &saved);
}

static void save(uint64_t first)
{
    ck_assert_int_eq(save_rc(first), 0);
}

static void open_dir(void)
{
    if (dir_fd < 0) {
        dir_fd = nx_diverged_dir(data_dir);
        ck_assert_int_ge(dir_fd, 0);
    }
}

static int count_one(void *arg, const char *name)
{
    unsigned *count = arg;

    (void)name;
    (*count)++;
    return 0;
}

static unsigned count_files(void)
{
    unsigned count = 0;

    open_dir();
    ck_assert_int_eq(nx_each_name(dir_fd, count_one, &count), 0);
    return count;
}

static struct nx_diverged_range range_from(uint64_t first)
{
    return (struct nx_diverged_range){.first = first, .last = wal.last};
}

static const char *name_from(uint64_t first, const char *suffix)
{
    static char name[NX_DIVERGED_NAME];
    struct nx_diverged_range range = range_from(first);

    nx_diverged_name(&range, suffix, name);
    return name;
}

static void put_file(const char *name, const char *text)
{
    int fd;

    open_dir();
    fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(nx_write_at(fd, text, strlen(text), 0), 0);
    close(fd);
}

static void assert_file(const char *name, const char *text)
{
    char found[8192];

    open_dir();
    ck_assert_int_eq(nx_file_read_text(dir_fd, name, found, sizeof found), 0);
    ck_assert_str_eq(found, text);
}

/* What was said of the save, and that two files stand. */
static void assert_saved(uint64_t first, uint64_t last, uint64_t count, bool already)
{
    ck_assert_uint_eq(saved.first, first);
    ck_assert_uint_eq(saved.last, last);
    ck_assert_uint_eq(saved.count, count);
    ck_assert_int_eq(saved.already, already);
    ck_assert_int_eq(access(saved.path, R_OK), 0);
    ck_assert_uint_eq(count_files(), 2);
}

/* Counts lines and checks that the offsets are `next`, `next` + 1, ... */
struct lines {
    uint64_t next;
    uint64_t count;
};

static int check_line(void *arg, struct nx_slice line)
{
    struct lines *lines = arg;
    char expected[64];
    size_t length =
        (size_t)snprintf(expected, sizeof expected, "{\"offset\":%" PRIu64 ",", lines->next);

    ck_assert_uint_gt(line.length, length);
    ck_assert(memcmp(line.data, expected, length) == 0);
    lines->next++;
    lines->count++;
    return 0;
}

static uint64_t count_entries(uint64_t first, uint64_t first_there)
{
    struct nx_diverged_range range = range_from(first);
    struct lines lines = {.next = first_there};

    open_dir();
    ck_assert_int_eq(nx_diverged_each_entry(dir_fd, &range, check_line, &lines), 0);
    return lines.count;
}

START_TEST(operations_become_lines)
{
    struct nx_op expiring = put("session", "1");
    struct nx_op several[] = {put("b", "2"), deletion("a"), put("c", ""), deletion("\xfe\x01")};
    char path[NX_DIVERGED_PATH];
    struct nx_diverged_range range;

    append_op(put("kept", "in common"));
    append_op(put("a", "one \"two\"\n\xc3\xa4"));
    append_ops(several, 4);
    append_op(put("\xff", "\x80\x81"));
    expiring.flags = NX_OP_HAS_EXPIRY;
    expiring.expires_at = 1732900000123;
    append_op(expiring);
    save(2);
    assert_saved(2, 5, 4, false);
    range = range_from(2);
    nx_diverged_path(data_dir, &range, path);
    ck_assert_str_eq(saved.path, path);
    assert_file(name_from(2, ".ndjson"),
                "{\"key\":\"a\",\"value\":\"one \\\"two\\\"\\n\xc3\xa4\"}\n"
                "{\"key\":\"b\",\"value\":\"2\"}\n"
                "{\"key\":\"a\",\"delete\":true}\n"
                "{\"key\":\"c\",\"value\":\"\"}\n"
                "{\"key_base64\":\"/gE=\",\"delete\":true}\n"
                "{\"key_base64\":\"/w==\",\"value_base64\":\"gIE=\"}\n"
                "{\"key\":\"session\",\"value\":\"1\",\"expires_at\":1732900000123}\n");
    assert_file(
        name_from(2, ".entries"),
        "{\"offset\":2,\"epoch\":1,\"keys\":[\"a\"]}\n"
        "{\"offset\":3,\"epoch\":1,\"keys\":[\"b\",\"a\",\"c\"],\"keys_base64\":[\"/gE=\"]}\n"
        "{\"offset\":4,\"epoch\":1,\"keys\":[],\"keys_base64\":[\"/w==\"]}\n"
        "{\"offset\":5,\"epoch\":1,\"keys\":[\"session\"]}\n");
}
END_TEST

/* The line that `text` begins with, as POST /import reads it, is this operation; text goes on behind it. */
static void assert_taken(const char **text, const struct nx_op *op)
{
    struct json_tokener *tokener = nx_json_tokener();
    struct nx_slice line = nx_slice_of(*text, strcspn(*text, "\n"));
    struct json_put item = {.key = {NULL, 0}};
    struct json_object *object;
    struct json_fault fault;
    bool delete;

    ck_assert_ptr_nonnull(tokener);
    ck_assert_int_eq(nx_json_parse(tokener, line, &object, &fault), 0);
    ck_assert_int_eq(nx_json_line_of(object, "Line", NX_MAX_VALUE, &item, &delete, &fault), 0);
    ck_assert_int_eq(delete, op->kind == NX_OP_DELETE);
    ck_assert(nx_slice_equal(item.key, op->key));
    ck_assert(delete || nx_slice_equal(item.value, op->value));
    json_object_put(object);
    json_tokener_free(tokener);
    nx_json_put_free(&item);
    *text += line.length + 1;
}

START_TEST(import_takes_the_lines)
{
    static char bytes[256];
    static char found[256 << 10];
    struct nx_op ops[2 * 256 + 1];
    const char *text = found;
    uint32_t count = 0;

    for (unsigned i = 0; i < 256; i++) {
        bytes[i] = (char)i;
        ops[count] = put("", "");
        ops[count].key = nx_slice_of(bytes + i, 1);
        ops[count++].value = nx_slice_of(bytes, i);
        ops[count] = deletion("");
        ops[count++].key = nx_slice_of(bytes, i + 1);
    }
    ops[count++] = put("\xf0\x9f\x90\x98", "\xe2\x82\xac\"\\/\x7f");
    append_ops(ops, count);
    save(1);
    ck_assert_int_eq(nx_file_read_text(AT_FDCWD, saved.path, found, sizeof found), 0);
    for (uint32_t i = 0; i < count; i++) {
        assert_taken(&text, &ops[i]);
    }
    ck_assert_str_eq(text, "");
}
END_TEST

START_TEST(an_epoch_gives_no_operation)
{
    append_op(put("a", "1"));
    append_op((struct nx_op){.kind = NX_OP_EPOCH, .key = nx_slice_of(test_cluster, 16)});
    save(2);
    assert_saved(2, 2, 1, false);
    assert_file(name_from(2, ".ndjson"), "");
    assert_file(name_from(2, ".entries"), "{\"offset\":2,\"epoch\":2,\"keys\":[]}\n");
    append_op(put("b", "2"));
    ck_assert_int_eq(nx_remove_tree(AT_FDCWD, saved.path), 0);
    save(1);
    assert_file(name_from(1, ".entries"), "{\"offset\":1,\"epoch\":1,\"keys\":[\"a\"]}\n"
                                          "{\"offset\":2,\"epoch\":2,\"keys\":[]}\n"
                                          "{\"offset\":3,\"epoch\":2,\"keys\":[\"b\"]}\n");
}
END_TEST

START_TEST(the_name_tells_the_range)
{
    char name[NX_DIVERGED_NAME];

    nx_diverged_name(
        &(struct nx_diverged_range){.first = 101, .last = {.epoch = 3, .offset = 205, .crc = 0xab}},
        ".ndjson", name);
    ck_assert_str_eq(name, "00000000000000000101-00000000000000000205-3-000000ab.ndjson");
    nx_diverged_name(
        &(struct nx_diverged_range){
            .first = UINT64_MAX,
            .last = {.epoch = UINT64_MAX, .offset = UINT64_MAX, .crc = UINT32_MAX}},
        ".entries.tmp", name);
    ck_assert_str_eq(name + strlen(name) - 12, ".entries.tmp");
}
END_TEST

START_TEST(they_are_the_owners_alone)
{
    struct stat st;

    append_op(put("a", "1"));
    save(1);
    open_dir();
    ck_assert_int_eq(fstat(dir_fd, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0700);
    ck_assert_int_eq(stat(saved.path, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
}
END_TEST

START_TEST(what_is_saved_is_not_saved_again)
{
    struct stat before;
    struct stat after;

    segments(3);
    save(151);
    assert_saved(151, 300, 150, false);
    ck_assert_int_eq(stat(saved.path, &before), 0);
    memset(&saved, 0x55, sizeof saved);
    save(151);
    assert_saved(151, 300, 150, true);
    ck_assert_int_eq(stat(saved.path, &after), 0);
    ck_assert_uint_eq(before.st_ino, after.st_ino);
    /* Also when the log has given all of it up meanwhile. */
    nx_stream_close(&stream);
    ck_assert_int_eq(unlinkat(wal.dir_fd, "00000000000000000101.wal", 0), 0);
    ck_assert_int_eq(unlinkat(wal.dir_fd, "00000000000000000201.wal", 0), 0);
    save(151);
    assert_saved(151, 300, 150, true);
}
END_TEST

START_TEST(what_is_not_whole_is_saved_again)
{
    static const char *const suffixes[] = {".ndjson", ".entries"};

    segments(1);
    save(51);
    for (size_t i = 0; i < 2; i++) {
        open_dir();
        ck_assert_int_eq(unlinkat(dir_fd, name_from(51, suffixes[i]), 0), 0);
        save(51);
        assert_saved(51, 100, 50, false);
        put_file(name_from(51, ".entries"), i == 0 ? "" : "{\"offset\":51}\n{\"offs");
        save(51);
        assert_saved(51, 100, 50, false);
        ck_assert_uint_eq(count_entries(51, 51), 50);
    }
}
END_TEST

START_TEST(two_histories_have_two_names)
{
    segments(1);
    save(51);
    wal.last.crc ^= 1;
    ck_assert_int_eq(save_rc(51), -EBADMSG);
    wal.last.crc ^= 1;
    wal.last.epoch++;
    ck_assert_int_eq(save_rc(51), -EBADMSG);
    wal.last.epoch--;
    wal.last.crc = 0; /* not known */
    save(51);
    ck_assert(!saved.already);
    ck_assert_uint_eq(count_files(), 4);
}
END_TEST

/* ---- logs that hold less ---- */

START_TEST(the_oldest_may_be_gone)
{
    segments(5);
    ck_assert_int_eq(unlinkat(wal.dir_fd, "00000000000000000001.wal", 0), 0);
    ck_assert_int_eq(unlinkat(wal.dir_fd, "00000000000000000101.wal", 0), 0);
    save(51);
    assert_saved(201, 500, 300, false);
    ck_assert_uint_eq(count_entries(51, 201), 300);
    save(51);
    assert_saved(201, 500, 300, true);
}
END_TEST

START_TEST(all_may_be_gone)
{
    segments(2);
    ck_assert_int_eq(unlinkat(wal.dir_fd, "00000000000000000001.wal", 0), 0);
    ck_assert_int_eq(unlinkat(wal.dir_fd, "00000000000000000101.wal", 0), 0);
    for (unsigned i = 0; i < 2; i++) {
        save(51);
        ck_assert_uint_eq(saved.count, 0);
        ck_assert_str_eq(saved.path, "");
        ck_assert_uint_eq(count_files(), 0);
        wal_segment(&wal); /* prepared, for what comes */
    }
}
END_TEST

START_TEST(a_log_that_is_damaged_is_not_saved)
{
    segments(2);
    wal_flip(&wal, "00000000000000000101.wal", wal.frame_at + 60);
    ck_assert_int_eq(save_rc(51), -EBADMSG);
    ck_assert_uint_eq(count_files(), 0);
}
END_TEST

START_TEST(a_range_that_is_none_is_refused)
{
    segments(1);
    ck_assert_int_eq(save_rc(0), -EINVAL);
    ck_assert_int_eq(save_rc(101), -EINVAL);
    wal.last.offset = 101; /* more than there is */
    ck_assert_int_eq(save_rc(51), -EBADMSG);
    ck_assert_uint_eq(count_files(), 0);
}
END_TEST

START_TEST(a_directory_that_is_not_there_is_named_by_errno)
{
    segments(1);
    (void)snprintf(data_dir + strlen(data_dir) - 1, 2, "%c", '_');
    ck_assert_int_eq(save_rc(51), -ENOENT);
    (void)snprintf(data_dir, sizeof data_dir, "%.*s", (int)(strlen(root) - strlen("/data-1")),
                   root);
}
END_TEST

/* ---- large ones ---- */

START_TEST(many_entries_are_saved)
{
    segments(200);
    save(51);
    assert_saved(51, 20000, 19950, false);
    ck_assert_uint_eq(count_entries(51, 51), 19950);
}
END_TEST

START_TEST(large_entries_are_saved)
{
    size_t length = (size_t)15 << 20;
    char *value = malloc(length + 1);
    struct stat st;

    ck_assert_ptr_nonnull(value);
    memset(value, 'v', length);
    value[length] = '\0';
    wal.segment_size = (uint64_t)64 << 20;
    append_op(put("small", "1"));
    append_op(put("large", value));
    append_op(put("small", "2"));
    memset(value, 1, length); /* each byte takes six */
    append_op(put("larger", value));
    free(value);
    save(1);
    assert_saved(1, 4, 4, false);
    ck_assert_int_eq(stat(saved.path, &st), 0);
    ck_assert_uint_eq((uint64_t)st.st_size, length + 6 * length +
                                                strlen("{\"key\":\"small\",\"value\":\"1\"}\n"
                                                       "{\"key\":\"large\",\"value\":\"\"}\n"
                                                       "{\"key\":\"small\",\"value\":\"2\"}\n"
                                                       "{\"key\":\"larger\",\"value\":\"\"}\n"));
}
END_TEST

START_TEST(an_entry_of_many_long_keys_is_one_line)
{
    static struct nx_op ops[NX_MAX_OPS];
    static char keys[NX_MAX_OPS][NX_MAX_KEY + 1];
    struct lines lines = {.next = 1};
    struct nx_diverged_range range;

    for (unsigned i = 0; i < NX_MAX_OPS; i++) {
        memset(keys[i], 1, NX_MAX_KEY);
        (void)snprintf(keys[i], NX_MAX_KEY, "%u", i);
        keys[i][strlen(keys[i])] = 1;
        ops[i] = deletion(keys[i]);
    }
    wal.segment_size = (uint64_t)64 << 20;
    append_ops(ops, NX_MAX_OPS);
    save(1);
    assert_saved(1, 1, 1, false);
    range = range_from(1);
    open_dir();
    ck_assert_int_eq(nx_diverged_each_entry(dir_fd, &range, check_line, &lines), 0);
    save(1);
    assert_saved(1, 1, 1, true);
}
END_TEST

/* ---- what ends it early ---- */

static bool stop_after(void *arg)
{
    unsigned *left = arg;

    return (*left)-- == 0;
}

START_TEST(it_stops_when_it_is_told_to)
{
    segments(5);
    for (unsigned i = 0; i < 5; i++) {
        unsigned left = i;
        struct nx_diverged_options options = options_from(51);

        options.stop = stop_after;
        options.arg = &left;
        ck_assert_int_eq(nx_diverged_save(&options, &saved), -ECANCELED);
        ck_assert_uint_eq(count_files(), 0);
    }
    save(51);
    assert_saved(51, 500, 450, false);
}
END_TEST

START_TEST(a_full_disk_leaves_nothing)
{
    struct rlimit limit;
    struct rlimit small;

    segments(100);
    ck_assert(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = limit;
    small.rlim_cur = 300000;
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
    ck_assert_int_eq(save_rc(1), -EFBIG);
    ck_assert_uint_eq(count_files(), 0);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    save(1);
    assert_saved(1, 10000, 10000, false);
}
END_TEST

START_TEST(what_a_killed_one_has_left_is_removed)
{
    segments(1);
    save(91);
    put_file("00000000000000000001-00000000000000000002-1-00000003.ndjson.tmp", "half");
    put_file("00000000000000000001-00000000000000000002-1-00000003.entries.tmp", "half");
    put_file("mine.tmp", "a person's");
    ck_assert_int_eq(mkdirat(dir_fd, name_from(1, ".ndjson.tmp"), 0700), 0);
    save(91);
    ck_assert_uint_eq(count_files(), 4);
}
END_TEST

/* ---- finding them ---- */

START_TEST(they_are_listed_in_order)
{
    static const char *const names[] = {
        "00000000000000000100-00000000000000000200-10-00000001.ndjson",
        "00000000000000000100-00000000000000000200-9-00000002.ndjson",
        "00000000000000000100-00000000000000000200-9-00000001.ndjson",
        "00000000000000000100-00000000000000000150-9-00000001.ndjson",
        "00000000000000000099-00000000000000000300-9-00000001.ndjson",
    };
    static const char *const foreign[] = {
        "notes.txt",
        "00000000000000000100-00000000000000000200-9-0000000A.ndjson",
        "00000000000000000100-00000000000000000200-09-00000001.ndjson",
        "00000000000000000200-00000000000000000100-9-00000001.ndjson",
        "00000000000000000000-00000000000000000100-9-00000001.ndjson",
        "99999999999999999999-99999999999999999999-9-00000001.ndjson",
        "00000000000000000001-00000000000000000100-9-00000001.entries", /* alone */
        "00000000000000000001",
        "",
    };
    struct nx_diverged_list list;
    char name[NX_DIVERGED_NAME];
    unsigned count = 0;

    append_op(put("a", "1"));
    save(1);
    open_dir();
    for (size_t i = 0; i < 5; i++) {
        put_file(names[i], "");
    }
    for (; foreign[count][0] != '\0'; count++) {
        put_file(foreign[count], "");
    }
    ck_assert_int_eq(symlinkat("/etc/passwd", dir_fd, name_from(7, ".ndjson")), 0);
    put_file(name_from(1, ".ndjson.tmp"), "in the making");
    ck_assert_int_eq(nx_diverged_list(dir_fd, &list), 0);
    ck_assert_uint_eq(list.count, 6);
    ck_assert_uint_eq(list.foreign, count + 1);
    ck_assert_uint_eq(list.ranges[0].first, 1);
    for (size_t i = 0; i < 5; i++) {
        nx_diverged_name(&list.ranges[i + 1], ".ndjson", name);
        ck_assert_str_eq(name, names[4 - i]);
    }
    free(list.ranges);
}
END_TEST

START_TEST(before_the_first_there_is_none)
{
    ck_assert_int_eq(nx_diverged_dir(data_dir), -ENOENT);
}
END_TEST

static int end_at_once(void *arg, struct nx_slice line)
{
    unsigned *count = arg;

    (void)line;
    (*count)++;
    return 7;
}

START_TEST(entries_are_read_line_by_line)
{
    struct nx_diverged_range range;
    unsigned count = 0;

    segments(30);
    save(1);
    range = range_from(1);
    open_dir();
    ck_assert_int_eq(nx_diverged_each_entry(dir_fd, &range, end_at_once, &count), 7);
    ck_assert_uint_eq(count, 1);
    put_file(name_from(1, ".entries"), "{}\n{}");
    ck_assert_int_eq(nx_diverged_each_entry(dir_fd, &range, end_at_once, &count), 7);
    ck_assert_int_eq(unlinkat(dir_fd, name_from(1, ".entries"), 0), 0);
    ck_assert_int_eq(nx_diverged_each_entry(dir_fd, &range, end_at_once, &count), -ENOENT);
    ck_assert_int_eq(symlinkat("/etc/passwd", dir_fd, name_from(1, ".entries")), 0);
    ck_assert_int_eq(nx_diverged_each_entry(dir_fd, &range, end_at_once, &count), -EBADMSG);
    ck_assert_int_eq(unlinkat(dir_fd, name_from(1, ".entries"), 0), 0);
    ck_assert_int_eq(mkfifoat(dir_fd, name_from(1, ".entries"), 0600), 0);
    ck_assert_int_eq(nx_diverged_each_entry(dir_fd, &range, end_at_once, &count), -EBADMSG);
}
END_TEST

static int go_on(void *arg, struct nx_slice line)
{
    unsigned *count = arg;

    (void)line;
    (*count)++;
    return 0;
}

START_TEST(a_file_that_is_cut_is_damaged)
{
    struct nx_diverged_range range;
    unsigned count = 0;

    segments(1);
    save(1);
    range = range_from(1);
    put_file(name_from(1, ".entries"), "{}\n{}\n{\"offset\"");
    ck_assert_int_eq(nx_diverged_each_entry(dir_fd, &range, go_on, &count), -EBADMSG);
    ck_assert_uint_eq(count, 2);
}
END_TEST

static Suite *make_suite(void)
{
    Suite *suite = suite_create("diverged");
    TCase *tcase = tcase_create("save");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, operations_become_lines);
    tcase_add_test(tcase, import_takes_the_lines);
    tcase_add_test(tcase, an_epoch_gives_no_operation);
    tcase_add_test(tcase, the_name_tells_the_range);
    tcase_add_test(tcase, they_are_the_owners_alone);
    tcase_add_test(tcase, what_is_saved_is_not_saved_again);
    tcase_add_test(tcase, what_is_not_whole_is_saved_again);
    tcase_add_test(tcase, two_histories_have_two_names);
    tcase_add_test(tcase, the_oldest_may_be_gone);
    tcase_add_test(tcase, all_may_be_gone);
    tcase_add_test(tcase, a_log_that_is_damaged_is_not_saved);
    tcase_add_test(tcase, a_range_that_is_none_is_refused);
    tcase_add_test(tcase, a_directory_that_is_not_there_is_named_by_errno);
    tcase_add_test(tcase, many_entries_are_saved);
    tcase_add_test(tcase, large_entries_are_saved);
    tcase_add_test(tcase, an_entry_of_many_long_keys_is_one_line);
    tcase_add_test(tcase, it_stops_when_it_is_told_to);
    tcase_add_test(tcase, a_full_disk_leaves_nothing);
    tcase_add_test(tcase, what_a_killed_one_has_left_is_removed);
    suite_add_tcase(suite, tcase);

    tcase = tcase_create("look");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, they_are_listed_in_order);
    tcase_add_test(tcase, before_the_first_there_is_none);
    tcase_add_test(tcase, entries_are_read_line_by_line);
    tcase_add_test(tcase, a_file_that_is_cut_is_damaged);
    suite_add_tcase(suite, tcase);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(make_suite());
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
