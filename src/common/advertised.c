/* Runs in walsenders and in the walreceiver. Pure functions; what was sent is a stranger's text. */
#include "common/advertised.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static bool is_wildcard(const char *host, size_t length)
{
    static const char *const wildcards[] = {"", "*", "0.0.0.0", "[::]", "::"};

    for (size_t i = 0; i < sizeof wildcards / sizeof wildcards[0]; i++) {
        if (strlen(wildcards[i]) == length && memcmp(wildcards[i], host, length) == 0) {
            return true;
        }
    }
    return false;
}

void nx_advertised_own(const char *configured, const char *bind_addr, char ret_addr[NX_ADDR_TEXT])
{
    const char *colon = strrchr(bind_addr, ':');

    if (configured[0] != '\0') {
        (void)snprintf(ret_addr, NX_ADDR_TEXT, "%s", configured);
    } else if (colon != NULL && is_wildcard(bind_addr, (size_t)(colon - bind_addr))) {
        (void)snprintf(ret_addr, NX_ADDR_TEXT, "%s", colon);
    } else {
        (void)snprintf(ret_addr, NX_ADDR_TEXT, "%s", bind_addr);
    }
}

static bool host_fine(const char *host, size_t length)
{
    bool brackets = length > 2 && host[0] == '[' && host[length - 1] == ']';
    const char *allowed = brackets ? "0123456789abcdefABCDEF:."
                                   : "0123456789abcdefghijklmnopqrstuvwxyz"
                                     "ABCDEFGHIJKLMNOPQRSTUVWXYZ.-_";
    size_t first = brackets ? 1 : 0;

    return strspn(host + first, allowed) >= length - 2 * first;
}

static bool port_fine(const char *port)
{
    size_t digits = strspn(port, "0123456789");

    return digits > 0 && digits <= 5 && port[digits] == '\0' && strtol(port, NULL, 10) >= 1 &&
           strtol(port, NULL, 10) <= 65535;
}

int nx_advertised_resolve(struct nx_slice sent, const char *peer, char ret_addr[NX_ADDR_TEXT])
{
    char text[NX_ADDR_TEXT];
    const char *colon;
    const char *peer_colon = strrchr(peer, ':');
    size_t host;

    if (sent.length == 0 || sent.length >= sizeof text) {
        return -EINVAL;
    }
    memcpy(text, sent.data, sent.length);
    text[sent.length] = '\0';
    colon = strrchr(text, ':');
    if (colon == NULL || !port_fine(colon + 1)) {
        return -EINVAL;
    }
    host = (size_t)(colon - text);
    if (is_wildcard(text, host)) {
        int length = peer_colon == NULL ? (int)strlen(peer) : (int)(peer_colon - peer);
        int n = snprintf(ret_addr, NX_ADDR_TEXT, "%.*s%s", length, peer, colon);

        return n < NX_ADDR_TEXT ? 0 : -EINVAL;
    }
    if (!host_fine(text, host)) {
        return -EINVAL;
    }
    memcpy(ret_addr, text, sent.length + 1);
    return 0;
}
