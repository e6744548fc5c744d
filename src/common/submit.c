/* Submission and completion rings; submit.h has the contract. The producer's half runs in http workers
 * and the walreceiver, the consumer's half in the walwriter. */
#include "common/submit.h"

#include "common/bytes.h"
#include "common/latch.h"
#include "common/process.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Header of either ring; the data follow it. head: W:the side that puts in. tail: W:the other. */
struct ring {
    alignas(NX_LINE) nx_atomic_u64 head; /* bytes (submissions) or completions ever published */
    nx_atomic_u32 starved; /* the producer found no room: ring it when there is some */
    alignas(NX_LINE) nx_atomic_u64 tail; /* bytes or completions ever consumed */
};
static_assert(sizeof(struct ring) == (size_t)2 * NX_LINE, "the layout reserves two lines a ring");

enum record_flags {
    RECORD_FIRST = 1,
    RECORD_LAST = 2
};

/* One record in a submission ring; 8-aligned, never wraps; kind 0 is padding to the ring's end. */
struct record {
    uint32_t size; /* whole record, a multiple of 8 */
    uint16_t kind;
    uint16_t flags;
    uint32_t generation;
    uint32_t submit_flags;
    uint64_t ticket;
    uint32_t condition_count;
    uint32_t op_count;
    uint64_t conditions_length; /* of the whole submission, all its pieces together */
    uint64_t body_length;
};
static_assert(sizeof(struct record) == 48, "records keep 8-byte alignment");

/* The most a submission can hold: an entry's worth of operations and 10,000 long conditions. */
#define MAX_SUBMISSION ((size_t)24 << 20)

static struct ring *submissions(struct nx_shm *shm, unsigned index)
{
    return nx_shm_at(shm, shm->submit_at[index]);
}

static struct ring *completions(struct nx_shm *shm, unsigned index)
{
    return nx_shm_at(shm, shm->completion_at[index]);
}

static uint8_t *ring_data(struct ring *ring)
{
    return (uint8_t *)(ring + 1);
}

/* ---- conditions ---- */

size_t nx_condition_size(const struct nx_condition *condition)
{
    return 8 + (size_t)condition->version_count * 8 + condition->key_length;
}

size_t nx_condition_encode(uint8_t *out, const struct nx_condition *condition)
{
    size_t versions = (size_t)condition->version_count * 8;

    out[0] = (uint8_t)condition->kind;
    out[1] = 0;
    nx_store_u16(out + 2, (uint16_t)condition->key_length);
    nx_store_u32(out + 4, condition->version_count);
    if (versions > 0) {
        memcpy(out + 8, condition->versions, versions);
    }
    memcpy(out + 8 + versions, condition->key, condition->key_length);
    return nx_condition_size(condition);
}

int nx_condition_decode(const uint8_t **p, size_t *left, struct nx_condition *ret_condition)
{
    if (*left < 8) {
        return -EBADMSG;
    }
    struct nx_condition condition = {
        .kind = (enum nx_condition_kind)(*p)[0],
        .key_length = nx_load_u16(*p + 2),
        .versions = *p + 8,
        .version_count = nx_load_u32(*p + 4),
    };

    if (condition.kind < NX_CONDITION_ANY_OF || condition.kind > NX_CONDITION_ABSENT ||
        nx_condition_size(&condition) > *left) {
        return -EBADMSG;
    }
    condition.key = condition.versions + (size_t)condition.version_count * 8;
    *p += nx_condition_size(&condition);
    *left -= nx_condition_size(&condition);
    *ret_condition = condition;
    return 0;
}

/* ---- producer ---- */

unsigned nx_producer_slot(unsigned index)
{
    return index < NX_MAX_HTTP_WORKERS ? nx_process_slot(NX_KIND_HTTP, index)
                                       : nx_process_slot(NX_KIND_WALRECEIVER, 0);
}

void nx_producer_attach(struct nx_producer *producer,
                        struct nx_shm *shm,
                        unsigned index,
                        uint32_t generation)
{
    *producer = (struct nx_producer){
        .shm = shm,
        .index = index,
        .generation = generation,
        .head = atomic_load_explicit(&submissions(shm, index)->head, memory_order_relaxed),
        .seen = atomic_load_explicit(&completions(shm, index)->head, memory_order_acquire),
    };
    /* What stands there is our predecessor's. */
    atomic_store_explicit(&completions(shm, index)->tail, producer->seen, memory_order_release);
    atomic_store_explicit(&submissions(shm, index)->starved, 0, memory_order_relaxed);
}

/* Room for a record of `size` bytes at the head, padding included; 0 when there is none. */
static size_t room_needed(const struct nx_producer *producer, uint64_t tail, size_t size)
{
    uint64_t ring_size = producer->shm->submit_size;
    uint64_t at = producer->head & (ring_size - 1);
    size_t needed = at + size > ring_size ? (size_t)(ring_size - at) + size : size;

    return producer->head + needed - tail <= ring_size ? needed : 0;
}

