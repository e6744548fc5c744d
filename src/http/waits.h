/* Parked requests: reads that wait until this node has an offset (Nexus-Min-Offset, ?wait= of what is only
 * durable), or until the quorum has confirmed that this master leads (Nexus-Read: linearizable). */
#ifndef NX_HTTP_WAITS_H
#define NX_HTTP_WAITS_H

#include <stdbool.h>
#include <stdint.h>

struct connection;
struct http_worker;

/* Parks the connection's request until the offset that its reads see is at least `offset`: then `again` is
 * called, or `expired` when `deadline_ms` (CLOCK_MONOTONIC) comes first. */
void nx_wait_park(struct connection *connection,
                  uint64_t offset,
                  uint64_t deadline_ms,
                  void (*again)(struct connection *connection),
                  void (*expired)(struct connection *connection));

/* Parks it until the quorum has answered what was sent at asked_us or later; then the request is routed on. */
void nx_wait_confirm(struct connection *connection,
                     uint64_t asked_us,
                     uint64_t deadline_ms,
                     void (*expired)(struct connection *connection));

/* The client sends no more. It may have gone, which can't be told, so that a ?wait= lasts no longer than
 * http.request_timeout_ms from now. */
void nx_wait_eof(struct connection *connection);

/* Takes it off the list that it is in, if any (of watch.h too). */
void nx_wait_cancel(struct connection *connection);

/* Wakes one: it may be parked again, or gone. */
void nx_wait_resume(struct connection *connection);

/* Wakes those whose offset is reached. True when there were any. */
bool nx_waits_poll(struct http_worker *worker);

/* Whether one can go on. */
bool nx_waits_due(struct http_worker *worker);

/* The lowest offset that somebody waits for, or NX_WAKE_NEVER. */
uint64_t nx_waits_lowest(const struct http_worker *worker);

/* This node stops, and not in a hurry: reads of ?wait= have waited long enough. */
void nx_waits_cut_short(struct http_worker *worker);

/* This node stops: answers all that are parked. */
void nx_waits_end(struct http_worker *worker);

#endif
