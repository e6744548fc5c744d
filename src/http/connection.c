/* Runs in http workers. Owns the sockets of clients: reads, has the bytes taken apart and answered
 * (connection_input.c), writes the answers, and ends what is malformed, silent or stuck. It knows no
 * endpoint. See connection.h for a connection's life. */
#include "http/connection.h"

#include "common/tls.h"
#include "http/connection_parts.h"
#include "http/response.h"
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

#define WRITE_STALL_S 10          /* a client that takes nothing for so long is cut */
#define READ_PAST     (64u << 10) /* rest of a body that is read past to keep a connection */
#define LINGER_MS     5000
#define LINGER_BYTES  (64u << 20)

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
    connection->prompt = false;
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

    nx_connection_timer(connection, 0);
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
    worker->turned_away -= connection->turned_away ? 1 : 0;
    nx_connection_forget_output(connection);
    nx_connection_read_end(connection);
    bufferevent_free(connection->bev);
    free(connection->shaking_peer);
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

void nx_connection_part(struct connection *connection, uint64_t milliseconds)
{
    connection->parting = true;
    nx_connection_timer(connection, milliseconds);
}

/* ---- the end of a connection ---- */

static bool begin_linger(struct connection *connection)
{
    if (nx_connection_backlog(connection) > 0 || connection->worker->out.length > 0) {
        return false; /* the client has not taken the answer yet */
    }
    if (connection->eof || connection->parting) {
        nx_connection_close(connection);
        return true;
    }
    if (connection->tls) {
        nx_connection_tls_end(connection);
    }
    shutdown(bufferevent_getfd(connection->bev), SHUT_WR);
    connection->state = CONN_LINGER;
    nx_connection_timer(connection, LINGER_MS);
    return true;
}

static bool linger(struct connection *connection)
{
    struct evbuffer *input = bufferevent_get_input(connection->bev);
    size_t n = evbuffer_get_length(input);

    connection->lingered += n;
    evbuffer_drain(input, n);
    if (connection->eof || connection->lingered > LINGER_BYTES) {
        nx_connection_close(connection);
    }
    return false;
}

/* Answers to what a client has sent ahead don't pile up: they are counted only when they have left here. */
static bool next_request(struct connection *connection)
{
    if (connection->worker->out.length > NX_BACKLOG_HIGH) {
        nx_connection_flush(connection);
    }
    return !connection->dead && nx_connection_take_head(connection);
}

static bool step(struct connection *connection)
{
    switch (connection->state) {
    case CONN_HEAD:
        return next_request(connection);
    case CONN_BODY:
        return nx_connection_take_body(connection);
    case CONN_BUSY:
        return false;
    case CONN_FLUSH:
        return begin_linger(connection);
    case CONN_LINGER:
        return linger(connection);
    }
    return false;
}

/* After the client's end-of-file nothing more can come: what is not whole by now never will be, and its
 * client may still listen. True: the connection has gone on. */
static bool judge_eof(struct connection *connection)
{
    bool in_head = connection->state == CONN_HEAD;
    bool in_body = connection->state == CONN_BODY && !connection->held;

    if (!connection->eof || (!in_head && !in_body) || nx_connection_sated(connection)) {
        return false;
    }
    if (connection->early || (in_head && connection->scan.length == 0)) {
        connection->state = CONN_FLUSH;
        drop_request(connection);
        nx_connection_timer(connection, 0);
        return true;
    }
    connection->keep_alive = false;
    nx_refuse(connection, NX_ERROR_BAD_REQUEST,
              "The connection ended within the %s of the request.", in_head ? "head" : "body");
    return true;
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
        nx_connection_flush(connection);
    } while (!connection->dead &&
             (judge_eof(connection) || (connection->state == CONN_FLUSH && step(connection))));
    connection->running = false;
    if (connection->dead) {
        release(connection);
        return;
    }
    nx_connection_settle_timer(connection);
    nx_connection_settle_reading(connection);
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

/* The handler that has the request now, NULL: none that outlives its call. */
static const struct stream *stream_of(const struct connection *connection)
{
    return connection->state == CONN_BUSY && connection->request != NULL
               ? connection->request->stream
               : NULL;
}

/* The client took all that was buffered. */
static void on_drained(struct bufferevent *bev, void *arg)
{
    struct connection *connection = arg;
    const struct stream *stream = stream_of(connection);

    (void)bev;
    if (stream != NULL && stream->drained != NULL) {
        stream->drained(connection);
    }
    nx_connection_run(connection);
}

void nx_connection_ended(struct connection *connection, bool eof)
{
    const struct stream *stream = stream_of(connection);

    if (eof) {
        connection->eof = true;
        if (connection->tls) {
            nx_connection_tls_eof(connection);
        }
        nx_wait_eof(connection);
        if (stream != NULL && stream->eof != NULL) {
            stream->eof(connection);
        }
    } else {
        nx_connection_close(connection); /* reset, or it takes nothing for too long */
    }
    nx_connection_run(connection);
}

static void on_event(struct bufferevent *bev, short what, void *arg)
{
    struct connection *connection = arg;

    (void)bev;
    if (connection->shaking) {
        nx_connection_tls_event(connection, what);
    } else {
        nx_connection_ended(connection,
                            (what & BEV_EVENT_EOF) != 0 && (what & BEV_EVENT_READING) != 0);
    }
}

int nx_connection_open(struct http_worker *worker, int fd, enum peer_class peer)
{
    struct connection *connection = calloc(1, sizeof *connection);
    struct timeval stall = {.tv_sec = WRITE_STALL_S, .tv_usec = 0};

    if (connection != NULL) {
        connection->tls = peer != PEER_UNIX && nx_tls_on(NX_TLS_HTTP);
        connection->bev = connection->tls
                              ? nx_connection_tls_new(worker, fd)
                              : bufferevent_socket_new(worker->base, fd, BEV_OPT_CLOSE_ON_FREE);
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
    bufferevent_set_max_single_read(connection->bev, NX_READ_HIGH);
    bufferevent_set_timeouts(connection->bev, NULL, &stall);
    if (connection->tls) {
        nx_connection_tls_begin(connection);
    }
    if (connection->dead || nx_connection_read_begin(connection) < 0) {
        nx_connection_close(connection);
        nx_connection_run(connection);
        return -ENOMEM;
    }
    return 0;
}

void nx_connection_turn_away(struct connection *connection)
{
    struct http_worker *worker = connection->worker;

    if (connection->counted) {
        atomic_fetch_sub_explicit(&nx_worker_row(worker)->connections, 1, memory_order_relaxed);
    }
    connection->counted = false;
    connection->turned_away = true;
    worker->turned_away++;
    nx_refuse(connection, NX_ERROR_OVERLOADED,
              "This node has http.max_connections connections; try again.");
    nx_connection_run(connection);
}
