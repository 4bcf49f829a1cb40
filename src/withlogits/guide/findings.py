"""What the guide says: a finding, a diagnosis of several, a recommendation; and the table of codes, once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
ORDER = {"error": 0, "warning": 1, "note": 2}

# Every code, and the mistake in a few words. The severity belongs to a finding: the same mistake may ruin one loss and
# be harmless for another.
CODES = {
    "WL101": "probabilities passed as logits (softmax)",
    "WL102": "probabilities passed as logits (sigmoid)",
    "WL103": "log-probabilities passed as logits",
    "WL104": "labels and logits swapped",
    "WL105": "softmax over one class",
    "WL106": "NaN or infinite logits",
    "WL107": "logits that do not depend on the example",
    "WL108": "logits of absurd size",
    "WL109": "bfloat16 that was saved as 2-byte voids",
    "WL201": "one-hot labels given to the sparse loss",
    "WL202": "class indices given to a dense loss",
    "WL203": "several classes are true at once, and the loss is softmax",
    "WL204": "exactly one class is true in every row, and the loss is sigmoid",
    "WL205": "label rows that are no distribution",
    "WL206": "labels out of range",
    "WL207": "a padding value among the labels",
    "WL208": "class indices stored as floats",
    "WL209": "labels on another scale",
    "WL210": "(N,) against (N, 1)",
    "WL211": "the classes are on another axis",
    "WL212": "labels transposed",
    "WL213": "nothing to tell apart: one class only, or everything ignored",
    "WL214": "strong imbalance of the classes",
    "WL301": "classes permuted between model and labels",
    "WL302": "predictions off by one step",
    "WL303": "inverted predictions",
    "WL304": "miscalibrated logits",
    "WL305": "labels in another order than the logits",
    "WL401": "softmax or sigmoid at the end of the model",
    "WL402": "logits cut off from the model",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is, or may be, wrong.

    Attributes
    ----------
    code : str
        "WL101" to "WL402", stable; each has a page in the documentation.
    severity : {"error", "warning", "note"}
        error: the loss of this pair means nothing. warning: it is probably not what was meant. note: worth knowing.
    title : str
        The mistake in a few words.
    evidence : str
        What gave it away, with figures.
    fix : str
        A line of Python in terms of `labels`, `logits`, `numpy` (or `torch`) and `withlogits`; where the remedy lies in
        the model or the data, a comment that says so follows it.
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
        "sigmoid", "softmax" or "sparse".
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
        from withlogits.guide.show import recommendation_text

        return recommendation_text(self)


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
            "recommendation": None if self.recommendation is None else self.recommendation.to_dict(),
        }

    def raise_for_errors(self) -> None:
        """Raise a `ValueError` that says every error and its fix, if there is one."""
        if self.errors:
            from withlogits.guide.show import errors_text

            raise DiagnosisError(errors_text(self), self)

    def __bool__(self) -> bool:
        return bool(self.errors or self.warnings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __str__(self) -> str:
        from withlogits.guide.show import diagnosis_text

        return diagnosis_text(self)

    def _repr_html_(self) -> str:
        from withlogits.guide.show import diagnosis_html

        return diagnosis_html(self)


def in_order(findings: list[Finding]) -> tuple[Finding, ...]:
    """The weightiest first; of one weight by code."""
    return tuple(sorted(findings, key=lambda found: (ORDER[found.severity], found.code)))
