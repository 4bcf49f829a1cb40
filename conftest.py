"""What can only be imported with a framework is not searched for doctests without it."""

from __future__ import annotations

import importlib.util
import os

collect_ignore_glob = []
if importlib.util.find_spec("torch") is None:
    collect_ignore_glob += [
        "src/withlogits/frameworks/torch/*",
        "src/withlogits/compat/torch.py",
        "src/withlogits/torch.py",
    ]
if importlib.util.find_spec("jax") is None:
    collect_ignore_glob += ["src/withlogits/frameworks/jax/*", "src/withlogits/compat/optax.py"]
if importlib.util.find_spec("keras") is None:
    collect_ignore_glob += ["src/withlogits/compat/keras/*"]
# Keras reads its backend once, when it is imported. TensorFlow imports it too: with torch as the backend, and Triton
# behind that, a process that begins with TensorFlow crashes.
os.environ.setdefault("KERAS_BACKEND", "numpy")
# Kernels that a test interprets are imported by that test.
collect_ignore_glob += ["src/withlogits/kernels/cuda/*"]
