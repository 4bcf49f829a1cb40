"""The report: one file that needs nothing but itself, says what the evaluation says, and works in a browser."""

from __future__ import annotations

import html
import re
import shutil
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest

from evaluation.report_cases import (
    DIGITS,
    GENRES,
    MISCALIBRATED,
    PROBABILITIES,
    even_histogram,
    everything_wrong,
    exclusive,
    independent,
)
from withlogits import evaluate
from withlogits.evaluation.report import write
from withlogits.evaluation.report.texts import CHINESE, CHINESE_TITLES, ENGLISH
from withlogits.evaluation.results import Confusion, Evaluation, Histogram
from withlogits.guide.findings import CODES, Diagnosis

pytest.importorskip("jinja2")

CASES = {
    "exclusive": exclusive(findings=(PROBABILITIES, MISCALIBRATED)),
    "independent": independent(),
    "wrong": everything_wrong(),
}
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """The elements of a page in their order, as (tag, attributes, text within); fails if they do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element: tuple[str, dict[str, str | None], list[str]] = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        for _, _, text in self.open:
            text.append(data)

    def all(self, *tags: str) -> list[tuple[str, dict[str, str | None], str]]:
        return [(tag, attributes, " ".join("".join(t).split())) for tag, attributes, t in self.elements if tag in tags]

    def texts(self, *tags: str) -> list[str]:
        return [text for _, _, text in self.all(*tags)]


def written(evaluation: Evaluation, folder: Path, language: str = "en") -> Page:
    path = folder / "report.html"
    write(evaluation, path, language)
    return Page(path.read_text("utf-8"))


def figures(page: Page) -> dict[str, str]:
    return dict(zip(page.texts("dt"), page.texts("dd"), strict=True))


def test_the_diagnosis_comes_first_then_figures_then_tables(tmp_path: Path) -> None:
    page = written(exclusive(findings=(PROBABILITIES, MISCALIBRATED)), tmp_path)
    assert page.texts("h1", "h2") == ["Evaluation report", "Diagnosis", "Key figures", "Figures", "Tables"]
    assert page.texts("title") == ["Evaluation report: runs/digits/logits.npy"]
    assert "runs/digits/labels.npy" in page.texts("code")
    first, second, advice = page.texts("article")
    for part in ("Error", *(getattr(PROBABILITIES, name) for name in ("code", "title", "evidence"))):
        assert part in first
    assert MISCALIBRATED.evidence in second
    assert "exactly one class is true in each of 4,000 rows" in advice
    for fix in (PROBABILITIES.fix, MISCALIBRATED.fix):
        assert " ".join(fix.split()) in page.texts("pre")
    assert page.texts("li") == ["1 error", "1 note"]


def test_nothing_found_is_said(tmp_path: Path) -> None:
    page = written(exclusive(), tmp_path)
    assert any(text.startswith("Nothing found") for text in page.texts("p"))
    assert "li" not in {tag for tag, _, _ in page.elements}


def test_key_figures_of_exclusive_classes(tmp_path: Path) -> None:
    evaluation = replace(exclusive(), loss=0.5, accuracy=0.8125, top_k={1: 0.8125, 5: 0.99996})
    shown = figures(written(evaluation, tmp_path))
    assert shown["Loss, nats"] == "0.5000"
    assert shown["Loss, bits"] == "0.7213"
    assert shown["Perplexity"] == "1.649"
    assert shown["Accuracy"] == "81.2%"
    assert shown["Top-5 accuracy"] == ">99.99%"
    assert shown["Loss of guessing evenly"] == "2.303"
    assert float(shown["Temperature"]) == pytest.approx(evaluation.temperature, rel=1e-2)
    assert "ECE as given" in shown
    assert "F1, micro" not in shown


def test_key_figures_of_independent_classes(tmp_path: Path) -> None:
    evaluation = replace(independent(), f1=0.75, auroc=float("nan"))
    shown = figures(written(evaluation, tmp_path))
    assert shown["F1, micro"] == "75.0%"
    assert shown["AUROC, mean of the classes"] == "–"
    assert shown["Average precision (AP), mean of the classes"] == "0.8127"
    assert shown["Loss of guessing evenly"] == "0.6931"
    assert "Perplexity" not in shown


def test_every_plot_is_named_by_a_sentence_with_numbers(tmp_path: Path) -> None:
    for evaluation, count in ((exclusive(), 5), (independent(), 4)):
        page = written(evaluation, tmp_path)
        sentences = {attributes.get("id"): text for _, attributes, text in page.all("p")}
        plots = [attributes for _, attributes, _ in page.all("svg") if attributes.get("role") == "img"]
        names = [sentences[plot["aria-labelledby"]] for plot in plots]
        assert len(names) == count
        assert all(re.search(r"\d", name) for name in names)


def test_headings_are_in_order(tmp_path: Path) -> None:
    for case in CASES.values():
        levels = [int(tag[1]) for tag, _, _ in written(case, tmp_path).all("h1", "h2", "h3", "h4")]
        assert levels[0] == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_confusion_message_counts_rows_taken_for_classes_that_are_not_shown(tmp_path: Path) -> None:
    evaluation = exclusive()
    support = evaluation.per_class.support
    matrix = np.diag([support[0] // 2, support[1] // 2])
    evaluation = replace(evaluation, confusion=Confusion(np.array([0, 1]), matrix, ((0, 5, 17),)))
    text = " ".join(written(evaluation, tmp_path).texts("p"))
    assert "The 2 of 10 classes with most confusions." in text
    assert "Most often “zero” is taken for “five”: 17 rows." in text
    share = re.search(r"([\d.]+)% of the rows of the classes shown are right", text)
    assert share is not None
    assert float(share[1]) == pytest.approx(50, abs=0.3)


@pytest.mark.parametrize("spread", ["logarithmic", "even"])
def test_the_histogram_tells_where_half_of_the_losses_lie(spread: str, tmp_path: Path) -> None:
    losses = np.concatenate([np.full(80, 0.125), np.full(15, 1.5), np.full(5, 9.5)])
    evaluation = independent()
    if spread == "even":
        evaluation = replace(evaluation, histogram=even_histogram(losses, 19))
    else:
        counts = np.histogram(losses, evaluation.histogram.edges)[0]
        evaluation = replace(evaluation, histogram=replace(evaluation.histogram, counts=counts))
    page = written(replace(evaluation, count=103), tmp_path)
    message = next(text for _, at, text in page.all("p") if at.get("id") == "histogram-message-1")
    found = re.match(
        r"Half of the elements lose less than about ([\d.]+) nats, one in ten .* about ([\d.]+)\.", message
    )
    assert found is not None
    median, high = map(float, found.groups())
    assert 0.05 < median < 0.5
    assert 1 < high < 2
    assert "Not shown: 3 elements with a loss that is infinite or NaN." in message
    assert any("80 elements (80.0%)" in (at.get("data-tip") or "") for _, at, _ in page.all("path"))


def test_chinese_translates_titles_by_code_and_leaves_evidence(tmp_path: Path) -> None:
    page = written(exclusive(findings=(PROBABILITIES,)), tmp_path, "zh")
    assert page.elements[0][:2] == ("html", {"lang": "zh-CN"})
    assert page.texts("h1", "h2") == ["评估报告", "诊断", "关键指标", "图", "表格"]
    assert CHINESE_TITLES["WL101"] in page.texts("h3")
    article = page.texts("article")[0]
    assert "错误" in article
    assert PROBABILITIES.evidence in article
    assert PROBABILITIES.title not in article


def test_the_languages_have_the_same_texts_with_the_same_fields() -> None:
    def fields(text: str) -> set[str | None]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}

    assert set(ENGLISH) == set(CHINESE)
    for key, text in ENGLISH.items():
        assert fields(text) == fields(CHINESE[key]), key
    assert set(CHINESE_TITLES) == set(CODES)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_markup_in_names_and_findings_is_text(language: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write(everything_wrong(), path, language)
    text = path.read_text("utf-8")
    page = Page(text)
    assert len(page.all("script")) == 1
    assert "b" not in {tag for tag, _, _ in page.elements}
    assert html.escape("<script>alert(1)</script>") in text
    assert "<script>alert(2)</script>.npy" in page.texts("title")[0]
    assert "\\udcff" in text
    assert not re.search(r"\bnan\b", text)
    assert len(page.all("article")) == len(CODES)


def test_many_classes_are_cut_and_the_text_says_so(tmp_path: Path) -> None:
    page = written(exclusive(32_000, 50, None), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 500_000
    assert "The 200 of 32,000 classes with the highest total loss." in " ".join(page.texts("caption"))
    assert sum("data-numeric" in attributes for _, attributes, _ in page.all("th")) == 7
    assert len([1 for _, attributes, _ in page.all("th") if attributes.get("scope") == "row"]) > 200


def test_the_highest_total_losses_are_kept(tmp_path: Path) -> None:
    evaluation = exclusive(1000, 3000, None)
    each = evaluation.per_class
    totals = np.nan_to_num(each.loss * each.support)
    page = written(evaluation, tmp_path)
    shown = [int(at["data-key"].removesuffix(".0")) for _, at, _ in page.all("th") if at.get("data-key")]
    assert len(shown) == 200
    assert totals[shown].min() >= np.sort(totals)[-200] - 1e-9


def drawn(page: Page, kind: str) -> list[tuple[dict[str, str | None], str]]:
    """The marks of a class in the figures."""
    return [(at, text) for _, at, text in page.all("path", "text", "circle") if kind in (at.get("class") or "").split()]


def corners(path: str | None) -> tuple[float, float, float, float]:
    """Of a rectangle: left, top, right, bottom."""
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", path or "")]
    return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])


def test_a_loss_beyond_the_last_finite_edge_is_drawn(tmp_path: Path) -> None:
    logits = np.zeros((100, 3))
    logits[::5, 1] = 2000.0
    logits[::7, 2] = 1e5
    evaluation = evaluate(np.zeros(100, int), logits)
    assert np.isinf(evaluation.histogram.edges[-1])
    assert evaluation.histogram.counts[-1] > 0
    page = written(evaluation, tmp_path)
    tips = [at["data-tip"] or "" for at, _ in drawn(page, "bar")]
    assert any(tip.startswith("768 to inf nats: 32 rows") or " to inf nats: 3" in tip for tip in tips)


def test_the_area_of_a_bar_is_its_count(tmp_path: Path) -> None:
    """On the axis of logarithms: bins of 0.585 and of 0.415 octaves in turns, all equally full for their width."""
    edges = np.concatenate(([0.0], (2.0 ** np.arange(-6, 3)[:, None] * [1.0, 1.5]).reshape(-1), [np.inf]))
    counts = np.array([0, *[585, 415] * 9])
    evaluation = replace(exclusive(), histogram=Histogram(edges, counts))
    page = written(evaluation, tmp_path)
    boxes = [corners(at["d"]) for at, _ in drawn(page, "bar") if "%)" in (at["data-tip"] or "")]
    assert len(boxes) == 18
    boxes = boxes[:-1]  # the last bin has no end
    widths = [right - left for left, _, right, _ in boxes]
    heights = [bottom - top for _, top, _, bottom in boxes]
    # Coordinates are rounded to 0.1; log2(1.5) = 0.58496, 585 and 415 differ from it by 3e-5 and 1e-4 of themselves.
    assert max(heights) - min(heights) <= 0.2 + 2e-4 * max(heights)
    for wide, narrow in zip(widths[::2], widths[1::2], strict=False):
        assert wide / narrow == pytest.approx(np.log2(1.5) / np.log2(4 / 3), abs=0.25 / narrow)


def test_the_largest_mean_loss_is_that_of_all_classes(tmp_path: Path) -> None:
    evaluation = exclusive(40, 4000, None)
    loss, support = evaluation.per_class.loss.copy(), evaluation.per_class.support.copy()
    loss[7], support[7] = 9.25, 1  # its total is small, so that it is not among the bars
    loss[9], support[9] = 1e-3, 1
    page = written(replace(evaluation, per_class=replace(evaluation.per_class, loss=loss, support=support)), tmp_path)
    message = next(text for _, at, text in page.all("p") if at.get("id") == "per-class-message-1")
    assert message.startswith("The mean loss is largest for class 7, 9.250 nats, and smallest for class 9, 0.001000.")
    assert message.endswith("The 20 of 40 classes with the highest total loss.")
    assert "7" not in [text for _, text in drawn(page, "tick")][-20:]


def test_names_are_texts_of_the_page(tmp_path: Path) -> None:
    names = ("猫", "$x$", "a_b^c", "<b>", "\x1b[31m", "大熊猫与小熊猫以及其他动物", *DIGITS[6:])
    page = written(replace(exclusive(), class_names=names), tmp_path, "zh")
    shown = {text for _, text in drawn(page, "tick")}
    assert {"猫", "$x$", "a_b^c", "<b>", r"\x1b[31m", "大熊猫与小熊猫…"} <= shown
    assert not [at for at, _ in drawn(page, "tick") if "style" in at]


def test_the_same_evaluation_is_the_same_file(tmp_path: Path) -> None:
    write(exclusive(), tmp_path / "a")
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "svg.fonttype": "path", "axes.grid": True}):
        write(exclusive(), tmp_path / "b")
        assert matplotlib.rcParams["text.usetex"]
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert " id=" not in "".join(re.findall("<svg.*?</svg>", (tmp_path / "a").read_text("utf-8"), re.DOTALL))


def test_nothing_is_loaded(tmp_path: Path) -> None:
    for case in CASES.values():
        page = written(case, tmp_path)
        for tag, attributes, _ in page.elements:
            assert "src" not in attributes
            assert attributes.get("href", "#").startswith(("#", "data:,")), tag
        policy = next(at["content"] for _, at, _ in page.all("meta") if at.get("http-equiv"))
        assert policy.startswith("default-src 'none'; ")
        assert "url(" not in page.texts("style")[0]
        assert "http" not in page.texts("style")[0] + page.texts("script")[0]


def test_the_file_replaces_another_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write(exclusive(), path)
    assert path.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        write(exclusive(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere; make it first") as caught:
        write(exclusive(), tmp_path / "nowhere" / "report.html")
    assert str(caught.value).count("\n") == 0
    with pytest.raises(OSError, match=r"is a folder"):
        write(exclusive(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_language_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^language is 'de'; expected one of 'en', 'zh'$"):
        write(exclusive(), tmp_path / "report.html", "de")
    assert not list(tmp_path.iterdir())


def test_the_template_library_is_imported_at_first_need(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys\n"
        "from withlogits.evaluation.report import write\n"
        "assert not {'jinja2', 'matplotlib'} & set(sys.modules)\n"
        "sys.modules['jinja2'] = None\n"
        "from evaluation.report_cases import exclusive\n"
        f"write(exclusive(), pathlib.Path({str(tmp_path / 'report.html')!r}))\n"
    )
    source = Path(__file__).resolve().parents[2]
    environment = {"PYTHONPATH": f"{source / 'src'}:{source / 'tests'}"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert result.stderr.endswith('ImportError: the report needs jinja2: pip install "withlogits[report]"\n')
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------------------------------------------- in a browser

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

# Contrast of every text with what lies behind it: the nearest background, or in a heat map the cell's colour on the
# card's. Colours are read through a canvas, which knows every notation.
CONTRAST = """() => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below, share) => top.slice(0, 3).map((c, i) => c * share + below[i] * (1 - share));
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255, 1];
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const cellAt = (text) => {
    const { x, y, width, height } = text.getBoundingClientRect();
    const [a, b] = [x + width / 2, y + height / 2];
    return [...text.parentElement.querySelectorAll(".cell")].find((cell) => {
      const box = cell.getBoundingClientRect();
      return box.left <= a && a <= box.right && box.top <= b && b <= box.bottom;
    });
  };
  const bad = [];
  let looked = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("script")) continue;
    const drawn = element instanceof SVGElement;
    const style = getComputedStyle(element);
    let below = behind(drawn ? element.closest("div") : element);
    const cell = element.classList.contains("value") && cellAt(element);
    if (cell) {
      below = over(rgba(getComputedStyle(cell).fill), below, Number(cell.getAttribute("fill-opacity") ?? 1));
    }
    const [a, b] = [light(rgba(drawn ? style.fill : style.color)), light(below)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    looked += 1;
    if (ratio < 4.5) bad.push(`${walker.currentNode.data.trim()}: ${ratio.toFixed(2)}`);
  }
  return [looked, bad];
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip(f"there is no Chromium on the PATH, under none of the names {', '.join(names)}")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens the report of an evaluation; at the end nothing was complained of, and nothing else was asked for."""
    said: list[str] = []
    asked: list[str] = []
    contexts = []

    def opened(evaluation: Evaluation, language: str = "en", **options: Any) -> Any:
        path = tmp_path / f"report {len(contexts)}.html"
        write(evaluation, path, language)
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []
    assert set(asked) == {(tmp_path / f"report {number}.html").as_uri() for number in range(len(contexts))}


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("case", CASES)
def test_it_fits_is_readable_and_complains_of_nothing(case: str, language: str, visit: Callable[..., Any]) -> None:
    page = visit(CASES[case], language)
    backgrounds = []
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        for width in (1280, 390):  # a desk and a phone
            page.set_viewport_size({"width": width, "height": 900})
            page.reload()
            page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
            inner, outer = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
            assert inner <= outer == width
        looked, bad = page.evaluate(CONTRAST)
        assert looked > 100
        assert bad == []
        backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(set(backgrounds)) == 2


@pytest.mark.parametrize("case", CASES)
def test_figures_have_names_for_those_who_do_not_see_them(case: str, visit: Callable[..., Any]) -> None:
    page = visit(CASES[case])
    for role in ("img", "figure", "table"):
        elements = page.get_by_role(role)
        assert elements.count() >= (0 if case == "wrong" and role == "img" else 2)
        named = page.get_by_role(role, name=re.compile(r"\S")).count()
        assert named == elements.count()
    if case != "wrong":
        assert page.get_by_role("img", name=re.compile("ECE")).count() == 2


def column(page: Any, heading: str) -> list[str]:
    return page.evaluate(
        """(heading) => {
          const table = document.querySelector("table.sortable");
          const place = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === heading);
          return [...table.tBodies[0].rows].map((row) => row.cells[place].textContent);
        }""",
        heading,
    )


def sorts(page: Any) -> dict[str, str]:
    return page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll("table.sortable thead th")]
                 .map((cell) => [cell.textContent, cell.getAttribute("aria-sort")]))"""
    )


