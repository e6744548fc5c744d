/* Runs in walsenders and in the walreceiver. Owns one socket and two buffers; see frame_io.h. What
 * comes in is from the network: nothing is allocated for a length before its bytes are there, and
 * nothing is given to the caller before nx_frame_peek has checked it. */
#include "common/frame_io.h"

#include "common/latch.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FIRST_CAP 4096 /* a peer that never says Hello costs no more */

static size_t filled(const struct nx_io_buffer *buffer)
{
    return buffer->end - buffer->start;
}

static void release(struct nx_io_buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (struct nx_io_buffer){.bytes = NULL};
}

/* Moves what is there to the front. */
static void compact(struct nx_io_buffer *buffer)
{
    if (buffer->start > 0 && filled(buffer) > 0) {
        memmove(buffer->bytes, buffer->bytes + buffer->start, filled(buffer));
    }
    buffer->end = filled(buffer);
    buffer->start = 0;
}

/* Gives the buffer exactly `cap` bytes, at least what is in it. 0 or -ENOMEM. */
static int resize(struct nx_io_buffer *buffer, size_t cap)
{
    uint8_t *bytes;

    compact(buffer);
    assert(cap >= buffer->end);
    bytes = realloc(buffer->bytes, cap);
    if (bytes == NULL) {
        return -ENOMEM;
    }
    buffer->bytes = bytes;
    buffer->cap = cap;
    return 0;
}

void nx_frame_io_open(struct nx_frame_io *io,
                      int fd,
                      enum nx_wire_side peer,
                      size_t in_typical,
                      size_t out_typical)
{
    assert(in_typical >= FIRST_CAP && out_typical >= FIRST_CAP);
    *io = (struct nx_frame_io){
        .fd = fd,
        .peer = peer,
        .phase = NX_WIRE_HANDSHAKE,
        .in_typical = in_typical,
        .out_typical = out_typical,
        .in_wanted = NX_FRAME_HEADER,
    };
}

int nx_frame_io_secure(struct nx_frame_io *io, enum nx_tls_use use, const char *host)
{
    io->tls = nx_tls_begin(use, io->fd, host);
    io->use = use;
    io->in_waits = POLLIN;
    io->out_waits = POLLOUT;
    return io->tls == NULL ? -ENOMEM : 0;
}

void nx_frame_io_close(struct nx_frame_io *io)
{
    SSL_free(io->tls);
    io->tls = NULL;
    if (io->fd >= 0) {
        close(io->fd);
        io->fd = -1;
    }
    release(&io->in);
    release(&io->out);
    io->has_frame = false;
}

/* ---- the socket ---- */

/* Why a call of OpenSSL's gave nothing; *ret_waits: what for. */
static int tls_failure(const struct nx_frame_io *io, int n, short *ret_waits)
{
    int error = errno;

    switch (SSL_get_error(io->tls, n)) {
    case SSL_ERROR_WANT_READ:
        *ret_waits = POLLIN;
        return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
        *ret_waits = POLLOUT;
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return -EPIPE;
    case SSL_ERROR_SYSCALL:
        return error == 0 || ERR_peek_error() != 0 ? -EPROTO : -error;
    default:
        return -EPROTO;
    }
}

/* By itself, not by the first bytes that go: a secret may be among those. 0 or -errno; -EKEYEXPIRED each time. */
static int shake_hands(struct nx_frame_io *io, short *ret_waits)
{
    int n;

    if (!io->shaken) {
        ERR_clear_error();
        errno = 0;
        n = SSL_do_handshake(io->tls);
        if (n != 1) {
            return tls_failure(io, n, ret_waits);
        }
        io->shaken = true;
        io->out_of_time = nx_tls_out_of_time(io->tls);
        if (io->out_of_time) {
            release(&io->out);
        }
    }
    return io->out_of_time ? -EKEYEXPIRED : 0;
}

static ssize_t tls_receive(struct nx_frame_io *io, uint8_t *bytes, size_t cap)
{
    int n = shake_hands(io, &io->in_waits);

    if (n < 0) {
        return n;
    }
    ERR_clear_error();
    errno = 0;
    n = SSL_read(io->tls, bytes, cap < INT_MAX ? (int)cap : INT_MAX);
    io->in_waits = POLLIN;
    return n > 0 ? n : tls_failure(io, n, &io->in_waits);
}

static ssize_t tls_send(struct nx_frame_io *io, const uint8_t *bytes, size_t length)
{
    int n =
        io->shaken ? 0 : shake_hands(io, &io->out_waits); /* behind -EKEYEXPIRED a farewell goes */

    if (n < 0) {
        return n;
    }
    ERR_clear_error();
    errno = 0;
    n = SSL_write(io->tls, bytes, length < INT_MAX ? (int)length : INT_MAX);
    io->out_waits = POLLOUT;
    return n > 0 ? n : tls_failure(io, n, &io->out_waits);
}

