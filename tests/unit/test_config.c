/* The configuration: values of every kind, which source wins, what is refused and how it is said, and
 * reloads that apply all or nothing. */
#include "common/config.h"
#include "common/config_table.h"
#include "common/edit_distance.h"
#include "common/units.h"

#include <check.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct nx_config config;
static struct nx_config_report report;
static char dir[] = "/tmp/nexus-test-config-XXXXXX";
static char home[PATH_MAX];

/* Every test has a working directory of its own and an environment without NEXUS_*. */
static void setup(void)
{
    ck_assert_ptr_nonnull(getcwd(home, sizeof home));
    memcpy(dir + sizeof dir - 7, "XXXXXX", 6);
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(chdir(dir), 0);
    ck_assert_int_eq(clearenv(), 0);
    memset(&config, 0xA5, sizeof config);
}

static void teardown(void)
{
    static const char *const names[] = {"data/nexus.conf", "other/nexus.conf", "data",
                                        "other",           "a.conf",           "b.conf"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        (void)remove(names[i]);
    }
    ck_assert_int_eq(chdir(home), 0);
    ck_assert_int_eq(rmdir(dir), 0);
}

static void write_file(const char *name, const char *text, size_t length)
{
    FILE *file = fopen(name, "we");

    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(text, 1, length, file), length);
    ck_assert_int_eq(fclose(file), 0);
}

static void write_conf(const char *name, const char *text)
{
    write_file(name, text, strlen(text));
}

#define MOST_ARGUMENTS 8

/* nx_config_load with these arguments, ended by NULL. The array outlives the call, for reloads. */
static int load(const char *const *arguments)
{
    static char texts[MOST_ARGUMENTS][256];
    static char *argv[MOST_ARGUMENTS + 2];
    int argc = 1;

    argv[0] = texts[0];
    (void)snprintf(texts[0], sizeof texts[0], "nexus-server");
    for (; *arguments != NULL; arguments++) {
        ck_assert_int_lt(argc, MOST_ARGUMENTS);
        (void)snprintf(texts[argc], sizeof texts[0], "%s", *arguments);
        argv[argc] = texts[argc];
        argc++;
    }
    argv[argc] = NULL;
    return nx_config_load(&config, argc, argv, &report);
}

#define LOAD(...)  load((const char *const[]){__VA_ARGS__, NULL})
#define HERE(text) strstr(text, dir)

/* The only error of the report. */
static const char *only_error(void)
{
    ck_assert_msg(report.error_count == 1, "%u errors, first: %s", report.error_count,
                  report.errors[0]);
    return report.errors[0];
}

#define ASSERT_ERROR_HAS(part)                                                            \
    do {                                                                                  \
        const char *error_ = only_error();                                                \
        ck_assert_msg(strstr(error_, part) != NULL, "\"%s\" lacks \"%s\"", error_, part); \
    } while (0)

/* ---- values ---- */

#define BAD NULL

