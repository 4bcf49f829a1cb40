"""What kernels are compiled for: processor, features, and the vectors that follow from them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache

X86, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
VARIABLE = "WITHLOGITS_TARGET"  # names a target to compile for in place of this machine


@dataclass(frozen=True)
class Target:
    """A processor as LLVM knows it, and the width of its vectors."""

    triple: str
    cpu: str
    features: str  # as LLVM writes them: "+avx2,-avx512f"; "" for those that the processor's name implies
    vector_bytes: int
    masks: bool  # vectors can be loaded and stored under a mask, elements of 1 and 2 bytes too

    @property
    def architecture(self) -> str:
        return self.triple.split("-")[0]

    @property
    def float32_lanes(self) -> int:
        return self.vector_bytes // 4

    @property
    def float64_lanes(self) -> int:
        return self.vector_bytes // 8

    @property
    def table_entries(self) -> int:
        """How many numbers of 32 bits one instruction looks up in registers, for each lane; 1 if none does."""
        return {64: 32, 32: 8}.get(self.vector_bytes, 1)


# Processors by LLVM's names; their features are those that the name implies.
NAMED = {
    "haswell": Target(X86, "haswell", "", 32, False),
    "skylake-avx512": Target(X86, "skylake-avx512", "", 64, True),
    "sapphirerapids": Target(X86, "sapphirerapids", "", 64, True),
    "znver3": Target(X86, "znver3", "", 32, False),
    "znver4": Target(X86, "znver4", "", 64, True),
    "znver5": Target(X86, "znver5", "", 64, True),
    "neon": Target(ARM, "generic", "", 16, False),
}


def of_features(triple: str, cpu: str, features: str) -> Target:
    """Return the target with the widest vectors that these features allow."""
    present = set(features.split(","))
    if "+avx512f" in present:
        return Target(triple, cpu, features, 64, {"+avx512bw", "+avx512vl"} <= present)
    return Target(triple, cpu, features, 32 if "+avx2" in present else 16, False)


@cache
def host() -> Target:
    """Return this machine's target, or the one that the environment variable WITHLOGITS_TARGET names."""
    import llvmlite.binding as llvm

    triple, chosen = llvm.get_process_triple(), os.environ.get(VARIABLE)
    if not chosen:
        return of_features(triple, llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    if chosen not in NAMED:
        raise ValueError(f"{VARIABLE}={chosen!r} names no target; known are {', '.join(NAMED)}")
    target, architecture = NAMED[chosen], triple.split("-")[0]
    if target.architecture != architecture:
        raise ValueError(f"{VARIABLE}={chosen!r} is a target for {target.architecture}; this machine is {architecture}")
    return replace(target, triple=triple)
