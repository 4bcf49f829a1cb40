"""How the modules build on each other, read off their imports: lazy ones and those for type checkers included."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import processes
import withlogits

SOURCE = Path(withlogits.__file__).parent

# From the lowest to the highest. A module belongs to the longest prefix that fits, and imports from its own layer and
# from those below.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("version", "errors", "memo", "tiles", "data", "statistics.bins"),
    ("options",),
    ("shapes",),
    ("formulas", "frameworks.numpy_namespace"),
    ("derivable",),
    ("kernels",),
    ("reference",),
    ("engine",),
    ("frameworks",),
    ("dispatch",),
    ("losses", "activations"),
    ("gradients",),
    ("statistics",),
    ("torch", "compat", "guide"),
    ("evaluation",),
    ("lint",),
    ("",),  # the package itself: the public names
    ("demo", "cli", "__main__"),
)

# Imports that the rules leave out, with the reason.
EXEMPT = {
    # A result has methods that print or write it, and loads what does that at the call.
    ("evaluation.results", "evaluation.report"),
    ("evaluation.results", "evaluation.show"),
}
FRAMEWORKS = {"torch", "jax", "jaxlib", "tensorflow", "keras", "optax", "flax"}
# At import the package may load these, and the standard library.
LIGHT = {"numpy"}


class Module(NamedTuple):
    """A module, by its name within the package; the package itself is ""."""

    name: str
    path: Path
    tree: ast.Module


class Import(NamedTuple):
    """What a module imports: one of ours by its name within the package, or another's by its full name."""

    module: str
    ours: bool


@functools.cache
def modules() -> dict[str, Module]:
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = Module(name, path, ast.parse(path.read_text(encoding="utf-8")))
    return found