static const struct value_case {
    const char *name;
    const char *text;
    const char *comes_out; /* BAD: refused */
} value_cases[] = {
    /* whole numbers */
    {"replication.sync_quorum", "1", "1"},
    {"replication.sync_quorum", "128", "128"},
    {"replication.sync_quorum", "007", "7"},
    {"replication.sync_quorum", "0", BAD},
    {"replication.sync_quorum", "129", BAD},
    {"replication.sync_quorum", "-1", BAD},
    {"replication.sync_quorum", "+1", BAD},
    {"replication.sync_quorum", "", BAD},
    {"replication.sync_quorum", " ", BAD},
    {"replication.sync_quorum", "one", BAD},
    {"replication.sync_quorum", "1.0", BAD},
    {"replication.sync_quorum", "1,0", BAD},
    {"replication.sync_quorum", "1e1", BAD},
    {"replication.sync_quorum", "0x10", BAD},
    {"replication.sync_quorum", "1k", BAD},
    {"replication.sync_quorum", "1 2", BAD},
    {"replication.sync_quorum", "1 replica", BAD},
    {"replication.sync_quorum", "18446744073709551617", BAD}, /* 2^64 + 1 */
    {"replication.max_log_size", "1000000", "1000000"},
    {"replication.max_log_size", "1000000000000000", "1000000000000000"},
    {"replication.max_log_size", "1000000000000001", BAD},
    {"replication.max_log_size", "18446744073709551616", BAD},
    {"replication.max_log_size", "99999999999999999999999999999999", BAD},
    {"replication.max_log_size", "0", BAD},
    {"replication.max_ready_lag", "0", "0"},
    {"replication.missed_heartbeats_threshold", "1", "1"},
    {"replication.missed_heartbeats_threshold", "0", BAD},
    {"http.workers", "0", "0"},
    {"http.workers", "8", "8"},
    {"http.workers", "9", BAD},
    {"http.workers", "auto", BAD},
    {"http.max_connections", "1", "1"},
    {"http.max_connections", "0", BAD},
    {"replication.max_replicas", "128", "128"},
    {"replication.max_replicas", "129", BAD},
    {"snapshot.compression_level", "0", "0"},
    {"snapshot.compression_level", "22", "22"},
    {"snapshot.compression_level", "23", BAD},
    {"snapshot.compression_level", "-1", BAD},
    {"snapshot.keep", "1", "1"},
    {"snapshot.keep", "0", BAD},
    /* sizes */
    {"snapshot.max_size", "10GB", "10GiB"},
    {"snapshot.max_size", "10 GB", "10GiB"},
    {"snapshot.max_size", "10\tgib", "10GiB"},
    {"snapshot.max_size", "10737418240", "10GiB"},
    {"snapshot.max_size", "10737418240B", "10GiB"},
    {"snapshot.max_size", "10g", "10GiB"},
    {"snapshot.max_size", "1048577", "1048577"},
    {"snapshot.max_size", "1024k", "1MiB"},
    {"snapshot.max_size", "1024 kB", "1MiB"},
    {"snapshot.max_size", "1024KIB", "1MiB"},
    {"snapshot.max_size", "1536kB", "1536kiB"},
    {"snapshot.max_size", "2TiB", "2TiB"},
    {"snapshot.max_size", "2t", "2TiB"},
    {"snapshot.max_size", "1048576TiB", "1048576TiB"}, /* 2^60, the most */
    {"snapshot.max_size", "1048577TiB", BAD},
    {"snapshot.max_size", "16777216TiB", BAD}, /* 2^64 */
    {"snapshot.max_size", "16777217TiB", BAD}, /* 2^64 + 2^40: not taken for 1TiB */
    {"snapshot.max_size", "18446744073709551616", BAD},
    {"snapshot.max_size", "1048575", BAD},
    {"snapshot.max_size", "0", BAD},
    {"snapshot.max_size", "", BAD},
    {"snapshot.max_size", "GB", BAD},
    {"snapshot.max_size", "-10GB", BAD},
    {"snapshot.max_size", "+10GB", BAD},
    {"snapshot.max_size", "1.5GB", BAD},
    {"snapshot.max_size", "10GBs", BAD},
    {"snapshot.max_size", "10 G B", BAD},
    {"snapshot.max_size", "10GB 1", BAD},
    {"snapshot.max_size", "10Gb/s", BAD},
    {"snapshot.max_size", "10PB", BAD},
    {"snapshot.max_size", "unlimited", BAD},
    {"snapshot.chunk_size", "1MB", "1MiB"},
    {"snapshot.chunk_size", "4kB", "4kiB"},
    {"snapshot.chunk_size", "4095", BAD},
    {"snapshot.chunk_size", "32MiB", "32MiB"},
    {"snapshot.chunk_size", "33MiB", BAD},
    {"http.max_value_size", "15MiB", "15MiB"},
    {"http.max_value_size", "15728641", BAD},
    {"http.max_value_size", "16MiB", BAD},
    {"http.max_value_size", "1", "1"},
    {"http.max_value_size", "0", BAD},
    {"wal.segment_size", "64MiB", "64MiB"},
    {"wal.segment_size", "65536", "64kiB"},
    {"wal.segment_size", "65535", BAD},
    {"wal.segment_size", "2GiB", BAD},
    {"wal.max_size", "1MiB", "1MiB"},
    {"state.map_size", "64GiB", "64GiB"},
    {"state.map_size", "1MiB", BAD},
    {"wal.shm_size", "auto", "auto"},
    {"wal.shm_size", "AUTO", "auto"},
    {"wal.shm_size", "32MiB", "32MiB"},
    {"wal.shm_size", "31MiB", BAD},
    {"wal.shm_size", "0", BAD},
    {"wal.shm_size", "automatic", BAD},
    {"wal.shm_size", "", BAD},
    /* milliseconds */
    {"replication.heartbeat_ms", "5000", "5000"},
    {"replication.heartbeat_ms", "500ms", "500"},
    {"replication.heartbeat_ms", "5s", "5000"},
    {"replication.heartbeat_ms", "5 S", "5000"},
    {"replication.heartbeat_ms", "1min", "60000"},
    {"replication.heartbeat_ms", "1H", "3600000"},
    {"replication.heartbeat_ms", "2h", BAD},
    {"replication.heartbeat_ms", "0", BAD},
    {"replication.heartbeat_ms", "9", BAD},
    {"replication.heartbeat_ms", "-5", BAD},
    {"replication.heartbeat_ms", "", BAD},
    {"replication.heartbeat_ms", "5sec", BAD},
    {"replication.heartbeat_ms", "5m", BAD}, /* minutes or metres? */
    {"replication.heartbeat_ms", "0.5s", BAD},
    {"replication.heartbeat_ms", "1s500ms", BAD},
    {"replication.heartbeat_ms", "500MB", BAD},
    {"replication.heartbeat_ms", "ms", BAD},
    {"replication.heartbeat_ms", "fast", BAD},
    {"replication.heartbeat_ms", "18446744073709551617ms", BAD},
    {"replication.heartbeat_ms", "5124095576030431h", BAD}, /* 2^64 ms and 0.4 h */
    {"replication.stop_drain_ms", "0", "0"},
    {"replication.sync_timeout_ms", "1d", "86400000"},
    {"http.request_timeout_ms", "10 s", "10000"},
    {"http.request_timeout_ms", "0", BAD},
    /* seconds */
    {"snapshot.interval", "1h", "1h"},
    {"snapshot.interval", "3600", "1h"},
    {"snapshot.interval", "0", "0"},
    {"snapshot.interval", "0s", "0"},
    {"snapshot.interval", "90", "90s"},
    {"snapshot.interval", "90min", "90min"},
    {"snapshot.interval", "1d", "24h"},
    {"snapshot.interval", "2000ms", "2s"},
    {"snapshot.interval", "1500ms", BAD},
    {"snapshot.interval", "1.5h", BAD},
    {"snapshot.interval", "-1h", BAD},
    {"snapshot.interval", "hourly", BAD},
    {"snapshot.interval", "18446744073709551615", BAD},
    {"state.checkpoint_interval", "30s", "30s"},
    {"state.checkpoint_interval", "30 S", "30s"},
    {"state.checkpoint_interval", "1", "1s"},
    {"state.checkpoint_interval", "0", BAD},
    {"state.checkpoint_interval", "25h", BAD},
    /* booleans */
    {"replication.auto_failover", "on", "true"},
    {"replication.auto_failover", "TRUE", "true"},
    {"replication.auto_failover", "Yes", "true"},
    {"replication.auto_failover", "1", "true"},
    {"replication.auto_failover", "off", "false"},
    {"replication.auto_failover", "False", "false"},
    {"replication.auto_failover", "NO", "false"},
    {"replication.auto_failover", "0", "false"},
    {"replication.auto_failover", "", BAD},
    {"replication.auto_failover", "2", BAD},
    {"replication.auto_failover", "t", BAD},
    {"replication.auto_failover", "enabled", BAD},
    {"replication.auto_failover", "true false", BAD},
    /* enumerations */
    {"replication.role", "master", "master"},
    {"replication.role", "Replica", "replica"},
    {"replication.role", "STANDALONE", "standalone"},
    {"replication.role", "slave", BAD},
    {"replication.role", "", BAD},
    {"replication.role", "master replica", BAD},
    {"replication.role", "0", BAD},
    {"replication.mode", "ASYNC", "async"},
    {"replication.mode", "Sync", "sync"},
    {"replication.mode", "semi", BAD},
    {"wal.fsync", "Always", "always"},
    {"wal.fsync", "everysec", "everysec"},
    {"wal.fsync", "off", "off"},
    {"wal.fsync", "no", BAD},
    {"http.allow_without_token", "none", "none"},
    {"http.allow_without_token", "loopback", "loopback"},
    {"http.allow_without_token", "Private", "private"},
    {"http.allow_without_token", "any", "any"},
    {"http.allow_without_token", "all", BAD},
    {"server.log_level", "error", "error"},
    {"server.log_level", "Warning", "warning"},
    {"server.log_level", "debug", "debug"},
    {"server.log_level", "warn", BAD},
    {"server.log_level", "3", BAD},
    {"server.log_format", "JSON", "json"},
    {"server.log_format", "xml", BAD},
    /* addresses */
    {"http.bind_addr", "0.0.0.0:15474", "0.0.0.0:15474"},
    {"http.bind_addr", "[::1]:80", "[::1]:80"},
    {"http.bind_addr", "localhost:65535", "localhost:65535"},
    {"http.bind_addr", ":15474", ":15474"},
    {"http.bind_addr", "*:15474", "*:15474"},
    {"http.bind_addr", "", BAD},
    {"http.bind_addr", "15474", BAD},
    {"http.bind_addr", "0.0.0.0", BAD},
    {"http.bind_addr", "0.0.0.0:", BAD},
    {"http.bind_addr", "0.0.0.0:0", BAD},
    {"http.bind_addr", "0.0.0.0:65536", BAD},
    {"http.bind_addr", "0.0.0.0:-1", BAD},
    {"http.bind_addr", "0.0.0.0:http", BAD},
    {"http.bind_addr", "0.0.0.0:15474 ", BAD},
    {"http.bind_addr", "0.0.0.0:99999999999", BAD},
    {"http.bind_addr", "256.0.0.1:1", BAD},
    {"http.bind_addr", "::1:15474", BAD},
    {"http.bind_addr", "[::1:15474", BAD},
    {"http.bind_addr", "[1.2.3.4]:15474", BAD},
    {"http.bind_addr", "http://localhost:15474", BAD},
    {"http.bind_addr", "a b:15474", BAD},
    {"replication.master_addr", "", ""},
    {"replication.master_addr", "db-1.example.com:15475", "db-1.example.com:15475"},
    {"replication.master_addr", "[fd00::1%eth0]:15475", "[fd00::1%eth0]:15475"},
    {"replication.master_addr", "0.0.0.0:15475", BAD},
    {"replication.master_addr", "[::]:15475", BAD},
    {"replication.master_addr", ":15475", BAD},
    {"replication.master_addr", "master", BAD},
    {"http.advertised_addr", "10.0.0.1:15474", "10.0.0.1:15474"},
    {"http.advertised_addr", ":8080", ":8080"},
    {"http.advertised_addr", "", ""},
    {"http.advertised_addr", "10.0.0.1", BAD},
    /* texts */
    {"server.data_dir", "/var/lib/nexus data", "/var/lib/nexus data"},
    {"server.data_dir", "a#b;c", "a#b;c"},
    {"server.data_dir", "", BAD},
    {"server.data_dir", "\"/var/lib/nexus\"", BAD},
    {"server.data_dir", "a # b", BAD}, /* the file would end it at # */
    {"server.data_dir", "a ; b", BAD},
    {"server.data_dir", "a\nrole = master", BAD},
    {"server.data_dir", "a\tb", BAD},
    {"server.log_file", "", ""},
    {"http.allowed_hosts", "a.example.com, b.example.com", "a.example.com, b.example.com"},
    {"http.allowed_hosts", "", ""},
    {"http.allowed_hosts", "a/b", BAD},
};

