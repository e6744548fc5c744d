/* Runs in http workers. Writes that wait for replicas, at the gate or behind the log, and the one timer by which
 * their deadlines are seen. See submissions.h for their way, durability.h for what they wait for. */
#include "http/confirm.h"

#include "common/fence.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/quorum.h"
#include "http/node.h"
#include "http/worker.h"

#include <event2/event.h>

#define GATE_LOOK_MS \
    100 /* between looks whether replicas are there, while a write waits for them */

/* ---- the clock ---- */

static void set_timer(struct http_worker *worker, uint64_t now)
{
    uint64_t when = worker->submissions.check_ms;
    uint64_t wait = when > now ? when - now : 0;
    struct timeval time = {.tv_sec = (time_t)(wait / 1000),
                           .tv_usec = (suseconds_t)(wait % 1000 * 1000)};

    evtimer_add(worker->confirm_timer, &time);
}

/* The loop turns then at the latest. */
static void check_at(struct http_worker *worker, uint64_t when_ms)
{
    struct submissions *submissions = &worker->submissions;

    if (submissions->check_ms == 0 || when_ms < submissions->check_ms) {
        submissions->check_ms = when_ms;
        set_timer(worker, nx_now_ms());
    }
}

static void end_before(struct submission *submission, uint64_t when_ms)
{
    if (when_ms < submission->deadline_ms) {
        submission->deadline_ms = when_ms;
    }
}

/* ---- behind the log ---- */

void nx_confirm_await(struct http_worker *worker,
                      struct submission *submission,
                      const struct nx_completion *completion)
{
    struct submissions *submissions = &worker->submissions;

    submission->completion = *completion;
    end_before(submission, submissions->end_ms);
    TAILQ_INSERT_TAIL(&submissions->confirming, submission, confirm);
    if (submission->durability == NX_DURABILITY_ALL) {
        submissions->confirming_all++;
        atomic_store_explicit(&nx_worker_row(worker)->acks_wanted, 1, memory_order_relaxed);
        check_at(worker, nx_now_ms() + GATE_LOOK_MS);
    }
    check_at(worker, submission->deadline_ms);
}

/* Ends the wait of one that is confirmed, given up by its client, or late. */
static void end_confirmation(struct http_worker *worker,
                             struct submission *submission,
                             enum nx_submit_status status)
{
    struct submissions *submissions = &worker->submissions;
    struct nx_completion completion = submission->completion;

    TAILQ_REMOVE(&submissions->confirming, submission, confirm);
    if (submission->durability == NX_DURABILITY_ALL && --submissions->confirming_all == 0) {
        atomic_store_explicit(&nx_worker_row(worker)->acks_wanted, 0, memory_order_relaxed);
    }
    completion.status = status;
    nx_submission_finish(worker, submission, &completion);
}

static bool confirmed(struct http_worker *worker, const struct submission *submission)
{
    return nx_durability_reached(worker, submission->durability, submission->completion.offset);
}

/* The first that is confirmed. They stand in the log's order, so behind one that the quorum lacks only those
 * that were given up remain to be found, by the clock. */
static struct submission *next_confirmed(struct http_worker *worker)
{
    struct submission *submission;

    TAILQ_FOREACH(submission, &worker->submissions.confirming, confirm) {
        if (confirmed(worker, submission)) {
            return submission;
        }
        if (submission->completion.offset > nx_quorum_offset(worker->shm)) {
            return NULL;
        }
    }
    return NULL;
}

static bool poll_confirming(struct http_worker *worker)
{
    struct submission *submission;
    bool any = false;

    while ((submission = next_confirmed(worker)) != NULL) {
        end_confirmation(worker, submission, (enum nx_submit_status)submission->completion.status);
        any = true;
    }
    return any;
}

/* ---- at the gate ---- */

bool nx_confirm_gate(struct http_worker *worker, struct submission *submission)
{
    struct submissions *submissions = &worker->submissions;
    uint64_t now;

    submission->deadline_ms = 0;
    if (submission->durability == NX_DURABILITY_LOCAL) {
        return false;
    }
    now = nx_now_ms();
    submission->deadline_ms = now + worker->process->config->replication.sync_timeout_ms;
    end_before(submission, submissions->end_ms);
    if (STAILQ_EMPTY(&submissions->gated) && nx_durability_possible(worker)) {
        return false;
    }
    STAILQ_INSERT_TAIL(&submissions->gated, submission, wait);
    check_at(worker, now + GATE_LOOK_MS);
    check_at(worker, submission->deadline_ms);
    return true;
}

/* With what those at the gate are refused at once; DONE: they may wait. */
static enum nx_submit_status gate_closed(const struct http_worker *worker)
{
    if (nx_fenced(worker->shm)) {
        return NX_SUBMIT_FENCED;
    }
    return nx_node_replication_stopped(worker->shm) ? NX_SUBMIT_STOPPED : NX_SUBMIT_DONE;
}

/* Refuses, or drops, the first at the gate. */
static void refuse_gated(struct http_worker *worker, enum nx_submit_status status)
{
    struct submission *submission = STAILQ_FIRST(&worker->submissions.gated);

    STAILQ_REMOVE_HEAD(&worker->submissions.gated, wait);
    nx_submission_finish(
        worker, submission,
        &(struct nx_completion){.ticket = submission->what.ticket, .status = status});
}

