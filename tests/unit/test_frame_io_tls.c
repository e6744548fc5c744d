/* Frames over TLS, through a wire that passes a few bytes at a time: both ends do only what nx_frame_io_events and
 * nx_frame_io_buffered tell them to, so that a direction or a byte that is forgotten is a standstill. */
#include "common/frame_io.h"

#include <check.h>

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TYPICAL  ((size_t)4 << 10)
#define LARGE    (64 * TYPICAL) /* more than a socket takes */
#define STANDING 3              /* turns in which nothing happens: it stands still */

/* Two ends, and the wire's two ends between them. */
struct end {
    struct nx_frame_io io;
    int wire;
    uint64_t taken; /* Pings that came */
    bool was_buffered;
    int rc; /* what ended it, 0: nothing */
};

static struct end master; /* accepts */
static struct end replica;
static size_t piece; /* bytes that the wire passes at a time */
static bool cut;     /* the wire passes nothing more */
static char directory[64];

/* ---- certificates ---- */

static void path_of(const char *name, char *buf, size_t cap)
{
    (void)snprintf(buf, cap, "%s/%s", directory, name);
}

static FILE *create(const char *name)
{
    char path[128];
    int fd;

    path_of(name, path, sizeof path);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    return fdopen(fd, "w");
}

/* NAME.pem and NAME.key, signed by themselves: each is its own authority. good_s: how long from now on. */
static void make_pair(const char *name, const char *names, long good_s)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, names);
    X509_NAME *subject = X509_get_subject_name(certificate);
    char file_name[64];
    FILE *file;

    ck_assert_int_eq(ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1), 1);
    ck_assert_ptr_nonnull(X509_gmtime_adj(X509_getm_notBefore(certificate), -7200));
    ck_assert_ptr_nonnull(X509_gmtime_adj(X509_getm_notAfter(certificate), good_s));
    ck_assert_int_eq(X509_set_version(certificate, X509_VERSION_3), 1);
    ck_assert_int_eq(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC,
                                                (const unsigned char *)name, -1, -1, 0),
                     1);
    ck_assert_int_eq(X509_set_issuer_name(certificate, subject), 1);
    ck_assert_int_eq(X509_set_pubkey(certificate, key), 1);
    ck_assert_int_eq(X509_add_ext(certificate, extension, -1), 1);
    ck_assert_int_gt(X509_sign(certificate, key, EVP_sha256()), 0);
    (void)snprintf(file_name, sizeof file_name, "%s.pem", name);
    file = create(file_name);
    ck_assert_int_eq(PEM_write_X509(file, certificate), 1);
    (void)fclose(file);
    (void)snprintf(file_name, sizeof file_name, "%s.key", name);
    file = create(file_name);
    ck_assert_int_eq(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    (void)fclose(file);
    X509_EXTENSION_free(extension);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

/* The pair `own` and the authority `ca` are in force from here on. */
static void load(const char *own, const char *ca)
{
    static struct nx_config config;
    char error[512] = "";
    char name[64];

    (void)snprintf(name, sizeof name, "%s.pem", own);
    path_of(name, config.replication.tls_cert_file, sizeof config.replication.tls_cert_file);
    (void)snprintf(name, sizeof name, "%s.key", own);
    path_of(name, config.replication.tls_key_file, sizeof config.replication.tls_key_file);
    (void)snprintf(name, sizeof name, "%s.pem", ca);
    path_of(name, config.replication.tls_ca_file, sizeof config.replication.tls_ca_file);
    ck_assert_msg(nx_tls_load(&config, error, sizeof error) == 0, "%s", error);
}

static void make_files(void)
{
    (void)snprintf(directory, sizeof directory, "/tmp/nexus-frame-tls-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(directory));
    make_pair("ours", "DNS:master.example,IP:127.0.0.1", 3600);
    make_pair("strangers", "DNS:master.example,IP:127.0.0.1", 3600);
    make_pair("late", "DNS:master.example,IP:127.0.0.1", -3600);
}

static void remove_files(void)
{
    static const char *const names[] = {"ours.pem",      "ours.key", "strangers.pem",
                                        "strangers.key", "late.pem", "late.key"};
    struct nx_config none = {0};
    char error[16];
    char path[128];

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        path_of(names[i], path, sizeof path);
        (void)unlink(path);
    }
    (void)rmdir(directory);
    (void)nx_tls_load(&none, error, sizeof error);
}

/* ---- two ends and a wire ---- */

static void open_end(struct end *end, enum nx_wire_side peer)
{
    int fds[2];

    *end = (struct end){.rc = 0};
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    nx_frame_io_open(&end->io, fds[0], peer, TYPICAL, TYPICAL);
    end->io.phase = NX_WIRE_SESSION;
    end->wire = fds[1];
}

/* own, ca: of the end that opens now. */
static void secure(struct end *end, enum nx_tls_use use, const char *own, const char *ca)
{
    load(own, ca);
    ck_assert_int_eq(
        nx_frame_io_secure(&end->io, use, use == NX_TLS_DIAL ? "master.example" : NULL), 0);
}

static void setup_ends(void)
{
    open_end(&master, NX_WIRE_REPLICA);
    open_end(&replica, NX_WIRE_MASTER);
    piece = 1;
    cut = false;
}

static void setup_secured(void)
{
    setup_ends();
    secure(&master, NX_TLS_ACCEPT, "ours", "ours");
    secure(&replica, NX_TLS_DIAL, "ours", "ours");
}

static void teardown_ends(void)
{
    nx_frame_io_close(&master.io);
    nx_frame_io_close(&replica.io);
    close(master.wire);
    close(replica.wire);
}

/* Whether something moved. */
static bool pass(const struct end *from, const struct end *to)
{
    uint8_t bytes[TYPICAL];
    ssize_t n = cut ? 0 : read(from->wire, bytes, piece);

    if (n > 0) {
        ck_assert_int_eq(send(to->wire, bytes, (size_t)n, MSG_NOSIGNAL), n);
    }
    return n > 0;
}

static void take_pings(struct end *end)
{
    struct nx_frame frame;
    struct nx_msg_ping ping;

    while (nx_frame_io_next(&end->io, &frame) == 0) {
        ck_assert_uint_eq(frame.type, NX_MSG_PING);
        ck_assert_int_eq(nx_wire_decode_ping(frame.payload, frame.payload_length, &ping), 0);
        ck_assert_uint_eq(ping.timestamp, end->taken);
        end->taken++;
        nx_frame_io_consume(&end->io);
    }
}

/* What a process does when its poll has returned; nothing unless it would. True: it did something. */
static bool turn(struct end *end)
{
    struct pollfd fd = {.fd = end->io.fd, .events = nx_frame_io_events(&end->io, true)};
    bool buffered = nx_frame_io_buffered(&end->io);
    int rc;

    end->was_buffered = end->was_buffered || buffered;
    if (end->rc < 0 || (poll(&fd, 1, 0) == 0 && !buffered)) {
        return false;
    }
    rc = nx_frame_io_receive(&end->io);
    take_pings(end);
    end->rc = rc < 0 && rc != -EAGAIN ? rc : 0;
    rc = end->rc == 0 ? nx_frame_io_flush(&end->io) : 0;
    end->rc = rc < 0 && rc != -EAGAIN ? rc : end->rc;
    return true;
}

/* Until nothing moves any more. */
static void run(void)
{
    unsigned standing = 0;

    while (standing < STANDING) {
        bool moved = turn(&master);

        moved = pass(&master, &replica) || moved;
        moved = turn(&replica) || moved;
        moved = pass(&replica, &master) || moved;
        standing = moved ? 0 : standing + 1;
    }
}

static uint64_t put_pings(struct end *end, uint64_t first, uint64_t most)
{
    uint64_t n = 0;
    int rc = 0;

    while (n < most && rc == 0) {
        struct nx_msg_ping ping = {.timestamp = first + n, .current_wal_offset = 7};

        rc = nx_frame_io_put_ping(&end->io, &ping);
        n += rc == 0;
    }
    return n;
}

/* ---- tests ---- */

START_TEST(frames_come_whole_both_ways_however_small_the_pieces)
{
    static const size_t pieces[] = {1, 2, 7, 100, 4096};

    piece = pieces[_i];
    ck_assert_uint_eq(put_pings(&master, 0, 20), 20);
    ck_assert_uint_eq(put_pings(&replica, 0, 30), 30);
    (void)nx_frame_io_flush(&replica.io); /* who dials speaks first */
    run();
    ck_assert_int_eq(master.rc, 0);
    ck_assert_int_eq(replica.rc, 0);
    ck_assert_uint_eq(replica.taken, 20);
    ck_assert_uint_eq(master.taken, 30);
}
END_TEST

START_TEST(what_a_record_holds_beyond_the_buffer_is_not_forgotten)
{
    uint64_t n;

    piece = TYPICAL;
    (void)nx_frame_io_flush(&replica.io);
    ck_assert_uint_eq(put_pings(&replica, 0, 1), 1);
    run();
    n = put_pings(&master, 0, UINT64_MAX); /* all that fits: more than the other end's buffer */
    ck_assert_uint_gt(nx_frame_io_pending(&master.io), TYPICAL);
    ck_assert_int_eq(nx_frame_io_flush(&master.io), 0); /* as one record */
    run();
    ck_assert_uint_eq(replica.taken, n);
    ck_assert(replica.was_buffered);
}
END_TEST

/* Pings as one large write; -> how many. */
static uint64_t put_many_pings(struct end *end, uint64_t first)
{
    uint64_t n = 0;
    size_t used = 0;
    size_t length = 0;
    uint8_t *place;

    ck_assert_int_eq(nx_frame_io_room(&end->io, LARGE, &place), 0);
    do {
        struct nx_msg_ping ping = {.timestamp = first + n, .current_wal_offset = 7};

        ck_assert_int_eq(nx_wire_encode_ping(&ping, place + used, LARGE - used, &length), 0);
        used += length;
        n++;
    } while (LARGE - used >= length);
    nx_frame_io_commit(&end->io, used);
    return n;
}

START_TEST(a_peer_that_does_not_read_costs_one_buffer_and_loses_nothing)
{
    uint64_t n;
    uint64_t behind;
    size_t cap;

    piece = TYPICAL;
    ck_assert_uint_eq(put_pings(&replica, 0, 1), 1);
    (void)nx_frame_io_flush(&replica.io);
    run();
    n = put_many_pings(&master, 0);
    cap = master.io.out.cap;
    ck_assert_int_eq(nx_frame_io_flush(&master.io), -EAGAIN);
    ck_assert_uint_gt(master.io.out.start, 0);
    behind =
        put_pings(&master, n, UINT64_MAX); /* moves what waits: the write goes on from elsewhere */
    ck_assert_uint_gt(behind, 0);
    ck_assert_uint_eq(master.io.out.start, 0);
    ck_assert_uint_eq(master.io.out.cap, cap);
    ck_assert_int_eq(nx_frame_io_events(&master.io, true), POLLIN | POLLOUT);
    run();
    ck_assert_int_eq(master.rc, 0);
    ck_assert_int_eq(replica.rc, 0);
    ck_assert_uint_eq(replica.taken, n + behind);
    ck_assert_uint_eq(master.io.out.cap, 0);
}
END_TEST

START_TEST(before_the_handshake_a_peer_costs_a_page)
{
    static const uint8_t hello[] = {0x16, 0x03, 0x01, 0x02, 0x00, 0x01};

    ck_assert_int_eq(write(master.wire, hello, sizeof hello), sizeof hello);
    for (int i = 0; i < 5; i++) {
        (void)turn(&master);
    }
    ck_assert_int_eq(master.rc, 0);
    ck_assert_uint_le(master.io.in.cap, TYPICAL);
    ck_assert_uint_eq(master.io.received, 0);
}
END_TEST

START_TEST(an_end_within_a_frame_is_seen_with_and_without_a_last_word)
{
    uint8_t *place;

    piece = 64;
    (void)put_pings(&replica, 0, 1);
    (void)nx_frame_io_flush(&replica.io);
    run();
    ck_assert_int_eq(nx_frame_io_room(&master.io, 3, &place), 0);
    memset(place, NX_MSG_PING, 3);
    nx_frame_io_commit(&master.io, 3);
    ck_assert_int_eq(nx_frame_io_flush(&master.io), 0);
    if (_i == 0) {
        nx_frame_io_farewell(&master.io, 0, NULL, 0);
        master.rc = -EPIPE;
    }
    run();
    ck_assert_int_eq(shutdown(replica.wire, SHUT_WR), 0);
    run();
    ck_assert_int_eq(replica.rc, -EPIPE);
    ck_assert(nx_frame_io_partial(&replica.io));
}
END_TEST

START_TEST(the_last_words_arrive_although_input_was_left_unread)
{
    struct nx_frame frame;
    struct nx_msg_error error;

    piece = 64;
    (void)put_pings(&replica, 0, 1);
    (void)nx_frame_io_flush(&replica.io);
    run();
    (void)put_pings(&replica, 1, 5);
    (void)nx_frame_io_flush(&replica.io);
    while (pass(&replica, &master)) {
    }
    nx_frame_io_farewell(&master.io, 6, "because", 20);
    while (pass(&master, &replica)) {
    }
    ck_assert_int_eq(nx_frame_io_receive(&replica.io), 0);
    ck_assert_int_eq(nx_frame_io_next(&replica.io, &frame), 0);
    ck_assert_int_eq(nx_wire_decode_error(frame.payload, frame.payload_length, &error), 0);
    ck_assert_uint_eq(error.code, 6);
    ck_assert(nx_slice_equal(error.message, nx_slice_text("because")));
    nx_frame_io_consume(&replica.io);
    ck_assert_int_eq(nx_frame_io_receive(&replica.io), -EPIPE);
}
END_TEST

static void assert_ended_by(struct end *end, int rc, const char *beginning)
{
    char text[160];

    ck_assert_int_eq(end->rc, rc);
    ck_assert_str_eq(beginning, nx_frame_io_error(&end->io, end->rc, text, sizeof text));
    ck_assert_uint_eq(end->taken, 0);
}

static void assert_ended(struct end *end, const char *beginning)
{
    assert_ended_by(end, -EPROTO, beginning);
}

/* Reads until it ends: the reason of an end is there until the next call of OpenSSL's. */
static void run_until_ended(struct end *end)
{
    (void)put_pings(&replica, 0, 1);
    (void)nx_frame_io_flush(&replica.io);
    piece = TYPICAL;
    for (int i = 0; i < 100 && end->rc == 0; i++) {
        (void)(end == &master ? turn(&replica) : turn(&master));
        (void)pass(&master, &replica);
        (void)pass(&replica, &master);
        (void)turn(end);
    }
}

START_TEST(a_replica_of_strangers_is_refused)
{
    secure(&master, NX_TLS_ACCEPT, "ours", "ours");
    secure(&replica, NX_TLS_DIAL, "strangers", "ours");
    run_until_ended(&master);
    assert_ended(&master, "the other side's certificate is not accepted: self-signed certificate");
}
END_TEST

START_TEST(a_master_of_strangers_is_refused)
{
    secure(&master, NX_TLS_ACCEPT, "strangers", "ours");
    secure(&replica, NX_TLS_DIAL, "ours", "ours");
    run_until_ended(&replica);
    assert_ended(&replica, "the other side's certificate is not accepted: self-signed certificate");
}
END_TEST

/* The handshake goes on, since only its end proves whose the certificate is. */
START_TEST(a_master_out_of_its_time_gets_no_frame_and_is_told_why)
{
    struct nx_frame frame;

    secure(&master, NX_TLS_ACCEPT, "late", "ours");
    secure(&replica, NX_TLS_DIAL, "ours", "late");
    run_until_ended(&replica);
    ck_assert(nx_frame_io_shows_life(&replica.io, replica.rc));
    assert_ended_by(&replica, -EKEYEXPIRED,
                    "the other side's certificate is not accepted: certificate has expired");
    ck_assert_int_eq(nx_frame_io_receive(&replica.io), -EKEYEXPIRED);
    nx_frame_io_farewell(&replica.io, 3, "too late", 20);
    piece = TYPICAL;
    while (pass(&replica, &master)) {
    }
    ck_assert_int_eq(nx_frame_io_receive(&master.io), 0);
    ck_assert_int_eq(nx_frame_io_next(&master.io, &frame), 0);
    ck_assert_uint_eq(frame.type, NX_MSG_ERROR);
}
END_TEST

/* Nothing else is overlooked for it. */
START_TEST(a_stranger_out_of_its_time_is_refused)
{
    secure(&master, NX_TLS_ACCEPT, "late", "ours");
    secure(&replica, NX_TLS_DIAL, "ours", "ours");
    run_until_ended(&replica);
    ck_assert(!nx_frame_io_shows_life(&replica.io, replica.rc));
    assert_ended(&replica, "the other side's certificate is not accepted: self-signed certificate");
}
END_TEST

START_TEST(a_replica_out_of_its_time_is_refused)
{
    secure(&master, NX_TLS_ACCEPT, "ours", "late");
    secure(&replica, NX_TLS_DIAL, "late", "ours");
    run_until_ended(&master);
    assert_ended(&master, "the other side's certificate is not accepted: certificate has expired");
}
END_TEST

START_TEST(a_master_by_another_name_or_address_is_refused)
{
    static const char *const hosts[] = {"elsewhere.example", "127.0.0.2", "::1"};
    static const char *const faults[] = {"hostname mismatch", "IP address mismatch",
                                         "IP address mismatch"};
    char text[160];

    secure(&master, NX_TLS_ACCEPT, "ours", "ours");
    ck_assert_int_eq(nx_frame_io_secure(&replica.io, NX_TLS_DIAL, hosts[_i]), 0);
    run_until_ended(&replica);
    (void)snprintf(text, sizeof text, "the other side's certificate is not accepted: %s",
                   faults[_i]);
    assert_ended(&replica, text);
}
END_TEST

START_TEST(a_master_by_one_of_its_names_is_accepted)
{
    static const char *const hosts[] = {"master.example", "MASTER.example", "127.0.0.1"};

    secure(&master, NX_TLS_ACCEPT, "ours", "ours");
    ck_assert_int_eq(nx_frame_io_secure(&replica.io, NX_TLS_DIAL, hosts[_i]), 0);
    (void)put_pings(&replica, 0, 1);
    (void)nx_frame_io_flush(&replica.io);
    piece = TYPICAL;
    run();
    ck_assert_uint_eq(master.taken, 1);
}
END_TEST

START_TEST(a_peer_without_tls_is_told_from_others)
{
    secure(&master, NX_TLS_ACCEPT, "ours", "ours");
    run_until_ended(&master);
    assert_ended(&master, "the other side does not speak TLS, which is configured here "
                          "(replication.tls_cert_file)");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("frame_io_tls");
    TCase *secured = tcase_create("secured");
    TCase *refused = tcase_create("refused");
    SRunner *runner;
    int failed;

    tcase_add_unchecked_fixture(secured, make_files, remove_files);
    tcase_add_unchecked_fixture(refused, make_files, remove_files);
    tcase_add_checked_fixture(secured, setup_secured, teardown_ends);
    tcase_add_loop_test(secured, frames_come_whole_both_ways_however_small_the_pieces, 0, 5);
    tcase_add_test(secured, what_a_record_holds_beyond_the_buffer_is_not_forgotten);
    tcase_add_test(secured, a_peer_that_does_not_read_costs_one_buffer_and_loses_nothing);
    tcase_add_test(secured, before_the_handshake_a_peer_costs_a_page);
    tcase_add_loop_test(secured, an_end_within_a_frame_is_seen_with_and_without_a_last_word, 0, 2);
    tcase_add_test(secured, the_last_words_arrive_although_input_was_left_unread);
    tcase_add_checked_fixture(refused, setup_ends, teardown_ends);
    tcase_add_test(refused, a_replica_of_strangers_is_refused);
    tcase_add_test(refused, a_master_of_strangers_is_refused);
    tcase_add_test(refused, a_master_out_of_its_time_gets_no_frame_and_is_told_why);
    tcase_add_test(refused, a_stranger_out_of_its_time_is_refused);
    tcase_add_test(refused, a_replica_out_of_its_time_is_refused);
    tcase_add_loop_test(refused, a_master_by_another_name_or_address_is_refused, 0, 3);
    tcase_add_loop_test(refused, a_master_by_one_of_its_names_is_accepted, 0, 3);
    tcase_add_test(refused, a_peer_without_tls_is_told_from_others);
    suite_add_tcase(suite, secured);
    suite_add_tcase(suite, refused);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
