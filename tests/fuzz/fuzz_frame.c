/* Frames of the replication protocol: what a stranger's bytes may become (common/wire_frame.h, wire.h, frame_io.h).
 *
 * The input's first byte says who sends, in which phase, and whether CRCs are made right, so that what is behind that
 * check is reached too; the rest are bytes of a connection. */
#include "common/bytes.h"
#include "common/crc32.h"
#include "common/frame_io.h"
#include "fuzz.h"

#include <errno.h>
#include <sys/socket.h>

#define MOST 8192 /* bytes of a conversation: what a socket's buffer holds */

/* Makes the CRCs of all frames right that are whole. */
static void mend(uint8_t *bytes, size_t n)
{
    size_t at = 0;

    while (n - at >= NX_FRAME_OVERHEAD) {
        size_t payload = nx_load_u32(bytes + at + 1);

        if (payload > n - at - NX_FRAME_OVERHEAD) {
            return;
        }
        (void)nx_frame_seal(bytes + at, bytes[at], payload);
        at += payload + NX_FRAME_OVERHEAD;
    }
}

/* What is decoded can be encoded, and is the same then. */
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit)               \
    static void check_##name(const struct nx_frame *frame)                                 \
    {                                                                                      \
        struct nx_msg_##name message;                                                      \
        struct nx_msg_##name again;                                                        \
        size_t size;                                                                       \
        size_t written = 0;                                                                \
                                                                                           \
        if (nx_wire_decode_##name(frame->payload, frame->payload_length, &message) < 0) {  \
            return;                                                                        \
        }                                                                                  \
        size = nx_wire_size_##name(&message);                                              \
        uint8_t *bytes = malloc(size);                                                     \
        uint8_t *twice = malloc(size);                                                     \
        HOLDS(bytes != NULL && twice != NULL);                                             \
        if (nx_wire_encode_##name(&message, bytes, size, &written) == 0) {                 \
            HOLDS(written == size);                                                        \
            HOLDS(nx_wire_decode_##name(bytes + NX_FRAME_HEADER, size - NX_FRAME_OVERHEAD, \
                                        &again) == 0);                                     \
            HOLDS(nx_wire_size_##name(&again) == size);                                    \
            HOLDS(nx_wire_encode_##name(&again, twice, size, &written) == 0);              \
            HOLDS(memcmp(bytes, twice, size) == 0);                                        \
        }                                                                                  \
        free(bytes);                                                                       \
        free(twice);                                                                       \
    }
#include "common/wire_messages.def"

static void check(const struct nx_frame *frame)
{
    HOLDS(frame->payload >= frame->bytes && frame->payload_length < frame->length);
    switch (frame->type) {
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) \
    case NX_MSG_##symbol:                                                    \
        check_##name(frame);                                                 \
        break;
#include "common/wire_messages.def"
    default:
        break;
    }
}

/* All frames of a conversation, given to the socket in pieces of `piece` bytes. -> bytes that were taken */
static uint64_t converse(const uint8_t *bytes, size_t n, uint8_t how, size_t piece)
{
    struct nx_frame_io io;
    struct nx_frame frame;
    char text[256];
    uint64_t taken = 0;
    int pair[2];
    int rc = -EAGAIN;

    HOLDS(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    nx_frame_io_open(&io, pair[0], (how & 1) != 0 ? NX_WIRE_MASTER : NX_WIRE_REPLICA, 4096, 4096);
    io.phase = (how & 2) != 0 ? NX_WIRE_SESSION : NX_WIRE_HANDSHAKE;
    for (size_t at = 0; at < n && (rc == 0 || rc == -EAGAIN); at += piece) {
        HOLDS(write(pair[1], bytes + at, n - at < piece ? n - at : piece) > 0);
        do {
            while ((rc = nx_frame_io_next(&io, &frame)) == 0) {
                check(&frame);
                taken += frame.length;
                nx_frame_io_consume(&io);
            }
            if (rc == -EAGAIN) {
                rc = nx_frame_io_receive(&io);
            }
        } while (rc == 0);
    }
    if (rc == -EBADMSG) {
        HOLDS(strlen(nx_frame_fault_text(&frame, text, sizeof text)) < sizeof text);
    }
    nx_frame_io_close(&io);
    close(pair[1]);
    return taken;
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[MOST];

    if (size < 2 || size > MOST) {
        return 0;
    }
    memcpy(bytes, data + 1, size - 1);
    if ((data[0] & 4) != 0) {
        mend(bytes, size - 1);
    }
    /* However the network cuts them, the same frames come out. */
    HOLDS(converse(bytes, size - 1, data[0], size) ==
          converse(bytes, size - 1, data[0], 1 + (size_t)(data[0] >> 3)));
    return 0;
}
