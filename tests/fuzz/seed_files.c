/* Seeds of what stands in files of the data directory, of what peers answer, and of records to restore. */
#include "common/bytes.h"
#include "common/crc32.h"
#include "common/epochs.h"
#include "fuzz.h"
#include "seeds.h"
#include "snapshot/record.h"
#include "storage/data_identity.h"
#include "storage/incoming.h"
#include "storage/pin.h"
#include "storage/snapshot_files.h"
#include "storage/state_codec.h"
#include "storage/wal_segment.h"

#define OTHER "6ba7b810-9dad-41d1-80b4-00c04fd430c8"

/* Kinds of fuzz_files.c, in its order. */
enum kind {
    IDENTITY,
    PIN,
    INFO,
    INCOMING,
    RECORD,
    MARK,
    EPOCHS
};

static int dir_fd;

/* A file of lines that was written, without the CRC that the target puts behind them. */
static void put_lines(uint8_t kind, const char *name)
{
    static char text[1 << 15];

    HOLDS(nx_lines_read(dir_fd, name, text, sizeof text) == 0);
    put_text(kind, text);
    write_seed("files");
}

static void seed_identity(void)
{
    static struct nx_identity identity = {.cluster_id = UUID};

    HOLDS(nx_identity_write(dir_fd, &identity) == 0);
    put_lines(IDENTITY, "identity");
    memcpy(identity.first_node_id, OTHER, sizeof OTHER);
    identity.fence = (struct nx_fence){7, OTHER, "10.0.0.1:15475", "10.0.0.1:15474"};
    identity.promise = (struct nx_promise){8, UUID, 3};
    identity.note = (struct nx_role_note){6, {NX_ROLE_REPLICA, "10.0.0.1:15475"}};
    identity.follow =
        (struct nx_follow){"10.0.0.2:15475", true, {NX_ROLE_REPLICA, "10.0.0.1:15475"}};
    identity.replica_count = 2;
    identity.replicas[0] = (struct nx_known_replica){
        .id = UUID, .connected = true, .last_seen = 1700000000000, .addr = "10.0.0.3:15475"};
    identity.replicas[1] = (struct nx_known_replica){.id = OTHER, .last_ack_offset = 1000};
    HOLDS(nx_identity_write(dir_fd, &identity) == 0);
    put_lines(IDENTITY, "identity");
}

static void seed_pin_and_info(void)
{
    const struct nx_pin pin = {.replica_id = UUID,
                               .snapshot_id = OTHER,
                               .snapshot_offset = 1000,
                               .chunk_size = 65536,
                               .sent = 1,
                               .offset = 1200};
    const struct nx_snapshot_info info = {.id = UUID,
                                          .reason = NX_SNAPSHOT_SCHEDULE,
                                          .created_at = 1700000000000,
                                          .position = {3, 1000, 7},
                                          .records = 10,
                                          .files_count = 3};
    char name[NX_SNAPSHOT_NAME];

    HOLDS(nx_pin_write(dir_fd, &pin) == 0);
    put_lines(PIN, UUID ".pin");
    HOLDS(nx_snapshot_store_info(dir_fd, &info) == 0);
    nx_snapshot_name(info.position.offset, info.id, ".info", name);
    put_lines(INFO, name);
}

/* A byte: CRCs are made right; the length of the list; the list; two chunks. */
static void seed_incoming(void)
{
    static const char chunks[] = "first second";
    struct nx_incoming incoming = NX_INCOMING_NONE;
    uint8_t list[36];

    HOLDS(nx_incoming_begin(dir_fd, UUID, 2000, 3, &incoming) == 0);
    HOLDS(nx_incoming_add(&incoming, chunks, 6, nx_crc32(0, chunks, 6)) == 0);
    HOLDS(nx_incoming_add(&incoming, chunks + 6, 6, nx_crc32(0, chunks + 6, 6)) == 0);
    HOLDS(nx_read_at(incoming.chunks_fd, list, sizeof list, 0) == 0);
    nx_incoming_close(&incoming);
    for (uint8_t mend = 0; mend < 2; mend++) {
        put_byte(INCOMING);
        put_byte(mend);
        put_byte(sizeof list);
        put(list, sizeof list);
        put(chunks, 12);
        write_seed("files");
    }
}

