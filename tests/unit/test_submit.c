/* tsan */
/* Submission and completion rings: whole, in pieces, full, across a producer's death, between threads. */
#include "common/bytes.h"
#include "common/submit.h"
#include "shm_fixture.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static struct nx_producer producer;
static struct nx_consumer consumer;

/* A process begins on the rings, as the postmaster and it do. */
static void begin_producer(uint32_t generation)
{
    struct nx_slot *slot = &shm->slots[nx_producer_slot(2)];

    atomic_store_explicit(&slot->generation, generation, memory_order_release);
    nx_producer_attach(&producer, shm, 2, generation);
}

static void setup(void)
{
    shm_setup();
    begin_producer(1);
    nx_consumer_attach(&consumer, shm, 2);
}

static int submit(uint64_t ticket, const void *body, size_t length)
{
    struct nx_submission s = {.kind = NX_SUBMIT_WRITE,
                              .ticket = ticket,
                              .body = body,
                              .body_length = length,
                              .op_count = 1};
    size_t progress = 0;

    return nx_submit(&producer, &s, &progress);
}

static void post(uint64_t ticket, uint32_t generation)
{
    struct nx_completion c = {.ticket = ticket, .generation = generation};

    nx_completion_post(&consumer, &c);
}

START_TEST(a_submission_arrives_as_it_was_sent)
{
    struct nx_received r;

    ck_assert_int_eq(submit(77, "hello", 5), 0);
    ck_assert_int_eq(nx_consumer_next(&consumer, &r), 1);
    ck_assert_uint_eq(r.ticket, 77);
    ck_assert_uint_eq(r.body_length, 5);
    ck_assert_mem_eq(r.body, "hello", 5);
    nx_consumer_release(&consumer);
    ck_assert_int_eq(nx_consumer_next(&consumer, &r), 0);
}
END_TEST

START_TEST(what_is_not_released_is_given_again)
{
    struct nx_received r;

    ck_assert_int_eq(submit(1, "x", 1), 0);
    ck_assert_int_eq(nx_consumer_next(&consumer, &r), 1);
    ck_assert_int_eq(nx_consumer_next(&consumer, &r), 1);
    ck_assert_uint_eq(r.ticket, 1);
}
END_TEST

START_TEST(a_full_ring_says_try_again_and_loses_nothing)
{
    static uint8_t body[3000];
    uint64_t sent = 0;
    uint64_t seen = 0;
    bool room_seen = false;
    struct nx_received r;

    while (seen < 2000) {
        body[0] = (uint8_t)sent;
        if (sent < 2000 && submit(sent, body, sizeof body) == 0) {
            sent++;
            continue;
        }
        ck_assert(!nx_submit_possible(&producer));
        ck_assert_int_eq(nx_consumer_next(&consumer, &r), 1);
        ck_assert_uint_eq(r.ticket, seen);
        ck_assert_uint_eq(r.body[0], (uint8_t)seen);
        nx_consumer_release(&consumer);
        room_seen = room_seen || nx_submit_possible(&producer);
        post(seen, 1);
        seen++;
        struct nx_completion c;

        ck_assert(nx_completion_next(&producer, &c));
    }
    ck_assert(room_seen);
}
END_TEST

START_TEST(open_submissions_never_exceed_the_completion_places)
{
    uint64_t accepted = 0;
    struct nx_received r;

    while (submit(accepted, "x", 1) == 0) {
        accepted++;
        ck_assert_int_eq(nx_consumer_next(&consumer, &r), 1);
        nx_consumer_release(&consumer);
    }
    ck_assert_uint_eq(accepted, shm->completion_count - 1);
}
END_TEST

/* Submits in as many calls as the ring needs while the other side assembles. */
static void submit_large(uint64_t ticket, const uint8_t *body, size_t length)
{
    uint8_t condition[64];
    uint8_t version[8];
    struct nx_received r;
    size_t progress = 0;
    int got = 0;

    nx_store_u64(version, 5);
    struct nx_condition c = {NX_CONDITION_ANY_OF, (const uint8_t *)"key", 3, version, 1};
    struct nx_submission s = {.kind = NX_SUBMIT_WRITE,
                              .ticket = ticket,
                              .conditions = condition,
                              .conditions_length = nx_condition_encode(condition, &c),
                              .condition_count = 1,
                              .body = body,
                              .body_length = length,
                              .op_count = 1};

    while (nx_submit(&producer, &s, &progress) == -EAGAIN) {
        ck_assert_int_ge(nx_consumer_next(&consumer, &r), 0);
    }
    while ((got = nx_consumer_next(&consumer, &r)) == 0) {
        ck_assert(nx_consumer_waiting(&consumer));
    }
    ck_assert_int_eq(got, 1);
    ck_assert_uint_eq(r.body_length, length);
    ck_assert_mem_eq(r.body, body, length);

    const uint8_t *at = r.conditions;
    size_t left = r.conditions_length;
    struct nx_condition back;

    ck_assert_int_eq(nx_condition_decode(&at, &left, &back), 0);
    ck_assert_uint_eq(left, 0);
    ck_assert_mem_eq(back.key, "key", 3);
    ck_assert_uint_eq(nx_load_u64(back.versions), 5);
    nx_consumer_release(&consumer);
}

START_TEST(a_large_submission_goes_in_pieces)
{
    size_t length = (size_t)15 << 20;
    uint8_t *body = malloc(length);

    for (size_t i = 0; i < length; i++) {
        body[i] = (uint8_t)(i * 31);
    }
    submit_large(1, body, length);
    submit_large(2, body, length / 3);
    free(body);
}
END_TEST