def test_the_table_sorts_by_click_and_by_key(visit: Callable[..., Any]) -> None:
    evaluation = independent()
    losses = evaluation.per_class.loss.copy()
    losses[2], losses[4] = np.inf, np.nan
    recall = evaluation.per_class.recall.copy()
    recall[3] = np.nan
    page = visit(replace(evaluation, per_class=replace(evaluation.per_class, loss=losses, recall=recall)))
    table = page.get_by_role("table").filter(has=page.get_by_role("button", name="Recall"))

    table.get_by_role("button", name="Mean loss").click()
    assert sorts(page)["Mean loss"] == "descending"
    shown = column(page, "Mean loss")
    assert shown[0] == "inf"
    assert shown[-1] == "–"
    numbers = [float(text) for text in shown[:-1]]
    assert numbers == sorted(numbers, reverse=True)
    table.get_by_role("button", name="Mean loss").click()
    assert sorts(page)["Mean loss"] == "ascending"
    shown = column(page, "Mean loss")
    assert [float(text) for text in shown[:-1]] == sorted(numbers)
    assert shown[-1] == "–"

    page.evaluate("document.querySelector('table.sortable button').focus()")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert sorts(page) == dict.fromkeys(sorts(page), "none") | {"Name": "ascending"}
    assert column(page, "Name") == sorted(GENRES)
    page.keyboard.press("Space")
    assert sorts(page)["Name"] == "descending"
    assert column(page, "Name") == sorted(GENRES, reverse=True)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert sorts(page)["Class"] == "ascending"
    assert column(page, "Class") == [str(number) for number in range(8)]
    assert column(page, "Recall")[3] == "–"


