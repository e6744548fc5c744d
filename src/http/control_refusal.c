/* Runs in http workers. See control_refusal.h. */
#include "http/control_refusal.h"

#include "common/fence.h"
#include "http/connection.h"
#include "http/node.h"
#include "http/query.h"
#include "http/response.h"
#include "http/worker.h"
#include "storage/file_io.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define EPOCH_MARK "epoch="

/* "epoch=<N> " at *text: takes it, and moves behind it. False: it is there, and no number. */
static bool take_epoch(const char **text, struct control_refusal *refusal)
{
    size_t mark = strlen(EPOCH_MARK);
    size_t length = strcspn(*text, " ");

    if (strncmp(*text, EPOCH_MARK, mark) != 0) {
        return true;
    }
    if (nx_parse_u64(nx_slice_of(*text + mark, length - mark), &refusal->epoch) < 0) {
        return false;
    }
    refusal->has_epoch = true;
    *text += length + strspn(*text + length, " ");
    return true;
}

bool nx_control_refusal_parse(const char *text, struct control_refusal *ret_refusal)
{
    struct control_refusal refusal = {.has_epoch = false};
    size_t length = strcspn(text, " ");

    if (!nx_error_of_name(text, length, &refusal.code)) {
        return false;
    }
    text += length + strspn(text + length, " ");
    if (!take_epoch(&text, &refusal) || *text == '\0') {
        return false;
    }
    refusal.sentence = text;
    *ret_refusal = refusal;
    return true;
}

static void respond_refusal(struct connection *connection, const struct control_refusal *refusal)
{
    struct nx_fence fence;
    struct problem problem = {
        .code = refusal->code,
        .has_epoch = refusal->has_epoch,
        .epoch = refusal->epoch,
    };

    if (refusal->code == NX_ERROR_FENCED) {
        nx_fence_read(connection->worker->shm, &fence);
        if (fence.http_addr[0] != '\0') {
            nx_node_url(fence.http_addr, problem.master, sizeof problem.master);
        }
    }
    snprintf(problem.message, sizeof problem.message, "%.*s", (int)sizeof problem.message - 1,
             refusal->sentence);
    nx_respond_problem(connection, &problem);
}

/* What an error says that has no code of its own. */
static enum nx_error code_of(int error)
{
    switch (error) {
    case -EAGAIN:
    case -EBUSY:
    case -ESHUTDOWN:
        return NX_ERROR_ROLE_CHANGE;
    case -ENOSPC:
    case -EDQUOT:
        return NX_ERROR_DISK_FULL;
    default:
        return NX_ERROR_INTERNAL;
    }
}

static const char *sentence_of(int error)
{
    switch (error) {
    case -EAGAIN:
    case -EBUSY:
        return "This node is changing its role already; ask again in a moment.";
    case -ESHUTDOWN:
        return "This node is stopping and changes its role no more.";
    default:
        return NULL;
    }
}

void nx_control_refuse(struct connection *connection, const struct nx_control_message *reply)
{
    struct control_refusal refusal;
    const char *sentence = reply->text[0] != '\0' ? reply->text : sentence_of(reply->status);

    if (reply->status == -ECANCELED && nx_control_refusal_parse(reply->text, &refusal)) {
        respond_refusal(connection, &refusal);
    } else if (sentence != NULL) {
        nx_refuse(connection, code_of(reply->status), "%s", sentence);
    } else {
        nx_refuse(connection, code_of(reply->status),
                  "This node could not do it: %s; its log says more.",
                  nx_errno_text(reply->status));
    }
}
