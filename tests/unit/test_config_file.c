/* The configuration file: how people write it, which one is read, and how each fault in it is told with
 * its line. */
#include "config_fixture.h"

#include <check.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void ck_assert_text(const char *name, const char *wanted)
{
    char text[NX_PATH_SIZE];

    ck_assert_int_eq(nx_config_text(&config, name, text, sizeof text), 0);
    ck_assert_str_eq(text, wanted);
}

START_TEST(a_file_as_people_write_it)
{
    static const char text[] = "\xEF\xBB\xBF# a comment\n"
                               "; another\r\n"
                               "\n"
                               "  [replication]   ; indented, with a comment\n"
                               "\trole=replica\n"
                               "   master_addr  =  [fd00::1]:15475   # a comment\n"
                               "heartbeat_ms: 250 ; colon\r\n"
                               "[server]\n"
                               "log_file = /var/log/nexus#1;a.log\n"
                               "pid_file =\n"
                               "[http]\n"
                               "#workers = 99\n"
                               "[replication]\n"
                               "max_replicas = 5";

    write_conf("a.conf", text);
    ck_assert_msg(LOAD("-c", "a.conf") == 0, "%s", report.errors[0]);
    ck_assert_text("replication.role", "replica");
    ck_assert_text("replication.master_addr", "[fd00::1]:15475");
    ck_assert_text("replication.heartbeat_ms", "250");
    ck_assert_text("server.log_file", "/var/log/nexus#1;a.log");
    ck_assert_text("server.pid_file", "");
    ck_assert_text("http.workers", "0");
    ck_assert_text("replication.max_replicas", "5");
}
END_TEST

START_TEST(a_path_may_be_longer_than_a_line_of_inih)
{
    char text[NX_PATH_SIZE + 64];
    char path[NX_PATH_SIZE];

    memset(path, 'p', sizeof path);
    path[sizeof path - 1] = '\0';
    (void)snprintf(text, sizeof text, "[server]\nlog_file = %s  # long\n[http]\nworkers = 3\n",
                   path);
    write_conf("a.conf", text);
    ck_assert_msg(LOAD("-c", "a.conf") == 0, "%s", report.errors[0]);
    ck_assert_str_eq(config.server.log_file, path);
    ck_assert_uint_eq(config.http.workers, 3);
}
END_TEST

