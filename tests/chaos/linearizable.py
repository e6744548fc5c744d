"""Whether the answers about one register can be put into one order that is true to the clock: the search of Wing and
Gong with Lowe's memory of the states that were seen (Testing for Linearizability, 2017).

An operation that isn't known to have ended has infinity as its end: it may come at any time behind its beginning, and
need not come at all."""

import math

from history import CAS, DELETE, OK, READ

REFUSED_CAS = "precondition_failed"


def legal(op, value):
    """-> (whether the operation can come at that value, the value behind it)"""
    if op.kind == READ:
        return op.value == value, value
    if op.kind == CAS and op.code == REFUSED_CAS:
        return op.expected != value, value
    if op.kind == CAS:
        return op.expected == value, op.value
    return True, None if op.kind == DELETE else op.value


def end_of(op):
    return op.t1 if op.result == OK or op.code == REFUSED_CAS else math.inf


def _candidates(ops, ends, base, placed):
    """Those that may come next: they began before any that isn't placed had ended. The first to end comes first."""
    limit, found, number = math.inf, [], base
    while number < len(ops) and ops[number].t0 <= limit:
        if number not in placed:
            found.append(number)
            limit = min(limit, ends[number])
        number += 1
    return sorted((number for number in found if ops[number].t0 <= limit), key=ends.__getitem__)


def search(ops, initial=None):
    """None when there is an order; else the operation at which the longest one that was found ends."""
    ops = sorted(ops, key=lambda op: op.t0)
    ends = [end_of(op) for op in ops]
    most, stuck = -1, None
    seen = set()
    # Of each state: the first operation that isn't placed, those behind it that are, the value, how many must come.
    stack = [(0, frozenset(), initial, sum(end < math.inf for end in ends))]
    while stack:
        base, placed, value, left = stack.pop()
        if left == 0:
            return None
        while base in placed:
            placed -= {base}
            base += 1
        if (base, placed, value) in seen:
            continue
        seen.add((base, placed, value))
        candidates = _candidates(ops, ends, base, placed)
        if base + len(placed) > most and candidates:
            most, stuck = base + len(placed), ops[candidates[0]]
        for number in reversed(candidates):
            possible, after = legal(ops[number], value)
            if possible:
                finite = ends[number] < math.inf
                stack.append((base, placed | {number}, after, left - finite))
    return stuck
