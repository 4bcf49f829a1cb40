"""What the NumPy front end hands to an engine: arrays in the promised form, whatever it was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import oracle
import withlogits
import withlogits.engine
from withlogits import dispatch
from withlogits.frameworks import numpy as front
from withlogits.options import field_values

FLOATS = tuple(oracle.DTYPES.values())


class Recorder:
    """An engine that keeps what it is given."""

    def plan_loss(self, options: Any, memory: Any, labels: Any, logits: Any) -> Any:
        self.options = options
        return self

    def quick(self, for_logits: bool, weights: Any) -> Any:
        if weights:
            return None
        return lambda labels, logits, weights: self.evaluate((labels, logits, None, None), for_logits, False)[:2]

    def evaluate(self, arrays: Any, for_logits: bool, for_labels: bool, out: Any = None) -> Any:
        self.labels, self.logits, self.weight, self.sample_weight, *_ = arrays
        return np.zeros(3, np.float32), np.zeros(3), np.zeros(3)

    def plan_elementwise(self, kind: str, memory: Any, x: Any) -> Any:
        return self._map

    def plan_softmax_map(self, kind: str, axis: int, memory: Any, x: Any) -> Any:
        return self._map

    def _map(self, x: Any) -> Any:
        self.logits = x
        return x


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(withlogits.engine, "select", lambda: recorder)
    monkeypatch.setattr(front, "_calls", {})
    monkeypatch.setattr(front, "_maps", {})
    return recorder


def promised(array: Any) -> bool:
    return type(array) is np.ndarray and array.dtype.isnative and array.flags.aligned


GIVEN = {
    "an array": np.zeros((4, 3), np.float32),
    "half precision": np.zeros((4, 3), np.float16),
    "bfloat16": np.zeros((4, 3), oracle.BFLOAT16),
    "a list": [[0.0, 1.0, 2.0]] * 4,
    "a tuple of arrays": (np.zeros(3), np.zeros(3), np.zeros(3), np.zeros(3)),
    "the other byte order": np.zeros((4, 3), np.dtype(np.float64).newbyteorder("S")),
    "not aligned": np.zeros(4 * 3 * 8 + 1, np.uint8)[1:].view(np.float64).reshape(4, 3),
    "read-only": np.broadcast_to(np.float32(0.0), (4, 3)),
    "strided": np.zeros((8, 9), np.float32)[::2, ::-3],
    "Fortran order": np.zeros((4, 3), np.float32, order="F"),
    "a subclass": np.zeros((4, 3)).view(np.matrix) if hasattr(np, "matrix") else np.zeros((4, 3)),
}


@pytest.mark.parametrize("case", GIVEN)
def test_logits_and_labels_keep_the_promise(recorder: Recorder, case: str) -> None:
    given = GIVEN[case]
    withlogits.softmax_cross_entropy_with_logits(labels=given, logits=given)
    for array in (recorder.logits, recorder.labels):
        assert promised(array)
        assert array.dtype in FLOATS
        assert array.shape == (4, 3)
    withlogits.sigmoid_cross_entropy_with_logits(labels=given, logits=given)
    assert promised(recorder.logits)
    assert promised(recorder.labels)
    withlogits.logsumexp(given)
    assert promised(recorder.logits)
    withlogits.sigmoid(given)
    assert promised(recorder.logits)


@pytest.mark.parametrize("case", ["an array", "half precision", "bfloat16", "read-only", "strided", "Fortran order"])
def test_what_is_fit_is_passed_on_as_it_lies(recorder: Recorder, case: str) -> None:
    """No copy: half precision is read where it lies, and strides are the kernel's business."""
    given = GIVEN[case]
    withlogits.softmax_cross_entropy_with_logits(labels=given, logits=given)
    assert recorder.logits is given
    assert recorder.labels is given


