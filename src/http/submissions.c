/* Runs in http workers; the only place that touches the worker's submission and completion rings. */
#include "http/submissions.h"

#include "common/entry.h"
#include "common/latch.h"
#include "common/log.h"
#include "http/connection.h"
#include "http/node.h"
#include "http/worker.h"

#include <event2/event.h>

#include <errno.h>
#include <stdlib.h>

#define KEEP_BYTES (64u << 10) /* of each buffer, for the next submission */
#define GATE_LOOK_MS \
    100 /* between looks whether replicas are there, while a write waits for them */

void nx_submissions_init(struct submissions *submissions)
{
    *submissions = (struct submissions){.end_ms = UINT64_MAX};
    STAILQ_INIT(&submissions->free);
    STAILQ_INIT(&submissions->gated);
    STAILQ_INIT(&submissions->waiting);
    TAILQ_INIT(&submissions->confirming);
}

void nx_submissions_free(struct submissions *submissions)
{
    for (uint32_t i = 0; i < submissions->count; i++) {
        nx_text_free(&submissions->table[i]->body);
        nx_text_free(&submissions->table[i]->conditions);
        free(submissions->table[i]);
    }
    free(submissions->table);
    nx_submissions_init(submissions);
}

static bool grow(struct submissions *submissions)
{
    uint32_t cap = submissions->cap == 0 ? 64 : submissions->cap * 2;
    struct submission **table = realloc(submissions->table, cap * sizeof(struct submission *));

    if (table == NULL) {
        return false;
    }
    submissions->table = table;
    submissions->cap = cap;
    return true;
}

static struct submission *take(struct submissions *submissions)
{
    struct submission *submission = STAILQ_FIRST(&submissions->free);

    if (submission != NULL) {
        STAILQ_REMOVE_HEAD(&submissions->free, wait);
        submission->sequence++;
        return submission;
    }
    if (submissions->count == submissions->cap && !grow(submissions)) {
        return NULL;
    }
    submission = calloc(1, sizeof *submission);
    if (submission != NULL) {
        submission->index = submissions->count;
        submissions->table[submissions->count++] = submission;
    }
    return submission;
}

static void give_back(struct submissions *submissions, struct submission *submission)
{
    nx_text_reset(&submission->body, KEEP_BYTES);
    nx_text_reset(&submission->conditions, KEEP_BYTES);
    submission->owner = NULL;
    submission->progress = 0;
    submission->done = NULL;
    STAILQ_INSERT_HEAD(&submissions->free, submission, wait);
}

static void swap(struct text *a, struct text *b)
{
    struct text c = *a;

    *a = *b;
    *b = c;
}

static void fill(struct submission *submission, const struct write_request *write)
{
    swap(&submission->body, write->body);
    nx_text_reset(write->body, KEEP_BYTES);
    if (write->conditions != NULL) {
        swap(&submission->conditions, write->conditions);
        nx_text_reset(write->conditions, KEEP_BYTES);
    }
    submission->done = write->done;
    submission->argument = write->argument;
    submission->progress = 0;
    submission->what = (struct nx_submission){
        .kind = NX_SUBMIT_WRITE,
        .flags = write->flags,
        .ticket = (uint64_t)submission->sequence << 32 | submission->index,
        .conditions = submission->conditions.data,
        .conditions_length = submission->conditions.length,
        .condition_count = write->condition_count,
        .body = submission->body.data + write->body_from,
        .body_length = submission->body.length - write->body_from,
        .op_count = write->op_count,
    };
}

static void disown(struct connection *connection, struct submission *submission)
{
    connection->open--;
    LIST_REMOVE(submission, owned);
    submission->owner = NULL;
}

/* Into the ring, but never past one that waits: order is the client's, and a half-submitted one must be
 * finished. 0, or a negative error: it never fits. */
static int enter_ring(struct http_worker *worker, struct submission *submission)
{
    struct submissions *submissions = &worker->submissions;
    int rc = STAILQ_EMPTY(&submissions->waiting)
                 ? nx_submit(&worker->producer, &submission->what, &submission->progress)
                 : -EAGAIN;

    if (rc == -EAGAIN) {
        STAILQ_INSERT_TAIL(&submissions->waiting, submission, wait);
        return 0;
    }
    return rc;
}

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

int nx_submissions_put(struct connection *connection, const struct write_request *write)
{
    struct http_worker *worker = connection->worker;
    struct submissions *submissions = &worker->submissions;
    struct submission *submission;
    int rc;

    if (write->body->length - write->body_from > NX_ENTRY_MAX_OPS_LENGTH) {
        return -EMSGSIZE;
    }
    submission = take(submissions);
    if (submission == NULL) {
        return -ENOMEM;
    }
    fill(submission, write);
    submission->owner = connection;
    LIST_INSERT_HEAD(&connection->submissions, submission, owned);
    connection->open++;
    submission->durability = connection->request->durability;
    submission->deadline_ms = 0;
    if (submission->durability != NX_DURABILITY_LOCAL) {
        submission->deadline_ms =
            nx_now_ms() + worker->process->config->replication.sync_timeout_ms;
        end_before(submission, submissions->end_ms);
        if (!STAILQ_EMPTY(&submissions->gated) || !nx_durability_possible(worker)) {
            STAILQ_INSERT_TAIL(&submissions->gated, submission, wait);
            check_at(worker, nx_now_ms() + GATE_LOOK_MS);
            check_at(worker, submission->deadline_ms);
            return 0;
        }
    }
    rc = enter_ring(worker, submission);
    if (rc < 0) {
        disown(connection, submission);
        give_back(submissions, submission);
    }
    return rc;
}

