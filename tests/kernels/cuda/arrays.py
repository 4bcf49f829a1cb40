"""The Triton kernels called on NumPy rows, in any layout, and what the reference says of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import oracle
import withlogits
from kernels.engines import Functions
from withlogits.options import SigmoidOptions, SoftmaxOptions, field_names

torch = pytest.importorskip("torch")
pytest.importorskip("triton")
cuda = pytest.importorskip("withlogits.kernels.cuda")

reference = Functions(withlogits.reference)
GPU = torch.cuda.is_available()
DEVICE = "cuda" if GPU else "cpu"
ROWS = 24
UNWRITTEN = 12345.0
DTYPES = {name: getattr(torch, name) for name in ("float16", "bfloat16", "float32", "float64")}
INTEGERS = [getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)]
SPARSE, DENSE = SoftmaxOptions(axis=1, sparse=True), SoftmaxOptions(axis=1, sparse=False)
UNWEIGHTED = (None,) * len(SoftmaxOptions.WEIGHTS)
PLAIN: dict[str, Any] = {name: getattr(SPARSE, name) for name in field_names(SPARSE) if name not in ("axis", "sparse")}
UNIT = 2.0**-24
# One rounding to the dtype of a gradient, in units of the value; Triton's interpreter cuts bfloat16 off.
ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8 if GPU else 2.0**-7, torch.float32: UNIT}
SMALLEST = {torch.float16: 2.0**-24, torch.bfloat16: 2.0**-126, torch.float32: 2.0**-149}


def tensor(array: Any, dtype: Any = None) -> Any:
    """On the device of these tests, with memory of its own."""
    array = np.asarray(array)
    if array.dtype == oracle.BFLOAT16:
        made = torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    else:
        made = torch.from_numpy(array.copy())
    return made.to(DEVICE, dtype) if dtype is not None else made.to(DEVICE)


def array(given: Any) -> Any:
    given = given.detach().cpu()
    return given.float().numpy() if given.dtype == torch.bfloat16 else given.numpy()


# ------------------------------------------------------------------------------------------------------------- layouts

# How (N, C) lies as (outer, C, inner): from its shape, a tensor without values.
LAYOUTS: dict[str, Callable[[int, int, Any], Any]] = {
    "rows": lambda n, c, new: new(n, c, 1),
    "axis 1": lambda n, c, new: new(n // 12, c, 12),
    "rows apart": lambda n, c, new: new(2 * n, c + 3, 1)[::2, 3:],
    "rows aligned and apart": lambda n, c, new: new(n, c + 8, 1)[:, :c],
    "classes apart": lambda n, c, new: new(n, 2 * c, 1)[:, ::2],
    "transposed": lambda n, c, new: new(c, n).t().unsqueeze(-1),
    "blocks, classes last": lambda n, c, new: new(n // 2, 2, c).permute(1, 2, 0),
    "blocks, rows apart": lambda n, c, new: new(c, 3, n).permute(1, 0, 2)[:, :, ::3],
    "pairs": lambda n, c, new: new(n // 2, c, 2),
}


def laid(values: Any, layout: str) -> Any:
    """Rows (N, C), or a number for each (N,), as (outer, C, inner) or (outer, inner)."""
    values = values if isinstance(values, torch.Tensor) else tensor(values)
    n, *classes = values.shape
    shape = LAYOUTS[layout](n, 2, lambda *size: torch.empty(size)).shape
    if not classes:
        return values.reshape(shape[0], shape[2])
    place = LAYOUTS[layout](
        n, *classes, lambda *size: torch.full(size, 3, dtype=torch.int64, device=DEVICE).to(values.dtype)
    )
    place.copy_(values.reshape(shape[0], shape[2], *classes).movedim(2, 1))
    return place


def rows_of(given: Any) -> Any:
    """Back to (N, C) or (N,)."""
    if given.dim() == 2:
        return given.reshape(-1)
    return given.movedim(1, 2).reshape(-1, given.shape[1])


# ------------------------------------------------------------------------------------------------------------- softmax


def softmax(
    x: Any,  # (N, C)
    z: Any,  # (N,) or (N, C)
    *,
    w: Any = None,  # (C,)
    s: Any = None,  # (N,)
    o: Any = None,  # (C,), the class offsets
    u: Any = None,  # (N,)
    layout: str = "rows",
    z_layout: str = "",
    results: str = "",
    label_gradient: Any = None,
    **options: Any,
) -> tuple[Any, Any, Any]:
    """Loss (N,), its gradients (N, C) for the logits and for dense labels, as tensors."""
    sparse = z.ndim == 1
    options = {**PLAIN, **options}
    x_at, z_at = laid(x, layout), laid(z, z_layout or layout)
    outer, _, inner = x_at.shape
    w_at, o_at = (None if a is None else tensor(a, torch.float32) for a in (w, o))
    s_at = None if s is None else laid(np.asarray(s, np.float32), layout)
    n = outer * inner
    u_at = laid(np.ones(n, np.float32) if u is None else np.asarray(u, np.float32), layout)
    chosen = SoftmaxOptions(axis=1, sparse=sparse, **options)
    inputs = cuda.Inputs(x_at, z_at, (w_at, s_at, o_at))
    loss = torch.full((outer, inner), UNWRITTEN, device=DEVICE)
    stats = torch.full((2, outer, inner), UNWRITTEN, device=DEVICE)
    dx = torch.full_like(laid(x, results or layout), UNWRITTEN)
    dz = None
    if not sparse:
        dz = torch.full_like(laid(z, results or layout), UNWRITTEN, dtype=label_gradient or torch.float32)
    cuda.softmax_forward(chosen, inputs, loss, stats)
    cuda.softmax_backward(chosen, inputs, u_at, stats, dx, dz)
    return rows_of(loss), rows_of(dx), None if dz is None else rows_of(dz)


def expected_softmax(
    x: Any, z: Any, *, w: Any = None, s: Any = None, o: Any = None, u: Any = None, **options: Any
) -> tuple[Any, Any, Any]:
    """The same in float64 by the reference, which raises where a label is out of range."""
    sparse = z.ndim == 1
    options = {**PLAIN, **options}
    x = np.asarray(x).astype(np.float64)
    s = np.ones(len(x)) if s is None else np.asarray(s, np.float32).astype(np.float64)
    u = np.ones(len(x)) if u is None else np.asarray(u, np.float32).astype(np.float64)
    wrong = np.zeros(len(x), bool)
    if sparse:
        wrong = ((z < 0) | (z >= x.shape[1])) & (s != 0.0)
        if options["ignore_index"] is not None:
            wrong &= z != options["ignore_index"]
    else:
        z = np.asarray(z).astype(np.float32).astype(np.float64)
    value, gradients = reference.softmax_loss(
        x,
        z,
        axis=1,
        sparse=sparse,
        class_weight=None if w is None else np.asarray(w, np.float32).astype(np.float64),
        class_offset=None if o is None else np.asarray(o, np.float32).astype(np.float64),
        sample_weight=np.where(wrong, 0.0, s),
        wrt=("logits",) if sparse else ("logits", "labels"),
        **options,
    )
    with np.errstate(all="ignore"):
        dx, dz = (np.where((u == 0.0)[:, None], 0.0, g * u[:, None]) for g in (*gradients, gradients[0])[:2])
    return np.where(wrong, np.nan, value), dx, None if sparse else dz


def largest_terms(
    x: Any, z: Any, *, w: Any = None, s: Any = None, o: Any = None, u: Any = None, **options: Any
) -> tuple[Any, Any, Any]:
    """What roundings of transformed logits do to the loss, the size of what dL/dx is the sum of, the same for dL/dz."""
    options = {**PLAIN, **options}
    classes = x.shape[1]
    with np.errstate(all="ignore"):
        x = np.asarray(x, np.float64) + (0.0 if o is None else np.asarray(o, np.float64))
        x = np.where(np.isfinite(x), x, -1e30)
        if z.ndim == 1:
            z = z[:, None] == np.arange(classes)
        weight = np.ones(classes) if w is None else np.asarray(w, np.float64)
        epsilon, cap = options["label_smoothing"], options["softcap"]
        t = weight * ((1.0 - epsilon) * np.asarray(z, np.float64) + epsilon / classes)
        slope = 1.0 / options["temperature"]
        ulps = np.ones(x.shape)
        if cap is not None:
            slope = slope * np.maximum(1.0 - np.tanh(x / cap) ** 2, 0.0)
            ulps = 1.0 + np.abs(x / cap)
            x = cap * np.tanh(x / cap)
        x = x / options["temperature"]
        m = x.max(axis=1, keepdims=True)
        p = np.exp(x - m)
        p /= p.sum(axis=1, keepdims=True)
        lse = m + np.log(np.exp(x - m).sum(axis=1, keepdims=True))
        share = np.ones(len(x)) if s is None else np.abs(np.asarray(s, np.float64))
        sensitivity = share * np.abs(x * (t.sum(axis=1, keepdims=True) * p - t)).sum(axis=1)
        moved = np.zeros(len(x)) if cap is None else sensitivity
        if options["temperature"] != 1.0:  # exact to 2^-34
            moved = moved + sensitivity * 2.0**-14
            ulps = ulps + np.abs(x) * 2.0**-14
        moved = moved + 4.0 * options["z_loss"] * share * (lse**2)[:, 0]
        share = share if u is None else share * np.abs(u)
        total = t.sum(axis=1, keepdims=True) * p
        terms = np.maximum(np.maximum(total, np.abs(t)), 2.0 * options["z_loss"] * np.abs(lse) * p)
        rounded = 1.0 if cap is not None else 2.0**-14 if options["temperature"] != 1.0 else 0.0
        by_labels = rounded * weight * share[:, None] * np.abs(np.where(x > -1e29, x, 0.0)).max(axis=1, keepdims=True)
        return np.nan_to_num(moved), np.nan_to_num(terms * slope * share[:, None] * ulps), by_labels


def assert_close(got: Any, want: Any, scale: Any = 0.0, ulps: float = 8.0, what: str = "") -> None:
    """Within so many ulp of float32 of the larger of the two, and one rounding to the dtype that it is of."""
    dtype, got = got.dtype, array(got).astype(np.float64)
    assert got.shape == want.shape, what
    largest = torch.finfo(dtype).max
    with np.errstate(all="ignore"):
        want = np.where(np.abs(want) > largest, np.sign(want) * np.inf, want)
        allowed = 2.0 * ulps * UNIT * np.maximum(np.abs(want), scale) + SMALLEST[dtype]
        allowed += 0.0 if dtype == torch.float32 else ROUNDING[dtype] * np.abs(want)
        right = np.where(np.isfinite(want), np.abs(got - want) <= allowed, got == want) | (
            np.isnan(got) & np.isnan(want)
        )
    at = tuple(np.argwhere(~right)[0]) if not right.all() else ()
    assert right.all(), f"{what} {at}: {got[at]!r} instead of {want[at]!r}; {(~right).sum()} of {right.size}"


def check_softmax(x: Any, z: Any, ulps: float = 8.0, what: str = "", **given: Any) -> tuple[Any, Any, Any]:
    """The kernels' results, after comparison with the reference's."""
    got = softmax(x, z, **given)
    for name in ("layout", "z_layout", "results", "label_gradient"):
        given.pop(name, None)
    with np.errstate(all="ignore"):
        want = expected_softmax(x, z, **given)
    moved, terms, by_labels = largest_terms(x, z, **given)
    assert_close(got[0], want[0], moved, ulps, f"{what} loss")
    assert_close(got[1], want[1], terms, ulps, f"{what} dL/dx")
    if got[2] is not None:
        assert_close(got[2], want[2], by_labels, ulps, f"{what} dL/dz")
    return got


def same(got: Any, expected: Any) -> bool:
    """Bitwise, but for the bits of a NaN."""
    if got is None or expected is None:
        return got is expected
    a, b = array(got), array(expected)
    return a.shape == b.shape and bool((((a == b) & (np.signbit(a) == np.signbit(b))) | ((a != a) & (b != b))).all())


# ------------------------------------------------------------------------------------------------------------- sigmoid


def sigmoid(
    x: Any, z: Any, *, q: Any = None, s: Any = None, u: Any = None, label_smoothing: float = 0.0,
    ignore_index: float | None = None, dx: Any = None, label_gradient: Any = None,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Loss and gradients of tensors of one shape, as tensors; `dx` is where the gradient goes, if it is to lie so."""
    loss = torch.full(x.shape, UNWRITTEN, device=DEVICE)
    u = torch.ones((), device=DEVICE).expand(x.shape) if u is None else u
    dx = torch.full_like(x, UNWRITTEN, memory_format=torch.contiguous_format) if dx is None else dx
    dz = torch.full(x.shape, UNWRITTEN, device=DEVICE, dtype=label_gradient or torch.float32)
    options, inputs = SigmoidOptions(label_smoothing, ignore_index), cuda.Inputs(x, z, (q, s))
    cuda.sigmoid_forward(options, inputs, loss)
    cuda.sigmoid_backward(options, inputs, u, dx, dz)
    return loss, dx, dz


