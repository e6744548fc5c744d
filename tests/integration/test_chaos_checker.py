"""The chaos harness' own judgment (tests/chaos/checker.py): a history that is right is accepted, and each way to break
one is found."""

import dataclasses
import os
import random
import sys
import unittest

from nexus_test import SOURCE_DIR

sys.path.append(os.path.join(SOURCE_DIR, "tests", "chaos"))

import checker  # noqa: E402
from history import CAS, DELETE, FAIL, OK, PAIR, PAIR_READ, READ, SET, STALE_READ, UNKNOWN, WRITE, Op  # noqa: E402
from linearizable import REFUSED_CAS, search  # noqa: E402

KEYS = ["r0", "r1", "r2"]


@dataclasses.dataclass
class Entry:
    offset: int
    epoch: int
    changes: list


class Model:
    """A right history of several clients: each operation takes effect at a moment between its beginning and its end."""

    def __init__(self, seed, count=600, clients=5):
        self.rng = random.Random(seed)
        self.ops, self.entries, self.state = [], [], {}
        self.number = 0
        free = [0.0] * clients
        moments = []
        for _ in range(count):
            client = self.rng.randrange(clients)
            t0 = free[client] + self.rng.expovariate(50)
            t1 = t0 + self.rng.expovariate(20)
            free[client] = t1
            moments.append((self.rng.uniform(t0, t1), t0, t1, client))
        for _, t0, t1, client in sorted(moments):
            self.step(f"c{client}", t0, t1)

    def put(self, op, changes):
        self.entries.append(Entry(len(self.entries) + 1, 1, changes))
        self.state.update(changes)
        op.offset, op.epoch = len(self.entries), 1

    def step(self, client, t0, t1):
        kind = self.rng.choice((WRITE, WRITE, CAS, DELETE, READ, READ, SET, PAIR, PAIR_READ, STALE_READ))
        key = self.rng.choice(KEYS)
        self.number += 1
        op = Op(client, "n", kind, key, f"v{self.number}", t0=t0, t1=t1, result=OK)
        if kind == SET:
            op.key = f"s{self.number}"
        if kind in (WRITE, SET):
            self.put(op, [(op.key, op.value)])
        elif kind == CAS:
            op.expected = self.state.get(key) if self.rng.random() < 0.7 else "another"
            if self.state.get(key) == op.expected:
                self.put(op, [(key, op.value)])
            else:
                op.result, op.code = FAIL, REFUSED_CAS
        elif kind == DELETE:
            op.value = None
            if self.state.get(key) is not None:
                self.put(op, [(key, None)])
            if self.rng.random() < 0.1:
                op.result, op.code, op.offset = UNKNOWN, "closed", 0
        elif kind == PAIR:
            op.key = "p0"
            self.put(op, [("p0-x", op.value), ("p0-y", op.value)])
        elif kind == PAIR_READ:
            values = [self.state[each] for each in ("p0-x", "p0-y") if each in self.state]
            op.key, op.value = "p0", ",".join(values)
        else:
            op.value, op.offset, op.epoch = self.state.get(key), len(self.entries), 1
        if self.rng.random() < 0.03 and kind in (WRITE, SET, PAIR):
            op.result, op.code, op.offset = UNKNOWN, "closed", 0
        self.ops.append(op)

    def faults(self, sync=True):
        return checker.Checker(self.ops, self.entries, sync).run().faults

    def pick(self, kind, condition=lambda op: True):
        return self.rng.choice([op for op in self.ops if op.kind == kind and op.result == OK and condition(op)])


class Right(unittest.TestCase):
    def test_right_histories_are_accepted(self):
        for seed in range(40):
            self.assertEqual(Model(seed).faults(), [], seed)

    def test_many_operations_of_many_clients(self):
        self.assertEqual(Model("many", count=20000, clients=12).faults(), [])


