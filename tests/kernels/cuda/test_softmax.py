"""The softmax family on the GPU, or interpreted: against the reference, against mpmath, and what is bitwise."""

from __future__ import annotations

import functools
import itertools
import re
from typing import Any

import numpy as np
import pytest

import oracle
from kernels.cuda.arrays import (
    DENSE,
    DEVICE,
    DTYPES,
    GPU,
    INTEGERS,
    LAYOUTS,
    ROWS,
    SPARSE,
    UNWEIGHTED,
    UNWRITTEN,
    array,
    check_softmax,
    cuda,
    same,
    softmax,
    tensor,
    torch,
)
from withlogits.kernels.cuda import softmax as kernels

# How the interpreter finds the maximum of a lane of NaN.
pytestmark = pytest.mark.filterwarnings("ignore:All-NaN slice encountered:RuntimeWarning")

CLASSES = ((1, "rows"), (2, "rows"), (10, "rows"), (48, "rows"), (3, "axis 1"), (20, "axis 1"))
WAYS = ("index", "dense")
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1},
    "hardly smoothed": {"label_smoothing": 1e-7},
    "all smooth": {"label_smoothing": 1.0},
    "ignoring": {"ignore_index": 1},
    "temperature": {"temperature": 0.7},
    "softcap": {"softcap": 20.0},
    "z-loss": {"z_loss": 1e-2},
    "class weights": {"w": (0.25, 0.0, 3.0, 1.0)},
    "class offsets": {"o": (0.1, -2.3, 1e-6, -np.inf, 7.7)},
    "sample weights": {"s": (1.0, 0.0, 0.3, 2.0, 1e-3)},
    "upstream": {"u": (1.0, 0.0, -0.3, 2.0, 1e6)},
    "all": {
        "label_smoothing": 0.1,
        "ignore_index": 0,
        "temperature": 1.7,
        "softcap": 30.0,
        "z_loss": 1e-4,
        "w": (0.25, 0.0, 3.0, 1.0),
        "s": (1.0, 0.0, 0.3, 2.0, 1e-3),
        "u": (1.0, 0.0, -0.3, 2.0, 1e6),
    },
}
OPTIONS["softcap and offsets"] = OPTIONS["softcap"] | OPTIONS["class offsets"]
OPTIONS["all and offsets"] = OPTIONS["all"] | OPTIONS["class offsets"]


def rows(count: int, classes: int, dtype: Any = np.float32, seed: int = 0, special: bool = True) -> Any:
    """Rows of many sorts in turn; the special ones have no finite loss."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    largest = oracle.FORMATS[dtype.name][2]
    x = rng.normal(0.0, 3.0, (count, classes))
    for i, row in enumerate(x):
        sort = i % (12 if special else 8)
        if sort == 1:
            row[rng.integers(classes)] += 20.0
        elif sort == 2:
            row[...] = rng.choice(row[: max(1, classes // 3)], classes)
        elif sort == 3:
            row[rng.permutation(classes)[: classes // 2]] = -np.inf
        elif sort == 4:
            row *= 1e-30
        elif sort == 5:
            row += rng.choice([-100.0, 100.0])
        elif sort == 6:
            row[...] = row[0]
        elif sort == 7:
            row *= min(2.0**22, largest / 64)
        elif sort == 8:
            row += min(2.0**23, largest / 2)
        elif sort == 9:
            row[rng.integers(classes)] = np.nan
        elif sort == 10:
            row[rng.integers(classes)] = np.inf
        elif sort == 11:
            row[...] = -np.inf
    return x.astype(np.float32).astype(dtype)


def labels_of(x: Any, way: str, seed: int = 1) -> Any:
    """Indices: the largest logit's or any. Dense: soft, one-hot, with zeros, and no distribution at all."""
    rng = np.random.default_rng(seed)
    index = rng.integers(0, x.shape[1], len(x))
    index[::2] = np.argmax(x[::2].astype(np.float64), axis=-1)
    if way == "index":
        return index
    z = rng.random(x.shape)
    z[1::4] = np.arange(x.shape[1]) == index[1::4, None]
    z[2::4] *= z[2::4] > 0.7
    z[::4] /= z[::4].sum(axis=-1, keepdims=True)
    return z.astype(np.float32)


