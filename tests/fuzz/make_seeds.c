/* Writes inputs for the fuzz targets to begin with, made by the project's own encoders: make_seeds DIRECTORY makes
 * DIRECTORY/<target>/<n>. */
#include "common/bytes.h"
#include "common/config_table.h"
#include "common/entry.h"
#include "common/wire.h"
#include "common/wire_frame.h"
#include "fuzz.h"
#include "fuzz_tar.h"
#include "seeds.h"
#include "snapshot/manifest.h"
#include "snapshot/record.h"

static const char *top;
static uint8_t buffer[1 << 16];
static size_t used;

void write_seed(const char *target)
{
    static unsigned number;
    char path[512];

    (void)snprintf(path, sizeof path, "%s/%s", top, target);
    (void)mkdir(path, 0700);
    (void)snprintf(path, sizeof path, "%s/%s/seed-%03u", top, target, number++);
    fuzz_write_file(path, buffer, used);
    used = 0;
}

void put(const void *bytes, size_t n)
{
    HOLDS(n <= sizeof buffer - used);
    memcpy(buffer + used, bytes, n);
    used += n;
}

void put_byte(uint8_t byte)
{
    put(&byte, 1);
}

void put_text(uint8_t first, const char *text)
{
    put_byte(first);
    put(text, strlen(text));
}

/* ---- frames ---- */

/* One message of each type, its fields as they are when zeroed but for texts. */
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) \
    static void seed_##name(void)                                            \
    {                                                                        \
        struct nx_msg_##name message;                                        \
        size_t size;                                                         \
                                                                             \
        memset(&message, 0, sizeof message);
#define NX_SEED_U8(field)
#define NX_SEED_U32(field)    message.field = 1;
#define NX_SEED_U64(field)    message.field = 7;
#define NX_SEED_BOOL(field)   message.field = true;
#define NX_SEED_STRING(field) message.field = nx_slice_text(UUID);
#define NX_SEED_SECRET(field) message.field = nx_slice_text("token");
#define NX_SEED_BYTES(field)
#define NX_SEED_REST(field)
#define NX_FIELD(message, field, type, note)                NX_SEED_##type(field)
#define NX_OPTIONAL(message, field, type, value, note)      NX_SEED_##type(field)
#define NX_OPTIONAL_LIKE(message, field, type, other, note) NX_SEED_##type(field)
#define NX_MESSAGE_END(name)                                                                    \
    for (uint8_t how = 0; how < 8; how++) {                                                     \
        put_byte(how);                                                                          \
        size = nx_wire_size_##name(&message);                                                   \
        if (nx_wire_encode_##name(&message, buffer + used, sizeof buffer - used, &size) == 0) { \
            used += size;                                                                       \
            write_seed("frame");                                                                \
        }                                                                                       \
        used = 0;                                                                               \
    }                                                                                           \
    }
#include "common/wire_messages.def"

/* ---- entries ---- */

/* A frame with a put, a put that expires, and a delete. */
static uint32_t put_entry(uint64_t offset, uint64_t epoch, uint32_t prev_crc, size_t value)
{
    static uint8_t bytes[4096];
    uint8_t *frame = buffer + used;
    struct nx_writer writer =
        nx_writer_of(frame + NX_ENTRY_HEADER_SIZE, sizeof buffer - used - NX_ENTRY_OVERHEAD);
    struct nx_op ops[3] = {
        {.kind = NX_OP_PUT, .key = nx_slice_text("key"), .value = nx_slice_of(bytes, value)},
        {.kind = NX_OP_PUT,
         .flags = NX_OP_HAS_EXPIRY,
         .key = nx_slice_text("soon"),
         .expires_at = 1700000000000},
        {.kind = NX_OP_DELETE, .key = nx_slice_text("gone")},
    };
    struct nx_entry_header header = {.offset = offset,
                                     .epoch = epoch,
                                     .timestamp = 1700000000000000,
                                     .prev_crc = prev_crc,
                                     .op_count = 3};

    memset(bytes, 'v', sizeof bytes);
    for (size_t i = 0; i < 3; i++) {
        HOLDS(nx_op_encode(&writer, &ops[i]) == 0);
    }
    header.ops_length = writer.used;
    used += nx_entry_frame_size(writer.used);
    return nx_entry_finish(frame, &header);
}

static void seed_entries(void)
{
    for (size_t value = 0; value < 4096; value = value * 3 + 1) {
        put_byte(1);
        (void)put_entry(value + 1, 1, 0, value);
        write_seed("entry");
    }
}

static void seed_logs(void)
{
    for (uint8_t choices = 0; choices < 16; choices++) {
        uint32_t crc = 0;

        put_byte(choices);
        put_byte(128);
        for (uint64_t offset = 1; offset <= 20; offset++) {
            crc = put_entry(offset, 1, crc, (size_t)offset * 10);
        }
        write_seed("recovery");
    }
}

