/* One client connection: bytes in, requests one after the other, bytes out.
 *
 * Its life:
 *
 *     HEAD ──> BODY ──> BUSY ──> HEAD ...     the answer ends a request, the next begins
 *       └────────────────┘ (no body)
 *     any ──> FLUSH ──> LINGER ──> gone       the answer is the last one
 *
 * One request at a time: what a client sends ahead waits in the input buffer, which is bounded. FLUSH
 * waits until the client has taken the last answer; LINGER then closes our side and reads past what the
 * client still sends, since closing at once would make its kernel throw the answer away. */
#ifndef NX_HTTP_CONNECTION_H
#define NX_HTTP_CONNECTION_H

#include "common/bytes.h"
#include "http/access.h"
#include "http/head_scan.h"
#include "http/request.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct bufferevent;
struct event;
struct http_worker;
struct submission;

enum connection_state {
    CONN_HEAD,   /* reading a head, or idle */
    CONN_BODY,   /* reading a body */
    CONN_BUSY,   /* the handler has it: a wait, a write in flight, an export, a snapshot */
    CONN_FLUSH,  /* the last answer is on its way */
    CONN_LINGER, /* reading past what still comes */
};

struct connection {
    LIST_ENTRY(connection) link;
    LIST_ENTRY(connection) wait_link; /* in worker->waits, exports, snapshots or watches */
    struct http_worker *worker;
    struct bufferevent *bev;
    struct event *reader;    /* of a plain socket; NULL: bev reads (TLS) */
    struct event *timer;     /* made when first needed */
    struct request *request; /* NULL between requests */
    char *shaking_peer;      /* "address:port" while hands are shaken; owned; NULL: not known */
    enum connection_state state;
    enum peer_class peer;
    struct head_scan scan;
    bool tls;          /* its bytes are */
    bool shaking;      /* ... and hands aren't shaken yet */
    bool counted;      /* in http.max_connections */
    bool turned_away;  /* one above them, being told so */
    bool running;      /* nx_connection_run is under way */
    bool answering;    /* the head of the answer is out, its body still comes (export) */
    bool chunked;      /* ... in chunks */
    bool prompt;       /* ... and what there is of it leaves at once, as a whole answer does */
    bool parting;      /* closed as soon as the client has taken the answer */
    bool parsing;      /* the parser runs: the request can't be given back yet */
    bool ending;       /* ... and is to be as soon as the parser returns */
    bool early;        /* answered before its body came, which is read past */
    bool keep_alive;   /* after this answer */
    bool eof;          /* the client sends no more */
    bool dead;         /* goes away at the end of nx_connection_run */
    bool timed;        /* the timer runs */
    bool held;         /* the stream wants no more of the body now */
    bool paused;       /* not reading: enough is read ahead */
    bool out_counted;  /* `queued` follows what the client takes */
    bool waiting;      /* in worker->waits, or in its watches: */
    bool watching;     /* ... for a change of the request's key (watch.h) */
    uint64_t timer_ms; /* when it was last set */
    uint64_t lingered; /* bytes read past */
    size_t queued;     /* bytes of answers that wait for the client, in worker->answer_bytes */
    unsigned open;     /* submissions without a completion */
    LIST_HEAD(submission_list, submission) submissions;

    /* A parked request (waits.h). */
    uint64_t wait_offset;
    uint64_t wait_asked_us; /* the quorum's confirmation instead of an offset; 0: not */
    void (*wait_again)(struct connection *connection);
    void (*wait_expired)(struct connection *connection);
};

/* Takes over an accepted socket. 0 or -ENOMEM (the socket is closed). */
int nx_connection_open(struct http_worker *worker, int fd, enum peer_class peer);

/* Answers a new connection that is one too many with 503 and ends it. It takes no place among
 * http.max_connections; worker->turned_away counts it while it lasts. It may be freed here. */
void nx_connection_turn_away(struct connection *connection);

/* Does all that the bytes at hand allow; call it after anything that may have set the connection
 * going again. It may free the connection. */
void nx_connection_run(struct connection *connection);

/* Closes it now: nothing more is sent. Safe at any place; freed when nx_connection_run is done with it. */
void nx_connection_close(struct connection *connection);

/* The answer's bytes. They are gathered and leave together when the connection has run. */
void nx_connection_send(struct connection *connection, const void *bytes, size_t length);

/* The same for bytes that stand still until `release` is called with `arg`, which is always done: they are not
 * copied, so that many connections may send the same ones. */
void nx_connection_send_shared(struct connection *connection,
                               struct nx_slice bytes,
                               void (*release)(const void *bytes, size_t length, void *arg),
                               void *arg);

/* Bytes that the client has not taken yet. */
size_t nx_connection_backlog(const struct connection *connection);

/* Whether an answer of `length` bytes may be given now: small ones always, others as long as the worker's budget for
 * answers that wait for their clients has room for them. */
bool nx_connection_may_queue(const struct connection *connection, size_t length);

/* Whether the connection goes on after an answer that is given now (Connection: close or not). */
bool nx_connection_keeps(const struct connection *connection);

/* The answer is whole: the request goes back to its pool, and the next one may begin, or the
 * connection ends (the client or we asked for it, or the body was not read to its end). */
void nx_connection_answered(struct connection *connection);

/* Makes the request's share of the worker's budget for bodies at least `bytes`. False: there is none
 * left. */
bool nx_connection_reserve(struct connection *connection, size_t bytes);

/* Content of the body, from the parser. */
void nx_connection_body(struct request *request, struct nx_slice content);

/* Stops reading the body, and goes on (the stream's flow control). */
void nx_connection_hold(struct connection *connection);
void nx_connection_release(struct connection *connection);

/* The timer that a handler may use while BUSY; it calls connection->wait_expired. 0: stops it. */
void nx_connection_timer(struct connection *connection, uint64_t milliseconds);

/* Ends it in order: at once when it is idle, else after its answer. */
void nx_connection_retire(struct connection *connection);

/* Its last answer was given: it is closed as soon as the client has taken that, or when `milliseconds` are
 * over. Nothing is read past then. */
void nx_connection_part(struct connection *connection, uint64_t milliseconds);

#endif
