"""Recycled memory: never that of an array somebody still holds, never more than allowed, and off if told."""

from __future__ import annotations

import copy
import ctypes
import gc
import mmap
import pickle
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import withlogits
from processes import environment, run
from withlogits.kernels.cpu import buffers

FLOAT32 = np.dtype(np.float32)
SHAPE = (512, 1024)  # 2 MiB
NBYTES = 512 * 1024 * 4


@pytest.fixture(autouse=True)
def _free_list(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty one, with room."""
    monkeypatch.setattr(buffers, "_free", deque())
    monkeypatch.setattr(buffers, "_limit", 64 << 20)
    yield
    gc.collect()


def address(array: Any) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_used_again_once_its_array_is_gone() -> None:
    first = buffers.empty(SHAPE, FLOAT32)
    where = address(first)
    second = buffers.empty(SHAPE, FLOAT32)
    assert address(second) != where
    del first
    assert len(buffers._free) == 1
    assert address(buffers.empty(SHAPE, FLOAT32)) == where


def in_another_thread(array: Any) -> Any:
    """A holder whose thread goes on until the holder dies."""
    stop = threading.Event()

    def hold(array: Any = array) -> None:
        stop.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    holder = type("Holder", (), {})()
    weakref.finalize(holder, lambda: (stop.set(), thread.join()))
    return holder


HOLDERS: dict[str, Callable[[Any], Any]] = {
    "a view": lambda x: x.view(),
    "a slice": lambda x: x[100:, ::7],
    "one number's view": lambda x: x[3:4, 5:6],
    "a transpose": lambda x: x.T,
    "another shape": lambda x: x.reshape(-1),
    "other numbers": lambda x: x.view(np.uint8),
    "a view of a view": lambda x: x[1:].T[::2][3:],
    "broadcast": lambda x: np.broadcast_to(x[0], (4, 1024)),
    "a memoryview": memoryview,
    "a slice of a memoryview": lambda x: memoryview(x)[5:],
    "numpy.frombuffer": lambda x: np.frombuffer(x, np.float32),
    "dlpack": lambda x: np.from_dlpack(x),
    "a subclass": lambda x: x.view(np.recarray),
    "its base": lambda x: x.base,
    "a slice of its base": lambda x: x.base[1000:],
    "a plain view of its base": lambda x: x.base.view(np.ndarray)[5:],
    "a masked array": lambda x: np.ma.masked_array(x, copy=False),
    "ctypes": lambda x: np.ctypeslib.as_ctypes(x),
    "an iterator": lambda x: x.flat,
    "a bound method": lambda x: x.sum,
    "an object that offers it": lambda x: type("Offer", (), {"__array_interface__": x.__array_interface__, "x": x})(),
    "a structure": lambda x: {"deep": [(x,)]},
    "another thread": in_another_thread,
}


@pytest.mark.parametrize("holder", HOLDERS)
def test_memory_that_anything_still_sees_is_not_used(holder: str) -> None:
    array = buffers.empty(SHAPE, FLOAT32)
    array[...] = 7.0
    where = address(array)
    held = HOLDERS[holder](array)
    del array
    gc.collect()
    assert not buffers._free
    for _ in range(3):
        other = buffers.empty(SHAPE, FLOAT32)
        assert address(other) != where
        other[...] = 0.0
    assert held is not None
    del held, other
    gc.collect()
    assert len(buffers._free) == 3


def test_arrays_that_live_and_die_at_random_keep_their_numbers() -> None:
    rng = np.random.default_rng(0)
    living: list[tuple[int, Any, Any]] = []
    for step in range(400):
        rows = int(rng.integers(300, 2000))
        array = buffers.empty((rows, 300), FLOAT32)
        array[...] = step
        keep = [lambda x: x, lambda x: x[::3], lambda x: x.T[5], lambda x: memoryview(x[2])][rng.integers(4)]
        living.append((step, keep(array), rows))
        del array
        while len(living) > 6:
            living.pop(int(rng.integers(len(living))))
        assert sum(map(len, buffers._free)) <= buffers.recycling_limit()
        for number, held, _ in living:
            assert (np.asarray(held) == number).all()


def test_threads_do_not_get_each_others_memory() -> None:
    failures: list[str] = []

    def work(me: int) -> None:
        kept: deque[Any] = deque(maxlen=3)
        for i in range(60):
            array = buffers.empty(SHAPE, FLOAT32)
            array[...] = me * 1000 + i
            kept.append((me * 1000 + i, array))
            if any((held != number).any() for number, held in kept):
                failures.append(f"thread {me}, array {i}")

    threads = [threading.Thread(target=work, args=(me,)) for me in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    gc.collect()
    assert sum(map(len, buffers._free)) <= buffers.recycling_limit()


def test_what_is_kept_is_bounded() -> None:
    buffers.set_recycling_limit(3 * NBYTES)
    arrays = [buffers.empty(SHAPE, FLOAT32) for _ in range(5)]
    arrays.clear()
    assert sum(map(len, buffers._free)) == 3 * NBYTES
    buffers.set_recycling_limit(NBYTES)
    assert sum(map(len, buffers._free)) == NBYTES


def test_nothing_is_kept_if_told() -> None:
    early = buffers.empty(SHAPE, FLOAT32)
    kept = buffers.empty(SHAPE, FLOAT32)
    del kept
    buffers.set_recycling_limit(0)
    assert not buffers._free
    del early  # made before, it is not kept either
    assert not buffers._free
    assert buffers.empty(SHAPE, FLOAT32).base is None


def test_small_and_very_large_arrays_are_numpys_own() -> None:
    assert buffers.empty((10, 10), FLOAT32).base is None
    assert buffers.empty((buffers.SMALLEST // 4 - 1,), FLOAT32).base is None
    assert buffers.empty((buffers.SMALLEST // 4,), FLOAT32).base is not None
    buffers.set_recycling_limit(NBYTES)
    assert buffers.empty((NBYTES // 4 + 1,), FLOAT32).base is None


def test_a_block_is_not_wasted_on_something_much_smaller() -> None:
    large = buffers.empty((2048, 1024), FLOAT32)
    where = address(large)
    del large
    assert address(buffers.empty((1024, 1024), FLOAT32)) != where
    assert address(buffers.empty((2000, 1024), FLOAT32)) == where


def test_collections_at_any_moment_do_no_harm() -> None:
    """Arrays in cycles die when the collector runs, even in the middle of a look at the shelf."""
    before = gc.get_threshold()
    try:
        for threshold in range(1, 12):
            for _ in range(10):
                cycle: list[Any] = [buffers.empty(SHAPE, FLOAT32)]
                cycle.append(cycle)
                del cycle
                gc.set_threshold(threshold)
                buffers.set_recycling_limit(2 * NBYTES)
                gc.set_threshold(*before)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert sum(map(len, buffers._free)) <= 2 * NBYTES


def test_without_mappings_memory_is_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    if hasattr(mmap, "MADV_HUGEPAGE"):
        monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 12345)  # as where the system has no such pages
        assert buffers.empty(SHAPE, FLOAT32).base is not None

    def fail(nbytes: int) -> Any:
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr(buffers, "_block", fail)
    array = buffers.empty(SHAPE, FLOAT32)
    assert array.base is None
    assert array.shape == SHAPE


def test_results_are_arrays_like_others() -> None:
    logits = np.linspace(-5, 5, 2**19, dtype=np.float32).reshape(SHAPE)
    _, gradient = withlogits.value_and_grad(withlogits.sigmoid_cross_entropy_with_logits)(
        labels=logits > 0, logits=logits
    )
    probabilities = withlogits.softmax(logits)
    for array in (gradient, probabilities):
        assert type(array) is np.ndarray
        assert array.base is not None  # recycled memory, or this test says nothing
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.flags.aligned
        kept = array.copy()
        assert (pickle.loads(pickle.dumps(array)) == kept).all()
        assert (copy.deepcopy(array) == kept).all()
        assert (copy.copy(array) == kept).all()
        array += 1.0
        np.testing.assert_array_equal(array, kept + 1.0)
        with pytest.raises(ValueError, match="resize"):
            array.resize((5, 5))
        assert np.ctypeslib.as_ctypes(array)[3][4] == array[3, 4]
        assert ctypes.addressof(ctypes.c_char.from_buffer(array)) == address(array)
        array.flags.writeable = False


def test_results_lie_in_memory_as_the_logits_do() -> None:
    whole = np.zeros((256, 40, 64), np.float32)
    for logits in (whole, whole.transpose(2, 0, 1), whole.transpose(1, 2, 0), np.asfortranarray(whole)):
        for result in (withlogits.softmax(logits), withlogits.sigmoid(logits)):
            assert result.strides == logits.strides
            assert result.flags.writeable
    # what is no permutation of a contiguous array has a result that is one
    assert withlogits.softmax(whole[:, ::2]).strides == (20 * 64 * 4, 64 * 4, 4)
    assert withlogits.softmax(whole[::-1]).strides == whole.strides


def test_results_are_not_recycled_while_they_live() -> None:
    """Through the public functions: each keeps its numbers while the next are computed."""
    rng = np.random.default_rng(0)
    kept = []
    for i in range(8):
        x = rng.normal(0, 3, SHAPE).astype("f")
        kept.append((x, withlogits.softmax(x)[i:]))
    withlogits.set_recycling_limit(0)
    for i, (x, result) in enumerate(kept):
        np.testing.assert_array_equal(result, withlogits.softmax(x)[i:])


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="there is no fork")
def test_a_fork_separates_living_and_idle_memory() -> None:
    """What a child writes into its results, its parent does not see, and the other way round."""
    out = run(
        """
        import os
        import numpy as np
        import withlogits

        def result(number):
            return withlogits.softplus(np.full((1024, 1024), number, "f"))

        living, idle = result(1.0), result(2.0)
        del idle  # on the shelf, from where both could take it
        ask, tell = os.pipe(), os.pipe()
        child = os.fork()
        if child == 0:
            mine = result(3.0)
            living[...] = -1.0
            os.write(tell[1], b"x")
            os.read(ask[0], 1)  # until the parent has written
            ok = (mine == np.log1p(np.exp(np.float32(3.0)))).mean() > 0.99 or abs(mine - 3.0485873).max() < 1e-5
            os._exit(0 if ok and (living == -1.0).all() else 1)
        os.read(tell[0], 1)
        mine = result(4.0)
        assert abs(living - 1.3132616).max() < 1e-5, living
        living[...] = 5.0
        os.write(ask[1], b"x")
        assert os.waitpid(child, 0)[1] == 0
        assert abs(mine - 4.01815).max() < 1e-5
        assert (living == 5.0).all()
        print("apart")
        """
    )
    assert out == "apart\n"


def test_arrays_that_live_until_the_end_end_quietly() -> None:
    out = run(
        """
        import numpy as np
        import withlogits

        class Holder:
            def __init__(self):
                self.me, self.result = self, withlogits.softmax(np.zeros((1024, 1024), "f"))

        kept, views = Holder(), [Holder().result[3:] for _ in range(3)]
        np.kept = Holder()
        print("end")
        """
    )
    assert out == "end\n"


@pytest.mark.parametrize(("given", "limit"), [(None, 512 << 20), ("", 512 << 20), ("0", 0), ("1000", 1000)])
def test_the_limit_of_the_environment(given: str | None, limit: int) -> None:
    code = "import withlogits.engine\nprint(withlogits.engine.describe()['recycling limit'])"
    assert run(code, env=environment(WITHLOGITS_RECYCLE_BYTES=given)) == f"{limit}\n"


@pytest.mark.parametrize("nbytes", [0, 100, buffers.SMALLEST - 1, buffers.SMALLEST, NBYTES + 3])
def test_large_pages_are_asked_for_within_the_memory(nbytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Library:
        def madvise(self, start: Any, size: Any, advice: int) -> None:
            asked.append((start.value, size.value, advice))

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    buffers.advise_large_pages(12345, nbytes)
    if nbytes < buffers.SMALLEST or not hasattr(mmap, "MADV_HUGEPAGE"):
        assert asked == []
    else:
        ((start, size, advice),) = asked
        assert start % mmap.PAGESIZE == size % mmap.PAGESIZE == 0
        assert 12345 <= start <= 12345 + mmap.PAGESIZE
        assert 12345 + nbytes - mmap.PAGESIZE < start + size <= 12345 + nbytes
        assert advice == mmap.MADV_HUGEPAGE
