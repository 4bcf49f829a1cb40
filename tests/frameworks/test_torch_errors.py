"""What PyTorch callers are told when an argument is wrong, word by word; and where the gradient may be written."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import withlogits

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

from frameworks.torch_cases import CASES, DTYPES, LOSSES, Case, operators, tensor  # noqa: E402

SPARSE, DENSE, SIGMOID = (LOSSES[name].__name__ for name in ("sparse", "softmax", "sigmoid"))
X, Y, Z = torch.linspace(-3, 3, 12).view(4, 3), torch.tensor([0, 2, 1, 1]), torch.full((4, 3), 1 / 3)
value_and_grad = withlogits.value_and_grad


def nested(*rows: Any) -> Any:
    return torch.nested.nested_tensor(list(rows), layout=torch.jagged)


ERRORS: dict[str, tuple[str, dict[str, Any], type[Exception], str]] = {
    "float indices": (
        "sparse", {"labels": Y.float()}, TypeError,
        (f"labels have dtype float32, and {SPARSE} takes class indices, which are integers: pass "
         f"labels.to(torch.int64) if they are indices stored as floats (WL208), or give probabilities to {DENSE}"),
    ),
    "half indices": (
        "sparse", {"labels": Y.bfloat16()}, TypeError,
        (f"labels have dtype bfloat16, and {SPARSE} takes class indices, which are integers: pass "
         f"labels.to(torch.int64) if they are indices stored as floats (WL208), or give probabilities to {DENSE} "
         "(bfloat16 cannot hold every index above 256)"),
    ),
    "truth values as indices": (
        "sparse", {"labels": Y > 0}, TypeError,
        (f"labels have dtype bool, and {SPARSE} takes class indices, which are integers: pass labels.to(torch.int64), "
         "with False as class 0 and True as class 1"),
    ),
    "complex labels": (
        "softmax", {"labels": Z.to(torch.complex64)}, TypeError,
        "labels have dtype complex64, where booleans, integers or real floating-point numbers are expected",
    ),
    "integer logits": (
        "sparse", {"logits": X.long()}, TypeError,
        ("logits have dtype int64, where float16, bfloat16, float32 or float64 is expected; if labels and logits were "
         "not swapped, pass logits.to(torch.float32)"),
    ),
    "complex logits": (
        "sigmoid", {"logits": X.to(torch.complex64)}, TypeError,
        ("logits have dtype complex64, where float16, bfloat16, float32 or float64 is expected; a loss of complex "
         "numbers is not defined: pass logits.real if that is meant"),
    ),
    "8 bits": (
        "sigmoid", {"logits": X.to(torch.float8_e4m3fn)}, TypeError,
        ("logits have dtype float8_e4m3fn, where float16, bfloat16, float32 or float64 is expected; pass "
         "logits.to(torch.float32)"),
    ),
    "labels elsewhere": (
        "sparse", {"labels": Y.to("meta")}, ValueError,
        "labels are on meta and logits on cpu: pass labels.to(logits.device)",
    ),
    "logits elsewhere": (
        "sigmoid", {"logits": X.to("meta")}, ValueError,
        "labels are on cpu and logits on meta: pass labels.to(logits.device)",
    ),
    "weights elsewhere": (
        "sparse", {"class_weight": torch.ones(3, device="meta")}, ValueError,
        "class_weight is on meta and logits on cpu: pass class_weight.to(logits.device)",
    ),
    "a class weight to learn": (
        "sparse", {"class_weight": torch.ones(3, requires_grad=True)}, ValueError,
        ("class_weight requires a gradient, which the losses do not give for weights: pass class_weight.detach(); to "
         'learn a weight of each loss, multiply it with the losses of reduction="none"'),
    ),
    "a pos_weight to learn": (
        "sigmoid", {"pos_weight": torch.nn.Parameter(torch.ones(3))}, ValueError,
        ("pos_weight requires a gradient, which the losses do not give for weights: pass pos_weight.detach(); to learn "
         'a weight of each loss, multiply it with the losses of reduction="none"'),
    ),
    "a negative weight": (
        "sparse", {"class_weight": torch.tensor([1.0, -2.0, 1.0])}, ValueError,
        "class_weight[1] is -2.0, where a finite weight of 0 or more is expected",
    ),
    "a negative number as weight": (
        "sparse", {"sample_weight": torch.tensor(-1.0)}, ValueError,
        "sample_weight is -1.0, where a finite weight of 0 or more is expected",
    ),
    "an infinite weight": (
        "sigmoid", {"sample_weight": torch.tensor([[1.0], [2.0], [3.0], [torch.inf]])}, ValueError,
        "sample_weight[3, 0] is inf, where a finite weight of 0 or more is expected",
    ),
    "a weight that is NaN": (
        "softmax", {"sample_weight": torch.tensor(torch.nan, dtype=torch.bfloat16)}, ValueError,
        "sample_weight is nan, where a finite weight of 0 or more is expected",
    ),
    "sparse logits": (
        "sparse", {"logits": X.to_sparse()}, TypeError,
        "logits are a sparse coo tensor, where a dense one is expected: pass logits.to_dense()",
    ),
    "sparse labels": (
        "softmax", {"labels": Z.to_sparse()}, TypeError,
        "labels are a sparse coo tensor, where a dense one is expected: pass labels.to_dense()",
    ),
    "nested logits": (
        "sparse", {"logits": nested(X[:3], X[:1])}, TypeError,
        ("logits are a nested tensor, where a dense one is expected: pass logits.to_padded_tensor(0.0), and "
         "sample_weight=0 for the padding"),
    ),
    "nested labels": (
        "sigmoid", {"labels": nested(Z[:3], Z[:1])}, TypeError,
        ("labels are a nested tensor, where a dense one is expected: pass labels.to_padded_tensor(0.0), and "
         "sample_weight=0 for the padding"),
    ),
    "a label out of range": (
        "sparse", {"labels": torch.tensor([0, 2, 12, 5])}, ValueError,
        (
            "labels[2] = 12 is outside [0, 3) for logits with 3 classes; "
            "the logits lack classes, or the labels want another numbering (WL206); "
            "to skip padding pass ignore_index=12 (WL207)"
        ),
    ),
    "a label below 0, kept": (
        "sparse", {"labels": torch.tensor([[0], [-100], [1], [1]]), "reduction": "mean"}, ValueError,
        (
            "labels[1, 0] = -100 is outside [0, 3) for logits with 3 classes; "
            "to skip padding pass ignore_index=-100 (WL207)"
        ),
    ),
    "labels from 1": (
        "sparse", {"labels": torch.tensor([1, 2, 3, 1], dtype=torch.uint16)}, ValueError,
        ("labels[2] = 3 is outside [0, 3) for logits with 3 classes; labels that count from 1 are indices after "
         "labels - 1 (WL206)"),
    ),
    "too few indices": (
        "sparse", {"labels": Y[:2]}, ValueError,
        ("labels have shape (2,) and logits (4, 3), classes on axis 1: class indices of shape (4,) or (4, 1) are "
         "expected"),
    ),
    "one-hot indices": (
        "sparse", {"labels": torch.ones(4, 3, dtype=torch.int64)}, ValueError,
        (f"labels have shape (4, 3) and logits (4, 3), classes on axis 1: one-hot or soft labels belong to {DENSE}, "
         f"yes/no labels to {SIGMOID}; {SPARSE} takes class indices: pass labels.argmax(axis=1) if they are one-hot "
         "(WL201)"),
    ),
    "no axis": ("sparse", {"axis": 2}, ValueError, "axis 2 is outside [-2, 2) for logits of shape (4, 3)"),
    "no class": (
        "sparse", {"logits": torch.empty(4, 0)}, ValueError,
        "logits of shape (4, 0) without a class: axis 1 has length 0",
    ),
    "a label column": (
        "sigmoid", {"labels": torch.ones(4, 1), "logits": torch.ones(4)}, ValueError,
        "labels have shape (4, 1) and logits (4,): broadcast, they would be (4, 4); pass labels[..., 0] (WL210)",
    ),
    "a class weight too many": (
        "softmax", {"class_weight": torch.ones(4)}, ValueError,
        "class_weight has shape (4,), where (3,) is expected: one weight for each class",
    ),
    "a sample weight that does not fit": (
        "softmax", {"sample_weight": torch.ones(4, 1)}, ValueError,
        ("sample_weight has shape (4, 1), which does not broadcast to (4,), the shape of the loss: pass "
         "sample_weight[..., 0]"),
    ),
    "words": ("sparse", {"labels": ["a"] * 4}, TypeError, "labels cannot be made an array: "),
}  # fmt: skip


@pytest.mark.parametrize("name", ERRORS)
def test_the_text_of_an_error(name: str) -> None:
    loss, change, kind, text = ERRORS[name]
    given = {"labels": Y if loss == "sparse" else Z, "logits": X, **change}
    for call in (LOSSES[loss], value_and_grad(LOSSES[loss])):
        with pytest.raises(kind) as caught:
            call(**given)
        assert str(caught.value) == text if name != "words" else str(caught.value).startswith(text)


def test_arrays_of_two_libraries() -> None:
    """NumPy labels beside tensors become tensors; tensors beside NumPy logits are refused: a gradient would be lost."""
    assert torch.equal(LOSSES["sparse"](labels=Y.numpy(), logits=X), LOSSES["sparse"](labels=Y, logits=X))
    assert torch.equal(
        LOSSES["sparse"](labels=Y.tolist(), logits=X, class_weight=[1, 2, 3], sample_weight=np.float16(2)),
        LOSSES["sparse"](labels=Y, logits=X, class_weight=torch.tensor([1.0, 2.0, 3.0]), sample_weight=2.0),
    )
    with pytest.raises(
        TypeError, match=r"^labels are an array of PyTorch, where the logits are of NumPy: pass both as"
    ):
        LOSSES["sparse"](labels=Y, logits=X.numpy())
    with pytest.raises(TypeError, match=r"^class_weight is an array of PyTorch, where the logits are of NumPy"):
        LOSSES["sparse"](labels=Y.numpy(), logits=X.numpy(), class_weight=torch.ones(3))


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "logit"])
def test_errors_of_activations(name: str) -> None:
    word = "p" if name == "logit" else "x"
    with pytest.raises(TypeError, match=rf"^{word} has dtype int64, .* pass {word}\.to\(torch\.float32\)$"):
        getattr(withlogits, name)(Y)
    with pytest.raises(TypeError, match=rf"^{word} is a sparse coo tensor, where a dense one is expected"):
        getattr(withlogits, name)(X.to_sparse())


@pytest.mark.parametrize("loss", ["sparse", "sigmoid"])
def test_the_name_of_a_call_is_in_the_profile(loss: str) -> None:
    given = {"labels": Y if loss == "sparse" else Z, "logits": X}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], acc_events=True) as profile:
        value = LOSSES[loss](name="the loss of the head", **given)
    assert "the loss of the head" in {event.name for event in profile.events()}
    assert torch.equal(value, LOSSES[loss](**given))


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_where_nobody_may_wait_a_label_out_of_range_is_nan(reduction: str) -> None:
    """In the formulas, which other devices run: no wrong number, no gradient of such a row. The CPU still raises."""
    case = Case("sparse", "", {"reduction": reduction, "ignore_index": -1})
    labels = torch.tensor([0, 7, -1, 2])

    with pytest.raises(ValueError, match=r"^labels\[1\] = 7 is outside \[0, 3\)"), operators():
        case(labels, X)
    on_meta = torch.func.grad(lambda x: case(labels.to("meta"), x).sum())(X.to("meta"))
    assert on_meta.shape == X.shape
    from withlogits.formulas import Softmax, SoftmaxArrays
    from withlogits.frameworks.torch import namespace
    from withlogits.options import SoftmaxOptions

    loss = Softmax(namespace, SoftmaxArrays(X, labels), SoftmaxOptions(1, True, ignore_index=-1))
    rows, (gradient, _) = loss.losses(), loss.gradients(torch.ones(4), True, False)
    assert rows.isnan().tolist() == [False, True, False, False]
    assert (gradient != 0).any(1).tolist() == [True, False, False, True]


# ------------------------------------------------------------------------------------------------- value_and_grad, out


@pytest.mark.parametrize("case", [c for c in CASES if c.loss != "weighted"], ids=str)
def test_out_takes_the_gradient(case: Case) -> None:
    labels, logits = case.tensors(np.float32)
    both = value_and_grad(case.function)
    options = case.of_tensors().keywords
    value, gradient = both(labels=labels, logits=logits, **options)
    shape = [2 * n for n in logits.shape]
    places = [
        torch.full_like(logits, 7.0),
        torch.full(shape, 7.0)[tuple(slice(None, None, 2) for _ in shape)],
        torch.full(logits.shape[::-1], 7.0).permute(tuple(range(logits.dim()))[::-1]),
        logits.clone(),
    ]
    for out in places:
        given, version = (out if out is places[-1] else logits), out._version
        got, same = both(labels=labels, logits=given, out=out, **options)
        assert same is out
        assert out._version > version
        torch.testing.assert_close(out, gradient, rtol=0, atol=0)
        torch.testing.assert_close(got, value, rtol=0 if out is places[0] else 3e-7, atol=0)


def test_out_of_each_dtype_and_with_labels() -> None:
    both = value_and_grad(LOSSES["softmax"], ("labels", "logits"))
    for dtype in DTYPES.values():
        out = torch.empty(4, 3, dtype=dtype)
        value, (dz, dx) = both(labels=Z, logits=X.to(dtype), reduction="mean", out=out)
        same, expected = both(labels=Z, logits=X.to(dtype), reduction="mean")
        assert dx is out
        assert torch.equal(value, same)
        assert torch.equal(dx, expected[1])
        assert torch.equal(dz, expected[0])


MEMORY = torch.zeros(8, 3)
OUTS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "an array": (np.empty((4, 3), np.float32), {}, r"^out must be a torch\.Tensor, and is a ndarray"),
    "another shape": (
        torch.empty(3, 4),
        {},
        r"^out must be of shape \(4, 3\) and dtype float32 on cpu, and is of shape",
    ),
    "another dtype": (torch.empty(4, 3, dtype=torch.float64), {}, r"and is of shape \(4, 3\) and dtype float64 on cpu"),
    "another device": (torch.empty(4, 3, device="meta"), {}, "and dtype float32 on meta"),
    "a parameter": (torch.ones(4, 3, requires_grad=True), {}, r"takes no part in autograd, and is one that requires"),
    "overlapping": (torch.zeros(3).expand(4, 3), {}, r"without overlap in its own memory, and is a view with strides"),
    "part of the logits": (MEMORY[1:5], {"logits": MEMORY[:4]}, "^out shares memory with logits: pass an array of its"),
    "the labels": (Z, {"labels": Z}, "^out shares memory with labels: pass an array of its own"),
    "a weight": (MEMORY[4:], {"sample_weight": MEMORY[4:6].view(-1)[:4]}, "^out shares memory with sample_weight"),
}


@pytest.mark.parametrize("name", OUTS)
def test_outs_that_do_not_fit(name: str) -> None:
    out, change, text = OUTS[name]
    with pytest.raises(ValueError, match=text):
        value_and_grad(LOSSES["softmax"])(**{"labels": Z.clone(), "logits": X, **change}, out=out)


def test_a_small_loss_whose_logits_or_labels_were_changed_has_no_other_gradient() -> None:
    text = (
        "^logits or labels have been modified by an inplace operation since the loss was computed, and its gradient "
        "needs them: change a copy, or change them after the backward pass$"
    )
    for changed in ("logits", "labels"):
        given = {"labels": Y.clone(), "logits": tensor(X.numpy(), True) * 1.0}
        for _ in range(2):  # the second time it is known
            value = LOSSES["sparse"](**given, reduction="mean")
        given[changed].zero_()
        with pytest.raises(RuntimeError, match=text):
            (3.0 * value).backward()


def test_out_is_not_touched_by_an_error_and_tells_autograd_of_a_change() -> None:
    out = torch.full((4, 3), 7.0)
    with pytest.raises(ValueError, match=r"^labels\[3\] = 9"):
        value_and_grad(LOSSES["sparse"])(labels=torch.tensor([0, 1, 2, 9]), logits=X, out=out)
    assert (out == 7.0).all()
    with pytest.raises(ValueError, match=r"^out takes the gradient of the logits, which wrt does not name"):
        value_and_grad(LOSSES["softmax"], "labels")(labels=Z, logits=X, out=out)
    x = tensor(X.numpy(), True)
    logits = x * 1.0
    squared = (logits**2).sum()
    value_and_grad(LOSSES["sparse"])(labels=Y, logits=logits.detach(), out=logits.detach())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        squared.backward()
