/* The postmaster's own state, and the parts that work on it. One process, no threads, no locks: it
 * touches no data and never blocks; what can fail is a child.
 *
 *     main.c         configuration, data directory, listeners; then nx_postmaster_run
 *     postmaster.c   the loop and the life of the server (enum nx_life)
 *     children.c     what a child's message or death means
 *     launch.c       the one fork site
 *     listeners.c    sockets, made before anything is forked
 *     jobs.c         snapshots and restores, started when they are asked for
 *     replication.c  POST /replication/stop
 *     role.c         which role this node has, and who else leads
 *     role_change.c  changes of the role, one at a time: promotion.c, promise.c, follow.c
 *     command.c      failover_command
 *     known.c        the replicas that this master has had
 *     shared.c       shared memory made afresh, roles and cluster id in it
 *     signals.c      signals as readable events
 *     watch.c        the data directory taken away
 *     pid_file.c     DATA_DIR/nexus.pid */
#ifndef NX_POSTMASTER_POSTMASTER_H
#define NX_POSTMASTER_POSTMASTER_H

#include "common/config.h"
#include "common/control.h"
#include "common/process.h"
#include "postmaster/restart_policy.h"
#include "storage/data_dir.h"
#include "storage/snapshot_files.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* The life of a server:
 *
 *     STARTING ──> SERVING ──> STOPPING (stage 0, 1, 2, 3) ──> ENDED
 *        ^            │
 *        └─ CRASHED <─┘      a crash: all children are killed; when the last is reaped, shared memory is
 *                            made afresh and all start again
 *     any ──> KILLING ──> ENDED   an immediate stop, or a person is needed
 */
enum nx_life {
    NX_LIFE_STARTING,
    NX_LIFE_SERVING,
    NX_LIFE_STOPPING,
    NX_LIFE_CRASHED,
    NX_LIFE_KILLING,
    NX_LIFE_ENDED
};

/* One slot of the process table, the private side. */
struct nx_child {
    pid_t pid;         /* 0: not running */
    int control_fd;    /* our end; -1: none */
    bool ready;        /* it has told READY */
    bool told_to_stop; /* its end is expected */
    bool dismissed;    /* killed because its work is over or in the way: nothing to tell of */
    uint64_t started_ms;
    uint64_t start_due_ms; /* 0: none; else when it is to be started again */
    uint64_t kill_due_ms;  /* 0: none; else when it is killed if it hasn't ended as it was told */
    struct nx_child_history history;
};

/* Snapshots that are wanted as soon as the running one has ended. */
#define NX_MOST_WISHES 64

struct nx_snapshot_wish {
    unsigned slot; /* of the process that asked */
    enum nx_snapshot_reason reason;
    uint64_t ticket; /* its own */
};

struct nx_snapshot_wishes {
    struct nx_snapshot_wish list[NX_MOST_WISHES];
    unsigned count;
};

/* What a full sync has brought, until it is the node's own. */
struct nx_restored {
    char root[32]; /* "data-N"; "": nothing */
    char cluster_id[NX_UUID_TEXT];
    uint64_t due_ms; /* the disk was full: no other attempt before, monotonic */
};

/* What the postmaster alone needs of a known replica. */
struct nx_known_life {
    bool connected;
    unsigned sender;        /* connected: its walsender's instance */
    uint64_t forget_due_ms; /* else: monotonic */
};

/* The replicas that were welcomed on this master and not forgotten. */
struct nx_known {
    struct nx_known_replica list[NX_MAX_REPLICAS]; /* connected = that of its life */
    struct nx_known_life lives[NX_MAX_REPLICAS];
    unsigned count;
    bool dirty;            /* something isn't stored yet */
    uint64_t write_due_ms; /* not before */
};

/* A change of the role that is under way; one at a time.
 *
 *     promotion  ENDING ──> SETTLING ──> ASKING ──> COMMITTING ──> master
 *     dry run                            ASKING ──> answered
 *     promise    ENDING ──> SETTLING ──> answered
 *     follow     ENDING ──> replica of another master
 *                LEAVING ──> by the crash path (a fenced master)
 *
 * Up to the verdict of ASKING nothing has changed but that the walreceiver is away; it comes back when the change
 * is refused. The commit point is the walwriter's: the fdatasync of the epoch entry. */
