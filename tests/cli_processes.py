"""The command `withlogits` in a process of its own."""

import os
import subprocess
import sys
import time
from pathlib import Path

import withlogits

SOURCE = Path(withlogits.__file__).parents[1]


def process(*arguments, code="", **options):
    """Run `withlogits` in a process of its own; `code` runs before it."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), **options.pop("env", {})}
    program = f"import sys; sys.argv = ['withlogits', *sys.argv[1:]]\n{code}\nfrom withlogits.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


def partials(folder):
    """The temporary files of outputs that are being written."""
    return list(folder.glob(".*.partial"))


def wait_for_partial(folder):
    deadline = time.monotonic() + 30
    while not any(path.stat().st_size > 1000 for path in partials(folder)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def finished(child):
    out, err = child.communicate(timeout=300)
    return child.returncode, out, err
