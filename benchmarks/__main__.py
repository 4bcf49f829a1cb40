"""`python -m benchmarks [speed|accuracy|memory|startup|all] [options]`; speed if nothing is said."""

from __future__ import annotations

import importlib
import sys

SCRIPTS = ("speed", "accuracy", "memory", "startup")


def main(arguments: list[str]) -> int:
    name, *rest = arguments or ["speed"]
    if name.startswith("-") and name not in ("-h", "--help"):
        name, rest = "speed", arguments
    if name not in (*SCRIPTS, "all"):
        print(__doc__, file=sys.stderr)
        return 0 if name in ("-h", "--help") else 2
    # Each script imports what it compares: only those that run are loaded.
    return max(importlib.import_module(f".{script}", __package__).main(rest) for script in _named(name))


def _named(name: str) -> tuple[str, ...]:
    return SCRIPTS if name == "all" else (name,)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
