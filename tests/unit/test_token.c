/* Token files and the comparison of tokens. */
#include "common/token.h"

#include <check.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[] = "/tmp/nexus-token-XXXXXX";
static char token[NX_TOKEN_SIZE];
static char error[256];

static int read_text(const char *text, size_t length)
{
    int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, length), (ssize_t)length);
    close(fd);
    return nx_token_read(path, "", token, error, sizeof error);
}

static void setup(void)
{
    memcpy(path + strlen(path) - 6, "XXXXXX", 6);
    int fd = mkstemp(path);

    ck_assert_int_ge(fd, 0);
    close(fd);
}

static void teardown(void)
{
    unlink(path);
}

START_TEST(one_line_is_read)
{
    static const char *const same[] = {"secret", "secret\n", "secret\r\n"};

    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        ck_assert_int_eq(read_text(same[i], strlen(same[i])), 0);
        ck_assert_str_eq(token, "secret");
    }
}
END_TEST

START_TEST(anything_else_is_refused)
{
    static const char *const bad[] = {"",      "\n",  "\r\n",  "a b",     "a\nb\n",
                                      "a\n\n", "\ta", "a\x7f", "\xc3\xa4"};
    char longest[NX_TOKEN_SIZE];

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ck_assert_int_eq(read_text(bad[i], strlen(bad[i])), -EINVAL);
        ck_assert_str_eq(token, "");
        ck_assert_ptr_nonnull(strstr(error, "one line"));
    }
    ck_assert_int_eq(read_text("a\0b", 3), -EINVAL);
    memset(longest, 'x', sizeof longest);
    ck_assert_int_eq(read_text(longest, NX_TOKEN_SIZE - 1), 0);
    ck_assert_int_eq(read_text(longest, NX_TOKEN_SIZE), -EINVAL);
}
END_TEST

START_TEST(a_file_that_others_can_read_is_refused)
{
    static const unsigned loose[] = {0604, 0602, 0620, 0660, 0644, 0666};

    for (size_t i = 0; i < sizeof loose / sizeof *loose; i++) {
        ck_assert_int_eq(chmod(path, loose[i]), 0);
        ck_assert_int_eq(nx_token_read(path, "", token, error, sizeof error), -EPERM);
        ck_assert_ptr_nonnull(strstr(error, "chmod 600"));
    }
    ck_assert_int_eq(nx_token_read("/", "", token, error, sizeof error), -EPERM);
    ck_assert_int_eq(nx_token_read("/nowhere/at/all", "", token, error, sizeof error), -ENOENT);
}
END_TEST

static bool matches(const char *text, size_t length)
{
    return nx_token_matches(token, nx_slice_of((const uint8_t *)text, length));
}

START_TEST(only_the_token_matches)
{
    char longer[2 * NX_TOKEN_SIZE] = "secret";

    ck_assert_int_eq(read_text("secret", 6), 0);
    ck_assert(matches("secret", 6));
    ck_assert(!matches("secret", 5));
    ck_assert(!matches("Secret", 6));
    ck_assert(!matches("secret", 7)); /* with its NUL */
    ck_assert(!matches(longer, sizeof longer));
    ck_assert(!matches("", 0));
    ck_assert(!nx_token_matches(token, nx_slice_of(NULL, 0)));
    memset(token, 0, sizeof token);
    ck_assert(!matches("", 0));
    ck_assert(!matches("\0", 1));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("token");
    TCase *tcase = tcase_create("token");
    SRunner *runner = srunner_create(suite);

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, one_line_is_read);
    tcase_add_test(tcase, anything_else_is_refused);
    tcase_add_test(tcase, a_file_that_others_can_read_is_refused);
    tcase_add_test(tcase, only_the_token_matches);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);

    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