static void seed_records(void)
{
    struct nx_record record = {.key = (const uint8_t *)"key",
                               .key_length = 3,
                               .offset = 1000,
                               .value = (const uint8_t *)"value",
                               .value_length = 5};
    uint8_t bytes[64];

    for (size_t i = 0; i < 2; i++) {
        nx_state_record_encode(&record, bytes);
        put_byte(RECORD);
        put_byte(3);
        put("key", 3);
        put(bytes, nx_state_record_size(&record));
        write_seed("files");
        record.expires_at = 1700000000000;
    }
}

static void seed_positions(void)
{
    static struct nx_epochs epochs;
    static uint8_t bytes[NX_EPOCHS_BYTES];
    const struct nx_mark mark = {{3, 1000, 7}, 1, 3, 990};
    const struct nx_segment_header header = {{1}, 900, 3};

    nx_mark_encode(&mark, bytes);
    put_byte(MARK);
    put(bytes, NX_MARK_SIZE);
    write_seed("files");
    nx_segment_header_encode(&header, bytes);
    put_byte(MARK);
    put(bytes, NX_SEGMENT_HEADER);
    write_seed("files");
    for (uint64_t i = 1; i <= 3; i++) {
        const struct nx_epoch epoch = {.epoch = i, .first_offset = i * 100, .crc = (uint32_t)i};

        HOLDS(nx_epochs_add(&epochs, &epoch, NULL) == 0);
    }
    put_byte(EPOCHS);
    put(bytes, nx_epochs_encode(&epochs, bytes));
    write_seed("files");
}

void seed_files(void)
{
    dir_fd = open(fuzz_directory(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    HOLDS(dir_fd >= 0);
    seed_identity();
    seed_pin_and_info();
    seed_incoming();
    seed_records();
    seed_positions();
    close(dir_fd);
}

/* First byte as in fuzz_peer.c. */
void seed_peers(void)
{
    static const char status[] =
        "{\"state\":\"serving\",\"role\":\"master\",\"node_id\":\"550E8400-E29B-41D4-A716-4466554400AA\","
        "\"cluster_id\":\"" UUID "\",\"epoch\":6,\"durable_offset\":1000,\"last_crc\":7,"
        "\"epochs\":[{\"epoch\":1,\"first_offset\":1,\"node_id\":\"" OTHER "\",\"crc\":0},"
        "{\"epoch\":6,\"first_offset\":990,\"node_id\":\"550e8400-e29b-41d4-a716-4466554400aa\","
        "\"crc\":4294967295}],\"replication_addr\":\":15475\"}";
    static const char fenced[] =
        "{\"state\":\"fenced\",\"role\":\"replica\",\"node_id\":\"550e8400-e29b-41d4-a716-4466554400aa\","
        "\"cluster_id\":\"" UUID "\",\"epoch\":6,\"durable_offset\":0,\"last_crc\":0,"
        "\"replication_addr\":\"10.0.0.4:15475\",\"leader\":{\"node_id\":\"" OTHER "\",\"epoch\":7,"
        "\"replication_addr\":\"[::]:15475\",\"http_addr\":\"0.0.0.0:15474\"}}";

    for (uint8_t yields = 0; yields < 2; yields++) {
        put_text(yields, status);
        write_seed("peer");
        put_text(yields, fenced);
        write_seed("peer");
    }
    put_text(2, "{\"success\":true,\"node_id\":\"" OTHER "\",\"cluster_id\":\"" UUID
                "\",\"epoch\":3,\"offset\":1000,\"crc\":7}");
    write_seed("peer");
    put_text(3,
             "{\"code\":\"promised\",\"epoch\":9,\"message\":\"it has promised 9, to \\u00e4\"}");
    write_seed("peer");
}

/* First byte as in fuzz_restore.c: each choice of where files end, with and without what is no record. */
void seed_restores(void)
{
    static const char *const keys[] = {"a", "ab", "b"};
    uint8_t bytes[64];

    for (uint8_t choices = 0; choices < 6; choices++) {
        put_byte(choices);
        for (size_t i = 0; i < 3; i++) {
            struct nx_record record = {.key = (const uint8_t *)keys[i],
                                       .key_length = strlen(keys[i]),
                                       .offset = 10 - i,
                                       .expires_at = i == 1 ? 1700000000000 : 0,
                                       .value = (const uint8_t *)"value",
                                       .value_length = i * 2};

            nx_record_encode(&record, bytes);
            put(bytes, nx_record_size(&record));
        }
        write_seed("restore");
    }
}