def test_the_theme_can_be_chosen_and_follows_the_system_until_then(visit: Callable[..., Any]) -> None:
    page = visit(exclusive())

    def background() -> str:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    def system(scheme: str) -> None:
        page.emulate_media(color_scheme=scheme)
        # the page hears of it with its next frame
        page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    light, button = background(), page.locator("#theme")
    assert button.inner_text() == "Dark theme"
    system("dark")
    dark = background()
    assert dark != light
    assert button.inner_text() == "Light theme"
    button.press("Enter")
    assert background() == light
    assert button.inner_text() == "Dark theme"
    system("light")
    system("dark")
    assert background() == light
    button.click()
    assert background() == dark


def test_the_keyboard_reaches_everything_and_the_focus_is_seen(visit: Callable[..., Any]) -> None:
    page = visit(exclusive())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the diagnosis"
    assert page.evaluate("document.activeElement.getBoundingClientRect().top") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "diagnosis"
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        tag, outline = page.evaluate(
            "[document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]"
        )
        if tag == "BODY":
            break
        assert outline == "solid", tag
        seen.append(tag)
    assert seen.count("SUMMARY") == 2
    assert seen.count("BUTTON") == 8
    assert seen.count("DIV") >= 4  # boxes that scroll: the heat map and three tables


def test_pointing_at_a_mark_says_its_numbers(visit: Callable[..., Any]) -> None:
    page = visit(exclusive(), viewport={"width": 390, "height": 800})
    tip = page.locator("#tip")
    assert tip.is_hidden()
    bar = page.locator("figure path.bar").nth(8)
    bar.scroll_into_view_if_needed()
    bar.hover()
    assert re.fullmatch(r".* nats: [\d,]+ rows? \([\d.]+%\)", tip.inner_text())
    box = tip.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_without_a_script_all_is_there_but_the_button(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write(exclusive(), path)
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("#theme").is_hidden()
    assert page.get_by_role("img").count() == 5
    context.close()


def test_motion_is_only_for_those_who_want_it(visit: Callable[..., Any]) -> None:
    for wish, behaviour in (("reduce", "auto"), ("no-preference", "smooth")):
        page = visit(exclusive(), reduced_motion=wish)
        assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == behaviour


def test_names_that_are_markup_run_nothing(visit: Callable[..., Any]) -> None:
    evaluation = exclusive()
    names = ("<img src=x onerror=alert(1)>", "</script><script>alert(2)</script>", '"><b>', *evaluation.class_names[3:])
    page = visit(replace(evaluation, class_names=names, diagnosis=Diagnosis((), None, "sparse", "<b>")))
    assert page.locator("img, figure b, main script").count() == 0
    assert names[1] in column(page, "Name")
