"""Every call that torch tests its own cross-entropies with: the drop-in beside torch, values and gradients.

The truth is torch's answer in float64 for the same numbers. In the dtype of a sample, ours may be as far from it as
torch's, and one rounding more. The only exceptions are the samples in which every row is ignored: their mean is NaN in
torch and 0 in the drop-in.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("expecttest", reason="expecttest is not installed, which torch's samples come with")

import withlogits.compat.torch as ours  # noqa: E402

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
FUNCTIONS = ["cross_entropy", "binary_cross_entropy_with_logits"]
MODULES = ["CrossEntropyLoss", "BCEWithLogitsLoss"]
Answer = list[Any]


def samples_of(kind: str) -> Any:
    """A module of torch's test suite, whose import has much to warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"torch.testing._internal.common_{kind}")


def function_samples(name: str, dtype: Any) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    torch.manual_seed(0)
    (info,) = [op for op in samples_of("methods_invocations").op_db if op.name == f"nn.functional.{name}"]
    for sample in info.sample_inputs("cpu", dtype, requires_grad=True):
        yield (sample.input, *sample.args), sample.kwargs


def module_samples(name: str, dtype: Any) -> Iterator[tuple[Any, Any]]:
    torch.manual_seed(0)
    (info,) = [m for m in samples_of("modules").module_db if m.module_cls is getattr(torch.nn, name)]
    for sample in info.module_inputs_func(info, "cpu", dtype, True, True):
        yield sample.constructor_input, sample.forward_input


def widened(x: Any) -> Any:
    """The same numbers in float64."""
    if isinstance(x, torch.Tensor) and x.is_floating_point():
        return x.detach().double().requires_grad_(x.requires_grad)
    return x


def answer(function: Callable[..., Any], args: Any, kwargs: Any) -> Answer:
    """The loss, and the gradients under an upstream that is the same in all dtypes."""
    args = [x.detach().clone().requires_grad_(x.requires_grad) if isinstance(x, torch.Tensor) else x for x in args]
    loss = function(*args, **kwargs)
    leaves = [x for x in args if isinstance(x, torch.Tensor) and x.requires_grad]
    upstream = 1.0 + torch.arange(loss.numel()).reshape(loss.shape) % 4
    return [loss.detach(), *torch.autograd.grad(loss, leaves, upstream.to(loss.dtype))]


def compare(mine: Answer, theirs: Answer, truth: Answer) -> None:
    assert len(mine) == len(theirs) == len(truth) > 1
    for a, b, t in zip(mine, theirs, truth, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        rounding = torch.finfo(a.dtype).eps * t.abs() + slack(a.dtype, t)
        assert ((a.double() - t).abs() <= (b.double() - t).abs() + rounding).all(), (a, b, t)


def slack(dtype: Any, truth: Any) -> float:
    """For sums of what cancels, the weights of some samples being negative; and float64 is no better than its truth."""
    step = 2.0**-46 if dtype == torch.float64 else 2.0**-22
    return step * max(1.0, float(truth.abs().max()))


def nothing_counts(module: Any, target: Any) -> bool:
    return module.reduction == "mean" and bool((target == getattr(module, "ignore_index", -100)).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_on_the_samples_of_torch(name: str, dtype: Any) -> None:
    seen = 0
    for args, kwargs in function_samples(name, dtype):
        wide = [widened(x) for x in args], {key: widened(x) for key, x in kwargs.items()}
        theirs = getattr(torch.nn.functional, name)
        compare(answer(getattr(ours, name), args, kwargs), answer(theirs, args, kwargs), answer(theirs, *wide))
        seen += 1
    assert seen >= 20


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", MODULES)
def test_modules_on_the_samples_of_torch(name: str, dtype: Any) -> None:
    seen = 0
    for made, given in module_samples(name, dtype):
        module, theirs, wide = (
            c(*map(f, made.args), **{k: f(x) for k, x in made.kwargs.items()})
            for c, f in (
                (getattr(ours, name), lambda x: x),
                (getattr(torch.nn, name), lambda x: x),
                (getattr(torch.nn, name), widened),
            )
        )
        args = given.args
        if nothing_counts(module, args[1]):
            loss, gradient = answer(module, args, {})
            assert loss == 0.0
            assert not gradient.any()
            assert answer(theirs, args, {})[0].isnan()
            continue
        compare(answer(module, args, {}), answer(theirs, args, {}), answer(wide, [widened(x) for x in args], {}))
        seen += 1
    assert seen >= (100 if name == "CrossEntropyLoss" else 6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_what_torch_refuses_is_refused_alike(dtype: Any) -> None:
    (info,) = [m for m in samples_of("modules").module_db if m.module_cls is torch.nn.CrossEntropyLoss]
    seen = 0
    for wrong in info.module_error_inputs_func(info, "cpu", dtype, False, True):
        made, given = wrong.module_error_input.constructor_input, wrong.module_error_input.forward_input
        module = ours.CrossEntropyLoss(*made.args, **made.kwargs)
        with pytest.raises(wrong.error_type, match=wrong.error_regex):
            module(*given.args, **given.kwargs)
        seen += 1
    assert seen >= 3
