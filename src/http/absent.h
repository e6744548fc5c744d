/* Replicas that this master knows and that are away. */
#ifndef NX_HTTP_ABSENT_H
#define NX_HTTP_ABSENT_H

#include "common/json_out.h"
#include "common/shm_layout.h"

struct http_worker;

/* The connected ones, as the same answer has them. */
struct shown_replicas {
    char ids[NX_MAX_WALSENDERS][NX_UUID_TEXT];
    unsigned count;
};

/* The member "absent" of /replication/replicas. */
void nx_absent_put(struct json *json,
                   struct http_worker *worker,
                   const struct shown_replicas *shown);

#endif
