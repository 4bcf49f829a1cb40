"""The Triton kernels: arrays in GPU memory in, results written to arrays that the caller has made.

No framework is imported: an array is whatever Triton can take the address of and has shape, stride() and
element_size(). Nothing here allocates, waits for the GPU, or reads a number back from it, so that calls can be recorded
in a CUDA graph. Nothing is added up by atomics: results are the same bits each time. The caller sees to it that the
arrays' device is the current one.

Rows of the softmax family are (outer, C, inner), of any strides; logits are of fp16, bf16 or fp32.
"""

from __future__ import annotations

from withlogits.kernels.cuda.host_sigmoid import sigmoid_backward, sigmoid_forward
from withlogits.kernels.cuda.host_softmax import softmax_backward, softmax_forward

NAME = "triton"

__all__ = ["NAME", "sigmoid_backward", "sigmoid_forward", "softmax_backward", "softmax_forward"]
