"""WL401 and WL402: what only a model in PyTorch can tell."""

from __future__ import annotations

from typing import Any

import numpy as np

from guide.corpus.cases import Pair, mistake
from guide.corpus.classifiers import data


def examples(task: str, count: int = 256) -> tuple[Any, Any]:
    """Held-out inputs and labels as tensors."""
    import torch

    _, _, x, y = data(task)
    return torch.from_numpy(np.array(x[:count])), torch.from_numpy(np.array(y[:count]))


def layers(inputs: int, outputs: int) -> list[Any]:
    """A network with one hidden layer and random weights, the same at every call."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(inputs + outputs)
        return [torch.nn.Linear(inputs, 32), torch.nn.ReLU(), torch.nn.Linear(32, outputs)]


def taught(model: Any, x: Any, y: Any, binary: bool = False) -> Any:
    """The model after thirty steps with its head, of whatever make, in place."""
    import torch

    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    loss = torch.nn.functional.binary_cross_entropy_with_logits if binary else torch.nn.functional.cross_entropy
    for _ in range(30):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    return model


def judged(task: str, body: Any, tail: Any, labels: Any = None, tell_model: bool = True, **options: Any) -> Pair:
    """A trained model without its tail is what should be; with it, what is."""
    import torch

    x, y = examples(task)
    labels = y if labels is None else labels(y)
    taught(body, x, labels, binary=options.get("loss") == "sigmoid")
    model = torch.nn.Sequential(body, tail)
    healed = Pair(labels, body(x), {**options, "model": body} if tell_model else options)
    return Pair(labels, model(x), {**options, "model": model} if tell_model else options, healed)


def column(y: Any) -> Any:
    return y.float()[:, None]


# WL401


@mistake("WL401", torch=True)
def a_softmax_at_the_end() -> Pair:
    import torch

    return judged("digits", torch.nn.Sequential(*layers(64, 10)), torch.nn.Softmax(dim=-1), loss="sparse")


@mistake("WL401", torch=True)
def a_softmax_at_the_end_and_no_model_told() -> Pair:
    import torch

    body = torch.nn.Sequential(*layers(13, 3))
    return judged("wine", body, torch.nn.Softmax(dim=1), tell_model=False)


@mistake("WL401", torch=True)
def a_sigmoid_at_the_end() -> Pair:
    import torch

    return judged("tumours", torch.nn.Sequential(*layers(30, 1)), torch.nn.Sigmoid(), labels=column, loss="sigmoid")


@mistake("WL401", torch=True)
def a_sigmoid_and_a_squeeze() -> Pair:
    import torch

    x, y = examples("tumours")
    body = taught(torch.nn.Sequential(*layers(30, 1)), x, column(y), binary=True)
    options = {"loss": "sigmoid", "model": body}
    return Pair(y.float(), torch.sigmoid(body(x)).squeeze(-1), options, Pair(y.float(), body(x).squeeze(-1), options))


@mistake("WL401", "", torch=True)
def a_log_softmax_at_the_end() -> Pair:
    import torch

    return judged("digits", torch.nn.Sequential(*layers(64, 10)), torch.nn.LogSoftmax(dim=-1), loss="sparse")


@mistake("WL401", torch=True)
def a_softmax_and_a_view() -> Pair:
    import torch

    x, y = examples("twenty", 240)
    body = torch.nn.Sequential(*layers(64, 20))
    options = {"loss": "sparse", "model": body}
    labels = y.view(24, 10)
    return Pair(
        labels, torch.softmax(body(x), -1).view(24, 10, 20), options, Pair(labels, body(x).view(24, 10, 20), options)
    )


@mistake("WL401", torch=True)
def a_softmax_over_channels_and_a_permutation() -> Pair:
    import torch

    x, _ = examples("digits", 64)
    images = x.view(64, 1, 8, 8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Conv2d(1, 3, 3, padding=1)
    labels = (torch.arange(3).view(3, 1, 1, 1) * (images[:, 0] > 0.5)).amax(0) // 2 + (images[:, 0] > 0)
    options = {"loss": "sparse", "model": model}
    right = model(images).permute(0, 2, 3, 1)
    return Pair(labels, model(images).softmax(1).permute(0, 2, 3, 1), options, Pair(labels, right, options))


@mistake("WL401", torch=True)
def a_softmax_in_bfloat16_and_a_cast() -> Pair:
    import torch

    x, y = examples("digits", 128)
    body = torch.nn.Sequential(*layers(64, 10)).bfloat16()
    options = {"loss": "sparse", "model": body}
    right = body(x.bfloat16())
    return Pair(y, right.softmax(-1).float(), options, Pair(y, right.float(), options))


# WL402


def cut(tail: Any, task: str = "digits", outputs: int = 10) -> Pair:
    """The logits of a model after a tail that lets no gradient through."""
    import torch

    x, y = examples(task)
    model = taught(torch.nn.Sequential(*layers(x.shape[1], outputs)), x, y)
    options = {"loss": "sparse", "model": model}
    return Pair(y, tail(model(x)), options, Pair(y, model(x), options))


@mistake("WL402", torch=True)
def a_detach_before_the_loss() -> Pair:
    return cut(lambda logits: logits.detach())


@mistake("WL402", torch=True)
def by_way_of_numpy() -> Pair:
    import torch

    return cut(lambda logits: torch.tensor(logits.detach().numpy()), "wine", 3)


@mistake("WL402", torch=True)
def the_predicted_class_in_one_hot() -> Pair:
    import torch

    return cut(lambda logits: torch.nn.functional.one_hot(logits.argmax(-1), 10).float())


@mistake("WL402", torch=True)
def the_predicted_class_itself() -> Pair:
    import torch

    x, y = examples("tumours")
    model = taught(torch.nn.Sequential(*layers(30, 2)), x, y)
    right = Pair(y, model(x), {"loss": "sparse", "model": model})
    return Pair(y.float(), model(x).argmax(-1).float(), {"loss": "sigmoid", "model": model}, right)


@mistake("WL402", torch=True)
def a_forward_pass_without_gradients() -> Pair:
    import torch

    x, y = examples("twenty")
    model = taught(torch.nn.Sequential(*layers(64, 20)), x, y)
    options = {"loss": "sparse", "model": model}
    with torch.no_grad():
        return Pair(y, model(x), options, Pair(y, _with_gradients(model, x), options))


def _with_gradients(model: Any, x: Any) -> Any:
    import torch

    with torch.enable_grad():
        return model(x)


@mistake("WL402", torch=True)
def the_data_of_a_tensor() -> Pair:
    return cut(lambda logits: logits.data.double(), "iris", 3)
