/* The configuration: which source wins, what is refused and how it is said, and reloads that apply all
 * or nothing. Values are test_config_values.c, the file test_config_file.c. */
#include "common/config_table.h"
#include "config_fixture.h"

#include <check.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

START_TEST(the_defaults_of_the_guide)
{
    ck_assert_int_eq(LOAD(NULL), 0);
    ck_assert_int_eq(report.action, NX_ACTION_RUN);
    ck_assert_str_eq(config.server.data_dir, "./data");
    ck_assert_int_eq(config.replication.role, NX_ROLE_STANDALONE);
    ck_assert_str_eq(config.replication.bind_addr, "0.0.0.0:15475");
    ck_assert_str_eq(config.http.bind_addr, "0.0.0.0:15474");
    ck_assert_int_eq(config.replication.mode, NX_MODE_ASYNC);
    ck_assert_uint_eq(config.replication.sync_quorum, 1);
    ck_assert_uint_eq(config.replication.heartbeat_ms, 5000);
    ck_assert_uint_eq(config.replication.connect_timeout_ms, 5000);
    ck_assert_uint_eq(config.replication.max_log_size, 1000000);
    ck_assert(config.replication.auto_failover);
    ck_assert_uint_eq(config.replication.missed_heartbeats_threshold, 3);
    ck_assert_uint_eq(config.snapshot.compression_level, 3);
    ck_assert_uint_eq(config.snapshot.max_size, (uint64_t)10 << 30);
    ck_assert_uint_eq(config.snapshot.chunk_size, 1 << 20);
    ck_assert_uint_eq(config.snapshot.interval, 3600);
    ck_assert_uint_eq(config.wal.shm_size, 0);
    ck_assert_int_eq(config.wal.fsync, NX_FSYNC_ALWAYS);
    ck_assert_uint_eq(config.state.map_size, (uint64_t)64 << 30);
    ck_assert_uint_eq(config.state.checkpoint_interval, 30);
    ck_assert_int_eq(config.http.allow_without_token, NX_ALLOW_PRIVATE);
}
END_TEST

START_TEST(command_line_before_environment_before_file_before_default)
{
    write_conf("a.conf", "[replication]\nheartbeat_ms = 100\n");
    ck_assert_int_eq(LOAD("-c", "a.conf"), 0);
    ck_assert_uint_eq(config.replication.heartbeat_ms, 100);
    setenv("NEXUS_REPLICATION_HEARTBEAT_MS", "200", 1);
    ck_assert_int_eq(LOAD("-c", "a.conf"), 0);
    ck_assert_uint_eq(config.replication.heartbeat_ms, 200);
    ck_assert_int_eq(LOAD("-c", "a.conf", "--replication.heartbeat_ms=300"), 0);
    ck_assert_uint_eq(config.replication.heartbeat_ms, 300);
    /* the last of two on the command line */
    ck_assert_int_eq(LOAD("--replication.heartbeat_ms", "1s", "--replication.heartbeat_ms=2s"), 0);
    ck_assert_uint_eq(config.replication.heartbeat_ms, 2000);
    /* an empty variable is unset */
    setenv("NEXUS_REPLICATION_HEARTBEAT_MS", "", 1);
    ck_assert_int_eq(LOAD("-c", "a.conf"), 0);
    ck_assert_uint_eq(config.replication.heartbeat_ms, 100);
}
END_TEST

START_TEST(where_each_value_comes_from)
{
    char where[NX_PATH_SIZE];

    write_conf("a.conf", "[wal]\n\nmax_size = 1GB\n");
    setenv("NEXUS_LOG_LEVEL", "debug", 1);
    ck_assert_int_eq(LOAD("-ca.conf", "-D", "data"), 0);
    nx_config_where(&report, (size_t)nx_option_find("wal", "max_size"), where, sizeof where);
    ck_assert_ptr_nonnull(HERE(where));
    ck_assert_ptr_nonnull(strstr(where, "/a.conf:3"));
    nx_config_where(&report, (size_t)nx_option_find("server", "log_level"), where, sizeof where);
    ck_assert_str_eq(where, "NEXUS_LOG_LEVEL");
    nx_config_where(&report, (size_t)nx_option_find("server", "data_dir"), where, sizeof where);
    ck_assert_str_eq(where, "--server.data_dir");
    nx_config_where(&report, (size_t)nx_option_find("wal", "fsync"), where, sizeof where);
    ck_assert_str_eq(where, "default");
}
END_TEST

