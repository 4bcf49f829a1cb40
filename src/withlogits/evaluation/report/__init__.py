"""An evaluation as one HTML file that loads nothing: no library, no font, no address.

matplotlib places the marks of the figures; the page's style sheet colours them (light and dark) and chooses the fonts.
They add some ten KB to the file and are there without a script. Rejected: Plotly (4.8 MB in every file) and Bokeh
(1 MB), which draw only by a script.

| file        | contents                                            |
|-------------|-----------------------------------------------------|
| `page.py`   | the sections of the page                            |
| `plots.py`  | the figures, and what they show in words            |
| `svg.py`    | from a figure of matplotlib to an element of a page |
| `tables.py` | the tables                                          |
| `words.py`  | numbers, counts and classes as people read them     |
| `texts.py`  | every text in English and in Chinese                |
| `templates` | the markup, the style and the script                |
"""

from __future__ import annotations

from pathlib import Path

from withlogits.evaluation.output import open_output
from withlogits.evaluation.report.page import ready, render
from withlogits.evaluation.report.texts import TEXTS
from withlogits.evaluation.results import Evaluation

__all__ = ["ready", "write"]


def write(evaluation: Evaluation, path: Path, language: str = "en") -> None:
    """Write the report of an evaluation to one HTML file.

    Parameters
    ----------
    evaluation : Evaluation
    path : Path
        The file; one that exists is replaced when the new one is complete. Its folder must exist. A FIFO or /dev/stdout
        is written as a stream.
    language : {"en", "zh"}
        English or Chinese. What the guide found out about the data stays in English.

    Raises
    ------
    ValueError
        If the language is another.
    ImportError
        If Jinja2 or matplotlib is not installed.
    OSError
        If the file cannot be written, is one of those that were evaluated, or is neither a regular file nor a stream.
    """
    if language not in TEXTS:
        raise ValueError(f"language is {language!r}; expected one of {', '.join(map(repr, TEXTS))}")
    with open_output(path, evaluation.sources.values()) as stream:
        # File names may hold bytes that are no text; they are shown as escapes.
        stream.write(render(evaluation, language).encode("utf-8", "backslashreplace"))
