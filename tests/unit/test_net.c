/* Addresses: what is one, which peers are private (both ends of each range), how they are written; and
 * listening, with the advice when it fails. */
#include "common/net.h"

#include <check.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- text ---- */

START_TEST(addresses_taken_apart)
{
    static const struct {
        const char *text;
        const char *host; /* NULL: refused */
        uint16_t port;
        bool bracketed;
        bool wildcard;
    } cases[] = {
        {"1.2.3.4:15474", "1.2.3.4", 15474, false, false},
        {"db-1.example.com:1", "db-1.example.com", 1, false, false},
        {"[::1]:65535", "::1", 65535, true, false},
        {"[fe80::1%eth0]:80", "fe80::1%eth0", 80, true, false},
        {"*:80", "", 80, false, true},
        {":80", "", 80, false, true},
        {"0.0.0.0:80", "0.0.0.0", 80, false, true},
        {"[::]:80", "::", 80, true, true},
        {"[0:0::0]:80", "0:0::0", 80, true, true},
        {"a:007", "a", 7, false, false},
        {"", NULL, 0, false, false},
        {":", NULL, 0, false, false},
        {"80", NULL, 0, false, false},
        {"a:", NULL, 0, false, false},
        {"a:0", NULL, 0, false, false},
        {"a:65536", NULL, 0, false, false},
        {"a:000080", NULL, 0, false, false},
        {"a:+80", NULL, 0, false, false},
        {"a: 80", NULL, 0, false, false},
        {"a:80 ", NULL, 0, false, false},
        {"a:80x", NULL, 0, false, false},
        {"10.1:80", NULL, 0, false, false},
        {"1.2.3.256:80", NULL, 0, false, false},
        {"1.2.3.4.5:80", NULL, 0, false, false},
        {"::1:80", NULL, 0, false, false},
        {"[::1:80", NULL, 0, false, false},
        {"::1]:80", NULL, 0, false, false},
        {"[]:80", NULL, 0, false, false},
        {"[::1]80", NULL, 0, false, false},
        {"[1.2.3.4]:80", NULL, 0, false, false},
        {"[fe80::1%]:80", NULL, 0, false, false},
        {"[localhost]:80", NULL, 0, false, false},
        {"a b:80", NULL, 0, false, false},
        {"a/b:80", NULL, 0, false, false},
        {"a@b:80", NULL, 0, false, false},
        {"http://a:80", NULL, 0, false, false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nx_net_addr addr = {.port = 42};
        int rc = nx_net_parse(cases[i].text, &addr);

        if (cases[i].host == NULL) {
            ck_assert_msg(rc == -EINVAL, "taken: \"%s\"", cases[i].text);
            ck_assert_uint_eq(addr.port, 42);
            continue;
        }
        ck_assert_msg(rc == 0, "refused: \"%s\"", cases[i].text);
        ck_assert_str_eq(addr.host, cases[i].host);
        ck_assert_uint_eq(addr.port, cases[i].port);
        ck_assert(addr.bracketed == cases[i].bracketed);
        ck_assert(nx_net_is_wildcard(&addr) == cases[i].wildcard);
    }
}
END_TEST

START_TEST(a_host_that_does_not_fit_is_refused)
{
    char text[NX_ADDR_SIZE + 8];
    struct nx_net_addr addr;

    memset(text, 'a', sizeof text);
    memcpy(text + NX_ADDR_SIZE, ":80", 4);
    ck_assert_int_eq(nx_net_parse(text, &addr), -EINVAL);
    ck_assert_int_eq(nx_net_parse(text + 1, &addr), 0);
    ck_assert_uint_eq(strlen(addr.host), NX_ADDR_SIZE - 1);
}
END_TEST

START_TEST(listeners_that_are_in_each_others_way)
{
    static const struct {
        const char *a;
        const char *b;
        bool overlap;
    } cases[] = {
        {"127.0.0.1:9", "127.0.0.1:9", true},
        {"127.0.0.1:9", "127.0.0.1:10", false},
        {"127.0.0.1:9", "127.0.0.2:9", false},
        {"127.0.0.1:9", ":9", true},
        {"[::]:9", "10.0.0.1:9", true},
        {"0.0.0.0:9", "[::]:9", true},
        {"Host:9", "hOST:9", true},
        {"0.0.0.0:9", "0.0.0.0:10", false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct nx_net_addr a;
        struct nx_net_addr b;

        ck_assert_int_eq(nx_net_parse(cases[i].a, &a), 0);
        ck_assert_int_eq(nx_net_parse(cases[i].b, &b), 0);
        ck_assert_msg(nx_net_overlap(&a, &b) == cases[i].overlap, "%s %s", cases[i].a, cases[i].b);
        ck_assert(nx_net_overlap(&b, &a) == cases[i].overlap);
    }
}
END_TEST

/* ---- peers ---- */

union any_addr {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
};

static union any_addr peer_of(const char *host)
{
    union any_addr addr;

    memset(&addr, 0, sizeof addr);
    if (inet_pton(AF_INET, host, &addr.in.sin_addr) == 1) {
        addr.in.sin_family = AF_INET;
        addr.in.sin_port = htons(5);
        return addr;
    }
    memset(&addr, 0, sizeof addr);
    ck_assert_int_eq(inet_pton(AF_INET6, host, &addr.in6.sin6_addr), 1);
    addr.in6.sin6_family = AF_INET6;
    addr.in6.sin6_port = htons(5);
    return addr;
}

enum nearness {
    PUBLIC,
    PRIVATE,
    LOOPBACK
};

static const struct {
    const char *host;
    enum nearness nearness;
} peers[] = {
    {"126.255.255.255", PUBLIC},
    {"127.0.0.0", LOOPBACK},
    {"127.255.255.255", LOOPBACK},
    {"128.0.0.0", PUBLIC},
    {"9.255.255.255", PUBLIC},
    {"10.0.0.0", PRIVATE},
    {"10.255.255.255", PRIVATE},
    {"11.0.0.0", PUBLIC},
    {"172.15.255.255", PUBLIC},
    {"172.16.0.0", PRIVATE},
    {"172.31.255.255", PRIVATE},
    {"172.32.0.0", PUBLIC},
    {"192.167.255.255", PUBLIC},
    {"192.168.0.0", PRIVATE},
    {"192.168.255.255", PRIVATE},
    {"192.169.0.0", PUBLIC},
    {"169.253.255.255", PUBLIC},
    {"169.254.0.0", PRIVATE},
    {"169.254.255.255", PRIVATE},
    {"169.255.0.0", PUBLIC},
    {"100.63.255.255", PUBLIC},
    {"100.64.0.0", PRIVATE},
    {"100.127.255.255", PRIVATE},
    {"100.128.0.0", PUBLIC},
    {"0.0.0.0", PUBLIC},
    {"1.0.0.127", PUBLIC}, /* the other byte order */
    {"255.255.255.255", PUBLIC},
    {"::1", LOOPBACK},
    {"::", PUBLIC},
    {"::2", PUBLIC},
    {"::127.0.0.1", PUBLIC}, /* compatible, not mapped */
    {"fbff:ffff::1", PUBLIC},
    {"fc00::", PRIVATE},
    {"fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", PRIVATE},
    {"fe00::1", PUBLIC},
    {"fe7f::1", PUBLIC},
    {"fe80::", PRIVATE},
    {"febf:ffff::1", PRIVATE},
    {"fec0::1", PUBLIC},
    {"2001:db8::1", PUBLIC},
    {"::ffff:127.0.0.1", LOOPBACK},
    {"::ffff:10.1.2.3", PRIVATE},
    {"::ffff:100.64.0.1", PRIVATE},
    {"::ffff:8.8.8.8", PUBLIC},
    {"64:ff9b::10.0.0.1", PUBLIC}, /* translated: the address is another network's */
};

START_TEST(who_is_served_without_a_token)
{
    const union any_addr addr = peer_of(peers[_i].host);
    const enum nearness nearness = peers[_i].nearness;

    ck_assert_msg(nx_net_is_loopback(&addr.any) == (nearness == LOOPBACK), "%s", peers[_i].host);
    ck_assert_msg(nx_net_is_private(&addr.any) == (nearness != PUBLIC), "%s", peers[_i].host);
    ck_assert(nx_net_is_allowed(&addr.any, NX_ALLOW_ANY));
    ck_assert(nx_net_is_allowed(&addr.any, NX_ALLOW_PRIVATE) == (nearness != PUBLIC));
    ck_assert(nx_net_is_allowed(&addr.any, NX_ALLOW_LOOPBACK) == (nearness == LOOPBACK));
    ck_assert(!nx_net_is_allowed(&addr.any, NX_ALLOW_NONE));
}
END_TEST

START_TEST(addresses_as_text)
{
    static const struct {
        const char *host;
        const char *text;
    } cases[] = {
        {"1.2.3.4", "1.2.3.4:5"},
        {"255.0.255.0", "255.0.255.0:5"},
        {"::ffff:1.2.3.4", "1.2.3.4:5"},
        {"::1", "[::1]:5"},
        {"2001:db8:1:2:3:4:5:6", "[2001:db8:1:2:3:4:5:6]:5"},
    };
    const union any_addr local = {.un = {.sun_family = AF_UNIX}};
    const union any_addr none = {.any = {.sa_family = AF_UNSPEC}};
    char text[NX_ADDR_SIZE];

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const union any_addr addr = peer_of(cases[i].host);

        nx_net_format(&addr.any, text);
        ck_assert_str_eq(text, cases[i].text);
    }
    nx_net_format(&local.any, text);
    ck_assert_str_eq(text, "unix");
    ck_assert(nx_net_is_loopback(&local.any));
    nx_net_format(&none.any, text);
    ck_assert_str_eq(text, "unknown");
    ck_assert(!nx_net_is_private(&none.any));
    nx_net_peer(-1, text);
    ck_assert_str_eq(text, "unknown");
}
END_TEST

/* ---- sockets ---- */

/* A port that something listens on: *ret_fd. */
static uint16_t taken_port(int *ret_fd)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof addr;

    *ret_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(*ret_fd, 0);
    ck_assert_int_eq(bind(*ret_fd, (const struct sockaddr *)&addr, sizeof addr), 0);
    ck_assert_int_eq(listen(*ret_fd, 1), 0);
    ck_assert_int_eq(getsockname(*ret_fd, (struct sockaddr *)&addr, &length), 0);
    return ntohs(addr.sin_port);
}

