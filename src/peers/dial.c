/* Runs in the peers process; owns one socket a call. See dial.h. What comes is a stranger's: frame_io.h bounds and
 * checks it. */
#include "peers/dial.h"

#include "common/advertised.h"
#include "common/net.h"
#include "common/uuid_text.h"

#include <event2/event.h>

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define IN_TYPICAL  ((size_t)8 << 10)
#define OUT_TYPICAL NX_WIRE_MAX_PAYLOAD_HELLO /* a Hello with a whole history */

static struct nx_dial *dial_of(struct nx_reach *reach)
{
    return (struct nx_dial *)(void *)reach;
}

/* ---- answers ---- */

static void copy_id(struct nx_slice id, char ret_id[NX_UUID_TEXT])
{
    ret_id[0] = '\0';
    if (nx_slice_is_uuid(id)) {
        nx_uuid_canonical(id, ret_id);
    }
}

static int take_welcome(struct nx_dial *dial, const struct nx_frame *frame)
{
    struct nx_msg_welcome welcome;
    char peer[NX_ADDR_SIZE];

    if (nx_wire_decode_welcome(frame->payload, frame->payload_length, &welcome) < 0) {
        return -EBADMSG;
    }
    dial->epoch = welcome.epoch;
    copy_id(welcome.master_id, dial->master_id);
    copy_id(welcome.cluster_id, dial->cluster_id);
    nx_net_peer(dial->io.fd, peer);
    if (nx_advertised_resolve(welcome.http_addr, peer, dial->http_addr) < 0) {
        dial->http_addr[0] = '\0';
    }
    dial->answer = NX_DIAL_WELCOME;
    return 0;
}

static int take_error(struct nx_dial *dial, const struct nx_frame *frame)
{
    struct nx_msg_error error;
    size_t length;

    if (nx_wire_decode_error(frame->payload, frame->payload_length, &error) < 0) {
        return -EBADMSG;
    }
    length =
        error.message.length < sizeof dial->text ? error.message.length : sizeof dial->text - 1;
    if (length > 0) {
        memcpy(dial->text, error.message.data, length);
    }
    dial->text[length] = '\0';
    dial->code = error.code;
    dial->answer = NX_DIAL_ERROR;
    return 0;
}

/* The answer, once it is whole. 0, -EAGAIN or -EBADMSG. */
static int take_answer(struct nx_dial *dial)
{
    struct nx_frame frame;
    int rc = nx_frame_io_next(&dial->io, &frame);

    if (rc < 0) {
        return rc;
    }
    if (frame.type == NX_MSG_WELCOME) {
        return take_welcome(dial, &frame);
    }
    return frame.type == NX_MSG_ERROR ? take_error(dial, &frame) : -EBADMSG;
}

/* ---- a try ---- */

static void fail(struct nx_dial *dial, int rc)
{
    if (rc == -EPROTO || rc == -EKEYEXPIRED) { /* TLS knows more */
        (void)nx_frame_io_error(&dial->io, rc, dial->reach.why, sizeof dial->reach.why);
    }
    nx_reach_fail(&dial->reach, rc);
}

/* Sends what waits. */
static void output(struct nx_dial *dial)
{
    int rc = nx_frame_io_flush(&dial->io);

    if (rc == -EAGAIN) {
        if ((nx_frame_io_events(&dial->io, false) & POLLOUT) != 0) {
            (void)event_add(dial->writable, NULL);
        }
    } else if (rc < 0) {
        fail(dial, rc);
    }
}

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
    struct nx_dial *dial = arg;
    int rc = 0;

    (void)fd;
    (void)what;
    while (rc == 0) {
        rc = take_answer(dial);
        if (rc == 0) {
            nx_reach_succeed(&dial->reach);
            (void)event_del(dial->readable);
            return;
        }
        rc = rc == -EAGAIN ? nx_frame_io_receive(&dial->io) : rc;
    }
    if (rc != -EAGAIN) {
        fail(dial, rc);
        (void)event_del(dial->readable);
    } else if (nx_frame_io_pending(&dial->io) > 0) {
        output(dial); /* TLS may have waited for what has come */
    }
}

