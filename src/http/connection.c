/* Runs in http workers. Owns the sockets of clients: reads, frames, hands requests to the router,
 * writes what they are answered with, and ends what is malformed, silent or stuck. It knows no
 * endpoint. See connection.h for a connection's life. */
#include "http/connection.h"

#include "common/latch.h"
#include "common/log.h"
#include "http/response.h"
#include "http/router.h"
#include "http/waits.h"
#include "http/worker.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_HIGH     (64u << 10)  /* bytes read ahead, and at once */
#define BODY_PIECE    (16u << 10)  /* of a body, given to the handler at once */
#define BACKLOG_HIGH  (256u << 10) /* no further request is begun above this many unsent bytes */
#define WRITE_STALL_S 10           /* a client that takes nothing for so long is cut */
#define READ_PAST     (64u << 10)  /* rest of a body that is read past to keep a connection */
#define LINGER_MS     5000
#define LINGER_BYTES  (64u << 20)
#define OUT_KEEP      (256u << 10)

static void on_timer(evutil_socket_t fd, short what, void *arg);
static void end_request(struct connection *connection);

/* ---- output ---- */

size_t nx_connection_backlog(const struct connection *connection)
{
    return evbuffer_get_length(bufferevent_get_output(connection->bev));
}

void nx_connection_send(struct connection *connection, const void *bytes, size_t length)
{
    if (!nx_text_add(&connection->worker->out, bytes, length)) {
        nx_connection_close(connection); /* no memory: half an answer is none */
    }
}

/* Sends what was gathered: most answers leave with one send and never see the event loop. */
static void flush(struct connection *connection)
{
    struct text *out = &connection->worker->out;
    size_t sent = 0;

    /* The pieces of a long answer take the event loop's way, so that others have their turn. */
    if (out->length > 0 && !connection->dead && !connection->answering &&
        nx_connection_backlog(connection) == 0) {
        ssize_t n = send(bufferevent_getfd(connection->bev), out->data, out->length, MSG_NOSIGNAL);

        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            connection->dead = true;
        }
        sent = n > 0 ? (size_t)n : 0;
    }
    if (sent < out->length && !connection->dead &&
        bufferevent_write(connection->bev, out->data + sent, out->length - sent) < 0) {
        connection->dead = true;
    }
    nx_text_reset(out, OUT_KEEP);
}

/* ---- timer ---- */

static void set_timer(struct connection *connection, uint64_t milliseconds)
{
    struct timeval wait = {
        .tv_sec = (time_t)(milliseconds / 1000),
        .tv_usec = (suseconds_t)(milliseconds % 1000 * 1000),
    };

    if (connection->timer == NULL) {
        connection->timer = evtimer_new(connection->worker->base, on_timer, connection);
    }
    if (connection->timer == NULL || evtimer_add(connection->timer, &wait) < 0) {
        nx_connection_close(connection);
        return;
    }
    connection->timed = true;
    connection->timer_ms = nx_now_ms();
}

static void stop_timer(struct connection *connection)
{
    if (connection->timed) {
        evtimer_del(connection->timer);
        connection->timed = false;
    }
}

void nx_connection_timer(struct connection *connection, uint64_t milliseconds)
{
    if (milliseconds == 0) {
        stop_timer(connection);
    } else {
        set_timer(connection, milliseconds);
    }
}

static uint64_t request_timeout(const struct connection *connection)
{
    return connection->worker->process->config->http.request_timeout_ms;
}

/* A client has request_timeout_ms for a whole head, and for each pause within a body. A pause that we
 * ask for doesn't count, nor does an idle connection: an idle node has no timers. */