/* Finds a place for a record, writing padding if it would wrap. NULL when the ring is full; the
 * walwriter rings us then as soon as it has consumed something. */
static struct record *place_record(struct nx_producer *producer, size_t size)
{
    struct ring *ring = submissions(producer->shm, producer->index);
    uint64_t mask = producer->shm->submit_size - 1;
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    size_t needed = room_needed(producer, tail, size);

    if (needed == 0) {
        atomic_store_explicit(&ring->starved, 1, memory_order_relaxed);
        atomic_thread_fence(memory_order_seq_cst);
        tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
        needed = room_needed(producer, tail, size);
        if (needed == 0) {
            producer->wanted = size;
            return NULL;
        }
    }
    producer->wanted = 0;
    atomic_store_explicit(&ring->starved, 0, memory_order_relaxed);
    if (needed != size) {
        struct record *pad = (struct record *)(void *)(ring_data(ring) + (producer->head & mask));

        pad->size = (uint32_t)(needed - size);
        pad->kind = 0;
        producer->head += needed - size;
    }
    return (struct record *)(void *)(ring_data(ring) + (producer->head & mask));
}

/* Copies bytes [from, from + length) of conditions followed by body. */
static void copy_payload(uint8_t *out, const struct nx_submission *s, size_t from, size_t length)
{
    size_t head = 0;

    if (from < s->conditions_length) {
        head = s->conditions_length - from < length ? s->conditions_length - from : length;
        memcpy(out, s->conditions + from, head);
    }
    if (head < length) {
        memcpy(out + head, s->body + (from + head - s->conditions_length), length - head);
    }
}

static size_t round_up_8(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

int nx_submit(struct nx_producer *producer,
              const struct nx_submission *submission,
              size_t *progress)
{
    struct nx_shm *shm = producer->shm;
    struct ring *ring = submissions(shm, producer->index);
    size_t total = submission->conditions_length + submission->body_length;
    /* A quarter of the ring a piece: several are under way while the walwriter assembles. */
    size_t most = (size_t)shm->submit_size / 4 - sizeof(struct record);

    if (total > MAX_SUBMISSION || total == 0) {
        return -EMSGSIZE;
    }
    if (*progress == 0 && submission->kind == NX_SUBMIT_WRITE &&
        producer->open + 1 >= shm->completion_count) {
        /* One place stays for an answer to our predecessor that was being posted as we began. */
        return -EAGAIN;
    }
    while (*progress < total) {
        size_t length = total - *progress < most ? total - *progress : most;
        size_t size = sizeof(struct record) + round_up_8(length);
        struct record *record = place_record(producer, size);

        if (record == NULL) {
            nx_latch_ring(shm, nx_process_slot(NX_KIND_WALWRITER, 0));
            return -EAGAIN;
        }
        *record = (struct record){
            .size = (uint32_t)size,
            .kind = (uint16_t)submission->kind,
            .flags = (uint16_t)((*progress == 0 ? RECORD_FIRST : 0) |
                                (*progress + length == total ? RECORD_LAST : 0)),
            .generation = producer->generation,
            .submit_flags = submission->flags,
            .ticket = submission->ticket,
            .condition_count = submission->condition_count,
            .op_count = submission->op_count,
            .conditions_length = submission->conditions_length,
            .body_length = submission->body_length,
        };
        copy_payload((uint8_t *)(record + 1), submission, *progress, length);
        producer->head += size;
        *progress += length;
        atomic_store_explicit(&ring->head, producer->head, memory_order_release);
    }
    producer->open += submission->kind == NX_SUBMIT_WRITE ? 1 : 0;
    nx_latch_ring(shm, nx_process_slot(NX_KIND_WALWRITER, 0));
    return 0;
}

bool nx_submit_possible(const struct nx_producer *producer)
{
    const struct ring *ring = submissions(producer->shm, producer->index);

    return producer->wanted > 0 &&
           room_needed(producer, atomic_load_explicit(&ring->tail, memory_order_acquire),
                       producer->wanted) > 0;
}

bool nx_completion_waiting(const struct nx_producer *producer)
{
    struct ring *ring = completions(producer->shm, producer->index);

    return atomic_load_explicit(&ring->head, memory_order_acquire) != producer->seen;
}

bool nx_completion_next(struct nx_producer *producer, struct nx_completion *ret_completion)
{
    struct ring *ring = completions(producer->shm, producer->index);
    const struct nx_completion *places = (const struct nx_completion *)(const void *)(ring + 1);

    while (nx_completion_waiting(producer)) {
        struct nx_completion completion =
            places[producer->seen & (producer->shm->completion_count - 1)];

        producer->seen++;
        atomic_store_explicit(&ring->tail, producer->seen, memory_order_release);
        if (completion.generation == producer->generation) {
            producer->open -= producer->open > 0 ? 1 : 0;
            *ret_completion = completion;
            return true;
        }
    }
    return false;
}

/* ---- consumer ---- */

void nx_consumer_attach(struct nx_consumer *consumer, struct nx_shm *shm, unsigned index)
{
    *consumer = (struct nx_consumer){
        .shm = shm,
        .index = index,
        .tail = atomic_load_explicit(&submissions(shm, index)->tail, memory_order_relaxed),
        .posted = atomic_load_explicit(&completions(shm, index)->head, memory_order_relaxed),
    };
}

bool nx_consumer_waiting(const struct nx_consumer *consumer)
{
    struct ring *ring = submissions(consumer->shm, consumer->index);

    return atomic_load_explicit(&ring->head, memory_order_acquire) != consumer->tail;
}

static void advance(struct nx_consumer *consumer, uint64_t bytes)
{
    struct ring *ring = submissions(consumer->shm, consumer->index);

    consumer->tail += bytes;
    atomic_store_explicit(&ring->tail, consumer->tail, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&ring->starved, memory_order_relaxed) != 0) {
        nx_latch_ring(consumer->shm, nx_producer_slot(consumer->index));
    }
}

