"""What the PyTorch front end makes of tensors for these kernels, and of their results, beside the formulas in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kernels.cuda.arrays import DEVICE, torch

cuda = pytest.importorskip("withlogits.frameworks.torch.cuda")
formulas = pytest.importorskip("withlogits.frameworks.torch.formulas")

TOLERANCE = {torch.float32: (1e-5, 1e-6), torch.bfloat16: (2.0**-6, 1e-6), torch.float16: (2.0**-9, 1e-6)}
SHAPES = {
    "rows": ((5, 7), 1),
    "axis 1": ((2, 7, 3, 4), 1),
    "axis 0": ((7, 5), 0),
    "one row": ((7,), 0),
    "five axes": ((2, 3, 7, 2, 2), 2),
    "one class": ((4, 1), 1),
}


def close(got: Any, expected: Any) -> None:
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    rtol, atol = TOLERANCE[got.dtype]
    torch.testing.assert_close(got, expected, rtol=rtol, atol=atol, equal_nan=True)


def numbers(shape: tuple[int, ...], dtype: Any = torch.float32, seed: int = 0) -> Any:
    values = np.random.default_rng(seed).normal(0.0, 3.0, shape).astype(np.float32)
    return torch.from_numpy(values).to(DEVICE).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", SHAPES)
def test_softmax(name: str, dtype: Any) -> None:
    shape, axis = SHAPES[name]
    rows = [n for i, n in enumerate(shape) if i != axis]
    x, u, s = numbers(shape, dtype), numbers(tuple(rows), seed=1), numbers(tuple(rows), seed=2).abs()
    w = numbers((shape[axis],), seed=3).abs().double()
    index = torch.from_numpy(np.random.default_rng(4).integers(0, shape[axis], rows)).to(DEVICE)
    soft = numbers(shape, torch.float32, 5).abs()
    for labels, sparse in ((index, True), (index.to(torch.uint8), True), (soft, False), (soft > 1, False)):
        for more in ({}, {"label_smoothing": 0.1, "temperature": 2.0, "softcap": 20.0, "z_loss": 1e-3}):
            options = formulas.Softmax(axis=axis, sparse=sparse, **more)
            loss, stats = cuda.softmax_rows(x, labels, w, s, *options)
            close(loss, formulas.softmax_rows(x, labels, w, s, options))
            got = cuda.softmax_rows_backward(u, stats, x, labels, w, s, *options, True, not sparse)
            expected = formulas.softmax_rows_backward(u, x, labels, w, s, options, True, not sparse)
            close(got[0], expected[0])
            if not sparse:
                close(got[1], expected[1])


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 2, 2, 3)], ids=str)
def test_sigmoid(shape: tuple[int, ...]) -> None:
    x, u, s, q = numbers(shape), numbers(shape, seed=1), numbers(shape, seed=2).abs(), numbers(shape, seed=3).abs()
    for labels in (numbers(shape, seed=4) > 0, numbers(shape, seed=4).abs()):
        for weights in ((None, None), (q, s)):
            close(cuda.sigmoid_elements(x, labels, *weights, 0.1), formulas.sigmoid_elements(x, labels, *weights, 0.1))
            got = cuda.sigmoid_elements_backward(u, x, labels, *weights, 0.1, True, True)
            expected = formulas.sigmoid_elements_backward(u, x, labels, *weights, 0.1, True, True)
            for mine, theirs in zip(got, expected, strict=True):
                close(mine, theirs)
