/* One request, from its head to its answer. It is taken from the worker's pool when a head is complete
 * and goes back with the answer, so that an idle connection holds none of this. */
#ifndef NX_HTTP_REQUEST_H
#define NX_HTTP_REQUEST_H

#include "common/bytes.h"
#include "common/entry.h"
#include "common/text.h"
#include "http/chunk_guard.h"
#include "http/durability.h"
#include "http/head_scan.h"
#include "http/query.h"

#include <http_parser.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct connection;
struct route;

struct header {
    struct nx_slice name;
    struct nx_slice value; /* without the white space around it */
};

/* Room before a collected body, so that a PUT can write its operation's head (entry.h) right before
 * the value and submit both without copying the value once more. */
#define NX_BODY_GAP (NX_OP_HEADER + NX_OP_EXPIRY + NX_MAX_KEY + 1)

/* What becomes of a body's bytes. */
enum body_use {
    BODY_COLLECT, /* into request->body, for the handler */
    BODY_STREAM,  /* to request->stream as they come */
    BODY_DISCARD, /* read past: the answer is known already, or nobody asked for a body */
};

/* A handler that outlives the call which started it (import, export, snapshots). Any function may be
 * NULL. */
struct stream {
    void (*data)(struct connection *connection, struct nx_slice bytes); /* of the request's body */
    void (*end)(struct connection *connection);                         /* the body is whole */
    void (*drained)(struct connection *connection); /* the client took what was sent */
    void (*eof)(struct connection *connection);     /* it sends no more, and may be gone */
    void (*wake)(struct connection *connection);    /* shared memory may have changed */
    void (*closed)(struct connection *connection);  /* the connection goes away: free `state` */
};

struct request {
    SLIST_ENTRY(request) free;
    struct connection *owner;

    /* The head; all slices point into `head`. */
    struct text head;
    http_parser parser;
    bool head_done;
    bool message_done;
    struct nx_slice target;
    struct nx_slice query_raw;
    struct header *headers; /* as many as there are: they are kept while it waits or streams */
    unsigned header_count;
    unsigned header_cap;
    const char *malformed; /* why, when the framing headers contradict the standard */

    /* Where it goes. */
    const struct route *route;
    struct text path;    /* decoded once */
    struct nx_slice key; /* the part of the path that stands for {key} */
    struct nx_slice id;  /* the part that stands for {id} */
    struct query query;

    /* The body. */
    bool has_body;
    bool chunked;
    uint64_t body_left; /* of Content-Length, still to come */
    uint64_t body_seen; /* bytes of content so far */
    size_t body_most;   /* more than this is refused (413) */
    size_t reserved;    /* of the worker's budget for bodies */
    enum body_use body_use;
    struct chunk_guard guard;
    struct text body; /* NX_BODY_GAP bytes, then the content */

    /* The handler's. */
    const struct stream *stream;
    void *state;            /* of the stream */
    struct text conditions; /* encoded, for the submission */
    uint32_t condition_count;
    uint32_t puts;                 /* of a batch */
    enum nx_durability durability; /* of a write */
    bool show_nodes;               /* the answer says how many nodes have it */
    bool local;                    /* Nexus-Read: local */
    bool linearizable;             /* Nexus-Read: linearizable */
    bool led;                      /* ... and it does */
    uint64_t asked_us;    /* ... when the quorum was asked whether this master leads; 0: not yet */
    uint64_t deadline_ms; /* of its wait: for that answer, or ?wait=; 0: none yet */
    bool wait_over;       /* it has passed */
};

/* Takes the head apart with http_parser; `head` holds it whole and has passed nx_head_scan. 0;
 * -EBADMSG (malformed says why); -ENOTSUP: a method that nobody knows, else well-formed; -ENOMEM. */
int nx_request_parse_head(struct request *request);

/* Gives bytes of the body to the parser, which calls nx_connection_body with the content. 0 and
 * *ret_used, or -EBADMSG. message_done is set with the last one. */
int nx_request_parse_body(struct request *request, struct nx_slice bytes, size_t *ret_used);

/* The value of a header, NULL when it wasn't sent. */
const struct nx_slice *nx_request_header(const struct request *request, const char *name);

/* How often a header was sent. */
unsigned nx_request_header_count(const struct request *request, const char *name);

/* True when a header is there and its value equals `value`, in any case. */
bool nx_request_header_is(const struct request *request, const char *name, const char *value);

/* Gives back what only the beginning of a long answer needs: the head with all that points into it, path and
 * query. */
void nx_request_shed(struct request *request);

/* Makes a used one as new, keeping its buffers for the next. */
void nx_request_reset(struct request *request);
void nx_request_free(struct request *request);

/* True when the two are equal but for the case of ASCII letters. */
bool nx_equal_nocase(struct nx_slice a, struct nx_slice b);

#endif
