/* How an attempt ends, and the one place where the walreceiver sleeps: what all its parts need, and what
 * needs none of them. Runs in the walreceiver; owns nothing. */
#include "common/latch.h"
#include "walreceiver/walreceiver.h"

#include <stdarg.h>
#include <stdio.h>

__attribute__((format(printf, 4, 0))) static void note_cause(struct nx_walreceiver *r,
                                                             enum nx_cause_kind kind,
                                                             uint32_t detail,
                                                             const char *format,
                                                             va_list args)
{
    r->cause = (struct nx_cause){.kind = kind, .detail = detail};
    (void)vsnprintf(r->cause.text, sizeof r->cause.text, format, args);
}

void nx_receiver_end(struct nx_walreceiver *r,
                     enum nx_cause_kind kind,
                     uint32_t detail,
                     const char *format,
                     ...)
{
    va_list args;

    if (!nx_receiver_ended(r)) {
        va_start(args, format);
        note_cause(r, kind, detail, format, args);
        va_end(args);
    }
}

void nx_receiver_refuse(struct nx_walreceiver *r,
                        enum nx_cause_kind kind,
                        enum nx_wire_error code,
                        const char *format,
                        ...)
{
    va_list args;

    if (!nx_receiver_ended(r)) {
        va_start(args, format);
        note_cause(r, kind, code, format, args);
        va_end(args);
        r->cause.error_code = code;
        r->cause.slow = kind == NX_CAUSE_REFUSED;
    }
}

void nx_receiver_hear(struct nx_walreceiver *r)
{
    (void)nx_process_control(r->process, NULL, 0);
    if (nx_process_stopping(r->process)) {
        bool stopped =
            atomic_load_explicit(&r->shm->control.replication_stopped, memory_order_acquire) != 0;

        nx_receiver_refuse(r, NX_CAUSE_STOP, NX_WIRE_ERROR_SHUTTING_DOWN, "%s",
                           stopped ? "this replica was told to stop (POST /replication/stop)"
                                   : "this replica is shutting down");
    }
}

void nx_receiver_sleep(struct nx_walreceiver *r,
                       int fd,
                       short events,
                       int timeout_ms,
                       short *ret_revents)
{
    struct pollfd fds[2] = {
        {.fd = r->process->control.fd, .events = POLLIN},
        {.fd = fd, .events = events},
    };

    uint64_t began = nx_now_us();

    timeout_ms = nx_health_may_sleep(r, timeout_ms);
    (void)nx_latch_poll(r->process->slot, fds, fd < 0 ? 1 : 2, timeout_ms);
    nx_latch_cancel(r->shm, r->process->slot);
    nx_health_slept(r, timeout_ms, nx_now_us() - began, (fds[1].revents & POLLIN) != 0);
    if (fds[0].revents != 0) {
        nx_receiver_hear(r);
    }
    if (ret_revents != NULL) {
        *ret_revents = fds[1].revents;
    }
}
