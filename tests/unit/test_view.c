/* Reads at one offset over the state and two sealed generations: small cases first, then random steps
 * of a log against an array, with reads, seals, merges and recycling in any order. */
#include "checkpointer/merge.h"
#include "common/quorum.h"
#include "state_fixture.h"
#include "storage/view.h"

#include <errno.h>

static struct nx_state *writer;
static struct nx_state *reader;
static struct nx_view *view;
static struct test_log walwriter;
static uint64_t oldest; /* generation that isn't free */
static uint64_t merged; /* newest generation that is */

static void open_all(void)
{
    writer = state_open(true);
    reader = state_open(false);
    ck_assert_int_eq(nx_view_create(shm, reader, &view), 0);
}

static void close_all(void)
{
    nx_view_destroy(view);
    nx_state_close(reader);
    nx_state_close(writer);
}

static void setup(void)
{
    state_dir_make();
    shm_setup();
    log_start(&walwriter, 1);
    oldest = 1;
    merged = 0;
    open_all();
}

static void teardown(void)
{
    close_all();
    shm_teardown();
    state_dir_remove();
}

static uint64_t last_of(uint64_t number)
{
    return atomic_load_explicit(&log_generation(number)->last_offset, memory_order_relaxed);
}

static void merge_next(void)
{
    struct nx_merge_result result;

    ck_assert_int_eq(nx_merge_generation(shm, writer, merged + 1, last_of(merged + 1), &result), 0);
    merged++;
    ck_assert_uint_eq(result.position.offset, last_of(merged));
}

static void free_next(void)
{
    log_free(&walwriter, oldest);
    oldest++;
}

static int get(const char *key, struct nx_item *ret_item, uint64_t *ret_offset)
{
    return nx_view_get(view, (const uint8_t *)key, strlen(key), true, ret_item, ret_offset);
}

static void assert_value(const char *key, const char *value, uint64_t version)
{
    struct nx_item item;
    uint64_t offset = 0;

    ck_assert_int_eq(get(key, &item, &offset), 0);
    ck_assert_uint_eq(item.offset, version);
    ck_assert(nx_slice_equal(nx_slice_of(item.value, item.value_length), nx_slice_text(value)));
}

static void assert_absent(const char *key)
{
    struct nx_item item;
    uint64_t offset = UINT64_MAX;

    ck_assert_int_eq(get(key, &item, &offset), -ENOENT);
    ck_assert_uint_eq(offset, nx_committed_offset(shm));
}

/* ---- small cases ---- */

START_TEST(what_is_not_durable_is_not_seen)
{
    log_put(&walwriter, "a", "1");
    assert_absent("a");
    log_publish(&walwriter);
    log_put(&walwriter, "a", "2");
    assert_value("a", "1", 1);
    log_publish(&walwriter);
    assert_value("a", "2", 2);
}
END_TEST

START_TEST(the_newest_of_all_places_counts)
{
    log_put(&walwriter, "in all", "state");
    log_put(&walwriter, "in the state", "state");
    log_put(&walwriter, "deleted late", "state");
    log_put(&walwriter, "back again", "state");
    log_publish(&walwriter);
    log_seal(&walwriter);
    merge_next();
    free_next();
    log_put(&walwriter, "in all", "sealed");
    log_put(&walwriter, "sealed", "sealed");
    log_delete(&walwriter, "back again");
    log_publish(&walwriter);
    log_seal(&walwriter);
    assert_absent("back again");
    log_put(&walwriter, "in all", "running");
    log_delete(&walwriter, "deleted late");
    log_put(&walwriter, "back again", "running");
    log_publish(&walwriter);

    assert_value("in all", "running", 8);
    assert_value("in the state", "state", 2);
    assert_value("sealed", "sealed", 6);
    assert_value("back again", "running", 10);
    assert_absent("deleted late");
    assert_absent("never there");
}
END_TEST

START_TEST(a_head_knows_the_length_without_the_value)
{
    struct nx_item item;
    uint64_t offset;

    log_put(&walwriter, "a", "five!");
    log_publish(&walwriter);
    ck_assert_int_eq(nx_view_get(view, (const uint8_t *)"a", 1, false, &item, &offset), 0);
    ck_assert_ptr_null(item.value);
    ck_assert_uint_eq(item.value_length, 5);
    ck_assert_uint_eq(offset, 1);
}
END_TEST

