/* What the log says of a replica that stays behind: how far, since when, and where the time goes. One line once
 * it has been further behind than replication.max_ready_lag for as long as a silent peer would be believed, one a
 * minute while that lasts, and one when it is over. Decision and text are pure functions over what the walsender
 * knows, so that each case can be tried without a slow disk or line. */
#ifndef NX_WALSENDER_LAG_REPORT_H
#define NX_WALSENDER_LAG_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct nx_walsender;

/* What the kernel has counted for a socket, since it was opened. */
struct nx_lag_sample {
    bool known;
    uint64_t at_us;      /* our clock */
    uint64_t busy_us;    /* something of ours was on its way */
    uint64_t limited_us; /* of that: the peer's receive window was closed */
};

/* What we know of the way to a replica. Offsets: durable >= queued >= acked >= applied. */
struct nx_lag_facts {
    uint64_t durable;      /* here */
    uint64_t queued;       /* handed to the socket */
    uint64_t acked;        /* on the replica's disk, as it says */
    uint64_t applied;      /* visible to its readers */
    uint64_t unacked_size; /* bytes from `acked` to `queued` */
    uint64_t backlog;      /* bytes of them that its kernel hasn't acknowledged yet */
    uint64_t max_log_size; /* further behind, it needs a full sync */
    struct nx_lag_sample before;
    struct nx_lag_sample now;
};

/* Where most of it waits. */
enum nx_lag_stage {
    NX_LAG_SENDER,  /* this master doesn't read its log faster */
    NX_LAG_NETWORK, /* the line, or a peer that doesn't read: the kernel doesn't tell which */
    NX_LAG_LINE,    /* the line: the peer would take more */
    NX_LAG_WINDOW,  /* the peer doesn't read */
    NX_LAG_DISK,    /* it has arrived, and isn't on the replica's disk */
    NX_LAG_APPLY    /* it is on its disk, and readers don't see it */
};

enum nx_lag_action {
    NX_LAG_SILENT = 0,
    NX_LAG_SAMPLE, /* half of the time is over: what the socket does from here on tells where it goes */
    NX_LAG_TELL,
    NX_LAG_OVER
};

/* What has been said of a replica. Zero-initialised. */
struct nx_lag_watch {
    bool behind;       /* it is, since: */
    uint64_t since_ms; /* ... */
    uint64_t most;     /* entries, the furthest of this spell */
    bool told;         /* of this spell */
    uint64_t said_ms;  /* when a spell was last told of; 0: never in this session */
    bool sampled;      /* for the next line */
    struct nx_lag_sample sample;
};

/* Takes a look: `lag` entries behind, with `limit` of them no matter and patience_ms before a word is said. */
enum nx_lag_action nx_lag_look(struct nx_lag_watch *watch,
                               uint64_t lag,
                               uint64_t limit,
                               uint64_t patience_ms,
                               uint64_t now_ms);

enum nx_lag_stage nx_lag_judge(const struct nx_lag_facts *facts);

/* "lags by ... entries ...: where they are, and what to do". */
void nx_lag_text(const struct nx_lag_facts *facts, uint64_t lasted_ms, char *buf, size_t cap);

/* Looks at this walsender's replica, and logs what there is to be said. */
void nx_lag_report(struct nx_walsender *ws);

#endif
