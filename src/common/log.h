/* The log: a line a message, written with one write(2), so that lines of several processes never mix.
 *
 *     2026-11-24T12:00:00.123Z INFO  walwriter[1234]: message
 *     {"time":"2026-11-24T12:00:00.123Z","level":"info","process":"walwriter","pid":1234,"message":"..."}
 *
 * Control characters and what isn't UTF-8 in a message come out as \xNN, so that a peer's bytes can't
 * forge a line or speak to a terminal; a message is cut at NX_LOG_MESSAGE_SIZE. Nothing here allocates
 * memory, and nothing fails: a line that can't be written is lost. For one thread a process. */
#ifndef NX_COMMON_LOG_H
#define NX_COMMON_LOG_H

#include "common/config.h"

#include <stddef.h>
#include <stdint.h>

#define NX_LOG_MESSAGE_SIZE 2048 /* longest message, bytes as given */

/* Sets level, format and file ("" is stderr). In the postmaster before the first fork, so that children
 * inherit the open file; in any process after a reload, which changes level and format only. 0, or
 * -errno of opening the file; then the log is as it was. */
int nx_log_configure(const struct nx_config *config);

/* Names this process in each line from now on; kind is kept by reference. */
void nx_log_set_process(const char *kind);

/* Opens the log file anew, here and in every process that was forked after nx_log_configure: each does
 * so before its next line. Async-signal-safe. Without a log file it does nothing. */
void nx_log_reopen(void);

/* The descriptor that lines are written to at this moment. */
int nx_log_fd(void);

/* Bytes of the UTF-8 character that a NUL-terminated text begins with, when it may be shown as it is; 0 for
 * control characters and for what isn't UTF-8 (overlong forms and surrogates aren't). */
size_t nx_log_printable(const char *text);

/* True when lines of this level are written. */
bool nx_log_wants(enum nx_log_level level);

void nx_log(enum nx_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define nx_error(...) nx_log(NX_LOG_ERROR, __VA_ARGS__)
#define nx_warn(...)  nx_log(NX_LOG_WARNING, __VA_ARGS__)
#define nx_info(...)  nx_log(NX_LOG_INFO, __VA_ARGS__)
#define nx_debug(...) nx_log(NX_LOG_DEBUG, __VA_ARGS__)

/* For messages that a stranger or a lasting condition can cause at any rate: at most NX_LOG_BURST lines
 * in NX_LOG_PERIOD_MS a limit; the next line that is written says how many were left out. Zero-initialised;
 * one a place that logs. */
#define NX_LOG_BURST     5
#define NX_LOG_PERIOD_MS 10000
struct nx_log_limit {
    uint64_t period_began_ms; /* monotonic */
    unsigned written;         /* in this period */
    uint64_t left_out;        /* since the last line that was written */
};

void nx_log_limited(struct nx_log_limit *limit, enum nx_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