enum nx_change_kind {
    NX_ROLE_CHANGE_NONE,
    NX_ROLE_CHANGE_PROMOTE,
    NX_ROLE_CHANGE_PROMISE,
    NX_ROLE_CHANGE_FOLLOW
};

enum nx_change_step {
    NX_STEP_ENDING,     /* walreceiver, restore and peers process end */
    NX_STEP_SETTLING,   /* the walwriter commits what was submitted */
    NX_STEP_ASKING,     /* the peers process asks the others */
    NX_STEP_COMMITTING, /* the walwriter begins the epoch */
    NX_STEP_LEAVING     /* the http workers end, their answers given */
};

struct nx_role_change {
    enum nx_change_kind kind;
    enum nx_change_step step;
    unsigned slot; /* who asked ... */
    pid_t pid;     /* ... if it is still that process */
    uint64_t ticket;
    bool dry_run;
    bool force;
    uint64_t old_epoch;         /* promotion: of the log before it */
    uint64_t epoch;             /* promotion: to begin; promise: promised */
    char text[NX_CONTROL_TEXT]; /* promotion: members of the answer; follow: the address */
};

struct nx_postmaster {
    struct nx_config config;          /* role and master_addr: those in effect */
    struct nx_role_config configured; /* role and master_addr as they are configured */
    struct nx_role_change change;
    bool role_decided;              /* since recovery */
    char epoch_reason[256];         /* why an epoch must begin before this node leads; "": none */
    uint64_t start_epoch;           /* it is begun, as the node starts; 0: none */
    bool looked;                    /* somebody else who leads was looked for */
    char former_addr[NX_ADDR_TEXT]; /* of the master that this node was promoted over; "": none */
    char former_http[NX_ADDR_TEXT]; /* its HTTP address; "": not known */
    bool fence_unstored;            /* the identity's fence isn't in its file yet */
    bool heralding;                 /* others are to be told that this node leads */
    uint64_t herald_due_ms;
    struct nx_peers_task peers_task;  /* for the next peers process */
    enum nx_peers_job peers_job;      /* of the first one's last start, */
    uint64_t peers_attempt;           /* and the attempt that it asked for */
    struct nx_attempts open_attempts; /* promises for them may stand (withdrawal.c) */
    uint64_t certificates_due_ms;     /* 0: not looked at yet */
    uint64_t withdrawal_due_ms;
    uint64_t withdrawal_wait_ms;     /* before the next try; 0: the last one went well */
    struct nx_config_report *report; /* of the load, for reloads */
    struct nx_data_dir dir;
    struct nx_shm *shm;
    uint64_t shm_size; /* bytes; a child that went wrong can't have changed it here */
    int http_fd;
    int unix_fd;
    int replication_fd; /* -1 on a standalone node */
    int signal_fd;
    int watch_fd;           /* -1 where it can't be watched */
    uint64_t accept_due_ms; /* no connection is accepted before; 0: at once */
    uint64_t started_at;    /* Unix ms */
    enum nx_life life;
    enum nx_stop_mode stop_mode;
    unsigned stop_stage;
    uint64_t deadline_ms;                /* of the running stage, or of a delayed start; 0: none */
    uint64_t most_connections;           /* that descriptors allow; bounds http.max_connections */
    struct nx_child_history connections; /* of processes that serve one connection, together */
    int exit_status;
    struct nx_snapshot_wishes wishes;
    uint64_t scheduled_ms; /* the last scheduled snapshot, or the start */
    struct nx_restored restored;
    bool replication_stopped; /* by POST /replication/stop, until the server is started again */
    pid_t command_pid;        /* the running failover_command; 0: none */
    uint64_t command_death;   /* number of the master's death that was last acted on */
    bool command_owed;        /* ... which waits for the end of the command of an earlier one */
    struct nx_known known;
    struct nx_child children[NX_MAX_SLOTS];
};

