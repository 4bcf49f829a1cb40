"""From what a survey has seen to findings: one function a group of codes, and the thresholds with their reasons."""

from __future__ import annotations

from withlogits.guide.findings import Finding
from withlogits.guide.rules.labels import indices, label_rows
from withlogits.guide.rules.logits import probabilities, values
from withlogits.guide.rules.pair import agreement
from withlogits.guide.survey import Survey


def findings_of(survey: Survey, axis: int, library: str) -> list[Finding]:
    """Everything that the figures say; `axis` as the caller would write it, `library` "numpy" or "torch"."""
    found = list(probabilities(survey, library))
    found += values(survey)
    found += label_rows(survey, axis) if survey.kind != "sparse" else indices(survey, axis)
    if not any(f.severity == "error" for f in found):
        found += agreement(survey, axis, library)
    return found
