"""What PyTorch's autograd graph says about logits: what the model ends with, and whether they are cut off from it."""

from __future__ import annotations

import re
from typing import Any

from withlogits.guide.findings import Finding, finding, many

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
FLAT = re.compile("(Round|Floor|Ceil|Trunc|Sign|Heaviside|Fix)Backward[0-9]+")  # steps, whose gradient is 0
DEEP = 16
MANY = 100_000  # nodes of a graph after which the search ends


def autograd_findings(logits: Any, model: Any, loss: str) -> list[Finding]:
    """WL401 and WL402."""
    found = []
    made_by = MADE_BY.get(type(_made(logits)).__name__)
    if made_by is not None:
        evidence = f"the logits come out of {made_by}, which the loss applies itself"
        fix = f"# take {made_by} off the end of the model"
        if made_by == "log_softmax" and loss != "sigmoid":
            evidence += "; twice is harmless, and costs a pass over them"
            found.append(finding("WL401", evidence, fix, severity="note"))
        else:
            found.append(finding("WL401", evidence, fix))
    cut = _cut_off(logits, model)
    if cut:
        fix = "# leave out argmax, round(), detach(), .data, .tolist(), .numpy() and torch.no_grad() before the loss"
        found.append(finding("WL402", cut, fix))
    return found


def _cut_off(logits: Any, model: Any) -> str:
    """Why no gradient reaches the model; empty if one does, or if that is not certain."""
    import torch

    if not torch.is_grad_enabled():
        return ""
    rounded = logits.requires_grad and FLAT.fullmatch(type(_made(logits)).__name__)
    if model is None:
        return "the logits are rounded, and the gradient of that is 0: the model cannot learn" if rounded else ""
    wanting = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    if not wanting:
        return ""
    wish = many(len(wanting), "parameter of the model wants a gradient", "parameters of the model want a gradient")
    if not logits.requires_grad:
        return f"{wish}, and the logits carry none: it cannot learn"
    if _reaches(logits, wanting):
        return ""
    why = "rounding, whose gradient is 0" if rounded else "another model, or numbers that were copied"
    return f"{wish}, and that of the logits reaches none of them: it ends at {why}"


def _reaches(logits: Any, wanting: set[int]) -> bool:
    """Whether the graph leads from the logits to one of these parameters, or to what hides where it leads."""
    import torch

    if logits.grad_fn is None:
        return id(logits) in wanting
    nodes, seen = [logits.grad_fn], {logits.grad_fn}
    while nodes:
        node = nodes.pop()
        if id(getattr(node, "variable", None)) in wanting or len(seen) > MANY:
            return True
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return True  # as that of a checkpoint, which runs the model again in the backward pass
        if FLAT.fullmatch(type(node).__name__):
            continue
        new = {follower for follower, _ in node.next_functions if follower is not None} - seen
        seen |= new
        nodes += new
    return False


def _made(logits: Any) -> Any:
    """The node of the graph that made these numbers, behind those that change their form alone."""
    node = logits.grad_fn
    for _ in range(DEEP):
        if node is None or not PASSED.fullmatch(type(node).__name__) or not node.next_functions:
            break
        node = node.next_functions[0][0]
    return node
