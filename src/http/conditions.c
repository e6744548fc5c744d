/* Runs in http workers. Pure functions; see conditions.h. */
#include "http/conditions.h"

#include "http/query.h"

#include <errno.h>
#include <string.h>

int nx_client_offset_parse(struct nx_slice text, struct client_offset *ret_offset)
{
    struct client_offset parsed = {0, 0};
    const uint8_t *at = text.length > 0 ? memchr(text.data, '@', text.length) : NULL;

    if (at != NULL) {
        size_t length = (size_t)(at - text.data);

        if (nx_parse_u64(nx_slice_of(at + 1, text.length - length - 1), &parsed.epoch) < 0 ||
            parsed.epoch == 0) {
            return -EINVAL;
        }
        text.length = length;
    }
    if (nx_parse_u64(text, &parsed.offset) < 0) {
        return -EINVAL;
    }
    *ret_offset = parsed;
    return 0;
}

static struct nx_slice trim(struct nx_slice text)
{
    while (text.length > 0 && (text.data[0] == ' ' || text.data[0] == '\t')) {
        text.data++;
        text.length--;
    }
    while (text.length > 0 &&
           (text.data[text.length - 1] == ' ' || text.data[text.length - 1] == '\t')) {
        text.length--;
    }
    return text;
}

/* Takes the next list element off the front: up to a comma outside of quotes. */
static struct nx_slice next_element(struct nx_slice *rest)
{
    bool quoted = false;
    size_t n = 0;

    while (n < rest->length && (quoted || rest->data[n] != ',')) {
        quoted = rest->data[n] == '"' ? !quoted : quoted;
        n++;
    }
    struct nx_slice element = nx_slice_of(rest->data, n);

    n += n < rest->length ? 1 : 0;
    rest->data += n;
    rest->length -= n;
    return trim(element);
}

static struct nx_slice cut_weak(struct nx_slice element)
{
    if (element.length > 2 && element.data[0] == 'W' && element.data[1] == '/') {
        element = nx_slice_of(element.data + 2, element.length - 2);
    }
    return element;
}

static int parse_tag(struct nx_slice element, struct client_offset *ret_tag)
{
    element = cut_weak(element);
    if (element.length >= 2 && element.data[0] == '"' && element.data[element.length - 1] == '"') {
        element = nx_slice_of(element.data + 1, element.length - 2);
        /* "*" is a slip for *, and as a tag that nothing has it would let pass what * forbids. */
        if (memchr(element.data, '"', element.length) != NULL ||
            nx_slice_equal(element, nx_slice_text("*"))) {
            return -EINVAL;
        }
        if (nx_client_offset_parse(element, ret_tag) < 0) {
            *ret_tag = (struct client_offset){NX_TAG_FOREIGN, 0};
        }
        return 0;
    }
    return nx_client_offset_parse(element, ret_tag);
}

int nx_tags_parse(struct nx_slice value, struct tag_list *ret_list)
{
    struct tag_list list = {.any = false, .count = 0};

    value = trim(value);
    list.any = nx_slice_equal(value, nx_slice_text("*"));
    while (!list.any && value.length > 0) {
        struct nx_slice element = next_element(&value);

        if (element.length == 0) {
            continue;
        }
        if (list.count == NX_MAX_TAGS) {
            return -E2BIG;
        }
        if (parse_tag(element, &list.tags[list.count]) < 0) {
            return -EINVAL;
        }
        list.count++;
    }
    if (!list.any && list.count == 0) {
        return -EINVAL;
    }
    *ret_list = list;
    return 0;
}

bool nx_tags_match(const struct tag_list *list, uint64_t version)
{
    if (list->any) {
        return version != 0;
    }
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->tags[i].offset == version) {
            return true;
        }
    }
    return false;
}

bool nx_tag_listed(struct nx_slice value, struct nx_slice tag, bool weak)
{
    value = trim(value);
    if (nx_slice_equal(value, nx_slice_text("*"))) {
        return true;
    }
    while (value.length > 0) {
        struct nx_slice element = next_element(&value);

        if (nx_slice_equal(weak ? cut_weak(element) : element, tag)) {
            return true;
        }
    }
    return false;
}

bool nx_tags_condition(struct text *out,
                       struct nx_slice key,
                       const struct tag_list *list,
                       bool none_match)
{
    uint8_t versions[NX_MAX_TAGS * 8];
    struct nx_condition condition = {
        .key = key.data,
        .key_length = key.length,
        .versions = versions,
        .version_count = list->count,
    };

    if (list->any) {
        condition.kind = none_match ? NX_CONDITION_ABSENT : NX_CONDITION_EXISTS;
    } else {
        condition.kind = none_match ? NX_CONDITION_NONE_OF : NX_CONDITION_ANY_OF;
    }
    for (uint32_t i = 0; i < list->count; i++) {
        nx_store_u64(versions + (size_t)i * 8, list->tags[i].offset);
    }
    if (!nx_text_reserve(out, nx_condition_size(&condition))) {
        return false;
    }
    out->length += nx_condition_encode(out->data + out->length, &condition);
    return true;
}
