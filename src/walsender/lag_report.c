/* Says in the log why a replica stays behind. Runs in walsenders; reads what the walsender knows and what the
 * kernel counts for its socket, changes nothing of either. */
#include "walsender/lag_report.h"

#include "common/latch.h"
#include "common/log.h"
#include "common/quorum.h"
#include "walsender/walsender.h"

#include <linux/sockios.h>
#include <linux/tcp.h> /* glibc's tcp_info ends before the times that are wanted here */
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define KB        1000ULL
#define REPEAT_MS 60000

/* ---- when ---- */

static bool may_tell(const struct nx_lag_watch *watch, uint64_t patience_ms, uint64_t now_ms)
{
    return now_ms - watch->since_ms >= patience_ms &&
           (watch->said_ms == 0 || now_ms - watch->said_ms >= REPEAT_MS);
}

/* Half of the time before the next line is over. */
static bool may_sample(const struct nx_lag_watch *watch, uint64_t patience_ms, uint64_t now_ms)
{
    if (watch->told) {
        return now_ms - watch->said_ms >= REPEAT_MS / 2;
    }
    return now_ms - watch->since_ms >= patience_ms / 2;
}

enum nx_lag_action nx_lag_look(struct nx_lag_watch *watch,
                               uint64_t lag,
                               uint64_t limit,
                               uint64_t patience_ms,
                               uint64_t now_ms)
{
    if (lag <= limit) {
        bool over = watch->behind && watch->told;

        watch->behind = false;
        return over ? NX_LAG_OVER : NX_LAG_SILENT;
    }
    if (!watch->behind) {
        *watch =
            (struct nx_lag_watch){.behind = true, .since_ms = now_ms, .said_ms = watch->said_ms};
    }
    watch->most = lag > watch->most ? lag : watch->most;
    if (may_tell(watch, patience_ms, now_ms)) {
        watch->said_ms = now_ms;
        watch->told = true;
        watch->sampled = false;
        return NX_LAG_TELL;
    }
    if (!watch->sampled && may_sample(watch, patience_ms, now_ms)) {
        watch->sampled = true;
        return NX_LAG_SAMPLE;
    }
    return NX_LAG_SILENT;
}

/* ---- where ---- */

/* Between the two samples, which end of the line was the slow one. */
static enum nx_lag_stage judge_line(const struct nx_lag_facts *facts)
{
    const struct nx_lag_sample *before = &facts->before;
    const struct nx_lag_sample *now = &facts->now;

    if (!before->known || !now->known || now->at_us <= before->at_us) {
        return NX_LAG_NETWORK;
    }
    if (2 * (now->busy_us - before->busy_us) < now->at_us - before->at_us) {
        return NX_LAG_SENDER;
    }
    return 2 * (now->limited_us - before->limited_us) >= now->busy_us - before->busy_us
               ? NX_LAG_WINDOW
               : NX_LAG_LINE;
}

enum nx_lag_stage nx_lag_judge(const struct nx_lag_facts *facts)
{
    uint64_t lag = facts->durable - facts->applied;

    if (2 * (facts->acked - facts->applied) >= lag) {
        return NX_LAG_APPLY;
    }
    if (facts->queued - facts->acked >= facts->durable - facts->queued &&
        4 * facts->backlog < facts->unacked_size) {
        return NX_LAG_DISK;
    }
    return judge_line(facts);
}

static const char *advice(enum nx_lag_stage stage)
{
    switch (stage) {
    case NX_LAG_SENDER:
        return "the line is free: this master reads its log too slowly, check its disk and processors";
    case NX_LAG_LINE:
        return "the line is the bottleneck: check network bandwidth between master and replica";
    case NX_LAG_WINDOW:
        return "the line is free, the other end takes no more: check the replica's disk and "
               "processors (or the proxy between), consider reducing the write load on this master";
    case NX_LAG_DISK:
        return "what was sent has arrived and isn't on the replica's disk: check that disk, consider "
               "reducing the write load on this master";
    case NX_LAG_APPLY:
        return "it is on the replica's disk but not applied: check the replica's processors, "
               "consider reducing the write load on this master";
    case NX_LAG_NETWORK:
        break;
    }
    return "it waits before the replica: check network bandwidth between master and replica, and the "
           "replica's disk";
}

