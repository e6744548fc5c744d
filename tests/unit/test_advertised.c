/* Addresses that nodes tell each other: what is sent, what is made of it, what is not believed. */
#include "common/advertised.h"

#include <check.h>

#include <errno.h>
#include <stdlib.h>

START_TEST(what_a_node_sends)
{
    static const struct {
        const char *configured;
        const char *bind;
        const char *sent;
    } rows[] = {
        {"", "0.0.0.0:15475", ":15475"},
        {"", "[::]:15475", ":15475"},
        {"", "*:15475", ":15475"},
        {"", "10.0.0.1:15475", "10.0.0.1:15475"},
        {"", "[fd00::1]:15475", "[fd00::1]:15475"},
        {"db1:9", "0.0.0.0:15475", "db1:9"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char sent[NX_ADDR_TEXT];

        nx_advertised_own(rows[i].configured, rows[i].bind, sent);
        ck_assert_str_eq(sent, rows[i].sent);
    }
}
END_TEST

START_TEST(what_the_other_one_makes_of_it)
{
    static const struct {
        const char *sent;
        const char *peer;
        const char *addr;
    } rows[] = {
        {":15475", "10.0.0.7:40000", "10.0.0.7:15475"},
        {"0.0.0.0:15475", "10.0.0.7:40000", "10.0.0.7:15475"},
        {"[::]:15475", "[fd00::7]:40000", "[fd00::7]:15475"},
        {"db1.example:1", "10.0.0.7:40000", "db1.example:1"},
        {"[fd00::1]:65535", "10.0.0.7:40000", "[fd00::1]:65535"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char addr[NX_ADDR_TEXT];

        ck_assert_int_eq(nx_advertised_resolve(nx_slice_text(rows[i].sent), rows[i].peer, addr), 0);
        ck_assert_str_eq(addr, rows[i].addr);
    }
}
END_TEST

START_TEST(what_is_not_believed)
{
    static const char *const rows[] = {
        "",      "host",   "host:",  "host:0", "host:65536", "host:1x",    "host:-1",
        "a b:1", "a\nb:1", "a\"b:1", "[::1:1", "[zz]:1",     "http://h:1", "a/b:1",
    };
    char addr[NX_ADDR_TEXT] = "untouched";
    char large[NX_ADDR_TEXT + 8];

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        ck_assert_msg(nx_advertised_resolve(nx_slice_text(rows[i]), "10.0.0.7:1", addr) == -EINVAL,
                      "%s", rows[i]);
    }
    memset(large, 'a', sizeof large);
    memcpy(large + sizeof large - 3, ":1", 3);
    ck_assert_int_eq(nx_advertised_resolve(nx_slice_text(large), "10.0.0.7:1", addr), -EINVAL);
    ck_assert_str_eq(addr, "untouched");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("advertised");
    TCase *tcase = tcase_create("advertised");
    SRunner *runner;
    int failed;

    tcase_add_test(tcase, what_a_node_sends);
    tcase_add_test(tcase, what_the_other_one_makes_of_it);
    tcase_add_test(tcase, what_is_not_believed);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
