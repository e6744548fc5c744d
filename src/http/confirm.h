/* Writes that ask for more than this node's disk, before and after the log (submissions.h). */
#ifndef NX_HTTP_CONFIRM_H
#define NX_HTTP_CONFIRM_H

#include "http/submissions.h"

#include <stdbool.h>
#include <stdint.h>

struct http_worker;

/* A new submission, its durability set. True: it waits at the gate; false: it may go into the ring. */
bool nx_confirm_gate(struct http_worker *worker, struct submission *submission);

/* It is logged, or was judged: its outcome is handed out when the replicas have what it stands on. */
void nx_confirm_await(struct http_worker *worker,
                      struct submission *submission,
                      const struct nx_completion *completion);

/* Lets go on whoever can, and ends waits that lasted too long. True when there were any. */
bool nx_confirm_poll(struct http_worker *worker);

/* Whether a poll would find something (the second look before sleep). */
bool nx_confirm_due(struct http_worker *worker);

/* The lowest quorum offset that would let something go on, or NX_WAKE_NEVER. */
uint64_t nx_confirm_quorum_wanted(const struct http_worker *worker);

/* The node stops: what is not logged yet is refused, and no wait lasts beyond end_ms (CLOCK_MONOTONIC). */
void nx_confirm_end(struct http_worker *worker, uint64_t end_ms);

/* ---- submissions.c offers ---- */

/* Puts it into the ring, or in line for it. 0, or a negative error: it never fits. */
int nx_submission_enter_ring(struct http_worker *worker, struct submission *submission);

/* Hands the outcome to whoever asked, if he is still there; the submission is free again. */
void nx_submission_finish(struct http_worker *worker,
                          struct submission *submission,
                          const struct nx_completion *completion);

#endif
