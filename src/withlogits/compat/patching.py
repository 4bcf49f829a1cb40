"""Put functions of ours in the place of another library's, and take them away again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any


class Places:
    """Where functions of ours belong: (module, name, function), each."""

    def __init__(self, *places: tuple[Any, str, Callable[..., Any]]) -> None:
        self._places = places
        self._before: dict[int, Any] = {}  # what was in each place
        self._patches = 0  # how many are in force
        self._lock = threading.Lock()

    def enter(self) -> None:
        """Put the functions into their places."""
        with self._lock:
            self._patches += 1
            for i, (module, name, function) in enumerate(self._places):
                if getattr(module, name) is not function:
                    self._before[i] = getattr(module, name)
                    setattr(module, name, function)

    def leave(self) -> None:
        """Put back what was there, if no other patch is in force."""
        with self._lock:
            self._patches -= 1
            for i, (module, name, function) in enumerate(self._places if not self._patches else ()):
                if getattr(module, name) is function:  # else somebody replaced ours: it is theirs to undo
                    setattr(module, name, self._before[i])


class Patch:
    """A patch in force: called, or left as a context, it is undone; a second time does nothing.

    The library's functions come back with the last patch in force, in whatever order patches are undone.
    """

    def __init__(self, places: Places) -> None:
        self._places, self._in_force = places, True
        places.enter()

    def __call__(self) -> None:
        """Undo it."""
        in_force, self._in_force = self._in_force, False
        if in_force:
            self._places.leave()

    def __enter__(self) -> Patch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self()
