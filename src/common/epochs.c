/* Runs in every process that compares histories; the walwriter alone publishes. See epochs.h. */
#include "common/epochs.h"

#include "common/latch.h"
#include "common/order.h"
#include "common/shm_layout.h"
#include "common/uuid_text.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#define READ_MOST_MS 100

static const uint8_t nobody[NX_OP_NODE_ID];

/* ---- one history ---- */

static void set_claim(struct nx_epochs *epochs, const uint8_t *claim)
{
    epochs->claim_length = claim == NULL ? 0 : NX_CLAIM_SIZE;
    if (claim != NULL) {
        memcpy(epochs->claim, claim, NX_CLAIM_SIZE);
    }
}

/* Whether b can stand behind a. */
static bool ascends(const struct nx_epoch *a, const struct nx_epoch *b)
{
    return b->epoch > a->epoch && b->first_offset > a->first_offset;
}

int nx_epochs_add(struct nx_epochs *epochs, const struct nx_epoch *epoch, const uint8_t *claim)
{
    if (epoch->epoch == 0 || (epochs->count > 0 && !ascends(nx_epochs_last(epochs), epoch))) {
        return -EINVAL;
    }
    if (epochs->count == NX_WIRE_MAX_EPOCHS) {
        epochs->count--;
        memmove(&epochs->list[0], &epochs->list[1], epochs->count * sizeof epochs->list[0]);
    }
    epochs->list[epochs->count++] = *epoch;
    set_claim(epochs, claim);
    return 0;
}

void nx_epochs_cut(struct nx_epochs *epochs, uint64_t offset)
{
    unsigned before = epochs->count;

    while (epochs->count > 0 && epochs->list[epochs->count - 1].first_offset > offset) {
        epochs->count--;
    }
    if (epochs->count < before) {
        set_claim(epochs, NULL);
    }
}

/* The place of the newest epoch that begins at or before this offset; count: none does. */
static unsigned place_of(const struct nx_epochs *epochs, uint64_t offset)
{
    unsigned i = epochs->count;

    while (i > 0) {
        i--;
        if (epochs->list[i].first_offset <= offset) {
            return i;
        }
    }
    return epochs->count;
}

uint64_t nx_epochs_at(const struct nx_epochs *epochs, uint64_t offset)
{
    unsigned i = place_of(epochs, offset);

    return i < epochs->count ? epochs->list[i].epoch : 0;
}

/* The last offset of the epoch at this place. */
static uint64_t end_at(const struct nx_epochs *epochs, unsigned i)
{
    return i + 1 < epochs->count ? epochs->list[i + 1].first_offset - 1 : UINT64_MAX;
}

uint64_t nx_epochs_end_of(const struct nx_epochs *epochs, uint64_t epoch)
{
    for (unsigned i = 0; i < epochs->count; i++) {
        if (epochs->list[i].epoch == epoch) {
            return end_at(epochs, i);
        }
    }
    return 0;
}

uint64_t nx_epochs_end_up_to(const struct nx_epochs *epochs, uint64_t epoch)
{
    for (unsigned i = 0; i < epochs->count; i++) {
        if (epochs->list[i].epoch > epoch) {
            return epochs->list[i].first_offset - 1;
        }
    }
    return UINT64_MAX;
}

/* ---- two histories ---- */

bool nx_epoch_same(const struct nx_epoch *a, const struct nx_epoch *b)
{
    return a->epoch == b->epoch && a->first_offset == b->first_offset && a->crc == b->crc &&
           (memcmp(a->node_id, b->node_id, sizeof a->node_id) == 0 ||
            memcmp(a->node_id, nobody, sizeof nobody) == 0 ||
            memcmp(b->node_id, nobody, sizeof nobody) == 0);
}

static const struct nx_epoch *find(const struct nx_epochs *epochs, const struct nx_epoch *epoch)
{
    for (unsigned i = epochs->count; i-- > 0;) {
        if (nx_epoch_same(&epochs->list[i], epoch)) {
            return &epochs->list[i];
        }
    }
    return NULL;
}

bool nx_epochs_have(const struct nx_epochs *epochs, const struct nx_epoch *epoch)
{
    return find(epochs, epoch) != NULL;
}

int nx_epoch_compare(const struct nx_epoch *a, const struct nx_epoch *b)
{
    if (a->epoch != b->epoch) {
        return a->epoch < b->epoch ? -1 : 1;
    }
    if (nx_epoch_same(a, b)) {
        return 0;
    }
    return memcmp(a->node_id, b->node_id, sizeof a->node_id);
}

bool nx_epochs_fork(const struct nx_epochs *a,
                    uint64_t a_end,
                    const struct nx_epochs *b,
                    uint64_t b_end,
                    uint64_t *ret_fork)
{
    /* The newest epoch that both have: from there on at least one of them has another. */
    for (unsigned i = a->count; i-- > 0;) {
        const struct nx_epoch *same = find(b, &a->list[i]);

        if (same != NULL) {
            uint64_t ours = nx_lower(end_at(a, i), a_end);
            uint64_t theirs = nx_lower(end_at(b, (unsigned)(same - b->list)), b_end);

            *ret_fork = nx_lower(ours, theirs);
            return true;
        }
    }
    return false;
}

static bool is_led_by(const struct nx_epoch *epoch, const char *node_id)
{
    char leader[NX_UUID_LENGTH + 1];

    nx_uuid_print(epoch->node_id, leader);
    return strcasecmp(leader, node_id) == 0;
}

