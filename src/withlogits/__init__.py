"""Cross-entropy losses from logits: right to the last bit, at the speed of memory."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from withlogits.activations import log_sigmoid, log_softmax, logit, logsumexp, sigmoid, softmax, softplus
from withlogits.engine import get_num_threads, set_num_threads, set_recycling_limit
from withlogits.gradients import value_and_grad
from withlogits.losses import (
    sigmoid_cross_entropy_with_logits,
    softmax_cross_entropy_with_logits,
    sparse_softmax_cross_entropy_with_logits,
    weighted_cross_entropy_with_logits,
)
from withlogits.version import __version__

if TYPE_CHECKING:
    from withlogits.evaluation.evaluate import evaluate as evaluate
    from withlogits.evaluation.meter import Meter as Meter
    from withlogits.evaluation.results import Evaluation as Evaluation
    from withlogits.guide import Diagnosis as Diagnosis
    from withlogits.guide import DiagnosisError as DiagnosisError
    from withlogits.guide import Finding as Finding
    from withlogits.guide import GuideWarning as GuideWarning
    from withlogits.guide import Performance as Performance
    from withlogits.guide import Recommendation as Recommendation
    from withlogits.guide import checked as checked
    from withlogits.guide import diagnose as diagnose
    from withlogits.guide import recommend as recommend

# Loaded at first need: who only computes losses does not wait for them.
_LATER = {
    "Diagnosis": "withlogits.guide",
    "DiagnosisError": "withlogits.guide",
    "Evaluation": "withlogits.evaluation.results",
    "Finding": "withlogits.guide",
    "GuideWarning": "withlogits.guide",
    "Meter": "withlogits.evaluation.meter",
    "Performance": "withlogits.guide",
    "Recommendation": "withlogits.guide",
    "checked": "withlogits.guide",
    "diagnose": "withlogits.guide",
    "evaluate": "withlogits.evaluation.evaluate",
    "recommend": "withlogits.guide",
}

__all__ = [
    "Diagnosis",
    "DiagnosisError",
    "Evaluation",
    "Finding",
    "GuideWarning",
    "Meter",
    "Performance",
    "Recommendation",
    "__version__",
    "checked",
    "diagnose",
    "evaluate",
    "get_num_threads",
    "log_sigmoid",
    "log_softmax",
    "logit",
    "logsumexp",
    "recommend",
    "set_num_threads",
    "set_recycling_limit",
    "sigmoid",
    "sigmoid_cross_entropy_with_logits",
    "softmax",
    "softmax_cross_entropy_with_logits",
    "softplus",
    "sparse_softmax_cross_entropy_with_logits",
    "value_and_grad",
    "weighted_cross_entropy_with_logits",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'withlogits' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_LATER[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
