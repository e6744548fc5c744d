/* replication.peers: "host:port" of other nodes' HTTP interfaces, separated by commas or blanks; "http://" or "https://" before
 * one and "/" behind it are accepted. */
#ifndef NX_COMMON_PEER_LIST_H
#define NX_COMMON_PEER_LIST_H

#include "common/config.h"

#include <stdbool.h>

/* Most peers that are asked. */
#define NX_MOST_PEERS 32

/* The next address: true and ret_addr, *text behind it; false at the end, or where none can be read (then *text
 * stands at what isn't one). Begin with *text at the list's beginning. */
bool nx_peer_list_next(const char **text, char ret_addr[NX_ADDR_SIZE]);

/* 0, or -EINVAL: something in it is no address, or there are more than NX_MOST_PEERS. */
int nx_peer_list_check(const char *text);

/* Whether it has this address, as it is written there. */
bool nx_peer_list_has(const char *text, const char *addr);

/* How many there are. */
unsigned nx_peer_list_count(const char *text);

#endif
