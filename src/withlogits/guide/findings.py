"""Findings, a diagnosis of several, its figures, a recommendation, and how they read; the table of codes."""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from withlogits import errors

Severity = Literal["error", "warning", "note"]
COLOURS = {"error": "#b3261e", "warning": "#8a5a00", "note": "#1f5fa8"}  # the weightiest first
WIDTH = 100
FEW_ROWS = 16  # a batch of so few may be bad, of one class, or of rows that are alike by chance
FUNCTIONS = {"sigmoid": errors.SIGMOID, "softmax": errors.DENSE, "sparse": errors.SPARSE}
LOSSES = {function: loss for loss, function in FUNCTIONS.items()} | {"weighted_cross_entropy_with_logits": "sigmoid"}

# Every code: its usual severity, and the mistake in a few words. The same mistake may ruin one loss and be harmless
# for another, so a finding may say otherwise.
MISTAKES: dict[str, tuple[Severity, str]] = {
    "WL101": ("error", "probabilities passed as logits (softmax)"),
    "WL102": ("error", "probabilities passed as logits (sigmoid)"),
    "WL103": ("error", "log-probabilities passed as logits"),
    "WL104": ("error", "labels and logits swapped"),
    "WL105": ("error", "softmax over one class"),
    "WL106": ("error", "NaN or infinite logits"),
    "WL107": ("warning", "logits that do not depend on the example"),
    "WL108": ("warning", "logits of absurd size"),
    "WL109": ("error", "bfloat16 that was saved as 2-byte voids"),
    "WL201": ("error", "one-hot labels given to the sparse loss"),
    "WL202": ("error", "class indices given to a dense loss"),
    "WL203": ("error", "several classes are true at once, and the loss is softmax"),
    "WL204": ("warning", "exactly one class is true in every row, and the loss is sigmoid"),
    "WL205": ("error", "label rows that are no distribution"),
    "WL206": ("error", "labels out of range"),
    "WL207": ("error", "a padding value among the labels"),
    "WL208": ("error", "class indices stored as floats"),
    "WL209": ("error", "labels on another scale"),
    "WL210": ("error", "(N,) against (N, 1)"),
    "WL211": ("error", "the classes are on another axis"),
    "WL212": ("error", "labels transposed"),
    "WL213": ("warning", "nothing to tell apart: one class only, or everything ignored"),
    "WL214": ("note", "strong imbalance of the classes"),
    "WL301": ("warning", "classes permuted between model and labels"),
    "WL302": ("warning", "predictions off by one step"),
    "WL303": ("warning", "inverted predictions"),
    "WL304": ("note", "miscalibrated logits"),
    "WL305": ("warning", "labels in another order than the logits"),
    "WL401": ("error", "softmax or sigmoid at the end of the model"),
    "WL402": ("error", "logits cut off from the model"),
    "WL501": ("error", "softmax or sigmoid before a loss that takes logits"),
    "WL502": ("error", "logits given to a loss that takes probabilities"),
    "WL503": ("error", "logits or probabilities given to a loss that takes log-probabilities"),
    "WL504": ("warning", "logarithm of a softmax or a sigmoid"),
    "WL505": ("warning", "sigmoid before binary cross-entropy, where one takes logits"),
    "WL506": ("error", "argmax, rounding or a comparison before a loss"),
    "WL507": ("error", "labels and predictions in the wrong order"),
    "WL508": ("error", "positional arguments to a loss that takes them by name"),
    "WL509": ("error", "one-hot labels given to a loss that takes class indices"),
    "WL510": ("note", "log_softmax before a loss that applies it"),
}
NOTHING_FOUND = "nothing found that would be wrong"
CODES = {code: title for code, (_, title) in MISTAKES.items()}


@dataclass(frozen=True)
class Finding:
    """One thing that is, or may be, wrong.

    Attributes
    ----------
    code : str
        "WL101" to "WL510", stable; the documentation has a page or a section for each.
    severity : {"error", "warning", "note"}
        error: the loss of this pair means nothing. warning: it is probably not what was meant. note: worth knowing.
    title : str
        The mistake in a few words.
    evidence : str
        What gave it away, with figures.
    fix : str
        A line of Python in terms of `labels`, `logits`, `numpy` (or `torch`, `jax`, `tf`) and `withlogits`; where the
        remedy lies in the model or the data, a comment that says so follows it.
    """

    code: str
    severity: Severity
    title: str
    evidence: str
    fix: str