static const struct nx_option *option_named(const char *name)
{
    char known[NX_OPTION_NAME];

    for (size_t i = 0; i < NX_CONFIG_KEYS; i++) {
        nx_option_name(&nx_options[i], known);
        if (strcmp(known, name) == 0) {
            return &nx_options[i];
        }
    }
    ck_abort_msg("no key %s", name);
}

START_TEST(values_of_every_kind)
{
    const struct value_case *c = &value_cases[_i];
    const struct nx_option *option = option_named(c->name);
    char expected[NX_EXPECTED] = "";
    char text[NX_PATH_SIZE];
    struct nx_config before;
    int rc;

    nx_config_defaults(&config);
    before = config;
    rc = nx_option_parse(option, c->text, &config, expected);
    if (c->comes_out == BAD) {
        ck_assert_msg(rc == -EINVAL, "%s took \"%s\"", c->name, c->text);
        ck_assert_uint_gt(strlen(expected), 10);
        ck_assert_mem_eq(&config, &before, sizeof config);
        return;
    }
    ck_assert_msg(rc == 0, "%s refused \"%s\": expected %s", c->name, c->text, expected);
    ck_assert_int_eq(nx_config_text(&config, c->name, text, sizeof text), 0);
    ck_assert_str_eq(text, c->comes_out);
    /* What is printed reads back as the same. */
    before = config;
    ck_assert_int_eq(nx_option_parse(option, text, &config, expected), 0);
    ck_assert_mem_eq(&config, &before, sizeof config);
}
END_TEST

