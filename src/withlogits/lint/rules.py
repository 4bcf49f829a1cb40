"""From the uses of losses in a file to findings, with the edits that are safe.

An edit is safe if the result stays the same up to rounding, or if the code could not run before.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from withlogits.guide.findings import Finding, finding
from withlogits.lint import table
from withlogits.lint.calls import Argument, Use
from withlogits.lint.table import Kind, Labels, Takes
from withlogits.lint.text import Edit, Text
from withlogits.lint.values import LossFunction, Numbers

# Words in a name that say what it holds. A name with words of both says nothing.
LABEL_WORDS = {"label", "labels", "target", "targets", "true", "truth", "gt"}
PREDICTION_WORDS = {"logit", "logits", "pred", "preds", "prediction", "predictions", "output", "outputs", "hat"}
ACTIVATIONS = {Kind.SOFTMAX: "softmax", Kind.SIGMOID: "sigmoid", Kind.LOG_SOFTMAX: "log_softmax"}
ACTIVATIONS |= {Kind.LOG_SIGMOID: "log_sigmoid"}

# Options with which the loss of log-probabilities may be another than that of the logits.
CHANGED = {"axis", "dim", "softcap", "z_loss", None}


class Located(NamedTuple):
    """A finding, the expression that it is about, the call around it, and edits that mend it."""

    finding: Finding
    node: ast.expr
    call: ast.Call
    edits: tuple[Edit, ...] = ()


def findings(use: Use, text: Text) -> Iterator[Located]:
    """Yield what is wrong with one use."""
    if use.loss is None:
        yield from logarithm(use, text)
        return
    name = loss_name(use, use.loss, text)
    if use.loss.row.keyword_only and use.node.args:
        yield by_name(use, use.loss, name, text)
    elif swapped(use):
        yield in_order(use, use.loss, name, text)
    else:
        yield from predictions(use, use.loss, name, text)
        yield from labels(use, use.loss, name, text)


def logarithm(use: Use, text: Text) -> Iterator[Located]:
    """Yield the logarithm of a softmax or a sigmoid."""
    assert use.prediction is not None
    assert isinstance(use.prediction.value, Numbers)
    node, value = use.prediction.node, use.prediction.value
    better = "log_softmax" if value.kind is Kind.SOFTMAX else "log_sigmoid"
    evidence = f"{holds(use.prediction, text)}, of which small ones are rounded or cut off before the logarithm"
    edits: tuple[Edit, ...] = ()
    fix = f"compute {better} of the {'negated ' if isinstance(value.made, ast.BinOp) else ''}logits"
    alone = len(use.node.args) + len(use.node.keywords) <= 1
    if isinstance(node, ast.Call) and node is value.made and alone and (written := log_call(node, use, text)):
        fix = f"write `{text.one_line(written)}`"
        edits = text.edit(use.node, written, keeps=[*node.args, *node.keywords])
    yield Located(finding("WL504", evidence, fix), use.node, use.node, edits)


def log_call(node: ast.Call, use: Use, text: Text) -> str:
    """Return the text that computes the logarithm of a call of softmax or sigmoid; "" if no name leads to it."""
    arguments = [*map(text.of, node.args), *map(text.of, node.keywords)]
    owner = receiver(node)
    path = called(node, use)
    if path in table.FUNCTIONS:
        alike = path.endswith("softmax") or len(arguments) == 1
        function = spelled(table.log_function(path), use) if alike and same_library(path, use) else ""
    elif owner is None:
        return ""
    elif isinstance(node.func, ast.Attribute) and node.func.attr == "softmax":
        atom = isinstance(owner, ast.Name | ast.Attribute | ast.Call | ast.Subscript)
        function = f"{text.of(owner)}.log_softmax" if atom else f"({text.of(owner)}).log_softmax"
    else:
        function, arguments = spelled(table.LOG_SIGMOIDS["torch"], use), [text.of(owner), *arguments]
    return f"{function}({', '.join(arguments)})" if function else ""


def same_library(path: str, use: Use) -> bool:
    """Whether the logarithm is of the library of the activation, or of one with the same arrays."""
    libraries = {name.partition(".")[0] for name in (path, called(use.node, use)) if name}
    return len(libraries) == 1 or libraries in ({"numpy", "scipy"}, {"jax", "flax"})


def by_name(use: Use, loss: LossFunction, name: str, text: Text) -> Located:
    """A call with positional arguments of a function that takes them by name."""
    roles = [role(Argument(node, None)) for node in use.node.args]
    fix = f"write `{text.of(use.node.func)}(labels=..., logits=...)`"
    edits: tuple[Edit, ...] = ()
    named = {keyword.arg for keyword in use.node.keywords}
    plain = text.separators(use.node.func, *use.node.args) == [b"(", b","]  # no other parentheses, no comments
    if sorted(roles) == ["labels", "predictions"] and plain and not named & {*loss.row.order, None}:
        words = [{"labels": "labels", "predictions": "logits"}[each] for each in roles]
        edits = tuple(text.insert(node, f"{word}=") for node, word in zip(use.node.args, words, strict=True))
    evidence = f"{name} takes its arguments by name only, and gets {len(use.node.args)} without"
    return Located(finding("WL508", evidence, fix), use.node, use.node, edits)


def swapped(use: Use) -> bool:
    """Whether each argument is what the other should be; a divergence means something both ways."""
    if use.prediction is None or use.labels is None or (use.loss and use.loss.path.endswith("kl_div")):
        return False
    return role(use.prediction) == "labels" and role(use.labels) == "predictions"


def role(argument: Argument) -> str:
    """Return "labels" or "predictions", by what an argument is or how it is named; "" if that is not clear."""
    kind = argument.value.kind if isinstance(argument.value, Numbers) else None
    if kind not in (None, Kind.DECISIONS):
        return "labels" if kind in table.ONE_HOT else "predictions"
    words = words_of(name_of(argument.node))
    if words & LABEL_WORDS and not words & PREDICTION_WORDS:
        return "labels"
    return "predictions" if words & PREDICTION_WORDS and not words & LABEL_WORDS and kind is None else ""


def name_of(node: ast.expr) -> str:
    """Return the name of what an expression is taken from: `labels` of `batch.labels[0].float()`."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=owner, attr=name):
            return name if words_of(name) & (LABEL_WORDS | PREDICTION_WORDS) else name_of(owner)
        case ast.Subscript(value=owner) | ast.Call(func=ast.Attribute(value=owner)):
            return name_of(owner)
    return ""


