/* Changes of the node's role. Runs in the postmaster. */
#include "postmaster/postmaster.h"

#include <errno.h>

void nx_role_message(struct nx_postmaster *pm,
                     unsigned slot,
                     const struct nx_control_message *message)
{
    (void)nx_control_send(pm->children[slot].control_fd, NX_CONTROL_DONE, -ECANCELED, message->arg,
                          "role_change This node can't change its role yet.");
}
