"""Speed, accuracy, memory and start-up of withlogits, measured beside its peers: `python -m benchmarks`."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# A whole run writes what the docs show; part of one must not overwrite it.
RESULTS = ROOT / "docs" / "results"
PARTIAL = ROOT / "build" / "benchmarks"
