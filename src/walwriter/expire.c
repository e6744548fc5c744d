/* Runs in the walwriter. See expire.h. The deletions of one entry are judged, encoded and appended in one go, like a
 * client's write: room first, so that the judgment holds at the moment of the append. */
#include "walwriter/expire.h"

#include "common/fence.h"
#include "common/latch.h"
#include "common/log.h"
#include "common/log_clock.h"
#include "common/quorum.h"
#include "common/skip_list.h"
#include "walwriter/walwriter.h"

#include <errno.h>

/* Keys in one entry, one entry a group: with clients' writes beside it few, so that these cost them little; the later
 * they are, the more. Batches of thousands that expire at once take longer to go than they took to come. */
#define KEYS_RIDING  16u
#define KEYS_OWN     64u /* in a group of its own */
#define KEYS_MOST    256u
#define LATE_PER_KEY 4 /* ms */

/* What is due waits a moment for more, so that keys which expire one by one share an entry: nobody sees it. */
#define GATHER_MS 10

#define OWN_PAUSE_US 2000    /* between groups of its own: the disk is the clients' first */
#define ROOM_US      20000   /* when the log had no room */
#define QUORUM_US    5000000 /* when the quorum is far behind */
#define RETRY_US     1000000 /* when the disk had none, or the state could not be read */
#define LOOKS_MOST   1024 /* versions looked at in one go, most of which may be replaced already */
#define OPS_BYTES    (16u << 10)

/* Of a generation's bytes: with more logged that isn't in the quorum, that must catch up first. */
#define QUORUM_PART 8

static_assert(OPS_BYTES >= NX_OP_HEADER + NX_MAX_KEY, "an entry holds one deletion at least");

/* ---- what is due ---- */

/* Of all heaps the one with the earliest version, or NULL. */
static struct expiry_heap *earliest(struct walwriter *w)
{
    struct expiry_heap *found = NULL;

    for (unsigned i = 0; i < NX_GENERATIONS; i++) {
        struct expiry_heap *heap = &w->expire.heaps[i];

        if (heap->count > 0 && (found == NULL || nx_expiry_heap_top(heap)->expires_at <
                                                     nx_expiry_heap_top(found)->expires_at)) {
            found = heap;
        }
    }
    return found;
}

/* When the next version expires, by the log clock; 0: not known; UINT64_MAX: never. */
static uint64_t next_ms(const struct walwriter *w)
{
    uint64_t due = w->expire.state_due_ms;

    for (unsigned i = 0; i < NX_GENERATIONS; i++) {
        const struct expiry_item *top = nx_expiry_heap_top(&w->expire.heaps[i]);

        due = top != NULL && top->expires_at < due ? top->expires_at : due;
    }
    return due;
}

/* When it is to be deleted. */
static uint64_t due_ms(const struct walwriter *w)
{
    uint64_t next = next_ms(w);

    return next == 0 || next >= UINT64_MAX - GATHER_MS ? next : next + GATHER_MS;
}

/* Only who leads deletes, and not while that leaves the quorum further behind. */
static bool leads(const struct walwriter *w)
{
    struct nx_shm *shm = w->shm;

    return atomic_load_explicit(&shm->control.role, memory_order_relaxed) != NX_NODE_REPLICA &&
           atomic_load_explicit(&shm->control.phase, memory_order_relaxed) == NX_PHASE_SERVING &&
           !nx_fenced(shm);
}

static bool quorum_keeps_up(const struct walwriter *w)
{
    uint64_t behind = nx_log_bytes_between(w->shm, nx_committed_offset(w->shm), w->group_first - 1);

    return nx_quorum_confirmed(w->shm) && behind <= w->shm->generation_bytes / QUORUM_PART;
}

bool nx_expire_due(const struct walwriter *w)
{
    uint64_t due = due_ms(w);

    return due != UINT64_MAX && !w->has_held && leads(w) && due <= nx_log_clock_ms(w->shm) &&
           nx_now_us() >= w->expire.not_before_us;
}

int nx_expire_wait(const struct walwriter *w)
{
    uint64_t due = due_ms(w);
    uint64_t clock = nx_log_clock_ms(w->shm);
    uint64_t now = nx_now_us();
    uint64_t wait;

    if (due == UINT64_MAX || w->has_held || !leads(w)) {
        return -1;
    }
    wait = due > clock ? due - clock : 0;
    if (wait == 0 && now < w->expire.not_before_us) {
        wait = (w->expire.not_before_us - now) / 1000 + 1;
    }
    return wait < INT32_MAX ? (int)wait : INT32_MAX;
}