static void settle_timer(struct connection *connection)
{
    bool begun = connection->state == CONN_HEAD && connection->scan.length > 0;

    if (begun && !connection->timed) {
        set_timer(connection, request_timeout(connection));
    }
    if (connection->state == CONN_BODY && !connection->held &&
        (!connection->timed ||
         nx_now_ms() - connection->timer_ms > request_timeout(connection) / 16)) {
        set_timer(connection, request_timeout(connection));
    }
    if ((connection->state == CONN_HEAD && !begun) ||
        (connection->state == CONN_BODY && connection->held)) {
        stop_timer(connection);
    }
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    struct connection *connection = arg;

    (void)fd;
    (void)what;
    connection->timed = false;
    switch (connection->state) {
    case CONN_HEAD:
        connection->keep_alive = false;
        nx_refuse(connection, NX_ERROR_REQUEST_TIMEOUT,
                  "The head of the request did not come within http.request_timeout_ms.");
        break;
    case CONN_BODY:
        connection->keep_alive = false;
        if (connection->early) {
            end_request(connection);
        } else {
            nx_refuse(connection, NX_ERROR_REQUEST_TIMEOUT,
                      "No byte of the body came for http.request_timeout_ms.");
        }
        break;
    case CONN_BUSY:
        if (connection->wait_expired != NULL) {
            connection->wait_expired(connection);
        }
        break;
    case CONN_FLUSH:
    case CONN_LINGER:
        nx_connection_close(connection);
        break;
    }
    nx_connection_run(connection);
}

/* ---- the end of a request ---- */

/* The handler is done with the request. */
static void drop_handler(struct connection *connection)
{
    struct request *request = connection->request;

    if (request != NULL && request->stream != NULL) {
        if (request->stream->closed != NULL) {
            request->stream->closed(connection);
        }
        request->stream = NULL;
    }
    nx_wait_cancel(connection);
    nx_submissions_disown(connection);
    connection->answering = false;
    connection->held = false;
}

static void drop_request(struct connection *connection)
{
    struct request *request = connection->request;

    drop_handler(connection);
    connection->early = false;
    if (request != NULL) {
        connection->request = NULL;
        nx_worker_give_request(connection->worker, request);
    }
}

/* An answer that needs no body (403, 404) doesn't cost the connection when the body is short. */
static bool worth_reading_past(const struct connection *connection)
{
    const struct request *request = connection->request;

    return request != NULL && connection->keep_alive && !request->chunked &&
           request->body_left <= READ_PAST && nx_request_header(request, "Expect") == NULL;
}

static bool body_read(const struct connection *connection)
{
    const struct request *request = connection->request;

    return request != NULL && (request->message_done || !request->has_body);
}

bool nx_connection_keeps(const struct connection *connection)
{
    return connection->keep_alive && !connection->worker->stopping && !connection->parsing &&
           (body_read(connection) || worth_reading_past(connection));
}

static void end_request(struct connection *connection)
{
    bool whole = body_read(connection);

    stop_timer(connection);
    if (!whole && nx_connection_keeps(connection)) {
        drop_handler(connection);
        connection->request->body_use = BODY_DISCARD;
        connection->early = true;
        connection->state = CONN_BODY;
        return;
    }
    connection->state = nx_connection_keeps(connection) ? CONN_HEAD : CONN_FLUSH;
    drop_request(connection);
    nx_head_scan_init(&connection->scan);
}

void nx_connection_answered(struct connection *connection)
{
    if (connection->parsing) {
        connection->ending = true;
    } else {
        end_request(connection);
    }
}

void nx_connection_close(struct connection *connection)
{
    connection->dead = true;
}

static void release(struct connection *connection)
{
    struct http_worker *worker = connection->worker;

    drop_request(connection);
    nx_submissions_disown(connection);
    if (connection->timer != NULL) {
        event_free(connection->timer);
    }
    LIST_REMOVE(connection, link);
    if (connection->counted) {
        atomic_fetch_sub_explicit(&nx_worker_row(worker)->connections, 1, memory_order_relaxed);
    }
    bufferevent_free(connection->bev);
    free(connection);
}

void nx_connection_retire(struct connection *connection)
{
    if (connection->state == CONN_HEAD && connection->scan.length == 0 &&
        nx_connection_backlog(connection) == 0) {
        nx_connection_close(connection);
    }
    nx_connection_run(connection);
}

