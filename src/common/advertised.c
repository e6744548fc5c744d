/* Runs in walsenders and in the walreceiver. Pure functions; what was sent is a stranger's text. */
#include "common/advertised.h"

#include "common/net.h"

#include <errno.h>
#include <stdio.h>

void nx_advertised_own(const char *configured, const char *bind_addr, char ret_addr[NX_ADDR_TEXT])
{
    struct nx_net_addr bound;

    if (configured[0] != '\0') {
        (void)snprintf(ret_addr, NX_ADDR_TEXT, "%s", configured);
    } else if (nx_net_parse(bind_addr, &bound) == 0 && nx_net_is_wildcard(&bound)) {
        (void)snprintf(ret_addr, NX_ADDR_TEXT, ":%u", (unsigned)bound.port);
    } else {
        (void)snprintf(ret_addr, NX_ADDR_TEXT, "%s", bind_addr);
    }
}

int nx_advertised_resolve(struct nx_slice sent, const char *peer, char ret_addr[NX_ADDR_TEXT])
{
    char text[NX_ADDR_TEXT];
    const char *colon = strrchr(peer, ':');
    struct nx_net_addr addr;
    int host;

    if (sent.length == 0 || sent.length >= sizeof text) {
        return -EINVAL;
    }
    memcpy(text, sent.data, sent.length);
    text[sent.length] = '\0';
    if (nx_net_parse(text, &addr) < 0) {
        return -EINVAL;
    }
    if (!nx_net_is_wildcard(&addr)) {
        memcpy(ret_addr, text, sent.length + 1);
        return 0;
    }
    host = colon == NULL ? (int)strlen(peer) : (int)(colon - peer);
    return snprintf(ret_addr, NX_ADDR_TEXT, "%.*s:%u", host, peer, (unsigned)addr.port) <
                   NX_ADDR_TEXT
               ? 0
               : -EINVAL;
}
