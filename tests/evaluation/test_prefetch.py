"""Blocks that are read ahead: the same ones, errors where they belong, and no thread left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from withlogits.evaluation.prefetch import prefetch

SHAPES = [(3, 4), (3, 4), (2, 4), (1, 1)]


def blocks(
    closed: list[bool], fail_at: int | None = None, order: Any = "C", borrows: bool = False
) -> Callable[[Any], Generator[Any]]:
    def made(lend: Any) -> Generator[Any]:
        own = np.empty(12)
        try:
            for i, shape in enumerate(SHAPES):
                if i == fail_at:
                    raise OSError("the disk is gone")
                buffer = lend() if borrows else own  # one buffer for all, as a file's blocks have
                buffer[:] = i
                yield buffer[: shape[0] * shape[1]].reshape(shape, order=order)
        finally:
            closed.append(True)

    return made


def readers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("withlogits-reader")]


@pytest.mark.parametrize("borrows", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_same_blocks(order: Any, borrows: bool) -> None:
    closed: list[bool] = []
    with closing(prefetch(blocks(closed, order=order, borrows=borrows), 12, np.dtype(float))) as found:
        for i, (block, shape) in enumerate(zip(found, SHAPES, strict=True)):
            assert block.shape == shape
            time.sleep(0.02)  # the thread reads on, and must not touch this one
            assert (block == i).all()
    assert (closed, readers()) == ([True], [])


def test_an_error_comes_after_the_blocks_before_it() -> None:
    closed: list[bool] = []
    found = prefetch(blocks(closed, fail_at=2), 12, np.dtype(float))
    assert [int(next(found)[0, 0]) for _ in range(2)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(found)
    assert (closed, readers()) == ([True], [])


@pytest.mark.parametrize("borrows", [False, True])
@pytest.mark.parametrize("asked", [1, 2])
def test_who_stops_early_leaves_nothing_behind(asked: int, borrows: bool) -> None:
    closed: list[bool] = []
    found = prefetch(blocks(closed, borrows=borrows), 12, np.dtype(float))
    for _ in range(asked):
        next(found)
    found.close()
    assert (closed, readers()) == ([True], [])
