"""How often the guide finds the mistakes of the corpus in tests/guide, how often its fix helps, and its false alarms.

    python -m benchmarks.guide_rates [--output DIR]

Prints a table and writes guide.md. The corpus is deterministic, so no figure depends on the machine.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import RESULTS, ROOT, machine

sys.path.insert(0, str(ROOT / "tests"))

from guide.corpus import CLEAN, MISTAKES, TORCH, fits, mended
from withlogits.guide.findings import CODES

FAMILIES = {
    "digits": "digits, ten classes",
    "twenty": "digits on paper and on a board, twenty classes",
    "wine": "wine, three classes",
    "iris": "iris, three classes",
    "tumours": "tumours, yes or no",
    "canvases": "canvases, ten times yes or no",
    "pixels": "a class for each pixel",
    "runs": "sequences",
    "counting": "sequences",
    "letters": "sequences",
    "labels that hardly change": "sequences",
    "model": "models in PyTorch",
}


@dataclass
class Rates:
    cases: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    fixed: Counter[str] = field(default_factory=Counter)
    clean: Counter[str] = field(default_factory=Counter)
    alarms: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guide_rates", description=__doc__)
    parser.add_argument("--output", type=Path, metavar="DIR", default=RESULTS, help="default: docs/results")
    options = parser.parse_args(arguments)
    rates = run()
    text = "\n".join(_lines(rates, machine.describe(machine.limit_cores(None)))) + "\n"
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "guide.md").write_text(text)
    print(text)
    print("\n".join(rates.failures))
    print(f"written to {options.output}")
    return 0


def run() -> Rates:
    rates = Rates()
    for case in MISTAKES:
        if case.torch and not TORCH:
            continue
        rates.cases[case.code] += 1
        try:
            found, fixed = judged(case)
        except Exception as error:
            found, fixed = False, False
            rates.failures.append(f"{case.code} {case.name}: {type(error).__name__}: {error}")
        else:
            if not (found and fixed):
                rates.failures.append(f"{case.code} {case.name}: {'the fix does not help' if found else 'not found'}")
        rates.found[case.code] += found
        rates.fixed[case.code] += fixed
    for case in CLEAN:
        if case.torch and not TORCH:
            continue
        family = FAMILIES.get(case.name.split(",")[0].split(":")[0], "options, masks and odd shapes")
        rates.clean[family] += 1
        try:
            alarms = [found.code for found in case.pair().diagnosis() if found.severity != "note"]
        except Exception as error:
            alarms = [f"{type(error).__name__}: {error}"]
        if alarms:
            rates.alarms[family] += 1
            rates.failures.append(f"clean, {case.name}: {', '.join(alarms)}")
    return rates


def judged(case: Any) -> tuple[bool, bool]:
    """Is the mistake found with the right severity, and is it gone, with no new error, after the fix."""
    pair = case.pair()
    diagnosis = pair.diagnosis()
    finding = next((found for found in diagnosis if found.code == case.code), None)
    if finding is None or not fits(finding.severity, case.severity):
        return False, False
    after = mended(pair, finding.fix).diagnosis()
    new = {found.code for found in after.errors} - {found.code for found in diagnosis.errors}
    return True, case.code not in after.codes and not new


def _lines(rates: Rates, described: dict[str, Any]) -> Iterator[str]:
    yield "| code | mistake | cases | found | fixed |"
    yield "|---|---|---:|---:|---:|"
    for code, title in CODES.items():
        yield f"| {code} | {title} | {rates.cases[code]} | {rates.found[code]} | {rates.fixed[code]} |"
    yield f"| all | | {rates.cases.total()} | {rates.found.total()} | {rates.fixed.total()} |"
    yield "\n| clean pairs | pairs | false alarms |"
    yield "|---|---:|---:|"
    for family, pairs in rates.clean.items():
        yield f"| {family} | {pairs} | {rates.alarms[family]} |"
    yield f"| all | {rates.clean.total()} | {rates.alarms.total()} |"
    yield "\nFound: with its code and severity. Fixed: after the line that the finding gives, the finding is gone and"
    yield "no error is new. A false alarm is an error or a warning about a pair that nothing is wrong with.\n"
    yield machine.as_markdown(described)


if __name__ == "__main__":
    raise SystemExit(main())
