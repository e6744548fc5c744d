/* See connection.h. */
#include "nexus-bench/connection.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static_assert(sizeof(struct bench_flight) == 16, "four in a cache line");

static int greet(struct bench_connection *connection)
{
    struct text greeting = {.data = NULL};
    int rc;

    if (connection->protocol->open == NULL) {
        return 0;
    }
    connection->protocol->open(connection->state, &greeting);
    rc = greeting.failed ? -ENOMEM : bench_connection_send(connection, &greeting);
    nx_text_free(&greeting);
    return rc;
}

int bench_connection_open(struct bench_connection *connection, char *error, size_t cap)
{
    int rc;

    connection->fd = -1;
    connection->state = calloc(1, connection->protocol->state_size);
    connection->flights = calloc(connection->depth, sizeof *connection->flights);
    if (connection->state == NULL || connection->flights == NULL) {
        (void)snprintf(error, cap, "memory is short");
        return -ENOMEM;
    }
    connection->fd = bench_connect(connection->target, error, cap);
    if (connection->fd < 0) {
        return connection->fd;
    }
    rc = greet(connection);
    if (rc < 0) {
        (void)snprintf(error, cap, "%s: %s", connection->target->text, strerrordesc_np(-rc));
    }
    return rc;
}

void bench_connection_close(struct bench_connection *connection)
{
    if (connection->fd >= 0) {
        close(connection->fd);
    }
    if (connection->state != NULL && connection->protocol->close != NULL) {
        connection->protocol->close(connection->state);
    }
    free(connection->state);
    free(connection->flights);
    nx_text_free(&connection->unsent);
    nx_text_free(&connection->rest);
    *connection = (struct bench_connection){.fd = -1};
}

/* ---- under way ---- */

void bench_connection_push(struct bench_connection *connection, const struct bench_flight *flight)
{
    uint32_t at = connection->first + connection->under_way;

    assert(connection->under_way < connection->depth);
    connection->flights[at < connection->depth ? at : at - connection->depth] = *flight;
    connection->under_way++;
}

const struct bench_flight *bench_connection_oldest(const struct bench_connection *connection)
{
    return &connection->flights[connection->first];
}

void bench_connection_pop(struct bench_connection *connection)
{
    connection->first = connection->first + 1 == connection->depth ? 0 : connection->first + 1;
    connection->under_way--;
}

/* ---- bytes ---- */

/* Bytes that the socket took; 0 when it has no room; -errno. */
static ssize_t send_some(int fd, const uint8_t *bytes, size_t length)
{
    ssize_t n;

    do {
        n = send(fd, bytes, length, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == EAGAIN ? 0 : -errno;
    }
    return n;
}

int bench_connection_send(struct bench_connection *connection, const struct text *bytes)
{
    ssize_t n = 0;

    if (connection->unsent.length == 0) {
        n = send_some(connection->fd, bytes->data, bytes->length);
        if (n < 0) {
            return (int)n;
        }
    }
    if ((size_t)n < bytes->length &&
        !nx_text_add(&connection->unsent, bytes->data + n, bytes->length - (size_t)n)) {
        return -ENOMEM;
    }
    return 0;
}

int bench_connection_flush(struct bench_connection *connection)
{
    ssize_t n = 1;

    while (n > 0 && connection->sent < connection->unsent.length) {
        n = send_some(connection->fd, connection->unsent.data + connection->sent,
                      connection->unsent.length - connection->sent);
        connection->sent += n > 0 ? (size_t)n : 0;
    }
    if (connection->sent == connection->unsent.length) {
        connection->unsent.length = 0;
        connection->sent = 0;
    }
    return n < 0 ? (int)n : 0;
}

int bench_connection_receive(struct bench_connection *connection,
                             uint8_t *buffer,
                             size_t cap,
                             struct nx_slice *ret_data,
                             bool *ret_drained)
{
    size_t before = connection->rest.length;
    ssize_t n;

    if (before == cap) {
        return -EMSGSIZE;
    }
    if (before > 0) {
        memcpy(buffer, connection->rest.data, before);
    }
    do {
        n = recv(connection->fd, buffer + before, cap - before, 0);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return -errno;
    }
    if (n == 0) {
        return -ECONNRESET;
    }
    connection->rest.length = 0;
    *ret_drained = before + (size_t)n < cap;
    *ret_data = nx_slice_of(buffer, before + (size_t)n);
    return 0;
}

int bench_connection_keep(struct bench_connection *connection, struct nx_slice unused)
{
    return nx_text_add(&connection->rest, unused.data, unused.length) ? 0 : -ENOMEM;
}
