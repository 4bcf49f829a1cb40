"""What PyTorch's autograd graph says about logits: what the model ends with, and whether they are cut off from it."""

from __future__ import annotations

import re
from typing import Any

from withlogits.guide.findings import Finding, finding

# Nodes that change the form and not the numbers, or only by a rounding.
PASSED = re.compile(
    "(View|UnsafeView|ReshapeAlias|Squeeze|Unsqueeze|T|Transpose|Permute|Clone|ToCopy|Select|Slice|Expand|Alias|"
    "Contiguous|AsStrided|Movedim|Unflatten)Backward0|SqueezeBackward[12]"
)
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
        evidence = f"the logits come out of {made_by}, which the loss applies itself"
        fix = f"# take {made_by} off the end of the model"
        if made_by == "log_softmax" and loss != "sigmoid":
            evidence += "; twice is harmless, and costs a pass over them"
            found.append(finding("WL401", evidence, fix, severity="note"))
        else:
            found.append(finding("WL401", evidence, fix))
    if model is not None and not logits.requires_grad:
        import torch

        wanting = sum(1 for parameter in model.parameters() if parameter.requires_grad)
        if wanting and torch.is_grad_enabled():
            evidence = f"{wanting} parameters of the model want a gradient, and the logits carry none: it cannot learn"
            fix = "# leave out argmax, detach(), .data, .numpy() and torch.no_grad() between the model and the loss"
            found.append(finding("WL402", evidence, fix))
    return found


def _made_by(logits: Any) -> str | None:
    """The activation whose output these logits are, if they are one's."""
    node = logits.grad_fn
    for _ in range(DEEP):
        name = type(node).__name__
        if node is None or not PASSED.fullmatch(name) or not node.next_functions:
            return MADE_BY.get(name)
        node = node.next_functions[0][0]
    return None
