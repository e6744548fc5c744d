/* Pure functions; see peer_list.h. */
#include "common/peer_list.h"

#include "common/net.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#define SEPARATORS ", \t"

static const char *const schemes[] = {"http://", "https://"};

bool nx_peer_list_next(const char **text, char ret_addr[NX_ADDR_SIZE])
{
    const char *at = *text + strspn(*text, SEPARATORS);
    size_t whole = strcspn(at, SEPARATORS);
    const char *begin = at;
    size_t length = whole;
    struct nx_net_addr addr;

    *text = at;
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        if (strncasecmp(begin, schemes[i], strlen(schemes[i])) == 0) {
            begin += strlen(schemes[i]);
            length -= strlen(schemes[i]);
            break;
        }
    }
    if (length > 0 && begin[length - 1] == '/') {
        length--;
    }
    if (length == 0 || length >= NX_ADDR_SIZE) {
        return false;
    }
    memcpy(ret_addr, begin, length);
    ret_addr[length] = '\0';
    if (nx_net_parse(ret_addr, &addr) < 0 || nx_net_is_wildcard(&addr)) {
        return false;
    }
    *text = at + whole;
    return true;
}

int nx_peer_list_check(const char *text)
{
    char addr[NX_ADDR_SIZE];
    unsigned count = 0;

    while (nx_peer_list_next(&text, addr)) {
        count++;
    }
    return *text == '\0' && count <= NX_MOST_PEERS ? 0 : -EINVAL;
}

unsigned nx_peer_list_count(const char *text)
{
    char addr[NX_ADDR_SIZE];
    unsigned count = 0;

    while (nx_peer_list_next(&text, addr)) {
        count++;
    }
    return count;
}

bool nx_peer_list_has(const char *text, const char *addr)
{
    char each[NX_ADDR_SIZE];

    while (nx_peer_list_next(&text, each)) {
        if (strcmp(each, addr) == 0) {
            return true;
        }
    }
    return false;
}
