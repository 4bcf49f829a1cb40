"""Process-wide caches of validated options and execution plans."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")

LIMIT = 512  # entries; a cache that is full is emptied, which few programs ever see


def keep(memo: dict[K, V], key: K, value: V) -> V:
    """Store `value` in the cache and return it; operations on a dictionary are atomic, so no lock is needed."""
    if len(memo) >= LIMIT:
        memo.clear()
    memo[key] = value
    return value
