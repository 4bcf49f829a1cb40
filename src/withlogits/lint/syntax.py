"""What a syntax tree says by itself: the nodes below one, the names bound there, what an attribute belongs to."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from withlogits.lint.values import Names

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes right below a node, but for the contexts of names; faster than `ast.iter_child_nodes`."""
    for name in node._fields:
        found = getattr(node, name, None)
        if type(found) is list:
            for each in found:
                if isinstance(each, ast.AST):
                    yield each
        elif isinstance(found, ast.AST) and name != "ctx":
            yield found


def unknown(top: ast.AST) -> Names:
    """Return every name, and every attribute of a name, that is bound somewhere below, as unknown."""
    found: Names = {}
    waiting = [top]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                found[node.id] = None
            continue
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and not isinstance(node.ctx, ast.Load):
                found[f"{node.value.id}.{node.attr}"] = None
        elif isinstance(node, ast.MatchAs | ast.MatchStar | ast.MatchMapping):
            found[getattr(node, "name", None) or getattr(node, "rest", None) or ""] = None
        waiting += children(node)
    return found


def first_name(node: FunctionNode) -> str:
    """Return the name of a method's object."""
    every = (*node.args.posonlyargs, *node.args.args)
    return every[0].arg if every else "self"


def root(node: ast.Attribute | ast.Subscript) -> str:
    """Return the name, or the attribute of a name, that an attribute or an element belongs to; "" if there is none."""
    inner = node.value
    while isinstance(inner, ast.Attribute | ast.Subscript):
        if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name):
            return f"{inner.value.id}.{inner.attr}"
        inner = inner.value
    return inner.id if isinstance(inner, ast.Name) else ""