/* Bytes, or -errno; -EPIPE: the peer has closed its side. */
static ssize_t socket_receive(struct nx_frame_io *io, uint8_t *bytes, size_t cap)
{
    ssize_t n;

    if (io->tls != NULL) {
        return tls_receive(io, bytes, cap);
    }
    do {
        n = recv(io->fd, bytes, cap, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    }
    return n == 0 ? -EPIPE : n;
}

static ssize_t socket_send(struct nx_frame_io *io, const uint8_t *bytes, size_t length)
{
    ssize_t n;

    if (io->tls != NULL) {
        return tls_send(io, bytes, length);
    }
    do {
        n = send(io->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == EWOULDBLOCK ? -EAGAIN : -errno;
    }
    return n;
}

short nx_frame_io_events(const struct nx_frame_io *io, bool reading)
{
    bool writing = nx_frame_io_pending(io) > 0;

    if (io->tls == NULL) {
        return (short)((reading ? POLLIN : 0) | (writing ? POLLOUT : 0));
    }
    return (short)((reading ? io->in_waits : 0) | (writing ? io->out_waits : 0));
}

bool nx_frame_io_buffered(const struct nx_frame_io *io)
{
    return io->tls != NULL && !io->has_frame && SSL_pending(io->tls) > 0;
}

bool nx_frame_io_shows_life(const struct nx_frame_io *io, int rc)
{
    return rc == -EKEYEXPIRED ||
           (rc == -EPROTO && io->shaken && nx_tls_is_refusal(ERR_peek_error()));
}

const char *nx_frame_io_error(const struct nx_frame_io *io, int rc, char *buf, size_t cap)
{
    return (rc == -EPROTO || rc == -EKEYEXPIRED) && io->tls != NULL
               ? nx_tls_reason(io->use, io->tls, ERR_peek_error(), buf, cap)
               : strerrordesc_np(-rc);
}

/* ---- in ---- */

/* Room for the next recv: what was taken is overwritten, and a frame that doesn't fit gets more as it
 * fills what there is. */
static int make_room(struct nx_frame_io *io)
{
    struct nx_io_buffer *in = &io->in;
    size_t typical = io->phase == NX_WIRE_SESSION ? io->in_typical : FIRST_CAP;
    bool oversized = in->cap > io->in_typical && io->in_wanted <= typical && filled(in) <= typical;

    if (in->cap < typical || oversized) {
        return resize(in, typical);
    }
    if (in->start > 0 && in->cap - in->end < in->cap / 4) {
        compact(in);
    }
    if (in->end < in->cap) {
        return 0;
    }
    if (io->in_wanted <= in->cap) {
        return -ENOBUFS;
    }
    return resize(in, io->in_wanted / 2 < in->cap ? io->in_wanted : in->cap * 2);
}

int nx_frame_io_receive(struct nx_frame_io *io)
{
    struct nx_io_buffer *in = &io->in;
    ssize_t n;
    int rc;

    io->drained = false;
    if (io->has_frame) {
        return -ENOBUFS; /* room is made by moving bytes, and its owner looks at them */
    }
    rc = make_room(io);
    if (rc < 0) {
        return rc;
    }
    n = socket_receive(io, in->bytes + in->end, in->cap - in->end);
    io->drained = io->tls == NULL && n >= 0 && (size_t)n < in->cap - in->end;
    if (n < 0) {
        return (int)n;
    }
    in->end += (size_t)n;
    io->received += (uint64_t)n;
    return 0;
}

int nx_frame_io_next(struct nx_frame_io *io, struct nx_frame *ret_frame)
{
    struct nx_io_buffer *in = &io->in;
    int rc = 0;

    if (!io->has_frame) {
        if (filled(in) < io->in_wanted) {
            return -EAGAIN;
        }
        rc = nx_frame_peek(in->bytes + in->start, filled(in), io->peer, io->phase, &io->frame);
        if (rc == -EAGAIN) {
            io->in_wanted = filled(in) + io->frame.need;
            return rc;
        }
        io->has_frame = rc == 0;
    }
    *ret_frame = io->frame;
    return rc;
}

void nx_frame_io_consume(struct nx_frame_io *io)
{
    assert(io->has_frame);
    io->in.start += io->frame.length;
    if (io->in.start == io->in.end) {
        io->in.start = 0;
        io->in.end = 0;
    }
    io->in_wanted = NX_FRAME_HEADER;
    io->has_frame = false;
}

bool nx_frame_io_partial(const struct nx_frame_io *io)
{
    return !io->has_frame && filled(&io->in) > 0;
}

/* ---- out ---- */

static size_t normal_cap(const struct nx_frame_io *io)
{
    return io->out_typical + NX_FRAME_IO_SLACK;
}

/* A place for n bytes behind what waits, in a buffer of at least `cap` bytes. */
static int place_for(struct nx_frame_io *io, size_t n, size_t cap, uint8_t **ret_place)
{
    struct nx_io_buffer *out = &io->out;
    int rc = out->cap < cap ? resize(out, cap) : 0;

    if (rc < 0) {
        return rc;
    }
    if (n > out->cap - filled(out)) {
        return -ENOBUFS;
    }
    if (n > out->cap - out->end) {
        compact(out);
    }
    *ret_place = out->bytes + out->end;
    return 0;
}

int nx_frame_io_room(struct nx_frame_io *io, size_t n, uint8_t **ret_place)
{
    size_t waiting = filled(&io->out);

    if (n > io->out_typical) {
        return waiting > 0 ? -ENOBUFS : place_for(io, n, n + NX_FRAME_IO_SLACK, ret_place);
    }
    if (waiting > io->out_typical - n) {
        return -ENOBUFS;
    }
    return place_for(io, n, normal_cap(io), ret_place);
}

void nx_frame_io_commit(struct nx_frame_io *io, size_t n)
{
    assert(n <= io->out.cap - io->out.end);
    io->out.end += n;
}

#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit)                \
    int nx_frame_io_put_##name(struct nx_frame_io *io, const struct nx_msg_##name *message) \
    {                                                                                       \
        size_t size = nx_wire_size_##name(message);                                         \
        uint8_t *place;                                                                     \
        int rc = place_for(io, size, normal_cap(io), &place);                               \
                                                                                            \
        if (rc == 0) {                                                                      \
            rc = nx_wire_encode_##name(message, place, size, &size);                        \
        }                                                                                   \
        if (rc == 0) {                                                                      \
            nx_frame_io_commit(io, size);                                                   \
        }                                                                                   \
        return rc;                                                                          \
    }
#include "common/wire_messages.def"

int nx_frame_io_flush(struct nx_frame_io *io)
{
    struct nx_io_buffer *out = &io->out;

    while (filled(out) > 0) {
        ssize_t n = socket_send(io, out->bytes + out->start, filled(out));

        if (n < 0) {
            return (int)n;
        }
        out->start += (size_t)n;
        io->sent += (uint64_t)n;
    }
    out->start = 0;
    out->end = 0;
    if (out->cap > normal_cap(io)) {
        release(out);
    }
    return 0;
}

size_t nx_frame_io_pending(const struct nx_frame_io *io)
{
    return filled(&io->out);
}

/* ---- the end ---- */

/* Waits for what the last words still need. False when the time is up. */
static bool wait_for_peer(struct nx_frame_io *io, short events, uint64_t deadline_ms)
{
    struct pollfd pollfd = {.fd = io->fd, .events = events};
    uint64_t now = nx_now_ms();

    if (now >= deadline_ms) {
        return false;
    }
    return poll(&pollfd, 1, (int)(deadline_ms - now)) >= 0 || errno == EINTR;
}

/* Reads and drops until the peer closes. */
static void drop_input(struct nx_frame_io *io, uint64_t deadline_ms)
{
    uint8_t dropped[FIRST_CAP];
    ssize_t n;

    do {
        n = recv(io->fd, dropped, sizeof dropped, MSG_DONTWAIT);
    } while (
        (n > 0 && nx_now_ms() < deadline_ms) ||
        (n < 0 && (errno == EAGAIN || errno == EINTR) && wait_for_peer(io, POLLIN, deadline_ms)));
}

void nx_frame_io_farewell(struct nx_frame_io *io,
                          uint32_t code,
                          const char *message,
                          int timeout_ms)
{
    uint64_t deadline = nx_now_ms() + (uint64_t)timeout_ms;
    struct nx_msg_error error = {.code = code};
    int rc = 0;

    if (code != 0) {
        error.message = nx_slice_text(message);
        rc = nx_frame_io_put_error(io, &error); /* no room: the peer doesn't read anyway */
    }
    while (rc == 0 && (rc = nx_frame_io_flush(io)) == -EAGAIN &&
           wait_for_peer(io, nx_frame_io_events(io, false), deadline)) {
        rc = 0;
    }
    if (rc == 0 && io->tls != NULL) {
        (void)SSL_shutdown(io->tls); /* says that this is the end; the answer is not waited for */
        ERR_clear_error();
    }
    if (rc == 0 && shutdown(io->fd, SHUT_WR) == 0) {
        drop_input(io, deadline);
    }
    nx_frame_io_close(io);
}
