/* The steps of a change of the role (struct nx_role_change), and what its kinds need of each other. Private to
 * role_change.c, promotion.c, promise.c and follow.c. */
#ifndef NX_POSTMASTER_ROLE_CHANGE_H
#define NX_POSTMASTER_ROLE_CHANGE_H

#include "postmaster/postmaster.h"

/* ---- role_change.c ---- */

/* Answers a message of a child by DONE. */
void nx_change_answer_to(const struct nx_postmaster *pm,
                         unsigned slot,
                         uint64_t ticket,
                         int status,
                         const char *text);
/* What can't be done at the moment, or ever, without a change having begun: "<code> <sentence>". */
void nx_change_turn_down(const struct nx_postmaster *pm,
                         unsigned slot,
                         const struct nx_control_message *message,
                         const char *text);
/* Begins a change for the child that asks. False: it is turned down, because of another one, or the node doesn't serve. */
bool nx_change_begin(struct nx_postmaster *pm,
                     enum nx_change_kind kind,
                     unsigned slot,
                     const struct nx_control_message *message);
/* Its first step: whoever is in the way ends; then it goes on. */
void nx_change_begin_ending(struct nx_postmaster *pm);
/* False: the walwriter can't be reached. */
bool nx_change_order_walwriter(struct nx_postmaster *pm, enum nx_control_type type, uint64_t arg);
/* Ends the change with its answer; what was sent away comes back. */
void nx_change_answer(struct nx_postmaster *pm, int status, const char *text);
/* The same, as a refusal: "<code> <sentence>". */
void nx_change_refuse(struct nx_postmaster *pm, const char *text);
/* The same, since `what` ("the promise") can't be stored; the log says why. */
void nx_change_refuse_unstored(struct nx_postmaster *pm, int rc, const char *what);
/* What the log says of that. */
void nx_change_log_unstored(const struct nx_postmaster *pm, int rc, const char *what);

/* ---- promotion.c ---- */

/* Slot of the peers process that asks for this promotion. */
unsigned nx_promotion_asker(const struct nx_role_change *change);

void nx_promotion_begin(struct nx_postmaster *pm,
                        unsigned slot,
                        const struct nx_control_message *message);
/* The log is settled: the other nodes are asked. */
void nx_promotion_ask(struct nx_postmaster *pm);
/* They were: the epoch is to begin, or not. */
void nx_promotion_take_verdict(struct nx_postmaster *pm, const struct nx_control_message *message);
/* Its entry is durable: this node is master. */
void nx_promotion_finish(struct nx_postmaster *pm);

/* ---- withdrawal.c ---- */

/* A promotion begins to ask for promises. */
void nx_withdrawal_note(struct nx_postmaster *pm, uint64_t epoch, uint64_t number);
/* replication.peers is about to be `fresh`. */
void nx_withdrawal_peers_changed(const struct nx_postmaster *pm, const char *fresh);
/* This node leads in that epoch: what was promised for it, or before it, stands. */
void nx_withdrawal_forget(struct nx_postmaster *pm, uint64_t epoch);

/* ---- promise.c ---- */

void nx_promise_begin(struct nx_postmaster *pm,
                      unsigned slot,
                      const struct nx_control_message *message);
/* The log is settled: where it ends. */
void nx_promise_answer(struct nx_postmaster *pm);
void nx_promise_withdraw(struct nx_postmaster *pm,
                         unsigned slot,
                         const struct nx_control_message *message);

/* ---- follow.c ---- */

void nx_follow_begin(struct nx_postmaster *pm,
                     unsigned slot,
                     const struct nx_control_message *message);
/* Whoever was in the way is gone. */
void nx_follow_now(struct nx_postmaster *pm);
/* An http worker has ended; once all have, a fenced master becomes a replica. */
void nx_follow_http_gone(struct nx_postmaster *pm);
/* What is stored of it is in effect, whatever became of the processes. */
void nx_follow_put_in_effect(struct nx_postmaster *pm);
/* Nothing in shared memory is of the master that was followed any more. The walreceiver is gone. */
void nx_follow_forget_master(const struct nx_postmaster *pm);
/* The master's history goes on from ours: what force was for is over. */
void nx_follow_end_force(struct nx_postmaster *pm);

#endif
