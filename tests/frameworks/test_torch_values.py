"""PyTorch tensors: the values, gradients, dtypes and layouts are those that withlogits has for NumPy arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import oracle
import withlogits
import withlogits.engine

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

from frameworks.cases import by_numpy  # noqa: E402
from frameworks.torch_cases import (  # noqa: E402
    ACTIVATIONS,
    CASES,
    DTYPES,
    EVERY,
    FEW,
    INTEGERS,
    LOSSES,
    SOFTMAX_MAPS,
    WAYS,
    Case,
    array,
    assert_ulps,
    by,
    differentiated,
    in_one_rounding,
    most_ulps,
    tensor,
    tensors,
)

value_and_grad = withlogits.value_and_grad
NAN, INF = float("nan"), float("inf")


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """A context in which losses are computed in this way."""
    enter = functools.partial(by, request.param)
    enter.name = request.param  # type: ignore[attr-defined]
    return enter


def steps_of(t: Any) -> list[int]:
    """The strides that matter."""
    return [step for step, n in zip(t.stride(), t.shape, strict=True) if n > 1 and t.numel()]


@pytest.mark.parametrize("case", EVERY, ids=str)
def test_value_and_grad_is_that_of_numpy(case: Case) -> None:
    both = value_and_grad(case.function, case.differentiable)
    for dtype in oracle.DTYPES.values():
        labels, logits = case.tensors(dtype, grad=True)
        value, gradients = both(labels=labels, logits=logits, **tensors(case.keywords))
        alone = value_and_grad(case.function)(labels=labels, logits=logits, **tensors(case.keywords))
        assert not any(t.requires_grad for t in (value, *gradients, *alone))
        expected = by_numpy(case, *case.arrays(dtype))
        for one, other in zip((value, *gradients), expected, strict=True):
            assert_ulps(one, other, 0 if in_one_rounding(case) else 4)
        for one, other in zip(alone, expected[:2], strict=True):
            assert_ulps(one, other, 0 if in_one_rounding(case) else 4)


@pytest.mark.parametrize("case", FEW, ids=str)
def test_value_and_grad_by_formulas_keeps_no_graph(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    from withlogits import reference

    monkeypatch.setattr(withlogits.engine, "select", lambda: reference)
    labels, logits = case.tensors(np.float32, grad=True)
    value, gradients = value_and_grad(case.function, case.differentiable)(
        labels=labels, logits=logits, **tensors(case.keywords)
    )
    assert not any(t.requires_grad for t in (value, *gradients))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_numpy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from withlogits import reference

    rng = np.random.default_rng(0)
    function = getattr(withlogits, name)
    for dtype in oracle.DTYPES.values():
        x = (rng.random((3, 4, 5)) if name == "logit" else rng.normal(0, 3, (3, 4, 5))).astype(dtype)
        for options in ({}, {"axis": 1}) if name in SOFTMAX_MAPS else ({},):
            expected = function(x, **options)
            assert_ulps(function(tensor(x), **options), expected, 0)
            turned = function(tensor(x).transpose(0, 2), **options)
            assert_ulps(turned, function(x.transpose(2, 1, 0), **options), 0)
            with monkeypatch.context() as patch:
                patch.setattr(withlogits.engine, "select", lambda: reference)
                assert_ulps(function(tensor(x), **options), expected, 4 if dtype == np.float64 else 1)
        if name not in SOFTMAX_MAPS:
            number = x.ravel()[0]
            assert_ulps(function(tensor(np.asarray(number))), np.asarray(function(number)), 0)
        assert function(torch.empty((0, 3), dtype=DTYPES[dtype.name])).numel() == 0


# -------------------------------------------------------------------------------------------------------- layouts


def laid_out(values: Any, order: tuple[int, ...], steps: tuple[int, ...]) -> Any:
    """The values as a tensor in which the axes lie in memory in this order, with gaps."""
    strides, width = [0] * values.ndim, 1
    for i in reversed(order):
        strides[i], width = width * steps[i], width * max(values.shape[i], 1) * steps[i]
    source = tensor(values)
    return torch.full((max(width, 1),), 7.0, dtype=source.dtype).as_strided(values.shape, strides).copy_(source)


@st.composite
def tensors_of_any_layout(draw: Any) -> Any:
    dtype = oracle.DTYPES[draw(st.sampled_from(list(oracle.DTYPES)))]
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=7))
    axis = draw(st.integers(0, len(shape) - 1))
    empty = draw(st.integers(0, 3 * len(shape)))  # sometimes an axis has no length, though never that of the classes
    shape = tuple(0 if i == empty and i != axis else n for i, n in enumerate(shape))
    largest = min(oracle.FORMATS[dtype.name][2] / 2, 1e38)
    magnitude = min(draw(st.sampled_from([1e-45, 1e-30, 1.0, 20.0, 1e4, 1e38])), largest)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = (rng.uniform(-1, 1, shape) * magnitude).astype(np.float32).astype(dtype)
    axes = st.permutations(range(len(shape)))
    steps = st.tuples(*[st.sampled_from([1, 1, 2, 3]) for _ in shape])
    views = [functools.partial(laid_out, order=tuple(draw(axes)), steps=draw(steps)) for _ in range(2)]
    return x, axis, views, rng


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=tensors_of_any_layout(), reduction=st.sampled_from(["none", "sum", "mean"]))
def test_any_layout_dtype_and_magnitude(case: Any, reduction: str) -> None:
    x, axis, (place, place_labels), rng = case
    x = x if reduction == "none" else (x / np.float32(4096)).astype(x.dtype)  # so that no sum overflows
    rows = tuple(np.delete(x.shape, axis))
    index = rng.integers(0, x.shape[axis], rows).astype(rng.choice([np.int16, np.int64]))
    dense = rng.random(x.shape).astype(x.dtype)
    for loss, turned in (
        ("sparse", tensor(index)),
        ("softmax", place_labels(dense)),
        ("sigmoid", place_labels(dense)),
    ):
        case = Case(loss, "any", {"reduction": reduction, **({} if loss == "sigmoid" else {"axis": axis})})
        logits = place(x).requires_grad_()
        expected = by_numpy(case, array(turned), array(logits.detach()))  # in the same layout, which picks the kernel
        got = differentiated(case, turned.requires_grad_(loss != "sparse"), logits)
        # a loss that is made without its gradient is rounded elsewhere
        assert_ulps(got[0], expected[0], 8 if x.dtype == np.float64 and reduction != "none" else 1)
        for one, other in zip(got[1:], expected[1:], strict=True):
            assert_ulps(one, other, 0)
        assert steps_of(got[1]) == steps_of(torch.empty_like(logits))


LAYOUTS: dict[str, Callable[[Any], Any]] = {  # of a line of that many numbers
    "transposed": lambda line: line(12).view(3, 4).T,
    "every other": lambda line: line(48).view(8, 6)[::2, 1::2],
    "the first of two": lambda line: line(24).view(4, 3, 2)[..., 0],
    "expanded rows": lambda line: line(3).expand(4, 3),
    "expanded classes": lambda line: line(4)[:, None].expand(4, 3),
    "one number": lambda line: line(2)[1].expand(4, 3),
    "overlapping windows": lambda line: line(6).unfold(0, 3, 1),
    "a negative view": lambda line: torch._neg_view(line(12).view(4, 3)),
    "a parameter": lambda line: torch.nn.Parameter(line(12).view(4, 3)),
    "an offset": lambda line: line(13)[1:].view(4, 3),
    "no rows": lambda line: line(0).view(0, 3),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("case", FEW, ids=str)
def test_special_layouts(case: Case, name: str) -> None:
    for dtype in (torch.float64, torch.bfloat16):  # one for each kind of kernel
        logits = LAYOUTS[name](functools.partial(torch.linspace, -3, 3, dtype=dtype))
        assert name != "a negative view" or logits.is_neg()
        labels = tensor(case.arrays(np.float32)[0])[: len(logits)]
        weight = {n: s[: len(logits)] for n, s in case.options.items() if n == "sample_weight"}
        before = logits.detach().resolve_neg().clone(memory_format=torch.contiguous_format)
        of = functools.partial(case, **weight)
        expected = [of(labels, before), *differentiated(of, labels, before.clone().requires_grad_())]
        got = [of(labels, logits.detach()), *differentiated(of, labels, logits.detach().requires_grad_())]
        for one, other in zip(got, expected, strict=True):
            of_sum = dtype == torch.float64 and one.dim() == 0  # which depends on their order
            assert_ulps(one, other, 3 if of_sum else 1 if logits.is_neg() else 0)
        assert torch.equal(logits, before)


def test_channels_last_stays_so() -> None:
    images = torch.randn(2, 5, 4, 3).to(memory_format=torch.channels_last).requires_grad_()
    case, labels = Case("sparse", "images", {"reduction": "sum"}, axis=1), torch.randint(0, 5, (2, 4, 3))
    _, gradient = differentiated(case, labels, images)
    assert gradient.is_contiguous(memory_format=torch.channels_last)
    _, expected = differentiated(case, labels, images.detach().contiguous().requires_grad_())
    assert torch.equal(gradient, expected)


# -------------------------------------------------------------------------------------------------- dtypes and values


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_every_integer_dtype_of_labels(way: Any, dtype: Any) -> None:
    logits, labels, dense = torch.randn(5, 9), torch.tensor([0, 8, 3, 100, 5]), torch.eye(9)[:5]
    weighted = Case("sparse", "", {"ignore_index": 100, "class_weight": np.linspace(0.5, 2, 9), "reduction": "mean"})
    with way():
        assert_ulps(weighted(labels.to(dtype), logits), weighted(labels, logits), 0)
        for case in (Case("softmax", ""), Case("sigmoid", "")):  # whole numbers and truth values are labels of these
            assert_ulps(case(dense.to(dtype), logits), case(dense, logits), 0)
            assert_ulps(case(dense.bool(), logits), case(dense, logits), 0)


def test_all_64_bits_of_a_label_count(way: Any) -> None:
    labels = torch.tensor([1, -1], dtype=torch.int64).view(torch.uint64)
    for reduction, expected in (("none", [np.log(2), 0.0]), ("mean", np.log(2))):
        case = Case("sparse", "", {"ignore_index": 2**64 - 1, "reduction": reduction})
        with way():
            assert_ulps(case(labels, torch.zeros(2, 2)), np.float32(expected), 0)
    with way(), pytest.raises(ValueError, match=r"^labels\[1\] = 7 is outside \[0, 2\)"):
        case(torch.tensor([-1, 7]).view(torch.uint64), torch.zeros(2, 2))
    for ignored in (2**63, -(2**70), 2**70):
        with way():
            loss = LOSSES["sparse"](labels=torch.tensor([1]), logits=torch.zeros(1, 2), ignore_index=ignored)
        assert loss[0] > 0


@pytest.mark.parametrize("loss", ["sparse", "softmax", "sigmoid"])
def test_a_sum_beyond_the_largest_number_is_infinite(way: Any, loss: str) -> None:
    x = torch.tensor([[3e38, -3e38]] * 3, requires_grad=True)
    labels = torch.ones(3, dtype=torch.int64) if loss == "sparse" else torch.tensor([[0.0, 1.0]] * 3)
    with way():
        value, gradient = differentiated(Case(loss, "", {"reduction": "sum"}), labels, x)
    assert value == INF
    assert gradient.tolist() == [[1.0, -1.0]] * 3


@pytest.mark.parametrize("logits", DTYPES)
@pytest.mark.parametrize("labels", DTYPES)
def test_dtypes_of_results(way: Any, logits: str, labels: str) -> None:
    wide = torch.float64 if logits == "float64" else torch.float32
    for loss in ("sigmoid", "softmax"):
        for reduction in ("none", "mean"):
            x, z = (torch.ones(2, 3, dtype=DTYPES[name], requires_grad=True) for name in (logits, labels))
            with way():
                got = differentiated(Case(loss, "", {"reduction": reduction}), z, x)
            assert [t.dtype for t in got] == [wide, DTYPES[logits], DTYPES[labels]]
            assert {t.device for t in got} == {x.device}


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_is_not_finite(way: Any, dtype: str, reduction: str) -> None:
    """The same NaN and infinities as NumPy arrays give, where other tests say which these are."""
    x = np.array([
        [NAN, 0, 0], [NAN, 0, 0], [INF, 0, 0], [-INF, 0, 1], [-INF, 0, 1], [-INF] * 3, [-INF] * 3, [6e4, 0, -6e4],
        [0, 0, -INF], [20, 0, 0], [1, 1, 1], [INF, INF, -INF], [NAN, INF, 0],
    ]).astype(dtype)  # fmt: skip
    y = np.array([0, -1, 0, 0, 1, 0, -1, 1, 0, 0, 2, -1, -1])
    s = np.where(y < 0, 0.0, 1.0)
    for part in [slice(None)] if reduction == "none" else [slice(i, i + 1) for i in range(len(x))]:
        for loss, labels, options in (
            ("sparse", y, {"ignore_index": -1}),
            ("softmax", oracle.one_hot(y, 3), {"sample_weight": s[part]}),
            ("softmax", oracle.one_hot(y, 3), {"sample_weight": s[part], "softcap": 5.0, "z_loss": 0.1}),
            ("sigmoid", oracle.one_hot(y, 3), {"sample_weight": s[part, None], "pos_weight": 2.0}),
        ):
            case = Case(loss, "not finite", {**options, "reduction": reduction})
            z = tensor(labels[part]).requires_grad_(loss != "sparse")
            with way():
                got = differentiated(case, z, tensor(x[part]).requires_grad_())
            for one, other in zip(got, by_numpy(case, labels[part], x[part]), strict=True):
                assert_ulps(one, other, most_ulps(way.name, case, dtype), f"{loss} {part}")


def test_no_array_is_changed_and_no_memory_shared(way: Any) -> None:
    for case in CASES:
        labels, logits = case.tensors(np.float32, grad=True)
        options = tensors(case.keywords)
        taken = [labels, logits, *(t for t in options.values() if isinstance(t, torch.Tensor))]
        before = [(t.detach().clone(), t._version) for t in taken]
        with way():
            got = differentiated(Case(case.loss, "", options), labels, logits)
        for t, (values, version) in zip(taken, before, strict=True):
            np.testing.assert_array_equal(t.detach(), values)  # NaN too
            assert t._version == version
        places = [t.untyped_storage().data_ptr() for t in (*taken, *got)]
        assert len(set(places)) == len(places)


def test_array_and_tensor_are_inverse() -> None:
    for dtype in oracle.DTYPES.values():
        x = oracle.some((3, 4), dtype).T
        assert tensor(x).stride() == (1, 4)
        np.testing.assert_array_equal(array(tensor(x)), x)


@pytest.mark.parametrize(
    "case", [c for c in CASES if any(isinstance(v, (float, np.ndarray)) for v in c.options.values())], ids=str
)
def test_numbers_and_lists_are_not_rounded(case: Case) -> None:
    """float64 numbers without a dtype of their own mean the same as in NumPy, whatever torch's default dtype is."""
    labels, logits = case.arrays()
    shifted = {k: v * 1.1 if isinstance(v, np.ndarray) else v for k, v in case.keywords.items()}
    listed = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in shifted.items()}
    given = labels.tolist()
    got = case.function(labels=given, logits=tensor(logits), **listed)
    expected = case.function(labels=labels, logits=logits, **shifted)
    assert_ulps(got, np.asarray(expected), 4)  # the libraries add up a mean's weights in different orders


@pytest.mark.parametrize("loss", ["sigmoid", "sparse"])
def test_a_number_as_a_weight_is_not_rounded(loss: str) -> None:
    labels, logits = Case(loss, "").arrays()
    given = {"sample_weight": 0.1} if loss == "sparse" else {"sample_weight": 0.1, "pos_weight": 0.7}
    got = LOSSES[loss](labels=tensor(labels), logits=tensor(logits), **given)
    np.testing.assert_array_equal(array(got), LOSSES[loss](labels=labels, logits=logits, **given))
    large = {"sample_weight": [16777217] * 3 if loss == "sigmoid" else [16777217] * 4}
    got = LOSSES[loss](labels=tensor(labels), logits=tensor(logits), **large)
    np.testing.assert_array_equal(array(got), LOSSES[loss](labels=labels, logits=logits, **large))