static int say_hello(struct nx_dial *dial)
{
    struct nx_net_addr addr;
    int rc;

    (void)nx_net_nodelay(dial->fd);
    nx_frame_io_open(&dial->io, dial->fd, NX_WIRE_MASTER, IN_TYPICAL, OUT_TYPICAL);
    dial->io_open = true;
    dial->fd = -1;
    if (nx_tls_on(NX_TLS_DIAL)) {
        rc = nx_net_parse(dial->reach.addr, &addr);
        rc = rc < 0 ? rc : nx_frame_io_secure(&dial->io, NX_TLS_DIAL, addr.host);
        if (rc < 0) {
            return rc;
        }
    }
    rc = nx_frame_io_put_hello(&dial->io, dial->hello);
    if (rc == 0) {
        output(dial);
        (void)event_add(dial->readable, NULL);
    }
    return rc;
}

static void on_connected(struct nx_dial *dial)
{
    int error = 0;
    socklen_t size = sizeof error;
    int rc;

    if (getsockopt(dial->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
        error = errno;
    }
    if (error != 0) {
        nx_reach_fail(&dial->reach, -error);
    } else if (dial->hello == NULL) {
        dial->answer = NX_DIAL_ACCEPTED;
        nx_reach_succeed(&dial->reach);
    } else {
        rc = say_hello(dial);
        if (rc < 0) {
            nx_reach_fail(&dial->reach, rc);
        }
    }
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
    struct nx_dial *dial = arg;

    (void)fd;
    (void)what;
    if (dial->io_open) {
        output(dial);
    } else {
        on_connected(dial);
    }
}

static int begin(struct nx_reach *reach, const struct nx_address *address)
{
    struct nx_dial *dial = dial_of(reach);

    dial->fd = socket(address->addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (dial->fd < 0) {
        return -errno;
    }
    dial->readable =
        event_new(reach->loop->base, dial->fd, EV_READ | EV_PERSIST, on_readable, dial);
    dial->writable = event_new(reach->loop->base, dial->fd, EV_WRITE, on_writable, dial);
    if (dial->readable == NULL || dial->writable == NULL) {
        return -ENOMEM;
    }
    if (connect(dial->fd, (const struct sockaddr *)&address->addr, address->length) != 0 &&
        errno != EINPROGRESS) {
        return -errno;
    }
    return event_add(dial->writable, NULL) == 0 ? 0 : -ENOMEM;
}

static bool connected(const struct nx_reach *reach)
{
    const struct nx_dial *dial = (const struct nx_dial *)(const void *)reach;

    return dial->io_open || dial->answer != NX_DIAL_NONE;
}

static void free_event(struct event **event)
{
    if (*event != NULL) {
        event_free(*event);
        *event = NULL;
    }
}

static void drop(struct nx_reach *reach)
{
    struct nx_dial *dial = dial_of(reach);

    free_event(&dial->readable);
    free_event(&dial->writable);
    if (dial->io_open) {
        nx_frame_io_close(&dial->io);
        dial->io_open = false;
    }
    if (dial->fd >= 0) {
        close(dial->fd);
    }
    dial->fd = -1;
}

static const struct nx_reach_kind dial_kind = {
    .begin = begin,
    .connected = connected,
    .drop = drop,
};

void nx_dial_begin(struct nx_loop *loop, struct nx_dial *dial, const char *addr, unsigned limit_ms)
{
    static_assert(offsetof(struct nx_dial, reach) == 0, "dial_of");

    *dial = (struct nx_dial){.hello = dial->hello, .fd = -1};
    nx_reach_begin(&dial->reach, loop, &dial_kind, addr, limit_ms);
}

void nx_dial_end(struct nx_dial *dial)
{
    nx_reach_abandon(&dial->reach);
}