/* ---- snapshots ---- */

/* The files of a small snapshot, as texts for the parsers, and as a tar; their CRCs are not right. */
static void seed_snapshots(void)
{
    struct nx_position position = {.epoch = 3, .offset = 1000, .crc = 7};
    struct nx_manifest manifest = {
        .id = UUID, .cluster_id = UUID, .created_at = 1, .position = position, .records = 1};
    static struct nx_epochs epochs;
    struct nx_epoch epoch = {.epoch = 3, .first_offset = 900};
    struct nx_record record = {.key = (const uint8_t *)"key",
                               .key_length = 3,
                               .offset = 1000,
                               .value = (const uint8_t *)"value",
                               .value_length = 5};
    uint8_t kv[256];
    struct fuzz_tar tar;
    char *texts[2];

    HOLDS(nx_epochs_add(&epochs, &epoch, NULL) == 0);
    HOLDS(nx_manifest_add(&manifest, 64, 1) == 0 && nx_manifest_add(&manifest, 32, 2) == 0);
    texts[0] = nx_manifest_print(&manifest);
    texts[1] = nx_epochs_print(&position, &epochs);
    for (size_t i = 0; i < 2; i++) {
        HOLDS(texts[i] != NULL);
        put_text(2, texts[i]);
        write_seed("snapshot");
    }
    put_byte(2);
    nx_record_encode(&record, kv);
    put(kv, nx_record_size(&record));
    write_seed("snapshot");

    put_byte(1);
    tar = (struct fuzz_tar){.bytes = buffer + used, .cap = sizeof buffer - used};
    fuzz_tar_begin(&tar);
    fuzz_tar_add(&tar, "kv/000000", kv, nx_record_size(&record));
    fuzz_tar_add(&tar, "epochs.json", texts[1], strlen(texts[1]));
    fuzz_tar_add(&tar, "manifest.json", texts[0], strlen(texts[0]));
    used += fuzz_tar_end(&tar);
    write_seed("snapshot");
    nx_manifest_free(&manifest);
    free(texts[0]);
    free(texts[1]);
}

/* ---- texts ---- */

static void seed_configuration(void)
{
    struct nx_config config;
    char text[NX_PATH_SIZE];

    nx_config_defaults(&config);
    for (size_t i = 0; i < NX_CONFIG_KEYS; i++) {
        (void)nx_option_format(&nx_options[i], &config, text, sizeof text);
        put_text((uint8_t)i, text);
        write_seed("config");
        put_byte(255);
        used += (size_t)snprintf((char *)buffer + used, sizeof buffer - used,
                                 "# all\n[%s]\n%s = %s ; x\n", nx_options[i].section,
                                 nx_options[i].key, text);
        write_seed("config");
    }
}

static void seed_http(void)
{
    static const struct {
        uint8_t kind;
        const char *text;
    } seeds[] = {
        {0,
         "GET /kv/a%20b?wait=5&prefix=x HTTP/1.1\r\nHost: localhost:15474\r\nIf-None-Match: \"5\", W/\"6@2\"\r\n\r\n"},
        {0,
         "PUT /kv/k HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nvalue"},
        {0,
         "POST /import HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n"},
        {0, "GET / HTTP/1.0\r\nAuthorization: Bearer token\r\nRange: bytes=0-99\r\n\r\n"},
        {1, "prefix=a%2Fb&limit=100&keys_only=1&cursor=YWJj"},
        {1, "start=a&end=b+c&since=5@2"},
        {2,
         "{\"ops\":[{\"put\":{\"key\":\"a\",\"value_base64\":\"YQ==\",\"ttl\":5}},{\"delete\":{\"key\":\"b\"}}],"
         "\"if\":[{\"key\":\"c\",\"version\":0}]}"},
        {2, "{\"master_addr\":\"h:1\",\"force\":true}"},
        {3, "\"1\", \"2@3\", W/\"4\", *"},
        {3, "a%20b%2Fc+d%C3%A4"},
        {4, "bytes=0-99"},
        {4, "bytes=-5"},
        {4, "bytes=900-"},
    };

    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++) {
        put_text(seeds[i].kind, seeds[i].text);
        write_seed("http");
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        (void)fprintf(stderr, "usage: make_seeds DIRECTORY\n");
        return 2;
    }
    top = argv[1];
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) seed_##name();
#include "common/wire_messages.def"
    seed_entries();
    seed_logs();
    seed_snapshots();
    seed_configuration();
    seed_http();
    seed_files();
    seed_peers();
    seed_restores();
    return 0;
}