@dataclass(frozen=True)
class Recommendation:
    """Which loss fits these labels.

    Attributes
    ----------
    loss : str
        "sigmoid", "softmax" or "sparse"; "none" for what no cross-entropy fits, as measurements.
    why : str
        Independent or exclusive, with the counts that show it.
    form : str
        What the labels are, as "class indices, (N,) int64".
    call : str
        The call to write.
    transform : str
        What to do to the labels first, a line of Python; empty if nothing.
    """

    loss: str
    why: str
    form: str
    call: str
    transform: str = ""

    def to_dict(self) -> dict[str, str]:
        """The same as a dictionary of strings."""
        return asdict(self)

    def __str__(self) -> str:
        first = f"  first   {self.transform}\n" if self.transform else ""
        return f"{self.loss}: {self.why}\n  labels  {self.form}\n{first}  write   {self.call}"


@dataclass(frozen=True)
class Performance:
    """Loss and accuracy of the logits, beside those of guessing by how often each class occurs.

    Attributes
    ----------
    count : int
        How many rows (sigmoid: elements) that is of.
    loss, accuracy : float
        The mean loss in nats, with the options of the call but no sample weights, and the share of rows (sigmoid:
        elements, of a sample if there are many) that are right.
    guessing_loss, guessing_accuracy : float or None
        The smallest mean loss of logits that are the same for every example, and the share of the most frequent class;
        None where the labels do not tell.
    """

    count: int
    loss: float
    accuracy: float
    guessing_loss: float | None
    guessing_accuracy: float | None

    @property
    def better_than_guessing(self) -> bool:
        """Whether the loss is below that of guessing; True where that is not known, or only one answer occurs."""
        return not self.guessing_loss or self.loss < self.guessing_loss

    def to_dict(self) -> dict[str, float | None]:
        """The same as a dictionary; None for what is not finite."""
        return {name: x if x is not None and math.isfinite(x) else None for name, x in asdict(self).items()}

    def __str__(self) -> str:
        own = _shown(self.loss, self.accuracy)
        if self.guessing_loss is None:
            return own
        return f"{own}; guessing by how often each class occurs: {_shown(self.guessing_loss, self.guessing_accuracy)}"


def _shown(loss: float, accuracy: float | None) -> str:
    return f"loss {loss:.4g}" + ("" if accuracy is None or math.isnan(accuracy) else f", {accuracy:.1%} right")


class DiagnosisError(ValueError):
    """What `Diagnosis.raise_for_errors` raises; `.diagnosis` has everything that was found."""

    def __init__(self, text: str, diagnosis: Diagnosis) -> None:
        super().__init__(text)
        self.diagnosis = diagnosis

    def __reduce__(self) -> tuple[Any, ...]:  # what an exception does by itself leaves out the second argument
        return DiagnosisError, (str(self), self.diagnosis)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, DiagnosisError):
            return NotImplemented
        return (self.args, self.diagnosis) == (other.args, other.diagnosis)

    def __hash__(self) -> int:
        return hash((self.args, self.diagnosis))