START_TEST(a_port_in_use_is_said_and_a_free_one_is_listened_on)
{
    char text[NX_ADDR_SIZE];
    char error[256] = "";
    int fd = -1;
    int other;
    uint16_t port = taken_port(&other);
    struct sockaddr_in addr = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        .sin_port = htons(port),
    };

    (void)snprintf(text, sizeof text, "127.0.0.1:%u", port);
    ck_assert_int_eq(nx_net_listen(text, 5, &fd, error, sizeof error), -EADDRINUSE);
    ck_assert_int_eq(fd, -1);
    ck_assert_ptr_nonnull(strstr(error, text));
    ck_assert_ptr_nonnull(strstr(error, "choose another port"));
    close(other);
    /* "*" takes IPv4 peers whether or not there is IPv6. */
    (void)snprintf(text, sizeof text, "*:%u", port);
    ck_assert_msg(nx_net_listen(text, 5, &fd, error, sizeof error) == 0, "%s", error);
    ck_assert(fcntl(fd, F_GETFL) & O_NONBLOCK);
    ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    other = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(other, (const struct sockaddr *)&addr, sizeof addr), 0);
    nx_net_peer(other, text);
    (void)snprintf(error, sizeof error, "127.0.0.1:%u", port);
    ck_assert_str_eq(text, error);
    close(other);
    close(fd);
}
END_TEST

