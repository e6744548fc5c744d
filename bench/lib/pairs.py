"""Runs in turn, A B A B ..., and what they say together."""
import dataclasses
import os
import statistics
import time
from typing import Optional, Tuple

from . import machine


@dataclasses.dataclass(frozen=True)
class Target:
    """What a figure of Nexus is to be: at most, or at least, so many times that of another side (the best of several),
    or, without one, so much."""

    text: str
    metric: str
    at_most: Optional[float] = None
    at_least: Optional[float] = None
    of: Tuple[str, ...] = ()
    of_metric: Optional[str] = None
    side: str = "Nexus"

    def judge(self, sides):
        """-> what is shown, or None where one of the sides was not measured."""
        others = [name for name in self.of if figures(sides, name, self.of_metric or self.metric)]
        own = figures(sides, self.side, self.metric)
        if not own or (self.of and not others):
            return None
        low, high = min(own), max(own)
        value, limit = statistics.median(own), self.at_most if self.at_most is not None else self.at_least
        against, theirs = None, None
        if self.of:
            best = min if self.at_most is not None else max
            medians = {n: statistics.median(figures(sides, n, self.of_metric or self.metric)) for n in others}
            against = best(medians, key=medians.get)
            theirs = medians[against]
            ratios = [a / b for a, b in zip(own, figures(sides, against, self.of_metric or self.metric)) if b]
            value, low, high = value / theirs, min(ratios), max(ratios)
        reached = value <= limit if self.at_most is not None else value >= limit
        return {
            "text": self.text,
            "side": self.side,
            "metric": self.metric,
            "own": statistics.median(own),
            "own_range": [min(own), max(own)],
            "against": against,
            "against_metric": self.of_metric or self.metric,
            "theirs": theirs,
            "value": value,
            "range": [low, high],
            "limit": limit,
            "at": "most" if self.at_most is not None else "least",
            "reached": bool(reached),
            "missing": [name for name in self.of if name not in others],
        }


def figures(sides, name, metric):
    """A figure of all runs of a side."""
    return [run["figures"][metric] for run in sides.get(name, []) if metric in run["figures"]]


def median(sides, name, metric):
    return statistics.median(figures(sides, name, metric))


def summary(runs):
    """Metric -> median, least and most."""
    found = {}
    for metric in dict.fromkeys(name for run in runs for name in run["figures"]):
        values = [run["figures"][metric] for run in runs if metric in run["figures"]]
        found[metric] = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    return found


def in_turn(bench, sides, pairs=None, before=None):
    """sides: name -> function that measures once and returns {"figures": {...}, ...}, or None for a side that isn't
    measured. before: called ahead of each run. -> name -> its runs."""
    sides = {name: measure for name, measure in sides.items() if measure is not None}
    results = {name: [] for name in sides}
    for number in range(pairs or bench.pairs):
        for name, measure in sides.items():
            if before is not None:
                before()
            machine.settle(bench.directory, bench.settle_seconds)
            usage, began = machine.Usage(), time.monotonic()
            run = measure()
            run["at"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            run["seconds"] = round(time.monotonic() - began, 3)
            run["machine"] = usage.figures()
            if "cpu" in run:
                run["machine"]["others"] = others(run)
            results[name].append(run)
            bench.say(f"  {number + 1}: {name}: {brief(run['figures'])}")
    return results


def others(run):
    """The share of the processors that neither servers nor generator had: the kernel's own threads, and whoever else
    is at work."""
    used = sum(value for name, value in run["cpu"].items() if name != "seconds")
    return round(max(run["machine"]["busy"] - used / (run["cpu"]["seconds"] * os.cpu_count()), 0), 3)


def brief(values):
    return ", ".join(f"{name} {value:,.6g}" for name, value in list(values.items())[:6])
