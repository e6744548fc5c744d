/* Runs in the peers process. See verdict.h. */
#include "peers/verdict.h"

#include "common/order.h"
#include "common/sentence.h"
#include "peers/status.h"

#include <json-c/json_object.h>

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NAMED_MOST 4 /* peers of one kind named in a sentence; of the others the number */

/* ---- sentences ---- */

/* "10.0.0.1:15474 (no connection), 10.0.0.2:15474 (no answer within 1000 ms) and 3 more" */
static void say_peers(struct nx_sentence *sentence,
                      const struct nx_promotion *promotion,
                      enum nx_peer_answer answer)
{
    unsigned named = 0;

    for (unsigned i = 0; i < promotion->count; i++) {
        const struct nx_peer_fact *peer = &promotion->peers[i];

        if (peer->answer == answer && named++ < NAMED_MOST) {
            nx_say(sentence, "%s%s (%s)", named > 1 ? ", " : "", peer->addr, peer->why);
        }
    }
    if (named > NAMED_MOST) {
        nx_say(sentence, " and %u more", named - NAMED_MOST);
    }
}

/* ---- figures ---- */

static unsigned count_answers(const struct nx_promotion *promotion, enum nx_peer_answer answer)
{
    unsigned count = 0;

    for (unsigned i = 0; i < promotion->count; i++) {
        count += promotion->peers[i].answer == answer ? 1 : 0;
    }
    return count;
}

/* All other nodes, of which one is, or was, the master: as many as there are replicas. */
static unsigned replicas(const struct nx_promotion *promotion)
{
    return promotion->count - count_answers(promotion, NX_PEER_SELF);
}

/* Positions that must be known, our own included. */
unsigned nx_promotion_needed(const struct nx_promotion *promotion)
{
    unsigned all = replicas(promotion);

    return all >= promotion->quorum ? all - promotion->quorum + 1 : 1;
}

static unsigned seen(const struct nx_promotion *promotion)
{
    return count_answers(promotion, NX_PEER_PROMISES) + 1;
}

uint64_t nx_promotion_highest_epoch(const struct nx_promotion *promotion)
{
    uint64_t highest = promotion->master_epoch;

    for (unsigned i = 0; i < promotion->count; i++) {
        const struct nx_peer_fact *peer = &promotion->peers[i];

        if (peer->answer == NX_PEER_REFUSES || peer->answer == NX_PEER_PROMISES) {
            highest = peer->epoch > highest ? peer->epoch : highest;
            highest =
                peer->placed && peer->position.epoch > highest ? peer->position.epoch : highest;
        }
    }
    return highest;
}

/* A master that still leads in our epoch is ahead as a rule: that is told as missing entries. One that leads in a later
 * epoch than our log's is the outcome of another promotion: this one would undo it. */
const struct nx_peer_fact *nx_promotion_ahead(const struct nx_promotion *promotion)
{
    const struct nx_peer_fact *ahead = NULL;

    for (unsigned i = 0; i < promotion->count; i++) {
        const struct nx_peer_fact *peer = &promotion->peers[i];
        bool ours = peer->leads && peer->position.epoch <= promotion->ours.epoch;
        bool counts = peer->placed && !ours &&
                      (peer->answer == NX_PEER_PROMISES || peer->answer == NX_PEER_REFUSES);

        if (counts && nx_position_compare(&peer->position, &promotion->ours) > 0 &&
            (ahead == NULL || nx_position_compare(&peer->position, &ahead->position) > 0)) {
            ahead = peer;
        }
    }
    return ahead;
}

/* The highest offset that is known of anybody. */
static uint64_t highest_offset(const struct nx_promotion *promotion)
{
    uint64_t highest =
        nx_higher(promotion->master_offset, nx_higher(promotion->sync_goal, promotion->first_goal));

    for (unsigned i = 0; i < promotion->count; i++) {
        const struct nx_peer_fact *peer = &promotion->peers[i];

        if (peer->placed && nx_position_compare(&peer->position, &promotion->ours) > 0 &&
            peer->position.offset > highest) {
            highest = peer->position.offset;
        }
    }
    return highest;
}

static uint64_t missing(const struct nx_promotion *promotion)
{
    uint64_t highest = highest_offset(promotion);

    return highest > promotion->ours.offset ? highest - promotion->ours.offset : 0;
}

/* Nobody knows what the master has done since this node's start: it may have confirmed by itself, in async mode. */
static bool is_unheard(const struct nx_promotion *promotion)
{
    return !promotion->welcomed && count_answers(promotion, NX_PEER_UNREACHED) > 0;
}

