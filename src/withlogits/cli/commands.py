"""The commands: demo, loss, evaluate, doctor, lint, info.

Results go to stdout and everything else to stderr. Exit codes: 0; 1 for data that cannot be used, with one sentence
that names the file; 2 for a command line that is wrong; 130 for an interrupt.
"""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
from rich.console import Console

from withlogits import __version__
from withlogits.cli.exit_codes import INTERRUPTED
from withlogits.cli.terminal import lines_of, progress_of, say, show, usage
from withlogits.cli.words import Loss, for_command, in_options, label_value
from withlogits.evaluation import files, losses
from withlogits.evaluation.evaluate import counting
from withlogits.evaluation.files.errors import naming
from withlogits.evaluation.meter import Meter
from withlogits.evaluation.output import StrPath, check_output, npy_writer
from withlogits.evaluation.results import Evaluation, plain
from withlogits.guide import Diagnosis, DiagnosisError, Finding
from withlogits.statistics.bins import BINS

P = ParamSpec("P")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


Reduction = StrEnum("Reduction", ["NONE", "SUM", "MEAN"])
Language = StrEnum("Language", ["EN", "ZH"])

Logits = Annotated[
    str,
    typer.Argument(
        metavar="LOGITS",
        help="A .npy, .npz, .safetensors, .parquet, .zarr or HDF5 file; FILE:NAME is one array of several.",
    ),
]
Labels = Annotated[str, typer.Argument(metavar="LABELS", help="The same; class numbers, distributions or 0/1.")]
Axis = Annotated[int, typer.Option(help="The axis of the classes.")]
IgnoredLabel = Annotated[
    float | None,
    typer.Option(
        "--ignore-index", parser=label_value, metavar="LABEL", help="What has this label, or nan, does not count."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="The result as one JSON object.")]


def command(run: Callable[P, None]) -> Callable[P, None]:
    """Turn the errors of a command into one line each and an exit code."""

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


def checked(option: str, output: Path, *inputs: StrPath | None) -> None:
    """End the command before its work if the output cannot be written, or is one of the inputs."""
    try:
        check_output(output, [name for name in inputs if name is not None])
    except OSError as error:
        usage(f"{option} {error.strerror}")


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """End the command with one line if the output cannot be written after all."""
    try:
        yield
    except OSError as error:
        raise files.BadFile(f"{output} cannot be written: {error.strerror or error}") from None


def print_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        print(f"withlogits {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=print_version, help="Show the version.")
    ] = False,
) -> None:
    """Cross-entropy losses from logits."""


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
    checked("--output", output)
    with writing(output):
        run(Console(), output, quick=quick)


