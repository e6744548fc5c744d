/* Frames over a socket pair: whole frames come out however their bytes come in, violations are found
 * at the header, and neither side's buffer grows beyond what it should. */
#include "common/entry.h"
#include "common/frame_io.h"

#include <check.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define TYPICAL ((size_t)16 << 10)

static struct nx_frame_io io; /* a replica's end: reads what a master sends */
static int peer_fd;

static void setup_pair(void)
{
    int fds[2];

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    nx_frame_io_open(&io, fds[0], NX_WIRE_MASTER, TYPICAL, TYPICAL);
    io.phase = NX_WIRE_SESSION;
    peer_fd = fds[1];
}

static void teardown_pair(void)
{
    nx_frame_io_close(&io);
    close(peer_fd);
}

static size_t ping_bytes(uint64_t timestamp, uint8_t *buf, size_t cap)
{
    struct nx_msg_ping ping = {.timestamp = timestamp, .current_wal_offset = 7};
    size_t length;

    ck_assert_int_eq(nx_wire_encode_ping(&ping, buf, cap, &length), 0);
    return length;
}

static void peer_writes(const uint8_t *bytes, size_t n)
{
    ck_assert_int_eq(write(peer_fd, bytes, n), (ssize_t)n);
}

static uint64_t ping_timestamp(const struct nx_frame *frame)
{
    struct nx_msg_ping ping;

    ck_assert_uint_eq(frame->type, NX_MSG_PING);
    ck_assert_int_eq(nx_wire_decode_ping(frame->payload, frame->payload_length, &ping), 0);
    return ping.timestamp;
}

START_TEST(a_frame_comes_whole_when_its_bytes_come_one_by_one)
{
    uint8_t bytes[256];
    size_t length = ping_bytes(42, bytes, sizeof bytes);
    struct nx_frame frame;

    for (size_t i = 0; i < length; i++) {
        ck_assert_int_eq(nx_frame_io_next(&io, &frame), -EAGAIN);
        ck_assert_int_eq(nx_frame_io_receive(&io), -EAGAIN);
        peer_writes(bytes + i, 1);
        ck_assert_int_eq(nx_frame_io_receive(&io), 0);
        ck_assert_int_eq(nx_frame_io_partial(&io), true);
    }
    ck_assert_int_eq(nx_frame_io_next(&io, &frame), 0);
    ck_assert_uint_eq(ping_timestamp(&frame), 42);
    ck_assert_uint_eq(io.received, length);
    nx_frame_io_consume(&io);
    ck_assert_int_eq(nx_frame_io_partial(&io), false);
}
END_TEST

START_TEST(frames_that_come_together_come_out_one_by_one)
{
    uint8_t bytes[1024];
    size_t used = 0;
    struct nx_frame frame;

    for (uint64_t i = 1; i <= 10; i++) {
        used += ping_bytes(i, bytes + used, sizeof bytes - used);
    }
    peer_writes(bytes, used);
    ck_assert_int_eq(nx_frame_io_receive(&io), 0);
    for (uint64_t i = 1; i <= 10; i++) {
        ck_assert_int_eq(nx_frame_io_next(&io, &frame), 0);
        ck_assert_int_eq(nx_frame_io_next(&io, &frame), 0); /* it stays until it is consumed */
        ck_assert_uint_eq(ping_timestamp(&frame), i);
        ck_assert_int_eq(nx_frame_io_receive(&io), -ENOBUFS);
        nx_frame_io_consume(&io);
    }
    ck_assert_int_eq(nx_frame_io_next(&io, &frame), -EAGAIN);
}
END_TEST

START_TEST(a_long_run_of_frames_needs_no_more_than_the_typical_buffer)
{
    uint8_t bytes[256];
    size_t length = ping_bytes(1, bytes, sizeof bytes);
    struct nx_frame frame;
    size_t taken = 0;

    for (size_t sent = 0; sent < 4000; sent++) {
        peer_writes(bytes, length);
        if (sent % 100 != 99) {
            continue;
        }
        while (nx_frame_io_receive(&io) == 0) {
            while (nx_frame_io_next(&io, &frame) == 0) {
                taken++;
                nx_frame_io_consume(&io);
            }
        }
    }
    ck_assert_uint_eq(taken, 4000);
    ck_assert_uint_eq(io.in.cap, TYPICAL);
}
END_TEST