bool nx_epochs_led_by(const struct nx_epochs *epochs, const char *node_id)
{
    return epochs->count > 0 && is_led_by(nx_epochs_last(epochs), node_id);
}

bool nx_epochs_led_since(const struct nx_epochs *epochs, uint64_t epoch, const char *node_id)
{
    for (unsigned i = epochs->count; i-- > 0 && is_led_by(&epochs->list[i], node_id);) {
        if (epochs->list[i].epoch == epoch) {
            return true;
        }
    }
    return false;
}

/* ---- bytes ---- */

size_t nx_epochs_encode(const struct nx_epochs *epochs, uint8_t *buf)
{
    struct nx_writer writer = nx_writer_of(buf, NX_EPOCHS_BYTES);

    for (unsigned i = 0; i < epochs->count; i++) {
        const struct nx_epoch *epoch = &epochs->list[i];

        nx_write_u64(&writer, epoch->epoch);
        nx_write_u64(&writer, epoch->first_offset);
        nx_write_bytes(&writer, nx_slice_of(epoch->node_id, sizeof epoch->node_id));
        nx_write_u32(&writer, epoch->crc);
    }
    assert(writer.used == (size_t)epochs->count * NX_WIRE_EPOCH_SIZE);
    return writer.used;
}

int nx_epochs_decode(struct nx_slice bytes, struct nx_epochs *ret_epochs)
{
    struct nx_reader reader = nx_reader_of(bytes.data, bytes.length);
    size_t count = bytes.length / NX_WIRE_EPOCH_SIZE;

    ret_epochs->count = 0;
    ret_epochs->claim_length = 0;
    if (bytes.length % NX_WIRE_EPOCH_SIZE != 0 || count > NX_WIRE_MAX_EPOCHS) {
        return -EBADMSG;
    }
    for (size_t i = 0; i < count; i++) {
        struct nx_epoch epoch;

        epoch.epoch = nx_read_u64(&reader);
        epoch.first_offset = nx_read_u64(&reader);
        const uint8_t *node_id = nx_read_raw(&reader, sizeof epoch.node_id);

        epoch.crc = nx_read_u32(&reader);
        if (node_id == NULL || reader.bad) {
            ret_epochs->count = 0;
            return -EBADMSG;
        }
        memcpy(epoch.node_id, node_id, sizeof epoch.node_id);
        if (nx_epochs_add(ret_epochs, &epoch, NULL) < 0) {
            ret_epochs->count = 0;
            return -EBADMSG;
        }
    }
    return 0;
}

int nx_claim_decode(struct nx_slice frame, struct nx_epoch *ret_epoch)
{
    struct nx_entry_header header;
    struct nx_op op;

    if (frame.length != NX_CLAIM_SIZE ||
        nx_entry_decode(frame.data, frame.length, true, &header) < 0 ||
        header.frame_length != frame.length || nx_entry_validate_ops(&header) < 0 ||
        nx_op_decode_at(header.ops, header.ops_length, &op) < 0 || op.kind != NX_OP_EPOCH) {
        return -EBADMSG;
    }
    *ret_epoch = (struct nx_epoch){
        .epoch = header.epoch,
        .first_offset = header.offset,
        .crc = header.crc,
    };
    memcpy(ret_epoch->node_id, op.key.data, sizeof ret_epoch->node_id);
    return 0;
}

/* ---- shared memory ---- */

int nx_epochs_read(const struct nx_shm *shm, uint64_t offset, struct nx_epochs *ret_epochs)
{
    const struct nx_epoch_table *table = &shm->epochs;
    uint64_t until = nx_now_ms() + READ_MOST_MS;
    uint32_t version;

    do {
        if (nx_now_ms() > until) { /* the walwriter was stopped in the middle */
            ret_epochs->count = 0;
            ret_epochs->claim_length = 0;
            return -EAGAIN;
        }
        version = atomic_load_explicit(&table->version, memory_order_acquire);
        ret_epochs->count =
            table->value.count < NX_WIRE_MAX_EPOCHS ? table->value.count : NX_WIRE_MAX_EPOCHS;
        memcpy(ret_epochs->list, table->value.list, ret_epochs->count * sizeof ret_epochs->list[0]);
        ret_epochs->claim_length = table->value.claim_length == NX_CLAIM_SIZE ? NX_CLAIM_SIZE : 0;
        memcpy(ret_epochs->claim, table->value.claim, sizeof ret_epochs->claim);
        atomic_thread_fence(memory_order_acquire);
    } while (version % 2 != 0 ||
             atomic_load_explicit(&table->version, memory_order_relaxed) != version);
    nx_epochs_cut(ret_epochs, offset);
    return 0;
}

void nx_epochs_publish(struct nx_shm *shm, const struct nx_epochs *epochs)
{
    struct nx_epoch_table *table = &shm->epochs;
    uint32_t version = atomic_load_explicit(&table->version, memory_order_relaxed);

    atomic_store_explicit(&table->version, version + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    memcpy(table->value.list, epochs->list, epochs->count * sizeof epochs->list[0]);
    table->value.count = epochs->count;
    table->value.claim_length = epochs->claim_length;
    memcpy(table->value.claim, epochs->claim, sizeof epochs->claim);
    atomic_store_explicit(&table->version, version + 2, memory_order_release);
}
