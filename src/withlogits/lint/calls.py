"""What a call gives, by the tables, when the values of its arguments are known."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from withlogits.lint import table
from withlogits.lint.syntax import root
from withlogits.lint.table import Kind, Takes
from withlogits.lint.values import Imported, Instance, Layer, LossFunction, Numbers, Scope, Several, Value

OUTPUTS = ("forward", "call", "__call__")  # the method that computes what a model gives
CHANGES = {"append", "insert", "extend", "pop", "add_module", "register_module"}  # a model, in place


class Argument(NamedTuple):
    """An argument, and what it is."""

    node: ast.expr
    value: Value


class Arguments(NamedTuple):
    """The arguments of a call; those of a starred expression have no place and no name."""

    positional: list[Argument]
    named: dict[str | None, Argument]

    @property
    def first(self) -> Argument | None:
        """The first argument, under whatever name."""
        return next(iter((*self.positional, *self.named.values())), None)

    @property
    def starred(self) -> bool:
        """Whether places or names are unknown."""
        return None in self.named or any(isinstance(each.node, ast.Starred) for each in self.positional)

    def by_name(self, order: Sequence[str]) -> dict[str | None, Argument]:
        """Return the arguments by name, the positional ones in this order; none if some are unknown."""
        return {} if self.starred else {**dict(zip(order, self.positional, strict=False)), **self.named}

    def get(self, name: str, place: int) -> Argument | None:
        """Return the argument with this name or at this place."""
        return self.named.get(name) or (self.positional[place] if place < len(self.positional) else None)


@dataclass(frozen=True)
class Use:
    """A call of a loss, or of a logarithm (without a loss); for `compile`, the model stands for its predictions."""

    node: ast.Call
    loss: LossFunction | None
    prediction: Argument | None
    labels: Argument | None
    imported: dict[str, str]  # the names of modules where the call stands, and what they name


class Calls:
    """The calls of one file; `output` returns what a model gives, and `record` keeps a use."""

    def __init__(self, output: Callable[[Value, Value], Value], record: Callable[[Use], None]) -> None:
        self.output, self.record = output, record

    def of_library(self, node: ast.Call, path: str, given: Arguments, scope: Scope) -> Value:
        """Return what a library's function or class gives."""
        first = given.first.value if given.first else None
        if path in table.LOSSES:
            return self.of_loss(node, loss_function(path, table.LOSSES[path].order, given), given, scope)
        if target := table.CLASSES.get(path):
            if target in table.LOSSES:
                return loss_function(target, table.LOSSES[target].order[2:], given)
            return Layer(table.FUNCTIONS[target], node)
        if path in table.FUNCTIONS:
            return self.computed(node, table.FUNCTIONS[path], given.first, scope)
        if path in table.LAYERS:
            return Layer(table.LAYERS[path], node)
        if path in table.ACTIVATED_LAYERS:
            return Layer(activation(given, table.ACTIVATED_LAYERS[path]), node)
        if path in table.SEQUENTIAL:
            return self.last(first.values if isinstance(first, Several) else [p.value for p in given.positional], node)
        if path in table.FUNCTIONAL:
            outputs = given.get("outputs", 1)
            if outputs is not None and isinstance(outputs.value, Numbers):
                return Layer(outputs.value.kind, outputs.value.made)
            return Layer(None, node)
        if path == "collections.OrderedDict" or (path in table.WRAPPERS and isinstance(first, Layer | Instance)):
            return first
        return None

    def last(self, parts: Sequence[Value], node: ast.expr) -> Layer:
        """Return the layer that layers one after another are; a part may have a name before it."""
        for part in reversed(parts):
            layer = part.values[-1] if isinstance(part, Several) and part.values else part
            if isinstance(layer, Layer) and layer.gives is Kind.SAME:
                continue
            found = self.output(layer, None)
            return Layer(found.kind, found.made) if isinstance(found, Numbers) else Layer(None, node)
        return Layer(Kind.SAME, node)

    def of_array(self, node: ast.Call, func: ast.Attribute, base: Value, scope: Scope) -> Value:
        """Return what a method of an array gives; of an unknown object, if it is called as arrays' methods are."""
        kind = table.METHODS.get(func.attr)
        if kind is None or not isinstance(base, Numbers | None):
            return None
        if base is None:
            alike = all(isinstance(part, ast.Constant | ast.UnaryOp) for part in node.args)
            return Numbers(kind, node) if alike and kind not in (Kind.SAME, Kind.LOG) else None
        if base.kind is Kind.ONE_HOT_INTEGERS and func.attr in table.TO_FLOATS:
            return Numbers(Kind.ONE_HOT, base.made)
        return self.computed(node, kind, Argument(func.value, base), scope)

    def computed(self, node: ast.Call, kind: Kind, first: Argument | None, scope: Scope) -> Value:
        """Return what a function makes of its first argument."""
        if kind not in (Kind.SAME, Kind.LOG):
            return Numbers(kind, node)
        if first is None or not isinstance(first.value, Numbers) or kind is Kind.SAME:
            return first.value if first and isinstance(first.value, Numbers) else None
        if first.value.kind not in table.LOGARITHMS:
            return None
        self.record(Use(node, None, first, None, imported(scope)))
        return Numbers(table.LOGARITHMS[first.value.kind], node)

    def of_model(
        self, node: ast.Call, func: ast.Attribute, model: Layer | Instance, given: Arguments, scope: Scope
    ) -> Value:
        """Return what a method of a model gives, and change the model."""
        name = func.attr
        first = given.first.value if given.first else None
        changed: Value = model
        if name in table.MODEL_METHODS:
            return model
        if name in OUTPUTS or (name == "apply" and isinstance(model, Instance) and "__call__" in model.of.methods):
            return self.output(model, first)
        if name == "add" and isinstance(model, Layer):
            added = self.last([first], node)
            changed = model if added.gives is Kind.SAME else replace(added, compiled=model.compiled)
        elif name in CHANGES:
            changed = replace(model, gives=None) if isinstance(model, Layer) else None
        elif name == "compile" and (chosen := given.get("loss", 1)):
            loss = compiled_loss(chosen)
            changed = replace(model, compiled=loss)
            if loss is not None:
                self.record(Use(node, loss, Argument(func.value, self.output(model, None)), None, imported(scope)))
        elif name == "fit" and model.compiled is not None:
            self.record(Use(node, model.compiled, None, given.get("y", 1), imported(scope)))
        if changed is not model:
            scope.change(root(func), changed)
        return None

    def of_loss(self, node: ast.Call, loss: LossFunction, given: Arguments, scope: Scope) -> Value:
        """Record a call of a loss."""
        if not given.starred:
            arguments = given.by_name(loss.row.order)
            prediction, labels = arguments.get(loss.row.prediction), arguments.get(loss.row.target)
            self.record(Use(node, loss, prediction, labels, imported(scope)))
        return None