def check_sigmoid(
    x: Any, z: Any, *, q: Any = None, s: Any = None, u: Any = None, label_smoothing: float = 0.0, **given: Any
) -> tuple[Any, Any, Any]:
    """The kernels' results, after comparison with the reference's."""
    got = sigmoid(x, z, q=q, s=s, u=u, label_smoothing=label_smoothing, **given)
    wide = [None if each is None else array(each).astype(np.float64) for each in (x, z, q, s, u)]
    x, z, q, s, u = wide
    with np.errstate(all="ignore"):
        value, gradients = reference.sigmoid_loss(
            x, z, pos_weight=q, label_smoothing=label_smoothing, sample_weight=s, wrt=("logits", "labels")
        )
        u = np.ones(x.shape) if u is None else u
        dx, dz = (np.where(u == 0.0, 0.0, g * u) for g in gradients)
        size = np.abs(u * (1.0 if s is None else s)) * (1.0 if q is None else np.maximum(q, 1.0))
        size = size * np.maximum(1.0, np.abs(z))
        own = np.exp(-np.abs(x)) / (1.0 + np.exp(-np.abs(x)))
        at_x = np.nan_to_num(size * np.where(x < 0, np.maximum(own, np.abs(z)), np.maximum(own, np.abs(1.0 - z))))
        at_z = np.nan_to_num(size * np.maximum(np.abs(np.where(np.isfinite(x), x, 0.0)), own))
    assert_close(got[0], value, 0.0, 4.0, "loss")
    assert_close(got[1], dx, at_x, 8.0, "dL/dx")
    assert_close(got[2], dz, at_z if q is not None else 0.0, 8.0, "dL/dz")
    return got