def spread(options: dict[str, Any], x: Any) -> dict[str, Any]:
    """Options for these rows: weights repeated as often as there are classes, or rows."""
    options = dict(options)
    for name, length in (("w", x.shape[1]), ("o", x.shape[1]), ("s", len(x)), ("u", len(x))):
        if name in options:
            options[name] = np.resize(np.array(options[name], np.float32), length)
    return options


# -------------------------------------------------------------------------------------------- against the reference


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", OPTIONS)
def test_every_option(name: str, way: str) -> None:
    for classes, layout in CLASSES:
        x = rows(ROWS, classes, seed=classes)
        check_softmax(x, labels_of(x, way), layout=layout, what=f"{classes} {layout}", **spread(OPTIONS[name], x))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["plain", "all", "temperature", "class offsets", "all and offsets"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision(dtype: str, name: str, way: str) -> None:
    for classes in (3, 10, 48):
        x = rows(ROWS, classes, oracle.DTYPES[dtype], seed=classes)
        with np.errstate(all="ignore"):
            # a gradient that is of half precision itself is made with fewer digits
            check_softmax(x, labels_of(x, way), 40.0, f"{classes}", **spread(OPTIONS[name], x))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("classes", [1000, 1001, 5000, 4104])
def test_long_rows(classes: int, dtype: str, way: str) -> None:
    """A row a program, of one tile and of more; rows that begin where a long load may, and others."""
    x = rows(12 if classes == 1000 else 3, classes, oracle.DTYPES[dtype], seed=classes)
    z = labels_of(x, way)
    check_softmax(x, z, 8.0 if dtype == "float32" else 40.0)
    if classes == 5000:
        for name in ("all", "all and offsets"):
            check_softmax(x, z, 60.0, **spread(OPTIONS[name] | {"ignore_index": None, "s": (1.0, 0.3)}, x))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["all", "all and offsets"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, name: str, way: str) -> None:
    for classes in (3, 40):
        x = rows(ROWS, classes, seed=classes)
        check_softmax(x, labels_of(x, way), layout=layout, **spread(OPTIONS[name], x))


def test_labels_and_gradients_of_another_layout() -> None:
    for classes in (16, 72):
        x = rows(ROWS, classes)
        z = labels_of(x, "dense")
        check_softmax(x, z, layout="rows", z_layout="transposed", results="classes apart")
        check_softmax(x, z, layout="transposed", z_layout="rows", results="rows apart")


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_index_labels_of_every_type(dtype: Any) -> None:
    x = rows(ROWS, 100)
    z = labels_of(x, "index")
    z[3] = 7
    expected = softmax(x, tensor(z), ignore_index=7)
    got = softmax(x, tensor(z, dtype), ignore_index=7)
    assert all(same(a, b) for a, b in zip(got, expected, strict=True))
    assert array(got[0])[3] == 0.0


def test_unsigned_labels_are_not_taken_for_negative_ones() -> None:
    x = rows(4, 300, special=False)
    for dtype, label in ((torch.uint8, 200), (torch.uint16, 299), (torch.int16, 299)):
        z = torch.full((4,), label, dtype=torch.int64).to(DEVICE).to(dtype)
        assert same(softmax(x, z)[0], softmax(x, tensor(np.full(4, label)))[0])
    ignored = torch.full((4,), 2**64 - 100, dtype=torch.uint64).to(DEVICE)
    assert (array(softmax(x, ignored, ignore_index=2**64 - 100)[0]) == 0.0).all()
    assert np.isnan(array(softmax(x, ignored)[0])).all()
    narrow = torch.full((4,), 156, dtype=torch.uint8, device=DEVICE)  # the bits of −100
    assert np.isfinite(array(softmax(x, narrow, ignore_index=-100)[0])).all()


@pytest.mark.parametrize("dtype", [*INTEGERS, *DTYPES.values()], ids=str)
def test_dense_labels_of_every_type(dtype: Any) -> None:
    x = rows(12, 20)
    z = (labels_of(x, "dense") * 3 + 0.5).astype(np.uint8)
    expected = softmax(x, z.astype(np.float32))
    got = softmax(x, tensor(z.astype(np.int64)).to(dtype))
    assert all(same(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.parametrize("dtype", list(DTYPES.values()), ids=str)
def test_the_gradient_of_labels_in_any_dtype(dtype: Any) -> None:
    x = rows(ROWS, 20, special=False)
    z = labels_of(x, "dense")
    got, expected = softmax(x, z, label_gradient=dtype)[2], softmax(x, z)[2]
    assert got.dtype == dtype
    tolerance = 0.0 if dtype in (torch.float32, torch.float64) else 2.0**-7 if dtype == torch.bfloat16 else 2.0**-11
    wide = array(expected).astype(np.float64)
    wide = np.where(np.abs(wide) > torch.finfo(dtype).max, np.inf, wide)
    np.testing.assert_allclose(array(got).astype(np.float64), wide, rtol=tolerance, atol=1e-7 if tolerance else 0.0)


def test_one_gradient_alone_and_none() -> None:
    x, z = tensor(rows(ROWS, 20))[:, :, None], tensor(labels_of(rows(ROWS, 20), "dense"))[:, :, None]
    u = torch.ones((ROWS, 1), device=DEVICE)
    loss, stats = torch.empty((ROWS, 1), device=DEVICE), torch.empty((2, ROWS, 1), device=DEVICE)
    given = DENSE, cuda.Inputs(x, z, UNWEIGHTED)
    cuda.softmax_forward(*given, loss, stats)
    both = torch.empty_like(x), torch.empty_like(z)
    alone = torch.empty_like(x), torch.empty_like(z)
    cuda.softmax_backward(*given, u, stats, *both)
    cuda.softmax_backward(*given, u, stats, alone[0], None)
    cuda.softmax_backward(*given, u, stats, None, alone[1])
    cuda.softmax_backward(*given, u, stats, None, None)
    assert all(same(a, b) for a, b in zip(alone, both, strict=True))


# ----------------------------------------------------------------------------------------------------- what counts


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", ["rows", "axis 1"])
def test_rows_that_do_not_count_are_exactly_zero(layout: str, way: str) -> None:
    for classes, fill in itertools.product((3, 40), (np.nan, np.inf, -np.inf)):
        x = rows(ROWS, classes, special=False)
        x[5::6] = fill
        z = labels_of(x, way)
        s = np.ones(ROWS, np.float32)
        options: dict[str, Any] = {"s": s}
        if way == "index":
            z[5::6] = -100
            options = {"ignore_index": -100}
        else:
            s[5::6] = 0.0
            z[5::6] = np.nan
        loss, *gradients = check_softmax(x, z, layout=layout, z_loss=0.1, softcap=30.0, **options)
        for result in (loss, *(g for g in gradients if g is not None)):
            zeros = array(result)[5::6]
            assert (zeros == 0.0).all()


@pytest.mark.parametrize("way", WAYS)
def test_an_upstream_of_zero_is_a_gradient_of_zero(way: str) -> None:
    for classes in (3, 40):
        x = rows(ROWS, classes)
        _, *gradients = softmax(x, labels_of(x, way), u=np.zeros(ROWS))
        assert all((array(g) == 0.0).all() for g in gradients if g is not None)


def test_upstream_weights_and_labels_may_be_expanded() -> None:
    x = rows(ROWS, 40, special=False)
    z = np.tile(labels_of(x, "dense")[:1], (ROWS, 1))
    expected = softmax(x, z, u=np.full(ROWS, -0.25), s=np.full(ROWS, 3.0))
    x_at, z_at = tensor(x)[:, :, None], tensor(z[:1])[:, :, None].expand(ROWS, 40, 1)
    u, s = (torch.tensor(number, device=DEVICE).expand(ROWS, 1) for number in (-0.25, 3.0))
    loss, stats = torch.empty((ROWS, 1), device=DEVICE), torch.empty((2, ROWS, 1), device=DEVICE)
    dx, dz = torch.empty_like(x_at), torch.empty(z_at.shape, device=DEVICE)
    inputs = cuda.Inputs(x_at, z_at, (None, s, None))
    cuda.softmax_forward(DENSE, inputs, loss, stats)
    cuda.softmax_backward(DENSE, inputs, u, stats, dx, dz)
    assert all(same(a[..., 0], b.reshape(a[..., 0].shape)) for a, b in zip((loss, dx, dz), expected, strict=True))
    same_row = tensor(x[:1])[:, :, None].expand(ROWS, 40, 1)
    cuda.softmax_forward(DENSE, inputs._replace(logits=same_row), loss, stats)
    assert (loss == loss[0]).all()


@pytest.mark.parametrize("classes", [3, 40, 1030])
def test_labels_out_of_range_give_nan_and_no_gradient(classes: int) -> None:
    x = rows(8, classes, special=False)
    z = labels_of(x, "index")
    z[[1, 3, 4, 7]] = (-1, classes, 2**40, -(2**63))
    for options in ({}, {"label_smoothing": 0.1, "w": np.ones(classes), "softcap": 9.0}):
        loss, dx, _ = check_softmax(x, z, **options)
        assert np.isnan(array(loss)).tolist() == [i in (1, 3, 4, 7) for i in range(8)]
        assert (array(dx)[[1, 3, 4, 7]] == 0.0).all()
    s = np.ones(8, np.float32)
    s[3] = 0.0
    loss, _, _ = softmax(x, z, s=s, ignore_index=-1)
    assert array(loss)[[1, 3]].tolist() == [0.0, 0.0]
    assert np.isnan(array(loss)[[4, 7]]).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_lowest_number_is_a_number(dtype: str) -> None:
    """As masks have it: a row of nothing else is uniform, while −inf is nothing."""
    lowest = oracle.FORMATS[dtype][2]
    for classes in (3, 40, 64, 1032):
        x = np.zeros((4, classes))
        x[0] = -lowest
        x[1, 1:] = -lowest
        x[2, 1:] = -np.inf
        x[3, : classes // 2] = -np.inf
        loss, dx, _ = softmax(x.astype(np.float32).astype(oracle.DTYPES[dtype]), np.array([0, 0, 0, classes - 1]))
        count = classes - classes // 2
        np.testing.assert_allclose(array(loss), [np.log(classes), 0.0, 0.0, np.log(count)], rtol=1e-6)
        assert (array(loss)[1:3] == 0.0).all()
        assert np.isfinite(array(dx)).all()


def test_a_masked_class_is_free_unless_it_is_a_target() -> None:
    x = np.array([[0.0, -np.inf, 1.0], [0.0, -np.inf, 1.0], [0.0, -np.inf, 1.0]], np.float32)
    z = np.array([[0.5, 0.0, 0.5], [0.5, 0.5, 0.0], [1.0, -0.0, 0.0]], np.float32)
    loss = array(check_softmax(x, z)[0])
    assert np.isfinite(loss[[0, 2]]).all()
    assert loss[1] == np.inf
    assert np.isfinite(array(softmax(x, z, w=np.array([1.0, 0.0, 1.0]))[0])).all()
    assert array(softmax(x, np.array([0, 1, 2]))[0])[1] == np.inf
    assert np.isfinite(array(softmax(x, np.array([0, 1, 2]), w=np.array([1.0, 0.0, 1.0]))[0])).all()


@pytest.mark.parametrize("classes", [3, 40, 1032, 4104])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_offset_of_minus_infinity_removes_a_class(dtype: str, classes: int) -> None:
    """As if the row did not have it; it costs nothing unless it is a target."""
    x = rows(3, classes, oracle.DTYPES[dtype], special=False)
    o = np.linspace(-1.0, 1.0, classes)
    o[1::2] = -np.inf
    z = np.full((3, classes), 1.0 / classes, np.float32)
    z[:, 1::2] = 0.0
    ulps = 8.0 if dtype == "float32" else 40.0
    loss, dx, dz = (array(got) for got in check_softmax(x, z, ulps, o=o))
    kept = softmax(x[:, ::2], z[:, ::2], o=o[::2])
    np.testing.assert_allclose(loss, array(kept[0]), rtol=2e-6)
    assert (dx[:, 1::2] == 0.0).all()
    assert (dz[:, 1::2] == np.inf).all()
    loss = array(check_softmax(x, np.arange(3), ulps, o=o)[0])
    assert np.isinf(loss).tolist() == [False, True, False]
    w = np.ones(classes)
    w[1] = 0.0
    assert (array(softmax(x, np.ones(3, np.int64), w=w, o=o)[0]) == 0.0).all()
    everything = np.full(classes, -np.inf)
    for labels in (z, np.arange(3)):
        assert np.isnan(array(check_softmax(x, labels, o=everything)[0])).all()
        results = softmax(x, labels, o=everything, s=np.zeros(3))
        assert all((array(got) == 0.0).all() for got in results if got is not None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("classes", [3, 40, 1032, 4104])
def test_offsets_below_the_last_digit_of_a_logit(classes: int, way: str) -> None:
    """Sums that differ only in what rounding to float32 loses, and sums of different numbers that are equal."""
    rng = np.random.default_rng(classes)
    x = np.full((3, classes), 2.0**25, np.float32)
    x[1] = -(2.0**25)
    x[2] = rng.integers(-2, 3, classes)
    o = rng.normal(0.0, 0.5, classes).astype(np.float32)
    check_softmax(x, labels_of(x, way), o=o)
    check_softmax(x, labels_of(x, way), 16.0, o=o, temperature=3.0, label_smoothing=0.1)
    # exp would overflow if m were not the largest of the sums that round to one number; 2^-45 · 2^31 is 512 ulp of p
    check_softmax(x[:2] * np.float32(64.0), labels_of(x[:2], way), 512.0, o=o * np.float32(60.0))
    loss, dx, _ = check_softmax(x[2:], labels_of(x[2:], way), o=-x[2])
    if way == "index":
        np.testing.assert_allclose(array(loss), np.log(classes), rtol=2.0**-22)
        assert (array(dx) != 0.0).all()


def test_offsets_of_zero_change_no_bit_of_float32_results() -> None:
    """Without softcap and temperature, which round pairs otherwise."""
    for classes, way in itertools.product((3, 40, 1032, 4104), WAYS):
        x = rows(3 if classes > 2048 else 12, classes)
        z = labels_of(x, way)
        expected, got = softmax(x, z, z_loss=0.1), softmax(x, z, z_loss=0.1, o=np.zeros(classes))
        assert all(same(a, b) for a, b in zip(got, expected, strict=True))


def test_no_rows_at_all() -> None:
    for shape in ((0, 3, 1), (2, 3, 0), (0, 3, 4)):
        x = torch.empty(shape, device=DEVICE)
        z = torch.empty((shape[0], shape[2]), dtype=torch.int64, device=DEVICE)
        loss, stats = torch.empty(z.shape, device=DEVICE), torch.empty((2, *z.shape), device=DEVICE)
        inputs = cuda.Inputs(x, z, UNWEIGHTED)
        cuda.softmax_forward(SPARSE, inputs, loss, stats)
        cuda.softmax_backward(SPARSE, inputs, loss, stats, torch.empty_like(x), None)


# -------------------------------------------------------------------------------------------------------- bitwise


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("layout", ["rows", "transposed"])
def test_a_row_does_not_depend_on_its_batch_and_repeats(layout: str, way: str) -> None:
    for classes in (3, 40, 1030 if layout == "rows" else 70):
        x = rows(9, classes)
        z = labels_of(x, way)
        loss, dx, dz = softmax(x, z, layout=layout)
        again = softmax(x, z, layout=layout)
        assert all(same(a, b) for a, b in zip(again, (loss, dx, dz), strict=True))
        for part in ([4, 1, 8], [2, 2]):
            got = softmax(x[part], z[part], layout=layout)
            assert same(got[0], loss[part])
            assert same(got[1], dx[part])
            assert way == "index" or same(got[2], dz[part])


def test_results_fill_their_places_and_nothing_beside() -> None:
    x, z = rows(ROWS, 40), labels_of(rows(ROWS, 40), "index")
    room = torch.full((ROWS + 2, 44, 1), UNWRITTEN, device=DEVICE)
    x_at = tensor(x)[:, :, None]
    z_at = tensor(z)[:, None]
    loss, stats = torch.empty((ROWS, 1), device=DEVICE), torch.empty((2, ROWS, 1), device=DEVICE)
    inputs = cuda.Inputs(x_at, z_at, UNWEIGHTED)
    cuda.softmax_forward(SPARSE, inputs, loss, stats)
    inside = room[1:-1, 2:-2]
    cuda.softmax_backward(SPARSE, inputs, torch.ones((ROWS, 1), device=DEVICE), stats, inside, None)
    assert same(inside[:, :, 0], softmax(x, z)[1])
    assert float((room == UNWRITTEN).sum()) == room.numel() - inside.numel()
    assert same(x_at[:, :, 0], tensor(x))


# ---------------------------------------------------------------------------------------------- against the truth


@functools.cache
def promised() -> dict[str, tuple[float, float]]:
    """The table of the kernels' docstring: ulp for fp32 logits, and for half-precision ones."""
    found = re.findall(r"\| ([^|]+?) *\| +(\d+) \| +(\d+) \|", kernels.__doc__ or "")
    table = {name: (float(single), float(half)) for name, single, half in found}
    assert list(table) == ["loss of an index label", "loss of many targets", "dL/dx", "dL/dz"]
    return table


def hard_cases(dtype: str, classes: int, way: str, options: dict[str, Any]) -> tuple[Any, Any, list[oracle.Truth]]:
    rng = np.random.default_rng(classes)
    x = np.stack([row for _, row in oracle.rows(classes, oracle.DTYPES[dtype], classes, each=2)])
    z: Any = np.where(np.arange(len(x)) % 2, np.argmax(x.astype(np.float64), axis=1), rng.integers(0, classes, len(x)))
    exact = x.astype(np.float64) + np.float64(options.get("o", 0.0))  # to 2^-53
    options = {key: value for key, value in options.items() if key != "o"}
    if way == "dense":
        z = np.stack([rng.dirichlet(np.full(classes, (0.02, 0.3, 10.0)[i % 3])) for i in range(len(x))])
        z = np.where(np.isneginf(exact), 0.0, z).astype(np.float32)
        return x, z, [oracle.softmax(a, labels=b, **options) for a, b in zip(exact, z, strict=True)]
    return x, z, [oracle.softmax(a, label=int(b), **options) for a, b in zip(exact, z, strict=True)]


# Relative errors of the pairs that options make of logits, by the kernels' docstring.
PAIR_ERRORS = {"softcap": 2.0**-22, "softcap and offsets": 2.0**-22, "temperature": 2.0**-34, "class offsets": 2.0**-45}


def moved_by_a_softcap(truth: oracle.Truth, x: Any, cap: float | None) -> Any:
    """What 2 ulp of each transformed logit y make of dL/dx where T is 1: dp_j = p_j (dy_j − Σ p_i dy_i)."""
    if cap is None:
        return np.zeros(len(x))
    p, slope = (np.array(given, np.float64) for given in (truth.p, truth.slope))
    y = np.abs(cap * np.tanh(x.astype(np.float64) / cap))
    return 2.0**-22 * p * (y + p @ y) * slope


@pytest.mark.parametrize(
    ("way", "name"),
    [
        ("index", "plain"), ("index", "smoothed"), ("index", "temperature"), ("index", "softcap"), ("dense", "plain"),
        ("index", "class offsets"), ("dense", "class offsets"), ("index", "softcap and offsets"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_errors_are_the_promised_ones(dtype: str, way: str, name: str) -> None:
    column = 0 if dtype == "float32" else 1
    table = {what: figures[column] for what, figures in promised().items()}
    kind = "loss of an index label" if way == "index" and name != "smoothed" else "loss of many targets"
    for classes in (3, 10, 48, 1000) if name == "plain" else (3, 48):
        options = spread(OPTIONS[name], np.zeros((0, classes)))
        x, z, truths = hard_cases(dtype, classes, way, options)
        loss, dx, dz = (None if got is None else array(got) for got in softmax(x, z, **options))
        sums = x.astype(np.float64) + np.float64(options.get("o", 0.0))
        slope_error = 6.0 if "o" in options else 4.0
        smallest = 0.0 if GPU or dtype != "bfloat16" else 2.0**-126  # which the interpreter takes for 0
        for i, truth in enumerate(truths):
            granted = truth.sensitivity * PAIR_ERRORS.get(name, 0.0)
            error = oracle.ulp_error(loss[i], truth.loss, np.float32, granted=oracle.mpf(granted))
            assert error <= table[kind], (classes, i, loss[i], float(truth.loss))
            moved = moved_by_a_softcap(truth, sums[i], options.get("softcap"))
            for j in {0, classes // 2, classes - 1, int(np.argmax(sums[i]))}:
                more = slope_error * abs(sums[i, j] / 20.0) if "softcap" in options and np.isfinite(sums[i, j]) else 0.0
                scale = truth.scale[j] * (1 if dtype == "float32" else oracle.mpf(2.0) ** -13)
                granted = oracle.mpf(smallest) + moved[j]
                error = oracle.ulp_error(dx[i, j], truth.gradient[j], oracle.DTYPES[dtype], scale, granted=granted)
                assert error <= table["dL/dx"] + more, (classes, i, j, dx[i, j], float(truth.gradient[j]))
                if dz is not None:
                    error = oracle.ulp_error(dz[i, j], truth.label_gradient[j], np.float32)
                    assert error <= table["dL/dz"], (classes, i, j)


@pytest.mark.parametrize("classes", [3, 40, 1032, 5000])
def test_the_tail_of_a_confident_row(classes: int) -> None:
    """[20, 0, 0, …] with label 0, and rows of which the differences do not fit float32."""
    figures = promised()["loss of an index label"]
    rng = np.random.default_rng(0)
    for dtype, most in (("float32", figures[0]), ("bfloat16", figures[1]), ("float16", figures[1])):
        x = np.zeros((4, classes))
        x[1] = rng.choice(rng.normal(0.0, 1e-3, 50), classes)
        x[2] = rng.choice(rng.normal(0.1, 0.3, 50), classes)
        x[:3, 0] = (20.0, 30.3, 87.7)
        x[3] = rng.choice(rng.normal(-40.0, 3.0, 50), classes)
        x[3, 0] = 0.013
        x = x.astype(np.float32).astype(oracle.DTYPES[dtype])
        loss, dx, _ = (None if got is None else array(got) for got in softmax(x, np.zeros(4, np.int64)))
        for i in range(4):
            truth = oracle.softmax(x[i], label=0)
            assert oracle.ulp_error(loss[i], truth.loss, np.float32) <= most
            if dtype == "float32":
                assert oracle.ulp_error(dx[i, 0], truth.gradient[0], np.float32) <= promised()["dL/dx"][0]
    if classes == 3:
        np.testing.assert_allclose(float(array(softmax(np.float32([[20, 0, 0]]), np.array([0]))[0])[0]), 4.122307e-9)


def test_the_promised_errors_would_be_missed_without_two_sum() -> None:
    """The plain float32 formula on the same rows, so that the test above is known to be able to fail."""
    x = np.float32([20.1, 0.3, 1e-3])
    d = x - x.max()
    loss = np.log1p(np.exp(d[1:].astype(np.float64)).sum()).astype(np.float32)
    assert oracle.ulp_error(loss, oracle.softmax(x, label=0).loss, np.float32) > promised()["loss of an index label"][0]


# --------------------------------------------------------------------------------------------- only on a real GPU


@pytest.mark.skipif(not GPU, reason="there is no GPU")
def test_more_than_two_to_the_31_elements() -> None:
    far = 2**31 + 64
    room = torch.empty(far + 64, dtype=torch.float16, device=DEVICE)
    x = room.as_strided((2, 3, 1), (far, 1, 1))
    values = np.float16([[20, 0, 0], [1, 2, 3]])
    x.copy_(tensor(values)[:, :, None])
    z = torch.zeros((2, 1), dtype=torch.int64, device=DEVICE)
    loss, stats = torch.empty((2, 1), device=DEVICE), torch.empty((2, 2, 1), device=DEVICE)
    cuda.softmax_forward(SPARSE, cuda.Inputs(x, z, UNWEIGHTED), loss, stats)
    assert same(loss[:, 0], softmax(values, np.zeros(2, np.int64))[0])
    classes_apart = room.as_strided((1, 2, 1), (1, far, 1))
    inputs = cuda.Inputs(classes_apart, z[:1], UNWEIGHTED)
    cuda.softmax_forward(SPARSE, inputs, loss[:1], stats[:, :1].contiguous())
    assert same(loss[:1, 0], softmax(np.float16([[20, 1]]), np.zeros(1, np.int64))[0])


@pytest.mark.skipif(not GPU, reason="there is no GPU")
def test_calls_are_recorded_in_a_graph() -> None:
    x = tensor(rows(ROWS, 1000, special=False))[:, :, None]
    z = tensor(labels_of(rows(ROWS, 1000, special=False), "index"))[:, None]
    u = torch.ones((ROWS, 1), device=DEVICE)
    loss, stats = torch.empty((ROWS, 1), device=DEVICE), torch.empty((2, ROWS, 1), device=DEVICE)
    dx, inputs = torch.empty_like(x), cuda.Inputs(x, z, UNWEIGHTED)

    def step() -> None:
        cuda.softmax_forward(SPARSE, inputs, loss, stats)
        cuda.softmax_backward(SPARSE, inputs, u, stats, dx, None)

    step()
    expected = loss.clone(), dx.clone()
    loss.zero_()
    dx.zero_()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    graph.replay()
    torch.cuda.synchronize()
    assert same(loss, expected[0])
    assert same(dx, expected[1])
