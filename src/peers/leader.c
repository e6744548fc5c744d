/* Runs in the peers process. See leader.h. */
#include "peers/leader.h"

#include "common/uuid_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool nx_peer_is_ours(const struct nx_peer_status *status, const struct nx_self *self)
{
    return self->cluster_id[0] != '\0' && strcmp(status->cluster_id, self->cluster_id) == 0 &&
           strcmp(status->node_id, self->node_id) != 0 &&
           (status->epoch <= self->epoch || status->epoch - self->epoch <= NX_MOST_EPOCHS_AHEAD);
}

int nx_leads_before(uint64_t epoch, const char *node_id, const struct nx_self *self)
{
    if (epoch != self->epoch) {
        return epoch < self->epoch ? -1 : 1;
    }
    return strcmp(node_id, self->node_id);
}

bool nx_peer_leads(const struct nx_peer_status *status)
{
    return status->role == NX_NODE_MASTER && !status->fenced;
}

/* Whether this node, which has led in no epoch like that yet, yields to a master of it. One that only starts may be in
 * the same case: then the id decides, but for the epoch's own. */
static bool yields_to(const struct nx_peer_status *status, const struct nx_self *self)
{
    return self->yields && (!status->starting || strcmp(status->node_id, self->led_by) == 0);
}

bool nx_peer_leads_instead(const struct nx_peer_status *status, const struct nx_self *self)
{
    if (!nx_peer_is_ours(status, self)) {
        return false;
    }
    return status->epoch > self->epoch ||
           (nx_peer_leads(status) && status->epoch == self->epoch &&
            (yields_to(status, self) || nx_leads_before(status->epoch, status->node_id, self) > 0));
}

bool nx_peer_proves(const struct nx_peer_status *status,
                    const struct nx_epochs *theirs,
                    const struct nx_epochs *ours)
{
    const struct nx_epoch *last = nx_epochs_last(theirs);
    char led_by[NX_UUID_TEXT];
    uint64_t fork;

    if (last == NULL || last->epoch != status->epoch) {
        return false;
    }
    nx_uuid_print(last->node_id, led_by);
    if (nx_peer_leads(status) && strcmp(led_by, status->node_id) != 0) {
        return false;
    }
    return ours == NULL || nx_epochs_fork(ours, UINT64_MAX, theirs, UINT64_MAX, &fork);
}

/* Whether a is the better answer to who leads. */
static bool is_better(const struct nx_peer_status *a, const struct nx_peer_status *b)
{
    if (nx_peer_leads(a) != nx_peer_leads(b)) {
        return nx_peer_leads(a);
    }
    return a->epoch != b->epoch ? a->epoch > b->epoch : strcmp(a->node_id, b->node_id) > 0;
}

static const char *or_none(const char *addr)
{
    return addr[0] == '\0' ? "-" : addr;
}

void nx_leader_text(uint64_t epoch,
                    const char *node_id,
                    const char *replication_addr,
                    const char *http_addr,
                    char *text,
                    size_t cap)
{
    (void)snprintf(text, cap, "%" PRIu64 " %s %s %s", epoch, node_id, or_none(replication_addr),
                   or_none(http_addr));
}

bool nx_leader_choose(const struct nx_peer_seen *seen,
                      unsigned count,
                      const struct nx_self *self,
                      char *text,
                      size_t cap)
{
    const struct nx_peer_seen *best = NULL;

    for (unsigned i = 0; i < count; i++) {
        if (seen[i].believed && nx_peer_leads_instead(&seen[i].status, self) &&
            (best == NULL || is_better(&seen[i].status, &best->status))) {
            best = &seen[i];
        }
    }
    if (best == NULL) {
        return false;
    }
    if (nx_peer_leads(&best->status)) {
        nx_leader_text(best->status.epoch, best->status.node_id, best->status.replication_addr,
                       best->addr, text, cap);
    } else {
        nx_leader_text(best->status.epoch, NX_NODE_NOBODY, "", "", text, cap);
    }
    return true;
}
