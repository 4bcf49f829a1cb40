"""What people do with arrays: aliasing views, memory that may not be touched, offsets beyond 32 bits, threads."""
# ruff: noqa: E501

from __future__ import annotations

import math
import mmap
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import withlogits
from oracle import some, some_labels
from processes import environment, run

sigmoid_loss = withlogits.sigmoid_cross_entropy_with_logits
softmax_loss = withlogits.softmax_cross_entropy_with_logits
sparse_loss = withlogits.sparse_softmax_cross_entropy_with_logits
value_and_grad = withlogits.value_and_grad


def assert_equal(got: Any, expected: Any) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


# ------------------------------------------------------------------------------------------------- where dtypes end


@pytest.mark.parametrize("count", [3, 300])
@pytest.mark.parametrize(("dtype", "largest"), [(np.float32, 3e38), (np.float64, 1.7e308)])
def test_a_sum_beyond_the_largest_number_is_infinite(engine: Any, dtype: Any, largest: float, count: int) -> None:
    """And says nothing: that NumPy warns of it is no news to who looks at the loss."""
    x = np.tile(np.array([largest, 0.0], dtype), (count, 1))
    z = np.tile(np.array([0.0, 1.0], dtype), (count, 1))
    for loss, labels in ((sigmoid_loss, z), (softmax_loss, z), (sparse_loss, np.ones(count, int))):
        value, gradient = value_and_grad(loss)(labels=labels, logits=x, reduction="sum")
        assert value == np.inf
        assert value.dtype == dtype
        assert gradient[0, 0] == 1.0


# ------------------------------------------------------------------------------------------------- views that alias


def test_labels_and_logits_may_be_the_same_memory() -> None:
    memory = np.abs(some((40, 20)))
    for loss in (sigmoid_loss, softmax_loss):
        for labels, logits in (
            (memory, memory),
            (memory[::-1], memory),
            (memory[:39], memory[1:]),
            (memory.view(np.int32).astype(bool), memory),
        ):
            together = value_and_grad(loss, ("logits", "labels"))(labels=labels, logits=logits)
            apart = value_and_grad(loss, ("logits", "labels"))(labels=labels.copy(), logits=logits.copy())
            np.testing.assert_array_equal(together[0], apart[0])
            assert_equal(together[1], apart[1])


def test_labels_weights_and_logits_may_be_views_of_one_table() -> None:
    """Columns of one array: features, label and weight side by side."""
    table = np.zeros(50, dtype=[("label", "<i8"), ("weight", "<f4"), ("logits", "<f4", (20,))])
    table["logits"], table["label"], table["weight"] = some((50, 20)), some_labels((50,), 20), np.linspace(0, 2, 50)
    before = table.copy()
    got = value_and_grad(sparse_loss)(
        labels=table["label"], logits=table["logits"], sample_weight=table["weight"], reduction="mean"
    )
    expected = value_and_grad(sparse_loss)(
        labels=table["label"].copy(),
        logits=table["logits"].copy(),
        sample_weight=table["weight"].copy(),
        reduction="mean",
    )
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-6, atol=1e-12)
    assert (table == before).all()


def test_overlapping_windows_of_one_sequence() -> None:
    sequence = some(200)
    windows = np.lib.stride_tricks.sliding_window_view(sequence, 30)
    labels = some_labels((len(windows),), 30)
    assert_equal(
        value_and_grad(sparse_loss)(labels=labels, logits=windows),
        value_and_grad(sparse_loss)(labels=labels, logits=windows.copy()),
    )


@pytest.mark.parametrize("loss", [softmax_loss, sigmoid_loss])
def test_out_may_be_the_logits_but_nothing_else_that_is_read(loss: Any) -> None:
    memory = np.abs(some((20, 30)))
    labels, logits = memory[:10], memory[10:]
    expected = value_and_grad(loss)(labels=labels.copy(), logits=logits.copy())
    for out, what in ((labels, "labels"), (memory[5:15], "logits"), (memory[9:19], "logits")):
        with pytest.raises(ValueError, match=f"out overlaps .*{what}|out .*{what}"):
            value_and_grad(loss)(labels=labels, logits=logits, out=out)
    weight = memory[0, :1] if loss is sigmoid_loss else memory[0, :10]
    with pytest.raises(ValueError, match="sample_weight"):
        value_and_grad(loss)(labels=labels.copy(), logits=logits, sample_weight=weight, out=memory[:10])
    got = value_and_grad(loss)(labels=labels, logits=logits, out=logits)
    assert_equal(got, expected)
    assert got[1] is logits


