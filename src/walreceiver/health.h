/* Whether the master is alive, judged by its silence. The clock of that runs only while the walreceiver
 * sleeps with nothing to read: while reading is held back, or this process was itself stopped, it stands
 * still. It stands in shared memory, so that a restart of the walreceiver doesn't begin it anew. */
#ifndef NX_WALRECEIVER_HEALTH_H
#define NX_WALRECEIVER_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

struct nx_config;
struct nx_walreceiver;

struct nx_health {
    bool held; /* reading is held back: our own log isn't ready, or a snapshot is being restored */
    bool told; /* the postmaster knows of the death that stands */
    uint64_t heard_bytes; /* of the session, when the master was last heard */
};

/* Longest sleep that is judged. */
#define NX_HEALTH_SLEEP_MS 3600000

/* At the start of the process. */
void nx_health_begin(struct nx_walreceiver *r);

/* The master was heard. */
void nx_health_heard(struct nx_walreceiver *r);

/* The master lives, though nothing was heard of it. */
void nx_health_alive(struct nx_walreceiver *r);

/* The socket was read, to its end or for long enough; maybe nothing came. framed: a whole frame was among it. A part of
 * one is no silence either, on a slow line (with TLS parts are records, of up to 16 KiB); but who sends no more than a
 * byte now and then keeps nobody waiting. */
void nx_health_read(struct nx_walreceiver *r, bool framed);

/* The master appears dead. */
bool nx_health_dead(const struct nx_walreceiver *r);

/* The silence that the master is allowed at the moment. */
uint64_t nx_health_limit_ms(const struct nx_walreceiver *r);

/* A sleep of at most timeout_ms (-1: no limit) begins: how long it may be. */
int nx_health_may_sleep(const struct nx_walreceiver *r, int timeout_ms);

/* It has ended, asked for timeout_ms and in fact slept_us long. Judges the master, unless something waits
 * that may be its voice (readable). */
void nx_health_slept(struct nx_walreceiver *r, int timeout_ms, uint64_t slept_us, bool readable);

/* How much of a sleep counts: a timer that fires much later than it was set says that this process was
 * stopped meanwhile. Pure. */
uint64_t nx_silence_counted_us(int timeout_ms, uint64_t slept_us);

/* The silence that a master is allowed: the longer heartbeat of both nodes (0: the master's isn't known)
 * times the threshold. Pure. */
uint64_t nx_master_silence_limit_ms(uint64_t own_heartbeat_ms,
                                    uint64_t master_heartbeat_ms,
                                    uint64_t threshold);

#endif
