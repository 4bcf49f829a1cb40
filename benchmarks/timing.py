"""Calls timed in turns: each contestant in every round, so that whatever the machine does meets all of them."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# How long one contestant stays on: long enough for caches and thread pools to settle, and many turns to fit.
TURN = 0.02

# Between two turns. The OpenMP workers of one contestant spin for some milliseconds after their work is done, and would
# sit on a core in the next one's turn.
REST = 0.01

# A call that takes longer than this fills every cache itself; shorter ones get a call that is not timed first.
SETTLED_BY = 0.05

LONGEST_TURN_CALLS = 200
FEWEST_ROUNDS = 3


@dataclass
class Times:
    """Seconds of each call, from its start until its result was ready."""

    calls: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.calls)

    @property
    def minimum(self) -> float:
        return min(self.calls)

    def as_json(self) -> dict[str, float | int]:
        return {"median_ms": self.median * 1e3, "minimum_ms": self.minimum * 1e3, "calls": len(self.calls)}


def alternate(contestants: dict[str, Callable[[], Any]], rounds: int, budget: float) -> dict[str, Times]:
    """The times of each contestant, which has been called before, so that nothing is left to compile.

    There are as many rounds as fit into `budget` seconds, from 3 to `rounds`.
    A result dies before the next call, outside the time, so that its memory can be used again by whoever can do that.
    A turn of short calls begins with one that is not timed: caches and threads are the last contestant's until then.
    """
    turns = {name: _calls_a_turn(call) for name, call in contestants.items()}
    length = sum(REST + (calls + 1) * seconds for calls, seconds in turns.values())
    rounds = max(min(FEWEST_ROUNDS, rounds), min(rounds, int(budget / length)))
    times = {name: Times() for name in contestants}
    order = list(contestants)
    shuffle = random.Random(len(order)).shuffle
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                time.sleep(REST)
                calls, seconds = turns[name]
                _turn(contestants[name], calls, seconds < SETTLED_BY, times[name].calls)
    finally:
        gc.enable()
    return times


def _calls_a_turn(call: Callable[[], Any]) -> tuple[int, float]:
    """How many calls fill a turn, and the seconds of one: the shortest of three, or of one that is long."""
    seconds = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        call()
        seconds = min(seconds, time.perf_counter() - begin)
        if seconds > SETTLED_BY:
            break
    return max(1, min(LONGEST_TURN_CALLS, int(TURN / seconds))), seconds


def _turn(call: Callable[[], Any], calls: int, warm_up: bool, into: list[float]) -> None:
    if warm_up:
        call()
    clock = time.perf_counter
    for _ in range(calls):
        begin = clock()
        result = call()
        into.append(clock() - begin)
        del result