START_TEST(a_text_has_one_byte_less_than_its_member)
{
    char longest[NX_PATH_SIZE + 1];
    char expected[NX_EXPECTED];

    memset(longest, 'a', sizeof longest);
    longest[NX_PATH_SIZE] = '\0';
    ck_assert_int_eq(nx_option_parse(option_named("server.data_dir"), longest, &config, expected),
                     -EINVAL);
    ck_assert_ptr_nonnull(strstr(expected, "1 to 1023 bytes"));
    longest[NX_PATH_SIZE - 1] = '\0';
    ck_assert_int_eq(nx_option_parse(option_named("server.data_dir"), longest, &config, expected),
                     0);
    ck_assert_str_eq(config.server.data_dir, longest);
}
END_TEST

START_TEST(each_default_is_a_good_value)
{
    char expected[NX_EXPECTED];

    for (size_t i = 0; i < NX_CONFIG_KEYS; i++) {
        ck_assert_msg(nx_option_parse(&nx_options[i], nx_options[i].initial, &config, expected) ==
                          0,
                      "%s.%s", nx_options[i].section, nx_options[i].key);
    }
}
END_TEST

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

/* ---- sources ---- */

static void ck_assert_text(const char *name, const char *wanted)
{
    char text[NX_PATH_SIZE];

    ck_assert_int_eq(nx_config_text(&config, name, text, sizeof text), 0);
    ck_assert_str_eq(text, wanted);
}

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
    nx_option_variable(option_named("server.data_dir"), variable);
    ck_assert_str_eq(variable, "NEXUS_DATA_DIR");
    nx_option_variable(option_named("replication.heartbeat_ms"), variable);
    ck_assert_str_eq(variable, "NEXUS_REPLICATION_HEARTBEAT_MS");
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
        {{"--wal.fsink=off"}, "unknown option --wal.fsink=off; did you mean --wal.fsync?"},
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

