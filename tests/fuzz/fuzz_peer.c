/* What other nodes answer over HTTP (peers/status.h): a status, a promise, a refusal; and who leads, by them
 * (peers/leader.h). What has passed is in range, fits its place, and can be told to the postmaster as words. First byte:
 * which, and what this node is. */
#include "common/uuid_text.h"
#include "fuzz.h"
#include "peers/leader.h"
#include "peers/status.h"

#define ASKED   "10.0.0.1:15474"
#define CLUSTER "550e8400-e29b-41d4-a716-446655440003"
#define OWN     "6ba7b810-9dad-41d1-80b4-00c04fd430c8"

static bool is_id(const char *text)
{
    char canonical[NX_UUID_TEXT];

    if (!nx_slice_is_uuid(nx_slice_text(text))) {
        return false;
    }
    nx_uuid_canonical(nx_slice_text(text), canonical);
    return strcmp(text, canonical) == 0;
}

static bool is_printable(const char *text, size_t cap, char least)
{
    size_t n = strnlen(text, cap);

    for (size_t i = 0; i < n; i++) {
        if (text[i] < least || text[i] > '~') {
            return false;
        }
    }
    return n < cap;
}

static bool is_address(const char text[NX_ADDR_TEXT])
{
    return is_printable(text, NX_ADDR_TEXT, '!') && (text[0] == '\0' || strchr(text, ':') != NULL);
}

static bool is_position(const struct nx_position *position)
{
    return position->epoch < NX_PEER_MOST_NUMBER && position->offset < NX_PEER_MOST_NUMBER &&
           (position->offset != 0 || (position->epoch == 0 && position->crc == 0));
}

/* Whoever leads is named in four words, which have room. */
static void choose(const struct nx_peer_status *status, bool yields)
{
    struct nx_self self = {.node_id = OWN, .cluster_id = CLUSTER, .epoch = 5, .yields = yields};
    const struct nx_peer_seen seen[2] = {{ASKED, true, *status}, {"10.0.0.2:15474", true, *status}};
    char text[2 * NX_ADDR_TEXT + 64];
    char again[2 * NX_ADDR_TEXT + 64];
    char words[4][NX_ADDR_TEXT];

    if (nx_leader_choose(seen, 1, &self, text, sizeof text)) {
        HOLDS(nx_peer_leads_instead(status, &self));
        HOLDS(strlen(text) < sizeof text - 1);
        HOLDS(sscanf(text, "%255s %255s %255s %255s", words[0], words[1], words[2], words[3]) == 4);
        HOLDS(is_id(words[1]));
        HOLDS(nx_leader_choose(seen, 2, &self, again, sizeof again) && strcmp(text, again) == 0);
    }
}

static void read_status(const char *text, size_t length, bool yields)
{
    static struct nx_epochs theirs;
    static struct nx_epochs again;
    static uint8_t bytes[NX_EPOCHS_BYTES];
    struct nx_peer_status status;

    if (nx_status_parse(text, length, ASKED, &status) < 0) {
        return;
    }
    HOLDS(is_id(status.node_id) && (status.cluster_id[0] == '\0' || is_id(status.cluster_id)));
    HOLDS(status.epoch < NX_PEER_MOST_NUMBER && is_position(&status.position));
    HOLDS(is_address(status.replication_addr));
    if (status.leader.epoch != 0) {
        HOLDS(status.leader.epoch < NX_PEER_MOST_NUMBER && is_id(status.leader.node_id));
        HOLDS(is_address(status.leader.addr) && is_address(status.leader.http_addr));
    }
    if (nx_history_parse(text, length, &theirs) == 0) {
        HOLDS(nx_epochs_decode(nx_slice_of(bytes, nx_epochs_encode(&theirs, bytes)), &again) == 0);
        HOLDS(again.count == theirs.count);
        HOLDS(!nx_peer_proves(&status, &theirs, NULL) || nx_epochs_last(&theirs) != NULL);
    } else {
        HOLDS(theirs.count == 0);
    }
    choose(&status, yields);
}

static void read_promise(const char *text, size_t length)
{
    struct nx_peer_promise promise;

    if (nx_promise_parse(text, length, &promise) == 0) {
        HOLDS(is_id(promise.node_id));
        HOLDS(promise.cluster_id[0] == '\0' || is_id(promise.cluster_id));
        HOLDS(is_position(&promise.position));
    }
}

static void read_refusal(const char *text, size_t length)
{
    struct nx_peer_refusal refusal;

    nx_refusal_parse(text, length, &refusal);
    HOLDS(is_printable(refusal.code, sizeof refusal.code, '!'));
    HOLDS(is_printable(refusal.message, sizeof refusal.message, ' '));
    HOLDS(refusal.epoch < NX_PEER_MOST_NUMBER);
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    char *text = malloc(size); /* what is read needs no NUL behind it */

    HOLDS(text != NULL);
    memcpy(text, data + 1, size - 1);
    switch (data[0] % 4) {
    case 0:
    case 1:
        read_status(text, size - 1, data[0] % 4 == 1);
        break;
    case 2:
        read_promise(text, size - 1);
        break;
    default:
        read_refusal(text, size - 1);
        break;
    }
    free(text);
    return 0;
}