/* The row of a kind that only the postmaster needs. */
enum nx_kind_roles {
    ROLE_ANY,
    ROLE_REPLICA,
    ROLE_CONNECTION,
    ROLE_JOB
};
struct nx_kind_rules {
    enum nx_kind_roles roles;
    enum nx_restart_rule restart;
    unsigned stage;
    int (*entry)(struct nx_process *process);
};
const struct nx_kind_rules *nx_kind_rules(enum nx_process_kind kind);

/* ---- postmaster.c ---- */
/* Runs until the server has ended; returns its exit status. */
int nx_postmaster_run(struct nx_postmaster *pm);
/* Kills all children and ends with this status once they are reaped. */
void nx_postmaster_kill(struct nx_postmaster *pm, int exit_status);
/* Begins an orderly stop. */
void nx_postmaster_stop(struct nx_postmaster *pm, enum nx_stop_mode mode);
/* Kills all children; once they are reaped, starts afresh after delay_ms. */
void nx_postmaster_crash(struct nx_postmaster *pm, uint64_t delay_ms);

/* ---- children.c ---- */
/* Reaps whoever died and acts on it. */
void nx_children_reap(struct nx_postmaster *pm);
/* Handles what waits on a child's channel. */
void nx_children_message(struct nx_postmaster *pm, unsigned slot);
/* Accepts one connection on the replication port and gives it to a walsender. */
void nx_children_accept(struct nx_postmaster *pm);
/* Kills those that were told to end and didn't in time. */
void nx_children_kill_due(struct nx_postmaster *pm);
/* Starts whatever this node's role has; what is running stays. */
void nx_children_start_all(struct nx_postmaster *pm);
/* Running children, of a stop stage, or of all (stage < 0). */
unsigned nx_children_running(const struct nx_postmaster *pm, int stage);

/* Their kinds and pids, as far as they fit: "walsender 12, http 13". */
void nx_children_name(const struct nx_postmaster *pm, unsigned stage, char *ret_text, size_t cap);
/* Sends a message to all running children of a stage (all: < 0). After STOP their end is expected. */
void nx_children_tell(struct nx_postmaster *pm, int stage, enum nx_control_type type, uint64_t arg);
void nx_children_signal(struct nx_postmaster *pm, int signal);

/* The log is recovered, and nobody else is known to lead: the node serves. */
void nx_children_serve(struct nx_postmaster *pm);

/* ---- launch.c ---- */
/* Forks the child of a slot; client_fd is given to it (and closed here) or -1. 0 or -errno. */
int nx_launch(struct nx_postmaster *pm, unsigned slot, int client_fd);
/* Forks a peers process with its task. 0 or -errno. */
int nx_launch_peers(struct nx_postmaster *pm, unsigned slot, const struct nx_peers_task *task);

/* ---- jobs.c ---- */
/* A process wants a snapshot; it is answered by DONE. */
void nx_jobs_want_snapshot(struct nx_postmaster *pm,
                           unsigned slot,
                           enum nx_snapshot_reason reason,
                           uint64_t ticket);
/* The snapshot process has ended: who waits for it hears so. how: "exited with status 2" */
void nx_jobs_end_snapshot(struct nx_postmaster *pm, const char *how);
/* Begins what is wanted, or due by snapshot.interval, if none is running. */
void nx_jobs_run_due(struct nx_postmaster *pm);
/* When the next scheduled one is due, monotonic ms; 0: not by time. */
uint64_t nx_jobs_due_ms(const struct nx_postmaster *pm);
/* The walreceiver wants a restore process. */
void nx_jobs_want_restore(struct nx_postmaster *pm);
/* The restore process has ended. */
void nx_jobs_end_restore(struct nx_postmaster *pm);
/* "data-N <cluster id>" is whole: ends all children, so that it can become the node's own. */
void nx_jobs_switch(struct nx_postmaster *pm, const char *what);
/* All children are reaped: makes it so, if there is one. True: it has been done. */
bool nx_jobs_finish_switch(struct nx_postmaster *pm);

/* No child lives: removes what jobs have left half-made in DATA_DIR/snapshots, and on a node that is no replica
 * what came of a full sync. Failures are logged only. */
void nx_jobs_clean(const struct nx_postmaster *pm);

