/* tsan */
/* The skip list against a model: order, versions, readers at an offset, a reader beside the writer. */
#include "common/bytes.h"
#include "common/entry.h"
#include "common/skip_list.h"
#include "shm_fixture.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct nx_skip_pool *pool;
static uint64_t next_pos;

static void setup(void)
{
    shm_setup();
    pool = nx_skip_pool(shm, 1);
    nx_skip_reset(shm, pool);
    next_pos = 0;
}

/* Places an operation in the arena; what links it as version `offset`. */
static struct nx_skip_version place(const void *key,
                                    size_t length,
                                    uint64_t offset,
                                    uint32_t index,
                                    uint8_t kind)
{
    uint8_t *at = (uint8_t *)nx_shm_at(shm, shm->arena_at) + next_pos % shm->arena_size;
    struct nx_writer writer = nx_writer_of(at, 1024);
    struct nx_op op = {.kind = kind, .key = {key, length}};
    struct nx_skip_version version = {
        .key = {at + NX_OP_HEADER, length},
        .op_pos = next_pos,
        .offset = offset,
        .op_index = index,
        .kind = kind,
    };

    ck_assert_int_eq(nx_op_encode(&writer, &op), 0);
    next_pos += nx_op_encoded_size(&op);
    return version;
}

static void put(const void *key, size_t length, uint64_t offset, uint32_t index, uint8_t kind)
{
    struct nx_skip_version version = place(key, length, offset, index, kind);

    nx_skip_insert(shm, pool, &version, 1);
}

static const struct nx_skip_node *find(const char *key, uint64_t offset)
{
    return nx_skip_find(shm, pool, (const uint8_t *)key, strlen(key), offset);
}

START_TEST(a_reader_sees_the_newest_version_at_its_offset)
{
    put("k", 1, 3, 0, NX_OP_PUT);
    put("k", 1, 7, 0, NX_OP_DELETE);
    put("k", 1, 9, 0, NX_OP_PUT);
    ck_assert_ptr_null(find("k", 2));
    ck_assert_uint_eq(find("k", 3)->offset, 3);
    ck_assert_uint_eq(find("k", 8)->offset, 7);
    ck_assert_uint_eq(find("k", 8)->kind, NX_OP_DELETE);
    ck_assert_uint_eq(find("k", UINT64_MAX)->offset, 9);
}
END_TEST

START_TEST(the_last_operation_of_an_entry_wins)
{
    put("k", 1, 5, 0, NX_OP_PUT);
    put("k", 1, 5, 1, NX_OP_DELETE);
    put("k", 1, 5, 2, NX_OP_PUT);
    ck_assert_uint_eq(find("k", 5)->op_index, 2);
}
END_TEST

START_TEST(keys_that_differ_only_in_zero_bytes_or_length_are_different)
{
    static const struct {
        const char *key;
        size_t length;
    } keys[] = {{"a", 1},        {"a\0", 2},       {"a\0\0\0\0\0\0\0", 8}, {"a\0\0\0\0\0\0\0\0", 9},
                {"abcdefgh", 8}, {"abcdefghi", 9}, {"abcdefgh\0", 9},      {"abcdefghij", 10},
                {"\xff", 1}};
    size_t count = sizeof keys / sizeof *keys;

    for (size_t i = 0; i < count; i++) {
        put(keys[i].key, keys[i].length, i + 1, 0, NX_OP_PUT);
    }
    for (size_t i = 0; i < count; i++) {
        const struct nx_skip_node *node =
            nx_skip_find(shm, pool, (const uint8_t *)keys[i].key, keys[i].length, UINT64_MAX);

        ck_assert_ptr_nonnull(node);
        ck_assert_uint_eq(node->offset, i + 1);
    }
}
END_TEST

static int compare_keys(const void *a, const void *b)
{
    return strcmp(a, b);
}

