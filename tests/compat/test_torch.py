"""PyTorch's signatures on our losses: torch's rules, torch's errors, and where the two differ, both answers."""

from __future__ import annotations

import copy
import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import withlogits.compat.torch as ours  # noqa: E402

F = torch.nn.functional
Sides = tuple[Any, Any, Any]  # torch's answer, ours, and the truth

X = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0], [2.0, 2.0, -4.0], [-1.0, 0.5, 0.25]])
Y = torch.tensor([0, 2, 1, 1])
Z = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
W = torch.tensor([0.5, 1.0, 2.0])


def with_gradient(function: Callable[..., Any], x: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """The loss, and the gradient of its sum for the logits."""
    x = x.detach().clone().requires_grad_()
    loss = function(x, *args, **kwargs)
    return loss.detach(), torch.autograd.grad(loss.sum(), x)[0]


def both(name: str, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """(loss, gradient) of torch and of ours, for a call of one of the functions."""
    return tuple(with_gradient(getattr(side, name), *args, **kwargs) for side in (F, ours))


# --------------------------------------------------------------------------- where torch is wrong, both answers beside


def test_a_confident_loss_keeps_its_digits() -> None:
    (theirs, their_slope), (mine, slope) = both("cross_entropy", torch.tensor([[20.0, 0.0]]), torch.tensor([0]))
    assert theirs == 0.0
    assert their_slope[0, 0] == 0.0
    torch.testing.assert_close(mine, torch.tensor(2.0611537e-09), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(slope, torch.tensor([[-2.0611537e-09, 2.0611537e-09]]), rtol=1e-6, atol=0.0)


def test_a_confident_no_keeps_its_digits() -> None:
    (theirs, _), (mine, _) = both("binary_cross_entropy_with_logits", torch.tensor([-20.0]), torch.tensor([0.0]))
    assert theirs == 0.0
    torch.testing.assert_close(mine, torch.tensor(2.0611537e-09), rtol=1e-6, atol=0.0)


def test_the_gradient_of_a_confident_yes_is_not_zero() -> None:
    (_, theirs), (_, mine) = both("binary_cross_entropy_with_logits", torch.tensor([20.0]), torch.tensor([1.0]))
    assert theirs == 0.0
    torch.testing.assert_close(mine, torch.tensor([-2.0611537e-09]), rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("target", [torch.full((4,), -100), torch.zeros(0, dtype=torch.int64)], ids=["ignored", "none"])
def test_the_mean_of_nothing_is_zero(target: Any) -> None:
    (theirs, _), (mine, slope) = both("cross_entropy", X[: len(target)], target)
    assert theirs.isnan()
    assert mine == 0.0
    assert not slope.any()


def test_the_mean_of_what_weighs_nothing_is_zero() -> None:
    (theirs, _), (mine, slope) = both("cross_entropy", X, torch.zeros(4, dtype=torch.int64), torch.tensor([0.0, 1, 1]))
    assert theirs.isnan()
    assert mine == 0.0
    assert not slope.any()


@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy_with_logits"])
def test_an_empty_batch_has_mean_zero(name: str) -> None:
    (theirs, _), (mine, slope) = both(name, X[:0], Z[:0])
    assert theirs.isnan()
    assert mine == 0.0
    assert slope.shape == (0, 3)


def test_an_ignored_row_may_hold_nan() -> None:
    x = X.clone()
    x[1] = math.nan
    (_, theirs), (mine, slope) = both("cross_entropy", x, torch.tensor([0, -100, 1, 1]))
    assert theirs[1].isnan().all()
    assert not slope[1].any()
    kept = torch.tensor([0, 2, 3])
    torch.testing.assert_close(mine, F.cross_entropy(X[kept], Y[kept]))


def test_an_element_of_weight_zero_may_hold_nan() -> None:
    x, weight = X.clone(), torch.ones(4, 3)
    x[1, 2], weight[1, 2] = math.nan, 0.0
    (theirs, _), (mine, slope) = both("binary_cross_entropy_with_logits", x, Z, weight, reduction="sum")
    assert theirs.isnan()
    assert mine.isfinite()
    assert slope[1, 2] == 0.0


MASKED = torch.tensor([[1.0, -math.inf, 0.5]])


def test_a_masked_class_without_weight_is_free() -> None:
    (theirs, _), (mine, slope) = both("cross_entropy", MASKED, torch.tensor([[0.5, 0.0, 0.5]]))
    assert theirs.isnan()
    truth, true_slope = with_gradient(F.cross_entropy, torch.tensor([[1.0, 0.5]]), torch.tensor([[0.5, 0.5]]))
    torch.testing.assert_close(mine, truth)
    torch.testing.assert_close(slope, torch.tensor([[true_slope[0, 0], 0.0, true_slope[0, 1]]]))


def test_smoothing_over_a_masked_class_of_weight_zero_is_free() -> None:
    call: tuple[Any, ...] = ("cross_entropy", MASKED, torch.tensor([0]), torch.tensor([1.0, 0.0, 1.0]))
    (theirs, _), (mine, slope) = both(*call, label_smoothing=0.1)
    assert theirs.isnan()
    assert mine.isfinite()
    assert slope.isfinite().all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_masked_class_that_is_wanted_costs_infinity(smoothing: float) -> None:
    target = torch.tensor([1 if smoothing == 0.0 else 0])  # smoothing wants every class
    _, (mine, _) = both("cross_entropy", MASKED, target, label_smoothing=smoothing)
    assert mine == math.inf


def test_float16_of_many_classes_does_not_overflow() -> None:
    x = torch.zeros(1, 131_072, dtype=torch.float16)
    theirs, mine = F.cross_entropy(x, torch.tensor([5])), ours.cross_entropy(x, torch.tensor([5]))
    assert theirs == math.inf
    assert mine.dtype == torch.float16
    assert mine == torch.tensor(math.log(131_072), dtype=torch.float16)


def test_bfloat16_of_many_classes_is_rounded_once() -> None:
    x = torch.randn(64, 50_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    y = torch.arange(64)
    truth = F.cross_entropy(x.double(), y, reduction="none")
    mine, theirs = (side.cross_entropy(x, y, reduction="none") for side in (ours, F))
    assert mine.equal(truth.bfloat16())
    assert (mine - truth).abs().max() < (theirs - truth).abs().max()


def test_indices_of_any_integer_dtype() -> None:
    with pytest.raises(RuntimeError, match="Long"):
        F.cross_entropy(X, Y.int())
    assert ours.cross_entropy(X, Y.int()) == ours.cross_entropy(X, Y) == ours.cross_entropy(X, Y.to(torch.uint8))


# ------------------------------------------------------------------------------------------------------- torch's rules


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize(
    ("target", "options"),
    [
        (Y, {"weight": W, "label_smoothing": 0.2, "ignore_index": 1}),
        (Y, {"weight": -W}),
        (Z, {"weight": W, "label_smoothing": 0.2}),
        (Z, {"weight": W - 1.0}),
        (2.0 * Z, {"weight": W}),
    ],
    ids=["indices", "negative", "probabilities", "signed", "unnormalised"],
)
def test_the_divisors_of_torch(target: Any, options: Any, reduction: str) -> None:
    theirs, mine = both("cross_entropy", X, target, reduction=reduction, **options)
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 3), (4, 1), (4, 3)])
def test_binary_weights_broadcast(shape: tuple[int, ...], reduction: str) -> None:
    make = torch.Generator().manual_seed(0)
    weight, pos_weight = torch.randn(shape, generator=make), torch.rand(shape, generator=make) + 0.5
    options: dict[str, Any]
    for options in ({"weight": weight}, {"pos_weight": pos_weight}, {"weight": weight.abs(), "pos_weight": pos_weight}):
        theirs, mine = both("binary_cross_entropy_with_logits", X, Z, reduction=reduction, **options)
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("input_dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("target_dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["cross_entropy", "binary_cross_entropy_with_logits"])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_dtype_is_torchs(name: str, input_dtype: Any, target_dtype: Any, autocast: bool) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        theirs, mine = both(name, X.to(input_dtype), Z.to(target_dtype))
        assert [t.dtype for t in mine] == [t.dtype for t in theirs]
        assert ours.cross_entropy(X.to(input_dtype), Y).dtype == F.cross_entropy(X.to(input_dtype), Y).dtype
    torch.testing.assert_close(mine, theirs, rtol=0.02, atol=0.01)


def test_weights_take_part_in_the_dtype_as_in_torch() -> None:
    wide = W.double()
    assert ours.cross_entropy(X, Z, wide).dtype == F.cross_entropy(X, Z, wide).dtype == torch.float64
    for options in ({"weight": wide}, {"pos_weight": wide}):
        for side in (F, ours):
            assert side.binary_cross_entropy_with_logits(X, Z, **options).dtype == torch.float32
    with pytest.raises(RuntimeError, match="expected scalar type Float but found Double"):
        F.cross_entropy(X, Y, wide)
    assert ours.cross_entropy(X, Y, wide) == ours.cross_entropy(X, Y, W)


def test_float64_targets_are_taken_at_their_word() -> None:
    z = Z.double() / 3.0
    for name in ("cross_entropy", "binary_cross_entropy_with_logits"):
        mine, truth = getattr(ours, name)(X, z), getattr(F, name)(X.double(), z)
        torch.testing.assert_close(mine, truth, rtol=1e-15, atol=0.0)


def test_the_gradient_of_the_target() -> None:
    z = Z.clone().requires_grad_()
    for options in ({}, {"weight": W}, {"weight": W, "label_smoothing": 0.1}):
        mine, theirs = (
            torch.autograd.grad(side.cross_entropy(X, z, **options, reduction="mean"), z) for side in (ours, F)
        )
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(("size_average", "reduce"), [(None, False), (False, None), (True, True), (False, True)])
@pytest.mark.parametrize(("name", "target"), [("cross_entropy", Y), ("binary_cross_entropy_with_logits", Z)])
def test_the_old_words(name: str, target: Any, size_average: bool | None, reduce: bool | None) -> None:
    answers = []
    for side in (F, ours):
        with pytest.warns(UserWarning, match="please use reduction="):
            answers.append(getattr(side, name)(X, target, size_average=size_average, reduce=reduce))
    torch.testing.assert_close(answers[1], answers[0])
    with pytest.warns(UserWarning, match="reduction='mean'"):
        assert ours.cross_entropy(X, Y, reduction="elementwise_mean") == ours.cross_entropy(X, Y)


def test_derivatives_of_every_order_and_kind() -> None:
    x, z, w = X[:2].double().requires_grad_(), Z[:2].double().requires_grad_(), W.double()
    for function in (
        lambda x: ours.cross_entropy(x, Y[:2], w, label_smoothing=0.1),
        lambda x: ours.binary_cross_entropy_with_logits(x, z.detach(), w),
    ):
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(function, x)
    assert torch.autograd.gradcheck(lambda x, z: ours.cross_entropy(x, z, w), (x, z))
    hessian = torch.func.hessian(lambda x: ours.cross_entropy(x, Y[:2]))(x.detach())
    torch.testing.assert_close(hessian, torch.func.hessian(lambda x: F.cross_entropy(x, Y[:2]))(x.detach()))
    each = torch.func.vmap(torch.func.grad(ours.cross_entropy))(X, Y)
    torch.testing.assert_close(each, torch.func.vmap(torch.func.grad(F.cross_entropy))(X, Y))


def test_it_compiles_without_a_break() -> None:
    def loss(x: Any, y: Any, z: Any, w: Any) -> Any:
        return (
            ours.cross_entropy(x, y, w, label_smoothing=0.1)
            + ours.cross_entropy(x, z)
            + ours.binary_cross_entropy_with_logits(x, z, pos_weight=w)
        )

    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    assert isinstance(compiled(X, Y, Z, W), torch.Tensor)
    torch.testing.assert_close(with_gradient(compiled, X, Y, Z, W), with_gradient(loss, X, Y, Z, W))


def test_subclasses_and_modes_are_asked_first() -> None:
    class Marked(torch.Tensor):
        pass

    assert type(ours.cross_entropy(X.as_subclass(Marked), Y)) is Marked
    assert type(ours.binary_cross_entropy_with_logits(X, Z.as_subclass(Marked))) is Marked
    with torch.device("cpu"):  # a mode
        assert ours.cross_entropy(X, Y) == ours.cross_entropy(X.clone(), Y)


def test_a_weight_that_needs_a_gradient() -> None:
    weight = W.clone().requires_grad_()
    for side in (F, ours):
        with pytest.raises(RuntimeError, match="not differentiable with respect to argument 'weight'"):
            side.cross_entropy(X, Y, weight)
    with torch.no_grad():
        assert ours.cross_entropy(X, Y, weight) == ours.cross_entropy(X, Y, W)
    with pytest.raises(ValueError, match="class_weight requires a gradient"):  # torch gives it one
        ours.cross_entropy(X, Z, weight)


# ------------------------------------------------------------------------------------------------------------- errors

DEEP = X.reshape(2, 3, 2)
WRONG_SOFTMAX: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "range": ((X, Y + 1), {}),
    "range, weighted": ((X, Y + 1, -W), {}),
    "negative index": ((X, Y - 1), {}),
    "batch": ((X, Y[:3]), {}),
    "kept axis": ((X, Y[:, None]), {}),
    "one row for all": ((X, Z[0]), {}),
    "scalars": ((torch.tensor(1.0), torch.tensor(1.0)), {}),
    "spatial": ((DEEP, torch.zeros(2, 3, dtype=torch.int64)), {}),
    "deep kept": ((DEEP, torch.zeros(2, 1, 2, dtype=torch.int64)), {}),
    "images": ((X[..., None, None], Y), {}),
    "float indices": ((X, Y.float()), {}),
    "boolean indices": ((X, Y.bool()), {}),
    "integer probabilities": ((X, Z.long()), {}),
    "probabilities to ignore": ((X, Z), {"ignore_index": 1}),
    "smoothing": ((X, Y), {"label_smoothing": 1.5}),
    "smoothing of probabilities": ((X, Z), {"label_smoothing": 1.5}),
    "reduction": ((X, Y), {"reduction": "average"}),
    "weights": ((X, Y, W[:2]), {}),
    "weights of rows": ((X, Y, W[None]), {}),
    "negative weights": ((X, Z, -W[:2]), {}),
    "weights as a list": ((X, Y, [1.0, 2.0, 3.0]), {}),
    "list": ((X, [0, 2, 1, 1]), {}),
    "array": ((X.numpy(), Y), {}),
    "both arrays": ((X.numpy(), Z.numpy()), {}),
    "integer logits": ((X.long(), Y), {}),
    "complex logits": ((X.cfloat(), Y), {}),
    "sparse logits": ((X.to_sparse(), Y), {}),
}
WRONG_SIGMOID: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "shape": ((X, Z[:, :1]), {}),
    "rank": ((X, Z[0]), {}),
    "integer target": ((X, Z.long()), {}),
    "boolean target": ((X, Z > 0.5), {}),
    "reduction": ((X, Z), {"reduction": "average"}),
    "weight": ((X, Z, torch.ones(4)), {}),
    "weight too deep": ((X, Z, torch.ones(1, 4, 3)), {}),
    "negative weight": ((X, Z, -torch.ones(4)), {}),
    "number as weight": ((X, Z, 2.0), {}),
    "pos_weight": ((X, Z), {"pos_weight": torch.ones(2)}),
    "number as pos_weight": ((X, Z), {"pos_weight": 2.0}),
    "differentiable pos_weight": ((X, Z), {"pos_weight": W.clone().requires_grad_()}),
    "integer logits": ((X.long(), Z), {}),
    "list": ((X, Z.tolist()), {}),
}


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        *(pytest.param("cross_entropy", *call, id=case) for case, call in WRONG_SOFTMAX.items()),
        *(pytest.param("binary_cross_entropy_with_logits", *call, id=case) for case, call in WRONG_SIGMOID.items()),
    ],
)
def test_what_torch_refuses_is_refused_with_its_error(name: str, args: Any, kwargs: Any) -> None:
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - what torch raises is what is asked for
        getattr(F, name)(*args, **kwargs)
    with pytest.raises(theirs.type) as mine:
        getattr(ours, name)(*args, **kwargs)
    assert (mine.type, str(mine.value)) == (theirs.type, str(theirs.value))