class Broken(unittest.TestCase):
    """Each mutation is found in (nearly) every history; what isn't would have been right as well."""

    def found(self, mutate, least=20):
        count = 0
        for seed in range(20):
            model = Model(seed)
            mutate(model)
            count += bool(model.faults())
        self.assertGreaterEqual(count, least)

    def test_a_lost_write(self):
        def lose(model):
            op = model.pick(SET)
            model.entries[op.offset - 1].changes = []

        self.found(lose)

    def test_a_ghost(self):
        def refuse(model):
            op = model.pick(SET)
            op.result, op.code = FAIL, "quorum_unavailable"

        self.found(refuse)

    def test_a_write_that_stands_twice(self):
        def double(model):
            op = model.pick(SET)
            model.entries.append(Entry(len(model.entries) + 1, 1, [(op.key, op.value)]))

        self.found(double)

    def test_a_torn_pair(self):
        def tear(model):
            op = model.pick(PAIR_READ, lambda op: op.value)
            op.value = op.value.split(",", maxsplit=1)[0] + ",v0"

        self.found(tear)

    def test_a_stale_read(self):
        """A value that was overwritten, by a write that had ended, before the read began."""

        def age(model):
            reads = [op for op in model.ops if op.kind == READ and op.result == OK]
            model.rng.shuffle(reads)
            for read in reads:
                ended = [op for op in model.ops if op.kind == WRITE and op.key == read.key and op.t1 < read.t0 and op.result == OK]
                ended.sort(key=lambda op: op.offset)
                if len(ended) > 3 and ended[0].value != read.value:
                    read.value = ended[0].value
                    return

        self.found(age)

    def test_two_writes_in_the_wrong_order(self):
        def swap(model):
            first = model.pick(SET, lambda op: op.offset < 100)
            second = model.pick(SET, lambda op: op.t0 > first.t1 and op.offset > first.offset)
            first.offset, second.offset = second.offset, first.offset

        self.found(swap)

    def test_a_replica_that_shows_what_was_not_there(self):
        def wrong(model):
            model.pick(STALE_READ).value = "nobody wrote it"

        self.found(wrong)

    def test_a_compare_and_set_that_both_won(self):
        def win(model):
            refused = [op for op in model.ops if op.code == REFUSED_CAS]
            op = model.rng.choice(refused)
            op.result, op.code = OK, ""
            op.offset, op.epoch = 1, 1

        self.found(win)

    def test_a_write_in_doubt_that_stands_before_it_began(self):
        def hasten(model):
            first = model.pick(WRITE, lambda op: op.offset < 100)
            second = model.pick(WRITE, lambda op: op.t0 > first.t1 and op.key == first.key)
            changes = model.entries[second.offset - 1].changes
            model.entries[second.offset - 1].changes = model.entries[first.offset - 1].changes
            model.entries[first.offset - 1].changes = changes
            second.result, second.offset, first.offset = UNKNOWN, 0, second.offset

        self.found(hasten)

    def test_a_lost_deletion(self):
        def lose(model):
            op = model.pick(DELETE, lambda op: op.offset)
            model.entries[op.offset - 1].changes = []

        self.found(lose)

    def test_a_deletion_in_doubt_that_stands_twice(self):
        """More deletions than there are requests in doubt that may have made them."""

        def double(model):
            key = model.rng.choice(KEYS)
            asked = [op for op in model.ops if op.kind == DELETE and op.key == key and op.result == UNKNOWN]
            for _ in range(len(asked) + 1):
                model.entries.append(Entry(len(model.entries) + 1, 1, [(key, None)]))

        self.found(double)

    def test_a_deletion_that_nobody_asked_for(self):
        def delete(model):
            op = model.pick(SET)
            model.entries.append(Entry(len(model.entries) + 1, 1, [(op.key, None)]))
            key = model.rng.choice(KEYS)
            model.entries.append(Entry(len(model.entries) + 1, 1, [(key, None)]))
            model.ops = [each for each in model.ops if each.kind != DELETE or each.result == OK or each.key != key]

        self.found(delete)


class Registers(unittest.TestCase):
    """The search itself, on small histories that are known."""

    def op(self, kind, value, t0, t1, result=OK, **more):
        return Op("c", "n", kind, "k", value, t0=t0, t1=t1, result=result, **more)

    def test_known_ones(self):
        write, read = self.op(WRITE, "a", 0, 10), self.op(READ, "a", 1, 2)
        self.assertIsNone(search([write, read]))
        self.assertIsNone(search([write, self.op(READ, None, 1, 2)]))
        self.assertIsNotNone(search([write, read, self.op(READ, None, 3, 4)]))
        self.assertIsNotNone(search([write, self.op(READ, "b", 1, 2)]))
        late = self.op(WRITE, "b", 1, 2, UNKNOWN)
        self.assertIsNone(search([write, late, self.op(READ, "b", 100, 101)]))
        self.assertIsNone(search([write, late, self.op(READ, "a", 100, 101)]))
        self.assertIsNotNone(search([write, late, self.op(READ, "b", 0.1, 0.5)]))


if __name__ == "__main__":
    unittest.main()
