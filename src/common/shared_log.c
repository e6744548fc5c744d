/* The shared log. The walwriter appends (struct nx_log_writer is its private cursor), every other
 * process copies out. Writing order: give up old entries (oldest_offset), then write the bytes, then
 * the index, then durable_offset; reading order: durable_offset, index, bytes, oldest_offset. */
#include "common/shared_log.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

static struct nx_log_slot *slot_of(struct nx_shm *shm, uint64_t offset)
{
    struct nx_log_slot *index = nx_shm_at(shm, shm->index_at);

    return &index[offset & (shm->index_count - 1)];
}

static uint8_t *arena(struct nx_shm *shm)
{
    return nx_shm_at(shm, shm->arena_at);
}

void nx_log_writer_init(struct nx_log_writer *writer, struct nx_shm *shm, uint64_t first_offset)
{
    *writer = (struct nx_log_writer){
        .shm = shm, .newest = first_offset - 1, .pinned_offset = first_offset};
    atomic_store_explicit(&shm->log.oldest_offset, first_offset, memory_order_release);
}

/* Gives up the oldest entries until [tail_pos, end) fits the arena and `entries` more index slots are
 * free. False when pinned entries are in the way. */
static bool give_up_until(struct nx_log_writer *writer,
                          uint64_t start,
                          uint64_t end,
                          unsigned entries)
{
    struct nx_shm *shm = writer->shm;
    uint64_t oldest = atomic_load_explicit(&shm->log.oldest_offset, memory_order_relaxed);
    bool fits = true;

    while (oldest <= writer->newest &&
           (end - writer->tail_pos > shm->arena_size ||
            writer->newest + 1 + entries - oldest >= shm->index_count)) {
        if (oldest >= writer->pinned_offset) {
            fits = false;
            break;
        }
        oldest++;
        writer->tail_pos =
            oldest <= writer->newest
                ? atomic_load_explicit(&slot_of(shm, oldest)->pos, memory_order_relaxed)
                : start;
    }
    if (oldest > writer->newest) {
        writer->tail_pos = start;
        fits = end - start <= shm->arena_size;
    }
    atomic_store_explicit(&shm->log.oldest_offset, oldest, memory_order_release);
    /* Readers that copy the bytes about to be written must see the new oldest_offset. */
    atomic_thread_fence(memory_order_release);
    return fits;
}

uint8_t *nx_log_reserve(struct nx_log_writer *writer,
                        size_t length,
                        size_t reserve,
                        uint64_t *ret_pos)
{
    uint64_t size = writer->shm->arena_size;
    uint64_t pos = writer->next_pos;

    if (length > size) {
        return NULL;
    }
    if (pos % size + length > size) {
        pos += size - pos % size;
    }
    if (!give_up_until(writer, pos, pos + length + reserve, reserve > 0 ? 2 : 1)) {
        return NULL;
    }
    *ret_pos = pos;
    return arena(writer->shm) + pos % size;
}

void nx_log_commit(struct nx_log_writer *writer, uint64_t pos, size_t length)
{
    struct nx_log_slot *slot = slot_of(writer->shm, writer->newest + 1);

    atomic_store_explicit(&slot->pos, pos, memory_order_relaxed);
    atomic_store_explicit(&slot->length, length, memory_order_relaxed);
    writer->newest++;
    writer->next_pos = pos + length;
}

/* Length of the run of frames that stand back to back from `from`, as far as `last` and `cap` allow.
 * 0 when the index makes no sense (it is being recycled under us). */
static size_t run_length(struct nx_shm *shm,
                         uint64_t from,
                         uint64_t last,
                         size_t cap,
                         uint64_t *ret_pos,
                         uint64_t *ret_last)
{
    uint64_t pos = atomic_load_explicit(&slot_of(shm, from)->pos, memory_order_relaxed);
    uint64_t end = pos;
    uint64_t offset = from;

    for (; offset <= last; offset++) {
        const struct nx_log_slot *slot = slot_of(shm, offset);
        uint64_t length = atomic_load_explicit(&slot->length, memory_order_relaxed);

        if (atomic_load_explicit(&slot->pos, memory_order_relaxed) != end || length == 0 ||
            length > shm->arena_size ||
            pos % shm->arena_size + (end - pos) + length > shm->arena_size ||
            end - pos + length > cap) {
            break;
        }
        end += length;
    }
    *ret_pos = pos;
    *ret_last = offset - 1;
    return (size_t)(end - pos);
}