def words_of(name: str) -> set[str]:
    """Return the words of a name in snake or camel case."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def in_order(use: Use, loss: LossFunction, name: str, text: Text) -> Located:
    """A call whose labels and predictions are swapped."""
    assert use.prediction is not None
    assert use.labels is not None
    first, second = (n for n in loss.row.order if n in (loss.row.prediction, loss.row.target))
    given = {loss.row.prediction: use.prediction.node, loss.row.target: use.labels.node}
    evidence = (
        f"{name} takes ({first}, {second}), and gets `{text.shown(given[first])}` for {first} and "
        f"`{text.shown(given[second])}` for {second}"
    )
    fix = f"swap them: `{first}={text.shown(given[second])}, {second}={text.shown(given[first])}`"
    return Located(finding("WL507", evidence, fix), use.node, use.node)


def predictions(use: Use, loss: LossFunction, name: str, text: Text) -> Iterator[Located]:
    """Yield what is wrong with the predictions."""
    argument = use.prediction
    if argument is None or not isinstance(argument.value, Numbers) or loss.takes is None:
        return
    kind, row = argument.value.kind, loss.row
    keras = row.from_logits is not None
    given = holds(argument, text, "gives" if whole_model(use.node) else "holds")
    edits: tuple[Edit, ...] = ()
    if kind is Kind.DECISIONS:
        code, evidence = "WL506", f"{name} needs the gradient of its input, and {given}"
        fix = f"pass the {loss.takes.value} to the loss, and decide where a metric needs it"
    elif loss.takes is Takes.LOGITS and kind is Kind.LOG_SOFTMAX and row.labels is not Labels.ELEMENTS:
        if not same_twice(use, loss):
            return
        code, evidence = "WL510", f"{name} applies log_softmax itself, a second time changes nothing, and {given}"
        fix = "pass the logits, without log_softmax"
        edits = unwrapped(argument, use, "target" in row.order, text)
    elif loss.takes is Takes.LOGITS and kind in ACTIVATIONS:
        activation = ACTIVATIONS[kind]
        own = "sigmoid" if row.labels is Labels.ELEMENTS else "softmax"
        code, evidence = "WL501", f"{name} takes logits and applies the {own} itself, and {given}"
        fix = f"pass the logits, without the {activation}" + (", or pass from_logits=False" if keras else "")
    elif loss.takes is Takes.PROBABILITIES and kind in {Kind.LOGITS} | table.LOG_PROBABILITIES:
        code, evidence = "WL502", f"{name} takes probabilities, and {given}"
        fix = "pass from_logits=True" if keras else "use BCEWithLogitsLoss or binary_cross_entropy_with_logits"
        if kind is not Kind.LOGITS:
            fix += ", with the logits"
    elif loss.takes is Takes.LOG_PROBABILITIES and kind in {Kind.LOGITS} | table.PROBABILITIES:
        code, evidence = "WL503", f"{name} takes log-probabilities, and {given}"
        fix = "pass log_softmax of the logits"
        if loss.path.endswith("nll_loss"):
            fix += ", or use cross_entropy with the logits"
    elif row.better and kind is Kind.SIGMOID:
        code = "WL505"
        evidence = f"{name} takes the logarithm of probabilities, which rounding makes 0 or 1, and {given}"
        better = spelled(row.better, use) or row.better.rpartition(".")[2]
        fix = f"use `{better}` (BCEWithLogitsLoss) with the logits"
        if isinstance(use.node.func, ast.Attribute) and called(use.node, use) == loss.path and spelled(row.better, use):
            edits = unwrapped(argument, use, "target" in row.order, text)
            edits = (*text.edit(use.node.func, better), *edits) if edits else ()
    else:
        return
    yield Located(finding(code, evidence, fix), argument.node, use.node, edits)


def same_twice(use: Use, loss: LossFunction) -> bool:
    """Whether a second log_softmax changes nothing: it does over another axis, and with options that see the logits."""
    if "target" in loss.row.order:  # PyTorch's losses have one axis, and no such options
        return True
    node = use.node
    return called(node, use) == loss.path and len(node.args) <= 2 and not {k.arg for k in node.keywords} & CHANGED


def unwrapped(argument: Argument, use: Use, torch: bool, text: Text) -> tuple[Edit, ...]:
    """Return the edit that leaves the activation out, if it stands in the call and is over the loss's own axis."""
    node, value = argument.node, argument.value
    if not isinstance(node, ast.Call) or not isinstance(value, Numbers) or node is not value.made:
        return ()
    parts = [*node.args, *(part.value for part in node.keywords)]
    if called(node, use) not in table.FUNCTIONS and (owner := receiver(node)) is not None:  # a method
        parts.insert(0, owner)
    if not parts:
        return ()
    inner, *options = parts
    axes = [["1"]] if torch else [[], ["-1"]]
    if list(map(ast.unparse, options)) not in ([[]] if value.kind is Kind.SIGMOID else axes):
        return ()
    if isinstance(inner, ast.NamedExpr | ast.Starred | ast.GeneratorExp | ast.Yield | ast.YieldFrom):
        return ()
    return text.edit(node, text.of(inner), keeps=[inner])