def test_the_cause_of_an_error_says_more() -> None:
    with pytest.raises(IndexError, match="Target 3 is out of bounds") as error:
        ours.cross_entropy(X, Y + 1)
    assert str(error.value.__cause__).startswith("labels[1] = 3 is outside [0, 3) for logits with 3 classes")


def test_what_torch_lets_pass() -> None:
    assert F.cross_entropy(X, Y, label_smoothing=-0.1) == F.cross_entropy(X, Y)
    with pytest.raises(ValueError, match=r"label_smoothing is -0\.1"):
        ours.cross_entropy(X, Y, label_smoothing=-0.1)


# ------------------------------------------------------------------------------------------------------------- classes

LOSSES = {
    "CrossEntropyLoss": ({"weight": W, "ignore_index": 1, "reduction": "sum", "label_smoothing": 0.1}, Y),
    "BCEWithLogitsLoss": ({"weight": W, "pos_weight": W, "reduction": "sum"}, Z),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_classes_are_torchs(name: str) -> None:
    options, target = LOSSES[name]
    mine, theirs = (getattr(side, name)(**copy.deepcopy(options)) for side in (ours, torch.nn))
    assert isinstance(mine, getattr(torch.nn, name))
    torch.testing.assert_close(mine(X, target), theirs(X, target))
    assert repr(mine) == repr(theirs) == f"{name}()"
    assert mine.state_dict().keys() == theirs.state_dict().keys()
    mine.load_state_dict({key: 2.0 * value for key, value in theirs.state_dict().items()})
    assert (mine.weight == 2.0 * W).all()
    for again in (pickle.loads(pickle.dumps(mine)), copy.deepcopy(mine)):
        assert type(again) is type(mine)
        assert again(X, target) == mine(X, target)
    assert mine.double().weight.dtype == torch.float64
    with pytest.warns(UserWarning, match="please use reduction='sum'"):
        assert getattr(ours, name)(size_average=False).reduction == "sum"


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(5, 0), (0, 0), (0,), (5, 0, 2)])
def test_zero_classes(shape: Any, weighted: bool, smoothing: float, reduction: str) -> None:
    """Zeros, as torch has them; the mean of nothing is 0."""
    axis = 0 if len(shape) == 1 else 1
    rows = shape[:axis] + shape[axis + 1 :]
    weight = torch.rand(0) if weighted else None
    indices = [torch.full(rows, -100)] if len(shape) < 3 else []  # of more axes torch refuses these
    for target in (torch.rand(shape, requires_grad=True), *indices):
        logits = torch.rand(shape, requires_grad=True)
        loss = ours.cross_entropy(logits, target, weight, reduction=reduction, label_smoothing=smoothing)
        theirs = F.cross_entropy(logits, target, weight, reduction=reduction, label_smoothing=smoothing)
        assert (loss.shape, loss.dtype) == (theirs.shape, theirs.dtype)
        assert bool((loss == 0).all())
        loss.sum().backward()
        assert logits.grad is not None
        assert logits.grad.shape == shape


@pytest.mark.parametrize("target", [torch.tensor([0, -100]), torch.tensor([-100, -100, -100]), torch.tensor([-1, 0])])
def test_zero_classes_are_no_class_to_name(target: Any) -> None:
    with pytest.raises((IndexError, ValueError, RuntimeError)) as theirs:
        F.cross_entropy(torch.rand(2, 0), target)
    with pytest.raises(type(theirs.value), match=re.escape(str(theirs.value))):
        ours.cross_entropy(torch.rand(2, 0), target)


def test_pos_weight_of_images_is_of_the_last_axis() -> None:
    logits, target, weight = torch.randn(2, 4, 3, 4), torch.rand(2, 4, 3, 4), torch.rand(4)
    expected = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
    torch.testing.assert_close(ours.binary_cross_entropy_with_logits(logits, target, pos_weight=weight), expected)