/* The submission that a completion is of, or NULL. */
static struct submission *find(const struct submissions *submissions, uint64_t ticket)
{
    uint32_t index = (uint32_t)ticket;
    struct submission *submission = index < submissions->count ? submissions->table[index] : NULL;

    return submission != NULL && submission->done != NULL &&
                   submission->sequence == (uint32_t)(ticket >> 32)
               ? submission
               : NULL;
}

/* Hands the outcome to whoever asked, if he is still there. */
static void finish(struct http_worker *worker,
                   struct submission *submission,
                   const struct nx_completion *completion)
{
    struct connection *connection = submission->owner;
    submission_done done = submission->done;
    uint64_t argument = submission->argument;

    if (connection != NULL) {
        disown(connection, submission);
    }
    give_back(&worker->submissions, submission);
    if (connection != NULL) {
        done(connection, completion, argument);
        nx_connection_run(connection);
    }
}

/* ---- waiting for replicas ---- */

static void await_confirmation(struct http_worker *worker,
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
    finish(worker, submission, &completion);
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

/* Refuses, or drops, the first at the gate. */
static void refuse_gated(struct http_worker *worker, enum nx_submit_status status)
{
    struct submission *submission = STAILQ_FIRST(&worker->submissions.gated);

    STAILQ_REMOVE_HEAD(&worker->submissions.gated, wait);
    finish(worker, submission,
           &(struct nx_completion){.ticket = submission->what.ticket, .status = status});
}

/* Lets in order through the gate whom it is open for. */
static bool poll_gated(struct http_worker *worker)
{
    struct submissions *submissions = &worker->submissions;
    struct submission *submission;
    bool any = false;

    while ((submission = STAILQ_FIRST(&submissions->gated)) != NULL) {
        if (submission->owner == NULL || nx_node_replication_stopped(worker->shm)) {
            refuse_gated(worker, NX_SUBMIT_STOPPED);
            continue;
        }
        if (!nx_durability_possible(worker)) {
            break;
        }
        STAILQ_REMOVE_HEAD(&submissions->gated, wait);
        if (enter_ring(worker, submission) < 0) {
            finish(worker, submission,
                   &(struct nx_completion){.ticket = submission->what.ticket,
                                           .status = NX_SUBMIT_TOO_LARGE});
        }
        any = true;
    }
    return any;
}

/* Ends the waits that lasted too long, at the gate (in order of arrival) and behind the log. */
static void expire(struct http_worker *worker, uint64_t now)
{
    struct submissions *submissions = &worker->submissions;
    struct submission *submission;
    struct submission *next;

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

bool nx_submissions_due(struct http_worker *worker)
{
    struct submissions *submissions = &worker->submissions;

    return (!TAILQ_EMPTY(&submissions->confirming) && next_confirmed(worker) != NULL) ||
           (!STAILQ_EMPTY(&submissions->gated) && nx_durability_possible(worker));
}

uint64_t nx_submissions_quorum_wanted(const struct http_worker *worker)
{
    const struct submissions *submissions = &worker->submissions;
    const struct submission *first = TAILQ_FIRST(&submissions->confirming);

    if (!STAILQ_EMPTY(&submissions->gated)) {
        return nx_quorum_offset(worker->shm) + 1;
    }
    return first != NULL ? first->completion.offset : NX_WAKE_NEVER;
}

void nx_submissions_end(struct http_worker *worker, uint64_t end_ms)
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

/* ---- completions ---- */

static void complete(struct http_worker *worker, const struct nx_completion *completion)
{
    struct submission *submission = find(&worker->submissions, completion->ticket);

    if (submission == NULL) {
        nx_warn("a completion came for ticket %llu, which no request holds; it is dropped",
                (unsigned long long)completion->ticket);
        return;
    }
    if (submission->owner != NULL && submission->durability != NX_DURABILITY_LOCAL &&
        completion->status <= NX_SUBMIT_CONDITION) {
        await_confirmation(worker, submission, completion);
    } else {
        finish(worker, submission, completion);
    }
}

/* Tries the waiting ones again, in order. True when one went through. */
static bool retry(struct http_worker *worker)
{
    struct submissions *submissions = &worker->submissions;
    struct submission *submission;
    bool any = false;

    while ((submission = STAILQ_FIRST(&submissions->waiting)) != NULL) {
        if (submission->owner == NULL && submission->progress == 0) {
            STAILQ_REMOVE_HEAD(&submissions->waiting, wait);
            give_back(submissions, submission);
            continue;
        }
        int rc = nx_submit(&worker->producer, &submission->what, &submission->progress);

        if (rc == -EAGAIN) {
            break;
        }
        STAILQ_REMOVE_HEAD(&submissions->waiting, wait);
        if (rc < 0) {
            complete(worker, &(struct nx_completion){.ticket = submission->what.ticket,
                                                     .status = NX_SUBMIT_TOO_LARGE});
        }
        any = true;
    }
    return any;
}

bool nx_submissions_poll(struct http_worker *worker)
{
    struct nx_completion completion;
    bool any = false;

    while (nx_completion_next(&worker->producer, &completion)) {
        complete(worker, &completion);
        any = true;
    }
    any = poll_confirming(worker) || any;
    any = poll_gated(worker) || any;
    check_clock(worker);
    return retry(worker) || any;
}

void nx_submissions_disown(struct connection *connection)
{
    struct submission *submission;

    while ((submission = LIST_FIRST(&connection->submissions)) != NULL) {
        disown(connection, submission);
    }
}
