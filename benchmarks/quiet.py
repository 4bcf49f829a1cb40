"""How much of the machine other processes took while something was timed."""

from __future__ import annotations

import os
import time
from pathlib import Path

STAT = Path("/proc/stat")

# Beyond this share of the cores, a time is not to be trusted: an OpenMP library waits at each of its barriers for as
# long as another process has one of its cores, which turns 10 µs into 10 ms.
DISTURBED = 0.05


class Watch:
    """Started when made; `others()` is the share of all cores that other processes (or other machines) took since."""

    def __init__(self) -> None:
        self._begin = (time.perf_counter(), _busy(), _own())

    def others(self) -> float | None:
        """From 0 to 1; None where the system does not tell."""
        elapsed, busy, own = (
            now - then for now, then in zip((time.perf_counter(), _busy(), _own()), self._begin, strict=True)
        )
        if not STAT.exists() or elapsed <= 0:
            return None
        return min(1.0, max(0.0, (busy - own) / (elapsed * (os.cpu_count() or 1))))


def _busy() -> float:
    """Seconds that all cores together were not idle, those included that the host gave to another guest."""
    if not STAT.exists():
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(
        int, STAT.read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
    times = os.times()
    return times.user + times.system
