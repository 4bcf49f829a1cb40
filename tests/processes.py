"""Python processes of their own: what a test needs fresh, or may break."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import withlogits

PACKAGE = Path(withlogits.__file__).parent
NOBODY = 54321  # a user that no system knows, so one without a home


def environment(**changes: str | None) -> dict[str, str]:
    """Ours, with the package where it is now; None removes a variable."""
    path = os.pathsep.join(p for p in (str(PACKAGE.parent), os.environ.get("PYTHONPATH")) if p)
    changed: dict[str, str | None] = {**os.environ, "PYTHONPATH": path, **changes}
    return {name: value for name, value in changed.items() if value is not None}


def start(code: str, *arguments: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        env=environment() if env is None else env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that it can be ended together with its children
        **options,
    )


def run(code: str, *arguments: str, timeout: float = 120, **options: Any) -> str:
    """What it prints; that it ends well and says nothing on stderr is part of every such test."""
    with start(code, *arguments, **options) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
            out, err = process.communicate()
            raise AssertionError(f"still running after {timeout} s\n{out}\n{err}") from None
    assert process.returncode == 0, f"exit code {process.returncode}\n{out}\n{err}"
    assert err == "", err
    return out
