"""What calls leave behind for the next of their kind: the outcome of checks, and plans."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

LIMIT = 512  # a program has fewer kinds of calls; one that makes ever new ones begins anew


def keep(memo: dict[K, V], key: K, value: V) -> V:
    """`value`, which `memo` has from now on. Single operations on a dictionary are atomic: no lock is needed."""
    if len(memo) >= LIMIT:
        memo.clear()
    memo[key] = value
    return value