START_TEST(every_key_has_a_variable_and_an_option)
{
    char variable[NX_OPTION_NAME];
    char name[NX_OPTION_NAME];
    char option[2 * NX_OPTION_NAME];

    for (size_t i = 0; i < NX_CONFIG_KEYS; i++) {
        nx_option_variable(&nx_options[i], variable);
        nx_option_name(&nx_options[i], name);
        setenv(variable, "", 1);
        (void)snprintf(option, sizeof option, "--%s=%s", name, nx_options[i].initial);
        ck_assert_msg(LOAD(option) == 0, "%s: %s", option, report.errors[0]);
        ck_assert_int_eq(report.origins[i], NX_FROM_COMMAND_LINE);
        ck_assert_uint_eq(report.warning_count, 0);
    }
    nx_option_variable(&nx_options[nx_option_find("server", "data_dir")], variable);
    ck_assert_str_eq(variable, "NEXUS_DATA_DIR");
    nx_option_variable(&nx_options[nx_option_find("replication", "heartbeat_ms")], variable);
    ck_assert_str_eq(variable, "NEXUS_REPLICATION_HEARTBEAT_MS");
}
END_TEST

START_TEST(more_confirmations_than_peers_are_a_warning)
{
    write_conf("a.conf",
               "[replication]\npeers = 10.0.0.2:15474, 10.0.0.3:15474\nsync_quorum = 3\n");
    ck_assert_int_eq(LOAD("-c", "a.conf", "--replication.mode=sync"), 0);
    ck_assert_uint_eq(report.warning_count, 1);
    ck_assert_ptr_nonnull(
        strstr(report.warnings[0], "sync_quorum = 3, but replication.peers lists 2 other nodes"));
    ck_assert_int_eq(LOAD("-c", "a.conf", "--replication.mode=sync", "--replication.sync_quorum=2"),
                     0);
    ck_assert_uint_eq(report.warning_count, 0);
    ck_assert_int_eq(LOAD("--replication.mode=sync", "--replication.sync_quorum=3"), 0);
    ck_assert_uint_eq(report.warning_count, 0); /* who they are isn't told */
}
END_TEST

START_TEST(an_unknown_variable_is_a_warning_with_the_nearest)
{
    setenv("NEXUS_REPLICATION_ROL", "master", 1);
    setenv("NEXUS_CONFIG", "", 1);
    ck_assert_int_eq(LOAD(NULL), 0);
    ck_assert_uint_eq(report.warning_count, 1);
    ck_assert_ptr_nonnull(strstr(report.warnings[0], "NEXUS_REPLICATION_ROL "));
    ck_assert_ptr_nonnull(strstr(report.warnings[0], "did you mean NEXUS_REPLICATION_ROLE?"));
}
END_TEST

START_TEST(a_bad_variable_names_itself)
{
    setenv("NEXUS_REPLICATION_SYNC_QUORUM", "0", 1);
    ck_assert_int_eq(LOAD(NULL), -EINVAL);
    ASSERT_ERROR_HAS("NEXUS_REPLICATION_SYNC_QUORUM=0: expected a whole number from 1 to 128");
}
END_TEST

