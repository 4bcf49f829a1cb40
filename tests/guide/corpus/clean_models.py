"""Clean pairs that come out of models in PyTorch: what looks like a softmax at the end, and is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from guide.corpus.cases import Pair
from guide.corpus.mistakes_models import column, examples, layers, taught

PAIRS: list[tuple[str, Callable[[], Pair]]] = []


def entered(make: Callable[[], Pair]) -> Callable[[], Pair]:
    PAIRS.append((make.__name__.replace("_", " "), make))
    return make


def simple(task: str = "digits", outputs: int = 10, count: int = 256) -> tuple[Any, Any, Any]:
    """A trained model, inputs, labels."""
    import torch

    x, y = examples(task, count)
    return taught(torch.nn.Sequential(*layers(x.shape[1], outputs)), x, y), x, y


@entered
def a_training_step() -> Pair:
    model, x, y = simple()
    return Pair(y, model(x), {"model": model})


@entered
def a_training_step_of_yes_or_no() -> Pair:
    import torch

    x, y = examples("tumours")
    model = taught(torch.nn.Sequential(*layers(30, 1)), x, column(y), binary=True)
    return Pair(y.float(), model(x).squeeze(-1), {"model": model, "loss": "sigmoid"})


@entered
def an_evaluation_without_gradients() -> Pair:
    import torch

    model, x, y = simple()
    with torch.no_grad():
        return Pair(y, model(x), {"loss": "sparse"})


@entered
def a_model_that_is_not_trained_any_more() -> Pair:
    model, x, y = simple("wine", 3)
    model.requires_grad_(False)
    return Pair(y, model(x), {"loss": "sparse", "model": model})


@entered
def a_frozen_body_and_a_head_that_learns() -> Pair:
    model, x, y = simple("twenty", 20)
    model[0].requires_grad_(False)
    return Pair(y, model(x), {"loss": "sparse", "model": model})


@entered
def an_attention_inside() -> Pair:
    import torch

    x, y = examples("digits")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        attention, head = torch.nn.Linear(8, 24), torch.nn.Linear(8, 10)
    q, k, v = attention(x.view(-1, 8, 8)).chunk(3, -1)
    mixed = torch.softmax(q @ k.mT / 8**0.5, -1) @ v
    return Pair(y, head(mixed.mean(1)), {"loss": "sparse", "model": torch.nn.ModuleList([attention, head])})


@entered
def an_attention_whose_weights_are_the_last_thing_but_one() -> Pair:
    import torch

    x, y = examples("digits")
    with torch.random.fork_rng():
        torch.manual_seed(2)
        score, values = torch.nn.Linear(64, 8), torch.nn.Parameter(torch.randn(8, 10))
    return Pair(y, torch.softmax(score(x), -1) @ values * 3, {"loss": "sparse", "model": score})


@entered
def a_gate_inside() -> Pair:
    import torch

    x, y = examples("twenty")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        value, gate = torch.nn.Linear(64, 20), torch.nn.Linear(64, 20)
    logits = value(x) * torch.sigmoid(gate(x))
    return Pair(y, logits, {"loss": "sparse", "model": torch.nn.ModuleList([value, gate])})


@entered
def a_sigmoid_in_a_hidden_layer() -> Pair:
    import torch

    x, y = examples("digits")
    first, _, last = layers(64, 10)
    model = taught(torch.nn.Sequential(first, torch.nn.Sigmoid(), last), x, y)
    return Pair(y, model(x), {"model": model})


@entered
def a_soft_cap() -> Pair:
    import torch

    model, x, y = simple()
    return Pair(y, 30 * torch.tanh(model(x) / 30), {"model": model, "loss": "sparse"})


@entered
def a_convolution_with_the_classes_second() -> Pair:
    import torch

    x, _ = examples("digits", 64)
    images = x.view(64, 1, 8, 8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Conv2d(1, 2, 3, padding=1)
    return Pair((images[:, 0] > 0.2).long(), model(images), {"model": model, "loss": "sparse", "axis": 1})


@entered
def in_bfloat16_and_cast() -> Pair:
    model, x, y = simple()
    model.bfloat16()
    return Pair(y, model(x.bfloat16()).float(), {"model": model, "loss": "sparse"})


@entered
def a_softmax_of_a_teacher_as_labels() -> Pair:
    import torch

    teacher, x, _ = simple()
    student = torch.nn.Sequential(*layers(64, 10))
    return Pair(torch.softmax(teacher(x).detach(), -1), student(x), {"model": student, "loss": "softmax"})


@entered
def scaled_and_reshaped() -> Pair:
    model, x, y = simple("twenty", 20, 240)
    return Pair(y.view(24, 10), (model(x) / 1.5).view(24, 10, 20), {"model": model})


@entered
def five_rows() -> Pair:
    model, x, y = simple("iris", 3, 5)
    return Pair(y, model(x), {"model": model})
