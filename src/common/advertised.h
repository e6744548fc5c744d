/* The address that one node tells another: as configured, else the bind address, and where that is a
 * wildcard only its port, since a node can't know by which of its addresses the other one sees it. The
 * other one fills in the host that it sees. */
#ifndef NX_COMMON_ADVERTISED_H
#define NX_COMMON_ADVERTISED_H

#include "common/bytes.h"
#include "common/shm_layout.h"

/* What to send: `configured` if it isn't empty, else `bind_addr` ("10.0.0.1:15475"), else ":15475". */
void nx_advertised_own(const char *configured, const char *bind_addr, char ret_addr[NX_ADDR_TEXT]);

/* What to make of it: the address as sent, with the host of `peer` (the socket's other end, "host:port")
 * where none or a wildcard was sent. 0, or -EINVAL: empty, or nothing that nx_net_parse takes. */
int nx_advertised_resolve(struct nx_slice sent, const char *peer, char ret_addr[NX_ADDR_TEXT]);

#endif
