"""What is wrong with a pair of labels and logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from withlogits import errors, shapes
from withlogits.guide.arrays import as_numpy, given, sample_weights, silent
from withlogits.guide.autograd import autograd_findings
from withlogits.guide.findings import FUNCTIONS, LOSSES, Diagnosis, Finding, in_order
from withlogits.guide.fit import Pair, fitted
from withlogits.guide.recommending import for_pair
from withlogits.guide.rules import findings_of
from withlogits.guide.rules.performance import performance_of
from withlogits.options import any_label_to_ignore
from withlogits.statistics.summary import Summary, in_rows
from withlogits.tiles import cut

Array = NDArray[Any]

# The options of the losses that change what is right, and those that change the value alone.
TAKEN = ("label_smoothing", "temperature", "softcap", "class_weight", "pos_weight", "z_loss")
SAMPLE = 1 << 14  # logits that the temperature is fitted on: it is worth a note, and no more time than the loss
ROWS = 1 << 17  # of a block
IGNORED = ("name", "reduction", "dim")
MASKS = ("ignore_index", "sample_weight")


@silent
def diagnose(
    labels: Any,
    logits: Any,
    *,
    loss: str | Callable[..., Any] | None = None,
    axis: int = -1,
    model: Any = None,
    **options: Any,
) -> Diagnosis:
    """What is wrong, or may be wrong, with this pair of labels and logits.

    All of the data is looked at, in one pass: about three times the time of the loss itself for large arrays, and a few
    milliseconds at most for small ones. Nothing is changed.

    Parameters
    ----------
    labels, logits : array
        Of NumPy, PyTorch or JAX, as they would be passed to the loss: rows (N, C), sequences (N, T, C), images
        (N, C, H, W) with ``axis=1``.
    loss : {"sigmoid", "softmax", "sparse"} or a loss of withlogits, optional
        The loss that is meant; without it the one that fits the labels.
    axis : int
        The axis of the classes.
    model : torch.nn.Module, optional
        The model that gave the logits; with it, logits that are cut off from its parameters are found.
    **options
        What the loss is given besides, as ``ignore_index=-100``. What has this label (of the softmax losses class
        numbers, of the sigmoid losses elements, where it may be NaN), or ``sample_weight`` 0, is not looked at.

    Returns
    -------
    Diagnosis
        The findings, the weightiest first, and the loss that fits the labels. Print it.

    Raises
    ------
    TypeError
        For what is no array of real numbers, and for an array that JAX traces, which has no values.
    ValueError
        For shapes of which no loss could make anything, and an unknown `loss`.

    Examples
    --------
    >>> import numpy as np
    >>> import withlogits
    >>> logits = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.6, 0.4]])
    >>> print(withlogits.diagnose(np.array([0, 1, 1, 0]), logits).findings[0].title)
    probabilities passed as logits (softmax)
    """
    name = loss_name(loss)
    wrong = set(options) - {*TAKEN, *IGNORED, *MASKS}
    if wrong:
        raise TypeError(f"diagnose has no option {min(wrong)!r}; it takes those of the losses")
    x, z = given("logits", logits), given("labels", labels)
    subject = f"{x}, {z}"
    ignore = any_label_to_ignore(options.get("ignore_index"))
    pair = fitted(z, x, name, axis, {} if ignore is None else {"ignore_index": ignore})
    findings = pair.findings
    if x.tensor is not None:
        findings += autograd_findings(x.tensor, model, pair.kind)
    if pair.hopeless or not pair.logits.array.size:
        return Diagnosis(in_order(findings, []), None, name or pair.kind, subject)
    taken = {key: options[key] for key in TAKEN if options.get(key) is not None}
    summary = summarized(pair, ignore, taken, _kept(options.get("sample_weight"), pair))
    written = -1 if pair.axis in (-1, x.array.ndim - 1) else pair.axis
    found = in_order(findings, findings_of(summary, written, x.library, z.library))
    found = tuple(_of_arrays(each, labels=labels, logits=logits) for each in found)
    return Diagnosis(found, for_pair(summary, pair.labels), name or pair.kind, subject, performance_of(summary))


def _of_arrays(found: Finding, **given: Any) -> Finding:
    """The finding with a line that makes an array first of a list that it is about."""
    for name, x in given.items():
        if isinstance(x, (list, tuple)) and found.fix.startswith(f"{name} = "):
            return replace(found, fix=f"{name} = numpy.asarray({name}); {found.fix}")
    return found


def loss_name(loss: str | Callable[..., Any] | None) -> str | None:
    """The short name of a loss given by name or as a function."""
    if loss is None or (isinstance(loss, str) and loss in FUNCTIONS):
        return loss
    found = LOSSES.get(loss if isinstance(loss, str) else getattr(loss, "__name__", ""))
    if found is None:
        expected = "'sigmoid', 'softmax', 'sparse' or a loss of withlogits"
        raise ValueError(f"loss is {errors.described(loss)}, where {expected} is expected")
    return found


def _kept(weight: Any, pair: Pair) -> Array | None:
    """Which rows (sigmoid: elements) have a sample weight other than 0; None for all, and if shapes do not tell."""
    if weight is None:
        return None
    kept, x = sample_weights(weight) != 0, pair.logits.shape
    of_loss = x if pair.kind == "sigmoid" else shapes.rows(x, pair.axis)
    if not shapes.broadcasts(kept.shape, of_loss):
        if pair.kind == "sparse" and shapes.broadcasts(kept.shape, shapes.rows_kept(x, pair.axis)):
            kept = np.broadcast_to(kept, shapes.rows_kept(x, pair.axis)).squeeze(pair.axis)
        elif pair.findings:  # labels or logits in another shape than the weights were made for
            return None
        else:
            raise errors.weight_shape("sample_weight", kept.shape, of_loss, "loss")
    return np.broadcast_to(kept, of_loss)


def summarized(pair: Pair, ignore: float | None, options: dict[str, Any], kept: Array | None = None) -> Summary:
    """One look at a pair that fits, block by block: there are a dozen numbers a row to be kept for a moment."""
    array = pair.logits.array
    x, z, axis = in_rows(pair.kind, pair.axis, array, pair.labels.array)
    if kept is not None:
        kept = kept.reshape(x.shape if pair.kind == "sigmoid" else shapes.rows(x.shape, axis))
    plain = {key: as_numpy(value) for key, value in options.items()}
    if x.ndim > array.ndim and pair.kind == "sigmoid":  # the logits are a column now
        plain = {key: value[..., None] if np.ndim(value) else value for key, value in plain.items()}
    dtypes = pair.logits.dtype, pair.labels.dtype
    summary = Summary.begin(pair.kind, axis, x.shape[axis], dtypes, ignore, plain, SAMPLE)
    most = max(ROWS, x.size) if any(np.ndim(value) > 1 for value in plain.values()) else ROWS  # weights of elements
    tiling = cut(x.shape, axis, most * x.shape[axis], x.flags.f_contiguous and not x.flags.c_contiguous)
    for tile in tiling:
        rows = tile[:axis] + tile[axis + 1 :]
        some = None if kept is None else kept[tile if pair.kind == "sigmoid" else rows]
        labels = z[tile if z.ndim == x.ndim else rows]
        summary.add(x[tile], labels, tuple(part.start for part in tile), weight=some)
    return summary