@dataclass(frozen=True)
class Diagnosis:
    """All findings about a pair of labels and logits, the weightiest first, and the loss that fits the labels.

    It is true if there is an error or a warning, so that ``if diagnosis:`` reads as it sounds. `print` shows it for
    a terminal, and a notebook shows it as a table.
    """

    findings: tuple[Finding, ...]
    recommendation: Recommendation | None
    loss: str  # the loss that was assumed: "sigmoid", "softmax" or "sparse"
    subject: str  # what was looked at, as "logits (128, 10) float32, labels (128,) int64"
    performance: Performance | None = None

    def __post_init__(self) -> None:
        # what mistaken labels look like to `recommend` would contradict the finding
        if any(found.severity == "error" and found.code.startswith("WL2") for found in self.findings):
            object.__setattr__(self, "recommendation", None)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings after which the loss means nothing."""
        return self.of("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings after which the loss is probably not what was meant."""
        return self.of("warning")

    def of(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of this severity."""
        return tuple(found for found in self.findings if found.severity == severity)

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the findings, in order."""
        return tuple(found.code for found in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The same in dictionaries, lists and strings, as JSON takes them."""
        return {
            "subject": self.subject,
            "loss": self.loss,
            "findings": [asdict(found) for found in self.findings],
            "performance": None if self.performance is None else self.performance.to_dict(),
            "recommendation": None if self.recommendation is None else self.recommendation.to_dict(),
        }

    def raise_for_errors(self) -> None:
        """Raise a `ValueError` that says every error and its fix, if there is one."""
        if self.errors:
            raise DiagnosisError("\n".join(sentence(found) for found in self.errors), self)

    def __bool__(self) -> bool:
        return bool(self.errors or self.warnings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __str__(self) -> str:
        lines = [f"{self.subject}; loss: {self.loss}"]
        for found in self.findings:
            evidence = textwrap.indent(textwrap.fill(found.evidence, WIDTH - 8), " " * 8)
            lines += [f"{found.severity:<7} {found.code}  {found.title}", evidence, f"        fix: {found.fix}"]
        if not self.findings:
            lines.append(self._nothing)
        if self.performance is not None:
            lines.append(f"figures      {self.performance}")
        if self.recommendation is not None:
            lines.append("recommended  " + str(self.recommendation).replace("\n", "\n" + " " * 13))
        return "\n".join(lines)

    @property
    def _nothing(self) -> str:
        """What to say where there is no finding."""
        if self.performance is None or self.performance.better_than_guessing or self.performance.count < FEW_ROWS:
            return NOTHING_FOUND
        return f"{NOTHING_FOUND}, but the logits are no better than guessing"

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td style="color:{COLOURS[found.severity]};font-weight:600">{found.severity}</td>'
            f"<td>{found.code}</td><td style='text-align:left'><b>{html.escape(found.title)}</b><br>"
            f"{html.escape(found.evidence)}<br><code>{html.escape(found.fix)}</code></td></tr>"
            for found in self.findings
        )
        advice = ""
        if (r := self.recommendation) is not None:
            advice = f"<p>{html.escape(r.loss)}: {html.escape(r.why)}<br><code>{html.escape(r.call)}</code></p>"
        figures = "" if self.performance is None else f"<p>{html.escape(str(self.performance))}</p>"
        table = f"<table>{rows or f'<tr><td>{self._nothing}</td></tr>'}</table>"
        return f"<p>{html.escape(self.subject)}; loss: {self.loss}</p>{table}{figures}{advice}"


def finding(code: str, evidence: str, fix: str, *, severity: Severity | None = None, title: str = "") -> Finding:
    """A finding with the usual severity and title of its code, unless others are given."""
    usual, mistake = MISTAKES[code]
    return Finding(code, severity or usual, title or mistake, evidence, fix)


def sentence(found: Finding) -> str:
    """The finding in one line, as errors and warnings show it."""
    return f"{found.code}, {found.title}: {found.evidence}; fix: {found.fix}"


def many(n: int, one: str, more: str) -> str:
    """The number with the noun, as "1 class" or "3 classes"."""
    return f"{n:,} {one if n == 1 else more}"


def in_order(findings: list[Finding], more: list[Finding]) -> tuple[Finding, ...]:
    """The findings, with those of `more` that have new codes: the weightiest first, of one weight by code."""
    known = {found.code for found in findings}
    every = [*findings, *(found for found in more if found.code not in known)]
    return tuple(sorted(every, key=lambda found: (list(COLOURS).index(found.severity), found.code)))


def call(loss: str, **options: Any) -> str:
    """The line that computes this loss."""
    written = {name: 'float("nan")' if value != value else value for name, value in options.items()}
    shown = "".join(f", {name}={value}" for name, value in written.items() if value is not None)
    return f"loss = withlogits.{FUNCTIONS[loss]}(labels=labels, logits=logits{shown})"
