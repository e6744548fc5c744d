/* The data directory: made once, locked, and never begun anew where something is missing. */
#include "common/crc32.h"
#include "storage/data_dir.h"
#include "storage/file_io.h"

#include <check.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CLUSTER "550e8400-e29b-41d4-a716-446655440000"

static char top[64];   /* temporary directory */
static char data[128]; /* the data directory in it */
static struct nx_data_dir dir;
static char error[512];

static void setup(void)
{
    (void)snprintf(top, sizeof top, "/tmp/nexus-data-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(top));
    (void)snprintf(data, sizeof data, "%s/data", top);
    dir.lock_fd = -1;
}

static void teardown(void)
{
    nx_data_dir_close(&dir);
    ck_assert_int_eq(nx_remove_tree(AT_FDCWD, top), 0);
}

static const char *in_data(const char *name)
{
    static char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", data, name);
    return path;
}

static bool there(const char *name)
{
    return faccessat(AT_FDCWD, in_data(name), F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void write_text(const char *name, const char *text)
{
    ck_assert_int_eq(nx_file_replace(in_data(name), text, strlen(text), 0600), 0);
}

static void remove_it(const char *name)
{
    ck_assert(there(name));
    ck_assert_int_eq(nx_remove_tree(AT_FDCWD, in_data(name)), 0);
}

static void make_dir(const char *name)
{
    ck_assert_int_eq(mkdir(in_data(name), 0700), 0);
}

static void open_it(void)
{
    int rc = nx_data_dir_open(data, &dir, error, sizeof error);

    ck_assert_msg(rc == 0, "%d: %s", rc, error);
}

/* Made, with something in the state, and closed. */
static void used(void)
{
    open_it();
    write_text("data-1/state/data.mdb", "state");
    nx_data_dir_close(&dir);
}

/* Refused with this error and these words, and nothing of it is held. */
static void refused(int rc, const char *words)
{
    memset(error, 0, sizeof error);
    ck_assert_int_eq(nx_data_dir_open(data, &dir, error, sizeof error), rc);
    ck_assert_msg(strstr(error, words) != NULL, "\"%s\" is not in: %s", words, error);
    ck_assert_msg(strstr(error, "data") != NULL, "no path in: %s", error);
    ck_assert_int_eq(dir.lock_fd, -1);
}

/* ---- first start, and later ones ---- */

START_TEST(a_missing_directory_is_made)
{
    struct nx_data_dir first;
    char path[PATH_MAX];
    uint8_t uuid[16];
    struct stat st;

    open_it();
    first = dir;
    ck_assert_int_eq(stat(data, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0700);
    ck_assert_ptr_nonnull(realpath(data, path));
    ck_assert_str_eq(dir.path, path);
    ck_assert_int_eq(strncmp(dir.root, path, strlen(path)), 0);
    ck_assert_str_eq(dir.root + strlen(path), "/data-1");
    ck_assert_int_eq(nx_uuid_parse(dir.node_id, uuid), 0);
    ck_assert_str_eq(dir.identity.cluster_id, "");
    ck_assert(there("nexus.id") && there("current") && there("nexus.lock"));
    ck_assert(there("data-1/wal") && there("data-1/state") && there("data-1/identity"));
    ck_assert(!there("nexus.id.tmp") && !there("current.tmp") && !there("data-1/identity.tmp"));
    nx_data_dir_close(&dir);
    open_it();
    ck_assert_str_eq(dir.node_id, first.node_id);
    ck_assert_str_eq(dir.root, first.root);
}
END_TEST

START_TEST(two_nodes_have_two_ids)
{
    char id[NX_UUID_TEXT];

    open_it();
    memcpy(id, dir.node_id, sizeof id);
    nx_data_dir_close(&dir);
    (void)snprintf(data, sizeof data, "%s/other/", top);
    open_it();
    ck_assert_str_ne(dir.node_id, id);
}
END_TEST

START_TEST(a_directory_is_named_by_any_path)
{
    char link[128];

    open_it();
    nx_data_dir_close(&dir);
    (void)snprintf(link, sizeof link, "%s/link", top);
    ck_assert_int_eq(symlink("data", link), 0);
    memcpy(data, link, sizeof data);
    open_it();
    ck_assert_ptr_nonnull(strstr(dir.path, "/data"));
}
END_TEST

START_TEST(an_empty_directory_of_ours_is_closed_to_others)
{
    struct stat st;

    ck_assert_int_eq(mkdir(data, 0755), 0);
    open_it();
    ck_assert_int_eq(stat(data, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0700);
}
END_TEST

/* _i: how far the first start came. */
START_TEST(an_interrupted_first_start_is_completed)
{
    ck_assert_int_eq(mkdir(data, 0700), 0);
    write_text("nexus.id.tmp", "node_id = 550e");
    if (_i >= 1) {
        write_text("nexus.id", "node_id = " CLUSTER "\nformat = 1\n");
    }
    if (_i >= 2) {
        make_dir("data-1");
        make_dir("data-1/wal");
    }
    if (_i >= 3) {
        make_dir("data-1/state");
        write_text("data-1/identity.tmp", "clu");
    }
    if (_i >= 4) {
        write_text("data-1/identity", "damaged, and never used");
        ck_assert_int_eq(symlink("data-1", in_data("current.tmp")), 0);
    }
    open_it();
    ck_assert_str_eq(dir.identity.cluster_id, "");
    ck_assert(!there("current.tmp") && !there("nexus.id.tmp") && !there("data-1/identity.tmp"));
    if (_i >= 1) {
        ck_assert_str_eq(dir.node_id, CLUSTER);
    }
}
END_TEST

START_TEST(leftovers_of_a_full_sync_are_removed)
{
    used();
    make_dir("data-2");
    make_dir("data-2/wal");
    make_dir("data-2/state");
    write_text("data-2/state/data.mdb", "half-made");
    ck_assert_int_eq(symlink("/etc/passwd", in_data("data-2/state/link")), 0);
    make_dir("data-x");
    make_dir("snapshots");
    write_text("nexus.id.tmp", "x");
    write_text("data-1/identity.tmp", "x");
    write_text("data-1/wal/durable.tmp", "x");
    open_it();
    ck_assert(!there("data-2"));
    ck_assert(!there("nexus.id.tmp"));
    ck_assert(!there("data-1/identity.tmp"));
    ck_assert(!there("data-1/wal/durable.tmp"));
    ck_assert(there("data-x") && there("snapshots") && there("data-1/state/data.mdb"));
    ck_assert_int_eq(access("/etc/passwd", F_OK), 0);
}
END_TEST

START_TEST(current_may_name_another_number)
{
    char from[512];

    used();
    (void)snprintf(from, sizeof from, "%s", in_data("data-1"));
    ck_assert_int_eq(rename(from, in_data("data-17")), 0);
    remove_it("current");
    ck_assert_int_eq(symlink("data-17", in_data("current")), 0);
    open_it();
    ck_assert_ptr_nonnull(strstr(dir.root, "/data-17"));
    ck_assert(there("data-17/state/data.mdb"));
}
END_TEST

/* ---- identity ---- */

START_TEST(an_identity_is_kept)
{
    struct nx_identity identity = {.cluster_id = CLUSTER};

    open_it();
    ck_assert_int_eq(nx_identity_store(&dir, &identity), 0);
    ck_assert_str_eq(dir.identity.cluster_id, CLUSTER);
    nx_data_dir_close(&dir);
    memset(&dir.identity, 0, sizeof dir.identity);
    open_it();
    ck_assert_str_eq(dir.identity.cluster_id, CLUSTER);
    ck_assert(!there("data-1/identity.tmp"));
}
END_TEST

START_TEST(an_identity_that_cannot_be_is_not_stored)
{
    struct nx_identity identity = {.cluster_id = "no uuid"};

    open_it();
    ck_assert_int_eq(nx_identity_store(&dir, &identity), -EINVAL);
    ck_assert_str_eq(dir.identity.cluster_id, "");
}
END_TEST

static void write_identity(const char *lines)
{
    char text[1024];

    (void)snprintf(text, sizeof text, "%scrc32 = %08" PRIx32 "\n", lines,
                   nx_crc32(0, lines, strlen(lines)));
    write_text("data-1/identity", text);
}

START_TEST(an_identity_is_text_with_a_crc)
{
    used();
    write_identity("cluster_id = " CLUSTER "\n");
    open_it();
    ck_assert_str_eq(dir.identity.cluster_id, CLUSTER);
}
END_TEST

START_TEST(a_damaged_identity_is_refused)
{
    static const char *const texts[] = {
        "", "cluster_id = \n", "crc32 = 00000000\n", "cluster_id = \ncrc32 = 12345678\n", "\n\n\n",
    };
    static const char *const lines[] = {
        "cluster_id = 550e\n",
        "cluster_id=\n",
        "cluster = \n",
        "cluster_id = ",
        "cluster_id = 550e8400-e29b-41d4-a716-4466554400000\n",
    };

    used();
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        write_text("data-1/identity", texts[i]);
        refused(-EBADMSG, "identity is damaged");
    }
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        write_identity(lines[i]);
        refused(-EBADMSG, "identity is damaged");
    }
}
END_TEST

/* ---- known replicas in it ---- */

#define LAST (NX_ADDR_TEXT - 1)

/* One whose every field is told apart from all others', as long as it may be. */
static struct nx_known_replica some_replica(unsigned n)
{
    struct nx_known_replica replica = {
        .connected = n % 2 == 1,
        .last_seen = UINT64_MAX - n,
        .last_ack_offset = UINT64_MAX / 2 + n,
    };

    (void)snprintf(replica.id, sizeof replica.id, "550e8400-e29b-41d4-a716-44665544%04x", n);
    memset(replica.addr, 'a', LAST);
    (void)snprintf(replica.addr + LAST - 6, 7, ":%05u", n);
    memset(replica.http_addr, 'b', LAST);
    (void)snprintf(replica.http_addr + LAST - 6, 7, ":%05u", n);
    return replica;
}

static void assert_same(const struct nx_known_replica *a, const struct nx_known_replica *b)
{
    ck_assert_str_eq(a->id, b->id);
    ck_assert_str_eq(a->addr, b->addr);
    ck_assert_str_eq(a->http_addr, b->http_addr);
    ck_assert_int_eq(a->connected, b->connected);
    ck_assert_uint_eq(a->last_seen, b->last_seen);
    ck_assert_uint_eq(a->last_ack_offset, b->last_ack_offset);
}

/* _i: how many. */
START_TEST(known_replicas_are_kept)
{
    static struct nx_identity identity;

    identity = (struct nx_identity){.cluster_id = CLUSTER, .replica_count = (unsigned)_i};
    for (unsigned i = 0; i < identity.replica_count; i++) {
        identity.replicas[i] = some_replica(i);
    }
    if (_i > 0) {
        identity.replicas[0].addr[0] = '\0';
        identity.replicas[0].http_addr[0] = '\0';
    }
    open_it();
    ck_assert_int_eq(nx_identity_store(&dir, &identity), 0);
    nx_data_dir_close(&dir);
    memset(&dir.identity, 0, sizeof dir.identity);
    open_it();
    ck_assert_str_eq(dir.identity.cluster_id, CLUSTER);
    ck_assert_uint_eq(dir.identity.replica_count, identity.replica_count);
    for (unsigned i = 0; i < identity.replica_count; i++) {
        assert_same(&dir.identity.replicas[i], &identity.replicas[i]);
    }
}
END_TEST

START_TEST(replicas_that_cannot_be_read_again_are_not_stored)
{
    static struct nx_identity identity;

    open_it();
    for (int fault = 0; fault < 4; fault++) {
        identity = (struct nx_identity){.cluster_id = CLUSTER, .replica_count = 2};
        identity.replicas[0] = some_replica(0);
        identity.replicas[1] = some_replica(1);
        if (fault == 0) {
            identity.replicas[1].id[0] = 'x';
        } else if (fault == 1) {
            identity.replicas[1].addr[LAST - 1] = '\n';
        } else if (fault == 2) {
            identity.replicas[1].http_addr[0] = '\n';
        } else {
            identity.replica_count = NX_MAX_REPLICAS + 1;
        }
        ck_assert_int_eq(nx_identity_store(&dir, &identity), -EINVAL);
        ck_assert_uint_eq(dir.identity.replica_count, 0);
    }
}
END_TEST

#define ID       "replica = 550e8400-e29b-41d4-a716-446655440001\n"
#define TIMES    "connected = 0\nlast_seen = 5\nlast_ack_offset = 7\n"
#define ADDRS    "addr = a:1\nhttp_addr = b:2\n"
#define FIRST_ID "cluster_id = " CLUSTER "\n"

START_TEST(damaged_replicas_are_refused)
{
    static const char *const lines[] = {
        FIRST_ID "replica = \n" TIMES ADDRS,
        FIRST_ID "replica = 550e8400-e29b-41d4-a716-44665544000\n" TIMES ADDRS,
        FIRST_ID "replica = 550e8400-e29b-41d4-a716-44665544000x\n" TIMES ADDRS,
        FIRST_ID ID,
        FIRST_ID ID TIMES,
        FIRST_ID ID ADDRS TIMES,
        FIRST_ID ID TIMES "addr = a:1\n",
        FIRST_ID ID TIMES "addr = a:1\nhttp_addr = b:2",
        FIRST_ID ID "connected = 2\nlast_seen = 5\nlast_ack_offset = 7\n" ADDRS,
        FIRST_ID ID "connected = 0\nlast_seen = -5\nlast_ack_offset = 7\n" ADDRS,
        FIRST_ID ID "connected = 0\nlast_seen = 5\nlast_ack_offset = \n" ADDRS,
        FIRST_ID ID "connected = 0\nlast_seen = 18446744073709551616\nlast_ack_offset = 7\n" ADDRS,
        FIRST_ID ID TIMES ADDRS ID TIMES ADDRS,
        ID TIMES ADDRS FIRST_ID,
    };

    used();
    write_identity(FIRST_ID ID TIMES ADDRS);
    open_it();
    ck_assert_uint_eq(dir.identity.replica_count, 1);
    ck_assert_str_eq(dir.identity.replicas[0].http_addr, "b:2");
    nx_data_dir_close(&dir);
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        write_identity(lines[i]);
        refused(-EBADMSG, "identity is damaged");
    }
}
END_TEST

/* With an address of more bytes than fit; one replica more than fit; more than the largest file. _i: which. */
START_TEST(too_much_is_damage)
{
    static char text[1 << 20];
    size_t length = strlen(FIRST_ID);

    used();
    (void)snprintf(text, sizeof text, "%s", FIRST_ID);
    for (unsigned i = 0; i < (_i == 1 ? NX_MAX_REPLICAS + 1 : 1); i++) {
        length += (size_t)snprintf(text + length, sizeof text - length,
                                   "replica = 550e8400-e29b-41d4-a716-44665544%04x\n" TIMES
                                   "addr = %0*d\nhttp_addr = %0*d\n",
                                   i, _i == 0 ? NX_ADDR_TEXT : 1, 0, _i == 2 ? 500000 : 1, 0);
    }
    (void)snprintf(text + length, sizeof text - length, "crc32 = %08" PRIx32 "\n",
                   nx_crc32(0, text, length));
    write_text("data-1/identity", text);
    refused(-EBADMSG, "identity is damaged");
}
END_TEST

START_TEST(an_identity_of_a_later_version_is_refused)
{
    used();
    write_identity("cluster_id = " CLUSTER "\nfence = 5\n");
    refused(-ENOTSUP, "later version");
    write_identity(FIRST_ID ID TIMES ADDRS "fence = 5\n");
    refused(-ENOTSUP, "later version");
}
END_TEST

/* ---- missing and damaged pieces ---- */

START_TEST(a_missing_piece_is_refused)
{
    static const char *const pieces[] = {"nexus.id",   "current",      "data-1/identity",
                                         "data-1/wal", "data-1/state", "data-1"};
    static const char *const words[] = {"nexus.id is missing", "ln -s data-1",
                                        "identity is missing", "wal is missing",
                                        "state is missing",    "points to data-1"};

    used();
    remove_it(pieces[_i]);
    refused(-EBADMSG, words[_i]);
    refused(-EBADMSG, words[_i]); /* still: nothing was begun anew */
}
END_TEST

START_TEST(a_log_without_a_state_is_data_too)
{
    used();
    remove_it("current");
    remove_it("data-1/state/data.mdb");
    write_text(_i == 0 ? "data-1/wal/00000000000000000001.wal" : "data-1/wal/durable", "x");
    refused(-EBADMSG, "data-1 holds data");
}
END_TEST

START_TEST(a_strange_current_is_refused)
{
    static const char *const targets[] = {"/tmp",
                                          "../data",
                                          "data-",
                                          "data-01",
                                          "data-1/",
                                          "data-x",
                                          "data-1000000000000000000000000000000000000000000"};

    used();
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
        remove_it("current");
        ck_assert_int_eq(symlink(targets[i], in_data("current")), 0);
        refused(-EBADMSG, "current isn't a symbolic link");
    }
    remove_it("current");
    make_dir("current");
    refused(-EBADMSG, "current isn't a symbolic link");
}
END_TEST

START_TEST(a_damaged_id_is_refused)
{
    static const char *const texts[] = {
        "",
        "node_id = 550e\nformat = 1\n",
        "node_id = " CLUSTER,
        "node_id = " CLUSTER "\n",
        "node_id = " CLUSTER "\nformat = \n",
        "node_id = " CLUSTER "\nformat = x\n",
        "node_id = " CLUSTER "\nformat = 0\n",
        "node_id = " CLUSTER "\nformat = 1",
        "node_id = " CLUSTER "\nformat = 1\nmore = 1\n",
    };

    used();
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        write_text("nexus.id", texts[i]);
        refused(-EBADMSG, "nexus.id is damaged");
    }
}
END_TEST

