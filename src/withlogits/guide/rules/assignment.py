"""Which class of the labels is which class of the model, where the two number them differently."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from withlogits.statistics.accumulated import PairStatistics

Array = NDArray[Any]

FEWEST = 8  # rows of a class: by chance the largest of a few is no evidence
LONG = 16  # so many classes do not follow one another in a cycle by chance
TAKEN, OWN = 0.6, 0.2  # of the rows of a class: at least so many on the other class, at most so many on their own


class Permutation(NamedTuple):
    """The new number of each class that has another, and how many of the rows are right now, and then."""

    moved: dict[int, int]
    now: int
    then: int
    total: int


class Confusions(NamedTuple):
    """How often a class is taken for a class, without those that never are: (n,) each."""

    true: Array
    said: Array
    often: Array


def confusions(pair: PairStatistics) -> Confusions:
    """All of them of few classes; of more those of a sample of rows."""
    if pair.matrix is not None:
        true, said = np.nonzero(pair.matrix)
        return Confusions(true, said, pair.matrix[true, said])
    if pair.outcomes.x is None or pair.outcomes.z is None:
        return Confusions(*(np.zeros(0, np.int64) for _ in range(3)))
    true, said = pair.outcomes.z.astype(np.int64), pair.outcomes.x[:, 0].astype(np.int64)
    codes, often = np.unique(true << 32 | said, return_counts=True)
    return Confusions(codes >> 32, codes & 0xFFFFFFFF, often)


def permutation(pair: PairStatistics, classes: int, sure: bool) -> Permutation | None:
    """Return what makes far more rows right, if it is certain: cycles of classes, each taken for the next one.

    The largest numbers are assigned first: where one class is clearly taken for another, that is the best assignment.
    Of a model that is `sure`, and not just untrained, or of many classes, one in four may be taken for several.
    """
    if pair.right > 0.9 * pair.counted or pair.counted < FEWEST:
        return None
    true, said, often = confusions(pair)
    total, right = int(often.sum()), int(often[true == said].sum())
    own, most = np.bincount(true[true == said], often[true == said], minlength=classes), np.zeros(classes)
    np.maximum.at(most, true, often)
    if not total or (most - own).sum() < 0.1 * total:  # most classes are mostly taken for themselves
        return None
    support = np.bincount(true, often, minlength=classes)
    likely = np.flatnonzero(often >= 0.25 * support[true])
    moved = _assigned(true[likely], said[likely], often[likely], support)
    counts = {(int(t), int(s)): int(n) for t, s, n in zip(true[likely], said[likely], often[likely], strict=True)}
    mostly = (often >= TAKEN * support[true]) & (support[true] >= FEWEST)
    drawn = np.bincount(said[mostly], minlength=classes)  # what several classes are taken for is a majority
    kept: dict[int, int] = {}
    for cycle in _cycles(moved):
        present = [t for t in cycle if support[t]]
        taken = {t: counts.get((t, moved[t]), 0) for t in present}
        weak = [t for t in present if not _is_sure(int(support[t]), taken[t], int(own[t]))]
        allowed = len(present) // 4 if sure or len(cycle) >= LONG else 0
        if drawn[cycle].max() <= 1 and len(weak) <= allowed and all(taken[t] >= own[t] for t in weak):
            kept |= {t: moved[t] for t in cycle}
    then = right + sum(counts.get((t, m), 0) - int(own[t]) for t, m in kept.items())
    if then < right + 0.1 * total:
        return None
    return Permutation({t: m for t, m in sorted(kept.items()) if support[t]}, right, then, total)


def _is_sure(rows: int, taken: int, own: int) -> bool:
    """Whether a class of so many rows is clearly taken for another one, and not for itself."""
    return rows >= FEWEST and taken >= TAKEN * rows and own <= OWN * rows


def _assigned(true: Array, said: Array, often: Array, support: Array) -> dict[int, int]:
    """One class for each class, the largest numbers first; what is left goes to what is left, in order."""
    order = np.lexsort((said, true, -often))
    to: dict[int, int] = {}
    used: set[int] = set()
    for t, s in zip(true[order].tolist(), said[order].tolist(), strict=True):
        if t not in to and s not in used:
            to[t] = s
            used.add(s)
    rest = [t for t in range(len(support)) if t not in to]
    free = [s for s in range(len(support)) if s not in used]
    stay = set(rest) & set(free)
    to |= {t: t for t in stay}
    to |= dict(zip((t for t in rest if t not in stay), (s for s in free if s not in stay), strict=True))
    return to


def _cycles(to: dict[int, int]) -> list[list[int]]:
    """The cycles of a permutation that have more than one member."""
    found, seen = [], set()
    for start in to:
        cycle = []
        while start not in seen:
            seen.add(start)
            cycle.append(start)
            start = to[start]
        if len(cycle) > 1:
            found.append(cycle)
    return found
