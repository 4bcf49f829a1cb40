"""From what a summary has seen to findings: one function a group of codes, and the thresholds with their reasons."""

from __future__ import annotations

from withlogits.guide.findings import Finding
from withlogits.guide.rules.labels import indices, label_rows
from withlogits.guide.rules.logits import probabilities, values
from withlogits.guide.rules.pair import agreement
from withlogits.statistics.summary import Summary


def findings_of(summary: Summary, axis: int, library: str, label_library: str = "") -> list[Finding]:
    """Everything that the figures say; `axis` and the libraries (keys of `LINES`) as a caller writes them."""
    of_labels, label_library = indices if summary.kind == "sparse" else label_rows, label_library or library
    found = [*probabilities(summary, library), *values(summary), *of_labels(summary, axis, label_library)]
    if not any(f.severity == "error" for f in found):
        found += agreement(summary, axis, label_library)
    return found