/* Copies runs from `from` on, as many as fit, and returns the bytes copied. */
static size_t copy_runs(struct nx_shm *shm,
                        uint64_t from,
                        uint64_t last,
                        uint8_t *buf,
                        size_t cap,
                        uint64_t *ret_last)
{
    size_t copied = 0;

    *ret_last = from - 1;
    while (*ret_last < last) {
        uint64_t pos;
        size_t length = run_length(shm, *ret_last + 1, last, cap - copied, &pos, ret_last);

        if (length == 0) {
            break;
        }
        memcpy(buf + copied, arena(shm) + pos % shm->arena_size, length);
        copied += length;
    }
    return copied;
}

int nx_log_read(struct nx_shm *shm, uint64_t from, uint64_t last, struct nx_log_chunk *chunk)
{
    uint64_t oldest = atomic_load_explicit(&shm->log.oldest_offset, memory_order_acquire);
    uint64_t durable = atomic_load_explicit(&shm->log.durable_offset, memory_order_acquire);
    uint64_t copied_last;

    if (from < oldest || last > durable) {
        return -ERANGE;
    }
    size_t copied = copy_runs(shm, from, last, chunk->buf, chunk->cap, &copied_last);
    uint64_t first_length = atomic_load_explicit(&slot_of(shm, from)->length, memory_order_relaxed);

    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(&shm->log.oldest_offset, memory_order_relaxed) > from) {
        return -ERANGE;
    }
    if (copied == 0) {
        chunk->length = (size_t)first_length;
        return -EMSGSIZE;
    }
    chunk->length = copied;
    chunk->last = copied_last;
    return 0;
}

uint64_t nx_log_bytes_between(struct nx_shm *shm, uint64_t after, uint64_t last)
{
    if (after >= last) {
        return 0;
    }
    if (after + 1 < atomic_load_explicit(&shm->log.oldest_offset, memory_order_acquire)) {
        return UINT64_MAX;
    }
    const struct nx_log_slot *end = slot_of(shm, last);
    uint64_t from = atomic_load_explicit(&slot_of(shm, after + 1)->pos, memory_order_relaxed);
    uint64_t to = atomic_load_explicit(&end->pos, memory_order_relaxed) +
                  atomic_load_explicit(&end->length, memory_order_relaxed);

    atomic_thread_fence(memory_order_acquire);
    if (after + 1 < atomic_load_explicit(&shm->log.oldest_offset, memory_order_relaxed)) {
        return UINT64_MAX; /* the places that were read may be those of newer entries */
    }
    return to - from;
}

void nx_log_position(struct nx_shm *shm,
                     uint64_t *ret_offset,
                     uint64_t *ret_epoch,
                     uint32_t *ret_crc)
{
    struct nx_log_state *log = &shm->log;
    uint64_t before;
    uint64_t after;

    do {
        before = atomic_load_explicit(&log->position_seq, memory_order_acquire);
        *ret_offset = atomic_load_explicit(&log->position_offset, memory_order_relaxed);
        *ret_epoch = atomic_load_explicit(&log->position_epoch, memory_order_relaxed);
        *ret_crc = atomic_load_explicit(&log->position_crc, memory_order_relaxed);
        atomic_thread_fence(memory_order_acquire);
        after = atomic_load_explicit(&log->position_seq, memory_order_relaxed);
    } while (before != after || (before & 1) != 0);
}

void nx_log_publish(struct nx_shm *shm, uint64_t offset, uint64_t epoch, uint32_t crc)
{
    struct nx_log_state *log = &shm->log;
    uint64_t seq = atomic_load_explicit(&log->position_seq, memory_order_relaxed);

    atomic_store_explicit(&log->position_seq, seq + 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&log->position_offset, offset, memory_order_relaxed);
    atomic_store_explicit(&log->position_epoch, epoch, memory_order_relaxed);
    atomic_store_explicit(&log->position_crc, crc, memory_order_relaxed);
    atomic_store_explicit(&log->position_seq, seq + 2, memory_order_release);
    atomic_store_explicit(&log->durable_offset, offset, memory_order_release);
}

uint64_t nx_log_oldest_kept(const struct nx_shm *shm, uint64_t max_log_size)
{
    uint64_t durable = atomic_load_explicit(&shm->log.durable_offset, memory_order_acquire);
    uint64_t oldest = atomic_load_explicit(&shm->checkpoint.oldest_kept, memory_order_acquire);

    if (durable > max_log_size && oldest < durable - max_log_size + 1) {
        oldest = durable - max_log_size + 1;
    }
    return oldest > 0 ? oldest : 1;
}

int nx_log_runs(struct nx_shm *shm, uint64_t from, uint64_t last, struct iovec ret_runs[2])
{
    int runs = 0;

    while (from <= last && runs < 2) {
        uint64_t pos;
        uint64_t run_last;
        size_t length = run_length(shm, from, last, SIZE_MAX, &pos, &run_last);

        ret_runs[runs++] = (struct iovec){arena(shm) + pos % shm->arena_size, length};
        from = run_last + 1;
    }
    return runs;
}
