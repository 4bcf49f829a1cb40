"""Read a syntax tree and list what matters: calls of losses, with what their arguments are, and logarithms.

Statements are followed in their order. After branches a name keeps a meaning that all of them give it; in a loop, what
the loop binds is unknown until it is bound again. What is not understood is unknown, and nothing is said about it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

from withlogits.lint import table
from withlogits.lint.calls import OUTPUTS, Argument, Arguments, Calls, Use
from withlogits.lint.syntax import FunctionNode, children, first_name, root, unknown
from withlogits.lint.table import Kind
from withlogits.lint.values import (
    Class,
    Function,
    Imported,
    Instance,
    Layer,
    LossFunction,
    Names,
    Numbers,
    Scope,
    Several,
    Value,
    join,
    merged,
)

DEEPEST = 20  # functions that are followed into each other


class Reader:
    """The reading of one file; the names in `shared` may be bound by any function at any time."""

    def __init__(self, shared: frozenset[str] = frozenset()) -> None:
        self.shared = shared
        self.uses: dict[int, Use] = {}
        self.calls = Calls(self.output, self.record)
        self.recording = False
        self.module = Scope()
        self.waiting: list[Function] = []
        self.passed: dict[int, list[Names]] = {}
        self.returned: dict[tuple[int, int], Value] = {}
        self.attributes: dict[int, Names] = {}
        self.classes: dict[int, Class] = {}
        self.busy: set[object] = set()
        self.unknown = cache(unknown)

    def read(self, tree: ast.Module) -> list[Use]:
        """Return the uses in the order of the text."""
        self.block(tree.body, self.module)  # what the names of the module mean, for functions that stand before them
        for found in (self.waiting, self.passed, self.returned, self.attributes):
            found.clear()
        self.recording = True
        self.block(tree.body, Scope())
        while self.waiting:  # the last one first, since scripts call what stands above
            function = self.waiting.pop()
            self.run(function, self.passed.get(id(function.node), ()))
        return sorted(self.uses.values(), key=lambda use: (use.node.lineno, use.node.col_offset))

    # ----------------------------------------------------------------------------------------------------- statements

    def block(self, statements: Sequence[ast.stmt], scope: Scope) -> bool:
        """Follow statements; return whether they end the function."""
        return any(self.statement(statement, scope) for statement in statements)

    def branch(self, statements: Sequence[ast.stmt], scope: Scope, names: Names) -> Names | None:
        """Return the names after statements that begin with these names."""
        scope.names = dict(names)
        return None if self.block(statements, scope) else scope.names

    def statement(self, node: ast.stmt, scope: Scope) -> bool:
        """Follow one statement; return whether it ends the function."""
        match node:
            case ast.Import() | ast.ImportFrom():
                self.imports(node, scope)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.function(node, scope)
            case ast.ClassDef():
                self.class_(node, scope)
            case ast.Assign():
                value = self.value(node.value, scope)
                for target in node.targets:
                    self.assign(target, value, scope)
            case ast.AnnAssign() if node.value is not None:
                self.assign(node.target, self.value(node.value, scope), scope)
            case ast.AugAssign():
                self.value(node.value, scope)
                self.assign(node.target, None, scope)
            case ast.Return():
                scope.returns.append(self.value(node.value, scope) if node.value else None)
                return True
            case ast.Raise():
                self.expressions(node, scope)
                return True
            case ast.If():
                self.value(node.test, scope)
                before = scope.names
                return self.merge(scope, [self.branch(part, scope, before) for part in (node.body, node.orelse)])
            case ast.For() | ast.AsyncFor() | ast.While():
                self.loop(node, scope)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    self.value(item.context_expr, scope)
                    if item.optional_vars is not None:
                        self.assign(item.optional_vars, None, scope)
                return self.block(node.body, scope)
            case ast.Try() | ast.TryStar():
                return self.attempt(node, scope)
            case ast.Match():
                self.value(node.subject, scope)
                before = scope.names
                ends: list[Names | None] = [before]
                for case in node.cases:
                    ends.append(self.branch(case.body, scope, before | self.unknown(case.pattern)))
                self.merge(scope, ends)
            case ast.Delete():
                for target in node.targets:
                    self.assign(target, None, scope)
            case _:
                self.expressions(node, scope)
        return False

    def merge(self, scope: Scope, ends: list[Names | None]) -> bool:
        """Go on after branches; return whether none of them does."""
        names = merged(ends)
        scope.names = {} if names is None else names
        return names is None

    def loop(self, node: ast.For | ast.AsyncFor | ast.While, scope: Scope) -> None:
        """Follow the body of a loop once."""
        self.value(node.test if isinstance(node, ast.While) else node.iter, scope)
        before = scope.names
        inside = before | self.unknown(node)
        if not isinstance(node, ast.While):
            scope.names = inside
            self.assign(node.target, None, scope)
        self.merge(scope, [before, self.branch(node.body, scope, inside)])
        self.block(node.orelse, scope)

    def attempt(self, node: ast.Try | ast.TryStar, scope: Scope) -> bool:
        """Follow a `try`, whose handlers begin anywhere in its body."""
        before = scope.names
        ends = [self.branch([*node.body, *node.orelse], scope, before)]
        inside = before | self.unknown(node)
        for handler in node.handlers:
            ends.append(self.branch(handler.body, scope, inside | ({handler.name: None} if handler.name else {})))
        return self.merge(scope, ends) | self.block(node.finalbody, scope)

    def imports(self, node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
        """Bind what is imported; what a relative import names is no library's."""
        for alias in node.names:
            if isinstance(node, ast.ImportFrom):
                path = f"{'.' * node.level}{node.module or ''}.{alias.name}"
                scope.bind(alias.asname or alias.name, Imported(path))
            elif alias.asname:
                scope.bind(alias.asname, Imported(alias.name))
            else:
                root = alias.name.partition(".")[0]
                scope.bind(root, Imported(root))

    def function(self, node: FunctionNode, scope: Scope, owner: Class | None = None) -> Function:
        """Bind a function, which is read after everything around it."""
        self.expressions(node.args, scope)
        for decorator in node.decorator_list:
            self.value(decorator, scope)
        found = Function(node, scope if scope.parent else self.module, owner)
        if owner is None:
            scope.bind(node.name, found)
        if not self.busy:
            self.waiting.append(found)
        return found

    def class_(self, node: ast.ClassDef, scope: Scope) -> None:
        """Bind a class, and read its body."""
        bases = tuple(self.value(base, scope) for base in node.bases)
        outer = scope if scope.parent else self.module
        found = self.classes.setdefault(id(node), Class(node, outer, bases))
        inside = Scope(scope, dict(scope.names))
        for statement in node.body:
            if isinstance(statement, FunctionNode):
                found.methods[statement.name] = self.function(statement, Scope(outer), found)
            else:
                self.statement(statement, inside)
                if isinstance(statement, ast.AnnAssign):  # a field, whose value an argument may replace
                    self.assign(statement.target, None, inside)
        found.fields.update({name: inside.names.get(name) for name in inside.bound})
        scope.bind(node.name, None if node.decorator_list else found)

    def assign(self, target: ast.expr, value: Value, scope: Scope) -> None:
        """Bind a target; storing in a model makes it unknown."""
        match target:
            case ast.Name():
                scope.bind(target.id, None if target.id in self.shared else value)
            case ast.Tuple() | ast.List():
                parts = value.values if isinstance(value, Several) else ()
                matching = len(parts) == len(target.elts)
                for i, part in enumerate(target.elts):
                    self.assign(part, parts[i] if matching else None, scope)
            case ast.Starred():
                self.assign(target.value, None, scope)
            case ast.Attribute(value=ast.Name(id=owner), attr=name):
                scope.bind(f"{owner}.{name}", value)
                if owner != scope.me and isinstance(scope.look_up(owner), Layer | LossFunction | Instance):
                    scope.bind(owner, None)
            case ast.Attribute() | ast.Subscript():
                self.value(target.value, scope)
                if key := root(target):
                    scope.bind(key, None)
            case _:
                pass

    # ---------------------------------------------------------------------------------------------------- expressions

    def expressions(self, node: ast.AST, scope: Scope) -> None:
        """Follow every expression right below a node."""
        for child in children(node):
            if isinstance(child, ast.expr):
                self.value(child, scope)
            else:
                self.expressions(child, scope)

    def value(self, node: ast.expr, scope: Scope) -> Value:
        """Return what an expression is; every call in it is followed once."""
        match node:
            case ast.Name():
                return scope.look_up(node.id)
            case ast.Constant():
                return None
            case ast.Attribute():
                return self.attribute(node, self.value(node.value, scope), scope)
            case ast.Call():
                return self.call(node, scope)
            case ast.Subscript():
                found = self.value(node.value, scope)
                self.value(node.slice, scope)
                whole = isinstance(found, Numbers) and found.kind not in table.LOG_PROBABILITIES
                return found if whole else None  # some log-probabilities are no logits of the same distribution
            case ast.BinOp():
                return shifted(node, self.value(node.left, scope), self.value(node.right, scope))
            case ast.IfExp():
                self.value(node.test, scope)
                return join([self.value(node.body, scope), self.value(node.orelse, scope)])
            case ast.Compare():
                self.expressions(node, scope)
                return Numbers(Kind.DECISIONS, node)
            case ast.Tuple() | ast.List():
                return Several(tuple(self.value(part, scope) for part in node.elts))
            case ast.NamedExpr():
                found = self.value(node.value, scope)
                self.assign(node.target, found, scope)
                return found
            case ast.Await():
                return self.value(node.value, scope)
            case ast.Lambda() | ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                inside = Scope(scope, dict(self.unknown(node)))
                inside.names |= {each.arg: None for each in ast.walk(node) if isinstance(each, ast.arg)}
                self.expressions(node, inside)
                return None
        self.expressions(node, scope)
        return None

    def attribute(self, node: ast.Attribute, base: Value, scope: Scope) -> Value:
        """Return what an attribute is, of an object that is `base`."""
        if isinstance(node.value, ast.Name) and (key := f"{node.value.id}.{node.attr}") in scope.names:
            return scope.names[key]
        match base:
            case Imported(path):
                return Imported(f"{path}.{node.attr}")
            case Instance(of):
                return self.member(of, node.attr)
            case Class():
                return self.member(base, node.attr)
            case Numbers() if node.attr in ("T", "mT"):
                return base
        return None

    def member(self, of: Class, name: str) -> Value:
        """Return an attribute or a method of a class's objects."""
        line: list[Class] = [of]
        for each in line:
            attributes = self.stored(each)
            if name in attributes:
                return attributes[name]
            if name in each.methods:
                return replace(each.methods[name], owner=of)
            line += [base for base in each.bases if isinstance(base, Class) and base not in line]
        return None

    def stored(self, of: Class) -> Names:
        """Return the attributes that a class's body and its methods bind."""
        key = id(of.node)
        if key not in self.attributes:
            if key in self.busy or len(self.busy) >= DEEPEST:
                return {}
            found: dict[str, list[Value]] = {name: [value] for name, value in of.fields.items()}
            with self.silently(key):
                for method in of.methods.values():
                    me = f"{first_name(method.node)}."
                    if any(name.startswith(me) for name in self.unknown(method.node)):
                        scope = self.run(method)
                        for name, every in scope.bound.items():
                            if name.startswith(me):
                                final = len(every) == 1 or not scope.returns
                                values = [scope.names.get(name)] if final else every
                                found.setdefault(name[len(me) :], []).extend(values)
            self.attributes[key] = {name: join(values) for name, values in found.items()}
        return self.attributes[key]

    def run(self, function: Function, calls: Sequence[Names] = ()) -> Scope:
        """Follow the body of a function; its arguments are what all of these calls pass, and a method's own object."""
        scope = Scope(function.scope)
        arguments = function.node.args
        every = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
        for argument in every:
            if argument is not None:
                scope.bind(argument.arg, join([call.get(argument.arg) for call in calls]))
        if function.owner is not None and not any(
            isinstance(decorator, ast.Name) and decorator.id in ("staticmethod", "classmethod")
            for decorator in function.node.decorator_list
        ):
            scope.me = first_name(function.node)
            scope.names[scope.me] = Instance(function.owner)
        self.block(function.node.body, scope)
        return scope

    def result(self, function: Function) -> Value:
        """Return what calls of a function give; a nested function's are unknown, and so is what a decorator changes."""
        key = id(function.node), id(function.owner)
        nested = function.owner is None and function.scope is not self.module
        if nested or (function.node.decorator_list and function.node.name not in OUTPUTS):
            return None
        if key not in self.returned:
            if key in self.busy or len(self.busy) >= DEEPEST:
                return None
            with self.silently(key):
                self.returned[key] = join(self.run(function).returns)
        found = self.returned[key]
        return found if isinstance(found, Numbers | Layer | LossFunction | Instance) else None

    def output(self, model: Value, first: Value = None) -> Value:
        """Return what a model or a layer gives for its input."""
        if isinstance(model, Instance):
            for name in OUTPUTS:
                if isinstance(found := self.member(model.of, name), Function):
                    given = self.result(found)
                    return given if isinstance(given, Numbers) else None
        if isinstance(model, Layer) and model.gives is Kind.SAME:
            return first if isinstance(first, Numbers) else None
        return Numbers(model.gives, model.made) if isinstance(model, Layer) and model.gives else None

    def call(self, node: ast.Call, scope: Scope) -> Value:
        """Return what a call gives, and record it if it is a use."""
        base: Value = None
        if isinstance(node.func, ast.Attribute):
            base = self.value(node.func.value, scope)
            callee = self.attribute(node.func, base, scope)
        else:
            callee = self.value(node.func, scope)
        given = Arguments(
            [Argument(part, self.value(part, scope)) for part in node.args],
            {part.arg: Argument(part.value, self.value(part.value, scope)) for part in node.keywords},
        )
        match callee:
            case Imported(path):
                return self.calls.of_library(node, table.canonical(path), given, scope)
            case LossFunction():
                return self.calls.of_loss(node, callee, given, scope)
            case Layer() | Instance():
                return self.output(callee, given.first.value if given.first else None)
            case Class():
                return Instance(callee)
            case Function():
                if callee.owner is None and not self.busy:
                    arguments = callee.node.args
                    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
                    values = {str(name): value.value for name, value in given.by_name(names).items()}
                    self.passed.setdefault(id(callee.node), []).append(values)
                return self.result(callee)
        if not isinstance(node.func, ast.Attribute):
            return None
        if isinstance(base, Layer | Instance):
            return self.calls.of_model(node, node.func, base, given, scope)
        return self.calls.of_array(node, node.func, base, scope)

    @contextmanager
    def silently(self, key: object) -> Iterator[None]:
        """Read without recording; `key` is what is being computed, which does not depend on itself."""
        before, self.recording = self.recording, False
        self.busy.add(key)
        yield
        self.recording = before
        self.busy.discard(key)

    def record(self, use: Use) -> None:
        """Keep a use, if this is not read for a value alone."""
        if self.recording:
            self.uses[id(use.node)] = use


def shifted(node: ast.BinOp, left: Value, right: Value) -> Value:
    """Return what `probabilities + 1e-8` and `1 - probabilities` are; other sums are unknown."""
    if isinstance(node.op, ast.Add) and isinstance(left, Numbers) and left.kind in table.PROBABILITIES:
        name = getattr(node.right, "attr", getattr(node.right, "id", ""))
        value = getattr(node.right, "value", None)
        small = isinstance(value, float) and value < 1e-3
        return left if small or (name.lower().endswith(("eps", "epsilon")) and not name.endswith("steps")) else None
    if isinstance(node.op, ast.Sub) and isinstance(right, Numbers) and right.kind is Kind.SIGMOID:
        return Numbers(Kind.SIGMOID, node) if isinstance(node.left, ast.Constant) and node.left.value == 1 else None
    return None