/* Lets in order through the gate whom it is open for. */
static bool poll_gated(struct http_worker *worker)
{
    struct submissions *submissions = &worker->submissions;
    enum nx_submit_status closed = gate_closed(worker);
    struct submission *submission;
    bool any = false;

    while ((submission = STAILQ_FIRST(&submissions->gated)) != NULL) {
        if (submission->owner == NULL || closed != NX_SUBMIT_DONE) {
            refuse_gated(worker, closed);
            continue;
        }
        if (!nx_durability_possible(worker)) {
            break;
        }
        STAILQ_REMOVE_HEAD(&submissions->gated, wait);
        if (nx_submission_enter_ring(worker, submission) < 0) {
            nx_submission_finish(worker, submission,
                                 &(struct nx_completion){.ticket = submission->what.ticket,
                                                         .status = NX_SUBMIT_TOO_LARGE});
        }
        any = true;
    }
    return any;
}

/* ---- deadlines ---- */

static void say_no_quorum(const struct http_worker *worker)
{
    static struct nx_log_limit limit;
    static struct nx_replica_views views;

    nx_replicas_look(worker->shm, nx_silence_limit_ms(worker->process->config), &views);
    nx_log_limited(
        &limit, NX_LOG_WARNING,
        "writes are refused (503 quorum_unavailable): %u must confirm them (sync_quorum), "
        "and %u of %u connected replicas are level and healthy",
        nx_quorum_size(worker->shm), nx_replicas_counting(&views), views.count);
}

/* Ends the waits that lasted too long, at the gate (in order of arrival) and behind the log. */
static void expire(struct http_worker *worker, uint64_t now)
{
    struct submissions *submissions = &worker->submissions;
    struct submission *submission;
    struct submission *next;

    submission = STAILQ_FIRST(&submissions->gated);
    if (submission != NULL && submission->deadline_ms <= now) {
        say_no_quorum(worker);
    }
    while ((submission = STAILQ_FIRST(&submissions->gated)) != NULL &&
           submission->deadline_ms <= now) {
        refuse_gated(worker, NX_SUBMIT_NO_QUORUM);
    }
    for (submission = TAILQ_FIRST(&submissions->confirming); submission != NULL;
         submission = next) {
        next = TAILQ_NEXT(submission, confirm);
        if (submission->deadline_ms <= now || submission->owner == NULL) {
            end_confirmation(worker, submission,
                             submission->completion.status == NX_SUBMIT_DONE ? NX_SUBMIT_UNCONFIRMED
                                                                             : NX_SUBMIT_UNSETTLED);
        }
    }
}

/* When the clock is to be looked at next. At the gate, and for ALL, a replica may also fall silent, of which
 * nobody tells. */
static void plan_check(struct http_worker *worker, uint64_t now)
{
    struct submissions *submissions = &worker->submissions;
    const struct submission *submission;

    submissions->check_ms = 0;
    TAILQ_FOREACH(submission, &submissions->confirming, confirm) {
        check_at(worker, submission->deadline_ms);
    }
    if (!STAILQ_EMPTY(&submissions->gated)) {
        check_at(worker, STAILQ_FIRST(&submissions->gated)->deadline_ms);
    }
    if (!STAILQ_EMPTY(&submissions->gated) || submissions->confirming_all > 0) {
        check_at(worker, now + GATE_LOOK_MS);
    }
}

/* The loop's clock is coarser than ours, so that its timer may have rung too early; then, or where it could
 * not be set, it is set once more. */
static void check_clock(struct http_worker *worker)
{
    uint64_t check = worker->submissions.check_ms;
    uint64_t now;

    if (check == 0) {
        return;
    }
    now = nx_now_ms();
    if (check <= now) {
        expire(worker, now);
        plan_check(worker, now);
    } else if (evtimer_pending(worker->confirm_timer, NULL) == 0) {
        set_timer(worker, now);
    }
}

/* ---- the loop's side ---- */

bool nx_confirm_poll(struct http_worker *worker)
{
    bool any = poll_confirming(worker);

    any = poll_gated(worker) || any;
    check_clock(worker);
    return any;
}

bool nx_confirm_due(struct http_worker *worker)
{
    struct submissions *submissions = &worker->submissions;

    return (!TAILQ_EMPTY(&submissions->confirming) && next_confirmed(worker) != NULL) ||
           (!STAILQ_EMPTY(&submissions->gated) &&
            (gate_closed(worker) != NX_SUBMIT_DONE || nx_durability_possible(worker)));
}

uint64_t nx_confirm_quorum_wanted(const struct http_worker *worker)
{
    const struct submissions *submissions = &worker->submissions;
    const struct submission *first = TAILQ_FIRST(&submissions->confirming);

    if (!STAILQ_EMPTY(&submissions->gated)) {
        return nx_quorum_offset(worker->shm) + 1;
    }
    return first != NULL ? first->completion.offset : NX_WAKE_NEVER;
}

void nx_confirm_end(struct http_worker *worker, uint64_t end_ms)
{
    struct submissions *submissions = &worker->submissions;
    struct submission *submission;

    while (!STAILQ_EMPTY(&submissions->gated)) {
        refuse_gated(worker, NX_SUBMIT_DRAINING);
    }
    submissions->end_ms = end_ms;
    TAILQ_FOREACH(submission, &submissions->confirming, confirm) {
        end_before(submission, end_ms);
    }
    plan_check(worker, nx_now_ms());
}