START_TEST(a_later_format_is_refused)
{
    used();
    write_text("nexus.id", "node_id = " CLUSTER "\nformat = 2\nwhatever\n");
    refused(-ENOTSUP, "format 2");
}
END_TEST

START_TEST(a_parent_that_is_not_there_is_named)
{
    (void)snprintf(data, sizeof data, "%s/no/data", top);
    refused(-ENOENT, "create that one first");
}
END_TEST

START_TEST(a_file_is_no_directory)
{
    ck_assert_int_eq(nx_file_replace(data, "x", 1, 0600), 0);
    refused(-ENOTDIR, "it is a file");
}
END_TEST

START_TEST(a_path_that_is_too_long_is_refused)
{
    char path[PATH_MAX];

    size_t length = (size_t)snprintf(path, sizeof path, "%s", top);

    while (length < NX_PATH_SIZE) {
        length += (size_t)snprintf(path + length, sizeof path - length, "/one-of-many-components");
        ck_assert_int_eq(mkdir(path, 0700), 0);
    }
    ck_assert_int_eq(nx_data_dir_open(path, &dir, error, sizeof error), -ENAMETOOLONG);
    ck_assert_ptr_nonnull(strstr(error, "too long"));
}
END_TEST

static const mode_t open_modes[] = {0755, 0750, 0701, 0720, 0777};

