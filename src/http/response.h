/* Answers: the head that every one has, and problems (RFC 9457) for all that isn't well. Each of these
 * ends the request (nx_connection_answered), but for nx_respond_begin. */
#ifndef NX_HTTP_RESPONSE_H
#define NX_HTTP_RESPONSE_H

#include "common/bytes.h"
#include "common/error_codes.h"
#include "common/shm_layout.h"
#include "common/text.h"
#include "http/query.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct connection;

struct response {
    unsigned status;
    const char *type; /* NULL: no body and no Content-Type */
    struct nx_slice body;
    bool has_offset; /* Nexus-Offset and Nexus-Epoch */
    uint64_t offset;
    uint64_t epoch;
    bool has_etag;
    uint64_t etag;
    uint64_t expires_at;  /* Nexus-Expires-At, Unix ms; 0: none */
    const char *allow;    /* NULL: no Allow header */
    unsigned retry_after; /* seconds; 0: no Retry-After header */
    const char *headers;  /* further lines, each with its line end; NULL: none */
    bool has_length;      /* nx_respond_begin: the pieces are `length` bytes together */
    uint64_t length;
};

/* An answer with all of its body; to a GET 503 instead where that is large and too much waits for clients already
 * (nx_connection_may_queue). */
void nx_respond(struct connection *connection, const struct response *response);

/* 200 with the JSON in `text`. */
void nx_respond_json(struct connection *connection, const struct text *text);

/* 200 {"success": true, "message"}: what was asked is done. */
void nx_respond_success(struct connection *connection, const char *message);

/* The head of an answer whose body follows piece by piece (nx_respond_piece): as it is where its length
 * is known beforehand, else in chunks for HTTP/1.1 and until the connection's end for HTTP/1.0.
 * response->body is not looked at. Returns false when the answer is over with its head (HEAD). */
bool nx_respond_begin(struct connection *connection, const struct response *response);
void nx_respond_piece(struct connection *connection, struct nx_slice piece);
/* A piece that isn't copied (nx_connection_send_shared). */
void nx_respond_shared_piece(struct connection *connection,
                             struct nx_slice piece,
                             void (*release)(const void *bytes, size_t length, void *arg),
                             void *arg);
/* The answer is complete. */
void nx_respond_end(struct connection *connection);

#define NX_MASTER_URL (NX_ADDR_TEXT + 9) /* "https://host:port", NUL included */

/* A problem and what helps to solve it. Zero it, set code and message, then what applies. */
struct problem {
    enum nx_error code;
    char message[NX_MESSAGE_SIZE];
    bool has_offset;
    uint64_t offset;
    uint64_t seen;  /* Nexus-Offset, where offset is another one; 0: offset is both */
    bool has_epoch; /* where there is no offset: the epoch alone */
    uint64_t epoch;
    uint64_t
        check_offset; /* of an entry that may or may not stand: 'check' is where to ask; 0: none */
    uint64_t check_epoch;
    uint64_t oldest;   /* entry that is still kept, where what was asked for isn't; 0: not said */
    bool has_progress; /* /import: */
    uint64_t line;     /* 0: no line is to blame */
    uint64_t imported;
    uint64_t entries;
    bool has_deleted; /* DELETE /kv?prefix=: */
    uint64_t deleted;
    unsigned retry_after; /* seconds; 0: one where the code is a retryable one, else none */
    const char *allow;
    const char *headers;        /* as in struct response */
    char master[NX_MASTER_URL]; /* absolute; "": not known */
    const struct text *failed;  /* a JSON array, NULL: none */
};

void nx_respond_problem(struct connection *connection, const struct problem *problem);

/* A problem that needs nothing but its code and a sentence. */
void nx_refuse(struct connection *connection, enum nx_error code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* 413 for the endpoint's bound; 503 when this worker gathers too many bodies at once. */
void nx_refuse_too_large(struct connection *connection);
void nx_refuse_body_budget(struct connection *connection);

/* The sentences for what the storage layer can say (view.h, state.h): code and message alone, or as the
 * answer. What a person has to look at is logged. */
void nx_read_problem(int error, struct problem *ret_problem);
void nx_refuse_read(struct connection *connection, int error);

#endif
