"""What is found in source, and what is not; the texts; the corrections."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from lint.snippets import CASES, IMPORTS, SNIPPETS, expected
from withlogits.guide import CODES
from withlogits.lint import SOURCE_CODES, check, corrected


@pytest.mark.parametrize("name", CASES)
def test_what_is_found(name: str) -> None:
    source = CASES[name]
    found = check(source)
    assert [(each.line, each.finding.code) for each in found] == expected(source)
    for each in found:
        assert each.finding.title == CODES[each.finding.code]
        assert each.column >= 1
        assert (each.line, each.column) < (each.end_line, each.end_column)


def test_every_code_is_found_and_every_library_is_right_and_wrong() -> None:
    codes = Counter(code for source in CASES.values() for _, code in expected(source))
    assert set(codes) == set(SOURCE_CODES)
    assert {code for code in CODES if code.startswith("WL5")} == set(SOURCE_CODES)
    for snippets in SNIPPETS.values():
        assert {bool(expected(source)) for source in snippets.values()} == {True, False}


def test_a_place_is_counted_in_characters() -> None:
    source = IMPORTS["torch"] + "é = F.cross_entropy('é', y); loss = F.cross_entropy(x.softmax(\n 1), y)"
    (found,) = check(source, "train.py")
    place = (found.path, found.line, found.column, found.end_line, found.end_column)
    assert place == ("train.py", 2, source.splitlines()[1].index("x.softmax") + 1, 3, 4)


# --------------------------------------------------------------------------------------------------------- the texts

PROBABILITIES = "`F.softmax(x, dim=1)` holds probabilities of a softmax"
TEXTS = [
    (
        "F.cross_entropy(F.softmax(x, dim=1), y)",
        (
            f"2:17: WL501 `F.cross_entropy` takes logits and applies the softmax itself, and {PROBABILITIES}; "
            "fix: pass the logits, without the softmax"
        ),
    ),
    (
        "loss = nn.BCEWithLogitsLoss()\np = torch.sigmoid(x)\nloss(p, y)",
        (
            "4:6: WL501 `loss` (binary_cross_entropy_with_logits) takes logits and applies the sigmoid itself, and `p` "
            "holds probabilities of a sigmoid (`torch.sigmoid(x)`, line 3); fix: pass the logits, without the sigmoid"
        ),
    ),
    (
        "import keras\nm = keras.Sequential([keras.layers.Dense(3)])\nm.compile(loss='categorical_crossentropy')",
        (
            "4:1: WL502 `categorical_crossentropy` takes probabilities, and `m` gives logits (`keras.layers.Dense(3)`, "
            "line 3); fix: pass from_logits=True"
        ),
    ),
    (
        "import keras\nkeras.losses.binary_crossentropy(y, torch.sigmoid(x), from_logits=True)",
        (
            "3:37: WL501 `keras.losses.binary_crossentropy` takes logits and applies the sigmoid itself, and "
            "`torch.sigmoid(x)` holds probabilities of a sigmoid; fix: pass the logits, without the sigmoid, or pass "
            "from_logits=False"
        ),
    ),
    (
        "nn.BCELoss()(F.logsigmoid(x), y)",
        (
            "2:14: WL502 `nn.BCELoss()` (binary_cross_entropy) takes probabilities, and `F.logsigmoid(x)` holds "
            "log-probabilities of a sigmoid; fix: use BCEWithLogitsLoss or binary_cross_entropy_with_logits, with the "
            "logits"
        ),
    ),
    (
        "F.nll_loss(F.softmax(x, dim=1), y)",
        (
            f"2:12: WL503 `F.nll_loss` takes log-probabilities, and {PROBABILITIES}; fix: pass log_softmax of the "
            "logits, or use cross_entropy with the logits"
        ),
    ),
    (
        "F.kl_div(F.softmax(x, dim=1), y)",
        f"2:10: WL503 `F.kl_div` takes log-probabilities, and {PROBABILITIES}; fix: pass log_softmax of the logits",
    ),
    (
        "torch.log(F.softmax(x, dim=1))",
        (
            f"2:1: WL504 {PROBABILITIES}, of which small ones are rounded or cut off before the logarithm; fix: write "
            "`F.log_softmax(x, dim=1)`"
        ),
    ),
    (
        "torch.log(1 - torch.sigmoid(x))",
        (
            "2:1: WL504 `1 - torch.sigmoid(x)` holds probabilities of a sigmoid, of which small ones are rounded or "
            "cut off before the logarithm; fix: compute log_sigmoid of the negated logits"
        ),
    ),
    (
        "F.binary_cross_entropy(torch.sigmoid(x), y)",
        (
            "2:24: WL505 `F.binary_cross_entropy` takes the logarithm of probabilities, which rounding makes 0 or 1, "
            "and `torch.sigmoid(x)` holds probabilities of a sigmoid; fix: use `F.binary_cross_entropy_with_logits` "
            "(BCEWithLogitsLoss) with the logits"
        ),
    ),
    (
        "F.cross_entropy(x.argmax(1), y)",
        (
            "2:17: WL506 `F.cross_entropy` needs the gradient of its input, and `x.argmax(1)` holds decisions without "
            "a gradient; fix: pass the logits to the loss, and decide where a metric needs it"
        ),
    ),
    (
        "F.cross_entropy(labels, logits)",
        (
            "2:1: WL507 `F.cross_entropy` takes (input, target), and gets `labels` for input and `logits` for target; "
            "fix: swap them: `input=logits, target=labels`"
        ),
    ),
    (
        "import withlogits as wl\nwl.softmax_cross_entropy_with_logits(labels, logits)",
        (
            "3:1: WL508 `wl.softmax_cross_entropy_with_logits` takes its arguments by name only, and gets 2 without; "
            "fix: write `wl.softmax_cross_entropy_with_logits(labels=..., logits=...)`"
        ),
    ),
    (
        "F.nll_loss(F.log_softmax(x, 1), F.one_hot(y))",
        (
            "2:33: WL509 `F.nll_loss` takes class indices, and `F.one_hot(y)` holds one-hot labels stored as integers; "
            "fix: pass the class indices themselves"
        ),
    ),
    (
        "F.cross_entropy(F.log_softmax(x, 1), y)",
        (
            "2:17: WL510 `F.cross_entropy` applies log_softmax itself, a second time changes nothing, and "
            "`F.log_softmax(x, 1)` holds log-probabilities of a softmax; fix: pass the logits, without log_softmax"
        ),
    ),
]


@pytest.mark.parametrize(("source", "text"), TEXTS)
def test_texts(source: str, text: str) -> None:
    assert [str(each) for each in check(IMPORTS["torch"] + source, "a.py")] == [f"a.py:{text}"]


def test_a_long_expression_is_cut() -> None:
    (found,) = check(IMPORTS["torch"] + f"F.cross_entropy(F.softmax({'x' * 100}, 1), y)")
    assert f"`F.softmax({'x' * 50}…`" in found.finding.evidence


# --------------------------------------------------------------------------------------------------- the corrections

CORRECTIONS = {
    "torch": [
        ("torch.log(F.softmax(x, dim=1))", "F.log_softmax(x, dim=1)"),
        ("torch.log(torch.softmax(x, 1))", "torch.log_softmax(x, 1)"),
        ("torch.softmax(x, 1).log()", "torch.log_softmax(x, 1)"),
        ("x.softmax(-1).log()", "x.log_softmax(-1)"),
        ("(x + w).softmax(-1).log()", "(x + w).log_softmax(-1)"),
        ("(-x).sigmoid().log()", "F.logsigmoid(-x)"),
        ("torch.log((x + w).softmax(-1))", "(x + w).log_softmax(-1)"),
        ("(x\n.softmax(-1)\n.log())", "(x.log_softmax(-1))"),
        ("torch.log(f(a)[0].softmax(dim=-1))", "f(a)[0].log_softmax(dim=-1)"),
        ("torch.log(torch.sigmoid(x + 1))", "F.logsigmoid(x + 1)"),
        ("x.sigmoid().log()", "F.logsigmoid(x)"),
        ("loss = F.nll_loss(torch.log(F.softmax(x, 1)), y)", "loss = F.nll_loss(F.log_softmax(x, 1), y)"),
        ("F.binary_cross_entropy(torch.sigmoid(x), y)", "F.binary_cross_entropy_with_logits(x, y)"),
        ("F.binary_cross_entropy(x.sigmoid(), y, w)", "F.binary_cross_entropy_with_logits(x, y, w)"),
        (
            "F.binary_cross_entropy(target=y, input=F.sigmoid(x))",
            "F.binary_cross_entropy_with_logits(target=y, input=x)",
        ),
        ("F.cross_entropy(F.log_softmax(x, dim=1), y)", "F.cross_entropy(x, y)"),
        ("nn.CrossEntropyLoss()(x.log_softmax(1), y)", "nn.CrossEntropyLoss()(x, y)"),
        ("é = 'é'; torch.log(F.softmax(é, 1))", "é = 'é'; F.log_softmax(é, 1)"),
        (
            "torch.log(torch.softmax(torch.log(torch.softmax(x, 1)), 1))",
            "torch.log_softmax(torch.log_softmax(x, 1), 1)",
        ),
    ],
    "tensorflow": [
        ("tf.math.log(tf.nn.softmax(x))", "tf.nn.log_softmax(x)"),
        ("tf.math.log(tf.sigmoid(x))", "tf.math.log_sigmoid(x)"),
        (
            "tf1.nn.softmax_cross_entropy_with_logits(labels, logits)",
            "tf1.nn.softmax_cross_entropy_with_logits(labels=labels, logits=logits)",
        ),
    ],
    "jax": [
        ("jnp.log(jax.nn.softmax(x, axis=0))", "jax.nn.log_softmax(x, axis=0)"),
        ("optax.softmax_cross_entropy(jax.nn.log_softmax(x), y)", "optax.softmax_cross_entropy(x, y)"),
    ],
    "withlogits": [
        ("np.log(scipy.special.expit(x))", "scipy.special.log_expit(x)"),
        (
            "wl.sparse_softmax_cross_entropy_with_logits(labels, logits, axis=1)",
            "wl.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits, axis=1)",
        ),
    ],
}


@pytest.mark.parametrize(
    ("library", "source", "right"), [(key, *pair) for key, pairs in CORRECTIONS.items() for pair in pairs]
)
def test_corrections(library: str, source: str, right: str) -> None:
    wrong = IMPORTS[library] + source
    assert all(each.fixable for each in check(wrong))
    got, count = corrected(wrong)
    assert got == IMPORTS[library] + right
    assert count == len(check(wrong)) > 0
    assert check(got) == []


@pytest.mark.parametrize(("wrong", "right"), [pair for pair in CORRECTIONS["torch"] if "é" not in pair[0]])
def test_a_correction_keeps_the_value(wrong: str, right: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    generator = torch.Generator().manual_seed(0)
    x, a, w = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((5, 3), (2, 5, 3), (5, 3)))
    y = torch.arange(5) % 3 if "nll" in wrong else torch.rand(5, 3, generator=generator, dtype=torch.float64)
    names = {"x": x, "y": y, "w": w.abs(), "a": a, "f": lambda a: a}
    same_value(wrong.removeprefix("loss = "), right.removeprefix("loss = "), names)


def same_value(wrong: str, right: str, names: dict[str, object]) -> None:
    import torch

    values = []
    for source in (wrong, right):
        scope = dict(names)
        exec(f"{IMPORTS['torch']}value = {source}", scope)
        values.append(scope["value"])
    torch.testing.assert_close(*values, rtol=1e-12, atol=1e-12)


OPERANDS = [
    "x",
    "(x)",
    "x + w",
    "-x",
    "x if y else w",
    "(lambda: x)()",
    "x[:5]",
    "x.T.T",
    "not_x or x",
    "(x,\n)[0]",
]
FORMS = [
    "torch.log(F.softmax({}, dim=1))",
    "torch.log(torch.softmax(dim=-1, input=({})))",
    "F.softmax({}, 1).log()",
    "({}).softmax(-1).log()",
    "-({}).softmax(-1).log() ** 2",
    "({}).sigmoid().log()",
    "torch.log(torch.sigmoid({}))",
    "F.binary_cross_entropy(torch.sigmoid({}), p)",
    "F.binary_cross_entropy(target=p, input=({}).sigmoid(), reduction='sum')",
    "F.cross_entropy(F.log_softmax({}, dim=1), p)",
    "nn.CrossEntropyLoss()(({}).log_softmax(1), p)",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("operand", OPERANDS)
def test_a_correction_of_any_operand_keeps_the_value(form: str, operand: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    wrong = form.format(operand)
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    names = {"x": x, "w": w, "p": torch.rand(5, 3, generator=generator, dtype=torch.float64), "y": 1, "not_x": 0}
    right = corrected(IMPORTS["torch"] + wrong)[0].removeprefix(IMPORTS["torch"])
    assert right != wrong
    same_value(wrong, right, names)


@pytest.mark.parametrize(
    "source",
    [
        "F.cross_entropy(F.softmax(x, dim=1), y)",  # another loss: the person decides
        "p = F.softmax(x, dim=1)\ntorch.log(p)",  # `p` may have other uses
        "torch.log(torch.sigmoid(x) + 1e-8)",  # another number
        "torch.log(F.softmax(x,  # the classes\n dim=1))",  # a comment would be lost
        "F.cross_entropy(F.log_softmax(x, dim=-1), y)",  # another axis than the loss's, if x is an image
        "F.cross_entropy(F.log_softmax(x), y)",
        "torch.log(torch.sigmoid(x), out=y)",
        "torch.log(torch.sigmoid(x, out=y))",
        "F.cross_entropy(F.log_softmax(), y)",
        "F.cross_entropy(F.log_softmax((z := x), 1), z)",
        "def f(y):\n    F.cross_entropy(F.log_softmax((yield), 1), y)",
        "act = nn.LogSoftmax(1)\nF.cross_entropy(act(x), y)",
        "torch.log(torch.clamp(torch.sigmoid(x), 0.1))",
        "import numpy as np\nfrom scipy import special\nnp.log(special.softmax(x), y)",  # into y
        "nn.BCELoss()(torch.sigmoid(x), y)",  # the object may be used elsewhere
        "F.binary_cross_entropy(torch.clamp(torch.sigmoid(x), 0.1), y)",
        "from torch.nn.functional import softmax\ndef f(F, torch, nn):\n    return softmax(x, 1).log()",  # no name
        "import withlogits as wl\nwl.softmax_cross_entropy_with_logits(y, x)",  # which is which?
        "import withlogits as wl\nwl.softmax_cross_entropy_with_logits((labels), logits)",
        "import withlogits as wl\nwl.softmax_cross_entropy_with_logits(labels, # ,\n logits)",
        "import withlogits as wl\nwl.softmax_cross_entropy_with_logits(labels, logits, labels=3)",
        "import numpy as np\nnp.log(F.softmax(x, 1))",  # an array would become a tensor
    ],
)
def test_what_is_not_corrected(source: str) -> None:
    source = IMPORTS["torch"] + source
    (found,) = check(source)
    assert not found.fixable
    assert corrected(source) == (source, 0)


@pytest.mark.parametrize("name", CASES)
def test_a_correction_leaves_less_to_correct(name: str) -> None:
    got, count = corrected(CASES[name])
    ast.parse(got)
    left = check(got)
    assert not any(each.fixable for each in left)
    assert len(check(CASES[name])) - len(left) == count


def test_line_ends_stay() -> None:
    source = "import torch\r\ny = torch.log(torch.softmax(x, 1))\rz = '''\n'''\n"
    assert corrected(source)[0] == "import torch\r\ny = torch.log_softmax(x, 1)\rz = '''\n'''\n"


# ------------------------------------------------------------------------------------------------------------- noqa

NOQA = "F.cross_entropy(F.softmax(x, 1), F.one_hot(y))"


@pytest.mark.parametrize(
    ("comment", "codes"),
    [
        ("", ["WL501", "WL509"]),
        ("# noqa", []),
        ("#NOQA", []),
        ("# noqa: WL501", ["WL509"]),
        ("# noqa: E501,wl509", ["WL501"]),
        ("# noqa: WL501 WL509  # as in the paper", []),
        ("# noqa: E501", ["WL501", "WL509"]),
        ("# quality: noqa", ["WL501", "WL509"]),
    ],
)
def test_comments_leave_findings_out(comment: str, codes: list[str]) -> None:
    assert [each.finding.code for each in check(f"{IMPORTS['torch']}{NOQA}  {comment}")] == codes


def test_a_comment_on_the_last_line_of_a_call() -> None:
    assert check(f"{IMPORTS['torch']}F.cross_entropy(\n    x.softmax(1),\n    y,\n)  # noqa: WL501") == []
    source = f"{IMPORTS['torch']}torch.log(F.softmax(x, 1))  # noqa: WL504"
    assert corrected(source) == (source, 0)


def test_chosen_codes() -> None:
    source = IMPORTS["torch"] + NOQA
    assert [each.finding.code for each in check(source, codes=["WL509"])] == ["WL509"]
    wrong = IMPORTS["torch"] + "torch.log(F.softmax(x, 1))"
    assert corrected(wrong, ["WL501"]) == (wrong, 0)