START_TEST(an_expiry_is_shown_from_log_and_state)
{
    struct nx_op op = put_op("a", "v");
    struct nx_item item;
    uint64_t offset;

    op.flags = NX_OP_HAS_EXPIRY;
    op.expires_at = 4102444800000;
    log_append(&walwriter, &op, 1);
    log_publish(&walwriter);
    ck_assert_int_eq(get("a", &item, &offset), 0);
    ck_assert_uint_eq(item.expires_at, op.expires_at);
    log_seal(&walwriter);
    merge_next();
    free_next();
    ck_assert_int_eq(get("a", &item, &offset), 0);
    ck_assert_uint_eq(item.expires_at, op.expires_at);
}
END_TEST

/* The state can be ahead of what this node calls committed only while it starts. */
START_TEST(a_state_beyond_the_committed_offset_is_told)
{
    struct nx_position position = {1, 5, 1};
    struct nx_item item;
    uint64_t offset;

    ck_assert_int_eq(nx_state_write_begin(writer), 0);
    ck_assert_int_eq(nx_state_write_commit(writer, &position), 0);
    ck_assert_int_eq(get("a", &item, &offset), -ESTALE);
}
END_TEST

START_TEST(a_gap_between_state_and_generations_is_no_answer)
{
    struct nx_item item;
    uint64_t offset;

    log_put(&walwriter, "a", "1");
    log_publish(&walwriter);
    log_seal(&walwriter);
    log_put(&walwriter, "b", "2");
    log_publish(&walwriter);
    free_next(); /* not merged: its entry is nowhere */
    ck_assert_int_eq(get("b", &item, &offset), -EAGAIN);
}
END_TEST

/* ---- the model ---- */

#define KEYS      120
#define STEPS     20000
#define MAX_OPS   5
#define MAX_VALUE 3000

struct cell {
    bool live;
    uint64_t offset;
    uint64_t expires_at;
    size_t length; /* of its value, whose bytes follow from offset and length */
};

struct test_key {
    uint8_t bytes[NX_MAX_KEY]; /* zeros behind its length */
    size_t length;
};

static struct test_key keys[KEYS];  /* ascending */
static struct cell appended[KEYS];  /* by all entries ... */
static struct cell committed[KEYS]; /* ... and by those that are durable */
static uint64_t seed;