/* ---- reading ---- */

/* The bytes at the front of the input that lie in one piece. */
static struct nx_slice front(struct connection *connection)
{
    struct evbuffer_iovec piece = {NULL, 0};

    if (evbuffer_peek(bufferevent_get_input(connection->bev), -1, NULL, &piece, 1) < 1) {
        return nx_slice_of(NULL, 0);
    }
    return nx_slice_of(piece.iov_base, piece.iov_len);
}

static void consume(struct connection *connection, size_t n)
{
    evbuffer_drain(bufferevent_get_input(connection->bev), n);
}

/* The head as one piece, however it came. */
static struct nx_slice gather_head(struct connection *connection)
{
    struct evbuffer *input = bufferevent_get_input(connection->bev);
    struct nx_slice bytes = front(connection);
    size_t all = evbuffer_get_length(input);

    /* Only as much as a head can be: what lies behind may be a large body. */
    if (bytes.length < all && bytes.length <= connection->scan.length) {
        bytes.length = all < READ_HIGH ? all : READ_HIGH;
        bytes.data = evbuffer_pullup(input, (ev_ssize_t)bytes.length);
        bytes.length = bytes.data == NULL ? 0 : bytes.length;
    }
    return bytes;
}

static void refuse_head(struct connection *connection, enum head_verdict verdict)
{
    connection->keep_alive = false;
    if (verdict == HEAD_TARGET_TOO_LONG) {
        nx_refuse(connection, NX_ERROR_URI_TOO_LONG, "The request target is above 16 KiB.");
    } else if (verdict == HEAD_TOO_LARGE) {
        nx_refuse(connection, NX_ERROR_HEADERS_TOO_LARGE,
                  "The headers are above 32 KiB or more than %d.", NX_HEAD_MAX_FIELDS);
    } else {
        nx_refuse(connection, NX_ERROR_BAD_REQUEST, "The request is malformed: %s.",
                  connection->scan.why);
    }
}

/* A head is whole: a request begins. */
static void begin_request(struct connection *connection, struct nx_slice head)
{
    struct http_worker *worker = connection->worker;
    struct request *request = nx_worker_take_request(worker);
    int rc;

    connection->keep_alive = false;
    if (request == NULL || !nx_text_add(&request->head, head.data, head.length)) {
        nx_connection_close(connection);
        if (request != NULL) {
            nx_worker_give_request(worker, request);
        }
        return;
    }
    consume(connection, head.length);
    stop_timer(connection);
    connection->request = request;
    connection->state = CONN_BUSY;
    request->owner = connection;
    rc = nx_request_parse_head(request);
    if (rc == -EBADMSG) {
        nx_refuse(connection, NX_ERROR_BAD_REQUEST, "The request is malformed: %s.",
                  request->malformed);
        return;
    }
    connection->keep_alive = rc == 0 && http_should_keep_alive(&request->parser) != 0;
    atomic_fetch_add_explicit(&nx_worker_row(worker)->requests, 1, memory_order_relaxed);
    nx_route(connection, rc == -ENOTSUP);
    if (connection->request == request && connection->state == CONN_BUSY && request->has_body &&
        !request->message_done && !connection->dead) {
        connection->state = CONN_BODY;
    }
}

static bool take_head(struct connection *connection)
{
    enum head_verdict verdict;

    if (nx_connection_backlog(connection) > BACKLOG_HIGH) {
        return false;
    }
    for (;;) {
        struct nx_slice bytes = gather_head(connection);
        size_t before = connection->scan.length;

        if (bytes.length <= before) {
            return false;
        }
        verdict = nx_head_scan(&connection->scan, (const char *)bytes.data, bytes.length);
        if (verdict == HEAD_DONE) {
            begin_request(connection, nx_slice_of(bytes.data, connection->scan.length));
            return true;
        }
        if (verdict != HEAD_MORE) {
            refuse_head(connection, verdict);
            return true;
        }
    }
}

