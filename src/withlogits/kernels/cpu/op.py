"""A TensorFlow operation outside the interpreter: what its runtime calls to make and to run one.

    create    reads the `call` attribute
    compute   inputs → key → plan → outputs → a small job, or the planner

The planner is Python; it is asked for a plan once for each key, and to run what is no small call: its kernels take long
enough that the interpreter's lock does not matter, and it has the threads.
"""

from __future__ import annotations

from collections.abc import Callable

from . import simd
from .control import Kernel, Variable, loop, repeat, when
from .op_layout import (
    ADDRESSES,
    CANDIDATE,
    CONTEXT,
    FORGET,
    FORWARDED,
    KEY,
    KEY_WORDS,
    MAKE_PLAN,
    MOST_HEAD_WORDS,
    MOST_INPUTS,
    MOST_OUTPUTS,
    MOST_PLANS,
    NOTHING,
    PLAN,
    PLAN_AT,
    PLANS,
    REFUSED,
    REQUEST_BYTES,
    RUN,
    SMALL_SLOTS,
    SPARE,
    STATE,
    STATE_BYTES,
    STATUS,
    TABLE,
    TABLE_AT,
    TENSORS,
    TEXT,
    TEXT_BYTES,
    WRONG,
    OpSpec,
)
from .simd import F32, F64, I32, I64, Value, integer
from .target import Target

RuntimeCall = Callable[..., Value]


def build(spec: OpSpec, target: Target) -> Kernel:
    """Return a function of the operation."""
    return create if spec.function == "create" else compute


def create(context: Value, table: Value, _: Value) -> Value:
    """Return the address of a new state."""
    call = _caller(table)
    state, status = call("calloc", 1, STATE_BYTES), call("TF_NewStatus")
    simd.store(table, state + TABLE_AT)
    text = state + TEXT
    call("TF_OpKernelConstruction_GetAttrString", context, _word(table, "attribute"), text, TEXT_BYTES - 1, status)
    call("TF_DeleteStatus", status)
    return state


def compute(state: Value, context: Value, _: Value) -> Value:
    """Run the operation."""
    call = _caller(simd.load(state + TABLE_AT, I64))
    request, status = simd.scratch(REQUEST_BYTES), call("TF_NewStatus")
    for value, at in ((state, STATE), (context, CONTEXT), (status, STATUS)):
        simd.store(value, request + at)
    with loop(0, MOST_INPUTS + MOST_OUTPUTS) as i:
        simd.store(integer(0), request + TENSORS + i * 8)
    simd.store(integer(0), request + ADDRESSES + 8 * NOTHING)
    simd.store(request + FORWARDED, request + ADDRESSES + 8 * SPARE)
    _read_inputs(call, request, context, status)
    plan = Variable(_known(state, request))
    with when(plan.value == 0):
        plan.value = call("planner", MAKE_PLAN, request)
        with when(plan.value != 0):
            _remember(state, plan.value)
    with when(plan.value != 0):
        simd.store(plan.value, request + PLAN)
        ready = Variable(integer(1))
        for output in range(MOST_OUTPUTS):
            with when((ready.value != 0) & (_of(plan.value, "outputs") > output)):
                ready.value = _allocate(call, request, plan.value, output)
        with when(ready.value != 0):
            _run(call, request, plan.value)
        with when(_of(plan.value, "kept") == 0):
            call("planner", FORGET, request)
    with loop(0, MOST_INPUTS + MOST_OUTPUTS) as i:
        tensor = simd.load(request + TENSORS + i * 8, I64)
        with when(tensor != 0):
            call("TF_DeleteTensor", tensor)
    call("TF_DeleteStatus", status)
    return integer(0)


def _caller(table: Value) -> RuntimeCall:
    def call(name: str, *args: Value | int) -> Value:
        planned = name == "planner"
        if planned:  # first the count, then the address: who changes that can wait until nobody has the one before
            simd.atomic_add(table + TABLE["active"], 1)
        found = simd.call(_word(table, name), *[integer(argument) for argument in args])
        if planned:
            simd.atomic_add(table + TABLE["active"], -1)
        return found

    return call


def _word(table: Value, name: str) -> Value:
    return simd.load(table + TABLE[name], I64)


def _of(plan: Value, field: str) -> Value:
    return simd.load(plan + PLAN_AT[field], I64)


def _low(x: Value) -> Value:
    """The 32 bits that an int has of a register."""
    return simd.convert(simd.convert(x, I32), I64)


def _read_inputs(call: RuntimeCall, request: Value, context: Value, status: Value) -> None:
    """Keep the tensors with their addresses; write the key: how many outputs; dtype, rank and shape of each input."""
    simd.store(_low(call("TF_NumOutputs", context)), request + KEY)
    at = Variable(request + KEY + 8)
    with loop(0, _low(call("TF_NumInputs", context))) as i:
        call("TF_GetInput", context, i, request + TENSORS + i * 8, status)
        tensor = simd.load(request + TENSORS + i * 8, I64)
        simd.store(call("TF_TensorData", tensor), request + ADDRESSES + i * 8)
        rank = _low(call("TF_NumDims", tensor))
        simd.store(_low(call("TF_TensorType", tensor)), at.value)
        simd.store(rank, at.value + 8)
        with loop(0, rank) as axis:
            simd.store(call("TF_Dim", tensor, axis), at.value + axis * 8 + 16)
        at.value = at.value + rank * 8 + 16
    simd.store((at.value - request - KEY) >> 3, request + KEY_WORDS)


