/* Runs in walsenders and the walreceiver. Pure functions over buffers of the caller, driven by the
 * tables that wire_messages.def becomes; they own nothing and never block. What they read comes from
 * the network: every length is checked before it is used, and nothing is believed before all of the
 * payload has been read. */
#include "common/wire.h"

#include "common/sentence.h"

#include <assert.h>
#include <errno.h>

enum field_type {
    FIELD_U8,
    FIELD_U32,
    FIELD_U64,
    FIELD_BOOL,
    FIELD_STRING,
    FIELD_SECRET,
    FIELD_BYTES,
    FIELD_REST,
};

#define NOT_LIKE SIZE_MAX

struct field {
    const char *name;
    enum field_type type;
    size_t at; /* in the struct */
    bool optional;
    uint64_t value; /* default, if optional and a number */
    size_t like;    /* default: the field there, or NOT_LIKE */
};

struct message {
    const char *title;
    uint8_t type;
    uint32_t variant;
    size_t max_payload;
    size_t size; /* of the struct */
    const struct field *fields;
    size_t field_count;
};

/* static const struct field hello_fields[] = { {"replica_id", FIELD_STRING, ...}, ... }; */
/* clang-format off */
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) \
    static const struct field name##_fields[] = {
#define NX_FIELD(message, field, type, note) \
    {#field, FIELD_##type, offsetof(struct nx_msg_##message, field), false, 0, NOT_LIKE},
#define NX_OPTIONAL(message, field, type, value, note) \
    {#field, FIELD_##type, offsetof(struct nx_msg_##message, field), true, value, NOT_LIKE},
#define NX_OPTIONAL_LIKE(message, field, type, other, note) \
    {#field, FIELD_##type, offsetof(struct nx_msg_##message, field), true, 0, \
     offsetof(struct nx_msg_##message, other)},
#define NX_MESSAGE_END(name) };
#include "common/wire_messages.def"
/* clang-format on */

#define NX_OPTIONAL_LIKE(message, field, type, other, note)          \
    static_assert(sizeof(((struct nx_msg_##message *)0)->field) ==   \
                      sizeof(((struct nx_msg_##message *)0)->other), \
                  #field " is like " #other);
#include "common/wire_messages.def"

/* Place of a message in messages[]. */
enum message_index {
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) INDEX_##symbol,
#include "common/wire_messages.def"
    MESSAGE_COUNT
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static const struct message messages[MESSAGE_COUNT] = {
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) \
    {title,                                                                  \
     type,                                                                   \
     variant,                                                                \
     limit,                                                                  \
     sizeof(struct nx_msg_##name),                                           \
     name##_fields,                                                          \
     COUNT(name##_fields)},
#include "common/wire_messages.def"
};

/* Room for any of them. */
union any_message {
#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit) \
    struct nx_msg_##name name;
#include "common/wire_messages.def"
};

static uint64_t get_number(const void *message, size_t at, enum field_type type)
{
    const uint8_t *p = (const uint8_t *)message + at;
    uint32_t u32;
    uint64_t u64;

    switch (type) {
    case FIELD_U32:
        memcpy(&u32, p, sizeof(u32));
        return u32;
    case FIELD_U64:
        memcpy(&u64, p, sizeof(u64));
        return u64;
    case FIELD_U8:
        return *p;
    case FIELD_BOOL:
        return *(const bool *)p ? 1 : 0;
    case FIELD_STRING:
    case FIELD_SECRET:
    case FIELD_BYTES:
    case FIELD_REST:
        break;
    }
    return 0;
}

static void set_number(void *message, const struct field *field, uint64_t value)
{
    uint8_t *p = (uint8_t *)message + field->at;
    uint32_t u32 = (uint32_t)value;

    switch (field->type) {
    case FIELD_U32:
        memcpy(p, &u32, sizeof(u32));
        break;
    case FIELD_U64:
        memcpy(p, &value, sizeof(value));
        break;
    case FIELD_U8:
        *p = (uint8_t)value;
        break;
    case FIELD_BOOL:
        *(bool *)p = value != 0;
        break;
    case FIELD_STRING:
    case FIELD_SECRET:
    case FIELD_BYTES:
    case FIELD_REST:
        break;
    }
}

static struct nx_slice get_slice(const void *message, const struct field *field)
{
    struct nx_slice slice;

    memcpy(&slice, (const uint8_t *)message + field->at, sizeof(slice));
    return slice;
}

static void set_slice(void *message, const struct field *field, struct nx_slice slice)
{
    memcpy((uint8_t *)message + field->at, &slice, sizeof(slice));
}

/* ---- text ---- */

/* Bytes of the UTF-8 character at p (n > 0 bytes are there), or 0: malformed, overlong, a
 * surrogate, above U+10FFFF (RFC 3629, section 4). */
static size_t utf8_length(const uint8_t *p, size_t n)
{
    uint8_t low = 0x80; /* range of the second byte */
    uint8_t high = 0xBF;
    size_t length;

    if (p[0] < 0x80) {
        return 1;
    }
    if (p[0] < 0xC2 || p[0] > 0xF4) {
        return 0;
    }
    length = p[0] < 0xE0 ? 2 : (p[0] < 0xF0 ? 3 : 4);
    if (p[0] == 0xE0) {
        low = 0xA0;
    } else if (p[0] == 0xED) {
        high = 0x9F;
    } else if (p[0] == 0xF0) {
        low = 0x90;
    } else if (p[0] == 0xF4) {
        high = 0x8F;
    }
    if (n < length || p[1] < low || p[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < length; i++) {
        if ((p[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    return length;
}

/* Whether text is UTF-8 without a NUL: what the other side's strings hold, and what may become a C
 * string without losing its end. */
static bool is_text(struct nx_slice text)
{
    size_t i = 0;
    size_t length;

    while (i < text.length) {
        length = text.data[i] == 0 ? 0 : utf8_length(text.data + i, text.length - i);
        if (length == 0) {
            return false;
        }
        i += length;
    }
    return true;
}

/* ---- encoding ---- */

static size_t field_size(const struct field *field, const void *message)
{
    switch (field->type) {
    case FIELD_U8:
    case FIELD_BOOL:
        return sizeof(uint8_t);
    case FIELD_U32:
        return sizeof(uint32_t);
    case FIELD_U64:
        return sizeof(uint64_t);
    case FIELD_STRING:
    case FIELD_SECRET:
    case FIELD_BYTES:
        return sizeof(uint64_t) + get_slice(message, field).length;
    case FIELD_REST:
        return get_slice(message, field).length;
    }
    return 0;
}

static void write_field(struct nx_writer *writer, const struct field *field, const void *message)
{
    switch (field->type) {
    case FIELD_U8:
    case FIELD_BOOL:
        nx_write_u8(writer, (uint8_t)get_number(message, field->at, field->type));
        break;
    case FIELD_U32:
        nx_write_u32(writer, (uint32_t)get_number(message, field->at, field->type));
        break;
    case FIELD_U64:
        nx_write_u64(writer, get_number(message, field->at, field->type));
        break;
    case FIELD_STRING:
    case FIELD_SECRET:
    case FIELD_BYTES:
        nx_write_slice(writer, get_slice(message, field));
        break;
    case FIELD_REST:
        nx_write_bytes(writer, get_slice(message, field));
        break;
    }
}

static size_t payload_size(const struct message *kind, const void *message)
{
    size_t size = sizeof(kind->variant);

    for (size_t i = 0; i < kind->field_count; i++) {
        size += field_size(&kind->fields[i], message);
    }
    return size;
}

/* Whether everything that should be text is. */
static bool texts_fine(const struct message *kind, const void *message)
{
    for (size_t i = 0; i < kind->field_count; i++) {
        const struct field *field = &kind->fields[i];

        if ((field->type == FIELD_STRING || field->type == FIELD_SECRET) &&
            !is_text(get_slice(message, field))) {
            return false;
        }
    }
    return true;
}

static int encode(const struct message *kind,
                  const void *message,
                  uint8_t *buf,
                  size_t cap,
                  size_t *ret_length)
{
    size_t size = payload_size(kind, message);
    struct nx_writer writer;

    if (!texts_fine(kind, message)) {
        return -EINVAL;
    }
    if (size > kind->max_payload) {
        return -EMSGSIZE;
    }
    if (cap < size + NX_FRAME_OVERHEAD) {
        return -ENOBUFS;
    }
    writer = nx_writer_of(buf + NX_FRAME_HEADER, size);
    nx_write_u32(&writer, kind->variant);
    for (size_t i = 0; i < kind->field_count; i++) {
        write_field(&writer, &kind->fields[i], message);
    }
    assert(!writer.full && writer.used == size);
    (void)nx_frame_seal(buf, kind->type, size);
    *ret_length = size + NX_FRAME_OVERHEAD;
    return 0;
}

/* ---- decoding ---- */

static void set_default(const struct field *field, void *message)
{
    uint64_t value = field->value;

    if (field->like != NOT_LIKE) {
        value = get_number(message, field->like, field->type);
    }
    set_number(message, field, value); /* slices are empty from the start */
}

static void read_field(struct nx_reader *reader, const struct field *field, void *message)
{
    struct nx_slice slice;

    switch (field->type) {
    case FIELD_U8:
        set_number(message, field, nx_read_u8(reader));
        break;
    case FIELD_BOOL:
        set_number(message, field, nx_read_bool(reader) ? 1 : 0);
        break;
    case FIELD_U32:
        set_number(message, field, nx_read_u32(reader));
        break;
    case FIELD_U64:
        set_number(message, field, nx_read_u64(reader));
        break;
    case FIELD_STRING:
    case FIELD_SECRET:
        slice = nx_read_slice(reader);
        reader->bad = reader->bad || !is_text(slice);
        set_slice(message, field, slice);
        break;
    case FIELD_BYTES:
        set_slice(message, field, nx_read_slice(reader));
        break;
    case FIELD_REST:
        set_slice(message, field, nx_read_bytes(reader, reader->left));
        break;
    }
}

static int decode(const struct message *kind,
                  const uint8_t *payload,
                  size_t n,
                  union any_message *ret_message)
{
    struct nx_reader reader = nx_reader_of(payload, n);
    union any_message message;

    memset(&message, 0, sizeof(message));
    if (nx_read_u32(&reader) != kind->variant) {
        return -EBADMSG;
    }
    for (size_t i = 0; i < kind->field_count && !reader.bad; i++) {
        const struct field *field = &kind->fields[i];

        if (field->optional && reader.left == 0) {
            set_default(field, &message);
        } else {
            read_field(&reader, field, &message);
        }
    }
    if (reader.bad) {
        return -EBADMSG;
    }
    *ret_message = message;
    return 0;
}

/* ---- what wire.h promises for each message ---- */

#define NX_MESSAGE(symbol, name, title, type, variant, sender, phase, limit)                       \
    size_t nx_wire_size_##name(const struct nx_msg_##name *message)                                \
    {                                                                                              \
        return payload_size(&messages[INDEX_##symbol], message) + NX_FRAME_OVERHEAD;               \
    }                                                                                              \
                                                                                                   \
    int nx_wire_encode_##name(const struct nx_msg_##name *message, uint8_t *buf, size_t cap,       \
                              size_t *ret_length)                                                  \
    {                                                                                              \
        return encode(&messages[INDEX_##symbol], message, buf, cap, ret_length);                   \
    }                                                                                              \
                                                                                                   \
    int nx_wire_decode_##name(const uint8_t *payload, size_t n, struct nx_msg_##name *ret_message) \
    {                                                                                              \
        union any_message message;                                                                 \
        int rc = decode(&messages[INDEX_##symbol], payload, n, &message);                          \
                                                                                                   \
        if (rc == 0) {                                                                             \
            *ret_message = message.name;                                                           \
        }                                                                                          \
        return rc;                                                                                 \
    }
#include "common/wire_messages.def"

/* ---- printing ---- */

#define PRINT_TEXT_MAX 64

static void say_escaped(struct nx_sentence *sentence, struct nx_slice slice)
{
    size_t shown = slice.length < PRINT_TEXT_MAX ? slice.length : PRINT_TEXT_MAX;

    nx_say(sentence, "\"");
    for (size_t i = 0; i < shown; i++) {
        uint8_t c = slice.data[i];

        if (c < 0x20 || c > 0x7E || c == '"' || c == '\\') {
            nx_say(sentence, "\\x%02X", (unsigned)c);
        } else {
            nx_say(sentence, "%c", c);
        }
    }
    nx_say(sentence, "\"%s", shown < slice.length ? "..." : "");
}

static void say_field(struct nx_sentence *sentence, const struct field *field, const void *message)
{
    nx_say(sentence, " %s=", field->name);
    switch (field->type) {
    case FIELD_U8:
    case FIELD_U32:
    case FIELD_U64:
        nx_say(sentence, "%llu", (unsigned long long)get_number(message, field->at, field->type));
        break;
    case FIELD_BOOL:
        nx_say(sentence, "%s", get_number(message, field->at, field->type) != 0 ? "true" : "false");
        break;
    case FIELD_STRING:
        say_escaped(sentence, get_slice(message, field));
        break;
    case FIELD_SECRET:
        nx_say(sentence, "%s", get_slice(message, field).length > 0 ? "(set)" : "(empty)");
        break;
    case FIELD_BYTES:
    case FIELD_REST:
        nx_say(sentence, "(%zu bytes)", get_slice(message, field).length);
        break;
    }
}

static const struct message *find_message(uint8_t type)
{
    for (size_t i = 0; i < MESSAGE_COUNT; i++) {
        if (messages[i].type == type) {
            return &messages[i];
        }
    }
    return NULL;
}

const char *nx_wire_print(uint8_t type, const uint8_t *payload, size_t n, char *buf, size_t cap)
{
    const struct message *kind = find_message(type);
    struct nx_sentence sentence = nx_sentence_in(buf, cap);
    union any_message message;

    if (kind == NULL) {
        nx_say(&sentence, "unknown message type 0x%02X (%zu bytes)", (unsigned)type, n);
        return buf;
    }
    nx_say(&sentence, "%s", kind->title);
    if (decode(kind, payload, n, &message) < 0) {
        nx_say(&sentence, " (unreadable, %zu bytes)", n);
        return buf;
    }
    for (size_t i = 0; i < kind->field_count; i++) {
        say_field(&sentence, &kind->fields[i], &message);
    }
    return buf;
}

const char *nx_wire_error_text(uint32_t code)
{
    switch (code) {
#define NX_ERROR_CODE(symbol, code, text) \
    case code:                            \
        return text;
#include "common/wire_messages.def"
    default:
        return "unknown error";
    }
}
