"""Whatever is passed, the guide answers, or says in one error what it cannot take."""

from __future__ import annotations

import contextlib
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import withlogits
from withlogits.evaluation.files import BadFile
from withlogits.guide import CODES

ODD = [np.nan, np.inf, -np.inf, 0.0, 1.0, -0.0, 1e-45, 3e38, -3e38]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)


def arrays(shape: Any) -> Any:
    floats = hnp.arrays(
        st.sampled_from(["f2", "f4", "f8"]), shape, elements=st.floats(width=16) | st.sampled_from([0, 1])
    )
    odd = hnp.arrays(np.float32, shape, elements=st.sampled_from([np.float32(x) for x in ODD]).map(float))
    whole = hnp.arrays(st.sampled_from(["i1", "i8", "u1", "u8"]), shape, elements=st.integers(0, 7))
    signed = hnp.arrays(np.int64, shape, elements=st.sampled_from([-100, -1, 0, 1, 2, 5, 255, 2**62]))
    return floats | odd | whole | signed | hnp.arrays(np.bool_, shape)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_diagnose_answers_or_refuses(data: Any) -> None:
    shape = data.draw(SHAPES)
    logits = data.draw(arrays(shape))
    related = [shape, shape[:-1], (*shape, 1), shape[::-1], shape[1:], (*shape[:-1], 1)] if shape else [shape]
    labels = data.draw(arrays(data.draw(st.sampled_from(related) | SHAPES)))
    loss = data.draw(st.sampled_from([None, "sigmoid", "softmax", "sparse"]))
    axis = data.draw(st.integers(-len(shape), max(0, len(shape) - 1)))
    ignore = data.draw(st.sampled_from([None, -1, 0, 255]))
    options = {} if ignore is None else {"ignore_index": ignore}
    with contextlib.suppress(TypeError, ValueError):
        found = withlogits.diagnose(labels, logits, loss=loss, axis=axis, **options)
        assert set(found.codes) <= set(CODES)
        assert str(found)
        assert found._repr_html_()
        assert found.to_dict()


@settings(max_examples=200, deadline=None)
@given(labels=SHAPES.flatmap(arrays), classes=st.none() | st.integers(1, 6))
def test_recommend_answers(labels: Any, classes: int | None) -> None:
    found = withlogits.recommend(labels, num_classes=classes)
    assert found.loss in ("sigmoid", "softmax", "sparse", "none")
    assert str(found)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_evaluate_answers_or_refuses(data: Any) -> None:
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6))
    logits = data.draw(arrays(shape))
    labels = data.draw(arrays(data.draw(st.sampled_from([shape, shape[:-1]]))))
    with contextlib.suppress(TypeError, ValueError, BadFile):
        found = withlogits.evaluate(labels, logits)
        assert str(found)
        assert found.to_dict()
