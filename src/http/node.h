/* What this node is and can do at this moment, read from shared memory; and the refusals that follow
 * from it. */
#ifndef NX_HTTP_NODE_H
#define NX_HTTP_NODE_H

#include "common/config.h"
#include "common/shm_layout.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct connection;

enum nx_node_role nx_node_role(struct nx_shm *shm);
enum nx_node_phase nx_node_phase(struct nx_shm *shm);
const char *nx_node_role_name(enum nx_node_role role);

/* The epoch that new entries get. */
uint64_t nx_node_epoch(struct nx_shm *shm);

/* Durable here; on a replica also what is applied. */
uint64_t nx_node_durable(struct nx_shm *shm);

/* Highest master offset heard, minus what is applied; 0 off a replica. */
uint64_t nx_node_lag(struct nx_shm *shm);

/* True when the replica's session with its master stands. */
bool nx_node_connected(struct nx_shm *shm);

/* True when replication was stopped by POST /replication/stop. */
bool nx_node_replication_stopped(const struct nx_shm *shm);

/* The cluster that it belongs to; "" until it does. */
void nx_node_cluster_id(const struct nx_shm *shm, char ret_id[NX_UUID_TEXT]);

/* The URL of another node's HTTP interface: TLS where ours is, since a cluster has it on all nodes or on none. */
void nx_node_url(const char *address, char *text, size_t cap);

/* nx_node_url of the master into text; false when it isn't known. */
bool nx_node_master_url(struct nx_shm *shm, char *text, size_t cap);

/* Each of these answers the request and returns false when it can't go on. */
bool nx_node_check_readable(struct connection *connection);
bool nx_node_check_writable(struct connection *connection);
/* That the node neither starts nor stops; `refuses` ends the sentence "This node is stopping and ...". */
bool nx_node_check_serving(struct connection *connection, const char *refuses);
/* That the node has this role. */
bool nx_node_check_role(struct connection *connection, enum nx_node_role wanted);
/* That it is a master or a replica. */
bool nx_node_check_replicates(struct connection *connection);

#endif
