"""The words that stand beside every figure: which machine, which versions, when."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

DISTRIBUTIONS = (
    "withlogits",
    "numpy",
    "llvmlite",
    "torch",
    "tensorflow",
    "tensorflow-cpu",
    "jax",
    "optax",
    "scikit-learn",
    "scipy",
    "ml_dtypes",
)


def limit_cores(threads: int | None) -> int:
    """Let this process use `threads` cores (default: those it may use already), and return how many it has.

    JAX sizes its thread pool by the cores and has no setting for it, so this comes before any library is loaded.
    """
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    if threads is None or threads >= len(allowed):
        return len(allowed)
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("this system cannot bind a process to some of its cores: leave --threads away")
    os.sched_setaffinity(0, allowed[:threads])
    return threads


def describe(threads: int) -> dict[str, Any]:
    """The machine, the versions and the date, as they go into the results."""
    versions = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    try:
        # The source tree on the path without being installed.
        from withlogits import __version__

        versions["withlogits"] = __version__
    except ImportError:
        pass
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": _memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": versions,
    }


def as_markdown(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB, {machine['system']}; "
        f"{machine['threads']} threads each; {machine['date']}.\n{versions}."
    )


def _cpu() -> str:
    """The processor's name, and its model number, since a virtual machine's name often says little."""
    fields: dict[str, str] = {}
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().split("\n\n")[0].splitlines():
            key, _, value = line.partition(":")
            fields[key.strip()] = value.strip()
    name = fields.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in fields:
        name += f" (family {fields['cpu family']}, model {fields['model']}"
        name += ", AVX-512)" if "avx512f" in fields.get("flags", "").split() else ")"
    return name


def _memory_gb() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9 if hasattr(os, "sysconf") else float("nan")


def refreshed(path: Path, new: dict[str, Any], names: Sequence[str], lists: Sequence[str]) -> dict[str, Any]:
    """A result in which `names` were measured anew, completed with what `path` holds of the others.

    `lists` are its lists of entries with a "name". Figures from another machine, or of other versions, do not mix.
    """
    old = json.loads(path.read_text())
    for side in (old, new):
        side["machine"]["versions"] = {**side["machine"]["versions"], "withlogits": ""}
    same = all(old["machine"][key] == new["machine"][key] for key in ("cpu", "cores", "threads", "versions"))
    if not same:
        raise SystemExit(f"{path} is of another machine or of other versions: measure all libraries")
    new["machine"] = describe(new["machine"]["threads"])
    for each in lists:
        new[each] += [entry for entry in old[each] if entry["name"] not in names]
    return new