START_TEST(a_directory_open_to_others_is_refused)
{
    used();
    ck_assert_int_eq(chmod(data, open_modes[_i]), 0);
    refused(-EPERM, "chmod 700");
    ck_assert_int_eq(chmod(data, 0700), 0);
    open_it();
}
END_TEST

START_TEST(a_directory_of_somebody_else_is_refused)
{
    if (geteuid() != 0) {
        return; /* only root can give one away */
    }
    used();
    ck_assert_int_eq(chown(data, 12345, (gid_t)-1), 0);
    refused(-EPERM, "uid 12345");
}
END_TEST

/* ---- the lock ---- */

START_TEST(a_second_server_is_refused_and_told_the_pid)
{
    struct nx_data_dir first;
    char pid[32];

    open_it();
    first = dir;
    dir.lock_fd = -1;
    (void)snprintf(pid, sizeof pid, "pid %ld", (long)getpid());
    refused(-EBUSY, pid);
    ck_assert_ptr_nonnull(strstr(error, "nexus-ctl stop"));
    dir = first;
}
END_TEST

START_TEST(a_child_keeps_the_lock)
{
    int pipes[2];
    pid_t child;
    char byte;

    ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
    open_it();
    child = fork();
    if (child == 0) {
        close(pipes[1]);
        (void)!read(pipes[0], &byte, 1); /* until our end is closed */
        _exit(0);
    }
    nx_data_dir_close(&dir);
    refused(-EBUSY, "in use");
    close(pipes[1]);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    close(pipes[0]);
    open_it();
}
END_TEST

