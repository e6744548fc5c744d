/* The log: levels, the form of a line, bytes that a peer chose, cut messages, rotation and the limit on
 * repeated lines. */
#include "common/log.h"

#include <check.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LONGEST ((size_t)8 * NX_LOG_MESSAGE_SIZE)

static char dir[] = "/tmp/nexus-test-log-XXXXXX";
static struct nx_config config;
static char text[LONGEST];

/* A log file of the test's own, text form, level info. */
static void setup(void)
{
    memcpy(dir + sizeof dir - 7, "XXXXXX", 6);
    ck_assert_ptr_nonnull(mkdtemp(dir));
    nx_config_defaults(&config);
    (void)snprintf(config.server.log_file, sizeof config.server.log_file, "%s/log", dir);
    ck_assert_int_eq(nx_log_configure(&config), 0);
    nx_log_set_process("test");
}

static void teardown(void)
{
    char path[64];

    (void)snprintf(path, sizeof path, "%s/old", dir);
    (void)remove(path);
    (void)remove(config.server.log_file);
    ck_assert_int_eq(rmdir(dir), 0);
}

/* What the file holds, and empties it. */
static const char *logged(void)
{
    FILE *file = fopen(config.server.log_file, "re");
    size_t length;

    ck_assert_ptr_nonnull(file);
    length = fread(text, 1, sizeof text - 1, file);
    ck_assert_int_eq(fclose(file), 0);
    text[length] = '\0';
    ck_assert_int_eq(truncate(config.server.log_file, 0), 0);
    return text;
}

/* The message of the only line, without its newline. */
static const char *message_of(const char *line)
{
    const char *at = strstr(line, "]: ");
    char *end = strchr(text, '\n');

    ck_assert_ptr_nonnull(at);
    ck_assert_ptr_nonnull(end);
    ck_assert_str_eq(end, "\n");
    *end = '\0';
    return at + 3;
}

static void use(enum nx_log_level level, enum nx_log_format format)
{
    config.server.log_level = level;
    config.server.log_format = format;
    ck_assert_int_eq(nx_log_configure(&config), 0);
}

START_TEST(a_level_writes_itself_and_those_before)
{
    static const char *const words[] = {" ERROR ", " WARN  ", " INFO  ", " DEBUG "};

    for (enum nx_log_level level = NX_LOG_ERROR; level <= NX_LOG_DEBUG; level++) {
        use(level, NX_LOG_TEXT);
        for (enum nx_log_level of = NX_LOG_ERROR; of <= NX_LOG_DEBUG; of++) {
            bool wanted = of <= level;

            ck_assert(nx_log_wants(of) == wanted);
            nx_log(of, "message");
            ck_assert((strstr(logged(), words[of]) != NULL) == wanted);
        }
    }
}
END_TEST

/* Fails unless the text begins with a time; returns what follows it. */
static const char *behind_time(const char *line)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ";

    for (size_t i = 0; i < sizeof form - 1; i++) {
        bool same = form[i] == 'd' ? line[i] >= '0' && line[i] <= '9' : line[i] == form[i];

        ck_assert_msg(same, "no time: %s", line);
    }
    return line + sizeof form - 1;
}

START_TEST(the_form_of_a_line)
{
    static const char began[] = "{\"time\":\"";
    char around[128];

    errno = EAGAIN;
    nx_warn("%d %s", 7, "dwarfs");
    ck_assert_int_eq(errno, EAGAIN);
    (void)snprintf(around, sizeof around, " WARN  test[%d]: 7 dwarfs\n", (int)getpid());
    ck_assert_str_eq(behind_time(logged()), around);
    use(NX_LOG_INFO, NX_LOG_JSON);
    nx_error("oh");
    (void)logged();
    ck_assert_int_eq(strncmp(text, began, sizeof began - 1), 0);
    (void)snprintf(around, sizeof around,
                   "\",\"level\":\"error\",\"process\":\"test\",\"pid\":%d,\"message\":\"oh\"}\n",
                   (int)getpid());
    ck_assert_str_eq(behind_time(text + sizeof began - 1), around);
}
END_TEST

static const struct {
    const char *given;
    const char *plain;
    const char *json;
} bytes[] = {
    {"a b~", "a b~", "a b~"},
    {"a\nb\r\n", "a\\x0Ab\\x0D\\x0A", "a\\\\x0Ab\\\\x0D\\\\x0A"},
    {"\x1B[31m", "\\x1B[31m", "\\\\x1B[31m"},
    {"\x01\x1F\x7F\t", "\\x01\\x1F\\x7F\\x09", "\\\\x01\\\\x1F\\\\x7F\\\\x09"},
    {"\"\\/", "\"\\/", "\\\"\\\\/"},
    {"\",\"level\":\"error", "\",\"level\":\"error", "\\\",\\\"level\\\":\\\"error"},
    {"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x90\xB3", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x90\xB3",
     "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x90\xB3"},
    {"\xC2\x85", "\\xC2\\x85", "\\\\xC2\\\\x85"},                 /* a control character */
    {"\xC0\x8A", "\\xC0\\x8A", "\\\\xC0\\\\x8A"},                 /* overlong newline */
    {"\xE0\x80\x8A", "\\xE0\\x80\\x8A", "\\\\xE0\\\\x80\\\\x8A"}, /* overlong too */
    {"\xED\xA0\x80", "\\xED\\xA0\\x80", "\\\\xED\\\\xA0\\\\x80"}, /* surrogate */
    {"\xF4\x90\x80\x80", "\\xF4\\x90\\x80\\x80", "\\\\xF4\\\\x90\\\\x80\\\\x80"}, /* above */
    {"\xE2\x82", "\\xE2\\x82", "\\\\xE2\\\\x82"}, /* cut short by the end */
    {"\xFF\x80", "\\xFF\\x80", "\\\\xFF\\\\x80"},
};

