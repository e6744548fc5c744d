/* Nexus's HTTP interface (docs/http.md). Requests are copied from templates, in which only the key is filled in;
 * answers are read by http_answer.h. */
#include "nexus-bench/http_answer.h"
#include "nexus-bench/keys.h"
#include "nexus-bench/options.h"
#include "nexus-bench/protocol.h"

#include <errno.h>
#include <stdlib.h>

/* A line of an import; the key and the value stand between these. */
#define LINE_BEGIN  "{\"key\":\""
#define LINE_MIDDLE "\",\"value\":\""
#define LINE_END    "\"}\n"
#define LINE_FRAME  (sizeof LINE_BEGIN + sizeof LINE_MIDDLE + sizeof LINE_END - 3)

/* All of a request in front of the value; of an import, in front of its Content-Length. */
struct template
{
    struct text head;
    size_t key_at;
};

struct templates {
    struct template of[BENCH_OPERATIONS];
    size_t value;
};

static void add_line(struct text *head, const char *line)
{
    (void)nx_text_puts(head, line);
    (void)nx_text_puts(head, "\r\n");
}

static void add_common(struct text *head,
                       const struct bench_options *options,
                       const struct bench_target *target)
{
    (void)nx_text_puts(head, "Host: ");
    add_line(head, target->text);
    if (options->token[0] != '\0') {
        (void)nx_text_puts(head, "Authorization: Bearer ");
        add_line(head, options->token);
    }
    for (unsigned i = 0; i < options->header_count; i++) {
        add_line(head, options->headers[i]);
    }
}

static void make_template(struct template *made,
                          enum bench_operation operation,
                          const struct bench_options *options,
                          const struct bench_target *target)
{
    static const char *const starts[] = {
        [BENCH_GET] = "GET /kv/",  [BENCH_PUT] = "PUT /kv/",        [BENCH_DELETE] = "DELETE /kv/",
        [BENCH_WAIT] = "PUT /kv/", [BENCH_IMPORT] = "POST /import",
    };
    struct text *head = &made->head;

    (void)nx_text_puts(head, starts[operation]);
    if (operation != BENCH_IMPORT) {
        made->key_at = head->length;
        (void)nx_text_puts(head, "key:############");
    }
    add_line(head, " HTTP/1.1");
    add_common(head, options, target);
    if (operation == BENCH_WAIT) {
        /* As many replicas as replication.sync_quorum says, 1 where it isn't set. */
        add_line(head, "Nexus-Durability: quorum");
    }
    switch (operation) {
    case BENCH_PUT:
    case BENCH_WAIT:
        (void)nx_text_puts(head, "Content-Length: ");
        (void)nx_text_u64(head, options->value);
        add_line(head, "\r\n");
        break;
    case BENCH_IMPORT:
        (void)nx_text_puts(head, "Content-Length: ");
        break;
    case BENCH_GET:
    case BENCH_DELETE:
    case BENCH_PROBE:
        add_line(head, "");
        break;
    }
}

static void release(void *prepared)
{
    struct templates *templates = prepared;

    for (size_t i = 0; i < BENCH_OPERATIONS; i++) {
        nx_text_free(&templates->of[i].head);
    }
    free(templates);
}

static void *prepare(const struct bench_options *options, const struct bench_target *target)
{
    struct templates *templates = calloc(1, sizeof *templates);

    if (templates == NULL) {
        return NULL;
    }
    templates->value = options->value;
    for (size_t i = 0; i < BENCH_OPERATIONS; i++) {
        make_template(&templates->of[i], (enum bench_operation)i, options, target);
        if (templates->of[i].head.failed) {
            release(templates);
            return NULL;
        }
    }
    return templates;
}

/* ---- requests ---- */

static uint8_t *add_bytes(uint8_t *p, const char *bytes, size_t length)
{
    memcpy(p, bytes, length);
    return p + length;
}

static void write_import(const struct templates *templates,
                         const struct bench_request *request,
                         struct bench_random *random,
                         struct text *out)
{
    const struct text *head = &templates->of[BENCH_IMPORT].head;
    size_t body = request->count * (LINE_FRAME + BENCH_KEY_LENGTH + templates->value);
    uint8_t *p;

    (void)nx_text_add(out, head->data, head->length);
    (void)nx_text_u64(out, body);
    (void)nx_text_puts(out, "\r\n\r\n");
    p = bench_room(out, body);
    for (size_t i = 0; p != NULL && i < request->count; i++) {
        p = add_bytes(p, LINE_BEGIN, sizeof LINE_BEGIN - 1);
        bench_key_write(p, request->keys[i]);
        p = add_bytes(p + BENCH_KEY_LENGTH, LINE_MIDDLE, sizeof LINE_MIDDLE - 1);
        bench_value_write(p, templates->value, random);
        p = add_bytes(p + templates->value, LINE_END, sizeof LINE_END - 1);
    }
}

static void write_request(const void *prepared,
                          void *state,
                          const struct bench_request *request,
                          struct bench_random *random,
                          struct text *out)
{
    const struct templates *templates = prepared;
    enum bench_operation operation =
        request->operation == BENCH_PROBE ? BENCH_GET : request->operation;
    const struct template *template = &templates->of[operation];
    bool writes = operation == BENCH_PUT || operation == BENCH_WAIT;
    uint8_t *p;

    (void)state;
    if (operation == BENCH_IMPORT) {
        write_import(templates, request, random, out);
        return;
    }
    p = bench_room(out, template->head.length + (writes ? templates->value : 0));
    if (p == NULL) {
        return;
    }
    memcpy(p, template->head.data, template->head.length);
    bench_key_write(p + template->key_at, request->keys[0]);
    if (writes) {
        bench_value_write(p + template->head.length, templates->value, random);
    }
}

/* ---- answers ---- */

static int read_answer(void *state,
                       const struct bench_request *request,
                       struct nx_slice data,
                       size_t *ret_used,
                       struct bench_answer *ret_answer,
                       struct text *out)
{
    struct bench_http_answer *answer = state;
    bool reads;
    int rc;

    (void)out;
    if (request == NULL) {
        return -EPROTO;
    }
    rc = bench_http_answer_take(answer, data, ret_used);
    if (rc <= 0) {
        return rc;
    }
    reads = bench_reads(request);
    *ret_answer = (struct bench_answer){
        .result = BENCH_FAILED, .status = answer->status, .text = answer->text};
    if (answer->status >= 200 && answer->status < 300) {
        ret_answer->result = BENCH_DONE;
        ret_answer->value_bytes = reads ? answer->body : 0;
    } else if (answer->status == 404 && reads) {
        ret_answer->result = BENCH_ABSENT;
    }
    *answer = (struct bench_http_answer){.stage = BENCH_HTTP_HEAD};
    return 1;
}

const struct bench_protocol bench_http = {
    .name = "http",
    .pipelines = true,
    .headers = true,
    .state_size = sizeof(struct bench_http_answer),
    .prepare = prepare,
    .release = release,
    .write = write_request,
    .read = read_answer,
};