/* ---- keeping account ---- */

void nx_expire_note(struct walwriter *w, uint64_t expires_at, uint64_t op_pos)
{
    size_t i = w->generation % NX_GENERATIONS;
    struct expiry_item item = {expires_at, op_pos};

    if (nx_expiry_heap_push(&w->expire.heaps[i], &item) < 0) {
        w->expire.lost[i] = true;
    }
}

void nx_expire_begin(struct walwriter *w, uint64_t number)
{
    size_t i = number % NX_GENERATIONS;

    nx_expiry_heap_free(&w->expire.heaps[i]);
    w->expire.lost[i] = false;
}

void nx_expire_freed(struct walwriter *w, uint64_t number)
{
    size_t i = number % NX_GENERATIONS;
    struct expire *expire = &w->expire;
    const struct expiry_item *top = nx_expiry_heap_top(&expire->heaps[i]);
    uint64_t earliest_ms = expire->lost[i] ? 0 : top != NULL ? top->expires_at : UINT64_MAX;

    /* Its versions have rows in the state's index now, some perhaps where that was passed already. */
    if (earliest_ms <= expire->passed.expires_at) {
        expire->passed = (struct nx_expiring){.expires_at = earliest_ms};
    }
    if (earliest_ms != UINT64_MAX) {
        expire->state_due_ms = 0;
    }
    nx_expire_begin(w, number);
}

void nx_expire_end(struct walwriter *w)
{
    for (unsigned i = 0; i < NX_GENERATIONS; i++) {
        nx_expire_begin(w, i);
    }
}

/* ---- gathering ---- */

struct gathering {
    struct walwriter *w;
    struct nx_writer ops;
    uint32_t count;
    uint32_t most;
    uint64_t clock_ms;
    unsigned looked; /* at so many versions, whether they stand or not */
    int rc;
};

static bool full(const struct gathering *g)
{
    return g->looked == LOOKS_MOST || g->count == g->most ||
           g->ops.cap - g->ops.used < NX_OP_HEADER + NX_MAX_KEY;
}

static void add(struct gathering *g, struct nx_slice key)
{
    struct nx_op op = {.kind = NX_OP_DELETE, .flags = NX_OP_EXPIRED, .key = key};

    if (nx_op_encode(&g->ops, &op) == 0) {
        g->count++;
    }
}

/* A heap's version, if it is still its key's newest. */
static void take_item(struct gathering *g, const struct expiry_item *item)
{
    struct walwriter *w = g->w;
    const struct nx_skip_node *node;
    struct nx_op op;

    if (nx_lookup_op(w, item->op_pos, &op) < 0) {
        return;
    }
    node = nx_lookup_node(w, op.key);
    if (node != NULL && node->op_pos == item->op_pos) {
        add(g, op.key);
    }
}

/* True when a heap holds more that is due. */
static bool gather_from_heaps(struct gathering *g)
{
    struct expiry_heap *heap;

    while ((heap = earliest(g->w)) != NULL && nx_expiry_heap_top(heap)->expires_at <= g->clock_ms) {
        if (full(g)) {
            return true;
        }
        g->looked++;
        take_item(g, nx_expiry_heap_top(heap));
        nx_expiry_heap_pop(heap);
    }
    return false;
}

/* Whether a row's version is its key's newest: no generation has the key, and the state has this version of it. */
static bool row_stands(struct gathering *g, const struct nx_expiring *row)
{
    struct nx_record record;

    if (nx_lookup_node(g->w, nx_slice_of(row->key, row->key_length)) != NULL) {
        return false;
    }
    int rc = nx_state_peek(g->w->state, row->key, row->key_length, &record);

    return rc == 0 && record.offset == row->offset && record.expires_at == row->expires_at &&
           record.op_index == row->op_index;
}