def imports(module: Module, at: ast.AST | None = None) -> Iterator[Import]:
    """Every import below a node; by default the whole module."""
    package = ["withlogits", *(module.name.split(".") if module.name else [])]
    if module.path.name != "__init__.py":
        package.pop()
    for node in ast.walk(at or module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield named(alias.name)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                both = f"{base}.{alias.name}"
                yield named(both if both.removeprefix("withlogits.") in modules() else base)


def named(full: str) -> Import:
    ours = full == "withlogits" or full.startswith("withlogits.")
    return Import(full.removeprefix("withlogits").removeprefix(".") if ours else full, ours)


@functools.cache
def graph() -> dict[str, frozenset[str]]:
    """What each module imports from the package, without what is exempt."""
    return {
        m.name: frozenset(i.module for i in imports(m) if i.ours and (m.name, i.module) not in EXEMPT)
        for m in modules().values()
    }


def layer(name: str) -> int:
    fits = {
        prefix: i
        for i, prefixes in enumerate(LAYERS)
        for prefix in prefixes
        if name == prefix or (prefix and name.startswith(f"{prefix}."))
    }
    assert fits, f"{name} has no layer: add it to LAYERS"
    return fits[max(fits, key=len)]


def cycles(edges: dict[str, frozenset[str]]) -> list[list[str]]:
    """The sets of modules that all reach each other (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(edges.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1 or node in edges.get(node, ()):
                found.append(sorted(component))

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return found


def test_every_import_of_ours_is_a_module() -> None:
    unknown = {(name, other) for name, others in graph().items() for other in others if other not in modules()}
    assert not unknown


def test_no_import_cycles() -> None:
    assert cycles(graph()) == []


def test_cycles_are_found() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"e"}}
    assert cycles({name: frozenset(others) for name, others in edges.items()}) == [["a", "b", "c"], ["e"]]


def test_no_module_imports_from_a_higher_layer() -> None:
    upward = [
        f"{name or 'withlogits'} imports {other or 'withlogits'}"
        for name, others in graph().items()
        for other in sorted(others)
        if layer(other) > layer(name)
    ]
    assert upward == []


def test_the_layers_are_told_apart() -> None:
    assert layer("errors") < layer("options") < layer("kernels.cpu.plan") < layer("frameworks.torch.eager")
    assert layer("frameworks.numpy_namespace") < layer("kernels") < layer("frameworks.numpy")


def test_kernels_import_no_framework_and_no_adapter() -> None:
    found = [
        f"{module.name} imports {each.module}"
        for module in modules().values()
        if module.name.startswith("kernels.")
        and not module.name.startswith("kernels.cuda.")  # whose host code launches Triton's kernels on tensors
        for each in imports(module)
        if (each.ours and each.module.startswith("frameworks"))
        or (not each.ours and each.module.partition(".")[0] in FRAMEWORKS)
    ]
    assert found == []


def test_one_adapter_imports_no_others() -> None:
    adapters = {"numpy", "torch", "jax", "tensorflow"}
    found = [
        f"{name} imports {other}"
        for name, others in graph().items()
        for other in others
        if name.startswith("frameworks.")
        and other.startswith("frameworks.")
        and other.split(".")[1] in adapters - {name.split(".")[1]}
    ]
    assert found == []


def loaded(module: Module) -> Iterator[Import]:
    """The imports that run when a module is imported: those of functions and for type checkers do not."""
    waiting: list[ast.AST] = [module.tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from imports(module, node)
        else:
            waiting += ast.iter_child_nodes(node)


def test_the_package_loads_numpy_only() -> None:
    """`test_import.py` sees the same in a process; this says which module it is, whatever is installed."""
    seen, waiting, heavy = set(), [""], []
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for each in loaded(modules()[name]):
            if each.ours:
                waiting.append(each.module)
            elif (library := each.module.partition(".")[0]) not in sys.stdlib_module_names | LIGHT:
                heavy.append(f"{name or 'withlogits'} imports {library}")
    assert heavy == []
    assert "losses" in seen


USE = """
    import sys
    import numpy as np, withlogits
    labels, logits = np.array([0, 1]), np.zeros((2, 3), np.float32)
    both = withlogits.value_and_grad(withlogits.sparse_softmax_cross_entropy_with_logits)
    both(labels=labels, logits=logits, reduction="mean")
    withlogits.sigmoid_cross_entropy_with_logits(labels=np.ones((2, 3)), logits=np.zeros((2, 3)))
    withlogits.softmax(logits)
    print("withlogits.kernels.cpu.simd" in sys.modules)
"""


def test_a_process_whose_kernels_are_cached_writes_no_kernel(tmp_path: Path) -> None:
    pytest.importorskip("llvmlite")
    env = processes.environment(WITHLOGITS_CACHE_DIR=str(tmp_path))
    assert processes.run(USE, env=env) == "True\n"
    assert processes.run(USE, env=env) == "False\n"


# ------------------------------------------------------------------------------------------------------------- sizes

LONGEST_FILE, LONGEST_FUNCTION, MOST_POSITIONAL = 450, 150, 8
# Longer than that, with the reason.
LONG_FILES = {
    "errors": "every error text, once",
    "kernels.cuda.softmax": "one kernel family, read from top to bottom",
    "compat.torch": "the signatures and docstrings of torch's losses",
    "kernels.cpu.simd": "the primitives of the compiled kernels",
}
# Modules whose calls may have more, with the reason.
MANY_ARGUMENTS = {
    "kernels.cuda.": "arguments of Triton's kernels and device functions are positional",
}


def test_no_file_is_too_long() -> None:
    long = {m.name for m in modules().values() if len(m.path.read_text(encoding="utf-8").splitlines()) > LONGEST_FILE}
    assert long - LONG_FILES.keys() == set()


def test_no_function_is_too_long() -> None:
    long = {
        f"{module.name}.{node.name}"
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION
    }
    assert long == set()


def test_no_call_has_too_many_positional_arguments() -> None:
    many = [
        f"{module.name}:{node.lineno}: {ast.unparse(node.func)} with {len(node.args)}"
        for module in modules().values()
        if not module.name.startswith(tuple(MANY_ARGUMENTS))
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and len(node.args) > MOST_POSITIONAL
    ]
    assert many == []
