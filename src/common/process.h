/* What every process of a node gets from the postmaster, and what it owes in return.
 *
 * A process main has one skeleton: nx_process_start() was called by the fork site, the main
 * attaches what it needs, tells READY, loops on its latch (latch.h) and returns its exit status
 * when nx_process_stopping() says so. It never forks and never outlives the postmaster. */
#ifndef NX_COMMON_PROCESS_H
#define NX_COMMON_PROCESS_H

#include "common/config.h"
#include "common/control.h"
#include "common/peers_task.h"
#include "common/shm_layout.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum nx_process_kind {
#define NX_PROCESS(symbol, title, instances, entry, roles, restart, stage, network) \
    NX_KIND_##symbol,
#include "common/process_kinds.def"
#undef NX_PROCESS
    NX_KIND_COUNT
};

/* Exit statuses of children. The postmaster's own are in product.md: 1 for what a person must
 * mend, 2 for anything else. */
enum {
    NX_EXIT_OK = 0,      /* asked to stop, or its connection is over */
    NX_EXIT_PERSON = 1,  /* a person must mend something: the server stops, see nx_process_fatal */
    NX_EXIT_FAILURE = 2, /* anything else: restart by policy */
};

struct nx_process {
    enum nx_process_kind kind;
    unsigned instance;             /* 0 .. instances - 1 of its kind */
    unsigned slot;                 /* index into shm->slots; also names its doorbell */
    struct nx_shm *shm;            /* mapped, inherited */
    struct nx_config *config;      /* this process's own copy; replaced on a RELOAD message */
    struct nx_control control;     /* channel to the postmaster */
    char data_dir[NX_PATH_SIZE];   /* absolute DATA_DIR */
    char state_root[NX_PATH_SIZE]; /* absolute DATA_DIR/data-N, resolved once at start */
    int http_fd;                   /* listening sockets of http workers, else -1 */
    int http_unix_fd;
    int client_fd;              /* walsender: the accepted connection, owned; else -1 */
    struct nx_peers_task peers; /* of a peers process */
};

/* Title of a kind ("walsender"). */
const char *nx_process_kind_title(enum nx_process_kind kind);

/* First slot of a kind's instances, and which kind and instance a slot is of. */
unsigned nx_process_slot(enum nx_process_kind kind, unsigned instance);
enum nx_process_kind nx_process_slot_kind(unsigned slot, unsigned *ret_instance);

/* Makes room for titles, once, in the postmaster; argv and environ move. */
void nx_process_title_init(int argc, char **argv);

/* The title of the calling process, "nexus: <who> <what>", as ps shows it. */
void nx_process_title_set(const char *who, const char *what);

/* The same for a child: "nexus: <kind> <activity>", bounded, printf-like. */
void nx_process_title(const struct nx_process *process, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Reads whatever waits on the control channel without blocking: RELOAD refreshes *process->config
 * from shared memory, STOP or end-of-file make nx_process_stopping() true. Returns the number of
 * messages of other types put into ret_other (at most cap), for the process itself to handle; what comes
 * behind them waits for the next call. Without a cap of at least one they are thrown away. */
size_t nx_process_control(struct nx_process *process,
                          struct nx_control_message *ret_other,
                          size_t cap);

/* True once the postmaster asked this process to end or is gone. */
bool nx_process_stopping(const struct nx_process *process);

/* Tells the postmaster that this process serves (the walwriter: that recovery is done). */
void nx_process_ready(struct nx_process *process);

/* A person must mend something: logs the message, tells the postmaster so that the whole server
 * stops with status 1, and exits this process with NX_EXIT_PERSON. */
_Noreturn void nx_process_fatal(struct nx_process *process, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Entry functions, one a kind. */
#define NX_PROCESS(symbol, title, instances, entry, roles, restart, stage, network) \
    int entry(struct nx_process *process);
#include "common/process_kinds.def"
#undef NX_PROCESS

#endif
