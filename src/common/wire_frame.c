/* Runs in walsenders, in the walreceiver, and wherever a frame is made. Pure functions over buffers
 * of the caller: it owns nothing, never blocks, and never reads beyond the bytes it was given. */
#include "common/wire_frame.h"

#include "common/bytes.h"
#include "common/crc32.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

/* Who may send a type, when, and how long. By type; name is NULL where there is none. */
struct frame_rule {
    const char *name;
    enum nx_wire_side sender;
    enum nx_wire_phase phase;
    size_t max_payload;
};

static const struct frame_rule frame_rules[UINT8_MAX + 1] = {
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) \
    [type] = {title, NX_WIRE_##sender, NX_WIRE_##phase, limit},
#include "common/wire_messages.def"
};

#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) \
    static_assert((limit) <= NX_WIRE_MAX_PAYLOAD, title " is a frame");
#include "common/wire_messages.def"

const char *nx_wire_type_name(uint8_t type)
{
    return frame_rules[type].name;
}

size_t nx_wire_max_payload(uint8_t type, enum nx_wire_phase phase)
{
    size_t limit = frame_rules[type].max_payload;

    if (phase == NX_WIRE_HANDSHAKE && limit > NX_WIRE_MAX_PAYLOAD_HELLO) {
        return NX_WIRE_MAX_PAYLOAD_HELLO;
    }
    return limit;
}

/* What the header alone says against a frame. */
static enum nx_frame_fault judge_header(const struct nx_frame *frame,
                                        enum nx_wire_side sender,
                                        enum nx_wire_phase phase)
{
    const struct frame_rule *rule = &frame_rules[frame->type];

    if (rule->name == NULL) {
        return NX_FRAME_UNKNOWN_TYPE;
    }
    if (((unsigned)rule->sender & (unsigned)sender) == 0) {
        return NX_FRAME_WRONG_SIDE;
    }
    if (((unsigned)rule->phase & (unsigned)phase) == 0) {
        return NX_FRAME_WRONG_PHASE;
    }
    return frame->payload_length > frame->limit ? NX_FRAME_TOO_LONG : NX_FRAME_FINE;
}

int nx_frame_peek(const uint8_t *buf,
                  size_t n,
                  enum nx_wire_side sender,
                  enum nx_wire_phase phase,
                  struct nx_frame *ret_frame)
{
    struct nx_frame *frame = ret_frame;

    *frame = (struct nx_frame){.bytes = buf};
    if (n < NX_FRAME_HEADER) {
        frame->need = NX_FRAME_HEADER - n;
        return -EAGAIN;
    }
    frame->type = buf[0];
    frame->payload_length = nx_load_u32(buf + 1);
    frame->limit = nx_wire_max_payload(frame->type, phase);
    frame->fault = judge_header(frame, sender, phase);
    if (frame->fault != NX_FRAME_FINE) {
        return -EBADMSG;
    }
    frame->payload = buf + NX_FRAME_HEADER;
    frame->length = frame->payload_length + NX_FRAME_OVERHEAD;
    if (n < frame->length) {
        frame->need = frame->length - n;
        return -EAGAIN;
    }
    frame->crc = nx_load_u32(frame->payload + frame->payload_length);
    frame->computed = nx_crc32(0, buf, NX_FRAME_HEADER + frame->payload_length);
    if (frame->crc != frame->computed) {
        frame->fault = NX_FRAME_BAD_CRC;
        return -EBADMSG;
    }
    return 0;
}

/* A handshake or an alert (RFC 8446, 5.1). */
static bool is_tls(uint8_t type)
{
    return type == 0x16 || type == 0x15;
}

const char *nx_frame_fault_text(const struct nx_frame *frame, char *buf, size_t cap)
{
    const char *name = nx_wire_type_name(frame->type);

    if (name == NULL) {
        name = "frame";
    }
    switch (frame->fault) {
    case NX_FRAME_FINE:
        (void)snprintf(buf, cap, "%s is fine", name);
        break;
    case NX_FRAME_UNKNOWN_TYPE:
        (void)snprintf(buf, cap, "unknown message type 0x%02X%s", (unsigned)frame->type,
                       is_tls(frame->type)
                           ? ", which is how TLS begins: replication.tls_cert_file must be "
                             "set on all nodes, or on none"
                           : "");
        break;
    case NX_FRAME_WRONG_SIDE:
        (void)snprintf(buf, cap, "%s is not for this side to send", name);
        break;
    case NX_FRAME_WRONG_PHASE:
        (void)snprintf(buf, cap, "%s out of order: Hello and Welcome come first, and once", name);
        break;
    case NX_FRAME_TOO_LONG:
        (void)snprintf(buf, cap, "%s with a payload of %zu bytes, at most %zu here", name,
                       frame->payload_length, frame->limit);
        break;
    case NX_FRAME_BAD_CRC:
        (void)snprintf(buf, cap, "%s of %zu bytes with CRC %08X, computed %08X", name,
                       frame->length, (unsigned)frame->crc, (unsigned)frame->computed);
        break;
    }
    return buf;
}

uint32_t nx_frame_seal(uint8_t *frame, uint8_t type, size_t payload_length)
{
    size_t covered = NX_FRAME_HEADER + payload_length;
    uint32_t crc;

    assert(payload_length <= NX_WIRE_MAX_PAYLOAD);
    frame[0] = type;
    nx_store_u32(frame + 1, (uint32_t)payload_length);
    crc = nx_crc32(0, frame, covered);
    nx_store_u32(frame + covered, crc);
    return crc;
}
