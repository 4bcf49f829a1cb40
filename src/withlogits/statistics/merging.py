"""Statistics whose parts, counted apart, merge into those of the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from typing import Any


def plus(a: Any, b: Any) -> Any:
    """The sum; None adds nothing."""
    return b if a is None else a if b is None else a + b


def earlier(a: Any, b: Any) -> Any:
    """The smaller; None is not there."""
    return min((x for x in (a, b) if x is not None), default=None)


def merged_by(merge: Callable[[Any, Any], Any]) -> dict[str, Any]:
    """The metadata of a field of which two values merge in this way."""
    return {"merge": merge}


LEAST, MOST, EARLIER = merged_by(min), merged_by(max), merged_by(earlier)
KEPT = merged_by(lambda mine, other: mine)  # the same in all parts, or merged by the class


class Merging:
    """A dataclass whose fields merge: by addition, unless a field says how."""

    def merge(self, other: Any) -> None:
        """Take in what was counted elsewhere."""
        self._take({f.name: getattr(other, f.name) for f in fields(other)}, "")

    def accumulate(self, counts: Mapping[str, Any], prefix: str = "") -> None:
        """Take in those counts that have the names of fields, behind a prefix."""
        self._take(counts, prefix)

    def _take(self, counts: Mapping[str, Any], prefix: str) -> None:
        kind: Any = type(self)
        merges = _merges(kind)
        for name, value in counts.items():
            own = name.removeprefix(prefix)
            if own in merges and name.startswith(prefix):
                setattr(self, own, merges[own](getattr(self, own), value))


@cache
def _merges(kind: Any) -> dict[str, Callable[[Any, Any], Any]]:
    """How each field merges."""
    return {f.name: f.metadata.get("merge", plus) for f in fields(kind)}