/* The server was killed, its child lives a moment longer: the next start waits for it. */
START_TEST(the_lock_of_a_dying_server_is_waited_for)
{
    static const struct timespec moment = {.tv_nsec = 300000000};
    int status;
    pid_t server = fork();

    ck_assert_int_ge(server, 0);
    if (server == 0) {
        int rc = nx_data_dir_open(data, &dir, error, sizeof error);

        if (rc == 0 && fork() == 0) {
            (void)nanosleep(&moment, NULL);
            _exit(0);
        }
        _exit(rc == 0 ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(server, &status, 0), server);
    ck_assert_int_eq(status, 0);
    open_it();
}
END_TEST

START_TEST(a_stale_lock_file_does_no_harm)
{
    used();
    write_text("nexus.lock", "1\n");
    open_it();
}
END_TEST

/* ---- small things ---- */

START_TEST(uuids_are_read_strictly)
{
    static const uint8_t expected[16] = {0x55, 0x0e, 0x84, 0x00, 0xe2, 0x9b, 0x41, 0xd4,
                                         0xa7, 0x16, 0x44, 0x66, 0x55, 0x44, 0x00, 0x00};
    uint8_t uuid[16];

    ck_assert_int_eq(nx_uuid_parse(CLUSTER, uuid), 0);
    ck_assert_mem_eq(uuid, expected, 16);
    ck_assert_int_eq(nx_uuid_parse("", uuid), -EINVAL);
    ck_assert_int_eq(nx_uuid_parse(CLUSTER "0", uuid), -EINVAL);
    ck_assert_int_eq(nx_uuid_parse("550e8400-e29b-41d4-a716-44665544000x", uuid), -EINVAL);
    ck_assert_int_eq(nx_uuid_parse("550e8400e29b41d4a716446655440000", uuid), -EINVAL);
}
END_TEST

START_TEST(a_file_is_replaced_as_a_whole_or_not_at_all)
{
    char text[16];
    int fd;

    ck_assert_int_eq(mkdir(data, 0700), 0);
    fd = open(data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    write_text("file", "old");
    write_text("file", "new one");
    ck_assert_int_eq(nx_file_read_text(fd, "file", text, sizeof text), 0);
    ck_assert_str_eq(text, "new one");
    ck_assert_int_eq(nx_file_read_text(fd, "file", text, 7), -E2BIG);
    ck_assert_int_eq(nx_file_read_text(fd, "none", text, 7), -ENOENT);
    make_dir("file.tmp");
    ck_assert_int_lt(nx_file_replace(in_data("file"), "x", 1, 0600), 0);
    ck_assert_int_eq(nx_file_read_text(fd, "file", text, sizeof text), 0);
    ck_assert_str_eq(text, "new one");
    close(fd);
}
END_TEST

static void add_starts(Suite *suite)
{
    TCase *tcase = tcase_create("starts");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_missing_directory_is_made);
    tcase_add_test(tcase, two_nodes_have_two_ids);
    tcase_add_test(tcase, a_directory_is_named_by_any_path);
    tcase_add_test(tcase, an_empty_directory_of_ours_is_closed_to_others);
    tcase_add_loop_test(tcase, an_interrupted_first_start_is_completed, 0, 5);
    tcase_add_test(tcase, leftovers_of_a_full_sync_are_removed);
    tcase_add_test(tcase, current_may_name_another_number);
    tcase_add_test(tcase, an_identity_is_kept);
    tcase_add_test(tcase, an_identity_that_cannot_be_is_not_stored);
    tcase_add_loop_test(tcase, known_replicas_are_kept, 0, 3);
    tcase_add_loop_test(tcase, known_replicas_are_kept, NX_MAX_REPLICAS, NX_MAX_REPLICAS + 1);
    tcase_add_test(tcase, replicas_that_cannot_be_read_again_are_not_stored);
    tcase_add_test(tcase, an_identity_is_text_with_a_crc);
    tcase_add_test(tcase, uuids_are_read_strictly);
    tcase_add_test(tcase, a_file_is_replaced_as_a_whole_or_not_at_all);
    suite_add_tcase(suite, tcase);

    tcase = tcase_create("lock");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_second_server_is_refused_and_told_the_pid);
    tcase_add_test(tcase, a_child_keeps_the_lock);
    tcase_add_test(tcase, the_lock_of_a_dying_server_is_waited_for);
    tcase_add_test(tcase, a_stale_lock_file_does_no_harm);
    suite_add_tcase(suite, tcase);
}