def labels(use: Use, loss: LossFunction, name: str, text: Text) -> Iterator[Located]:
    """Yield one-hot labels of a loss that takes class indices."""
    argument = use.labels
    if argument is None or not isinstance(argument.value, Numbers):
        return
    kind, takes = argument.value.kind, loss.row.labels
    if (takes is Labels.INDICES and kind in table.ONE_HOT) or (
        takes is Labels.EITHER and kind is Kind.ONE_HOT_INTEGERS
    ):
        evidence = f"{name} takes {takes.value}, and {holds(argument, text)}"
        yield Located(finding("WL509", evidence, "pass the class indices themselves"), argument.node, use.node)


# -------------------------------------------------------------------------------------------------------------- words


def holds(argument: Argument, text: Text, verb: str = "holds") -> str:
    """Return what an argument holds or a model gives, and where that comes from."""
    assert isinstance(argument.value, Numbers)
    made, node = argument.value.made, argument.node
    said = f"`{text.shown(node)}` {verb} {argument.value.kind.value}"
    (start, end), (first, last) = text.span(node), text.span(made)
    return said if start <= first and last <= end else f"{said} (`{text.shown(made)}`, line {made.lineno})"


def loss_name(use: Use, loss: LossFunction, text: Text) -> str:
    """Return the name of a loss as the call has it, and its usual name if that is another one."""
    usual = loss.path.rpartition(".")[2]
    if whole_model(use.node):
        return f"`{usual}`"
    written = text.shown(use.node.func)
    return f"`{written}`" if written.endswith(usual) else f"`{written}` ({usual})"


def whole_model(node: ast.Call) -> bool:
    """Whether the call trains a model of Keras, which computes the loss itself."""
    return isinstance(node.func, ast.Attribute) and node.func.attr in ("compile", "fit")


def receiver(node: ast.Call) -> ast.expr | None:
    """Return the object whose method is called."""
    return node.func.value if isinstance(node.func, ast.Attribute) else None


def called(node: ast.Call, use: Use) -> str:
    """Return the usual path of what is called under a dotted name."""
    names: list[str] = []
    inner: ast.expr = node.func
    while isinstance(inner, ast.Attribute):
        names.insert(0, inner.attr)
        inner = inner.value
    if not isinstance(inner, ast.Name) or inner.id not in use.imported:
        return ""
    return table.canonical(".".join([use.imported[inner.id], *names]))


def spelled(path: str, use: Use) -> str:
    """Return the shortest dotted name that leads to a function where the call stands; "" if none does."""
    names = []
    for name, module in use.imported.items():
        start = table.canonical(f"{module}.")
        if f"{path}.".startswith(start) and not module.startswith("withlogits.compat"):
            names.append(name + path[len(start) - 1 :])
    return min(names, key=lambda name: (len(name), name), default="")
