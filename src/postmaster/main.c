/* nexus-server: reads the configuration, claims the data directory, opens its sockets, and becomes the
 * postmaster. Stays in the foreground. Exit status 1: a person must mend something; 2: anything else. */
#include "common/latch.h"
#include "common/log.h"
#include "common/restore_file.h"
#include "common/shm.h"
#include "common/tls.h"
#include "nexus_version.h"
#include "postmaster/postmaster.h"
#include "postmaster/privileges.h"
#include "postmaster/served.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uuid.h>

#define DESCRIPTORS_BESIDE \
    ((rlim_t)512) /* doorbells, channels, files: what isn't a client's connection */

static struct nx_postmaster postmaster = {.http_fd = -1,
                                          .unix_fd = -1,
                                          .replication_fd = -1,
                                          .signal_fd = -1,
                                          .watch_fd = -1};
static struct nx_config_report report;

/* Raises the limit of descriptors to what http.max_connections needs, as far as it goes. Negative, and
 * logged, when it is too low for any. */
static int fit_descriptors(struct nx_postmaster *pm)
{
    struct rlimit limit;
    rlim_t wanted = pm->config.http.max_connections + DESCRIPTORS_BESIDE;

    pm->most_connections = UINT64_MAX;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) {
        return 0;
    }
    limit.rlim_cur =
        limit.rlim_max == RLIM_INFINITY || limit.rlim_max > wanted ? wanted : limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 && getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return 0;
    }
    if (limit.rlim_cur <= DESCRIPTORS_BESIDE) {
        nx_error(
            "the limit of open files is %llu, which is too low: raise it (ulimit -n, LimitNOFILE) to "
            "%llu, or at least above %llu",
            (unsigned long long)limit.rlim_cur, (unsigned long long)wanted,
            (unsigned long long)DESCRIPTORS_BESIDE);
        return -EMFILE;
    }
    if (limit.rlim_cur < wanted) {
        pm->most_connections = limit.rlim_cur - DESCRIPTORS_BESIDE;
        nx_warn(
            "the limit of open files is %llu: http.max_connections is lowered to %llu; raise the "
            "limit (ulimit -n, LimitNOFILE) for more",
            (unsigned long long)limit.rlim_cur, (unsigned long long)pm->most_connections);
    }
    return 0;
}

static void log_start(const struct nx_postmaster *pm)
{
    for (unsigned i = 0; i < report.warning_count && i < NX_CONFIG_MESSAGES; i++) {
        nx_warn("%s", report.warnings[i]);
    }
    nx_info("nexus-server %s starts: data directory %s, configuration file %s", NEXUS_VERSION,
            pm->dir.path, report.file[0] != '\0' ? report.file : "none");
    nx_info("node %s, role %s, HTTP on %s, replication on %s", pm->dir.node_id,
            nx_role_name(pm->config.replication.role), pm->config.http.bind_addr,
            pm->replication_fd < 0 ? "no port" : pm->config.replication.bind_addr);
    if (geteuid() == 0) {
        nx_warn(
            "this server runs as root: set server.user to a user of its own, and it drops root's rights");
    }
    nx_served_say(&pm->config);
}

/* The first start of a master or standalone node begins its cluster. */
static int begin_cluster(struct nx_postmaster *pm)
{
    static const struct nx_sync_goal none;
    uuid_t binary;
    char text[NX_UUID_TEXT];

    if (pm->config.replication.role == NX_ROLE_REPLICA || pm->dir.identity.cluster_id[0] != '\0') {
        return 0;
    }
    uuid_generate(binary);
    uuid_unparse_lower(binary, text);
    return nx_shared_adopt_cluster(pm, text, pm->dir.node_id, &none);
}

/* Everything that can be wrong before the first child. */
static int prepare(struct nx_postmaster *pm)
{
    char error[1024] = "";
    int rc =
        nx_signals_open(pm); /* first: one that comes during the start is heard when it is over */

    if (rc < 0) {
        nx_error("signals can't be received: %s", strerrordesc_np(-rc));
        return NX_EXIT_FAILURE;
    }
    rc = nx_data_dir_open(pm->config.server.data_dir, &pm->dir, error, sizeof error);
    rc = rc < 0 ? rc : nx_listeners_open(pm, error, sizeof error);
    if (rc < 0) {
        nx_error("%s", error[0] != '\0' ? error : strerrordesc_np(-rc));
        return NX_EXIT_PERSON;
    }
    nx_role_begin(pm);
    nx_known_load(pm);
    log_start(pm);
    nx_jobs_clean(pm);
    if (fit_descriptors(pm) < 0) {
        return NX_EXIT_PERSON;
    }
    rc = nx_latch_create_doorbells();
    if (rc < 0) {
        nx_error("the doorbells of processes can't be made: %s", strerrordesc_np(-rc));
        return NX_EXIT_FAILURE;
    }
    rc = nx_watch_open(pm);
    if (rc < 0) {
        nx_warn(
            "the data directory can't be watched (%s): should it be removed while the server runs, "
            "nobody will notice",
            strerrordesc_np(-rc));
    }
    rc = begin_cluster(pm);
    if (rc < 0) {
        nx_error("the cluster id can't be stored in %s/identity: %s", pm->dir.root,
                 strerrordesc_np(-rc));
        return NX_EXIT_PERSON;
    }
    rc = nx_shared_create(pm);
    return rc < 0 ? NX_EXIT_PERSON : 0;
}

int main(int argc, char **argv)
{
    char error[512];
    int status = 0;
    int rc = nx_config_load(&postmaster.config, argc, argv, &report);

    if (nx_config_main_action(rc, &postmaster.config, &report, &status)) {
        return status;
    }
    (void)umask(077);
    nx_privileges_begin();
    if (nx_privileges_drop(&postmaster.config, report.file, error, sizeof error) < 0) {
        (void)fprintf(stderr, "nexus-server: %s\n", error);
        return NX_EXIT_PERSON;
    }
    nx_config_guard_secrets(&postmaster.config);
    if (nx_tls_load(&postmaster.config, error, sizeof error) < 0) {
        (void)fprintf(stderr, "nexus-server: %s\n", error);
        return NX_EXIT_PERSON;
    }
    if (report.action == NX_ACTION_RESTORE) {
        return nx_restore_file_main(&postmaster.config, report.restore_file);
    }
    nx_log_set_process("postmaster");
    rc = nx_log_configure(&postmaster.config);
    if (rc < 0) {
        (void)fprintf(stderr, "the log file %s can't be opened: %s\n",
                      postmaster.config.server.log_file, strerrordesc_np(-rc));
        return NX_EXIT_PERSON;
    }
    nx_process_title_init(argc, argv);
    postmaster.report = &report;
    postmaster.started_at = nx_wall_ms();
    status = prepare(&postmaster);
    if (status == 0) {
        nx_process_title_set("postmaster", postmaster.dir.path);
        status = nx_postmaster_run(&postmaster);
        nx_shm_destroy(postmaster.shm);
    }
    nx_listeners_close(&postmaster);
    nx_data_dir_close(&postmaster.dir);
    return status;
}
