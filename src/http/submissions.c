/* Runs in http workers; the only place that touches the worker's submission and completion rings. */
#include "http/submissions.h"

#include "common/entry.h"
#include "common/log.h"
#include "http/confirm.h"
#include "http/connection.h"
#include "http/worker.h"

#include <errno.h>
#include <stdlib.h>

#define KEEP_BYTES (64u << 10) /* of each buffer, for the next submission */

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

/* Never past one that waits: order is the client's, and a half-submitted one must be finished. */
int nx_submission_enter_ring(struct http_worker *worker, struct submission *submission)
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
    if (nx_confirm_gate(worker, submission)) {
        return 0;
    }
    rc = nx_submission_enter_ring(worker, submission);
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

void nx_submission_finish(struct http_worker *worker,
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
        nx_confirm_await(worker, submission, completion);
    } else {
        nx_submission_finish(worker, submission, completion);
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
    any = nx_confirm_poll(worker) || any;
    return retry(worker) || any;
}

void nx_submissions_disown(struct connection *connection)
{
    struct submission *submission;

    while ((submission = LIST_FIRST(&connection->submissions)) != NULL) {
        disown(connection, submission);
    }
}