def test_out_between_the_rows_of_the_logits() -> None:
    """Interleaved, but no element shared."""
    memory = some((20, 30))
    logits, out = memory[::2], memory[1::2]
    labels = some_labels((10,), 30)
    expected = value_and_grad(sparse_loss)(labels=labels, logits=logits.copy())
    before = logits.copy()
    assert_equal(value_and_grad(sparse_loss)(labels=labels, logits=logits, out=out), expected)
    np.testing.assert_array_equal(logits, before)


def test_results_share_memory_with_nothing() -> None:
    x, labels = some((300, 1000)), some_labels((300,), 1000)
    results = []
    for _ in range(3):
        results += [
            *value_and_grad(sparse_loss)(labels=labels, logits=x),
            withlogits.softmax(x),
            withlogits.softplus(x),
        ]
    for i, one in enumerate(results):
        assert not np.shares_memory(one, x)
        assert not any(np.shares_memory(one, other) for other in results[:i])


# -------------------------------------------------------------------------------------------- memory of other kinds


@pytest.mark.parametrize("mode", ["r", "c", "r+"])
@pytest.mark.parametrize("offset", [0, 64, 1])
def test_memory_maps(tmp_path: Any, mode: Any, offset: int) -> None:
    """Offsets that align nothing too."""
    x, labels = some((50, 30)), some_labels((50,), 30)
    for name, array in (("x", x), ("labels", labels)):
        (tmp_path / name).write_bytes(b"\0" * offset + array.tobytes())
    before = [(tmp_path / name).read_bytes() for name in ("x", "labels")]
    mapped = np.memmap(tmp_path / "x", np.float32, mode, offset, (50, 30))
    mapped_labels = np.memmap(tmp_path / "labels", np.int64, mode, offset, (50,))
    got = value_and_grad(sparse_loss)(labels=mapped_labels, logits=mapped)
    assert_equal(got, value_and_grad(sparse_loss)(labels=labels, logits=x))
    assert type(got[1]) is np.ndarray
    del mapped, mapped_labels
    assert [(tmp_path / name).read_bytes() for name in ("x", "labels")] == before


def test_read_only_arrays() -> None:
    x, labels = some((50, 30)), some_labels((50,), 30)
    expected = value_and_grad(sparse_loss)(labels=labels, logits=x)
    x.flags.writeable = labels.flags.writeable = False
    got = value_and_grad(sparse_loss)(labels=labels, logits=x)
    assert_equal(got, expected)
    assert got[1].flags.writeable
    frozen = np.frombuffer(x.tobytes(), np.float32).reshape(50, 30)  # the memory of a bytes object
    assert_equal(value_and_grad(sparse_loss)(labels=labels, logits=frozen), expected)
    with pytest.raises(ValueError, match="read-only"):
        value_and_grad(sparse_loss)(labels=labels, logits=x, out=x)


def test_nothing_is_said_about_numbers_that_are_not_finite() -> None:
    """Even where NumPy is told to raise."""
    x = some((40, 20))
    x[::3, 4], x[1::3, 2], x[5], x[7] = np.nan, np.inf, -np.inf, 1e38
    x[8] = 1e-45
    with np.errstate(all="raise"):
        for dtype in (np.float32, np.float64):
            for reduction in ("none", "sum", "mean"):
                options: Any = {"logits": x.astype(dtype), "reduction": reduction}
                value_and_grad(sparse_loss)(labels=some_labels((40,), 20), **options)
                value_and_grad(softmax_loss)(labels=x.astype(dtype) > 0, **options)
                value_and_grad(sigmoid_loss)(labels=x.astype(dtype) > 0, **options)
            for name in ("softmax", "log_softmax", "logsumexp", "sigmoid", "log_sigmoid", "softplus", "logit"):
                getattr(withlogits, name)(x.astype(dtype))


