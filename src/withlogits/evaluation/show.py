"""An evaluation in a terminal."""

from __future__ import annotations

import math

from withlogits.evaluation.results import Evaluation, Example

FEW = 5


def text(e: Evaluation) -> str:
    """The diagnosis first: a number from a wrong pair should not be believed."""
    return f"{e.diagnosis}\n\n{figures(e)}"


def figures(e: Evaluation) -> str:
    """The figures, one a line."""
    rows = "rows" if e.exclusive else "elements"
    lines = [("counted", f"{e.count:,} {rows}" + (f", and {e.ignored:,} ignored" if e.ignored else ""))]
    lines.append(("loss", f"{e.loss:.6g} nats, {e.bits:.6g} bits"))
    if e.perplexity is not None:
        lines.append(("perplexity", f"{e.perplexity:.6g}"))
    lines.append(("accuracy", percent(e.accuracy) + ("" if e.exclusive else ", at probability 1/2")))
    for k, hit in (e.top_k or {}).items():
        if k > 1:
            lines.append((f"top-{k}", percent(hit)))
    for name, value in (
        ("precision", e.precision),
        ("recall", e.recall),
        ("F1", e.f1),
        ("F1, mean of classes", e.macro_f1),
        ("AUROC", e.auroc),
        ("average precision", e.average_precision),
    ):
        if value is not None:
            lines.append((name, percent(value)))
    lines.append(("calibration error", f"{percent(e.calibration.error)} (ECE, {len(e.calibration.counts)} bins)"))
    if e.fitted_on:
        better = f"loss {e.loss_at_temperature:.6g}, calibration error {percent(e.calibration_at_temperature.error)}"
        lines.append(("best temperature", f"{e.temperature:.4g}: {better} (on {e.fitted_on:,} {rows})"))
    worst = costliest_classes(e)
    if worst:
        lines.append(("costliest classes", ", ".join(worst)))
    if e.confusion is not None and e.confusion.common:
        common = (f"{e.name_of(t)} as {e.name_of(p)} ({n:,})" for t, p, n in e.confusion.common[:FEW])
        lines.append(("taken for another", ", ".join(common)))
    if e.costliest:
        lines.append(("costliest examples", ", ".join(example(e, one) for one in e.costliest[:FEW])))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


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
    return f"{where} {one.loss:.4g} ({e.name_of(int(one.label))} taken for {e.name_of(one.predicted)})"


def percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.2f} %"
