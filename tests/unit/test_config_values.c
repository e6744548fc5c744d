/* Values of every kind: what is taken, how it is printed, what is refused; names of keys. */
#include "common/config_table.h"
#include "common/edit_distance.h"

#include <check.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct nx_config config;

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
    Suite *suite = suite_create("config_values");
    TCase *tcase = tcase_create("config_values");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_loop_test(tcase, values_of_every_kind, 0,
                        (int)(sizeof value_cases / sizeof value_cases[0]));
    tcase_add_test(tcase, a_text_has_one_byte_less_than_its_member);
    tcase_add_test(tcase, each_default_is_a_good_value);
    tcase_add_test(tcase, nearest_names);
    tcase_add_test(tcase, texts_by_name);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
