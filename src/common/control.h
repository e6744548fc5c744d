/* The control channel between the postmaster and one child: commands and replies, never data.
 *
 * A SOCK_SEQPACKET socket pair: message boundaries are kept, it goes both ways, and its end of
 * file tells either side that the other is gone. Messages are of one fixed size, so that a read is
 * never half a message. Both ends are non-blocking and close-on-exec. */
#ifndef NX_COMMON_CONTROL_H
#define NX_COMMON_CONTROL_H

#include <stdint.h>

enum nx_control_type {
    /* child to postmaster */
    NX_CONTROL_READY =
        1, /* serves; walwriter: recovery is done; arg 1: an epoch should begin before this node
                           * serves as a master, text = why */
    NX_CONTROL_FATAL, /* text: why a person is needed; the server stops with status 1 */
    NX_CONTROL_ADOPT_CLUSTER, /* walreceiver: text = cluster id to adopt, its master's epoch, and the node id of its
                               * epoch 1 or nothing, arg = what its master has for readers; answered by DONE */
    NX_CONTROL_REPLICA_HERE, /* walsender: text = replica id; older senders of that id are ended */
    NX_CONTROL_SNAPSHOT, /* anybody: status = enum nx_snapshot_reason, arg = the asker's ticket. A job
                          * is begun or joined; answered by DONE, arg = ticket, text = snapshot id */
    NX_CONTROL_RESTORE, /* walreceiver: shm->transfer has begun, a restore process is wanted */
    NX_CONTROL_FORGET, /* http: text = replica id, arg = the asker's ticket; answered by DONE when it is
                         * stored: status -ENOENT not known, -EBUSY connected, or why it can't be stored */
    NX_CONTROL_SWITCH, /* restore: text = "data-N", whole and synced: it replaces what `current` names */
    NX_CONTROL_MASTER_DEAD,      /* walreceiver: the master appears dead, for the arg-th time */
    NX_CONTROL_STOP_REPLICATION, /* http: arg = ticket; answered by DONE when it is accepted */
    /* http: changes of the role, arg = ticket; each answered by DONE, status 0 or -ECANCELED: refused, text =
     * "<code of error_codes.def> <sentence>". */
    NX_CONTROL_PROMOTE, /* status = enum nx_promote_flags; DONE: text = members of the answer (JSON) */
    NX_CONTROL_FOLLOW, /* text = "host:port", status 1: by force */
    NX_CONTROL_FOLLOWING, /* walreceiver: the master's history goes on from ours: force isn't needed any more */
    NX_CONTROL_PROMISE, /* text = "<epoch> <node id> <attempt or 0>"; DONE: text = "<epoch> <offset> <crc>",
                         * our position */
    NX_CONTROL_WITHDRAW, /* text as of PROMISE */
    NX_CONTROL_FENCE, /* walsender, peers: text = "<epoch> <node id> <replication address or -> <HTTP
                          * address or ->": that node leads, and this one does no longer. Answered by DONE
                          * when it is stored: status 0, or -errno; -ESTALE: it leads in no higher epoch */
    NX_CONTROL_VERDICT, /* peers: of NX_PEERS_ASK: status 0: go on with epoch arg, text = members of the
                          * answer (JSON); -ECANCELED: refused, as above. Answered by DONE when the epoch has
                          * begun, or status < 0: it doesn't, and promises are to be withdrawn */
    NX_CONTROL_LOOKED, /* peers: NX_PEERS_LOOK is done */
    /* postmaster to child */
    NX_CONTROL_SETTLE, /* walwriter: commit all that was submitted; DONE, arg = the message's */
    NX_CONTROL_BEGIN_EPOCH, /* walwriter: append and sync the entry of epoch arg, naming this node; DONE, arg =
                             * the message's, status 0 or -errno (-ENOSPC: nothing has changed) */
    NX_CONTROL_DONE,   /* reply; status 0 or a negative error, text = why */
    NX_CONTROL_RELOAD, /* a new configuration stands in shared memory */
    NX_CONTROL_STOP,   /* end in order; arg = enum nx_stop_mode */
};

enum nx_stop_mode {
    NX_STOP_FAST = 0,
    NX_STOP_SMART = 1
};

enum nx_promote_flags {
    NX_PROMOTE_DRY_RUN = 1, /* only tell what would be */
    NX_PROMOTE_FORCE = 2    /* whatever may be lost */
};

#define NX_CONTROL_TEXT 4080
#define NX_VERDICT_TEXT \
    3900 /* of a VERDICT, at most: the postmaster puts a few members before it */

struct nx_control_message {
    uint32_t type;  /* enum nx_control_type */
    int32_t status; /* 0 or a negative error */
    uint64_t arg;
    char text[NX_CONTROL_TEXT]; /* NUL-terminated */
};

struct nx_control {
    int fd;       /* this side's end */
    int stopping; /* STOP received, or the other side is gone */
    int told;     /* STOP received */
    uint64_t stop_mode;
};

/* Makes a pair; ret[0] is the postmaster's end, ret[1] the child's. 0 or -errno. */
int nx_control_pair(int ret[2]);

/* Sends one message; text may be NULL. 0, -EAGAIN when the channel is full, -EPIPE, ... */
int nx_control_send(int fd,
                    enum nx_control_type type,
                    int32_t status,
                    uint64_t arg,
                    const char *text);

/* Receives one message: 0, -EAGAIN when none waits, -EPIPE when the other side is gone. */
int nx_control_receive(int fd, struct nx_control_message *ret_message);

#endif
