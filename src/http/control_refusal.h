/* What the postmaster answers when it doesn't do what an http worker asked for a client, and the problem that
 * the client gets (control.h: changes of the role). */
#ifndef NX_HTTP_CONTROL_REFUSAL_H
#define NX_HTTP_CONTROL_REFUSAL_H

#include "common/control.h"
#include "common/error_codes.h"

#include <stdbool.h>
#include <stdint.h>

struct connection;

struct control_refusal {
    enum nx_error code;
    bool has_epoch;
    uint64_t epoch;
    const char *sentence; /* within the text */
};

/* Takes "<code> <sentence>" or "<code> epoch=<N> <sentence>" apart. False: it is neither. */
bool nx_control_refusal_parse(const char *text, struct control_refusal *ret_refusal);

/* Answers the request of a reply whose status is negative. */
void nx_control_refuse(struct connection *connection, const struct nx_control_message *reply);

#endif