/* ---- the file ---- */

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
    ck_assert_uint_eq(report.error_count, 2); /* the other one: not built yet */
    ck_assert_ptr_nonnull(strstr(report.errors[0], "mode = sync needs wal.fsync = always"));
}
END_TEST

START_TEST(what_is_not_built_is_refused_and_named)
{
    static const char *const keys[] = {
        "server.user",
        "http.auth_token_file",
        "http.read_token_file",
        "http.tls_cert_file",
        "http.tls_key_file",
        "replication.failover_command",
        "replication.token_file",
        "replication.tls_cert_file",
        "replication.tls_key_file",
        "replication.tls_ca_file",
        "replication.peers",
    };
    char argument[128];
    char error[256];

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        (void)snprintf(argument, sizeof argument, "--%s=x", keys[i]);
        (void)snprintf(error, sizeof error,
                       "--%s: %s = x is not built yet in this version; leave "
                       "it empty",
                       keys[i], keys[i]);
        ck_assert_int_eq(LOAD(argument), -EINVAL);
        ASSERT_ERROR_HAS(error);
        (void)snprintf(argument, sizeof argument, "--%s=", keys[i]);
        ck_assert_int_eq(LOAD(argument), 0);
    }
    write_conf("a.conf", "[replication]\nmode = Sync\n");
    ck_assert_int_eq(LOAD("-c", "a.conf"), -EINVAL);
    ASSERT_ERROR_HAS(
        "a.conf:2: replication.mode = sync is not built yet in this version; use async");
    ck_assert_int_eq(LOAD("--replication.auto_failover=off", "--snapshot.interval=0"), 0);
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

/* ---- helpers ---- */

START_TEST(nearest_names)
{
    static const struct {
        const char *section;
        const char *key;
        const char *nearest;
    } cases[] = {
        {"replication", "hearbeat_ms", "replication.heartbeat_ms"},
        {"replication", "heartbeat", "replication.heartbeat_ms"},
        {"replication", "masteraddr", "replication.master_addr"},
        {"http", "sync_quorum", "replication.sync_quorum"},
        {"http", "bind_adr", "http.bind_addr"},
        {"replication", "bind", "replication.bind_addr"},
        {"wal", "segmentsize", "wal.segment_size"},
        {"server", "loglevel", "server.log_level"},
        {"", "checkpoint_interval", "state.checkpoint_interval"},
        {"http", "max_size", "wal.max_size"},
    };
    char name[NX_OPTION_NAME];

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        nx_option_name(&nx_options[nx_option_nearest(cases[i].section, cases[i].key)], name);
        if (strcmp(cases[i].key, "max_size") == 0) { /* [wal] and [snapshot] are as near */
            ck_assert_ptr_nonnull(strstr(name, ".max_size"));
            continue;
        }
        ck_assert_str_eq(name, cases[i].nearest);
    }
    ck_assert_uint_eq(nx_edit_distance("", ""), 0);
    ck_assert_uint_eq(nx_edit_distance("abc", ""), 3);
    ck_assert_uint_eq(nx_edit_distance("kitten", "sitting"), 3);
    ck_assert_uint_eq(nx_edit_distance("ABC", "abc"), 0);
}
END_TEST

