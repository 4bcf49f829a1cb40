"""The command `withlogits`: what it needs besides the library, and how it ends.

The commands themselves are in `commands.py`, which imports typer and rich; this file must not, since it is what says
that they are missing.
"""

import sys
from importlib.util import find_spec

NEEDED = ("typer", "rich")
INTERRUPTED = 130  # 128 + SIGINT, as shells count


def main() -> None:
    """Run the command with the arguments of this process."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(f'withlogits: the command needs {" and ".join(missing)}: pip install "withlogits[cli]"', file=sys.stderr)
        sys.exit(2)
    try:
        from withlogits.commands import app

        app(prog_name="withlogits")
    except KeyboardInterrupt:  # while something was imported; a command reports its own
        print("withlogits: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
