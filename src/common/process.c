/* What every child does alike: its title, its control channel, its end. Runs in children; the table of
 * kinds also serves the postmaster. */
#include "common/process.h"

#include "common/log.h"
#include "common/tls.h"

#include <bsd/unistd.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int title_width; /* at least, characters */

static const struct {
    const char *title;
    unsigned instances;
    bool network;
} kinds[NX_KIND_COUNT] = {
#define NX_PROCESS(symbol, title, instances, entry, roles, restart, stage, network) \
    [NX_KIND_##symbol] = {title, instances, network},
#include "common/process_kinds.def"
#undef NX_PROCESS
};

enum {
#define NX_PROCESS(symbol, title, instances, entry, roles, restart, stage, network) +(instances)
    SLOTS_NEEDED =
#include "common/process_kinds.def"
#undef NX_PROCESS
};
static_assert(SLOTS_NEEDED == NX_MAX_SLOTS, "shm_layout.h counts the slots of all kinds");

const char *nx_process_kind_title(enum nx_process_kind kind)
{
    return kinds[kind].title;
}

unsigned nx_process_slot(enum nx_process_kind kind, unsigned instance)
{
    unsigned slot = instance;

    for (unsigned i = 0; i < (unsigned)kind; i++) {
        slot += kinds[i].instances;
    }
    return slot;
}

enum nx_process_kind nx_process_slot_kind(unsigned slot, unsigned *ret_instance)
{
    unsigned kind = 0;

    while (kind + 1 < NX_KIND_COUNT && slot >= kinds[kind].instances) {
        slot -= kinds[kind].instances;
        kind++;
    }
    *ret_instance = slot;
    return (enum nx_process_kind)kind;
}

void nx_process_title_init(int argc, char **argv)
{
    title_width = (int)strlen(argv[0]);
    setproctitle_init(argc, argv, environ);
}

void nx_process_title_set(const char *who, const char *what)
{
    char title[256];

    (void)snprintf(title, sizeof title, "nexus: %s %s", who, what);
    /* Behind a title shorter than the program's path libbsd puts a full stop, which ps would show. */
    setproctitle("-%-*s", title_width, title);
}

void nx_process_title(const struct nx_process *process, const char *format, ...)
{
    char activity[128];
    va_list list;

    va_start(list, format);
    (void)vsnprintf(activity, sizeof activity, format, list);
    va_end(list);
    nx_process_title_set(nx_process_kind_title(process->kind), activity);
}

/* It would serve in the clear what is to be TLS from now on. */
static bool lacks_tls(const struct nx_config *config)
{
    return (config->http.tls_cert_file[0] != '\0' && !nx_tls_on(NX_TLS_HTTP)) ||
           (config->replication.tls_cert_file[0] != '\0' && !nx_tls_on(NX_TLS_ACCEPT));
}

/* A new configuration stands in shared memory; log level and format follow at once. */
static void reload(struct nx_process *process)
{
    const struct nx_control_block *control = &process->shm->control;
    uint64_t version;
    char error[512];

    do { /* a second reload may write over what is being copied */
        version = atomic_load_explicit(&control->config_version, memory_order_acquire);
        *process->config = control->config[version % 2];
        atomic_thread_fence(memory_order_acquire);
    } while (atomic_load_explicit(&control->config_version, memory_order_relaxed) != version);
    nx_config_guard_secrets(process->config);
    (void)nx_log_configure(process->config);
    if (nx_tls_load(process->config, error, sizeof error) <
        0) { /* the postmaster could, a moment ago */
        nx_error("the certificates stay as they were: %s", error);
        if (kinds[process->kind].network && lacks_tls(process->config)) {
            process->control.stopping = 1; /* who comes after it has what the postmaster has */
        }
    }
}

size_t nx_process_control(struct nx_process *process,
                          struct nx_control_message *ret_other,
                          size_t cap)
{
    struct nx_control_message message;
    size_t others = 0;
    int rc = 0;

    while ((cap == 0 || others < cap) &&
           (rc = nx_control_receive(process->control.fd, &message)) == 0) {
        if (message.type == NX_CONTROL_RELOAD) {
            reload(process);
        } else if (message.type == NX_CONTROL_STOP) {
            process->control.stopping = 1;
            process->control.told = 1;
            process->control.stop_mode = message.arg;
        } else if (others < cap) {
            ret_other[others++] = message;
        }
    }
    if (rc < 0 && rc != -EAGAIN) {
        process->control.stopping = 1; /* the postmaster is gone */
    }
    return others;
}

bool nx_process_stopping(const struct nx_process *process)
{
    return process->control.stopping != 0;
}

void nx_process_ready(struct nx_process *process)
{
    (void)nx_control_send(process->control.fd, NX_CONTROL_READY, 0, 0, NULL);
}

void nx_process_fatal(struct nx_process *process, const char *format, ...)
{
    char text[NX_CONTROL_TEXT];
    va_list list;

    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    nx_error("%s", text);
    (void)nx_control_send(process->control.fd, NX_CONTROL_FATAL, 0, 0, text);
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): nothing else in the process can be in exit() */
    exit(NX_EXIT_PERSON);
}