START_TEST(a_walk_gives_all_keys_in_byte_order)
{
    static char keys[5000][24];
    const struct nx_skip_node *node;
    size_t seen = 0;

    for (size_t i = 0; i < 5000; i++) {
        snprintf(keys[i], sizeof keys[i], "key-%zu", i * 7919 % 5003);
        put(keys[i], strlen(keys[i]), i + 1, 0, NX_OP_PUT);
    }
    qsort(keys, 5000, sizeof *keys, compare_keys);
    for (node = nx_skip_first(shm, pool); node != NULL; node = nx_skip_next(shm, pool, node)) {
        size_t max;
        const uint8_t *op = nx_skip_op(shm, node, &max);

        ck_assert_uint_lt(seen, 5000);
        ck_assert_uint_eq(node->key_length, strlen(keys[seen]));
        ck_assert_mem_eq(op + NX_OP_HEADER, keys[seen], node->key_length);
        seen++;
    }
    ck_assert_uint_eq(seen, 5000);
    node = nx_skip_seek(shm, pool, (const uint8_t *)keys[1000], strlen(keys[1000]), UINT64_MAX);
    ck_assert_uint_eq(node->key_length, strlen(keys[1000]));
}
END_TEST

/* The hash table holds the newest version; older ones are found from there, or by the list where many are newer. */
START_TEST(any_version_of_a_key_that_is_written_often_is_found)
{
    for (uint64_t offset = 1; offset <= 1000; offset++) {
        put("counter", 7, 2 * offset, 0, NX_OP_PUT);
        put("other", 5, 2 * offset + 1, 0, NX_OP_PUT);
    }
    for (uint64_t offset = 2; offset <= 2001; offset++) {
        ck_assert_uint_eq(find("counter", offset)->offset, offset / 2 * 2);
    }
    ck_assert_ptr_null(find("counter", 1));
    ck_assert_ptr_null(find("other", 2));
}
END_TEST

START_TEST(keys_that_differ_behind_what_a_node_holds_of_them_are_different)
{
    char key[NX_SKIP_PREFIX + 8];

    for (uint64_t i = 0; i < 2000; i++) {
        snprintf(key, sizeof key, "sixteen-bytes---%04u", (unsigned)(i * 7919 % 2000));
        put(key, strlen(key), i + 1, 0, NX_OP_PUT);
    }
    for (uint64_t i = 0; i < 2000; i++) {
        snprintf(key, sizeof key, "sixteen-bytes---%04u", (unsigned)(i * 7919 % 2000));
        ck_assert_uint_eq(find(key, UINT64_MAX)->offset, i + 1);
    }
    ck_assert_ptr_null(find("sixteen-bytes---", UINT64_MAX));
    ck_assert_ptr_null(find("sixteen-bytes---2000", UINT64_MAX));
}
END_TEST

/* All that a walk meets. */
static void same_lists(struct nx_skip_pool *a, struct nx_skip_pool *b)
{
    const struct nx_skip_node *in_a = nx_skip_first(shm, a);
    const struct nx_skip_node *in_b = nx_skip_first(shm, b);

    while (in_a != NULL && in_b != NULL) {
        ck_assert_uint_eq(in_a->op_pos, in_b->op_pos);
        ck_assert_uint_eq(in_a->offset, in_b->offset);
        ck_assert_uint_eq(in_a->op_index, in_b->op_index);
        in_a = nx_skip_next(shm, a, in_a);
        in_b = nx_skip_next(shm, b, in_b);
    }
    ck_assert_ptr_null(in_a);
    ck_assert_ptr_null(in_b);
}

/* Few keys and full batches, so that a batch has a key several times, neighbours, and versions of what stands there. */
START_TEST(many_at_once_are_linked_as_one_by_one)
{
    struct nx_skip_pool *other = nx_skip_pool(shm, 2);
    struct nx_skip_version batch[NX_SKIP_BATCH];
    uint64_t newest[300] = {0};
    uint64_t offset = 0;
    size_t count = 0;
    uint32_t x = 12345;

    nx_skip_reset(shm, other);
    for (uint32_t i = 0; i < 6000; i++) {
        char key[24];

        x = x * 1103515245 + 12345;
        offset += i % 3 == 0 ? 1 : 0; /* entries of three operations */
        snprintf(key, sizeof key, "key-%u", x / 65536 % 300);
        newest[x / 65536 % 300] = offset;
        batch[count] = place(key, strlen(key), offset, i % 3, NX_OP_PUT);
        nx_skip_insert(shm, other, &batch[count], 1);
        if (++count > i / 7 % NX_SKIP_BATCH) {
            nx_skip_insert(shm, pool, batch, count);
            count = 0;
        }
    }
    nx_skip_insert(shm, pool, batch, count);
    same_lists(pool, other);
    for (unsigned k = 0; k < 300; k++) {
        char key[24];

        snprintf(key, sizeof key, "key-%u", k);
        ck_assert_uint_eq(find(key, UINT64_MAX)->offset, newest[k]);
    }
}
END_TEST

