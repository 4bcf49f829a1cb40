"""The sections of the page."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from withlogits.evaluation.report import tables
from withlogits.evaluation.report.texts import CHINESE_TITLES, TEXTS
from withlogits.evaluation.report.words import Words, decimal, percent, plural, whole
from withlogits.evaluation.results import Evaluation
from withlogits.guide.findings import Severity
from withlogits.version import __version__

if TYPE_CHECKING:
    from withlogits.evaluation.report.svg import Plot

PACKAGE = "withlogits.evaluation.report"
FUNCTIONS = {
    "sparse": "sparse_softmax_cross_entropy_with_logits",
    "softmax": "softmax_cross_entropy_with_logits",
    "sigmoid": "sigmoid_cross_entropy_with_logits",
}


@dataclass(frozen=True)
class Group:
    """Key figures that belong together: the first in large letters."""

    title: str
    figures: list[tuple[str, str]]
    about: str


@dataclass(frozen=True)
class Figure:
    """One or two plots under one heading, with a text that says what they show."""

    name: str
    title: str
    plots: list[Plot]
    text: str = ""  # under the heading, if the plots have no messages of their own there
    legend: str = ""
    keys: tuple[tuple[str, str], ...] = ()  # class of the colour, what it means
    table: tables.Table | None = None
    half: bool = False


def render(evaluation: Evaluation, language: str) -> str:
    """Return the whole page."""
    ready()
    import jinja2

    t = Words(evaluation, TEXTS[language])
    order = tables.by_total_loss(evaluation)
    found = [tables.costliest_table(t), tables.confusions_table(t), tables.thresholds_table(t)]
    script, style = _source("report.js"), _source("report.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(PACKAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        t=t.texts,
        evaluation=evaluation,
        version=__version__,
        script=script,
        style=style,
        # Nothing is loaded from anywhere, and no script runs but ours: said to the browser too.
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        title=": ".join([t("title"), *list(_sources(evaluation).values())[:1]]),
        facts=_facts(t),
        titles=CHINESE_TITLES if language != "en" else {},
        summary=_summary(t),
        groups=_groups(t),
        figures=_figures(order, t),
        per_class=tables.per_class_table(order, t),
        others=[table for table in found if table is not None],
    )


def ready() -> None:
    """Raise an `ImportError` that says what to install if a report could not be made."""
    missing = [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]
    if missing:
        raise ImportError(f'the report needs {" and ".join(missing)}: pip install "withlogits[report]"')


def _source(name: str) -> str:
    # Line ends as they are on the page, whatever they are in the file: the script's digest hangs on them.
    return (files(PACKAGE) / "templates" / name).read_text("utf-8").replace("\r\n", "\n")


def _facts(t: Words) -> list[tuple[str, str, bool]]:
    """Return heading, text, and whether the text is a name in code."""
    e = t.evaluation
    data = t("data_text", count=t.count(e.count), classes=plural(t.texts["classes_count"], e.classes))
    if e.ignored:
        data += t("comma") + t("ignored_text", ignored=t.count(e.ignored))
    names = [(t.texts.get(key, key), name, True) for key, name in _sources(e).items()]
    loss = FUNCTIONS.get(e.loss_name, e.loss_name)
    return [*names, (t("data"), data, False), (t("loss_function"), loss, True)]


def _sources(evaluation: Evaluation) -> dict[str, str]:
    """Return the names of the files; an array that came from none is named like its part."""
    return {key: name for key, name in evaluation.sources.items() if name != key}


def _summary(t: Words) -> list[tuple[str, str]]:
    """Return each severity that occurs, and how often."""
    severities: tuple[Severity, ...] = ("error", "warning", "note")
    counts = [(severity, len(t.evaluation.diagnosis.of(severity))) for severity in severities]
    return [(severity, plural(t.texts[severity + "s_count"], count)) for severity, count in counts if count]


def _guess(evaluation: Evaluation) -> float:
    """Return the loss of equal probabilities: ln C, and ln 2 for independent classes."""
    return math.log(max(1, evaluation.classes) if evaluation.exclusive else 2)


def _groups(t: Words) -> list[Group]:
    def group(name: str, about: str, *figures: tuple[str, Callable[[float | None], str], float | None]) -> Group:
        shown = [(t.texts.get(key, key), text(value)) for key, text, value in figures]
        return Group(t(f"group_{name}"), shown, about)

    e = t.evaluation
    perplexity = [("perplexity", decimal, e.perplexity)] if e.exclusive else []
    top = [(t("top", k=k), percent, share) for k, share in sorted((e.top_k or {}).items()) if k > 1]
    independent = [
        ("micro_f1", percent, e.f1),
        ("macro_f1", percent, e.macro_f1),
        ("micro_precision", percent, e.precision),
        ("micro_recall", percent, e.recall),
        ("accuracy", percent, e.accuracy),
        ("best_f1_mean", percent, e.best_f1),
        ("auroc_mean", decimal, e.auroc),
        ("average_precision_mean", decimal, e.average_precision),
    ]
    if e.auroc_error or e.average_precision_error:
        errors = (("auroc_error", e.auroc_error), ("average_precision_error", e.average_precision_error))
        independent += [(name, lambda value: decimal(value, 2), error) for name, error in errors]
    decisions = [("accuracy", percent, e.accuracy), *top] if e.exclusive else independent
    classwise = [
        (name, text, value)
        for name, text, value in (
            ("classwise_ece", percent, e.classwise_calibration_error),
            ("brier_score", decimal, e.brier),
        )
        if value is not None
    ]
    fitted = t("space") + t("fitted_on", count=t.count(e.fitted_on)) if e.fitted_on else ""
    return [
        group(
            "loss",
            t("about_loss", unit=t.unit),
            ("loss_nats", decimal, e.loss),
            ("loss_bits", decimal, e.bits),
            *perplexity,
            ("guessing", decimal, _guess(e)),
        ),
        group("decisions", t("about_decisions"), *decisions),
        group(
            "calibration",
            t("about_calibration") + fitted,
            ("temperature", lambda value: decimal(value, 3), e.temperature),
            ("loss_at_temperature", decimal, e.loss_at_temperature),
            ("ece_before", percent, e.calibration.error),
            ("ece_after", percent, e.calibration_at_temperature.error),
            *classwise,
        ),
    ]


def _figures(order: list[int], t: Words) -> list[Figure]:
    from withlogits.evaluation.report import plots, svg  # matplotlib is imported for a report only

    with svg.style():
        return _drawn(order, t, plots)


def _drawn(order: list[int], t: Words, plots: Any) -> list[Figure]:
    evaluation = t.evaluation
    titles = (
        t("reliability_before"),
        t("reliability_after", temperature=decimal(evaluation.temperature, 3)),
    )
    calibrations = (evaluation.calibration, evaluation.calibration_at_temperature)
    bars = plots.BARS
    figures = [
        Figure(
            "histogram",
            t("histogram"),
            [plots.histogram_plot(_guess(evaluation), t)],
            table=tables.histogram_table(t),
            half=True,
        ),
        Figure(
            "per-class",
            t("per_class_figure"),
            [plots.per_class_plot(order, t)],
            t("per_class_figure_some", shown=bars, all=whole(len(order))) if len(order) > bars else "",
            half=True,
        ),
        Figure(
            "reliability",
            t("reliability"),
            [plots.reliability_plot(*pair, t) for pair in zip(calibrations, titles, strict=True)],
            legend=t("reliability_legend", unit=t.unit),
            table=tables.reliability_table(titles, t),
        ),
    ]
    if evaluation.confusion is not None:
        plot, right, wrong = plots.confusion_plot(evaluation.confusion, t)
        shown = min(len(evaluation.confusion.classes), plots.CELLS)
        some = shown < evaluation.classes
        text = t("confusion_some", shown=whole(shown), all=whole(evaluation.classes)) if some else ""
        keys = (
            ("right", t("confusion_right", share=right)),
            ("wrong", t("confusion_wrong", share=wrong)),
        )
        figures.append(Figure("confusion", t("confusion"), [plot], text, t("confusion_legend"), keys))
    return figures