def test_memory_maps_are_read_where_they_lie(recorder: Recorder, tmp_path: Any) -> None:
    np.save(tmp_path / "x.npy", np.zeros((4, 3), np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    withlogits.softmax(mapped)
    assert type(recorder.logits) is np.ndarray
    assert np.shares_memory(recorder.logits, mapped)


def test_defaults(recorder: Recorder) -> None:
    logits, labels = np.zeros((4, 3), np.float32), np.zeros(4, np.int8)
    withlogits.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    assert recorder.labels is labels
    assert field_values(recorder.options) == (-1, True, 0.0, None, 1.0, None, 0.0, "none")
    withlogits.sigmoid_cross_entropy_with_logits(labels=logits, logits=logits)
    assert field_values(recorder.options) == (0.0, None, "none")


def test_options_arrive_as_plain_numbers_and_float64(recorder: Recorder) -> None:
    withlogits.sparse_softmax_cross_entropy_with_logits(
        labels=np.zeros((4, 1), np.int8),
        logits=np.zeros((4, 3), np.float32),
        class_weight=[1, 2, 3],
        label_smoothing=np.float32(0.5),
        ignore_index=np.int8(-1),
        temperature=2,
        softcap=np.array(3),
        z_loss=1,
        sample_weight=np.ones((4, 1), np.float16),
        reduction="mean",
    )
    got = recorder.options
    names = ("label_smoothing", "ignore_index", "temperature", "softcap", "z_loss")
    assert [type(getattr(got, name)) for name in names] == [
        float, int, float, float, float,
    ]  # fmt: skip
    assert recorder.weight.dtype == recorder.sample_weight.dtype == np.float64
    assert recorder.weight.flags.c_contiguous


@pytest.mark.parametrize(("given", "kept"), [(np.float32, np.float32), (np.float16, np.float64), (int, np.float64)])
def test_sample_weights_of_elements_keep_float32(recorder: Recorder, given: Any, kept: Any) -> None:
    logits = np.zeros((2, 4, 3), np.float32)
    withlogits.sigmoid_cross_entropy_with_logits(labels=logits, logits=logits, sample_weight=np.ones((2, 1, 3), given))
    assert recorder.sample_weight.dtype == kept
    withlogits.softmax_cross_entropy_with_logits(labels=logits, logits=logits, sample_weight=np.ones((2, 1), given))
    assert recorder.sample_weight.dtype == np.float64  # the only kind that the softmax kernels read


def test_weights_may_be_views(recorder: Recorder) -> None:
    logits = np.zeros((4, 3))
    wide = np.arange(6.0)
    withlogits.softmax_cross_entropy_with_logits(labels=logits, logits=logits, class_weight=wide[::2])
    np.testing.assert_array_equal(recorder.weight, [0.0, 2.0, 4.0])
    assert recorder.weight.flags.c_contiguous
    withlogits.sigmoid_cross_entropy_with_logits(labels=logits, logits=logits, pos_weight=2)
    assert recorder.weight.shape == ()
    assert recorder.weight.dtype == np.float64


def test_labels_of_unusual_types(recorder: Recorder) -> None:
    logits = np.zeros((4, 3))
    withlogits.softmax_cross_entropy_with_logits(labels=np.zeros((4, 3), np.longdouble), logits=logits)
    assert recorder.labels.dtype == np.float64
    withlogits.sparse_softmax_cross_entropy_with_logits(
        labels=np.zeros(4, np.dtype(np.int32).newbyteorder("S")), logits=logits
    )
    assert recorder.labels.dtype == np.int32
    assert recorder.labels.dtype.isnative
    withlogits.sparse_softmax_cross_entropy_with_logits(labels=(0, 1, 2, 0), logits=logits)
    assert recorder.labels.dtype == np.int64
    withlogits.sigmoid_cross_entropy_with_logits(labels=logits > 0, logits=logits)
    assert recorder.labels.dtype == np.bool_


def test_one_row_of_labels_is_not_copied(recorder: Recorder) -> None:
    logits, row = np.zeros((4, 3), np.float32), np.array([0.2, 0.3, 0.5], np.float32)
    withlogits.softmax_cross_entropy_with_logits(labels=row, logits=logits)
    assert recorder.labels is row


def test_the_front_end_of_a_type() -> None:
    for array in (np.zeros(1), [1.0], 1.0, np.float32(1), memoryview(b"")):
        assert dispatch.adapters[type(array)] is front


def test_pandas_and_other_containers_convert_themselves(recorder: Recorder) -> None:
    class Frame:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.zeros((4, 3))

    withlogits.softmax_cross_entropy_with_logits(labels=Frame(), logits=Frame())
    assert promised(recorder.logits)


def test_real_arrays_of_other_frameworks() -> None:
    package = pytest.importorskip("jax.numpy", reason="JAX is not installed: pip install jax")
    logits, array = np.zeros((4, 3)), package.zeros((4, 3))
    with pytest.raises(TypeError, match=r"^labels are an array of JAX, where the logits are of NumPy: pass both"):
        withlogits.softmax_cross_entropy_with_logits(labels=array, logits=logits)
    with pytest.raises(TypeError, match=r"^class_weight is an array of JAX, where the logits are of NumPy: pass both"):
        withlogits.softmax_cross_entropy_with_logits(labels=logits, logits=logits, class_weight=array[0])