/* The largest entry: the buffer grows with its bytes and shrinks back behind it. */
START_TEST(a_large_frame_grows_the_buffer_only_as_its_bytes_come)
{
    size_t length = NX_ENTRY_MAX_FRAME;
    uint8_t *bytes = calloc(1, length);
    uint8_t ping[256];
    size_t ping_length = ping_bytes(3, ping, sizeof ping);
    struct nx_frame frame;
    size_t sent = 0;

    ck_assert_ptr_nonnull(bytes);
    (void)nx_frame_seal(bytes, NX_MSG_WAL_ENTRY, length - NX_FRAME_OVERHEAD);
    peer_writes(bytes, NX_FRAME_HEADER);
    ck_assert_int_eq(nx_frame_io_receive(&io), 0);
    ck_assert_int_eq(nx_frame_io_next(&io, &frame), -EAGAIN);
    ck_assert_uint_eq(io.in.cap, TYPICAL);
    sent = NX_FRAME_HEADER;
    while (nx_frame_io_next(&io, &frame) == -EAGAIN) {
        ssize_t n = sent < length ? write(peer_fd, bytes + sent, length - sent) : 0;

        sent += n > 0 ? (size_t)n : 0;
        while (nx_frame_io_receive(&io) == 0) {
            ck_assert_uint_le(io.in.cap, 2 * io.in.end > TYPICAL ? 2 * io.in.end : TYPICAL);
            (void)nx_frame_io_next(&io, &frame);
        }
    }
    ck_assert_uint_eq(frame.length, length);
    ck_assert_int_eq(memcmp(frame.bytes, bytes, length), 0);
    nx_frame_io_consume(&io);
    peer_writes(ping, ping_length);
    ck_assert_int_eq(nx_frame_io_receive(&io), 0);
    ck_assert_uint_eq(io.in.cap, TYPICAL);
    ck_assert_int_eq(nx_frame_io_next(&io, &frame), 0);
    ck_assert_uint_eq(ping_timestamp(&frame), 3);
    free(bytes);
}
END_TEST

START_TEST(an_absurd_length_is_refused_at_the_header_and_nothing_is_allocated)
{
    const uint8_t header[NX_FRAME_HEADER] = {NX_MSG_WAL_ENTRY, 0xFF, 0xFF, 0xFF, 0x7F};
    struct nx_frame frame;

    peer_writes(header, sizeof header);
    ck_assert_int_eq(nx_frame_io_receive(&io), 0);
    ck_assert_int_eq(nx_frame_io_next(&io, &frame), -EBADMSG);
    ck_assert_int_eq(frame.fault, NX_FRAME_TOO_LONG);
    ck_assert_uint_eq(io.in.cap, TYPICAL);
}
END_TEST

START_TEST(before_the_handshake_a_peer_costs_a_page)
{
    uint8_t bytes[256];
    struct nx_frame frame;

    io.phase = NX_WIRE_HANDSHAKE;
    peer_writes(bytes, ping_bytes(1, bytes, sizeof bytes));
    ck_assert_int_eq(nx_frame_io_receive(&io), 0);
    ck_assert_uint_le(io.in.cap, 4096);
    ck_assert_int_eq(nx_frame_io_next(&io, &frame), -EBADMSG);
    ck_assert_int_eq(frame.fault, NX_FRAME_WRONG_PHASE);
}
END_TEST

START_TEST(a_flipped_bit_is_found)
{
    uint8_t bytes[256];
    size_t length = ping_bytes(1, bytes, sizeof bytes);
    struct nx_frame frame;

    bytes[length - 6] ^= 0x10;
    peer_writes(bytes, length);
    ck_assert_int_eq(nx_frame_io_receive(&io), 0);
    ck_assert_int_eq(nx_frame_io_next(&io, &frame), -EBADMSG);
    ck_assert_int_eq(frame.fault, NX_FRAME_BAD_CRC);
}
END_TEST

START_TEST(a_cut_frame_then_end_of_file)
{
    uint8_t bytes[256];
    size_t length = ping_bytes(1, bytes, sizeof bytes);
    struct nx_frame frame;

    peer_writes(bytes, length - 1);
    ck_assert_int_eq(shutdown(peer_fd, SHUT_WR), 0);
    ck_assert_int_eq(nx_frame_io_receive(&io), 0);
    ck_assert_int_eq(nx_frame_io_next(&io, &frame), -EAGAIN);
    ck_assert_int_eq(nx_frame_io_receive(&io), -EPIPE);
    ck_assert_int_eq(nx_frame_io_partial(&io), true);
}
END_TEST

/* ---- out ---- */

static size_t peer_reads(uint8_t *buf, size_t cap)
{
    ssize_t n = read(peer_fd, buf, cap);

    return n > 0 ? (size_t)n : 0;
}

/* Fills the socket until a send would block. */
static uint8_t fill_socket(void)
{
    uint8_t *place;
    uint8_t fill = 0;
    int rc;

    do {
        rc = nx_frame_io_room(&io, TYPICAL, &place);
        ck_assert_int_eq(rc, 0);
        memset(place, fill++, TYPICAL);
        nx_frame_io_commit(&io, TYPICAL);
        rc = nx_frame_io_flush(&io);
    } while (rc == 0);
    ck_assert_int_eq(rc, -EAGAIN);
    return fill;
}

START_TEST(a_slow_peer_costs_one_buffer)
{
    struct nx_msg_pong pong = {.timestamp = 1};
    uint8_t *place;
    int rc;

    (void)fill_socket();
    ck_assert_int_eq(nx_frame_io_room(&io, TYPICAL, &place), -ENOBUFS);
    ck_assert_int_eq(nx_frame_io_room(&io, TYPICAL * 4, &place), -ENOBUFS);
    do {
        rc = nx_frame_io_put_pong(&io, &pong);
    } while (rc == 0);
    ck_assert_int_eq(rc, -ENOBUFS);
    ck_assert_uint_le(nx_frame_io_pending(&io), TYPICAL + NX_FRAME_IO_SLACK);
    ck_assert_uint_eq(io.out.cap, TYPICAL + NX_FRAME_IO_SLACK);
}
END_TEST

