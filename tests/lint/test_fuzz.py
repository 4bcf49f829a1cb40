"""Source that nobody would write: no traceback, no hang, and every correction is source again."""

from __future__ import annotations

import ast
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from lint.snippets import CASES, IMPORTS
from withlogits.lint import NotChecked, check, corrected

LINES = sorted({line for source in CASES.values() for line in source.splitlines()[1:]})
NAMES = ["F", "nn", "torch", "x", "y", "self", "softmax", "cross_entropy", "CrossEntropyLoss", "log", "Sequential"]
NLL = "F.nll_loss(F.softmax(f0(x), 1), y)"
ALL_IMPORTS = "".join(IMPORTS.values())


def checked(source: str) -> None:
    try:
        found = check(source)
    except NotChecked:
        return
    lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for each in found:
        assert each.end_line <= len(lines)
        assert each.end_column - 1 <= len(lines[each.end_line - 1])
    ast.parse(corrected(source)[0])


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(LINES), st.integers(0, 2)), max_size=12))
def test_lines_in_any_order(lines: list[tuple[str, int]]) -> None:
    checked(ALL_IMPORTS + "\n".join(" " * 4 * depth + line.strip() for line, depth in lines))
    checked(ALL_IMPORTS + "\n".join(line for line, _ in lines))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(CASES)), st.randoms(use_true_random=False))
def test_damaged_source(name: str, rng: random.Random) -> None:
    text = list(CASES[name])
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(text))
        text[place : place + rng.randint(0, 3)] = rng.choice(
            ["", "(", ")", "\n", "\0", "é", "\ud800", "*", "#", ":=", "."]
        )
    checked("".join(text))


EXPRESSIONS = st.recursive(
    st.sampled_from(NAMES),
    lambda inner: st.one_of(
        st.builds("{}.{}".format, inner, st.sampled_from(NAMES)),
        st.builds("{}({})".format, inner, inner),
        st.builds("{}({}, {})".format, inner, inner, inner),
        st.builds("{}[{}]".format, inner, inner),
        st.builds("(1 - {})".format, inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("(lambda {}: {})".format, st.sampled_from(["x", "F", "self"]), inner),
        st.builds("[{0} for x in {1} if (y := {0})]".format, inner, inner),
        st.builds("{}(*{}, **{})".format, inner, inner, inner),
    ),
    max_leaves=12,
)
STATEMENTS = st.recursive(
    st.one_of(
        st.builds("{} = {}".format, st.sampled_from(["x", "F", "self.x", "x.y.z", "x[0]", "a, *b", "nn"]), EXPRESSIONS),
        st.builds("F.cross_entropy({}, {})".format, EXPRESSIONS, EXPRESSIONS),
        st.builds("return {}".format, EXPRESSIONS),
        st.sampled_from(["global F", "del x", "import torch.nn.functional as F", "raise", "pass", "x += 1"]),
    ),
    lambda inner: st.builds(
        lambda head, body: "\n".join([head, *(f"    {line}" for each in body for line in each.split("\n"))]),
        st.sampled_from(
            [
                *("if x:", "while x:", "for x in y:", "with x as y:", "def f(self, x=1, *y, **z):", "async def x():"),
                *("class F(nn.Module):", "try:\n    pass\nfinally:", "match x:\n  case {'a': x, **y}:", "class A(F):"),
            ]
        ),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(STATEMENTS, max_size=5))
def test_any_syntax(statements: list[str]) -> None:
    checked(IMPORTS["torch"] + "\n".join(statements))


def test_many_calls_of_functions_take_no_time_that_grows_with_their_paths() -> None:
    """Each of 200 functions calls the next one twice: 2^200 paths."""
    lines = [f"def f{i}(x):\n    return f{i + 1}(f{i + 1}(x))" for i in range(200)]
    source = IMPORTS["torch"] + "\n".join(
        [*lines, "def f200(x):\n    return x.softmax(1)", "F.cross_entropy(f199(x), y)"]
    )
    assert [each.finding.code for each in check(source)] == ["WL501"]
    methods = [f"    def f{i}(self):\n        self.a{i} = self.f{i + 1}() or self.f{i + 1}()" for i in range(200)]
    checked(IMPORTS["torch"] + "\n".join(["class A(nn.Module):", *methods, "A().f0()\nF.cross_entropy(A()(x), y)"]))
    assert [each.finding.code for each in check(IMPORTS["torch"] + "\n".join(reversed(lines)) + f"\n{NLL}")] == [
        "WL503"
    ]
    checked(IMPORTS["torch"] + "class A(A): pass\nclass A(A): pass\nA().x")
    nested = (
        "x" + "".join(f"\n{'    ' * i}for x{i} in y:" for i in range(19)) + "\n" + "    " * 19 + "F.cross_entropy(x, y)"
    )
    checked(IMPORTS["torch"] + nested)