static void forget_assembly(struct nx_consumer *consumer)
{
    free(consumer->assembly);
    consumer->assembly = NULL;
    consumer->assembled = 0;
}

static struct nx_received received_of(const struct record *record, const uint8_t *payload)
{
    return (struct nx_received){
        .kind = (enum nx_submit_kind)record->kind,
        .flags = record->submit_flags,
        .generation = record->generation,
        .ticket = record->ticket,
        .conditions = payload,
        .conditions_length = (size_t)record->conditions_length,
        .condition_count = record->condition_count,
        .body = payload + record->conditions_length,
        .body_length = (size_t)record->body_length,
        .op_count = record->op_count,
    };
}

/* Takes a piece of a larger submission. 1 when it was the last one, 0 when more follow. */
static int assemble(struct nx_consumer *consumer, const struct record *record)
{
    size_t total = (size_t)(record->conditions_length + record->body_length);
    size_t length = record->size - sizeof *record;

    if ((record->flags & RECORD_FIRST) != 0) {
        forget_assembly(consumer);
        consumer->assembly = malloc(total);
        if (consumer->assembly == NULL) {
            return -ENOMEM;
        }
        consumer->assembly_generation = record->generation;
    }
    if (consumer->assembly == NULL || consumer->assembly_generation != record->generation) {
        return 0; /* the rest of a submission whose beginning is gone with its producer */
    }
    length = total - consumer->assembled < length ? total - consumer->assembled : length;
    memcpy(consumer->assembly + consumer->assembled, record + 1, length);
    consumer->assembled += length;
    if ((record->flags & RECORD_LAST) == 0) {
        return 0;
    }
    consumer->partial = received_of(record, consumer->assembly);
    return 1;
}

int nx_consumer_next(struct nx_consumer *consumer, struct nx_received *ret_received)
{
    struct ring *ring = submissions(consumer->shm, consumer->index);
    uint64_t mask = consumer->shm->submit_size - 1;

    while (nx_consumer_waiting(consumer)) {
        const struct record *record =
            (const struct record *)(void *)(ring_data(ring) + (consumer->tail & mask));
        uint32_t size = record->size;

        if (record->kind == 0) {
            advance(consumer, size);
            continue;
        }
        if (record->flags == (RECORD_FIRST | RECORD_LAST)) {
            forget_assembly(consumer);
            *ret_received = received_of(record, (const uint8_t *)(record + 1));
            consumer->pending_release = size;
            return 1;
        }
        int whole = assemble(consumer, record);

        if (whole < 0) {
            consumer->partial = (struct nx_received){.kind = (enum nx_submit_kind)record->kind,
                                                     .generation = record->generation,
                                                     .ticket = record->ticket};
        }
        advance(consumer, size);
        if (whole != 0) {
            *ret_received = consumer->partial;
            return whole;
        }
    }
    return 0;
}

void nx_consumer_release(struct nx_consumer *consumer)
{
    if (consumer->pending_release > 0) {
        uint64_t bytes = consumer->pending_release;

        consumer->pending_release = 0;
        advance(consumer, bytes);
    } else {
        forget_assembly(consumer);
    }
}

void nx_completion_post(struct nx_consumer *consumer, const struct nx_completion *completion)
{
    struct ring *ring = completions(consumer->shm, consumer->index);
    struct nx_completion *places = (struct nx_completion *)(void *)(ring + 1);
    uint64_t count = consumer->shm->completion_count;
    const struct nx_slot *slot = &consumer->shm->slots[nx_producer_slot(consumer->index)];

    if (completion->generation != atomic_load_explicit(&slot->generation, memory_order_acquire)) {
        return; /* whoever asked is gone; its successor needs the place */
    }
    if (consumer->posted - atomic_load_explicit(&ring->tail, memory_order_acquire) >= count) {
        return; /* only a producer that broke the bound loses answers */
    }
    places[consumer->posted & (count - 1)] = *completion;
    consumer->posted++;
    atomic_store_explicit(&ring->head, consumer->posted, memory_order_release);
}
