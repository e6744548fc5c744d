/* See http2.h. Pure functions. */
#include "nexus-bench/http2.h"

#include "nexus-bench/protocol.h"

#include <errno.h>

#define FRAME_HEAD     9
#define FRAME_LARGEST  16384
#define SETTING_SIZE   6
#define DEFAULT_WINDOW 65535
#define LARGE_WINDOW   0x3fff0000u
#define GIVE_BACK \
    ((uint64_t)1 << 24) /* bytes received, after which the server may send as many more */

enum frame {
    FRAME_DATA = 0,
    FRAME_HEADERS = 1,
    FRAME_RESET = 3,
    FRAME_SETTINGS = 4,
    FRAME_PING = 6,
    FRAME_GOAWAY = 7,
    FRAME_WINDOW = 8
};

enum flag {
    FLAG_END_STREAM = 1,
    FLAG_ACK = 1,
    FLAG_END_HEADERS = 4
};

enum setting {
    SETTING_PUSH = 2,
    SETTING_WINDOW = 4
};

static void put_u32(uint8_t *p, uint32_t value)
{
    value = htobe32(value);
    memcpy(p, &value, sizeof value);
}

static uint32_t get_u32(const uint8_t *p)
{
    uint32_t value;

    memcpy(&value, p, sizeof value);
    return be32toh(value);
}

static void add_frame(struct text *out,
                      enum frame type,
                      int flags,
                      uint32_t stream,
                      struct nx_slice payload)
{
    uint8_t *p = bench_room(out, FRAME_HEAD + payload.length);

    if (p == NULL) {
        return;
    }
    put_u32(p, (uint32_t)payload.length << 8 | (uint32_t)type);
    p[4] = (uint8_t)flags;
    put_u32(p + 5, stream);
    if (payload.length > 0) {
        memcpy(p + FRAME_HEAD, payload.data, payload.length);
    }
}

static void add_window(struct text *out, uint32_t bytes)
{
    uint8_t payload[4];

    put_u32(payload, bytes);
    add_frame(out, FRAME_WINDOW, 0, 0, nx_slice_of(payload, sizeof payload));
}

/* Sends of the message what the windows let through. */
static void pump(struct bench_http2 *http2, struct text *out)
{
    while (http2->sent < http2->message.length && http2->window > 0 && http2->stream_window > 0) {
        size_t left = http2->message.length - http2->sent;
        size_t n = left < FRAME_LARGEST ? left : FRAME_LARGEST;

        n = n < (size_t)http2->window ? n : (size_t)http2->window;
        n = n < (size_t)http2->stream_window ? n : (size_t)http2->stream_window;
        add_frame(out, FRAME_DATA, n == left ? FLAG_END_STREAM : 0, http2->stream,
                  nx_slice_of(http2->message.data + http2->sent, n));
        http2->sent += n;
        http2->window -= (int64_t)n;
        http2->stream_window -= (int64_t)n;
    }
}

void bench_http2_open(struct bench_http2 *http2, struct text *out)
{
    uint8_t settings[2 * SETTING_SIZE] = {0, SETTING_PUSH, 0, 0, 0, 0, 0, SETTING_WINDOW};

    http2->window = DEFAULT_WINDOW;
    http2->initial_window = DEFAULT_WINDOW;
    put_u32(settings + SETTING_SIZE + 2, LARGE_WINDOW);
    (void)nx_text_puts(out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    add_frame(out, FRAME_SETTINGS, 0, 0, nx_slice_of(settings, sizeof settings));
    add_window(out, LARGE_WINDOW);
}

void bench_http2_close(struct bench_http2 *http2)
{
    nx_text_free(&http2->message);
}

void bench_http2_send(struct bench_http2 *http2, const struct text *headers, struct text *out)
{
    http2->sent = 0;
    http2->stream = http2->stream == 0 ? 1 : http2->stream + 2;
    http2->stream_window = http2->initial_window;
    add_frame(out, FRAME_HEADERS, FLAG_END_HEADERS, http2->stream,
              nx_slice_of(headers->data, headers->length));
    pump(http2, out);
}

/* ---- what comes ---- */

static void take_data(struct bench_http2 *http2, size_t bytes, struct text *out)
{
    http2->received += bytes;
    if (http2->received > GIVE_BACK) {
        add_window(out, (uint32_t)http2->received);
        http2->received = 0;
    }
}

static void take_settings(struct bench_http2 *http2, struct nx_slice payload, struct text *out)
{
    for (size_t i = 0; i + SETTING_SIZE <= payload.length; i += SETTING_SIZE) {
        if (payload.data[i] == 0 && payload.data[i + 1] == SETTING_WINDOW) {
            int64_t window = get_u32(payload.data + i + 2);

            http2->stream_window += window - http2->initial_window;
            http2->initial_window = window;
        }
    }
    add_frame(out, FRAME_SETTINGS, FLAG_ACK, 0, nx_slice_of(NULL, 0));
    pump(http2, out);
}

static void take_window(struct bench_http2 *http2,
                        uint32_t stream,
                        uint32_t bytes,
                        struct text *out)
{
    if (stream == 0) {
        http2->window += bytes;
    } else if (stream == http2->stream) {
        http2->stream_window += bytes;
    }
    pump(http2, out);
}

/* A frame that is whole, for the connection or the stream that is open; 0 or -ECONNRESET. */
static int take_whole(struct bench_http2 *http2,
                      const uint8_t *head,
                      struct nx_slice payload,
                      struct bench_http2_frame *ret_frame,
                      struct text *out)
{
    uint32_t stream = get_u32(head + 5);
    bool acknowledges = (head[4] & FLAG_ACK) != 0; /* of settings and pings */
    bool ends = (head[4] & FLAG_END_STREAM) != 0;  /* of data and headers */

    switch (head[3]) {
    case FRAME_DATA:
        take_data(http2, payload.length, out);
        ret_frame->data = payload;
        ret_frame->ends = ends;
        break;
    case FRAME_HEADERS:
        ret_frame->ends = ends;
        break;
    case FRAME_RESET:
        ret_frame->ends = stream == http2->stream;
        ret_frame->resets = ret_frame->ends;
        break;
    case FRAME_GOAWAY:
        return -ECONNRESET;
    case FRAME_SETTINGS:
        if (!acknowledges) {
            take_settings(http2, payload, out);
        }
        break;
    case FRAME_PING:
        if (!acknowledges) {
            add_frame(out, FRAME_PING, FLAG_ACK, 0, payload);
        }
        break;
    case FRAME_WINDOW:
        if (payload.length == sizeof(uint32_t)) {
            take_window(http2, stream, get_u32(payload.data), out);
        }
        break;
    default:
        break;
    }
    return 0;
}

int bench_http2_take(struct bench_http2 *http2,
                     struct nx_slice data,
                     size_t *ret_used,
                     struct bench_http2_frame *ret_frame,
                     struct text *out)
{
    size_t length;
    int rc;

    *ret_used = 0;
    *ret_frame = (struct bench_http2_frame){.ends = false};
    if (data.length < FRAME_HEAD) {
        return 0;
    }
    length = get_u32(data.data) >> 8;
    if (length > FRAME_LARGEST) {
        return -EPROTO;
    }
    if (data.length < FRAME_HEAD + length) {
        return 0;
    }
    *ret_used = FRAME_HEAD + length;
    rc = take_whole(http2, data.data, nx_slice_of(data.data + FRAME_HEAD, length), ret_frame, out);
    return rc < 0 ? rc : 1;
}
