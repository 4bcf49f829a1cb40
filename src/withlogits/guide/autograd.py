"""What PyTorch's autograd graph says about logits: what the model ends with, and whether they are cut off from it."""

from __future__ import annotations

from typing import Any

from withlogits.guide.findings import Finding
from withlogits.guide.fit import finding

# Nodes that change the form and not the numbers, or only by a rounding.
PASSED = frozenset(
    (
        "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "SqueezeBackward0", "SqueezeBackward1",
        "SqueezeBackward2", "UnsqueezeBackward0", "TBackward0", "TransposeBackward0", "PermuteBackward0",
        "CloneBackward0", "ToCopyBackward0", "SelectBackward0", "SliceBackward0", "ExpandBackward0", "AliasBackward0",
        "ContiguousBackward0", "AsStridedBackward0", "MovedimBackward0", "UnflattenBackward0",
    )
)  # fmt: skip
MADE_BY = {
    "SoftmaxBackward0": "softmax",
    "SigmoidBackward0": "sigmoid",
    "LogSoftmaxBackward0": "log_softmax",
    "LogSigmoidBackward0": "logsigmoid",
    "LogsigmoidBackward0": "logsigmoid",
}
DEEP = 16


def autograd_findings(logits: Any, model: Any, loss: str) -> list[Finding]:
    """WL401 and WL402."""
    found = []
    made_by = _made_by(logits)
    if made_by is not None:
        harmless = made_by == "log_softmax" and loss != "sigmoid"
        found.append(
            finding(
                "WL401",
                "note" if harmless else "error",
                f"the logits come out of {made_by}, which the loss applies itself"
                + ("; twice is harmless, and costs a pass over them" if harmless else ""),
                f"# take {made_by} off the end of the model",
            )
        )
    if model is not None and not logits.requires_grad:
        wanting = sum(1 for parameter in model.parameters() if parameter.requires_grad)
        import torch

        if wanting and torch.is_grad_enabled():
            found.append(
                finding(
                    "WL402",
                    "error",
                    f"{wanting} parameters of the model want a gradient, and the logits carry none: it cannot learn",
                    "# leave out argmax, detach(), .data, .numpy() and torch.no_grad() between the model and the loss",
                )
            )
    return found


def _made_by(logits: Any) -> str | None:
    """The activation whose output these logits are, if they are one's."""
    node = logits.grad_fn
    for _ in range(DEEP):
        if node is None:
            return None
        name = type(node).__name__
        if name in MADE_BY:
            return MADE_BY[name]
        if name not in PASSED or not node.next_functions:
            return None
        node = node.next_functions[0][0]
    return None