START_TEST(a_successor_goes_on_and_the_dead_ones_pieces_are_forgotten)
{
    size_t length = (size_t)shm->submit_size;
    uint8_t *body = calloc(1, length);
    struct nx_submission s = {
        .kind = NX_SUBMIT_WRITE, .ticket = 1, .body = body, .body_length = length, .op_count = 1};
    struct nx_received r;
    struct nx_completion c;
    size_t progress = 0;

    ck_assert_int_eq(nx_submit(&producer, &s, &progress), -EAGAIN); /* killed half-way */
    post(1, 1);
    begin_producer(2);
    ck_assert_int_eq(nx_consumer_next(&consumer, &r), 0);
    ck_assert_int_eq(submit(9, "new", 3), 0);
    ck_assert_int_eq(nx_consumer_next(&consumer, &r), 1);
    ck_assert_uint_eq(r.ticket, 9);
    ck_assert_uint_eq(r.generation, 2);
    nx_consumer_release(&consumer);
    post(9, 2);
    ck_assert(nx_completion_next(&producer, &c));
    ck_assert_uint_eq(c.ticket, 9); /* the answer of generation 1 was dropped */
    free(body);
}
END_TEST

/* Submits as many as there are places, which the consumer takes. The number of them. */
static uint64_t submit_all(void)
{
    struct nx_received r;
    uint64_t count = 0;

    while (submit(count, "x", 1) == 0) {
        count++;
        ck_assert_int_eq(nx_consumer_next(&consumer, &r), 1);
        nx_consumer_release(&consumer);
    }
    return count;
}

START_TEST(answers_to_the_dead_take_no_place_from_its_successor)
{
    uint64_t old = submit_all();
    struct nx_completion c;

    post(0, 1); /* answered before the death, never read */
    begin_producer(2);
    uint64_t fresh = submit_all();

    for (uint64_t i = 1; i < old; i++) {
        post(i, 1);
    }
    for (uint64_t i = 0; i < fresh; i++) {
        post(i, 2);
    }
    for (uint64_t i = 0; i < fresh; i++) {
        ck_assert(nx_completion_next(&producer, &c));
        ck_assert_uint_eq(c.ticket, i);
    }
    ck_assert(!nx_completion_next(&producer, &c));
    ck_assert_uint_eq(producer.open, 0);
}
END_TEST

START_TEST(malformed_conditions_are_refused)
{
    uint8_t bytes[32] = {0};
    const uint8_t *at = bytes;
    size_t left = sizeof bytes;
    struct nx_condition c;

    ck_assert_int_eq(nx_condition_decode(&at, &left, &c), -EBADMSG); /* kind 0 */
    bytes[0] = NX_CONDITION_ANY_OF;
    nx_store_u32(bytes + 4, UINT32_MAX);
    ck_assert_int_eq(nx_condition_decode(&at, &left, &c), -EBADMSG);
    nx_store_u32(bytes + 4, 1);
    nx_store_u16(bytes + 2, 100);
    ck_assert_int_eq(nx_condition_decode(&at, &left, &c), -EBADMSG);
    left = 7;
    ck_assert_int_eq(nx_condition_decode(&at, &left, &c), -EBADMSG);
}
END_TEST

#define THREAD_COUNT 20000u

static void *consume_all(void *arg)
{
    (void)arg;
    for (uint64_t expected = 0; expected < THREAD_COUNT;) {
        struct nx_received r;

        if (nx_consumer_next(&consumer, &r) == 1) {
            if (r.ticket != expected || r.body_length != expected % 900 + 1) {
                static char out_of_order;

                return &out_of_order;
            }
            nx_consumer_release(&consumer);
            post(expected, 1);
            expected++;
        }
    }
    return NULL;
}

START_TEST(the_rings_work_between_threads)
{
    static uint8_t body[1000];
    pthread_t thread;
    void *failure;
    uint64_t sent = 0;
    uint64_t answered = 0;

    ck_assert_int_eq(pthread_create(&thread, NULL, consume_all, NULL), 0);
    while (answered < THREAD_COUNT) {
        struct nx_completion c;

        if (sent < THREAD_COUNT && submit(sent, body, sent % 900 + 1) == 0) {
            sent++;
        }
        while (nx_completion_next(&producer, &c)) {
            ck_assert_uint_eq(c.ticket, answered);
            answered++;
        }
    }
    pthread_join(thread, &failure);
    ck_assert_ptr_null(failure);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("submit");
    TCase *tcase = tcase_create("all");

    tcase_add_checked_fixture(tcase, setup, shm_teardown);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, a_submission_arrives_as_it_was_sent);
    tcase_add_test(tcase, what_is_not_released_is_given_again);
    tcase_add_test(tcase, a_full_ring_says_try_again_and_loses_nothing);
    tcase_add_test(tcase, open_submissions_never_exceed_the_completion_places);
    tcase_add_test(tcase, a_large_submission_goes_in_pieces);
    tcase_add_test(tcase, a_successor_goes_on_and_the_dead_ones_pieces_are_forgotten);
    tcase_add_test(tcase, answers_to_the_dead_take_no_place_from_its_successor);
    tcase_add_test(tcase, malformed_conditions_are_refused);
    tcase_add_test(tcase, the_rings_work_between_threads);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);

    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);

    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