GUARDED = """
import ctypes, itertools, mmap
import numpy as np
import withlogits

PAGE = mmap.PAGESIZE
protect = ctypes.CDLL(None, use_errno=True).mprotect
protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
kept = []

def guarded(array, at_end, order="C"):
    '''The same numbers where the next byte on one side must not be touched.'''
    pages = -(-array.nbytes // PAGE) + 1
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages + 1):
        assert protect(start + page * PAGE, PAGE, 0) == 0
    kept.append(memory)
    offset = (pages + 1) * PAGE - array.nbytes if at_end else PAGE
    placed = np.ndarray(array.shape, array.dtype, memory, offset, order=order)
    placed[...] = array
    return placed

def place(x, order):
    return x if order == "C" else np.asfortranarray(x)

rng = np.random.default_rng(0)
count = 0
for dtype, order, at_end in itertools.product("efd", "CF", (False, True)):
    for rows, classes in ((1, 1), (1, 17), (3, 5), (17, 9), (5, 33), (2, 300), (35, 16), (1, 65)):
        x = rng.normal(0, 3, (rows, classes)).astype(dtype)
        labels, dense, weight = rng.integers(0, classes, rows), rng.random((rows, classes)).astype("f"), rng.random(rows)
        where = lambda array, o="C": guarded(array, at_end, o)
        out = where(np.zeros_like(x), order)
        options = dict(logits=where(x, order), sample_weight=where(weight), out=out)
        plain = dict(logits=place(x, order), sample_weight=weight)
        value, gradient = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)(
            labels=where(labels), **options)
        expected, other = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)(
            labels=labels, **plain)
        assert np.array_equal(value, expected) and np.array_equal(gradient, other)
        for name in ("softmax", "logsumexp", "sigmoid"):
            assert np.array_equal(getattr(withlogits, name)(where(x, order)), getattr(withlogits, name)(place(x, order)))
        count += 1
        if dtype != "f":
            continue
        both = withlogits.value_and_grad(withlogits.softmax_cross_entropy_with_logits)
        value, gradient = both(labels=where(dense, order), class_weight=where(np.ones(classes)), **options)
        expected, other = both(labels=place(dense, order), class_weight=np.ones(classes), **plain)
        assert np.array_equal(value, expected) and np.array_equal(gradient, other)
        options["sample_weight"] = where(np.ones_like(dense, dtype=float), order)
        plain["sample_weight"] = np.ones((1, 1))
        both = withlogits.value_and_grad(withlogits.sigmoid_cross_entropy_with_logits)
        value, gradient = both(labels=where(dense, order), pos_weight=where(np.ones(classes)), **options)
        expected, other = both(labels=place(dense, order), pos_weight=np.ones(classes), **plain)
        assert np.array_equal(value, expected) and np.array_equal(gradient, other)
        kept.clear()
print(count)
"""


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="needs mprotect")
def test_nothing_beside_an_array_is_touched() -> None:
    """Pages before and behind each array that end the process when they are read or written."""
    assert run(GUARDED) == "96\n"


# ------------------------------------------------------------------------------------------------- beyond 32 bits

GIB = 1 << 30
NO_RESERVE = 0x4000  # Linux: pages that nobody touches cost nothing


def vast(nbytes: int) -> Any:
    """Zeros, of which only what is touched takes memory."""
    if sys.platform != "linux":
        pytest.skip("memory that is not reserved is asked for in Linux's way")
    try:
        return mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NO_RESERVE)
    except OSError:
        pytest.skip(f"no {nbytes >> 30} GiB of addresses to be had")


