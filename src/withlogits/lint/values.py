"""What an expression means, as far as it matters to a loss, and the scopes in which names have these meanings."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field, replace

from withlogits.lint.table import Kind, Loss, Takes


@dataclass(frozen=True, slots=True)
class Imported:
    """A module of a library, or a name in it: "torch.nn.functional"."""

    path: str


@dataclass(frozen=True, slots=True)
class Numbers:
    """An array, and the expression that gave it its kind."""

    kind: Kind
    made: ast.expr = field(compare=False)


@dataclass(frozen=True, slots=True)
class Several:
    """A list or a tuple as it is written."""

    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer or a model whose calls give arrays of one kind; None is any kind."""

    gives: Kind | None
    made: ast.expr = field(compare=False)
    compiled: LossFunction | None = None


@dataclass(frozen=True, slots=True)
class LossFunction:
    """A function or an object that computes a loss; `takes` is None if `from_logits` is not known."""

    path: str
    row: Loss
    takes: Takes | None


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the file, or a method of one of its classes."""

    node: ast.FunctionDef | ast.AsyncFunctionDef
    scope: Scope  # in which it is defined
    owner: Class | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Class:
    """A class of the file."""

    node: ast.ClassDef
    scope: Scope
    bases: tuple[Value, ...]
    methods: dict[str, Function] = field(default_factory=dict)
    fields: Names = field(default_factory=dict)  # what its body binds


@dataclass(frozen=True, slots=True)
class Instance:
    """An object of a class of the file."""

    of: Class
    compiled: LossFunction | None = None


Value = Imported | Numbers | Several | Layer | LossFunction | Function | Class | Instance | None  # None: unknown
Names = dict[str, Value]


@dataclass(eq=False, slots=True)
class Scope:
    """The names of a module or a function: what each means at the point that was reached, and all that it was bound to.

    `self.x` has an entry too, under that text.
    """

    parent: Scope | None = None
    names: Names = field(default_factory=dict)
    bound: dict[str, list[Value]] = field(default_factory=dict)
    returns: list[Value] = field(default_factory=list)
    me: str = ""  # in a method, the name of its object

    def bind(self, name: str, value: Value) -> None:
        """Bind a name from here on."""
        self.names[name] = value
        self.bound.setdefault(name, []).append(value)

    def change(self, name: str, value: Value) -> None:
        """Replace the object that a name, or an attribute of one, stands for."""
        if "." in name:
            self.bind(name, value)
        elif name:
            self.names[name] = value

    def look_up(self, name: str) -> Value:
        """Return what a name means here; a name of an outer scope is one that has a single meaning there."""
        if name in self.names:
            return self.names[name]
        outer = self.parent
        while outer is not None:
            if name in outer.bound:
                every = outer.bound[name]
                return outer.names.get(name) if len(every) == 1 else join(every)
            outer = outer.parent
        return None

    def visible(self) -> set[str]:
        """The names that are bound here or in an outer scope."""
        return set(self.names) | (self.parent.visible() if self.parent else set())


def join(values: list[Value]) -> Value:
    """Return the value that is all of these, or None."""
    first = values[0] if values else None
    if all(value == first for value in values[1:]):
        return first
    if all(isinstance(value, Layer) for value in values):
        assert isinstance(first, Layer)
        return replace(first, gives=None, compiled=None)
    return None


def merged(branches: list[Names | None]) -> Names | None:
    """Return the names after branches, of which None is one that does not end here."""
    ends = [branch for branch in branches if branch is not None]
    if len(ends) < 2:
        return ends[0] if ends else None
    names = dict.fromkeys(name for branch in ends for name in branch)
    return {name: join([branch[name] for branch in ends if name in branch]) for name in names}
