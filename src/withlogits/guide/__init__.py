"""Which loss fits labels, and what is wrong with a pair of labels and logits."""

from withlogits.guide.checking import GuideWarning, checked
from withlogits.guide.diagnosing import diagnose
from withlogits.guide.findings import CODES, Diagnosis, DiagnosisError, Finding, Performance, Recommendation
from withlogits.guide.recommending import recommend

__all__ = [
    "CODES",
    "Diagnosis",
    "DiagnosisError",
    "Finding",
    "GuideWarning",
    "Performance",
    "Recommendation",
    "checked",
    "diagnose",
    "recommend",
]