static uint64_t next_random(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static int compare_keys(const void *left, const void *right)
{
    const struct test_key *a = left;
    const struct test_key *b = right;
    int order = memcmp(a->bytes, b->bytes, sizeof a->bytes);

    return order != 0 ? order : (a->length > b->length) - (a->length < b->length);
}

/* Many share their first bytes, some are prefixes of others, a few are as long as can be. */
static void make_keys(void)
{
    static const uint8_t alphabet[] = {0, 'a', 'b', 0xff};
    size_t count = 0;

    memset(keys, 0, sizeof keys);
    while (count < KEYS) {
        size_t length = next_random(40) == 0 ? NX_MAX_KEY : 1 + next_random(14);

        memset(keys[count].bytes, 0, sizeof keys[count].bytes);
        keys[count].length = length;
        for (size_t i = 0; i < length; i++) {
            keys[count].bytes[i] = i < 7 ? 'a' : alphabet[next_random(sizeof alphabet)];
        }
        if (next_random(3) == 0) {
            keys[count].bytes[next_random(length)] = alphabet[next_random(sizeof alphabet)];
        }
        bool there = false;

        for (size_t i = 0; i < count && !there; i++) {
            there = compare_keys(&keys[i], &keys[count]) == 0;
        }
        count += there ? 0 : 1;
    }
    qsort(keys, KEYS, sizeof keys[0], compare_keys);
}

static const uint8_t *value_of(const struct cell *cell)
{
    static uint8_t bytes[MAX_VALUE];

    for (size_t i = 0; i < cell->length; i++) {
        bytes[i] = (uint8_t)(cell->offset * 31 + cell->length + i * 7);
    }
    return bytes;
}

static void assert_cell(const struct cell *cell, const struct nx_item *item, bool with_value)
{
    ck_assert(cell->live);
    ck_assert_uint_eq(item->offset, cell->offset);
    ck_assert_uint_eq(item->expires_at, cell->expires_at);
    ck_assert_uint_eq(item->value_length, cell->length);
    if (with_value) {
        ck_assert_int_eq(memcmp(item->value, value_of(cell), cell->length), 0);
    }
}

/* ---- its steps ---- */

static void step_seal(void)
{
    bool room = walwriter.generation + 1 - oldest < NX_GENERATIONS;

    uint64_t first = atomic_load_explicit(&log_generation(walwriter.generation)->first_offset,
                                          memory_order_relaxed);

    if (room && first <= walwriter.writer.newest) {
        log_seal(&walwriter);
    }
}

static void step_publish(void)
{
    if (walwriter.writer.newest > nx_committed_offset(shm)) {
        log_publish(&walwriter);
        memcpy(committed, appended, sizeof committed);
    }
}

static void step_merge(void)
{
    uint64_t last =
        atomic_load_explicit(&log_generation(merged + 1)->last_offset, memory_order_relaxed);

    if (merged + 1 < walwriter.generation && last <= nx_committed_offset(shm)) {
        merge_next();
    }
}

static void step_free(void)
{
    if (oldest <= merged) {
        free_next();
    }
}

/* Before the arena or a pool is full. */
static void make_room(void)
{
    uint64_t begun = atomic_load_explicit(&log_generation(walwriter.generation)->first_pos,
                                          memory_order_relaxed);

    if (walwriter.writer.next_pos - begun > 2u << 20) {
        step_publish();
        if (walwriter.generation + 1 - oldest >= NX_GENERATIONS) {
            step_merge();
            step_free();
        }
        step_seal();
    }
}

static void step_append(void)
{
    struct nx_op ops[MAX_OPS];
    static uint8_t values[MAX_OPS][MAX_VALUE];
    uint32_t count = 1 + (uint32_t)next_random(MAX_OPS);
    uint64_t offset = walwriter.writer.newest + 1;

    make_room();
    for (uint32_t i = 0; i < count; i++) {
        size_t k = next_random(KEYS);
        struct cell cell = {.live = next_random(3) != 0, .offset = offset};

        ops[i] =
            (struct nx_op){.kind = NX_OP_DELETE, .key = nx_slice_of(keys[k].bytes, keys[k].length)};
        if (cell.live) {
            cell.length = next_random(next_random(10) == 0 ? MAX_VALUE : 40);
            memcpy(values[i], value_of(&cell), cell.length);
            ops[i].kind = NX_OP_PUT;
            ops[i].value = nx_slice_of(values[i], cell.length);
        }
        if (cell.live && next_random(4) == 0) {
            cell.expires_at = offset + 4102444800000;
            ops[i].flags = NX_OP_HAS_EXPIRY;
            ops[i].expires_at = cell.expires_at;
        }
        appended[k] = cell;
    }
    ck_assert_uint_eq(log_append(&walwriter, ops, count), offset);
}

static void step_reopen(void)
{
    close_all();
    open_all();
}

static void step_get(void)
{
    size_t k = next_random(KEYS);
    bool want_value = next_random(4) != 0;
    struct nx_item item;
    uint64_t offset = UINT64_MAX;
    int rc = nx_view_get(view, keys[k].bytes, keys[k].length, want_value, &item, &offset);

    ck_assert_uint_eq(offset, nx_committed_offset(shm));
    ck_assert_int_eq(rc, committed[k].live ? 0 : -ENOENT);
    if (rc == 0) {
        assert_cell(&committed[k], &item, want_value);
    }
}

struct page {
    struct cell cells[KEYS]; /* as of its beginning */
    size_t at;               /* next key that may come */
    size_t end;              /* of the range */
    size_t left;             /* limit; ends by it at 0 */
    bool want_values;
    bool churn; /* the log goes on during the scan */
};

static void churn(void)
{
    switch (next_random(8)) {
    case 0:
        step_seal();
        break;
    case 1:
        step_merge();
        break;
    case 2:
        step_free();
        break;
    case 3:
        step_publish();
        break;
    default:
        step_append();
    }
}

static int on_item(void *arg, const struct nx_item *item)
{
    struct page *page = arg;

    while (page->at < page->end && !page->cells[page->at].live) {
        page->at++;
    }
    ck_assert_uint_lt(page->at, page->end);
    ck_assert(nx_slice_equal(nx_slice_of(item->key, item->key_length),
                             nx_slice_of(keys[page->at].bytes, keys[page->at].length)));
    assert_cell(&page->cells[page->at], item, page->want_values);
    page->at++;
    page->left--;
    if (page->churn) {
        churn();
    }
    return page->left == 0;
}

/* A range from a key, or from between two of them; index of its first key. */
static size_t bound(const uint8_t **ret_bytes, size_t *ret_length)
{
    size_t k = next_random(KEYS);

    *ret_bytes = keys[k].bytes;
    *ret_length = keys[k].length;
    if (keys[k].length < NX_MAX_KEY && next_random(2) == 0) {
        (*ret_length)++; /* the key and a zero byte: the first that can stand behind it */
        k++;
    }
    return k;
}

static int step_scan(void)
{
    static struct page page;
    struct nx_range range = {.want_values = next_random(4) != 0};
    uint64_t freed = oldest;
    uint64_t expected = nx_committed_offset(shm);
    uint64_t offset = 0;

    page = (struct page){.end = KEYS,
                         .left = next_random(3) == 0 ? 1 + next_random(20) : KEYS + 1,
                         .want_values = range.want_values,
                         .churn = next_random(3) == 0};
    memcpy(page.cells, committed, sizeof page.cells);
    if (next_random(3) != 0) {
        page.at = bound(&range.start, &range.start_length);
    }
    if (next_random(3) != 0) {
        page.end = bound(&range.end, &range.end_length);
    }
    int rc = nx_view_scan(view, &range, on_item, &page, &offset);

    if (rc == -EAGAIN) {
        ck_assert_uint_gt(oldest, freed); /* the only excuse */
        return 1;
    }
    ck_assert_int_eq(rc, 0);
    ck_assert_uint_eq(offset, expected);
    for (size_t k = page.at; page.left > 0 && k < page.end; k++) {
        ck_assert_msg(!page.cells[k].live, "key %zu is missing", k);
    }
    return 0;
}

static void step(unsigned *ret_lost_pages)
{
    uint64_t what = next_random(1000);

    if (what < 500) {
        step_append();
    } else if (what < 600) {
        step_publish();
    } else if (what < 610) {
        step_seal();
    } else if (what < 620) {
        step_merge();
    } else if (what < 640) {
        step_free();
    } else if (what < 642) {
        step_reopen();
    } else if (what < 920) {
        step_get();
    } else {
        *ret_lost_pages += (unsigned)step_scan();
    }
}

START_TEST(any_sequence_of_steps_reads_as_the_model_says)
{
    unsigned lost_pages = 0;

    seed = 0x9E3779B97F4A7C15u + (uint64_t)_i;
    memset(appended, 0, sizeof appended);
    memset(committed, 0, sizeof committed);
    make_keys();
    for (unsigned i = 0; i < STEPS; i++) {
        step(&lost_pages);
    }
    /* It went through what it was meant to go through. */
    ck_assert_uint_gt(merged, 20);
    ck_assert_uint_gt(oldest, 20);
    ck_assert_uint_gt(lost_pages, 0);
    ck_assert_uint_lt(lost_pages, STEPS / 50);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("view");
    TCase *tcase = tcase_create("all");

    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, what_is_not_durable_is_not_seen);
    tcase_add_test(tcase, the_newest_of_all_places_counts);
    tcase_add_test(tcase, a_head_knows_the_length_without_the_value);
    tcase_add_test(tcase, an_expiry_is_shown_from_log_and_state);
    tcase_add_test(tcase, a_state_beyond_the_committed_offset_is_told);
    tcase_add_test(tcase, a_gap_between_state_and_generations_is_no_answer);
    tcase_add_loop_test(tcase, any_sequence_of_steps_reads_as_the_model_says, 0, 3);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_run_all(runner, CK_ENV);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