START_TEST(a_bad_file_is_refused_by_line)
{
    static const struct {
        const char *text;
        const char *error;
    } cases[] = {
        {"[replication]\nheartbeat = 5\n",
         "a.conf:2: unknown key \"heartbeat\" in section [replication]; did you mean "
         "\"heartbeat_ms\" in [replication]?"},
        {"[server]\n\n\nrole = master\n",
         "a.conf:4: unknown key \"role\" in section [server]; did you mean \"role\" in "
         "[replication]?"},
        {"[replicaton]\nrole = master\n", "did you mean \"role\" in [replication]?"},
        {"[replication]\nRole = master\n", "unknown key \"Role\""},
        {"role = master\n[replication]\n",
         "a.conf:1: key \"role\" stands before any section; put it under its [section], such as "
         "role under [replication]"},
        {"[wal]\nfsync = off\n# and again\nfsync = off\n",
         "a.conf:4: wal.fsync is set a second time, first in line 2"},
        {"[wal]\nfsync = off\n[http]\n[wal]\nfsync = off\n", "a.conf:5: wal.fsync is set a second"},
        {"[wal]\nfsync\n", "a.conf:2: expected [section], key = value, or a comment"},
        {"[wal\n", "a.conf:1: expected [section], key = value, or a comment"},
        {"[wal] fsync = off\n", "a.conf:1: expected nothing behind [section]"},
        {"[wal]\n= off\n", "a.conf:2: unknown key \"\""},
        {"[wal]\nfsync =\n", "a.conf:2: wal.fsync = \"\": expected always, everysec or off"},
        {"[wal]\nfsync = # off\n", "a.conf:2: wal.fsync = \"\": expected always"},
        {"[wal]\nfsync = \"off\"\n", "a.conf:2: wal.fsync = \"\"off\"\": expected always"},
        {"[http]\nworkers = 1\n  2\n", "a.conf:3: expected [section], key = value, or a comment"},
        {"[http]\nworkers = 8 workers\n",
         "a.conf:2: http.workers = \"8 workers\": expected a whole"},
        {"[http]\nmax_value_size = 16MiB\n",
         "expected a size from 1 to 15MiB: bytes, or a whole number of kB, MB, GB or TB"},
        {"[replication]\nheartbeat_ms = 5 minutes\n",
         "expected milliseconds from 10 to 3600000, or a time in ms, s, min or h"},
        {"[state]\ncheckpoint_interval = soon\n",
         "expected a time from 1s to 24h: seconds, or a whole number of s, min, h or d"},
        {"[replication]\nsync_quorum = 0\n", "expected a whole number from 1 to 128"},
        {"\x7F"
         "ELF\x02\x01\x01",
         "a.conf:1: expected [section]"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        write_conf("a.conf", cases[i].text);
        ck_assert_msg(LOAD("-c", "a.conf") == -EINVAL, "taken: %s", cases[i].text);
        ASSERT_ERROR_HAS(cases[i].error);
    }
}
END_TEST

START_TEST(lines_of_any_length_do_no_harm)
{
    static char text[100000];

    memset(text, 'x', sizeof text - 1);
    write_conf("a.conf", text);
    ck_assert_int_eq(LOAD("-c", "a.conf"), -EINVAL);
    memcpy(text, "[http]\nworkers = ", 17);
    write_conf("a.conf", text);
    ck_assert_int_eq(LOAD("-c", "a.conf"), -EINVAL);
    ASSERT_ERROR_HAS("a.conf:2: http.workers = \"xxxx");
    memcpy(text, "[server]\nuser = x", 17);
    write_conf("a.conf", text);
    ck_assert_int_eq(LOAD("-c", "a.conf"), -EINVAL);
    ASSERT_ERROR_HAS("a.conf:2: server.user");
    memset(text + 9, 'x', sizeof text - 10);
    memcpy(text + sizeof text - 10, "= 1", 3);
    write_conf("a.conf", text);
    ck_assert_int_eq(LOAD("-c", "a.conf"), -EINVAL);
    ck_assert_uint_ge(report.error_count, 1);
}
END_TEST

START_TEST(a_file_that_is_none)
{
    static char large[(1 << 20) + 1];

    write_file("a.conf", "[http]\nworkers = 1\0\n", 20);
    ck_assert_int_eq(LOAD("-c", "a.conf"), -EINVAL);
    ASSERT_ERROR_HAS("it has zero bytes");
    memset(large, '\n', sizeof large);
    write_file("a.conf", large, sizeof large);
    ck_assert_int_eq(LOAD("-c", "a.conf"), -EINVAL);
    ASSERT_ERROR_HAS("larger than 1 MiB");
    write_conf("a.conf", "");
    ck_assert_int_eq(LOAD("-c", "a.conf"), 0);
}
END_TEST

START_TEST(which_file_is_read)
{
    ck_assert_int_eq(mkdir("data", 0700), 0);
    ck_assert_int_eq(mkdir("other", 0700), 0);
    write_conf("data/nexus.conf", "[http]\nworkers = 1\n");
    write_conf("other/nexus.conf", "[http]\nworkers = 2\n");
    write_conf("a.conf", "[http]\nworkers = 3\n[server]\ndata_dir = other\n");
    write_conf("b.conf", "[http]\nworkers = 4\n");

    ck_assert_int_eq(LOAD(NULL), 0);
    ck_assert_uint_eq(config.http.workers, 1);
    ck_assert_ptr_nonnull(HERE(report.file));
    ck_assert(!report.file_named);
    setenv("NEXUS_DATA_DIR", "other", 1);
    ck_assert_int_eq(LOAD(NULL), 0);
    ck_assert_uint_eq(config.http.workers, 2);
    ck_assert_int_eq(LOAD("-D", "data"), 0);
    ck_assert_uint_eq(config.http.workers, 1);
    ck_assert_int_eq(LOAD("--server.data_dir=data"), 0);
    ck_assert_uint_eq(config.http.workers, 1);
    setenv("NEXUS_CONFIG", "b.conf", 1);
    ck_assert_int_eq(LOAD(NULL), 0);
    ck_assert_uint_eq(config.http.workers, 4);
    ck_assert(report.file_named);
    ck_assert_int_eq(LOAD("-c", "a.conf"), 0);
    ck_assert_uint_eq(config.http.workers, 3);
    ck_assert_str_eq(config.server.data_dir, "other"); /* the variable's, and the file's */
    unsetenv("NEXUS_DATA_DIR");
    ck_assert_int_eq(LOAD("-c", "a.conf"), 0);
    ck_assert_str_eq(config.server.data_dir, "other");
    ck_assert_int_eq(LOAD("-c", "a.conf", "-D", "data"), 0);
    ck_assert_str_eq(config.server.data_dir, "data");
    ck_assert_int_eq(LOAD("-D", "missing", "-c", "b.conf"), 0);
    unsetenv("NEXUS_CONFIG");
    ck_assert_int_eq(LOAD("-D", "missing"), 0);
    ck_assert_str_eq(report.file, "");
    ck_assert_uint_eq(config.http.workers, 0);
}
END_TEST

START_TEST(the_file_in_the_data_directory_cannot_move_it)
{
    ck_assert_int_eq(mkdir("data", 0700), 0);
    ck_assert_int_eq(mkdir("other", 0700), 0);
    write_conf("data/nexus.conf", "[server]\ndata_dir = other\n");
    ck_assert_int_eq(LOAD(NULL), -EINVAL);
    ASSERT_ERROR_HAS("data/nexus.conf:2: server.data_dir = other is another directory");
    ck_assert_int_eq(LOAD("-D", "data"), -EINVAL);
    write_conf("data/nexus.conf", "[server]\ndata_dir = missing\n");
    ck_assert_int_eq(LOAD(NULL), -EINVAL);
    write_conf("data/nexus.conf", "[server]\ndata_dir = ./other/../data/\n");
    ck_assert_int_eq(LOAD(NULL), 0);
    /* named, it may */
    write_conf("data/nexus.conf", "[server]\ndata_dir = other\n");
    ck_assert_int_eq(LOAD("-c", "data/nexus.conf"), 0);
    ck_assert_str_eq(config.server.data_dir, "other");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config_file");
    TCase *tcase = tcase_create("config_file");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_file_as_people_write_it);
    tcase_add_test(tcase, a_path_may_be_longer_than_a_line_of_inih);
    tcase_add_test(tcase, a_bad_file_is_refused_by_line);
    tcase_add_test(tcase, lines_of_any_length_do_no_harm);
    tcase_add_test(tcase, a_file_that_is_none);
    tcase_add_test(tcase, which_file_is_read);
    tcase_add_test(tcase, the_file_in_the_data_directory_cannot_move_it);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