@app.command("loss")
@command
def loss_of_files(
    logits: Logits,
    labels: Labels,
    loss: Annotated[Loss, typer.Option(help="auto goes by the labels, and says how.")] = Loss.AUTO,
    axis: Annotated[int | None, typer.Option(help="The axis of the classes; the last if not given.")] = None,
    ignore_index: IgnoredLabel = None,
    reduction: Annotated[Reduction, typer.Option(help="none: each loss, on a line or in --output.")] = Reduction.MEAN,
    output: Annotated[Path | None, typer.Option(help="A .npy file for the losses (--reduction none).")] = None,
    as_json: AsJson = False,
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
    if output is not None:
        checked("--output", output, logits, labels)

    x, z = files.open_array(logits), files.open_array(labels)
    along = -1 if axis is None else axis
    guessed = loss is Loss.AUTO
    choice = losses.choose_loss(x, z, along, say) if guessed else losses.Choice(loss.value, "chosen")
    in_order = reduction is Reduction.NONE and output is None
    pair = losses.pair_up(x, z, choice.loss, along, in_order)
    if guessed:
        say(in_options(f"--loss {choice.loss}, since {choice.reason}"))
    if ignore_index is not None:
        check_ignored(ignore_index, choice.loss)
    look_at_labels(pair, guessed, ignore_index)
    with kept(pair, reduction, output) as keep, progress_of(math.prod(x.shape)) as progress:
        summary = losses.evaluate(pair, ignore_index=ignore_index, keep=keep, progress=progress, announce=say)

    report_oddities(summary, reduction)
    value = {Reduction.SUM: summary.total, Reduction.MEAN: summary.mean, Reduction.NONE: None}[reduction]
    if as_json:
        found = {
            "value": plain(value),
            "unit": "nats",
            "reduction": reduction,
            "loss": choice.loss,
            "reason": choice.reason,
            "axis": pair.axis,
            "counted": summary.count,
            "ignored": summary.ignored,
            "nan": summary.nan.count if summary.nan else 0,
            "infinite": summary.infinite.count if summary.infinite else 0,
        }
        for role, array in (("logits", x), ("labels", z)):
            found[role] = {"file": array.name, "shape": array.shape, "dtype": array.dtype.name}
        print(
            json.dumps(found | {"ignore_index": plain(ignore_index), "output": None if output is None else str(output)})
        )
    elif value is not None:
        print(value)


def check_ignored(label: float, loss: str) -> None:
    """End the command if a loss ignores no label, or not this one."""
    if loss == Loss.SOFTMAX:
        usage("--ignore-index goes with class numbers or 0 and 1 (--loss sparse, sigmoid), and the loss is softmax")
    if loss == Loss.SPARSE and math.isnan(label):
        usage("--ignore-index nan goes with 0 and 1 (--loss sigmoid), and the loss is sparse")


def look_at_labels(pair: losses.Pair, guessed: bool, ignore_index: float | None) -> None:
    """Report floating-point labels of the first block that are no probabilities; an error if the loss was guessed."""
    if pair.labels.dtype.kind in "biu":
        return
    meter = Meter(loss=pair.loss, axis=-1 if pair.axis is None else pair.axis, ignore_index=ignore_index)
    with closing(pair.logits.blocks(pair.tiling)) as xs, closing(pair.label_blocks()) as zs:
        for x, z in zip(xs, zs, strict=True):
            meter.update(z, x)
            break
    for found in meter.diagnose().errors:
        if found.code in ("WL205", "WL209"):
            text = told(found, pair.logits.name, pair.labels.name)
            if guessed:
                raise files.BadFile(f"{text}; --loss {pair.loss} computes the loss all the same")
            say(text)


@contextmanager
def kept(pair: losses.Pair, reduction: Reduction, output: Path | None) -> Iterator[Callable[[Any], None] | None]:
    """Give what takes the losses one by one: nothing, stdout, or a file."""
    if reduction is not Reduction.NONE:
        yield None
    elif output is None:
        yield lambda block: print("\n".join(block.reshape(-1).astype("U32")))
    else:
        inputs = (pair.logits.path, pair.labels.path)
        with (
            writing(output),
            npy_writer(output, pair.rows.shape, pair.loss_dtype, pair.tiling.fortran, inputs) as write,
        ):
            yield write


def report_oddities(summary: losses.Summary, reduction: Reduction) -> None:
    """Say where NaN and infinite losses are; NaN ends the command unless each loss is shown."""
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


@app.command()
@command
def evaluate(
    logits: Logits,
    labels: Labels,
    loss: Annotated[Loss, typer.Option(help="auto goes by the labels.")] = Loss.AUTO,
    axis: Axis = -1,
    ignore_index: IgnoredLabel = None,
    sample_weight: Annotated[
        str | None, typer.Option(metavar="FILE", help="Weights of examples, or of elements; as LOGITS.")
    ] = None,
    class_names: Annotated[Path | None, typer.Option(help="A text file with the name of a class a line.")] = None,
    report: Annotated[Path | None, typer.Option(help="An HTML page with figures, in one file.")] = None,
    language: Annotated[Language, typer.Option(help="Of the report.")] = Language.EN,
    thresholds: Annotated[
        str | None, typer.Option(metavar="P,P,…", help="Decide at these probabilities too (sigmoid): 0.3,0.5.")
    ] = None,
    calibration_bins: Annotated[int, typer.Option(help="Bins of the calibration error.")] = BINS.confidence,
    classwise: Annotated[
        bool, typer.Option("--classwise", help="The Brier score and the class-wise calibration error too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """How good the logits in one file are for the labels in another, and first what is wrong with them.

    One pass over files of any size. An interrupt prints what was seen so far. The exit code is 1 if there is an error
    or a warning.
    """
    if report is not None:
        checked("--report", report, logits, labels, class_names, sample_weight)
        from withlogits.evaluation.report import ready

        try:
            ready()  # before the work, which may take hours
        except ImportError as error:
            usage(str(error))
    names = None if class_names is None else lines_of(class_names, "--class-names")
    options = {
        "axis": axis,
        "ignore_index": ignore_index,
        "class_names": names,
        "thresholds": None if thresholds is None else thresholds.split(","),
        "calibration_bins": calibration_bins,
        "classwise": classwise,
    }
    meter, interrupted = counted(logits, labels, loss, options, sample_weight)
    try:
        result = meter.compute()
    except DiagnosisError as error:
        show_result(error.diagnosis, as_json)
        raise typer.Exit(1) from None
    show_result(result, as_json)
    if report is not None:
        with writing(report):
            result.report(report, language=language.value)
        say(f"the report: {report.absolute()}")
    for found in (*result.diagnosis.errors, *result.diagnosis.warnings):
        say(told(found, logits, labels))
    end(result.diagnosis, interrupted)


@app.command()
@command
def doctor(
    logits: Logits,
    labels: Labels,
    loss: Annotated[Loss, typer.Option(help="The loss that is meant; auto goes by the labels.")] = Loss.AUTO,
    axis: Axis = -1,
    ignore_index: IgnoredLabel = None,
    as_json: AsJson = False,
) -> None:
    """What is wrong with logits and labels in files, and how to mend it.

    The exit code is 1 if there is an error or a warning.
    """
    meter, interrupted = counted(logits, labels, loss, {"axis": axis, "ignore_index": ignore_index})
    diagnosis = for_command(meter.diagnose())
    show_result(diagnosis, as_json)
    end(diagnosis, interrupted)


def show_result(result: Evaluation | Diagnosis, as_json: bool) -> None:
    """Print it as a text or as JSON."""
    show(json.dumps(result.to_dict()) if as_json else result)


def end(diagnosis: Diagnosis, interrupted: bool) -> None:
    """End the command after an interrupt, an error or a warning."""
    if interrupted or diagnosis:
        raise typer.Exit(INTERRUPTED if interrupted else 1)


def told(found: Finding, logits: str, labels: str) -> str:
    """Return a finding in one line, after the file that it is about: logits, labels, or both."""
    name = {"WL1": logits, "WL2": labels}.get(found.code[:3], f"{logits} and {labels}")
    return f"{name}: {found.code}, {found.title}: {found.evidence}"


def counted(
    logits: str, labels: str, loss: Loss, options: dict[str, Any], sample_weight: str | None = None
) -> tuple[Meter, bool]:
    """Return the meter, and whether an interrupt ended the counting; one before the first block ends the command."""
    x, z = files.open_array(logits), files.open_array(labels)
    weights = None if sample_weight is None else files.open_array(sample_weight)
    try:
        meter = Meter(loss=None if loss is Loss.AUTO else loss.value, **options)
    except ValueError as error:
        usage("--" + str(error).replace("calibration_bins", "calibration-bins"))
    names, axis = options.get("class_names"), options["axis"]
    if names is not None and -len(x.shape) <= axis < len(x.shape) and len(names) != x.shape[axis]:
        usage(f"--class-names has {len(names)} names, and the logits {x.shape[axis]} classes")
    seen = 0
    try:
        with progress_of(math.prod(x.shape)) as progress, naming(labels):
            for size in counting(meter, x, z, weights, say):
                seen += size
                if progress is not None:
                    progress(size)
    except KeyboardInterrupt:
        if not seen:
            raise
        say(f"interrupted; what follows is of the first {seen / math.prod(x.shape):.1%} of the logits")
        return meter, True
    return meter, False


@app.command()
@command
def lint(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Python files, and folders of them.")],
    fix: Annotated[bool, typer.Option("--fix", help="Correct what can be corrected safely.")] = False,
    select: Annotated[list[str] | None, typer.Option(help="Codes to report, as WL501,WL502.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Codes to leave out.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="A pattern of paths in folders to leave out.")] = None,
    as_json: AsJson = False,
    as_sarif: Annotated[bool, typer.Option("--sarif", help="The result as SARIF 2.1.0.")] = False,
) -> None:
    """Wrong pairs of model output and loss in Python source, which is read and never run.

    The exit code is 1 if there is a finding, and 2 if a file cannot be checked.
    """
    from withlogits import lint
    from withlogits.lint import output

    if as_json and as_sarif:
        usage("--json and --sarif are two forms of one result: choose one")
    codes = [code for code in lint.SOURCE_CODES if named("--select", code, select, True)]
    codes = [code for code in codes if not named("--ignore", code, ignore, False)]
    report = lint.check_files(paths, codes, exclude or (), fix, say)
    if as_json or as_sarif:
        show(json.dumps(output.as_json(report) if as_json else output.as_sarif(report)))
    else:
        for found in report.findings:
            show(found)
    fixed = f"; {report.fixed:,} corrected" if fix else ""
    fixable = sum(found.fixable for found in report.findings)
    hint = f"; --fix corrects {fixable:,}" if fixable else ""
    say(f"{len(report.findings):,} found in {report.files:,} file{'s' * (report.files != 1)}{fixed}{hint}")
    if not all(why.harmless for _, why in report.not_checked):
        raise typer.Exit(2)
    if report.findings:
        raise typer.Exit(1)


def named(option: str, code: str, given: list[str] | None, otherwise: bool) -> bool:
    """Return whether an option names a code, or the beginning of it; without the option, `otherwise`."""
    from withlogits.lint import SOURCE_CODES

    if given is None:
        return otherwise
    prefixes = [part.strip().upper() for text in given for part in text.split(",")]
    for prefix in prefixes:
        if not prefix or not any(each.startswith(prefix) for each in SOURCE_CODES):
            usage(f"{option} {prefix} names no code; the codes are {SOURCE_CODES[0]} to {SOURCE_CODES[-1]}")
    return code.startswith(tuple(prefixes))


@app.command()
@command
def info(as_json: AsJson = False) -> None:
    """The version, the engine that computes, and the frameworks that are served here."""
    from withlogits.cli.info import described, show_info

    found = described()
    if as_json:
        print(json.dumps(found, default=str))
    else:
        show_info(found)