def _known(state: Value, request: Value) -> Value:
    """Return the plan for the key of a request; 0 if there is none yet."""
    found, i, words = Variable(integer(0)), Variable(integer(0)), simd.load(request + KEY_WORDS, I64)
    with repeat(lambda: (found.value == 0) & (i.value < MOST_PLANS)):
        plan = simd.atomic_load(state + PLANS + i.value * 8)
        i.value = simd.select(plan == 0, integer(MOST_PLANS), i.value + 1)
        with when(plan != 0), when(_of(plan, "key_words") == words):
            j, key = Variable(integer(0)), _of(plan, "key")
            same = Variable(integer(1))
            with repeat(lambda: (same.value != 0) & (j.value < words)):
                mine, other = (simd.load(a + j.value * 8, I64) for a in (request + KEY, key))
                same.value = simd.select(mine == other, integer(1), integer(0))
                j.value = j.value + 1
            found.value = simd.select(same.value != 0, plan, integer(0))
    return found.value


def _remember(state: Value, plan: Value) -> None:
    """Put a plan that stays into the first free place; two threads may do so with one plan."""
    i = Variable(simd.select(_of(plan, "kept") != 0, integer(0), integer(MOST_PLANS)))
    with repeat(lambda: i.value < MOST_PLANS):
        free = simd.atomic_load(state + PLANS + i.value * 8) == 0
        with when(free):
            simd.atomic_store(plan, state + PLANS + i.value * 8)
        i.value = simd.select(free, integer(MOST_PLANS), i.value + 1)


def _allocate(call: RuntimeCall, request: Value, plan: Value, i: int) -> Value:
    """Make an output, in the memory of an input that nobody needs any more if the plan names one; 0 on failure."""
    context, status = (simd.load(request + at, I64) for at in (CONTEXT, STATUS))
    kind, axes, shape, size, source = (_of(plan, f"{name}{i}") for name in ("type", "axes", "shape", "bytes", "from"))
    out = Variable(integer(0))
    with when(source >= 0):
        simd.store(simd.convert(source, I32), request + CANDIDATE)
        place = request + TENSORS + source * 8
        call("TF_DeleteTensor", simd.load(place, I64))  # else the memory has two owners, and is not handed on
        given = (request + CANDIDATE, 1, i, shape, axes, request + FORWARDED, status)
        out.value = call("TF_ForwardInputOrAllocateOutput", context, *given)
        call("TF_GetInput", context, source, place, status)
        simd.store(call("TF_TensorData", simd.load(place, I64)), request + ADDRESSES + source * 8)
    with when(source < 0):
        out.value = call("TF_AllocateOutput", context, i, kind, shape, axes, size, status)
    with when(out.value == 0):
        call("TF_OpKernelContext_Failure", context, status)
    simd.store(out.value, request + TENSORS + 8 * (MOST_INPUTS + i))
    with when(out.value != 0):
        simd.store(call("TF_TensorData", out.value), request + ADDRESSES + 8 * (MOST_INPUTS + i))
    return out.value


def _run(call: RuntimeCall, request: Value, plan: Value) -> None:
    """Hand on what is made already, do a small job, or ask the planner."""
    rest = Variable(integer(1))
    made = _of(plan, "made")
    with when(made >= 0):
        upstream = simd.load(request + ADDRESSES, I64)
        number = simd.either(
            _of(plan, "wide") != 0,
            lambda: simd.load(upstream, F64),
            lambda: simd.convert(simd.load(upstream, F32), F64),
        )
        with when(number == 1.0):
            rest.value = integer(0)
            source = simd.load(request + ADDRESSES + made * 8, I64)
            result = simd.load(request + ADDRESSES + 8 * MOST_INPUTS, I64)
            with when(source != result):
                call("memcpy", result, source, _of(plan, "made_bytes"))
    kernel = _of(plan, "kernel")
    with when((rest.value != 0) & (kernel != 0)):
        rest.value = integer(0)
        job, head, words = simd.scratch(8 * MOST_HEAD_WORDS), _of(plan, "head"), _of(plan, "head_words")
        with loop(0, words) as i:
            simd.store(simd.load(head + i * 8, I64), job + i * 8)
        for slot in range(SMALL_SLOTS):
            address = simd.load(request + ADDRESSES + _of(plan, f"slot{slot}") * 8, I64)
            simd.store(address, job + words * 8 + 8 * slot)
        wrong = simd.call(kernel, job, integer(0), integer(0))
        with when(wrong != 0):
            simd.store(wrong, request + WRONG)
            call("planner", REFUSED, request)
    with when(rest.value != 0):
        call("planner", RUN, request)