static bool loss_possible(const struct nx_promotion *promotion)
{
    return promotion->sync &&
           (replicas(promotion) == 0 || seen(promotion) < nx_promotion_needed(promotion) ||
            nx_promotion_ahead(promotion) != NULL || promotion->sync_goal > 0 ||
            promotion->first_goal > 0 || is_unheard(promotion));
}

/* ---- the rules ---- */

static void say_ahead(struct nx_sentence *sentence,
                      const struct nx_promotion *promotion,
                      const struct nx_peer_fact *ahead)
{
    nx_say(sentence,
           "Node %s at %s has offset %" PRIu64 " of epoch %" PRIu64 ", this node only %" PRIu64
           " of epoch %" PRIu64 ".",
           ahead->node_id[0] == '\0' ? "(unknown)" : ahead->node_id, ahead->addr,
           ahead->position.offset, ahead->position.epoch, promotion->ours.offset,
           promotion->ours.epoch);
}

static void say_quorum(struct nx_sentence *sentence, const struct nx_promotion *promotion)
{
    nx_say(sentence,
           "In sync mode %u positions of %u replicas must be known, this node's own included "
           "(sync_quorum %u), and only %u %s.",
           nx_promotion_needed(promotion), replicas(promotion), promotion->quorum, seen(promotion),
           seen(promotion) == 1 ? "is" : "are");
    if (count_answers(promotion, NX_PEER_UNREACHED) > 0) {
        nx_say(sentence, " Not reached: ");
        say_peers(sentence, promotion, NX_PEER_UNREACHED);
        nx_say(sentence, ".");
    }
    if (count_answers(promotion, NX_PEER_REFUSES) > 0) {
        nx_say(sentence, " Not promised: ");
        say_peers(sentence, promotion, NX_PEER_REFUSES);
        nx_say(sentence, ".");
    }
}

/* The rule that forbids it, in a sentence: its code, or NULL. */
static const char *find_broken(const struct nx_promotion *promotion,
                               struct nx_sentence *sentence,
                               const char **ret_advice)
{
    const struct nx_peer_fact *ahead = nx_promotion_ahead(promotion);

    if (ahead != NULL) {
        say_ahead(sentence, promotion, ahead);
        *ret_advice =
            "Promote that one, or let it follow a master first where it is refused because its full "
            "sync is not complete; or promote this one by force (?force=1, nexus-ctl promote "
            "--force), and what only the other has is lost.";
        return "not_most_advanced";
    }
    if (promotion->sync_goal > 0) {
        nx_say(sentence,
               "This node's last full sync is not complete: it has offset %" PRIu64
               ", and had %" PRIu64 " of this history before.",
               promotion->ours.offset, promotion->sync_goal);
        *ret_advice = "Let it follow a master until it has, or promote another one; or this one by "
                      "force (?force=1, nexus-ctl promote --force), and what it lacks is lost.";
        return "not_most_advanced";
    }
    if (promotion->first_goal > 0) { /* without force it wouldn't have come so far */
        nx_say(sentence,
               "This replica was never synced with its master: it has offset %" PRIu64
               ", and that had %" PRIu64 ".",
               promotion->ours.offset, promotion->first_goal);
        return "wrong_role";
    }
    if (promotion->sync && replicas(promotion) > 0 &&
        seen(promotion) < nx_promotion_needed(promotion)) {
        say_quorum(sentence, promotion);
        *ret_advice =
            "Have more of them answer; or promote by force (?force=1, nexus-ctl promote --force), "
            "and confirmed writes may be lost.";
        return "quorum_not_seen";
    }
    return NULL;
}

/* ---- the answer ---- */

__attribute__((format(printf, 2, 3))) static void warn(struct json_object *warnings,
                                                       const char *format,
                                                       ...)
{
    char text[1280];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)json_object_array_add(warnings, json_object_new_string(text));
}

static void warn_of_peers(struct json_object *warnings, const struct nx_promotion *promotion)
{
    char names[1024];
    struct nx_sentence sentence = nx_sentence_in(names, sizeof names);

    if (replicas(promotion) == 0) {
        warn(warnings, "replication.peers is empty: nobody could be asked whether another node has "
                       "more than this one.");
    }
    if (count_answers(promotion, NX_PEER_UNREACHED) > 0) {
        say_peers(&sentence, promotion, NX_PEER_UNREACHED);
        warn(warnings, "Not reached: %s. Nothing is known of what is there.", names);
    }
    sentence = nx_sentence_in(names, sizeof names);
    if (count_answers(promotion, NX_PEER_REFUSES) > 0) {
        say_peers(&sentence, promotion, NX_PEER_REFUSES);
        warn(warnings, "Not promised: %s. Another master may still be followed there.", names);
    }
}

static struct json_object *warnings_of(const struct nx_promotion *promotion, const char *broken)
{
    struct json_object *warnings = json_object_new_array();

