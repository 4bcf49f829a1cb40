"""Cross-entropy losses from logits: right to the last bit, at the speed of memory."""

from withlogits.activations import log_sigmoid, log_softmax, logit, logsumexp, sigmoid, softmax, softplus
from withlogits.engine import get_num_threads, set_num_threads, set_recycling_limit
from withlogits.losses import (
    sigmoid_cross_entropy_with_logits,
    softmax_cross_entropy_with_logits,
    sparse_softmax_cross_entropy_with_logits,
    value_and_grad,
    weighted_cross_entropy_with_logits,
)

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "get_num_threads",
    "log_sigmoid",
    "log_softmax",
    "logit",
    "logsumexp",
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
