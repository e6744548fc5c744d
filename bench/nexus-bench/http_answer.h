/* Reads answers of HTTP/1.1 and keeps of them what a load generator wants to know: the status, how long the body
 * is, and a short body itself. Bodies come with a Content-Length or in chunks; one that ends with its connection is
 * refused. A server under test is no attacker: what is skipped isn't judged. */
#ifndef NX_BENCH_HTTP_ANSWER_H
#define NX_BENCH_HTTP_ANSWER_H

#include "common/bytes.h"

#define BENCH_HTTP_KEPT 8192 /* a body of so many bytes and a Content-Length is told as a whole */

enum bench_http_stage {
    BENCH_HTTP_HEAD,
    BENCH_HTTP_BODY,
    BENCH_HTTP_CHUNK_SIZE,
    BENCH_HTTP_CHUNK,
    BENCH_HTTP_TRAILER
};

/* Of one connection; all zero before the first answer, and between answers. */
struct bench_http_answer {
    enum bench_http_stage stage;
    unsigned status;
    uint64_t left;        /* of the body, or of the chunk and its line end */
    uint64_t body;        /* bytes of it so far */
    struct nx_slice text; /* the body, or what of it came with the last bytes; borrowed */
};

/* Takes bytes from the front of data: 1 when the answer is complete (then status, body and text tell it, and the
 * caller zeroes it for the next), 0 when more must come, -EPROTO when this is no answer. *ret_used bytes are done
 * with; the others are to come again, with more behind them. */
int bench_http_answer_take(struct bench_http_answer *answer,
                           struct nx_slice data,
                           size_t *ret_used);

#endif
