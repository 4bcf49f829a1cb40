"""The Triton kernels: arrays in GPU memory in, results written to arrays that the caller has allocated.

No framework is imported: an array is whatever Triton takes the address of and has shape, stride() and element_size().
Nothing here allocates, waits for the GPU, or copies a number from it, so calls can be recorded in a CUDA graph. Sums
are made without atomics: results are the same bits each time. The caller makes the arrays' device the current one.

Rows of the softmax family are (outer, C, inner), of any strides; logits are of fp16, bf16 or fp32.
"""

from __future__ import annotations

import importlib
import os
import sys

if "tensorflow" in sys.modules and "triton" not in sys.modules and hasattr(os, "RTLD_DEEPBIND"):
    # Both bring an LLVM: unless Triton's library looks into itself first, it calls that of TensorFlow, and crashes.
    _flags = sys.getdlopenflags()
    sys.setdlopenflags(_flags | os.RTLD_DEEPBIND)
    try:
        importlib.import_module("triton._C.libtriton")
    finally:
        sys.setdlopenflags(_flags)

from withlogits.kernels.cuda.launch import Inputs, sigmoid_backward, sigmoid_forward, softmax_backward, softmax_forward

NAME = "triton"

__all__ = ["NAME", "Inputs", "sigmoid_backward", "sigmoid_forward", "softmax_backward", "softmax_forward"]
