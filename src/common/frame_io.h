/* Frames over one non-blocking socket: an input buffer that gives up whole, checked frames, and an
 * output buffer that a slow peer can't make grow. Both are bounded; memory for a large frame is taken
 * as its bytes arrive, never because a header announces it, and given back after it.
 *
 * A poll loop uses it like this:
 *
 *     if (readable) rc = nx_frame_io_receive(io);          // one recv
 *     while ((rc = nx_frame_io_next(io, &frame)) == 0) {
 *         handle(&frame);                                  // may put answers
 *         nx_frame_io_consume(io);
 *     }
 *     rc = nx_frame_io_flush(io);                          // one or more sends, never blocks
 *     poll for nx_frame_io_events(io, true), without sleeping while nx_frame_io_buffered(io)
 *
 * The socket's bytes may be TLS (nx_frame_io_secure): then a send may wait for bytes to come, and the other way round.
 *
 * Belongs to one process; no locks, no signals (MSG_NOSIGNAL). */
#ifndef NX_COMMON_FRAME_IO_H
#define NX_COMMON_FRAME_IO_H

#include "common/tls.h"
#include "common/wire.h"
#include "common/wire_frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes kept free behind bulk data, so that an Error, a Ping or a Pong finds room in a full buffer. */
#define NX_FRAME_IO_SLACK 4096

/* A buffer's filled part is [start, end) of bytes[0, cap). */
struct nx_io_buffer {
    uint8_t *bytes; /* NULL until needed */
    size_t start;
    size_t end;
    size_t cap;
};

struct nx_frame_io {
    int fd;              /* owned; -1 when closed */
    struct ssl_st *tls;  /* owned; NULL: none */
    enum nx_tls_use use; /* of tls */
    bool shaken; /* hands, by tls: the other side has the key of the certificate that it showed */
    bool out_of_time; /* that one is, or its authority's */
    short in_waits;   /* what the last receive, and the last flush, waits for: POLLIN or POLLOUT */
    short out_waits;
    enum nx_wire_side peer;   /* whose frames come in */
    enum nx_wire_phase phase; /* the owner sets SESSION when the handshake is through */
    size_t in_typical;        /* bytes; larger only while a larger frame passes */
    size_t out_typical;
    struct nx_io_buffer in;
    struct nx_io_buffer out;
    size_t in_wanted;      /* bytes of `in` that make the next look worth it */
    struct nx_frame frame; /* the frame at in.start, if has_frame */
    bool has_frame;
    bool drained;      /* the last recv came short */
    uint64_t received; /* bytes since nx_frame_io_open */
    uint64_t sent;
};

/* Takes over a connected, non-blocking socket. in_typical and out_typical: bytes of the buffers, at
 * least 4 KiB each. Allocates nothing yet. */
void nx_frame_io_open(struct nx_frame_io *io,
                      int fd,
                      enum nx_wire_side peer,
                      size_t in_typical,
                      size_t out_typical);

/* From here on its bytes are TLS, shaken hands on by what follows. host: as in nx_tls_begin. 0 or -ENOMEM. Then receive
 * and flush may also answer -EKEYEXPIRED: hands are shaken, and the other side's certificate is out of its time. What
 * waited for it is dropped; the conversation is over but for a farewell. */
int nx_frame_io_secure(struct nx_frame_io *io, enum nx_tls_use use, const char *host);

/* Closes the socket and frees the buffers; harmless on a closed one. */
void nx_frame_io_close(struct nx_frame_io *io);

/* ---- in ---- */

/* The last receive took all there was: what a further one would find has come since, and poll tells of it. */
static inline bool nx_frame_io_drained(const struct nx_frame_io *io)
{
    return io->drained;
}

/* One recv into what room there is (more is made for a frame that needs it). 0: something came;
 * -EAGAIN: nothing waits; -ENOBUFS: whole frames stand there, take them first; -EPIPE: the peer has
 * closed its side; -ENOMEM, or what recv says; -EPROTO: TLS failed. */
int nx_frame_io_receive(struct nx_frame_io *io);

/* The next whole frame; it stays in the buffer, and this call goes on giving it, until
 * nx_frame_io_consume. 0 and *ret_frame; -EAGAIN: receive more first; -EBADMSG: a violation
 * (ret_frame->fault, nx_frame_fault_text): the conversation is over. */
int nx_frame_io_next(struct nx_frame_io *io, struct nx_frame *ret_frame);

/* Done with the frame that nx_frame_io_next gave. */
void nx_frame_io_consume(struct nx_frame_io *io);

/* True when some bytes of a frame that isn't whole stand in the buffer. */
bool nx_frame_io_partial(const struct nx_frame_io *io);

/* ---- out ---- */

/* Room for `n` bytes of whole frames that the caller writes itself, NX_FRAME_IO_SLACK left free. More
 * than out_typical only into an empty buffer. 0 and *ret_place (valid until the next call);
 * -ENOBUFS: flush first; -ENOMEM. nx_frame_io_commit says how many of them were filled. */
int nx_frame_io_room(struct nx_frame_io *io, size_t n, uint8_t **ret_place);
void nx_frame_io_commit(struct nx_frame_io *io, size_t n);

/* nx_frame_io_put_X encodes a message behind what waits: 0; -ENOBUFS: no room before more has been
 * sent; -ENOMEM; or what nx_wire_encode_X says. */
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) \
    int nx_frame_io_put_##name(struct nx_frame_io *io, const struct nx_msg_##name *message);
#include "common/wire_messages.def"

/* Sends as much as the socket takes. 0: all is out; -EAGAIN: some waits; or what send says (-EPIPE,
 * -ECONNRESET, -ETIMEDOUT, ...); -EPROTO: TLS failed. */
int nx_frame_io_flush(struct nx_frame_io *io);

/* Bytes that wait. */
size_t nx_frame_io_pending(const struct nx_frame_io *io);

/* What to poll the socket for; reading: more frames are wanted. */
short nx_frame_io_events(const struct nx_frame_io *io, bool reading);

/* Bytes that the next receive gives are here already, and poll doesn't know: TLS takes whole records. */
bool nx_frame_io_buffered(const struct nx_frame_io *io);

/* Whether receive or flush failed (rc) over a certificate in a way that shows that the other side lives: only ours, or
 * time, was wrong. Where no authorities are set anybody's word counts, as it does in a session. Ask before
 * nx_frame_io_error. */
bool nx_frame_io_shows_life(const struct nx_frame_io *io, int rc);

/* What a negative answer of receive or flush means, in words. Returns buf, or a static text. */
const char *nx_frame_io_error(const struct nx_frame_io *io, int rc, char *buf, size_t cap);

/* The last words: puts an Error (code 0: none), flushes, shuts our direction, and reads and drops what
 * the peer still sends until it closes, at most timeout_ms in all; then closes. Without the reading
 * the kernel would answer unread bytes with a reset, and the peer would never see the Error. */
void nx_frame_io_farewell(struct nx_frame_io *io,
                          uint32_t code,
                          const char *message,
                          int timeout_ms);

#endif