START_TEST(what_waited_arrives_in_order)
{
    uint8_t buf[4096];
    uint8_t fill = fill_socket();
    uint64_t got = 0;
    size_t n;

    while (nx_frame_io_pending(&io) > 0 || got < io.sent) {
        n = peer_reads(buf, sizeof buf);
        for (size_t i = 0; i < n; i++) {
            ck_assert_uint_eq(buf[i], (uint8_t)((got + i) / TYPICAL));
        }
        got += n;
        (void)nx_frame_io_flush(&io);
    }
    ck_assert_uint_eq(got, fill * TYPICAL);
}
END_TEST

START_TEST(an_error_finds_room_behind_a_full_buffer)
{
    struct nx_msg_error error = {.code = 6, .message = nx_slice_text("enough")};
    uint8_t *place;

    ck_assert_int_eq(nx_frame_io_room(&io, TYPICAL, &place), 0);
    nx_frame_io_commit(&io, TYPICAL);
    ck_assert_int_eq(nx_frame_io_put_error(&io, &error), 0);
}
END_TEST

START_TEST(a_large_frame_goes_out_and_its_buffer_is_given_back)
{
    uint8_t buf[8192];
    uint8_t *place;
    size_t got = 0;

    ck_assert_int_eq(nx_frame_io_room(&io, 100 * TYPICAL, &place), 0);
    memset(place, 0x5A, 100 * TYPICAL);
    nx_frame_io_commit(&io, 100 * TYPICAL);
    while (nx_frame_io_flush(&io) == -EAGAIN || got < 100 * TYPICAL) {
        got += peer_reads(buf, sizeof buf);
    }
    ck_assert_uint_eq(got, 100 * TYPICAL);
    ck_assert_uint_eq(io.out.cap, 0);
}
END_TEST

START_TEST(a_closed_peer_is_an_error_and_no_signal)
{
    struct nx_msg_pong pong = {.timestamp = 1};

    close(peer_fd);
    ck_assert_int_eq(nx_frame_io_put_pong(&io, &pong), 0);
    ck_assert_int_eq(nx_frame_io_flush(&io), -EPIPE);
    peer_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}
END_TEST

START_TEST(the_last_words_arrive_although_input_was_left_unread)
{
    struct nx_frame_io peer;
    struct nx_frame frame;
    struct nx_msg_error error;
    uint8_t bytes[256];

    peer_writes(bytes, ping_bytes(1, bytes, sizeof bytes));
    nx_frame_io_farewell(&io, 6, "because", 50);
    ck_assert_int_eq(io.fd, -1);
    nx_frame_io_open(&peer, fcntl(peer_fd, F_DUPFD_CLOEXEC, 0), NX_WIRE_MASTER, TYPICAL, TYPICAL);
    ck_assert_int_eq(nx_frame_io_receive(&peer), 0);
    ck_assert_int_eq(nx_frame_io_next(&peer, &frame), 0);
    ck_assert_int_eq(nx_wire_decode_error(frame.payload, frame.payload_length, &error), 0);
    ck_assert_uint_eq(error.code, 6);
    ck_assert(nx_slice_equal(error.message, nx_slice_text("because")));
    nx_frame_io_consume(&peer);
    ck_assert_int_eq(nx_frame_io_receive(&peer), -EPIPE);
    nx_frame_io_close(&peer);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("frame_io");
    TCase *in = tcase_create("in");
    TCase *out = tcase_create("out");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(in, setup_pair, teardown_pair);
    tcase_add_test(in, a_frame_comes_whole_when_its_bytes_come_one_by_one);
    tcase_add_test(in, frames_that_come_together_come_out_one_by_one);
    tcase_add_test(in, a_long_run_of_frames_needs_no_more_than_the_typical_buffer);
    tcase_add_test(in, a_large_frame_grows_the_buffer_only_as_its_bytes_come);
    tcase_add_test(in, an_absurd_length_is_refused_at_the_header_and_nothing_is_allocated);
    tcase_add_test(in, before_the_handshake_a_peer_costs_a_page);
    tcase_add_test(in, a_flipped_bit_is_found);
    tcase_add_test(in, a_cut_frame_then_end_of_file);
    tcase_add_checked_fixture(out, setup_pair, teardown_pair);
    tcase_add_test(out, a_slow_peer_costs_one_buffer);
    tcase_add_test(out, what_waited_arrives_in_order);
    tcase_add_test(out, an_error_finds_room_behind_a_full_buffer);
    tcase_add_test(out, a_large_frame_goes_out_and_its_buffer_is_given_back);
    tcase_add_test(out, a_closed_peer_is_an_error_and_no_signal);
    tcase_add_test(out, the_last_words_arrive_although_input_was_left_unread);
    suite_add_tcase(suite, in);
    suite_add_tcase(suite, out);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
