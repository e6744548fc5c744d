/* As much of HTTP/2 (RFC 9113) as one gRPC call after the other takes: frames, flow control, and the answers to pings
 * and settings. Headers are somebody else's; those of answers are skipped. One stream is open at a time. */
#ifndef NX_BENCH_HTTP2_H
#define NX_BENCH_HTTP2_H

#include "common/bytes.h"
#include "common/text.h"

#include <stdbool.h>
#include <stdint.h>

struct bench_http2 {
    struct text message; /* of the stream, sent as windows let it */
    size_t sent;
    uint32_t stream;
    int64_t window;         /* bytes that the server takes on this connection */
    int64_t stream_window;  /* and on the stream that is open */
    int64_t initial_window; /* of a stream */
    uint64_t received;      /* bytes that were not given back yet */
};

/* What a frame was to the stream that is open. */
struct bench_http2_frame {
    struct nx_slice data; /* borrowed */
    bool ends;
    bool resets; /* ends, and there is no answer */
};

/* Begins a connection, all zero before. */
void bench_http2_open(struct bench_http2 *http2, struct text *out);

/* Gives back what it has. */
void bench_http2_close(struct bench_http2 *http2);

/* Opens a stream with that block of headers, and sends http2->message, which the caller has filled: what of it the
 * server doesn't take yet follows when it does. */
void bench_http2_send(struct bench_http2 *http2, const struct text *headers, struct text *out);

/* Takes a frame from the front of data: 1, 0 when more must come, -EPROTO when this is none, -ECONNRESET when the
 * server says goodbye. *ret_used: its bytes. What must be said at once goes to out. */
int bench_http2_take(struct bench_http2 *http2,
                     struct nx_slice data,
                     size_t *ret_used,
                     struct bench_http2_frame *ret_frame,
                     struct text *out);

#endif
