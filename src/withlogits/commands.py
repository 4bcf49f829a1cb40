"""What the command `withlogits` can do: demo, loss, evaluate, doctor, info.

Results go to stdout and everything else to stderr. Exit codes: 0; 1 for data that cannot be used, with one sentence
that names the file; 2 for a command line that cannot be meant; 130 for an interrupt.
"""

import json
import math
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn, ParamSpec

import typer
from rich.console import Console
from rich.table import Table

from withlogits import __version__, engine, errors
from withlogits.cli import INTERRUPTED
from withlogits.evaluation import files, losses
from withlogits.evaluation.evaluate import counting
from withlogits.evaluation.meter import Meter
from withlogits.evaluation.output import npy_writer
from withlogits.guide import DiagnosisError, Finding

P = ParamSpec("P")

app = typer.Typer(
    help="Cross-entropy losses from logits.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Loss(StrEnum):
    """The loss to compute."""

    AUTO = "auto"
    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    SPARSE = "sparse"


# The longer name before the name that it ends with.
OPTIONS = {errors.SPARSE: Loss.SPARSE, errors.DENSE: Loss.SOFTMAX, errors.SIGMOID: Loss.SIGMOID}


class Reduction(StrEnum):
    """What becomes of the losses."""

    NONE = "none"
    SUM = "sum"
    MEAN = "mean"


def say(text: str) -> None:
    """One line on stderr."""
    print(f"withlogits: {text}", file=sys.stderr, flush=True)


def usage(text: str) -> NoReturn:
    say(text)
    raise typer.Exit(2)


def in_a_folder(output: Path, option: str = "--output") -> None:
    if not output.parent.is_dir():
        usage(f"{option} {output}: there is no folder {output.parent}")


def command(run: Callable[P, None]) -> Callable[P, None]:
    """A command whose failures are one line each, and an exit code."""

    @wraps(run)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            run(*args, **kwargs)
        except files.NoSuchArray as error:
            usage(in_options(str(error)))
        except files.BadFile as error:
            say(in_options(str(error)))
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(INTERRUPTED) from None

    return guarded


def in_options(text: str) -> str:
    """An error text of the library in the words of the command line."""
    text = re.sub(r"pass (axis|ignore_index)=(-?\d+)", lambda m: f"pass --{m[1].replace('_', '-')} {m[2]}", text)
    for function, loss in OPTIONS.items():
        text = text.replace(function, f"--loss {loss.value}")
    return text


Logits = Annotated[
    str,
    typer.Argument(
        metavar="LOGITS",
        help="A .npy, .npz, .safetensors, .parquet, .zarr or HDF5 file; FILE:NAME is one array of several.",
    ),
]
Labels = Annotated[str, typer.Argument(metavar="LABELS", help="The same; class numbers, distributions or 0/1.")]


@app.command()
@command
def demo(
    output: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("withlogits-demo.png"),
    quick: Annotated[bool, typer.Option("--quick", help="Train for a moment only.")] = False,
) -> None:
    """Train on real digits, and see what the right loss is worth."""
    try:
        from withlogits.demo import run
    except ModuleNotFoundError as error:
        if error.name not in ("matplotlib", "threadpoolctl"):
            raise
        usage(f'the demo needs {error.name}: pip install "withlogits[cli]"')
    in_a_folder(output)
    run(Console(), output, quick=quick)


@app.command("loss")
@command
def loss_of_files(
    logits: Logits,
    labels: Labels,
    loss: Annotated[Loss, typer.Option(help="auto goes by the labels, and says how.")] = Loss.AUTO,
    axis: Annotated[int | None, typer.Option(help="The axis of the classes; the last if not given.")] = None,
    ignore_index: Annotated[int | None, typer.Option(help="Rows with this label do not count (sparse).")] = None,
    reduction: Annotated[Reduction, typer.Option(help="none: each loss, on a line or in --output.")] = Reduction.MEAN,
    output: Annotated[Path | None, typer.Option(help="A .npy file for the losses (--reduction none).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as one JSON object.")] = False,
) -> None:
    """The loss of the logits in one file for the labels in another, in nats.

    The files are read block by block and may be larger than memory; nothing is unpickled.
    """
    if loss is Loss.SIGMOID and axis is not None:
        usage("--axis names the axis of exclusive classes, and the sigmoid loss has none: leave it out")
    if output is not None and reduction is not Reduction.NONE:
        usage(f"--output takes the losses one by one: --reduction none, and not {reduction.value}")
    if as_json and reduction is Reduction.NONE and output is None:
        usage("--json is a summary: with --reduction none, name a file for the losses with --output")

    x, z = files.open_array(logits), files.open_array(labels)
    along = -1 if axis is None else axis
    if loss is Loss.AUTO:
        choice = losses.choose_loss(x, z, along, say)
        say(in_options(f"--loss {choice.loss}, since {choice.reason}"))
    else:
        choice = losses.Choice(loss.value, "chosen")
    if ignore_index is not None and choice.loss != Loss.SPARSE:
        usage(f"--ignore-index goes with class numbers (--loss sparse), and the loss is {choice.loss}")
    in_order = reduction is Reduction.NONE and output is None
    pair = losses.pair_up(x, z, choice.loss, along, in_order)
    with kept(pair, reduction, output) as keep, progress_of(math.prod(x.shape)) as progress:
        summary = losses.evaluate(pair, ignore_index=ignore_index, keep=keep, progress=progress, announce=say)

    report_oddities(summary, reduction)
    value = {Reduction.SUM: summary.total, Reduction.MEAN: summary.mean, Reduction.NONE: None}[reduction]
    if as_json:
        print(json.dumps(described(pair, choice, summary, reduction, value, ignore_index, output)))
    elif value is not None:
        print(value)


@contextmanager
def kept(pair: losses.Pair, reduction: Reduction, output: Path | None) -> Iterator[Callable[[Any], None] | None]:
    """What takes the losses one by one: nothing, stdout, or a file."""
    if reduction is not Reduction.NONE:
        yield None
    elif output is None:
        yield lambda block: print("\n".join(block.reshape(-1).astype("U32")))
    else:
        in_a_folder(output)
        for array in (pair.logits, pair.labels):
            if output.exists() and output.samefile(array.path):
                usage(f"--output {output} is the file that is read: choose another")
        try:
            with npy_writer(output, pair.loss_shape, pair.loss_dtype, pair.tiling.fortran) as write:
                yield write
        except OSError as error:
            raise files.BadFile(f"{output} cannot be written: {error.strerror}") from None


@contextmanager
def progress_of(total: int) -> Iterator[Callable[[int], None] | None]:
    """A bar on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("logits", total=total)
        yield lambda count: bar.advance(task, count)


def report_oddities(summary: losses.Summary, reduction: Reduction) -> None:
    """NaN spoils a sum or a mean and ends the command; of what remains, say where it is."""
    rows = summary.count + summary.ignored
    for oddity, word in ((summary.nan, "NaN"), (summary.infinite, "inf")):
        if oddity is None:
            continue
        where = f" at [{', '.join(map(str, oddity.first))}]" if oddity.first else ""
        text = f"{oddity.file}: the loss{where} is {word}, since {oddity.cause}"
        if rows > 1:
            text += f" ({oddity.count:,} of {rows:,} are {word})"
        if word == "NaN" and reduction is not Reduction.NONE:
            raise files.BadFile(f"{text}; --reduction none shows the losses one by one")
        say(text)
    if not summary.count and reduction is Reduction.MEAN:
        say("nothing counts, and the mean of nothing is 0")


def described(
    pair: losses.Pair,
    choice: losses.Choice,
    summary: losses.Summary,
    reduction: Reduction,
    value: float | None,
    ignore_index: int | None,
    output: Path | None,
) -> dict[str, Any]:
    """The result as JSON has it; an infinite value is the string "inf", for which JSON has no number."""
    return {
        "value": value if value is None or math.isfinite(value) else str(value),
        "unit": "nats",
        "reduction": reduction.value,
        "loss": choice.loss,
        "reason": choice.reason,
        "axis": pair.axis,
        "ignore_index": ignore_index,
        "counted": summary.count,
        "ignored": summary.ignored,
        "nan": summary.nan.count if summary.nan else 0,
        "infinite": summary.infinite.count if summary.infinite else 0,
        "logits": {"file": pair.logits.name, "shape": pair.logits.shape, "dtype": pair.logits.dtype.name},
        "labels": {"file": pair.labels.name, "shape": pair.labels.shape, "dtype": pair.labels.dtype.name},
        "output": None if output is None else str(output),
    }


Axis = Annotated[int, typer.Option(help="The axis of the classes.")]
IgnoreIndex = Annotated[int | None, typer.Option(help="Rows with this label do not count (sparse).")]
AsJson = Annotated[bool, typer.Option("--json", help="The result as one JSON object.")]


class Language(StrEnum):
    """Of the report."""

    EN = "en"
    ZH = "zh"


@app.command()
@command
def evaluate(
    logits: Logits,
    labels: Labels,
    loss: Annotated[Loss, typer.Option(help="auto goes by the labels.")] = Loss.AUTO,
    axis: Axis = -1,
    ignore_index: IgnoreIndex = None,
    class_names: Annotated[Path | None, typer.Option(help="A text file with the name of a class a line.")] = None,
    report: Annotated[Path | None, typer.Option(help="An HTML page with figures, in one file.")] = None,
    language: Annotated[Language, typer.Option(help="Of the report.")] = Language.EN,
    as_json: AsJson = False,
) -> None:
    """How good the logits in one file are for the labels in another, and first what is wrong with them.

    One pass over files of any size. An interrupt prints what was seen so far. The exit code is 1 if there is an error
    or a warning.
    """
    if report is not None:
        in_a_folder(report, "--report")
        from withlogits.evaluation.report import ready

        try:
            ready()  # to say so after hours would be late
        except ImportError as error:
            usage(str(error))
    names = None if class_names is None else lines_of(class_names)
    meter, interrupted = counted(logits, labels, loss, axis, ignore_index, names)
    try:
        result = meter.compute()
    except DiagnosisError as error:
        print(json.dumps(error.diagnosis.to_dict()) if as_json else error.diagnosis)
        raise typer.Exit(1) from None
    print(json.dumps(result.to_dict()) if as_json else result)
    if report is not None:
        try:
            result.report(report, language=language.value)
        except OSError as error:
            raise files.BadFile(f"{report} cannot be written: {error.strerror or error}") from None
        say(f"the report: {report.resolve()}")
    for found in (*result.diagnosis.errors, *result.diagnosis.warnings):
        say(f"{blamed(found, logits, labels)}: {found.code}, {found.title}: {found.evidence}")
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if result.diagnosis:
        raise typer.Exit(1)


@app.command()
@command
def doctor(
    logits: Logits,
    labels: Labels,
    loss: Annotated[Loss, typer.Option(help="The loss that is meant; auto goes by the labels.")] = Loss.AUTO,
    axis: Axis = -1,
    ignore_index: IgnoreIndex = None,
    as_json: AsJson = False,
) -> None:
    """What is wrong with logits and labels in files, and how to mend it.

    The exit code is 1 if there is an error or a warning.
    """
    meter, interrupted = counted(logits, labels, loss, axis, ignore_index, None)
    diagnosis = meter.diagnose()
    print(json.dumps(diagnosis.to_dict()) if as_json else diagnosis)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if diagnosis:
        raise typer.Exit(1)


def blamed(found: Finding, logits: str, labels: str) -> str:
    """The file that a finding is about, by its code: logits, labels, or how the two go together."""
    return {"WL1": logits, "WL2": labels}.get(found.code[:3], f"{logits} and {labels}")


def counted(
    logits: str, labels: str, loss: Loss, axis: int, ignore_index: int | None, names: list[str] | None
) -> tuple[Meter, bool]:
    """What was counted, and whether an interrupt ended it, unless that came before the first block was counted."""
    x, z = files.open_array(logits), files.open_array(labels)
    chosen = None if loss is Loss.AUTO else loss.value
    meter = Meter(loss=chosen, axis=axis, ignore_index=ignore_index, class_names=names)
    if names is not None and -len(x.shape) <= axis < len(x.shape) and len(names) != x.shape[axis]:
        usage(f"--class-names has {len(names)} names, and the logits {x.shape[axis]} classes")
    seen = 0
    try:
        with progress_of(math.prod(x.shape)) as progress:
            for size in counting(meter, x, z, say):
                seen += size
                if progress is not None:
                    progress(size)
    except KeyboardInterrupt:
        if not seen:
            raise
        say(f"interrupted; what follows is of the first {seen / math.prod(x.shape):.1%} of the logits")
        return meter, True
    return meter, False


def lines_of(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        usage(f"--class-names {path} cannot be read: {getattr(error, 'strerror', None) or 'it is no UTF-8 text'}")


@app.command()
@command
def info(as_json: Annotated[bool, typer.Option("--json", help="The same as one JSON object.")] = False) -> None:
    """The version, the engine that computes, and the frameworks that are served here."""
    from withlogits.installed import frameworks

    report: dict[str, Any] = {
        "version": __version__,
        "python": sys.version.split()[0],
        "engine": engine.describe(),
        "frameworks": {found.name: {"version": found.version, "served": found.served} for found in frameworks()},
    }
    if as_json:
        print(json.dumps(report, default=str))
        return
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"withlogits {report['version']}, Python {report['python']}", style="bold")
    table = Table("engine", "", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for key, value in report["engine"].items():
        table.add_row(key.replace("_", " "), shown(value))
    console.print()
    console.print(table)
    table = Table("framework", "installed", "served", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name, found in report["frameworks"].items():
        table.add_row(name, found["version"] or "no", "yes" if found["served"] else "not yet")
    console.print()
    console.print(table)


def shown(value: object) -> str:
    """A value of the engine's description in a table."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {shown(part)}" for key, part in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(map(shown, value)) or "none"
    return str(value)
