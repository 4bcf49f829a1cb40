"""What stands where on the page."""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from withlogits.evaluation.report import confusion, plots, tables
from withlogits.evaluation.report.canvas import Plot
from withlogits.evaluation.report.texts import CHINESE_TITLES, Texts
from withlogits.evaluation.report.words import count_text, decimal, percent, plural, unit_of, whole
from withlogits.evaluation.results import Evaluation
from withlogits.guide.findings import Severity

if TYPE_CHECKING:
    import jinja2

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


def render(evaluation: Evaluation, t: Texts) -> str:
    """The whole page."""
    import withlogits

    order = tables.by_total_loss(evaluation)
    found = [tables.costliest_table(evaluation, t), tables.confusions_table(evaluation, t)]
    script, style = _source("report.js"), _source("report.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template("report.html")
        .render(
            t=t,
            evaluation=evaluation,
            version=withlogits.__version__,
            script=script,
            style=style,
            # Nothing is loaded from anywhere, and no script runs but ours: said to the browser too.
            policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
            title=": ".join([t["title"], *list(_sources(evaluation).values())[:1]]),
            facts=_facts(evaluation, t),
            findings=_findings(evaluation, t),
            summary=_summary(evaluation, t),
            groups=_groups(evaluation, t),
            figures=_figures(evaluation, order, t),
            per_class=tables.per_class_table(evaluation, order, t),
            others=[table for table in found if table is not None],
        )
    )


def ready() -> None:
    """Raise an `ImportError` that says what to install if a report could not be made."""
    if find_spec("jinja2") is None:
        raise ImportError('the report needs jinja2: pip install "withlogits[report]"')


def _environment() -> jinja2.Environment:
    ready()
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader(PACKAGE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _source(name: str) -> str:
    # Line ends as they are on the page, whatever they are in the file: the script's digest hangs on them.
    return (files(PACKAGE) / "templates" / name).read_text("utf-8").replace("\r\n", "\n")


def _facts(evaluation: Evaluation, t: Texts) -> list[tuple[str, str, bool]]:
    """Heading, text, and whether the text is the name of something."""
    count = count_text(evaluation, evaluation.count, t)
    data = t["data_text"].format(count=count, classes=plural(t["classes_count"], evaluation.classes))
    if evaluation.ignored:
        data += t["comma"] + t["ignored_text"].format(ignored=count_text(evaluation, evaluation.ignored, t))
    names = [(t.get(key, key), name, True) for key, name in _sources(evaluation).items()]
    loss = FUNCTIONS.get(evaluation.loss_name, evaluation.loss_name)
    return [*names, (t["data"], data, False), (t["loss_function"], loss, True)]


def _sources(evaluation: Evaluation) -> dict[str, str]:
    """The names of the files; an array that came from none is named like its part."""
    return {key: name for key, name in evaluation.sources.items() if name != key}


def _findings(evaluation: Evaluation, t: Texts) -> list[dict[str, Any]]:
    chinese = t["lang"] != "en"
    return [
        {
            "code": found.code,
            "severity": found.severity,
            "title": CHINESE_TITLES.get(found.code, found.title) if chinese else found.title,
            "evidence": found.evidence,
            "fix": found.fix,
        }
        for found in evaluation.diagnosis
    ]


def _summary(evaluation: Evaluation, t: Texts) -> list[tuple[str, str]]:
    """Severity and how many, of those that there are."""
    severities: tuple[Severity, ...] = ("error", "warning", "note")
    counts = [(severity, len(evaluation.diagnosis.of(severity))) for severity in severities]
    return [(severity, plural(t[severity + "s_count"], count)) for severity, count in counts if count]


def _guess(evaluation: Evaluation) -> float:
    """The loss of giving the same probability to everything: ln C, and ln 2 for a question."""
    return math.log(max(1, evaluation.classes) if evaluation.exclusive else 2)


def _groups(evaluation: Evaluation, t: Texts) -> list[Group]:
    unit = t[unit_of(evaluation)]
    loss = [(t["loss_nats"], decimal(evaluation.loss)), (t["loss_bits"], decimal(evaluation.bits))]
    if evaluation.exclusive:
        loss.append((t["perplexity"], decimal(evaluation.perplexity)))
        decisions = [(t["accuracy"], percent(evaluation.accuracy))]
        decisions += [
            (t["top"].format(k=k), percent(share)) for k, share in sorted((evaluation.top_k or {}).items()) if k > 1
        ]
        about = t["about_decisions_exclusive"]
    else:
        decisions = [
            (t["micro_f1"], percent(evaluation.f1)),
            (t["macro_f1"], percent(evaluation.macro_f1)),
            (t["micro_precision"], percent(evaluation.precision)),
            (t["micro_recall"], percent(evaluation.recall)),
            (t["accuracy"], percent(evaluation.accuracy)),
            (t["auroc_mean"], decimal(evaluation.auroc)),
            (t["average_precision_mean"], decimal(evaluation.average_precision)),
        ]
        about = t["about_decisions_independent"]
    loss.append((t["guessing"], decimal(_guess(evaluation))))
    calibration = [
        (t["temperature"], decimal(evaluation.temperature, 3)),
        (t["loss_at_temperature"], decimal(evaluation.loss_at_temperature)),
        (t["ece_before"], percent(evaluation.calibration.error)),
        (t["ece_after"], percent(evaluation.calibration_at_temperature.error)),
    ]
    fitted = ""
    if evaluation.fitted_on:
        fitted = t["space"] + t["fitted_on"].format(count=count_text(evaluation, evaluation.fitted_on, t))
    return [
        Group(t["group_loss"], loss, t["about_loss"].format(unit=unit)),
        Group(t["group_decisions"], decisions, about),
        Group(t["group_calibration"], calibration, t["about_calibration"] + fitted),
    ]


def _figures(evaluation: Evaluation, order: list[int], t: Texts) -> list[Figure]:
    titles = (
        t["reliability_before"],
        t["reliability_after"].format(temperature=decimal(evaluation.temperature, 3)),
    )
    calibrations = (evaluation.calibration, evaluation.calibration_at_temperature)
    figures = [
        Figure(
            "histogram",
            t["histogram"],
            [plots.histogram_plot(evaluation, _guess(evaluation), t)],
            table=tables.histogram_table(evaluation, t),
        ),
        Figure(
            "reliability",
            t["reliability"],
            [plots.reliability_plot(evaluation, *pair, t) for pair in zip(calibrations, titles, strict=True)],
            legend=t["reliability_legend"].format(unit=t[unit_of(evaluation)]),
            table=tables.reliability_table(evaluation, titles, t),
        ),
    ]
    few = evaluation.classes <= 12
    if evaluation.confusion is not None:
        plot, right, wrong = confusion.confusion_plot(evaluation, evaluation.confusion, t)
        shown = min(len(evaluation.confusion.classes), confusion.CLASSES)
        some = shown < evaluation.classes
        text = t["confusion_some"].format(shown=whole(shown), all=whole(evaluation.classes)) if some else ""
        keys = (
            ("right", t["confusion_right"].format(share=right)),
            ("wrong", t["confusion_wrong"].format(share=wrong)),
        )
        figures.append(Figure("confusion", t["confusion"], [plot], text, t["confusion_legend"], keys, half=few))
    some = len(order) > plots.BARS
    text = t["per_class_figure_some"].format(shown=plots.BARS, all=whole(len(order))) if some else ""
    half = few and evaluation.confusion is not None
    figures.append(
        Figure("per-class", t["per_class_figure"], [plots.per_class_plot(evaluation, order, t)], text, half=half)
    )
    return figures
