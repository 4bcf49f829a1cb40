"""`python -m benchmarks [NAME] [options]`; NAME is one of these, and speed if nothing is said.

speed, accuracy, memory, startup, pytorch, jax, tensorflow, gpu, all
"""

from __future__ import annotations

import importlib
import subprocess
import sys

SCRIPTS = ("speed", "accuracy", "memory", "startup", "pytorch", "jax")


def main(arguments: list[str]) -> int:
    name, *rest = arguments or ["speed"]
    if name.startswith("-") and name not in ("-h", "--help"):
        name, rest = "speed", arguments
    if name not in (*SCRIPTS, "tensorflow", "gpu", "all"):  # `all` leaves out what needs more than the others
        print(__doc__, file=sys.stderr)
        return 0 if name in ("-h", "--help") else 2
    if name != "all":
        # Each script imports what it compares: only the one that runs is loaded.
        return importlib.import_module(f".{name}", __package__).main(rest)
    # A process each: libraries read their settings once, and `accuracy` wants other ones than `speed`.
    codes = [subprocess.run([sys.executable, "-m", __package__, script, *rest], check=False) for script in SCRIPTS]
    return max(done.returncode for done in codes)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