/* A pool that is used again knows nothing of what it held. */
START_TEST(a_reset_forgets)
{
    put("k", 1, 1, 0, NX_OP_PUT);
    nx_skip_reset(shm, pool);
    ck_assert_ptr_null(find("k", UINT64_MAX));
    ck_assert_ptr_null(nx_skip_first(shm, pool));
    put("l", 1, 2, 0, NX_OP_PUT);
    ck_assert_ptr_null(find("k", UINT64_MAX));
    ck_assert_uint_eq(find("l", UINT64_MAX)->offset, 2);
}
END_TEST

START_TEST(a_full_pool_says_so)
{
    ck_assert(nx_skip_has_room(shm, pool, 1));
    ck_assert(!nx_skip_has_room(shm, pool, shm->pool_size / sizeof(struct nx_skip_node) + 1));
}
END_TEST

/* A reader in a pool full of garbage (one that is being recycled) comes back. */
START_TEST(garbage_is_harmless)
{
    uint64_t x = 88172645463325252u;

    for (unsigned round = 0; round < 50; round++) {
        uint32_t *words = (uint32_t *)pool;

        for (size_t i = 0; i < shm->pool_size / sizeof *words; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            words[i] = (uint32_t)(x % (shm->pool_size / 8)); /* many are references that lead on */
        }
        (void)find("key-1", UINT64_MAX);
        (void)find("key-long-enough-to-compare", 17);
        (void)nx_skip_seek(shm, pool, (const uint8_t *)"key-long-enough-to-compare", 26, 17);
    }
}
END_TEST

static void *read_while_written(void *arg)
{
    nx_atomic_u64 *published = arg;
    uint64_t offset = 0;

    while (offset < 20000) {
        char key[24];

        offset = atomic_load_explicit(published, memory_order_acquire);
        if (offset == 0) {
            continue;
        }
        snprintf(key, sizeof key, "key-%llu", (unsigned long long)(offset % 97));
        const struct nx_skip_node *node = find(key, offset);

        if (node == NULL || node->offset != offset) {
            static char missing;

            return &missing;
        }
    }
    return NULL;
}

START_TEST(a_reader_beside_the_writer_misses_nothing_published)
{
    static nx_atomic_u64 published;
    pthread_t reader;
    void *failure;

    atomic_store_explicit(&published, 0, memory_order_relaxed);
    ck_assert_int_eq(pthread_create(&reader, NULL, read_while_written, &published), 0);
    for (uint64_t offset = 1; offset <= 20000; offset++) {
        char key[24];

        snprintf(key, sizeof key, "key-%llu", (unsigned long long)(offset % 97));
        put(key, strlen(key), offset, 0, NX_OP_PUT);
        atomic_store_explicit(&published, offset, memory_order_release);
    }
    pthread_join(reader, &failure);
    ck_assert_ptr_null(failure);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("skip_list");
    TCase *tcase = tcase_create("all");

    tcase_add_checked_fixture(tcase, setup, shm_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, a_reader_sees_the_newest_version_at_its_offset);
    tcase_add_test(tcase, the_last_operation_of_an_entry_wins);
    tcase_add_test(tcase, keys_that_differ_only_in_zero_bytes_or_length_are_different);
    tcase_add_test(tcase, a_walk_gives_all_keys_in_byte_order);
    tcase_add_test(tcase, any_version_of_a_key_that_is_written_often_is_found);
    tcase_add_test(tcase, keys_that_differ_behind_what_a_node_holds_of_them_are_different);
    tcase_add_test(tcase, many_at_once_are_linked_as_one_by_one);
    tcase_add_test(tcase, a_reset_forgets);
    tcase_add_test(tcase, a_full_pool_says_so);
    tcase_add_test(tcase, garbage_is_harmless);
    tcase_add_test(tcase, a_reader_beside_the_writer_misses_nothing_published);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);

    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);

    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
