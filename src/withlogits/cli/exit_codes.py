"""Exit codes of the command."""

import signal

INTERRUPTED = 128 + signal.SIGINT  # as shells count
