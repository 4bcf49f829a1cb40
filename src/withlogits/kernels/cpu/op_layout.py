"""What the two sides of a TensorFlow operation agree on: the runtime's functions, and the words they exchange.

A *state* belongs to an operation with its attributes: where the table of functions is, the plans made for it, and the
text of its `call` attribute. A *request* is one run of it; its key is how many outputs there are, and the dtypes and
shapes of the inputs. A *plan* says what to do for one key. Offsets are in bytes, everything is a word of 8.
"""

from __future__ import annotations

from dataclasses import dataclass

from .job import SMALL_JOBS

# Of TensorFlow's C interface and the C library, in the order of the table; behind them our planner, how many
# requests are with it, and a string
FUNCTIONS = (
    "TF_NewStatus", "TF_DeleteStatus", "TF_SetStatus", "TF_NumInputs", "TF_NumOutputs", "TF_GetInput", "TF_NumDims",
    "TF_Dim", "TF_TensorType", "TF_TensorData", "TF_DeleteTensor", "TF_AllocateOutput",
    "TF_ForwardInputOrAllocateOutput", "TF_OpKernelContext_Failure", "TF_OpKernelConstruction_GetAttrString", "calloc",
    "memcpy",
)  # fmt: skip
TABLE = {name: 8 * i for i, name in enumerate((*FUNCTIONS, "planner", "active", "attribute"))}

# Of a state
TABLE_AT, PLANS, MOST_PLANS = 0, 8, 32
TEXT = PLANS + 8 * MOST_PLANS
TEXT_BYTES = 2048
STATE_BYTES = TEXT + TEXT_BYTES

# Of a request; an input or an output has a tensor and an address
MOST_INPUTS, MOST_OUTPUTS, MOST_AXES = 8, 2, 254
STATE, CONTEXT, STATUS, PLAN, KEY_WORDS, WRONG = 0, 8, 16, 24, 32, 40
CANDIDATE, FORWARDED = 48, 56  # arguments of TensorFlow's that are pointers
TENSORS = 64
ADDRESSES = TENSORS + 8 * (MOST_INPUTS + MOST_OUTPUTS)  # inputs first, then outputs
NOTHING, SPARE = MOST_INPUTS + MOST_OUTPUTS, MOST_INPUTS + MOST_OUTPUTS + 1  # then 0, and that of a word nobody reads
KEY = ADDRESSES + 8 * (SPARE + 1)
REQUEST_BYTES = KEY + 8 + 8 * MOST_INPUTS * (2 + MOST_AXES)

# Of a plan: the key, what the outputs are like, and the job of a small call (kernel 0: there is none).
# `made` is the input that is the gradient already, if the first input is 1; none is −1
PLAN_FIELDS: tuple[str, ...] = (
    "key_words", "key", "kept", "outputs", "made", "made_bytes", "wide", "kernel", "head", "head_words",
)  # fmt: skip
PLAN_FIELDS += tuple(f"{name}{i}" for i in range(MOST_OUTPUTS) for name in ("type", "axes", "shape", "bytes", "from"))
SMALL_SLOTS = max(len(job.filled) for job in SMALL_JOBS.values())
PLAN_FIELDS += tuple(f"slot{i}" for i in range(SMALL_SLOTS))  # which address each filled slot of the small job has
PLAN_AT = {name: 8 * i for i, name in enumerate(PLAN_FIELDS)}
MOST_HEAD_WORDS = 128

# What the planner is asked for
MAKE_PLAN, RUN, REFUSED, FORGET = range(4)


@dataclass(frozen=True)
class OpSpec:
    """A function of an operation, as TensorFlow's runtime calls it."""

    function: str  # "create" or "compute"
