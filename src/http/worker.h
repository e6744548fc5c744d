/* What an http worker owns. One process, one thread, one event loop; everything here is private to it
 * but for its row of shm->http[] and its pair of rings. */
#ifndef NX_HTTP_WORKER_H
#define NX_HTTP_WORKER_H

#include "common/process.h"
#include "common/quorum.h"
#include "common/submit.h"
#include "common/text.h"
#include "http/accept.h"
#include "http/changes.h"
#include "http/connection.h"
#include "http/control_ask.h"
#include "http/request.h"
#include "http/submissions.h"
#include "http/tail.h"
#include "http/watch.h"
#include "storage/state.h"
#include "storage/view.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

struct event;
struct event_base;
struct json_tokener;

/* Bytes of bodies that this worker gathers at one time; beyond it clients get 503. */
#define NX_BODY_BUDGET (256u << 20)

/* Bytes of answers that wait in this worker until their clients take them; beyond it those to a GET above
 * NX_ANSWER_SMALL are 503, and a connection has one answer waiting at most. What is streamed keeps within bounds of its
 * own and is counted, but not refused. */
#define NX_ANSWER_BUDGET (256u << 20)
#define NX_ANSWER_SMALL  (16u << 10)

LIST_HEAD(connection_list, connection);

/* How long completions take, to know whether polling for them pays. */
struct completion_poll {
    uint64_t since_us; /* writes are in flight and there is nothing else to do; 0: not so */
    uint64_t usual_us; /* running mean of the time from then to a completion */
};

struct http_worker {
    struct nx_process *process;
    struct nx_shm *shm;
    struct event_base *base;
    struct acceptor acceptor;
    struct event *doorbell;
    struct event *control;
    struct event *confirm_timer; /* writes that wait for their quorum */
    struct nx_state *state;      /* opened when first read from */
    struct nx_view *view;
    struct nx_producer producer;
    struct submissions submissions;
    struct nx_replica_views replicas; /* as they were in this turn (durability.h) ... */
    bool replicas_seen;               /* ... if anybody has looked */

    struct connection_list connections;
    struct connection_list waits; /* parked requests */
    struct connection_list exports;
    struct tail tail;                 /* reads what is committed, once for all that want it: */
    struct changes changes;           /* ... followers of /changes */
    struct watches watches;           /* ... reads that wait for another version of their key */
    struct connection_list snapshots; /* requests for one (snapshot_api.h) */
    bool snapshot_asked;              /* the postmaster was, for one, and has not answered yet */
    struct nx_control_asks asks;      /* what the postmaster was asked and has not answered yet */
    SLIST_HEAD(request_list, request) free_requests;
    unsigned free_request_count;
    unsigned turned_away; /* connections above http.max_connections that are being told so */
    size_t body_bytes;    /* reserved of NX_BODY_BUDGET */
    size_t answer_bytes;  /* waiting, of NX_ANSWER_BUDGET: what the connections have queued */
    struct text out;      /* answers of the connection that runs now */
    struct text json;     /* scratch for JSON answers */
    struct text scratch;
    struct json_tokener *tokener;
    char host_name[256];
    bool many_cores;
    struct completion_poll poll;
    bool stopping;
    uint64_t stop_deadline_ms;
};

/* Opens a handle of the state for reading. 0 or a negative error. */
int nx_worker_open_state(struct http_worker *worker, struct nx_state **ret_state);

/* Opens state and view if they are not open yet; the view shows the committed state. 0, or a negative error:
 * the state can't be read now. */
int nx_worker_open_view(struct http_worker *worker);

/* A request from the pool, or NULL when memory is short; and back. */
struct request *nx_worker_take_request(struct http_worker *worker);
void nx_worker_give_request(struct http_worker *worker, struct request *request);

/* Calls back with the worker whenever fd can be read from. Owned by the caller; NULL: no memory. */
struct event *nx_worker_listen(struct http_worker *worker,
                               int fd,
                               void (*call)(int fd, short what, void *arg));

/* Frees an event, if there is one. */
void nx_event_free(struct event *event);

/* The shared memory row of this worker. */
struct nx_http_request_state *nx_worker_row(struct http_worker *worker);

#endif