/* ---- bodies ---- */

bool nx_connection_reserve(struct connection *connection, size_t bytes)
{
    struct request *request = connection->request;
    struct http_worker *worker = connection->worker;

    if (bytes > request->reserved) {
        size_t more = bytes - request->reserved;

        if (more > NX_BODY_BUDGET - worker->body_bytes) {
            return false;
        }
        request->reserved = bytes;
        worker->body_bytes += more;
    }
    return true;
}

/* Keeps content for the handler, within the endpoint's bound and the worker's budget. */
static void collect(struct connection *connection, struct nx_slice content)
{
    struct request *request = connection->request;

    if (request->body_seen > request->body_most) {
        nx_refuse_too_large(connection);
    } else if (!nx_connection_reserve(connection, (size_t)request->body_seen) ||
               !nx_text_add(&request->body, content.data, content.length)) {
        nx_refuse_body_budget(connection);
    }
}

void nx_connection_body(struct request *request, struct nx_slice content)
{
    struct connection *connection = request->owner;

    if (connection->ending || connection->dead) {
        return;
    }
    request->body_seen += content.length;
    switch (request->body_use) {
    case BODY_COLLECT:
        collect(connection, content);
        break;
    case BODY_STREAM:
        request->stream->data(connection, content);
        break;
    case BODY_DISCARD:
        break;
    }
}

static void body_done(struct connection *connection)
{
    struct request *request = connection->request;

    stop_timer(connection);
    connection->state = CONN_BUSY;
    if (connection->early) {
        end_request(connection);
    } else if (request->body_use == BODY_STREAM) {
        request->stream->end(connection);
    } else {
        nx_route_body_done(connection);
    }
}

static void refuse_body(struct connection *connection)
{
    connection->keep_alive = false;
    if (connection->early) {
        end_request(connection); /* answered already */
    } else {
        nx_refuse(connection, NX_ERROR_BAD_REQUEST, "The body is malformed: %s.",
                  connection->request->malformed);
    }
}

static bool take_body(struct connection *connection)
{
    struct request *request = connection->request;
    struct nx_slice bytes = front(connection);
    size_t used = 0;
    int rc;

    if (connection->held || bytes.length == 0) {
        return false;
    }
    if (bytes.length > BODY_PIECE) {
        bytes.length = BODY_PIECE;
    }
    connection->parsing = true;
    rc = nx_request_parse_body(request, bytes, &used);
    connection->parsing = false;
    if (connection->ending) { /* refused on the way */
        connection->ending = false;
        connection->keep_alive = false;
        end_request(connection);
    } else if (rc < 0) {
        refuse_body(connection);
    } else {
        consume(connection, used);
        if (request->message_done && !connection->dead) {
            body_done(connection);
        }
    }
    return true;
}

void nx_connection_hold(struct connection *connection)
{
    connection->held = true;
}

void nx_connection_release(struct connection *connection)
{
    connection->held = false;
}

/* ---- the end of a connection ---- */

static bool begin_linger(struct connection *connection)
{
    if (nx_connection_backlog(connection) > 0 || connection->worker->out.length > 0) {
        return false; /* the client has not taken the answer yet */
    }
    if (connection->eof) {
        nx_connection_close(connection);
        return true;
    }
    shutdown(bufferevent_getfd(connection->bev), SHUT_WR);
    connection->state = CONN_LINGER;
    set_timer(connection, LINGER_MS);
    return true;
}

static bool linger(struct connection *connection)
{
    size_t n = evbuffer_get_length(bufferevent_get_input(connection->bev));

    connection->lingered += n;
    consume(connection, n);
    if (connection->eof || connection->lingered > LINGER_BYTES) {
        nx_connection_close(connection);
    }
    return false;
}

static bool step(struct connection *connection)
{
    switch (connection->state) {
    case CONN_HEAD:
        return take_head(connection);
    case CONN_BODY:
        return take_body(connection);
    case CONN_BUSY:
        return false;
    case CONN_FLUSH:
        return begin_linger(connection);
    case CONN_LINGER:
        return linger(connection);
    }
    return false;
}

