"""The words of the command line: labels that are given, and what the library says."""

import math
import re
from dataclasses import replace
from enum import StrEnum

from withlogits import errors
from withlogits.cli.terminal import usage
from withlogits.guide import Diagnosis

Loss = StrEnum("Loss", ["AUTO", "SIGMOID", "SOFTMAX", "SPARSE"])
# The longer name before the name that it ends with.
OPTIONS = {errors.SPARSE: Loss.SPARSE, errors.DENSE: Loss.SOFTMAX, errors.SIGMOID: Loss.SIGMOID}


def label_value(text: str) -> float:
    """Return the label that is to be ignored: a whole number, or NaN."""
    try:
        return int(text)
    except ValueError:
        if text.lower() == "nan":
            return math.nan
        usage(f"--ignore-index is {text!r}, where a whole number or nan is expected")


def in_options(text: str) -> str:
    """Return an error text of the library in the words of the command line."""
    text = re.sub(r"pass (axis|ignore_index)=(-?\d+)", lambda m: f"pass --{m[1].replace('_', '-')} {m[2]}", text)
    for function, loss in OPTIONS.items():
        text = text.replace(function, f"--loss {loss.value}")
    return text


def as_options(line: str) -> str:
    """Return a line of Python that calls a loss as options of the command, where these say all of it."""
    call = re.fullmatch(r"loss = withlogits\.(\w+)\(labels=labels, logits=logits((?:, \w+=[^,]+)*)\)", line)
    given = dict(option.split("=") for option in call[2].split(", ")[1:]) if call else {}
    if call is None or not set(given) <= {"axis", "ignore_index"}:
        return line
    of_loss = f"--loss {OPTIONS[call[1]].value}"
    shown = [f"--{name.replace('_', '-')} {'nan' if 'nan' in value else value}" for name, value in given.items()]
    return " ".join([of_loss, *shown])


def for_command(diagnosis: Diagnosis) -> Diagnosis:
    """Return the diagnosis with fixes and advice in the words of the command line."""
    advice = diagnosis.recommendation
    return replace(
        diagnosis,
        findings=tuple(replace(found, fix=as_options(found.fix)) for found in diagnosis.findings),
        recommendation=None if advice is None else replace(advice, call=as_options(advice.call)),
    )