void nx_lag_text(const struct nx_lag_facts *facts, uint64_t lasted_ms, char *buf, size_t cap)
{
    (void)snprintf(
        buf, cap,
        "lags by %llu entries, for %llu s now (this master %llu, replica %llu): %llu not yet sent, %llu "
        "sent and not acknowledged (%llu kB, %llu kB of them not yet at the other end), %llu not "
        "applied; %s. Beyond replication.max_log_size (%llu entries) it needs a full sync",
        (unsigned long long)(facts->durable - facts->applied), (unsigned long long)lasted_ms / 1000,
        (unsigned long long)facts->durable, (unsigned long long)facts->applied,
        (unsigned long long)(facts->durable - facts->queued),
        (unsigned long long)(facts->queued - facts->acked),
        (unsigned long long)(facts->unacked_size / KB), (unsigned long long)(facts->backlog / KB),
        (unsigned long long)(facts->acked - facts->applied), advice(nx_lag_judge(facts)),
        (unsigned long long)facts->max_log_size);
}

/* ---- this walsender's replica ---- */

static struct nx_lag_sample take_sample(const struct nx_walsender *ws)
{
    struct nx_lag_sample sample = {.at_us = nx_now_us()};
    struct tcp_info info = {.tcpi_state = 0};
    socklen_t length = sizeof info;

    if (getsockopt(ws->io.fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0 &&
        length >= offsetof(struct tcp_info, tcpi_rwnd_limited) + sizeof info.tcpi_rwnd_limited) {
        sample.known = true;
        sample.busy_us = info.tcpi_busy_time;
        sample.limited_us = info.tcpi_rwnd_limited;
    }
    return sample;
}

static uint64_t backlog_of(const struct nx_walsender *ws)
{
    int bytes = 0;

    if (ioctl(ws->io.fd, SIOCOUTQ, &bytes) != 0 || bytes < 0) {
        bytes = 0;
    }
    return (uint64_t)bytes + nx_frame_io_pending(&ws->io);
}

static uint64_t load(const nx_atomic_u64 *field)
{
    return atomic_load_explicit(field, memory_order_relaxed);
}

static void tell(struct nx_walsender *ws, uint64_t durable, uint64_t applied)
{
    struct nx_lag_facts facts = {
        .durable = durable,
        .queued = ws->queued_offset,
        .acked = ws->acked_offset,
        .applied = applied,
        .unacked_size = load(&ws->slot->sent_bytes_total) - load(&ws->slot->acked_bytes_total),
        .backlog = backlog_of(ws),
        .max_log_size = ws->process->config->replication.max_log_size,
        .before = ws->lag_watch.sample,
        .now = take_sample(ws),
    };
    char text[768];

    nx_lag_text(&facts, nx_now_ms() - ws->lag_watch.since_ms, text, sizeof text);
    nx_warn("replica %s at %s %s", ws->replica_id, ws->peer, text);
}

void nx_lag_report(struct nx_walsender *ws)
{
    const struct nx_config *config = ws->process->config;
    uint64_t patience = nx_silence_limit_ms(config);
    uint64_t durable = nx_walsender_durable(ws);
    uint64_t applied = load(&ws->slot->applied_offset);
    uint64_t lag = durable > applied ? durable - applied : 0;

    if (!ws->welcomed || nx_full_sync_runs(&ws->sync) || ws->sync.restoring) {
        return; /* a full sync has its own lines */
    }
    switch (nx_lag_look(&ws->lag_watch, lag, config->replication.max_ready_lag, patience,
                        nx_now_ms())) {
    case NX_LAG_SAMPLE:
        ws->lag_watch.sample = take_sample(ws);
        break;
    case NX_LAG_TELL:
        tell(ws, durable, applied);
        break;
    case NX_LAG_OVER:
        nx_info(
            "replica %s at %s is up again: it lags by %llu entries, was %llu behind at most and "
            "behind for %llu s",
            ws->replica_id, ws->peer, (unsigned long long)lag,
            (unsigned long long)ws->lag_watch.most,
            (unsigned long long)((nx_now_ms() - ws->lag_watch.since_ms) / 1000));
        break;
    case NX_LAG_SILENT:
        break;
    }
}
