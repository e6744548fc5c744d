/* Certificates grow old while the server runs: each day the log says so, from two weeks before on. Runs in the
 * postmaster. */
#include "common/latch.h"
#include "common/log.h"
#include "common/tls.h"
#include "postmaster/postmaster.h"

#define DAY_MS ((uint64_t)24 * 3600 * 1000)

static void warn(void *arg, const char *text)
{
    (void)arg;
    nx_warn("%s", text);
}

void nx_certificates_run_due(struct nx_postmaster *pm)
{
    uint64_t now = nx_now_ms();

    if (now < pm->certificates_due_ms) {
        return;
    }
    /* A start and a reload say it themselves. */
    if (pm->certificates_due_ms != 0) {
        nx_tls_tell_ages(&pm->config, warn, NULL);
    }
    pm->certificates_due_ms = now + DAY_MS;
}

uint64_t nx_certificates_due_ms(const struct nx_postmaster *pm)
{
    return nx_tls_on(NX_TLS_HTTP) || nx_tls_on(NX_TLS_ACCEPT) ? pm->certificates_due_ms : 0;
}
