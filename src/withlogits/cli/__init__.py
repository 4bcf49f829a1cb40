"""The command `withlogits`: checks that its packages are installed, and says how it ends.

The commands are in `commands.py`, which imports typer and rich. This file imports neither, since it reports that they
are missing.
"""

import signal
import sys
from importlib.util import find_spec
from typing import Any, NoReturn

from withlogits.cli.exit_codes import INTERRUPTED

NEEDED = ("typer", "rich")
# Without a handler they end the process at once, and leave temporary files behind.
ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def main() -> None:
    """Run the command with the arguments of this process."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        print(f'withlogits: the command needs {" and ".join(missing)}: pip install "withlogits[cli]"', file=sys.stderr)
        sys.exit(2)
    caught = [number for number in ENDING if signal.getsignal(number) == signal.SIG_DFL]
    for number in caught:
        signal.signal(number, _end)
    try:
        from withlogits.cli.commands import app
        from withlogits.cli.terminal import write_any_character

        write_any_character()
        app(prog_name="withlogits")
    except KeyboardInterrupt:  # while something was imported; a command reports its own
        print("withlogits: interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, _frame: Any) -> NoReturn:
    """End as an exception does, so that temporary files are removed."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)