START_TEST(a_bad_argument_names_itself)
{
    static const struct {
        const char *arguments[3];
        const char *error;
    } cases[] = {
        {{"--wal.fsync=maybe"}, "--wal.fsync=maybe: expected always, everysec or off"},
        {{"--wal.fsync"}, "--wal.fsync needs a value"},
        {{"--wal.fsync", "--http.workers=1"}, "--wal.fsync needs a value"},
        {{"--http.workers", "-1"}, "--http.workers=-1: expected a whole number from 0 to 8"},
        {{"--wal.fsink=off"}, "unknown option --wal.fsink; did you mean --wal.fsync?"},
        {{"--http.auth_token=secret"},
         "unknown option --http.auth_token; did you mean --http.auth_token_file?"},
        {{"--http.role=master"}, "did you mean --replication.role?"},
        {{"--role=master"}, "did you mean --replication.role?"},
        {{"--frobnicate"}, "unknown option --frobnicate; did you mean --"},
        {{"start"}, "unknown argument \"start\""},
        {{"-x"}, "unknown argument \"-x\""},
        {{"--"}, "unknown argument \"--\""},
        {{"-"}, "unknown argument \"-\""},
        {{""}, "unknown argument \"\""},
        {{"-D"}, "-D needs a value"},
        {{"-c"}, "-c needs a value"},
        {{"-D", ""}, "--server.data_dir=: expected a path"},
        {{"-c", "missing.conf"}, "missing.conf: No such file"},
        {{"-c", "."}, "Is a directory"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ck_assert_int_eq(LOAD(cases[i].arguments[0], cases[i].arguments[1]), -EINVAL);
        ASSERT_ERROR_HAS(cases[i].error);
    }
}
END_TEST

START_TEST(the_config_struct_is_untouched_on_failure)
{
    struct nx_config before;

    memset(&before, 0xA5, sizeof before);
    ck_assert_int_eq(LOAD("--http.workers=9"), -EINVAL);
    ck_assert_mem_eq(&config, &before, sizeof config);
}
END_TEST

START_TEST(all_errors_are_told_at_once)
{
    write_conf("a.conf", "[http]\nworkers = 9\nworker = 1\n");
    setenv("NEXUS_WAL_FSYNC", "sometimes", 1);
    ck_assert_int_eq(LOAD("-c", "a.conf", "--http.max_connections=0"), -EINVAL);
    ck_assert_uint_eq(report.error_count, 4);
    ck_assert_ptr_nonnull(strstr(report.errors[0], "a.conf:2: http.workers = \"9\""));
    ck_assert_ptr_nonnull(strstr(report.errors[1], "a.conf:3: unknown key \"worker\""));
    ck_assert_ptr_nonnull(strstr(report.errors[2], "NEXUS_WAL_FSYNC=sometimes"));
    ck_assert_ptr_nonnull(strstr(report.errors[3], "--http.max_connections=0"));
}
END_TEST

START_TEST(actions_work_beside_a_broken_configuration)
{
    static const struct {
        const char *argument;
        enum nx_config_action action;
    } cases[] = {
        {"--version", NX_ACTION_VERSION},
        {"-V", NX_ACTION_VERSION},
        {"--help", NX_ACTION_HELP},
        {"-h", NX_ACTION_HELP},
        {"--print-config", NX_ACTION_PRINT_CONFIG},
        {"--check-config", NX_ACTION_CHECK_CONFIG},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        LOAD(cases[i].argument, "-c", "missing.conf");
        ck_assert_int_eq(report.action, cases[i].action);
    }
}
END_TEST

/* ---- combinations ---- */

START_TEST(what_cannot_work_together)
{
    static const struct {
        const char *arguments[3];
        const char *error; /* NULL: taken */
    } cases[] = {
        {{"--replication.role=replica"}, "role = replica needs replication.master_addr"},
        {{"--replication.role=replica", "--replication.master_addr=10.0.0.1:15475"}, NULL},
        {{"--replication.role=replica", "--replication.master_addr=localhost:15475"},
         "this node's own replication address"},
        {{"--replication.role=replica", "--replication.master_addr=127.0.0.5:15475"},
         "this node's own replication address"},
        {{"--replication.role=replica", "--replication.master_addr=[::1]:15475"},
         "this node's own replication address"},
        {{"--replication.role=replica", "--replication.master_addr=localhost:15476"}, NULL},
        {{"--replication.role=replica", "--replication.master_addr=a:15475",
          "--replication.bind_addr=A:15475"},
         "this node's own replication address"},
        {{"--replication.role=replica", "--replication.master_addr=a:1",
          "--replication.advertised_addr=a:1"},
         "this node's own replication address"},
        {{"--replication.role=replica", "--replication.master_addr=127.0.0.1:15475",
          "--replication.bind_addr=10.0.0.1:15475"},
         NULL},
        {{"--replication.role=master", "--replication.master_addr=localhost:15475"}, NULL},
        {{"--http.bind_addr=127.0.0.1:9", "--replication.bind_addr=127.0.0.1:9"}, "overlap"},
        {{"--http.bind_addr=127.0.0.1:9", "--replication.bind_addr=0.0.0.0:9"}, "overlap"},
        {{"--http.bind_addr=:9", "--replication.bind_addr=10.0.0.1:9"}, "overlap"},
        {{"--http.bind_addr=127.0.0.1:9", "--replication.bind_addr=127.0.0.2:9"}, NULL},
        {{"--http.bind_addr=127.0.0.1:9", "--replication.bind_addr=127.0.0.1:10"}, NULL},
        {{"--wal.max_size=127MiB"}, "wal.max_size"},
        {{"--wal.max_size=128MiB"}, NULL},
        {{"--replication.sync_quorum=3", "--replication.max_replicas=2"}, "can never confirm"},
        {{"--replication.sync_quorum=2", "--replication.max_replicas=2"}, NULL},
        {{"--wal.fsync=off"}, NULL},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int rc = LOAD(cases[i].arguments[0], cases[i].arguments[1], cases[i].arguments[2]);

        if (cases[i].error != NULL) {
            ck_assert_int_eq(rc, -EINVAL);
            ASSERT_ERROR_HAS(cases[i].error);
        } else {
            ck_assert_msg(rc == 0, "%s", report.errors[0]);
        }
    }
}
END_TEST

START_TEST(sync_mode_needs_a_log_that_is_synced)
{
    ck_assert_int_eq(LOAD("--replication.mode=sync", "--wal.fsync=everysec"), -EINVAL);
    ck_assert_uint_eq(report.error_count, 1);
    ck_assert_ptr_nonnull(strstr(report.errors[0], "mode = sync needs wal.fsync = always"));
}
END_TEST

START_TEST(files_that_go_together)
{
    ck_assert_int_eq(LOAD("--http.tls_cert_file=x"), -EINVAL);
    ASSERT_ERROR_HAS("http.tls_cert_file and http.tls_key_file go together");
    ck_assert_int_eq(LOAD("--replication.tls_key_file=x"), -EINVAL);
    ASSERT_ERROR_HAS("replication.tls_cert_file and replication.tls_key_file go together");
    ck_assert_int_eq(LOAD("--replication.tls_ca_file=x"), -EINVAL);
    ASSERT_ERROR_HAS("replication.tls_ca_file needs replication.tls_cert_file");
    ck_assert_int_eq(LOAD("--http.read_token_file=x"), -EINVAL);
    ASSERT_ERROR_HAS("http.read_token_file needs http.auth_token_file");
    ck_assert_int_eq(LOAD("--http.auth_token_file=/nowhere/x"), -EINVAL);
    ASSERT_ERROR_HAS(
        "--http.auth_token_file: http.auth_token_file = /nowhere/x: it can't be opened");
}
END_TEST

/* ---- reload ---- */

static struct nx_config_report reloaded;

static int reload(const char *conf, struct nx_config *ret_config)
{
    write_conf("a.conf", conf);
    return nx_config_reload(&config, &report, ret_config, &reloaded);
}

START_TEST(a_reload_applies_what_it_may_and_says_what_waits)
{
    struct nx_config next;
    char text[128];

    write_conf("a.conf", "[http]\nmax_connections = 5\n");
    ck_assert_int_eq(LOAD("-c", "a.conf", "--replication.heartbeat_ms=100"), 0);
    ck_assert_int_eq(reload("[http]\nmax_connections = 6\nworkers = 2\n"
                            "[server]\nlog_level = debug\n[replication]\nheartbeat_ms = 999\n",
                            &next),
                     0);
    ck_assert_uint_eq(next.http.max_connections, 6);
    ck_assert_int_eq(next.server.log_level, NX_LOG_DEBUG);
    ck_assert_uint_eq(next.http.workers, 0);
    ck_assert_uint_eq(next.replication.heartbeat_ms, 100); /* the command line's, as before */
    ck_assert_uint_eq(nx_config_changes(&reloaded, NX_CHANGE_APPLIED, text, sizeof text), 2);
    ck_assert_str_eq(text, "server.log_level, http.max_connections");
    ck_assert_uint_eq(nx_config_changes(&reloaded, NX_CHANGE_WAITS, text, sizeof text), 1);
    ck_assert_str_eq(text, "http.workers");
    ck_assert_uint_eq(nx_config_changes(&reloaded, NX_CHANGE_APPLIED, text, 8), 2);
    ck_assert_str_eq(text, "server.");
    /* it goes on waiting */
    config = next;
    ck_assert_int_eq(reload("[http]\nworkers = 2\n", &next), 0);
    ck_assert_uint_eq(nx_config_changes(&reloaded, NX_CHANGE_WAITS, text, sizeof text), 1);
    ck_assert_uint_eq(next.http.max_connections, 10000); /* out of the file: the default again */
}
END_TEST

START_TEST(a_reload_of_a_bad_file_applies_nothing)
{
    struct nx_config next;
    struct nx_config before;

    write_conf("a.conf", "[http]\nmax_connections = 5\n");
    ck_assert_int_eq(LOAD("-c", "a.conf"), 0);
    memset(&next, 0x5A, sizeof next);
    before = next;
    ck_assert_int_eq(reload("[http]\nmax_connections = 6\nworkers = many\n", &next), -EINVAL);
    ck_assert_mem_eq(&next, &before, sizeof next);
    ck_assert_uint_eq(reloaded.error_count, 1);
    ck_assert_ptr_nonnull(strstr(reloaded.errors[0], "a.conf:3: http.workers = \"many\""));
    /* a combination */
    ck_assert_int_eq(reload("[replication]\nrole = replica\n", &next), -EINVAL);
    /* good by itself, but not beside the segment size that is in force */
    ck_assert_int_eq(reload("[wal]\nsegment_size = 1MiB\nmax_size = 2MiB\n", &next), -EINVAL);
    ck_assert_ptr_nonnull(strstr(reloaded.errors[0], "wal.max_size"));
    /* gone */
    ck_assert_int_eq(unlink("a.conf"), 0);
    ck_assert_int_eq(nx_config_reload(&config, &report, &next, &reloaded), -EINVAL);
    ck_assert_mem_eq(&next, &before, sizeof next);
}
END_TEST

START_TEST(a_reload_finds_a_file_that_came_later)
{
    struct nx_config next;

    ck_assert_int_eq(mkdir("data", 0700), 0);
    ck_assert_int_eq(LOAD("-D", "data"), 0);
    write_conf("data/nexus.conf", "[http]\nmax_connections = 7\n");
    ck_assert_int_eq(nx_config_reload(&config, &report, &next, &reloaded), 0);
    ck_assert_uint_eq(next.http.max_connections, 7);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *tcase = tcase_create("config");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, the_defaults_of_the_guide);
    tcase_add_test(tcase, command_line_before_environment_before_file_before_default);
    tcase_add_test(tcase, where_each_value_comes_from);
    tcase_add_test(tcase, every_key_has_a_variable_and_an_option);
    tcase_add_test(tcase, more_confirmations_than_peers_are_a_warning);
    tcase_add_test(tcase, an_unknown_variable_is_a_warning_with_the_nearest);
    tcase_add_test(tcase, a_bad_variable_names_itself);
    tcase_add_test(tcase, a_bad_argument_names_itself);
    tcase_add_test(tcase, the_config_struct_is_untouched_on_failure);
    tcase_add_test(tcase, all_errors_are_told_at_once);
    tcase_add_test(tcase, actions_work_beside_a_broken_configuration);
    tcase_add_test(tcase, what_cannot_work_together);
    tcase_add_test(tcase, sync_mode_needs_a_log_that_is_synced);
    tcase_add_test(tcase, files_that_go_together);
    tcase_add_test(tcase, a_reload_applies_what_it_may_and_says_what_waits);
    tcase_add_test(tcase, a_reload_of_a_bad_file_applies_nothing);
    tcase_add_test(tcase, a_reload_finds_a_file_that_came_later);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