def imported(scope: Scope) -> dict[str, str]:
    """Return the names that stand for modules here, and what they name."""
    found = {name: scope.look_up(name) for name in scope.visible()}
    return {name: value.path for name, value in found.items() if isinstance(value, Imported)}


def loss_function(path: str, order: Sequence[str] = (), given: Arguments | None = None) -> LossFunction:
    """Return the loss of a row; arguments in this order may say what it takes."""
    row = table.LOSSES[path]
    takes: Takes | None = row.takes
    if row.from_logits is not None:
        argument = given.get("from_logits", order.index("from_logits")) if given else None
        from_logits = getattr(argument.node, "value", None) if argument else row.from_logits
        takes = {True: Takes.LOGITS, False: row.takes}[from_logits] if isinstance(from_logits, bool) else None
        if given and given.starred:
            takes = None
    return LossFunction(path, row, takes)


def compiled_loss(argument: Argument) -> LossFunction | None:
    """Return the loss that is passed to `compile`: an object, a function, or its name."""
    path = argument.value.path if isinstance(argument.value, Imported) else ""
    if isinstance(argument.node, ast.Constant) and isinstance(argument.node.value, str):
        path = f"keras.losses.{argument.node.value}"
    if (path := table.canonical(path)) in table.LOSSES:
        return loss_function(path)
    return argument.value if isinstance(argument.value, LossFunction) else None


def activation(given: Arguments, place: int) -> Kind | None:
    """Return what a layer gives whose activation is the argument at this place."""
    argument = given.get("activation", place)
    if argument is None or (isinstance(argument.node, ast.Constant) and argument.node.value in (None, "linear")):
        return None if given.starred else Kind.LOGITS
    path = argument.value.path if isinstance(argument.value, Imported) else ""
    if isinstance(argument.node, ast.Constant) and isinstance(argument.node.value, str):
        path = f"keras.activations.{argument.node.value}"
    found = table.FUNCTIONS.get(table.canonical(path))
    return found if found in table.PROBABILITIES | table.LOG_PROBABILITIES else None
