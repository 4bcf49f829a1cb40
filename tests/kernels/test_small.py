"""Small calls, which one kernel does as a whole, against the same loss of more rows, which is done step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import withlogits
from withlogits.options import FEW

ROWS, CLASSES = 6, 5
LOSSES: dict[str, Any] = {
    "sparse": withlogits.sparse_softmax_cross_entropy_with_logits,
    "dense": withlogits.softmax_cross_entropy_with_logits,
}
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0.0, 3.0, (ROWS, CLASSES)).astype(np.float32)
LABELS = {"sparse": np.array([0, 4, 2, 2, 1, 3]), "dense": RNG.dirichlet(np.ones(CLASSES), ROWS).astype(np.float32)}
WEIGHTS: dict[str, dict[str, Any]] = {
    "none": {},
    "classes": {"class_weight": np.array([1.0, 2.0, 0.5, 0.0, 3.0])},
    "rows": {"sample_weight": np.array([1.0, 0.0, 2.0, 0.5, 1.0, 3.0])},
    "offsets": {"class_offset": np.array([0.0, 1.0, -1.0, -np.inf, 0.5])},
    "all": {
        "class_weight": np.array([1.0, 2.0, 0.5, 0.0, 3.0]),
        "sample_weight": np.array([1.0, 0.0, 2.0, 0.5, 1.0, 3.0]),
        "class_offset": np.array([0.0, 1.0, -1.0, 2.0, 0.5]),
    },
    "nothing contributes": {"class_weight": np.zeros(CLASSES), "z_loss": 0.1},
}


def repeated(array: Any) -> Any:
    """The rows again and again, too many for a small call."""
    return np.concatenate([array] * (FEW // ROWS + 1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_a_small_call_gives_the_loss_and_the_gradient_of_its_rows(
    make: Callable[..., Any], name: str, weights: str, reduction: str, dtype: str
) -> None:
    given = {key: w.astype(dtype) if isinstance(w, np.ndarray) else w for key, w in WEIGHTS[weights].items()}
    many = {key: repeated(w) if key == "sample_weight" else w for key, w in given.items()}
    if name == "sparse":
        given["ignore_index"] = many["ignore_index"] = 2

    def computed(labels: Any, logits: Any, options: dict[str, Any]) -> tuple[Any, Any]:
        options = {key: make(w) if isinstance(w, np.ndarray) else w for key, w in options.items()}
        both = withlogits.value_and_grad(LOSSES[name])
        value, gradient = both(labels=make(labels), logits=make(logits), reduction=reduction, **options)
        x = make(logits)
        if make is torch.from_numpy:
            for _ in range(2):  # the second time it is known
                x = make(logits.copy()).requires_grad_()
                value = LOSSES[name](labels=make(labels), logits=x, reduction=reduction, **options)
                value.sum().backward()
                np.testing.assert_allclose(x.grad, gradient, rtol=1e-6, atol=1e-7)
            value = value.detach()
        return np.asarray(value), np.asarray(gradient)

    value, gradient = computed(LABELS[name], LOGITS, given)
    expected, of_many = computed(repeated(LABELS[name]), repeated(LOGITS), many)
    times = FEW // ROWS + 1
    if reduction != "mean":
        expected = expected[:ROWS] if reduction == "none" else expected / times
    np.testing.assert_allclose(value, expected, rtol=2e-6)
    np.testing.assert_allclose(gradient, of_many[:ROWS] * (times if reduction == "mean" else 1), rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_weights_are_read_and_checked_at_each_call(make: Callable[..., Any]) -> None:
    weight, sample = np.ones(CLASSES), np.ones(ROWS)
    arrays = {"labels": make(LABELS["sparse"]), "logits": make(LOGITS), "reduction": "sum"}
    arrays |= {"class_weight": make(weight), "sample_weight": make(sample)}
    before = float(LOSSES["sparse"](**arrays))
    weight *= 2.0
    assert float(LOSSES["sparse"](**arrays)) == pytest.approx(2.0 * before)
    weight[3] = -1.0
    with pytest.raises(ValueError, match=r"^class_weight\[3\] is -1\.0, where a finite weight"):
        LOSSES["sparse"](**arrays)
    weight[3] = np.inf
    with pytest.raises(ValueError, match=r"^class_weight\[3\] is inf, where a finite weight"):
        LOSSES["sparse"](**arrays)
    weight[3], sample[2] = 1.0, np.nan
    with pytest.raises(ValueError, match=r"^sample_weight\[2\] is nan, where a finite weight"):
        LOSSES["sparse"](**arrays)
    sample[2] = 1.0
    assert np.isfinite(float(LOSSES["sparse"](**arrays)))


def test_weights_may_change_before_the_backward_pass() -> None:
    weight, gradients = torch.ones(CLASSES), []
    for changed in (False, True):
        x = torch.from_numpy(LOGITS.copy()).requires_grad_()
        value = LOSSES["sparse"](
            labels=torch.from_numpy(LABELS["sparse"]), logits=x, class_weight=weight, reduction="mean"
        )
        if changed:
            weight *= torch.arange(CLASSES)
        (3.0 * value).backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients)


def test_strides_of_weights_are_followed() -> None:
    weight = np.arange(1.0, 1.0 + 2 * CLASSES)[::-2]
    given = {"labels": LABELS["sparse"], "logits": LOGITS, "reduction": "mean"}
    expected = LOSSES["sparse"](class_weight=weight.copy(), **given)
    assert LOSSES["sparse"](class_weight=weight, **given) == expected
    assert LOSSES["sparse"](sample_weight=np.float64(2.0), **given) == pytest.approx(LOSSES["sparse"](**given))
