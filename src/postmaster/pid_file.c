/* DATA_DIR/nexus.pid, for scripts and people; the lock on the directory decides whether a server runs.
 * Lines: pid, data directory, start time (Unix s), HTTP address, replication address, state. */
#include "common/log.h"
#include "postmaster/postmaster.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void pid_file_path(const struct nx_postmaster *pm, char path[NX_PATH_SIZE + 16])
{
    if (pm->config.server.pid_file[0] != '\0') {
        (void)snprintf(path, NX_PATH_SIZE + 16, "%s", pm->config.server.pid_file);
    } else {
        (void)snprintf(path, NX_PATH_SIZE + 16, "%s/nexus.pid", pm->dir.path);
    }
}

void nx_pid_file_write(const struct nx_postmaster *pm, const char *state)
{
    char path[NX_PATH_SIZE + 16];
    char text[2 * NX_PATH_SIZE + 2 * NX_ADDR_SIZE];

    pid_file_path(pm, path);
    (void)snprintf(text, sizeof text, "%d\n%s\n%llu\n%s\n%s\n%s\n", (int)getpid(), pm->dir.path,
                   (unsigned long long)pm->started_at / 1000, pm->config.http.bind_addr,
                   pm->replication_fd < 0 ? "" : pm->config.replication.bind_addr, state);
    int rc = nx_file_replace(path, text, strlen(text), 0644);

    if (rc < 0) {
        nx_warn("the pid file %s can't be written: %s", path, strerrordesc_np(-rc));
    }
}

void nx_pid_file_remove(const struct nx_postmaster *pm)
{
    char path[NX_PATH_SIZE + 16];

    pid_file_path(pm, path);
    (void)unlink(path);
}