    if (promotion->master_answers) {
        warn(warnings,
             "The master at %s still answers: stop it first, or clients may go on writing there "
             "until it is fenced.",
             promotion->master_addr);
    }
    if (broken[0] != '\0') {
        warn(warnings, "By force although a rule forbids it: %s", broken);
    }
    if (missing(promotion) > 0) {
        warn(warnings,
             "%" PRIu64 " %s missing here: offset %" PRIu64
             " is known of another node, this one has %" PRIu64 ".",
             missing(promotion), missing(promotion) == 1 ? "entry is" : "entries are",
             highest_offset(promotion), promotion->ours.offset);
    }
    if (promotion->becomes_async) {
        warn(warnings,
             "This node's own replication.mode is async while the cluster ran in sync mode: writes "
             "are no longer confirmed by replicas until it is sync here and the node restarted.");
    }
    if (promotion->sync && is_unheard(promotion)) {
        warn(warnings, "The master was not heard since this node's start: what it has answered "
                       "since in async mode, or with Nexus-Durability: local, is lost.");
    }
    if (promotion->confirms) {
        warn(warnings,
             "In sync mode writes wait until %u replica%s this node: have the others follow it "
             "(nexus-ctl follow HOST:PORT there).",
             promotion->quorum, promotion->quorum == 1 ? " follows" : "s follow");
    }
    warn_of_peers(warnings, promotion);
    return warnings;
}

static struct json_object *unreached_of(const struct nx_promotion *promotion)
{
    struct json_object *unreached = json_object_new_array();

    for (unsigned i = 0; i < promotion->count; i++) {
        if (promotion->peers[i].answer == NX_PEER_UNREACHED) {
            (void)json_object_array_add(unreached,
                                        json_object_new_string(promotion->peers[i].addr));
        }
    }
    return unreached;
}

static struct json_object *silence_of(const struct nx_promotion *promotion)
{
    uint64_t ms = promotion->master_silent_ms;
    char text[32];

    if (!promotion->master_heard) {
        return NULL; /* null */
    }
    (void)snprintf(text, sizeof text, "%" PRIu64 ".%03u", ms / 1000, (unsigned)(ms % 1000));
    return json_object_new_double_s((double)ms / 1000, text);
}

/* Takes the last member off; false: it is empty. */
static bool cut_last(struct json_object *array)
{
    size_t length = json_object_array_length(array);

    return length > 0 && json_object_array_del_idx(array, length - 1, 1) == 0;
}

/* The members alone, without braces; lists lose their ends until it fits. */
static void put_members(struct json_object *object,
                        struct json_object *unreached,
                        struct json_object *warnings,
                        char text[NX_CONTROL_TEXT])
{
    size_t length;
    const char *whole;

    do {
        whole = json_object_to_json_string_length(
            object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &length);
    } while (length - 2 > NX_VERDICT_TEXT && (cut_last(unreached) || cut_last(warnings)));
    (void)snprintf(text, NX_CONTROL_TEXT, "%.*s", (int)length - 2, whole + 1);
}

static void put_answer(const struct nx_promotion *promotion,
                       const char *broken,
                       char text[NX_CONTROL_TEXT])
{
    struct json_object *object = json_object_new_object();
    struct json_object *unreached = unreached_of(promotion);
    struct json_object *warnings = warnings_of(promotion, broken);

    (void)json_object_object_add(object, "missing_entries",
                                 json_object_new_uint64(missing(promotion)));
    (void)json_object_object_add(object, "master_seconds_ago", silence_of(promotion));
    (void)json_object_object_add(object, "master_answers",
                                 json_object_new_boolean(promotion->master_answers));
    (void)json_object_object_add(object, "unreached_peers", unreached);
    (void)json_object_object_add(object, "sync_loss_possible",
                                 json_object_new_boolean(loss_possible(promotion)));
    (void)json_object_object_add(object, "warnings", warnings);
    put_members(object, unreached, warnings, text);
    json_object_put(object);
}

void nx_promotion_judge(const struct nx_promotion *promotion,
                        struct nx_promotion_verdict *ret_verdict)
{
    struct nx_sentence sentence = nx_sentence_in(ret_verdict->broken, sizeof ret_verdict->broken);
    const char *advice = "";
    const char *code = find_broken(promotion, &sentence, &advice);

    ret_verdict->forced = code != NULL && promotion->force;
    if (code == NULL || promotion->force) {
        ret_verdict->status = 0;
        put_answer(promotion, ret_verdict->broken, ret_verdict->text);
    } else {
        ret_verdict->status = -ECANCELED;
        (void)snprintf(ret_verdict->text, sizeof ret_verdict->text, "%s %s %s", code,
                       ret_verdict->broken, advice);
    }
}
