/* Runs in http workers; owns the table of open questions. The channel keeps order and the postmaster
 * answers each question, so a place in the table is free again in any case; when the postmaster is gone,
 * so is the worker. See control_ask.h. */
#include "http/control_ask.h"

#include "http/connection.h"
#include "http/response.h"
#include "http/worker.h"
#include "storage/file_io.h"

#include <errno.h>
#include <stdio.h>

static struct nx_control_ask *find(struct http_worker *worker, uint64_t ticket)
{
    for (unsigned i = 0; i < NX_MOST_ASKS; i++) {
        if (worker->asks.list[i].ticket == ticket) {
            return &worker->asks.list[i];
        }
    }
    return NULL;
}

/* Sends the question and keeps who asks under its ticket. */
static int send_question(struct http_worker *worker,
                         const struct nx_control_message *question,
                         struct nx_control_ask ask)
{
    struct nx_control_ask *place = find(worker, 0);
    int rc;

    if (place == NULL) {
        return -EAGAIN;
    }
    ask.ticket = worker->asks.last_ticket + 1;
    rc = nx_control_send(worker->process->control.fd, (enum nx_control_type)question->type,
                         question->status, ask.ticket, question->text);
    if (rc == 0) {
        worker->asks.last_ticket = ask.ticket;
        *place = ask;
    }
    return rc;
}

static struct nx_control_message question_of(enum nx_control_type type,
                                             int32_t status,
                                             const char *text)
{
    struct nx_control_message question = {.type = type, .status = status};

    snprintf(question.text, sizeof question.text, "%s", text == NULL ? "" : text);
    return question;
}

int nx_control_ask(struct http_worker *worker,
                   enum nx_control_type type,
                   int32_t status,
                   const char *text,
                   nx_control_reply *reply)
{
    struct nx_control_message question = question_of(type, status, text);

    return send_question(worker, &question, (struct nx_control_ask){.all = reply});
}

static void on_closed(struct connection *connection)
{
    struct http_worker *worker = connection->worker;

    for (unsigned i = 0; i < NX_MOST_ASKS; i++) {
        if (worker->asks.list[i].connection == connection) {
            worker->asks.list[i].connection = NULL;
        }
    }
}

static const struct stream ask_stream = {
    .closed = on_closed,
};

bool nx_control_ask_for(struct connection *connection,
                        enum nx_control_type type,
                        int32_t status,
                        const char *text,
                        nx_control_request_reply *reply)
{
    struct nx_control_message question = question_of(type, status, text);
    int rc = send_question(connection->worker, &question,
                           (struct nx_control_ask){.one = reply, .connection = connection});

    if (rc < 0) {
        nx_refuse(connection, NX_ERROR_OVERLOADED,
                  "This node can't act on it at the moment (%s); try again.", nx_errno_text(rc));
        return false;
    }
    connection->request->stream = &ask_stream;
    return true;
}

void nx_control_asks_answered(struct http_worker *worker, const struct nx_control_message *reply)
{
    struct nx_control_ask *place =
        reply->type == NX_CONTROL_DONE && reply->arg != 0 ? find(worker, reply->arg) : NULL;
    struct nx_control_ask ask;

    if (place == NULL) {
        return;
    }
    ask = *place;
    *place = (struct nx_control_ask){.ticket = 0}; /* free for what the reply leads to */
    if (ask.all != NULL) {
        ask.all(worker, reply);
    } else if (ask.connection != NULL) {
        ask.one(ask.connection, reply);
        nx_connection_run(ask.connection);
    }
}

void nx_control_asks_end(struct http_worker *worker)
{
    for (unsigned i = 0; i < NX_MOST_ASKS; i++) {
        struct connection *connection = worker->asks.list[i].connection;

        if (connection != NULL) {
            nx_refuse(connection, NX_ERROR_ROLE_CHANGE,
                      "This node is stopping; whether it still did this isn't known.");
            nx_connection_run(connection);
        }
    }
}