START_TEST(units_stop_at_the_end_of_64_bits)
{
    uint64_t value = 42;

    ck_assert_int_eq(nx_parse_count("18446744073709551615", &value), 0);
    ck_assert_uint_eq(value, UINT64_MAX);
    value = 42;
    ck_assert_int_eq(nx_parse_count("18446744073709551616", &value), -ERANGE);
    ck_assert_int_eq(nx_parse_size("16777216TiB", &value), -ERANGE);
    ck_assert_int_eq(nx_parse_ms("18446744073709552s", &value), -ERANGE);
    ck_assert_int_eq(nx_parse_seconds("1ms", &value), -EINVAL);
    ck_assert_int_eq(nx_parse_count("1kB", &value), -EINVAL);
    ck_assert_uint_eq(value, 42);
}
END_TEST

START_TEST(texts_by_name)
{
    char text[NX_PATH_SIZE];

    nx_config_defaults(&config);
    ck_assert_int_eq(nx_config_text(&config, "wal.nothing", text, sizeof text), -ENOENT);
    ck_assert_int_eq(nx_config_text(&config, "wal.fsync", text, 6), -ENOSPC);
    ck_assert_int_eq(nx_config_text(&config, "wal.fsync", text, 7), 0);
    ck_assert_str_eq(text, "always");
    ck_assert_str_eq(nx_role_name(NX_ROLE_REPLICA), "replica");
    ck_assert_str_eq(nx_mode_name(NX_MODE_SYNC), "sync");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *values = tcase_create("values");
    TCase *sources = tcase_create("sources");
    SRunner *runner;
    int failed;

    tcase_add_loop_test(values, values_of_every_kind, 0,
                        (int)(sizeof value_cases / sizeof value_cases[0]));
    tcase_add_test(values, a_text_has_one_byte_less_than_its_member);
    tcase_add_test(values, each_default_is_a_good_value);
    tcase_add_test(values, nearest_names);
    tcase_add_test(values, units_stop_at_the_end_of_64_bits);
    tcase_add_test(values, texts_by_name);
    suite_add_tcase(suite, values);
    tcase_add_checked_fixture(sources, setup, teardown);
    tcase_add_test(sources, the_defaults_of_the_guide);
    tcase_add_test(sources, command_line_before_environment_before_file_before_default);
    tcase_add_test(sources, where_each_value_comes_from);
    tcase_add_test(sources, every_key_has_a_variable_and_an_option);
    tcase_add_test(sources, an_unknown_variable_is_a_warning_with_the_nearest);
    tcase_add_test(sources, a_bad_variable_names_itself);
    tcase_add_test(sources, a_bad_argument_names_itself);
    tcase_add_test(sources, the_config_struct_is_untouched_on_failure);
    tcase_add_test(sources, all_errors_are_told_at_once);
    tcase_add_test(sources, actions_work_beside_a_broken_configuration);
    tcase_add_test(sources, a_file_as_people_write_it);
    tcase_add_test(sources, a_path_may_be_longer_than_a_line_of_inih);
    tcase_add_test(sources, a_bad_file_is_refused_by_line);
    tcase_add_test(sources, lines_of_any_length_do_no_harm);
    tcase_add_test(sources, a_file_that_is_none);
    tcase_add_test(sources, which_file_is_read);
    tcase_add_test(sources, the_file_in_the_data_directory_cannot_move_it);
    tcase_add_test(sources, what_cannot_work_together);
    tcase_add_test(sources, sync_mode_needs_a_log_that_is_synced);
    tcase_add_test(sources, what_is_not_built_is_refused_and_named);
    tcase_add_test(sources, a_reload_applies_what_it_may_and_says_what_waits);
    tcase_add_test(sources, a_reload_of_a_bad_file_applies_nothing);
    tcase_add_test(sources, a_reload_finds_a_file_that_came_later);
    suite_add_tcase(suite, sources);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
