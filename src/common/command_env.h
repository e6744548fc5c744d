/* The variables that failover_command finds in its environment beside the server's own. A server that such a
 * command starts inherits them: they are no settings. */
#ifndef NX_COMMON_COMMAND_ENV_H
#define NX_COMMON_COMMAND_ENV_H

#define NX_COMMAND_EVENT       "NEXUS_EVENT"
#define NX_COMMAND_NODE_ID     "NEXUS_NODE_ID"
#define NX_COMMAND_MASTER_ADDR "NEXUS_MASTER_ADDR"
#define NX_COMMAND_HTTP_ADDR   "NEXUS_HTTP_ADDR"
#define NX_COMMAND_WAL_OFFSET  "NEXUS_WAL_OFFSET"
#define NX_COMMAND_EPOCH       "NEXUS_EPOCH"
/* And NEXUS_DATA_DIR, which is a setting. */

#endif