/* After the client's end-of-file nothing more can come: what is not whole by now never will be. */
static void judge_eof(struct connection *connection)
{
    if (connection->eof &&
        (connection->state == CONN_HEAD || (connection->state == CONN_BODY && !connection->held)) &&
        nx_connection_backlog(connection) <= BACKLOG_HIGH) {
        connection->state = CONN_FLUSH;
        drop_request(connection);
        stop_timer(connection);
    }
}

/* A client that sends faster than it is answered is left waiting in its socket. By hand, since a
 * bufferevent at its high watermark calls back without end. */
static void settle_reading(struct connection *connection)
{
    bool full = evbuffer_get_length(bufferevent_get_input(connection->bev)) >= READ_HIGH;

    if (full == connection->paused) {
        return;
    }
    connection->paused = full;
    if (full) {
        bufferevent_disable(connection->bev, EV_READ);
    } else if (bufferevent_enable(connection->bev, EV_READ) < 0) {
        nx_connection_close(connection);
    }
}

void nx_connection_run(struct connection *connection)
{
    if (connection->running) {
        return;
    }
    connection->running = true;
    do {
        while (!connection->dead && step(connection)) {
        }
        flush(connection);
        if (!connection->dead) {
            judge_eof(connection);
        }
    } while (!connection->dead && connection->state == CONN_FLUSH && step(connection));
    connection->running = false;
    if (connection->dead) {
        release(connection);
        return;
    }
    settle_timer(connection);
    settle_reading(connection);
    if (connection->dead) {
        release(connection);
    }
}

/* ---- events ---- */

static void on_read(struct bufferevent *bev, void *arg)
{
    (void)bev;
    nx_connection_run(arg);
}

/* The client took all that was buffered. */
static void on_drained(struct bufferevent *bev, void *arg)
{
    struct connection *connection = arg;

    (void)bev;
    if (connection->state == CONN_BUSY && connection->request != NULL &&
        connection->request->stream != NULL && connection->request->stream->drained != NULL) {
        connection->request->stream->drained(connection);
    }
    nx_connection_run(connection);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct connection *connection = arg;

    (void)bev;
    if ((what & BEV_EVENT_EOF) != 0 && (what & BEV_EVENT_READING) != 0) {
        connection->eof = true;
    } else {
        nx_connection_close(connection); /* reset, or it takes nothing for too long */
    }
    nx_connection_run(connection);
}

int nx_connection_open(struct http_worker *worker, int fd, enum peer_class peer)
{
    struct connection *connection = calloc(1, sizeof *connection);
    struct timeval stall = {.tv_sec = WRITE_STALL_S, .tv_usec = 0};

    if (connection != NULL) {
        connection->bev = bufferevent_socket_new(worker->base, fd, BEV_OPT_CLOSE_ON_FREE);
    }
    if (connection == NULL || connection->bev == NULL) {
        free(connection);
        close(fd);
        return -ENOMEM;
    }
    connection->worker = worker;
    connection->peer = peer;
    connection->counted = peer != PEER_UNIX;
    nx_head_scan_init(&connection->scan);
    LIST_INIT(&connection->submissions);
    LIST_INSERT_HEAD(&worker->connections, connection, link);
    if (connection->counted) {
        atomic_fetch_add_explicit(&nx_worker_row(worker)->connections, 1, memory_order_relaxed);
    }
    bufferevent_setcb(connection->bev, on_read, on_drained, on_event, connection);
    bufferevent_set_max_single_read(connection->bev, READ_HIGH);
    bufferevent_set_timeouts(connection->bev, NULL, &stall);
    if (bufferevent_enable(connection->bev, EV_READ) < 0) {
        nx_connection_close(connection);
        nx_connection_run(connection);
        return -ENOMEM;
    }
    return 0;
}