START_TEST(bytes_that_a_peer_chose)
{
    char end[128];

    nx_info("%s", bytes[_i].given);
    ck_assert_str_eq(message_of(logged()), bytes[_i].plain);
    use(NX_LOG_INFO, NX_LOG_JSON);
    nx_info("%s", bytes[_i].given);
    (void)snprintf(end, sizeof end, ",\"message\":\"%s\"}\n", bytes[_i].json);
    ck_assert_ptr_nonnull(strstr(logged(), end));
}
END_TEST

START_TEST(a_long_message_is_cut_and_says_so)
{
    static char longest[NX_LOG_MESSAGE_SIZE + 1];
    const char *message;

    memset(longest, 'x', sizeof longest - 2);
    nx_info("%s", longest);
    ck_assert_str_eq(message_of(logged()), longest);
    longest[sizeof longest - 2] = 'y';
    nx_info("%s", longest);
    message = message_of(logged());
    ck_assert_uint_eq(strlen(message), NX_LOG_MESSAGE_SIZE - 1);
    ck_assert_str_eq(message + NX_LOG_MESSAGE_SIZE - 5, "x...");
    /* the most that a message can grow to */
    memset(longest, '\x01', sizeof longest - 1);
    use(NX_LOG_INFO, NX_LOG_JSON);
    nx_info("%s", longest);
    (void)logged();
    ck_assert_uint_gt(strlen(text), (size_t)5 * (NX_LOG_MESSAGE_SIZE - 4));
    ck_assert_str_eq(text + strlen(text) - 11, "\\\\x01...\"}\n");
}
END_TEST

START_TEST(every_process_follows_a_rotation)
{
    char old[64];
    pid_t child;
    int status;

    nx_info("before");
    (void)snprintf(old, sizeof old, "%s/old", dir);
    ck_assert_int_eq(rename(config.server.log_file, old), 0);
    nx_info("still there");
    ck_assert_int_ne(access(config.server.log_file, F_OK), 0);
    nx_log_reopen();
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        nx_info("of the child");
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    nx_info("of the parent");
    (void)logged();
    ck_assert_ptr_null(strstr(text, "still there"));
    ck_assert_ptr_nonnull(strstr(text, "of the child"));
    ck_assert_ptr_nonnull(strstr(text, "of the parent"));
}
END_TEST

START_TEST(a_file_that_cannot_be_opened_leaves_the_log_as_it_was)
{
    struct nx_config bad = config;

    (void)snprintf(bad.server.log_file, sizeof bad.server.log_file, "%s/no/log", dir);
    bad.server.log_level = NX_LOG_DEBUG;
    ck_assert_int_eq(nx_log_configure(&bad), -ENOENT);
    ck_assert(!nx_log_wants(NX_LOG_DEBUG));
    nx_info("still here");
    ck_assert_str_eq(message_of(logged()), "still here");
}
END_TEST

START_TEST(a_limit_counts_what_it_leaves_out)
{
    struct nx_log_limit limit = {.written = 0};
    unsigned lines = 0;

    for (unsigned i = 0; i < NX_LOG_BURST + 7; i++) {
        nx_log_limited(&limit, NX_LOG_DEBUG, "not wanted, not counted");
        nx_log_limited(&limit, NX_LOG_INFO, "again");
    }
    (void)logged();
    for (const char *p = text; (p = strstr(p, "again\n")) != NULL; p++) {
        lines++;
    }
    ck_assert_uint_eq(lines, NX_LOG_BURST);
    ck_assert_uint_eq(limit.left_out, 7);
    limit.period_began_ms -= NX_LOG_PERIOD_MS;
    nx_log_limited(&limit, NX_LOG_INFO, "again");
    ck_assert_str_eq(message_of(logged()), "again (7 more like this were left out)");
    nx_log_limited(&limit, NX_LOG_INFO, "again");
    ck_assert_str_eq(message_of(logged()), "again");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("log");
    TCase *tcase = tcase_create("log");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, a_level_writes_itself_and_those_before);
    tcase_add_test(tcase, the_form_of_a_line);
    tcase_add_loop_test(tcase, bytes_that_a_peer_chose, 0, (int)(sizeof bytes / sizeof bytes[0]));
    tcase_add_test(tcase, a_long_message_is_cut_and_says_so);
    tcase_add_test(tcase, every_process_follows_a_rotation);
    tcase_add_test(tcase, a_file_that_cannot_be_opened_leaves_the_log_as_it_was);
    tcase_add_test(tcase, a_limit_counts_what_it_leaves_out);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