FAR = {  # shape, class axis, strides in bytes
    "rows": ((5, 40), 1, (3 * GIB, 4)),
    "classes": ((5, 40), 0, (3 * GIB, 4)),
    "both": ((5, 4), 1, (3 * GIB, 700 << 20)),
    "images": ((2, 3, 40), 1, (7 * GIB, 2 * GIB + 4096, 4)),
    "blocks": ((2, 2, 2, 20), 3, (7 * GIB, 3 * GIB, GIB + 24, 4)),
}


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("name", FAR)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_offsets_beyond_two_to_the_thirty_third(dtype: str, name: str, backwards: bool) -> None:
    shape, axis, strides = FAR[name]
    wide = np.dtype(dtype).itemsize // 4
    strides = tuple(s * wide if s < 1 << 20 else s for s in strides)
    memory = vast(16 * GIB)

    def far(values: Any, room: int, steps: tuple[int, ...]) -> Any:
        """`values` laid out with these steps, `room` KiB from where others are."""
        reach = sum(s * (n - 1) for s, n in zip(steps, values.shape, strict=True))
        assert reach > 2**31
        start = (room << 10) + (reach if backwards else 0)
        steps = tuple(-s for s in steps) if backwards else steps
        array = np.ndarray(values.shape, values.dtype, memory, start, steps)
        array[...] = values
        return array

    near = some(shape, dtype)
    rows_shape = tuple(np.delete(shape, axis))
    rows_steps = tuple(np.delete(strides, axis)) if name != "classes" else (GIB // 4,)
    rows_steps = tuple(int(s) if s > 1 << 20 else GIB // 16 for s in rows_steps)
    labels, weight = some_labels(rows_shape, shape[axis]), np.abs(some(rows_shape, np.float64))
    dense = np.abs(some(shape, dtype, seed=5))
    out = far(np.zeros(shape, dtype), 64, strides)
    options = {"logits": far(near, 0, strides), "sample_weight": far(weight, 128, rows_steps), "axis": axis}
    plain = {"logits": near, "sample_weight": weight, "axis": axis}
    tolerance = {"rtol": 1e-6 if dtype == "float32" else 1e-13, "atol": 1e-14}
    for loss, given, step in ((sparse_loss, labels, rows_steps), (softmax_loss, dense, strides)):
        value, gradient = value_and_grad(loss)(labels=far(given, 192, step), out=out, **options)
        expected, other = value_and_grad(loss)(labels=given, **plain)
        np.testing.assert_allclose(value, expected, **tolerance)
        np.testing.assert_allclose(gradient, other, **tolerance)
    value, gradient = value_and_grad(sigmoid_loss)(
        labels=far(dense, 192, strides), logits=options["logits"], sample_weight=far(dense, 256, strides), out=out
    )
    expected, other = value_and_grad(sigmoid_loss)(labels=dense, logits=near, sample_weight=dense)
    np.testing.assert_allclose(value, expected, **tolerance)
    np.testing.assert_allclose(gradient, other, **tolerance)
    np.testing.assert_allclose(
        withlogits.softmax(options["logits"], axis=axis), withlogits.softmax(near, axis=axis), **tolerance
    )


def test_more_than_two_to_the_thirty_first_elements() -> None:
    """One row of 2³¹ + 64 classes, and as many elements; the last ones are not zero."""
    count = 2**31 + 64
    memory = vast(2 * count)
    x = np.frombuffer(memory, np.float16)
    x[-5], x[-40] = 7.0, 12.0
    others = count - 2 + math.exp(7.0) + math.exp(12.0)
    loss = sparse_loss(labels=np.array([count - 5]), logits=x[None])
    np.testing.assert_allclose(loss, [math.log(others) - 7.0], rtol=1e-7)
    yes = np.frombuffer(memory, np.bool_)[:count]  # all False: the numbers lie behind
    total = sigmoid_loss(labels=yes, logits=x, reduction="sum")
    expected = (count - 2) * math.log(2.0) + math.log1p(math.exp(-7.0)) + 7.0 + math.log1p(math.exp(-12.0)) + 12.0
    np.testing.assert_allclose(total, expected, rtol=1e-7)


# ------------------------------------------------------------------------------------------------------- threads


def test_the_very_first_calls_of_several_threads_at_once(tmp_path: Any) -> None:
    """In a fresh process whose cache is empty: the same kernels, and different ones, all compiled at once."""
    out = run(
        """
        import threading
        import numpy as np
        import withlogits

        x = np.linspace(-4, 4, 40_000).reshape(200, 200)
        labels = np.arange(200) % 200
        gate, results, failures = threading.Barrier(8), {}, []

        def first(me):
            gate.wait()
            try:
                dtype = "fd"[me // 2 % 2]
                own = x.astype(dtype)
                results[me] = (
                    withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)(
                        labels=labels, logits=own
                    ),
                    withlogits.softmax(own) if me % 2 else withlogits.sigmoid(own),
                )
            except BaseException as error:
                failures.append(repr(error))

        threads = [threading.Thread(target=first, args=(me,)) for me in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures
        for me in range(4):
            (value, gradient), other = results[me]
            (value_again, gradient_again), other_again = results[me + 4]
            assert (value == value_again).all() and (gradient == gradient_again).all() and (other == other_again).all()
        print(len(results))
        """,
        env=environment(WITHLOGITS_CACHE_DIR=str(tmp_path)),
    )
    assert out == "8\n"


def test_threads_with_small_stacks() -> None:
    """128 KiB, as musl gives every thread; in a process of its own, since too small a stack ends it."""
    out = run(
        """
        import threading
        import numpy as np
        import withlogits

        x = np.linspace(-4, 4, 120_000).reshape(4, 30_000)
        def compute():
            for dtype in "fd":
                own = x.astype(dtype)
                for loss, labels in (
                    (withlogits.sparse_softmax_cross_entropy_with_logits, np.arange(4)),
                    (withlogits.softmax_cross_entropy_with_logits, own > 0),
                    (withlogits.sigmoid_cross_entropy_with_logits, own > 0),
                ):
                    withlogits.value_and_grad(loss)(labels=labels, logits=own)
                    withlogits.value_and_grad(loss)(labels=labels.T, logits=own.T, **axis(loss))

        def axis(loss):
            return {} if loss is withlogits.sigmoid_cross_entropy_with_logits else {"axis": 0}

        compute()  # compiled on a large stack
        withlogits.set_num_threads(3)  # and workers born with small ones
        threading.stack_size(128 << 10)
        thread = threading.Thread(target=compute)
        thread.start()
        thread.join()
        print("done")
        """
    )
    assert out == "done\n"


def test_without_docstrings_and_assertions() -> None:
    """Under python -OO both are gone."""
    code = (
        "import numpy, withlogits; print(__debug__, "
        "withlogits.sparse_softmax_cross_entropy_with_logits(labels=numpy.array([0]), logits=numpy.zeros((1, 2)))[0])"
    )
    done = subprocess.run(
        [sys.executable, "-OO", "-c", code], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("False 0.6931471805599453\n", "")
