"""Kernels are tested where they can be compiled."""

import importlib.util

collect_ignore_glob = ["test_*.py"] if importlib.util.find_spec("llvmlite") is None else []
