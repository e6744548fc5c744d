/* Small files and records of the data directory, as a disk may give them back: identity, pins, what is known of a
 * snapshot, chunks that have come, records of the state, marks, headers of segments, epoch histories. Their CRCs are
 * made right, so that what is behind them is reached. What can be read can be written, and is read the same again.
 * First byte: which. */
#include "common/bytes.h"
#include "common/crc32.h"
#include "common/epochs.h"
#include "fuzz.h"
#include "storage/data_identity.h"
#include "storage/incoming.h"
#include "storage/pin.h"
#include "storage/snapshot_files.h"
#include "storage/state_codec.h"
#include "storage/wal_segment.h"

#define ID      "550e8400-e29b-41d4-a716-446655440003"
#define PIN     ID ".pin"
#define ARCHIVE "00000000000000001000-" ID
#define MOST    ((size_t)60 << 10)

static char text[MOST + 64];
static char other[MOST + 64];

static int directory(void)
{
    static int fd = -1;

    if (fd < 0) {
        fd = open(fuzz_directory(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        HOLDS(fd >= 0);
    }
    return fd;
}

static void put_file(const char *name, const void *bytes, size_t n)
{
    char path[192];

    (void)snprintf(path, sizeof path, "%s/%s", fuzz_directory(), name);
    fuzz_write_file(path, bytes, n);
}

/* The input as a file of lines, under a right CRC. */
static void put_lines(const char *name, const uint8_t *data, size_t n)
{
    memcpy(text, data, n);
    text[n] = '\0';
    put_file(name, text, nx_lines_seal(text, sizeof text));
}

static void read_identity(const uint8_t *data, size_t n)
{
    static struct nx_identity identity;

    put_lines("identity", data, n);
    if (nx_identity_read(directory(), &identity) < 0) {
        return;
    }
    HOLDS(identity.replica_count <= NX_MAX_REPLICAS);
    HOLDS(nx_identity_write(directory(), &identity) == 0);
    HOLDS(nx_file_read_text(directory(), "identity", text, sizeof text) == 0);
    HOLDS(nx_identity_read(directory(), &identity) == 0);
    HOLDS(nx_identity_write(directory(), &identity) == 0);
    HOLDS(nx_file_read_text(directory(), "identity", other, sizeof other) == 0);
    HOLDS(strcmp(text, other) == 0);
}

static void read_pin(const uint8_t *data, size_t n)
{
    struct nx_pin pin;
    struct nx_pin again;

    put_lines(PIN, data, n);
    if (nx_pin_read(directory(), ID, &pin) == 0) {
        HOLDS(strcmp(pin.replica_id, ID) == 0 && pin.sent <= 1);
        HOLDS(nx_pin_write(directory(), &pin) == 0);
        HOLDS(nx_pin_read(directory(), ID, &again) == 0);
        HOLDS(strcmp(pin.snapshot_id, again.snapshot_id) == 0);
        HOLDS(pin.snapshot_offset == again.snapshot_offset && pin.chunk_size == again.chunk_size &&
              pin.sent == again.sent && pin.offset == again.offset);
    }
    HOLDS(nx_pin_remove(directory(), ID) == 0);
}

static void read_snapshot_info(const uint8_t *data, size_t n)
{
    struct nx_snapshot_info *list = NULL;
    struct nx_snapshot_info again;
    size_t count = 0;

    put_file(ARCHIVE ".tar.zst", "", 0);
    put_lines(ARCHIVE ".info", data, n);
    HOLDS(nx_snapshot_list(directory(), &list, &count) == 0 && count <= 1);
    if (count == 1) {
        HOLDS(strcmp(list->id, ID) == 0 && list->position.offset == 1000);
        HOLDS(nx_snapshot_store_info(directory(), list) == 0);
        HOLDS(nx_snapshot_find(directory(), "last", &again) == 0);
        HOLDS(again.records == list->records && again.checksum == list->checksum &&
              again.created_at == list->created_at && again.reason == list->reason);
        HOLDS(nx_snapshot_remove(directory(), list) == 0);
    }
    free(list);
}

/* The list of chunks, then the chunks. `mend`: each CRC in the list is made that of its chunk. */
static void put_chunks(uint8_t *bytes, size_t n, size_t listed, bool mend)
{
    const uint8_t *chunk = bytes + listed;
    size_t left = n - listed;

    if (listed >= 20) {
        nx_store_u32(bytes + 16, nx_crc32(0, bytes, 16));
    }
    for (size_t at = 20; mend && at + 8 <= listed && nx_load_u32(bytes + at) <= left; at += 8) {
        size_t length = nx_load_u32(bytes + at);

        nx_store_u32(bytes + at + 4, nx_crc32(0, chunk, length));
        chunk += length;
        left -= length;
    }
    put_file("incoming-" ID ".chunks", bytes, listed);
    put_file("incoming-" ID ".part", bytes + listed, n - listed);
}

/* So many chunks are what the list says. */
static void check_chunks(const uint8_t *list, size_t listed, uint32_t chunks)
{
    const uint8_t *chunk = list + listed;

    for (uint32_t i = 0; i < chunks; i++) {
        const uint8_t *each = list + 20 + (size_t)i * 8;

        HOLDS(nx_load_u32(each + 4) == nx_crc32(0, chunk, nx_load_u32(each)));
        chunk += nx_load_u32(each);
    }
}

static void read_incoming(const uint8_t *data, size_t n)
{
    static uint8_t bytes[MOST];
    const struct nx_position restored = {.epoch = 3, .offset = 1000};
    struct nx_incoming incoming = NX_INCOMING_NONE;
    struct nx_incoming again = NX_INCOMING_NONE;
    size_t listed;

    if (n < 2) {
        return;
    }
    memcpy(bytes, data + 2, n - 2);
    listed = data[1] < n - 2 ? data[1] : n - 2;
    put_chunks(bytes, n - 2, listed, (data[0] & 1) != 0);
    if (nx_incoming_resume(directory(), &restored, NULL, NULL, &incoming) == 0) {
        HOLDS(incoming.chunks > 0 && incoming.bytes <= n - 2 - listed);
        HOLDS(incoming.crc == nx_crc32(0, bytes + listed, (size_t)incoming.bytes));
        check_chunks(bytes, listed, incoming.chunks);
        HOLDS(nx_incoming_resume(directory(), &restored, NULL, NULL, &again) == 0);
        HOLDS(again.chunks == incoming.chunks && again.crc == incoming.crc);
        nx_incoming_close(&again);
        nx_incoming_close(&incoming);
    }
    HOLDS(nx_incoming_remove(directory()) == 0);
}

/* bytes: what record was decoded from. */
static void make_again(const struct nx_record *record, const uint8_t *bytes, size_t size)
{
    uint8_t *copy = malloc(size);

    HOLDS(copy != NULL);
    nx_state_record_encode(record, copy);
    HOLDS(memcmp(copy, bytes, size) == 0);
    free(copy);
}

/* A byte, the length of the key; the key; the record, whose last four bytes become its CRC. */
static void read_state_record(const uint8_t *data, size_t n)
{
    struct nx_record record;
    struct nx_record peeked;
    size_t key_length = n > 0 ? data[0] : 0;

    if (n < 1 + key_length + NX_STATE_CRC) {
        return;
    }
    struct nx_slice key = nx_slice_of(data + 1, key_length);
    size_t size = n - 1 - key_length;
    uint8_t *bytes = malloc(size);

    HOLDS(bytes != NULL);
    memcpy(bytes, data + 1 + key_length, size);
    nx_store_u32(bytes + size - NX_STATE_CRC, nx_state_crc(key, bytes, size - NX_STATE_CRC));
    if (nx_state_record_decode(key, nx_slice_of(bytes, size), &record) == 0) {
        HOLDS(nx_state_record_peek(nx_slice_of(bytes, size), &peeked) == 0);
        HOLDS(peeked.offset == record.offset && peeked.expires_at == record.expires_at &&
              peeked.value_length == record.value_length);
        HOLDS(record.value_length <= size);
        if (nx_state_record_size(&record) == size) { /* but for a time of expiry that is 0 */
            make_again(&record, bytes, size);
        }
    }
    free(bytes);
}

static void read_mark_and_header(const uint8_t *data, size_t n)
{
    uint8_t bytes[NX_SEGMENT_HEADER] = {0};
    uint8_t copy[NX_SEGMENT_HEADER];
    struct nx_segment_header header;
    struct nx_mark mark;

    memcpy(bytes, data, n < NX_MARK_SIZE - 4 ? n : NX_MARK_SIZE - 4);
    nx_store_u32(bytes + NX_MARK_SIZE - 4, nx_crc32(0, bytes, NX_MARK_SIZE - 4));
    if (nx_mark_decode(bytes, &mark) == 0) {
        nx_mark_encode(&mark, copy);
        HOLDS(memcmp(copy, bytes, NX_MARK_SIZE) == 0);
    }
    memcpy(bytes, data, n < sizeof bytes - 4 ? n : sizeof bytes - 4);
    nx_store_u32(bytes + sizeof bytes - 4, nx_crc32(0, bytes, sizeof bytes - 4));
    if (nx_segment_header_decode(bytes, &header) == 0) {
        nx_segment_header_encode(&header, copy);
        HOLDS(memcmp(copy, bytes, sizeof bytes) == 0);
    }
}

static void read_epochs(const uint8_t *data, size_t n)
{
    static struct nx_epochs epochs;
    static uint8_t bytes[NX_EPOCHS_BYTES];
    struct nx_epoch claimed;
    uint64_t fork = 0;

    (void)nx_claim_decode(nx_slice_of(data, n), &claimed);
    if (nx_epochs_decode(nx_slice_of(data, n), &epochs) < 0) {
        return;
    }
    HOLDS(nx_epochs_encode(&epochs, bytes) == n && memcmp(bytes, data, n) == 0);
    if (epochs.count > 0 && nx_epochs_last(&epochs)->first_offset > 0) {
        uint64_t end = nx_epochs_last(&epochs)->first_offset;

        /* A history and itself part where they end. */
        HOLDS(nx_epochs_fork(&epochs, end, &epochs, end, &fork) && fork == end);
        nx_epochs_cut(&epochs, end - 1);
        HOLDS(epochs.count == 0 || nx_epochs_last(&epochs)->first_offset < end);
    }
}

/* NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const readers[])(const uint8_t *data, size_t n) = {
        read_identity,        read_pin,    read_snapshot_info, read_incoming, read_state_record,
        read_mark_and_header, read_epochs,
    };

    if (size < 1 || size > MOST) {
        return 0;
    }
    readers[data[0] % (sizeof readers / sizeof readers[0])](data + 1, size - 1);
    return 0;
}
