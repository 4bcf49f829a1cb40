"""An evaluation as one HTML file that needs nothing but itself: no library, no font, no address is loaded.

The figures are SVG that Jinja2 writes: they add some ten KB to the file, take the page's fonts and colours (light and
dark), keep the size of their letters on a phone, and are there without a script. Rejected: Plotly (4.8 MB in every
file) and Bokeh (1 MB), which draw in colours and sizes of their own and only by a script; matplotlib's SVG, whose
letters shrink with the picture and whose colours are fixed.

| file           | what it has                                             |
|----------------|---------------------------------------------------------|
| `page.py`      | what stands where: the sections of the page             |
| `plots.py`     | the figures, and what they show in words                |
| `confusion.py` | the heat map of confusions                              |
| `canvas.py`    | the rectangles, lines and letters that they are made of |
| `tables.py`    | the cells of the tables                                 |
| `words.py`     | numbers, counts and classes as people read them         |
| `texts.py`     | every text in English and in Chinese                    |
| `templates`    | the markup, the style and the script                    |
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

    The page goes to a file beside `path`, which takes that name when it is whole, and vanishes if there was an error.

    Parameters
    ----------
    evaluation : Evaluation
    path : Path
        The file; one that is there is replaced. Its folder must exist.
    language : {"en", "zh"}
        English or Chinese. What the guide found out about the data stays in English.

    Raises
    ------
    ValueError
        If the language is another.
    ImportError
        If Jinja2 is not installed.
    OSError
        If the file cannot be written.
    """
    if language not in TEXTS:
        raise ValueError(f"language is {language!r}; expected one of {', '.join(map(repr, TEXTS))}")
    with open_output(path, evaluation.sources.values()) as stream:
        # File names may hold bytes that are no text; they are shown as escapes.
        stream.write(render(evaluation, TEXTS[language]).encode("utf-8", "backslashreplace"))
