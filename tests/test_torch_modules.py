"""The losses as PyTorch modules: the functions' values, options checked at construction, weights as buffers."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
from typing import Any

import pytest

import withlogits as wl

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from withlogits import torch as modules  # noqa: E402

X = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0], [2.0, 2.0, -4.0], [-1.0, 0.5, 0.25]])
Y = torch.tensor([0, 2, -1, 1])
Z = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
W = torch.tensor([0.5, 1.0, 2.0])
S = torch.tensor([1.0, 2.0, 0.0, 0.5])

SOFTMAX = {
    "axis": 0,
    "class_weight": W,
    "class_offset": torch.tensor([0.5, -1.0, 0.25]),
    "label_smoothing": 0.1,
    "temperature": 2.0,
    "softcap": 3.0,
    "z_loss": 0.01,
    "reduction": "mean",
}
CASES: dict[str, tuple[Any, Any, Any, dict[str, Any]]] = {
    "SigmoidCrossEntropy": (
        wl.sigmoid_cross_entropy_with_logits,
        Z.T,
        S,
        {"pos_weight": W[:, None], "label_smoothing": 0.1, "ignore_index": 1, "reduction": "mean"},
    ),
    "SoftmaxCrossEntropy": (wl.softmax_cross_entropy_with_logits, Z.T, S, SOFTMAX),
    "SparseSoftmaxCrossEntropy": (
        wl.sparse_softmax_cross_entropy_with_logits,
        Y,
        S,
        {**SOFTMAX, "ignore_index": -1},
    ),
}
each_module = pytest.mark.parametrize("name", CASES)


@each_module
def test_the_value_and_the_gradient_of_the_function(name: str) -> None:
    function, labels, sample_weight, options = CASES[name]
    answers = []
    for loss in (getattr(modules, name)(**options), lambda **given: function(**given, **options)):
        logits = X.T.clone().requires_grad_()
        value = loss(labels=labels, logits=logits, sample_weight=sample_weight)
        answers.append((value.detach(), *torch.autograd.grad(value, logits)))
    assert all(a.equal(b) for a, b in zip(*answers, strict=True))
    # without an option, and without a sample weight
    if name != "SparseSoftmaxCrossEntropy":
        plain = getattr(modules, name)()
        assert plain(labels=labels, logits=X.T).equal(function(labels=labels, logits=X.T))


@each_module
def test_the_options_are_those_of_the_function(name: str) -> None:
    function, _, _, options = CASES[name]
    given = dict.fromkeys(("labels", "logits", "sample_weight"))
    asked = inspect.signature(function).parameters
    offered = inspect.signature(getattr(modules, name)).parameters
    assert offered.keys() == asked.keys() - given.keys() - {"name", "dim"} == options.keys()
    for option, parameter in offered.items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert parameter.default == asked[option].default
    with pytest.raises(TypeError):
        getattr(modules, name)(0.1)
    called = inspect.signature(getattr(modules, name).forward).parameters
    assert list(called) == ["self", *given]


@each_module
def test_a_positional_call_shows_the_right_one(name: str) -> None:
    _, labels, _, _ = CASES[name]
    loss = getattr(modules, name)()
    with pytest.raises(TypeError) as error:
        loss(X, labels)
    assert str(error.value) == (
        f"{name}(...) takes its arguments by keyword, since labels and logits are easily swapped: "
        f"{name}(...)(labels=..., logits=...)"
    )
    with pytest.raises(TypeError, match=r"sample_weight=\.\.\."):
        loss(labels, logits=X, sample_weight=S)
    with pytest.raises(TypeError, match=r"logits"):
        loss(labels=labels)


WRONG = [
    ({"label_smoothing": 1.5}, ValueError, "label_smoothing is 1.5"),
    ({"label_smoothing": "much"}, TypeError, "label_smoothing is 'much'"),
    ({"reduction": "average"}, ValueError, "reduction is 'average'"),
]
WRONG_SOFTMAX = [
    *WRONG,
    ({"axis": 1.5}, TypeError, "axis is 1.5"),
    ({"axis": 64}, ValueError, "axis 64 is outside"),
    ({"temperature": 0.0}, ValueError, "temperature is 0.0"),
    ({"softcap": -1.0}, ValueError, "softcap is -1.0"),
    ({"z_loss": math.inf}, ValueError, "z_loss is inf"),
    ({"class_weight": torch.tensor([1.0, -1.0])}, ValueError, r"class_weight\[1\] is -1.0"),
    ({"class_weight": W[None]}, ValueError, r"class_weight has shape \(1, 3\)"),
    ({"class_weight": 2.0}, ValueError, r"class_weight has shape \(\)"),
    ({"class_weight": W.cfloat()}, TypeError, "class_weight has dtype complex64"),
    ({"class_weight": W.clone().requires_grad_()}, ValueError, "class_weight requires a gradient"),
]
WRONG_SIGMOID = [
    *WRONG,
    ({"pos_weight": -1.0}, ValueError, "pos_weight is -1.0"),
    ({"pos_weight": torch.tensor([1.0, math.nan])}, ValueError, r"pos_weight\[1\] is nan"),
    ({"pos_weight": "heavy"}, TypeError, "pos_weight cannot be made an array"),
]


@pytest.mark.parametrize(
    ("name", "options", "error", "text"),
    [
        *(("SigmoidCrossEntropy", *wrong) for wrong in WRONG_SIGMOID),
        *(("SoftmaxCrossEntropy", *wrong) for wrong in WRONG_SOFTMAX),
        *(("SparseSoftmaxCrossEntropy", *wrong) for wrong in WRONG_SOFTMAX),
        ("SparseSoftmaxCrossEntropy", {"ignore_index": 0.5}, TypeError, "ignore_index is 0.5"),
    ],
)
def test_options_are_checked_at_construction(name: str, options: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        getattr(modules, name)(**options)


def test_the_text_shows_what_differs_from_the_defaults() -> None:
    assert repr(modules.SoftmaxCrossEntropy()) == "SoftmaxCrossEntropy()"
    loss = modules.SparseSoftmaxCrossEntropy(axis=1, class_weight=W, ignore_index=-100, label_smoothing=0.1)
    assert repr(loss) == (
        "SparseSoftmaxCrossEntropy(axis=1, class_weight=tensor of shape (3,), label_smoothing=0.1, ignore_index=-100)"
    )
    assert repr(modules.SigmoidCrossEntropy(pos_weight=[1, 2])) == (
        "SigmoidCrossEntropy(pos_weight=tensor of shape (2,))"
    )


@each_module
def test_weights_are_buffers_of_their_own(name: str) -> None:
    _, _, _, options = CASES[name]
    (key,) = (option for option in options if option.endswith("weight"))
    given = options[key].clone()
    others = {option: value for option, value in options.items() if option != "class_offset"}
    loss = getattr(modules, name)(**{**others, key: given})
    assert not list(loss.parameters())
    assert list(loss.state_dict()) == [key]
    loss.load_state_dict({key: 2.0 * given})
    assert getattr(loss, key).equal(2.0 * given)
    assert given.equal(options[key])
    with pytest.raises(RuntimeError, match=f'Unexpected key\\(s\\) in state_dict: "{key}"'):
        getattr(modules, name)().load_state_dict(loss.state_dict())
    assert getattr(loss.double(), key).dtype == torch.float64
    assert getattr(loss.to("meta"), key).is_meta
    assert not getattr(modules, name)().state_dict()


@each_module
def test_copies_and_pickles(name: str) -> None:
    _, labels, sample_weight, options = CASES[name]
    loss = getattr(modules, name)(**options)
    given = {"labels": labels, "logits": X.T, "sample_weight": sample_weight}
    for again in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert repr(again) == repr(loss)
        assert again(**given).equal(loss(**given))


def test_weights_may_be_lists_and_numbers() -> None:
    loss = modules.SparseSoftmaxCrossEntropy(class_weight=[1, 2, 3])
    assert loss.class_weight is not None
    assert loss.class_weight.dtype == torch.float32
    assert modules.SigmoidCrossEntropy(pos_weight=3.0)(labels=Z, logits=X).shape == (4, 3)


def test_they_stand_in_a_model() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(3, 3)
            self.loss = modules.SparseSoftmaxCrossEntropy(class_weight=W, ignore_index=-1, reduction="mean")

        def forward(self, inputs: Any, labels: Any) -> Any:
            return self.loss(labels=labels, logits=self.layer(inputs))

    model = Model()
    assert "loss.class_weight" in model.state_dict()
    model(X, Y).backward()
    assert model.layer.weight.grad is not None
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X, Y), model(X, Y))


def test_numbers_and_lists_are_exact_and_follow_to_a_device_without_float64() -> None:
    given: dict[str, Any] = {"labels": torch.tensor([0.3]).double(), "logits": torch.tensor([0.7]).double()}
    module = modules.SigmoidCrossEntropy(pos_weight=0.1)
    assert module(**given).equal(wl.sigmoid_cross_entropy_with_logits(pos_weight=0.1, **given))

    def move(tensor: Any) -> Any:
        if tensor.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return tensor.clone()

    module._apply(move)
    assert module.pos_weight is not None
    assert module.pos_weight.dtype == torch.float32