START_TEST(what_can_not_be_listened_on)
{
    char error[256];
    int fd = -1;

    ck_assert_int_eq(nx_net_listen("15474", 5, &fd, error, sizeof error), -EINVAL);
    ck_assert_ptr_nonnull(strstr(error, "expected host:port"));
    ck_assert_int_eq(nx_net_listen("192.0.2.1:15474", 5, &fd, error, sizeof error), -EADDRNOTAVAIL);
    ck_assert_ptr_nonnull(strstr(error, "no network interface"));
    ck_assert_int_eq(fd, -1);
}
END_TEST

static int tcp_option(int fd, int option)
{
    int value = -1;
    socklen_t length = sizeof value;

    ck_assert_int_eq(getsockopt(fd, IPPROTO_TCP, option, &value, &length), 0);
    return value;
}

START_TEST(a_dead_peer_is_noticed_in_time)
{
    static const unsigned silences[] = {1, 1000, 2500, 15000, 3600000};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_int_ge(fd, 0);
    for (size_t i = 0; i < sizeof silences / sizeof silences[0]; i++) {
        int seconds = (int)(silences[i] / 1000);
        int noticed;

        ck_assert_int_eq(nx_net_detect_dead(fd, silences[i]), 0);
        noticed = tcp_option(fd, TCP_KEEPIDLE) +
                  tcp_option(fd, TCP_KEEPINTVL) * tcp_option(fd, TCP_KEEPCNT);
        ck_assert_int_le(noticed, seconds < 4 ? 4 : seconds); /* whole seconds are the finest */
        ck_assert_int_ge(noticed, seconds / 2);
        ck_assert_int_eq(tcp_option(fd, TCP_USER_TIMEOUT), (int)silences[i]);
    }
    ck_assert_int_eq(nx_net_nodelay(fd), 0);
    ck_assert_int_ne(tcp_option(fd, TCP_NODELAY), 0);
    close(fd);
    ck_assert_int_eq(nx_net_nodelay(fd), -EBADF);
    ck_assert_int_eq(nx_net_detect_dead(fd, 1000), -EBADF);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("net");
    TCase *tcase = tcase_create("net");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(tcase, addresses_taken_apart);
    tcase_add_test(tcase, a_host_that_does_not_fit_is_refused);
    tcase_add_test(tcase, listeners_that_are_in_each_others_way);
    tcase_add_loop_test(tcase, who_is_served_without_a_token, 0,
                        (int)(sizeof peers / sizeof peers[0]));
    tcase_add_test(tcase, addresses_as_text);
    tcase_add_test(tcase, a_port_in_use_is_said_and_a_free_one_is_listened_on);
    tcase_add_test(tcase, what_can_not_be_listened_on);
    tcase_add_test(tcase, a_dead_peer_is_noticed_in_time);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