static void add_refusals(Suite *suite)
{
    TCase *tcase = tcase_create("refusals");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_damaged_identity_is_refused);
    tcase_add_test(tcase, damaged_replicas_are_refused);
    tcase_add_loop_test(tcase, too_much_is_damage, 0, 3);
    tcase_add_test(tcase, an_identity_of_a_later_version_is_refused);
    tcase_add_loop_test(tcase, a_missing_piece_is_refused, 0, 6);
    tcase_add_loop_test(tcase, a_log_without_a_state_is_data_too, 0, 2);
    tcase_add_test(tcase, a_strange_current_is_refused);
    tcase_add_test(tcase, a_damaged_id_is_refused);
    tcase_add_test(tcase, a_later_format_is_refused);
    tcase_add_test(tcase, a_parent_that_is_not_there_is_named);
    tcase_add_test(tcase, a_file_is_no_directory);
    tcase_add_test(tcase, a_path_that_is_too_long_is_refused);
    tcase_add_loop_test(tcase, a_directory_open_to_others_is_refused, 0,
                        (int)(sizeof open_modes / sizeof open_modes[0]));
    tcase_add_test(tcase, a_directory_of_somebody_else_is_refused);
    suite_add_tcase(suite, tcase);
}

int main(void)
{
    Suite *suite = suite_create("data_dir");
    SRunner *runner = srunner_create(suite);
    int failed;

    add_starts(suite);
    add_refusals(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
