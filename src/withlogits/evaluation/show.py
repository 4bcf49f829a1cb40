"""An evaluation in a terminal."""

from __future__ import annotations

import math

from withlogits.evaluation.results import Evaluation, Example

FEW = 5


def text(e: Evaluation) -> str:
    """The diagnosis first, since a number from a wrong pair should not be believed; then the figures, one a line."""
    lines = figures(e)
    width = max(len(name) for name, _ in lines)
    return "\n".join([f"{e.diagnosis}\n", *(f"{name:<{width}}  {value}" for name, value in lines)])


def figures(e: Evaluation) -> list[tuple[str, str]]:
    """Names and values of the figures that there are."""
    rows = "rows" if e.exclusive else "elements"
    lines = [
        ("counted", f"{e.count:,} {rows}" + (f", and {e.ignored:,} ignored" if e.ignored else "")),
        ("loss", f"{e.loss:.6g} nats, {e.bits:.6g} bits"),
    ]
    if e.perplexity is not None:
        lines.append(("perplexity", f"{e.perplexity:.6g}"))
    lines.append(("accuracy", percent(e.accuracy) + ("" if e.exclusive else ", at probability 1/2")))
    lines += [(f"top-{k}", percent(hit)) for k, hit in (e.top_k or {}).items() if k > 1]
    shares = {
        "precision": e.precision,
        "recall": e.recall,
        "F1": e.f1,
        "F1, mean of classes": e.macro_f1,
        "F1, best thresholds": e.best_f1,
    }
    lines += [(name, percent(share)) for name, share in shares.items() if share is not None]
    ranks = (("AUROC", e.auroc, e.auroc_error), ("average precision", e.average_precision, e.average_precision_error))
    lines += [(name, percent(share) + within(error)) for name, share, error in ranks if share is not None]
    if e.thresholds is not None:
        lines += [
            (f"at {t:g}", f"precision {percent(precision)}, recall {percent(recall)}, F1 {percent(f1)}")
            for t, precision, recall, f1 in zip(
                e.thresholds.thresholds, e.thresholds.precision, e.thresholds.recall, e.thresholds.f1, strict=True
            )
        ]
    lines.append(("calibration error", f"{percent(e.calibration.error)} (ECE, {len(e.calibration.counts)} bins)"))
    if e.classwise_calibration_error is not None and e.brier is not None:
        lines += [("  class-wise", percent(e.classwise_calibration_error)), ("Brier score", f"{e.brier:.6g}")]
    if e.fitted_on:
        better = f"loss {e.loss_at_temperature:.6g}, calibration error {percent(e.calibration_at_temperature.error)}"
        lines.append(("best temperature", f"{e.temperature:.4g}: {better} (on {e.fitted_on:,} {rows})"))
    common = () if e.confusion is None else e.confusion.common[:FEW]
    lists = {
        "costliest classes": costliest_classes(e),
        "taken for another": [
            f"{e.name_of(t)} as {e.name_of(p)} ({n:{',' if isinstance(n, int) else ',.4g'}})" for t, p, n in common
        ],
        "costliest examples": [example(e, one) for one in e.costliest[:FEW]],
    }
    return lines + [(name, ", ".join(parts)) for name, parts in lists.items() if parts]


def costliest_classes(e: Evaluation) -> list[str]:
    """The classes with the largest mean loss."""
    table = e.per_class
    if len(table.classes) < 2:
        return []
    known = [i for i in range(len(table.classes)) if not math.isnan(table.loss[i])]
    known.sort(key=lambda i: -table.loss[i])
    return [f"{e.name_of(int(table.classes[i]))} ({table.loss[i]:.4g})" for i in known[:FEW]]


def example(e: Evaluation, one: Example) -> str:
    where = f"[{', '.join(map(str, one.index))}]"
    if not e.exclusive:
        return f"{where} {one.loss:.4g}"
    label = e.name_of(int(one.label)) if math.isfinite(one.label) else f"{one.label:g}"
    return f"{where} {one.loss:.4g} ({label} taken for {e.name_of(one.predicted)})"


def within(error: float | None) -> str:
    """Return how far off a figure may be, if it may."""
    return f", within {100 * error:.2g} %" if error else ""


def percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.2f} %"