static int take_row(void *arg, const struct nx_expiring *row)
{
    struct gathering *g = arg;
    struct expire *expire = &g->w->expire;

    expire->state_due_ms = row->expires_at;
    if (row->expires_at > g->clock_ms || full(g)) {
        return 1;
    }
    g->looked++;
    if (row_stands(g, row)) {
        add(g, nx_slice_of(row->key, row->key_length));
    }
    expire->passed = *row;
    expire->passed.key = NULL;
    expire->passed.op_index++; /* right behind it */
    expire->state_due_ms = UINT64_MAX;
    return 0;
}

static void gather_from_state(struct gathering *g)
{
    struct expire *expire = &g->w->expire;

    if (expire->state_due_ms > g->clock_ms) {
        return;
    }
    g->rc = nx_lookup_begin(g->w);
    if (g->rc == 0) {
        expire->state_due_ms = UINT64_MAX; /* unless a row says otherwise */
        g->rc = nx_state_expiring(g->w->state, &expire->passed, take_row, g);
    }
    if (g->rc < 0) {
        expire->state_due_ms = 0;
    }
}

/* ---- the step ---- */

static uint32_t keys_now(const struct walwriter *w, uint64_t clock_ms)
{
    uint64_t next = next_ms(w);
    uint64_t late = next == 0 || next > clock_ms ? 0 : (clock_ms - next) / LATE_PER_KEY;
    uint64_t keys = late + (w->answer_count > 0 ? KEYS_RIDING : KEYS_OWN);

    return keys < KEYS_MOST ? (uint32_t)keys : KEYS_MOST;
}

static void put_off(struct walwriter *w, uint64_t us)
{
    w->expire.not_before_us = nx_now_us() + us;
}

/* Room for an entry behind what the group holds; NULL: none now. *ret_rc: the process must die. */
static uint8_t *make_room(struct walwriter *w, uint32_t keys, uint64_t *ret_pos, int *ret_rc)
{
    size_t length = nx_entry_frame_size(OPS_BYTES);
    uint8_t *frame = nx_room_make(w, length, keys, ret_pos);

    if (frame == NULL || !nx_group_fits(w, length)) {
        return NULL;
    }
    if (nx_wal_file_fits(w, length)) {
        return frame;
    }
    if (w->group_first <= w->log.newest) {
        return NULL; /* in the next group, which begins a segment */
    }
    int rc = nx_wal_file_switch(w, length);

    if (rc == -ENOSPC) {
        put_off(w, RETRY_US);
        rc = 0;
        frame = NULL;
    }
    *ret_rc = rc;
    return rc < 0 ? NULL : frame;
}

static void gather(struct gathering *g)
{
    static struct nx_log_limit unreadable;

    /* In turns, so that neither waits for ever behind the other. */
    if (g->w->expire.state_first) {
        gather_from_state(g);
    }
    if (!gather_from_heaps(g) && !g->w->expire.state_first) {
        gather_from_state(g);
    }
    g->w->expire.state_first = !g->w->expire.state_first;
    if (g->rc < 0) {
        nx_log_limited(
            &unreadable, NX_LOG_ERROR,
            "what has expired can't be looked up in %s/state: %s; it is not served, and deleted "
            "later",
            g->w->process->state_root, strerrordesc_np(-g->rc));
        put_off(g->w, RETRY_US);
    }
}

int nx_expire_step(struct walwriter *w)
{
    bool riding = w->answer_count > 0;
    int rc = 0;
    uint64_t pos;

    if (!nx_expire_due(w)) {
        return 0;
    }
    if (!quorum_keeps_up(w)) {
        put_off(w, QUORUM_US);
        return 0;
    }
    uint64_t clock_ms = nx_group_stamp(w) / 1000;
    uint32_t keys = keys_now(w, clock_ms);
    uint8_t *frame = make_room(w, keys, &pos, &rc);

    if (frame == NULL) {
        if (!riding && w->expire.not_before_us <= nx_now_us()) {
            put_off(w, ROOM_US);
        }
        return rc;
    }
    struct gathering g = {
        .w = w,
        .ops = nx_writer_of(frame + NX_ENTRY_HEADER_SIZE, OPS_BYTES),
        .most = keys,
        .clock_ms = clock_ms,
    };

    gather(&g);
    nx_lookup_end(w);
    if (g.count > 0) {
        nx_group_append_ops(w, frame, pos, g.ops.used, g.count);
    }
    if (!riding && keys < KEYS_MOST && g.rc == 0) {
        put_off(w, OWN_PAUSE_US);
    }
    return 0;
}
