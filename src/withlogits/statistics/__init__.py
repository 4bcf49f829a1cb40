"""Statistics of logits and labels, which the guide judges and an evaluation reports: counted block by block, merged.

`backend()` is what computes them in this process: compiled kernels, or NumPy.
"""

from __future__ import annotations

from types import ModuleType

from withlogits import engine


def backend() -> ModuleType:
    """Return the module with the functions of `arrays`, compiled if this process's engine is."""
    if engine.select().NAME == "reference":
        from withlogits.statistics import arrays

        return arrays
    from withlogits.kernels.cpu import statistics

    return statistics