/* ---- role.c ---- */
/* The role that configuration and identity give this node, before recovery; to be called once. */
void nx_role_begin(struct nx_postmaster *pm);
/* The log is recovered: what it says of the role is in effect. Once after each recovery. */
void nx_role_decide(struct nx_postmaster *pm);
/* Whether the log says that the promotion which is noted holds: this node led in its epoch and in all since. */
bool nx_role_noted(const struct nx_postmaster *pm);
/* True: this is a master, a node that leads in a higher epoch is known, and so this one is fenced. */
bool nx_role_fence_if_led(struct nx_postmaster *pm);
/* A starting node whose promotion was overtaken by the very master that its configuration names is that one's replica:
 * true, and all begins anew as such. */
bool nx_role_step_back(struct nx_postmaster *pm);
/* Whether others must be asked first whether one of them leads; then a peers process does that. */
bool nx_role_must_look(struct nx_postmaster *pm);
/* Higher than all epochs that this node has heard of. */
uint64_t nx_role_next_epoch(const struct nx_postmaster *pm);
/* Whether an epoch must begin before this master, or standalone node, serves; then the walwriter is told to. */
bool nx_role_must_begin(struct nx_postmaster *pm);
/* The walwriter has answered that. */
void nx_role_epoch_begun(struct nx_postmaster *pm, const struct nx_control_message *message);
/* Puts role and master in effect; processes hear of it, and shared memory says so. */
void nx_role_apply(struct nx_postmaster *pm, enum nx_role role, const char *master_addr);
/* The reset of what is known of a quorum: of another master's history it would be wrong. */
void nx_role_reset_quorum(struct nx_postmaster *pm, uint64_t offset, uint64_t epoch);
/* "<epoch> <node id> <addr or -> <http addr or ->": that node leads. 0: this master is fenced, durably; -ESTALE:
 * it leads in no higher epoch, or this is no master; or -errno: fenced, but not stored. */
int nx_role_fence(struct nx_postmaster *pm, const char *text);
/* Reads "<epoch> <node id>"; what follows is *ret_rest. 0 or -EINVAL. */
int nx_role_parse(const char *text,
                  uint64_t *ret_epoch,
                  char ret_node_id[NX_UUID_TEXT],
                  const char **ret_rest);
/* Starts the peers process that tells others of this master, when it is due; and when that is, monotonic ms. */
void nx_role_run_due(struct nx_postmaster *pm);
uint64_t nx_role_due_ms(const struct nx_postmaster *pm);
/* replication.peers is about to be `fresh`, by a reload: those who are new to it are told too. */
void nx_role_peers_changed(struct nx_postmaster *pm, const char *fresh);

/* ---- withdrawal.c: promises to this node that came to nothing ---- */

/* The first peers process is gone. done: it has done all that it had to. */
void nx_withdrawal_peers_gone(struct nx_postmaster *pm, bool done);
/* Starts one where promises are left; when that is due, 0: never. */
void nx_withdrawal_run_due(struct nx_postmaster *pm);
uint64_t nx_withdrawal_due_ms(const struct nx_postmaster *pm);

/* ---- certificates.c ---- */
/* Says, once a day, which certificate is too old; when that is due, 0: never. */
void nx_certificates_run_due(struct nx_postmaster *pm);
uint64_t nx_certificates_due_ms(const struct nx_postmaster *pm);

/* ---- role_change.c ---- */
/* A child's message about who leads. */
void nx_role_message(struct nx_postmaster *pm,
                     unsigned slot,
                     const struct nx_control_message *message);
/* Children are ended in the middle of a change: it is over without an answer. What is stored of it is in effect. */
void nx_role_change_end(struct nx_postmaster *pm);
/* The process of this slot has ended: a change may go on. */
void nx_role_child_gone(struct nx_postmaster *pm, unsigned slot);
/* Ends processes of a kind at once, as nothing to tell of. */
void nx_role_dismiss(struct nx_postmaster *pm, enum nx_process_kind kind);

/* ---- replication.c ---- */
/* An http worker asks that replication be stopped; it is answered by DONE. */
void nx_replication_stop(struct nx_postmaster *pm, unsigned slot, uint64_t ticket);

