/* Runs in http workers. POST and DELETE /replication/promise, between nodes: one that is to be promoted asks its
 * peers to follow no lower epoch than its new one, and where their logs end. The postmaster stores the promise
 * before it answers. */
#include "common/json_out.h"
#include "common/uuid_text.h"
#include "http/connection.h"
#include "http/control_ask.h"
#include "http/control_refusal.h"
#include "http/node.h"
#include "http/response.h"
#include "http/role_bodies.h"
#include "http/router.h"
#include "http/worker.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* "<epoch> <offset> <crc>": where this node's log ends. */
struct promised_position {
    uint64_t epoch;
    uint64_t offset;
    uint64_t crc;
};

static bool parse_position(const char *text, struct promised_position *ret_position)
{
    uint64_t *const numbers[] = {&ret_position->epoch, &ret_position->offset, &ret_position->crc};

    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        size_t length = strcspn(text, " ");

        if (nx_parse_u64(nx_slice_of(text, length), numbers[i]) < 0) {
            return false;
        }
        text += length + (text[length] == ' ' ? 1 : 0);
    }
    return *text == '\0';
}

static void respond_promised(struct connection *connection,
                             const struct promised_position *position)
{
    struct nx_shm *shm = connection->worker->shm;
    struct text *text = &connection->worker->json;
    struct json json = nx_json_of(text);
    char cluster_id[NX_UUID_TEXT];

    nx_node_cluster_id(shm, cluster_id);
    nx_text_reset(text, SIZE_MAX);
    nx_json_open(&json, NULL, '{');
    nx_json_bool(&json, "success", true);
    nx_json_u64(&json, "epoch", position->epoch);
    nx_json_u64(&json, "offset", position->offset);
    nx_json_u64(&json, "crc", position->crc);
    nx_json_string(&json, "node_id", shm->control.node_id);
    nx_json_string(&json, "cluster_id", cluster_id);
    nx_json_close(&json, '}');
    nx_text_puts(text, "\n");
    nx_respond_json(connection, text);
}

static void on_promised(struct connection *connection, const struct nx_control_message *reply)
{
    struct promised_position position;

    if (reply->status < 0) {
        nx_control_refuse(connection, reply);
    } else if (!parse_position(reply->text, &position)) {
        nx_refuse(connection, NX_ERROR_INTERNAL,
                  "The promise stands, but where this node's log "
                  "ends was not told.");
    } else {
        respond_promised(connection, &position);
    }
}

static void on_withdrawn(struct connection *connection, const struct nx_control_message *reply)
{
    struct text *text = &connection->worker->json;

    if (reply->status < 0) {
        nx_control_refuse(connection, reply);
        return;
    }
    nx_text_reset(text, SIZE_MAX);
    nx_text_puts(text, "{\"success\":true}\n");
    nx_respond_json(connection, text);
}

/* A node that lists itself among its peers must not count twice. */
static bool check_asker(struct connection *connection, const struct promise_body *body)
{
    if (strcmp(body->node_id, connection->worker->shm->control.node_id) == 0) {
        nx_refuse(connection, NX_ERROR_BAD_PARAMETER,
                  "\"node_id\" is this node's own: replication.peers lists all other nodes, never "
                  "the node itself.");
        return false;
    }
    return true;
}

static void ask(struct connection *connection,
                enum nx_control_type type,
                nx_control_request_reply *reply)
{
    struct promise_body body;
    char text[NX_UUID_TEXT + 48];

    if (nx_node_check_replicates(connection) && nx_promise_body_take(connection, &body) &&
        check_asker(connection, &body) &&
        nx_node_check_serving(connection, "promises nothing more")) {
        snprintf(text, sizeof text, "%" PRIu64 " %s %" PRIu64, body.epoch, body.node_id,
                 body.attempt);
        (void)nx_control_ask_for(connection, type, 0, text, reply);
    }
}

void nx_handle_promise_make(struct connection *connection)
{
    ask(connection, NX_CONTROL_PROMISE, on_promised);
}

void nx_handle_promise_withdraw(struct connection *connection)
{
    ask(connection, NX_CONTROL_WITHDRAW, on_withdrawn);
}