/* ---- command.c ---- */
/* The walreceiver says that the master appears dead: runs failover_command, once a death. */
void nx_command_master_dead(struct nx_postmaster *pm, uint64_t death);
/* A process that is no child of the table has ended. */
void nx_command_reaped(struct nx_postmaster *pm, pid_t pid, int wait_status);

/* ---- known.c ---- */
/* Takes up what data-N/identity holds, at the start and after data-N was replaced. */
void nx_known_load(struct nx_postmaster *pm);
/* Writes the table in shared memory, which was made afresh. */
void nx_known_publish(struct nx_postmaster *pm);
/* A walsender has welcomed a replica; it ends: to be called before its slot is cleared. */
void nx_known_here(struct nx_postmaster *pm, unsigned sender, const char *id);
void nx_known_gone(struct nx_postmaster *pm, unsigned sender);
/* Forgets one, durably. 0; -ENOENT: not known; -EBUSY: connected; or -errno: nothing has changed. */
int nx_known_forget(struct nx_postmaster *pm, const char *id);
/* Forgets whose time is over, and stores what has changed. */
void nx_known_run_due(struct nx_postmaster *pm);
/* When that is next to be done, monotonic ms; 0: not by time. */
uint64_t nx_known_due_ms(const struct nx_postmaster *pm);
/* The last word of an orderly stop. */
void nx_known_end(struct nx_postmaster *pm);

/* ---- listeners.c ---- */
/* Opens what the role needs. -errno and a sentence in error. */
int nx_listeners_open(struct nx_postmaster *pm, char *error, size_t cap);
/* Closes the HTTP sockets, if they are open, and removes the Unix socket's name: from now on a connection is
 * refused. */
void nx_listeners_close(struct nx_postmaster *pm);

/* ---- shared.c ---- */
/* Makes shared memory and writes the postmaster's fields, once. 0 or -errno, logged. */
int nx_shared_create(struct nx_postmaster *pm);
/* Empties it after a crash, all children being reaped; what counts since the node's start is kept.
 * other_history: a full sync has replaced the node's data. */
void nx_shared_renew(struct nx_postmaster *pm, bool other_history);
/* A master or standalone node without a cluster id gets one; a replica without data adopts its master's, who led in its
 * epoch 1 ("": not known), and what that master has for it. 0, -EEXIST (another one is known, and there is data of it),
 * or -errno. */
int nx_shared_adopt_cluster(struct nx_postmaster *pm,
                            const char *cluster_id,
                            const char *first_node_id,
                            const struct nx_sync_goal *goal);
/* The role and the configuration in effect, for everybody. */
void nx_shared_publish_role(struct nx_postmaster *pm);
/* Replication is stopped, for everybody to see. */
void nx_shared_publish_stop(struct nx_postmaster *pm);
/* The configuration that processes get: the one in force within what descriptors allow. */
struct nx_config nx_shared_config(const struct nx_postmaster *pm);
/* A new configuration for everybody, read or made. */
void nx_shared_publish_config(struct nx_postmaster *pm);
void nx_shared_reload(struct nx_postmaster *pm);
/* Adds an ended walsender's counters to the node's and clears its replica slot. */
void nx_shared_end_replica(struct nx_postmaster *pm, unsigned instance);

/* ---- signals.c ---- */
/* Blocks the signals and makes signal_fd. 0 or -errno. */
int nx_signals_open(struct nx_postmaster *pm);
/* Acts on what came. */
void nx_signals_handle(struct nx_postmaster *pm);
/* In a child: default dispositions again, nothing blocked. */
void nx_signals_reset(void);

/* ---- watch.c ---- */
/* Begins to watch the data directory: watch_fd becomes readable. 0 or -errno. */
int nx_watch_open(struct nx_postmaster *pm);
/* Looks whether it is still there; else stops the server at once. */
void nx_watch_handle(struct nx_postmaster *pm);

/* ---- pid_file.c ---- */
/* Writes the pid file with this state ("starting", "ready", "stopping"). Failures are logged only. */
void nx_pid_file_write(const struct nx_postmaster *pm, const char *state);
void nx_pid_file_remove(const struct nx_postmaster *pm);

#endif
