"""Planned kernels as a custom call of XLA, without the interpreter: a handler of its typed foreign function interface.

The program that XLA compiles names a call by a key and a recipe, never by an address. The handler finds the call's
record under the key in the table of this process, or asks the interpreter to make it from the recipe (of a program
that was compiled elsewhere). A call has the passes of `softmax_plan`:

    divisor    of a mean, from the weights of the rows
    kernel     the losses of rows, and the gradient of the reduced loss
    value      the sum of the losses by the divisor, rounded once

A step, which is one of the first two, fills the job of its kernel with the addresses of XLA's buffers, and runs it, on
the threads of XLA if there is enough to do. A thread that comes late may look at the call's memory after the call, so
it belongs to all of them together, and whoever is last frees it.
"""

from __future__ import annotations

from typing import NamedTuple

from . import simd
from .control import Job, Kernel, Variable, loop, repeat, when
from .job import (
    ARGUMENT,
    CHUNK,
    CONTROL_BYTES,
    COPY,
    INSIDE,
    JOB,
    KERNEL,
    NEXT,
    OPEN,
    PATCH,
    RECORD,
    RESULT,
    SCALE,
    STEP,
    STOP,
    WRONG,
    XLA_TABLE,
    YIELD,
    XlaSpec,
)
from .simd import F32, F64, I32, I64, Value
from .spinning import lead, work
from .target import Target
from .total import summed

# Offsets in the structures of xla/ffi/api/c_api.h, version 0.1, in bytes
EXTENSION, API, CONTEXT, ARGUMENTS, RESULTS, ATTRIBUTES = 8, 16, 24, 72, 112, 160  # of a call frame
EXTENSION_KIND, METADATA, MAJOR, MINOR, TRAITS = 8, 24, 24, 28, 32
DATA, VALUE = 24, 8  # of a buffer, of a scalar attribute
CREATE_ERROR, DESTROY_ERROR, SCHEDULE, COUNT_THREADS = 48, 64, 136, 144  # of the functions that XLA offers
INTERNAL = 13  # the code of an error
# Behind the control block of the pool: how many threads hold the memory, what frees it, and where it begins
HOLDERS, FREE, BEGIN = CONTROL_BYTES, CONTROL_BYTES + 8, CONTROL_BYTES + 16
HEAD = CONTROL_BYTES + 64
WORD = 8


class Call(NamedTuple):
    """A call of the handler."""

    frame: Value
    table: Job
    control: Value  # where its memory begins: the control block, a job, numbers of its own

    @property
    def job(self) -> Value:
        return self.control + HEAD


def build(spec: XlaSpec, target: Target) -> Kernel:
    """Return the handler, or what a thread of XLA runs."""
    return handle if spec.part == "handle" else serve


def word(address: Value, offset: int | Value = 0) -> Value:
    return simd.load(address + offset, I64)


def half(address: Value, offset: int) -> Value:
    return simd.convert(simd.load(address + offset, I32), I64)


def put(x: Value | int, address: Value, offset: int | Value = 0) -> None:
    simd.store(simd.integer(x), address + offset)


def put_half(x: int, address: Value, offset: int) -> None:
    simd.store(simd.constant(x, I32), address + offset)


def serve(control: Value, _start: Value, _stop: Value) -> Value:
    """Work on a job that is still open, on a thread of XLA."""
    simd.atomic_add(control + INSIDE, simd.integer(1))
    with when(simd.atomic_load(control + OPEN) == 1):
        work(control)
    simd.atomic_add(control + INSIDE, simd.integer(-1))
    _let_go(control, simd.integer(1))
    return simd.integer(0)


def _let_go(control: Value, holders: Value) -> None:
    with when(simd.atomic_add(control + HOLDERS, simd.integer(0) - holders) == holders):
        simd.call(word(control, FREE), word(control, BEGIN))


def handle(frame: Value, table: Value, _: Value) -> Value:
    """Answer XLA; 0, or the address of an error."""
    answer = Variable(simd.integer(0))
    extension = word(frame, EXTENSION)
    with when(extension != 0), when(half(extension, EXTENSION_KIND) == 1):
        metadata = word(extension, METADATA)  # it asks which version of the interface this is
        put_half(0, metadata, MAJOR)
        put_half(1, metadata, MINOR)
        put_half(0, metadata, TRAITS)
    with when(extension == 0):
        known = Job(table, XLA_TABLE)
        record = _record(word(frame, ATTRIBUTES), known, table + WORD * len(XLA_TABLE))
        with when(record == 0):
            answer.value = _error(word(frame, API), known.unknown)
        with when(record != 0):
            begin = simd.call(known.allocate, word(record, WORD * RECORD.names.index("nbytes")))
            with when(begin == 0):
                answer.value = _error(word(frame, API), known.no_memory)
            with when(begin != 0):
                _run(frame, known, record, begin)
    return answer.value


def _record(attributes: Value, table: Job, first: Value) -> Value:
    """Return the address of the record that the attributes, key and recipe, name; 0 if there is none."""
    key = word(word(word(attributes, 0), VALUE))
    recipe = word(attributes, 8)
    place = Variable(key & table.mask)
    with repeat(lambda: (word(first, place.value * 16) != key) & (word(first, place.value * 16) != 0)):
        place.value = (place.value + 1) & table.mask
    found = Variable(word(first, place.value * 16 + 8))
    with when(word(first, place.value * 16) == 0):
        found.value = simd.call(table.resolve, word(recipe), word(recipe, 8))
    return found.value


def _error(api: Value, text: Value) -> Value:
    arguments = simd.scratch(32)
    put(28, arguments, 0)
    put(0, arguments, 8)
    put(text, arguments, 16)
    put_half(INTERNAL, arguments, 24)
    return simd.call(word(api, CREATE_ERROR), arguments)


def _run(frame: Value, table: Job, record: Value, begin: Value) -> None:
    """Do the steps of a record on the buffers of this call, whose own memory begins at `begin`."""
    head = Job(record, RECORD.names)
    control = (begin + 63) & -64
    call, own = Call(frame, table, control), control + head.own
    for offset in (OPEN, INSIDE, NEXT, WRONG):
        put(0, control, offset)
    slots = {HOLDERS: simd.integer(1), FREE: table.release, BEGIN: begin, JOB: call.job, YIELD: getattr(table, "yield")}
    for offset, value in slots.items():
        put(value, control, offset)
    result, size = word(word(word(frame, RESULTS)), DATA), simd.select(head.wide != 0, simd.integer(8), 4)
    with loop(0, head.runs) as run:
        divisor = Variable(head.divisor)
        with when(head.weights != 0):
            rows = _step(call, record + head.weights, own, run, head.divisor)
            divisor.value = summed(own, rows)
        nothing = divisor.value == 0.0
        _step(call, record + head.loss, own, run, simd.select(nothing, 0.0, 1.0 / divisor.value))
        with when(head.terms != 0), loop(0, head.values) as i:
            value = simd.select(nothing, 0.0, summed(own + i * head.terms * WORD, head.terms) / divisor.value)
            place = result + (run * head.values + i) * size
            simd.either(
                head.wide != 0, lambda: simd.store(value, place), lambda: simd.store(simd.convert(value, F32), place)
            )
    _let_go(control, simd.integer(1))


def _step(call: Call, at: Value, own: Value, run: Value, scale: Value) -> Value:
    """Make the job of a step, and do it; returns how many rows or blocks it has."""
    step, template, job = Job(at, STEP.names), at + WORD * len(STEP.names), call.job
    with loop(0, step.words) as i:
        simd.store(word(template, i * WORD), job + i * WORD)
    arguments, results = word(call.frame, ARGUMENTS), word(call.frame, RESULTS)
    with loop(0, step.patches) as i:
        patch = Job(template + (step.words + i * len(PATCH.names)) * WORD, PATCH.names)
        content = Variable(own + patch.place)
        with when((patch.kind == ARGUMENT) | (patch.kind == RESULT) | (patch.kind == COPY)):
            buffers = simd.select(patch.kind == RESULT, results, arguments)
            data = word(word(buffers, patch.index * WORD), DATA) + run * patch.step
            with when(patch.kind == COPY), loop(0, patch.length) as j:
                simd.store(simd.convert(simd.load(data + j * 4, F32), F64), own + patch.place + j * WORD)
            content.value = simd.select(patch.kind == COPY, content.value, data)
        with when(patch.kind == SCALE):
            content.value = simd.bits(scale)
        put(content.value, job, patch.slot * WORD)
    helpers = Variable(simd.integer(0))
    with when(step.chunk < step.count):
        helpers.value = _threads(call.frame) - 1
    with when(helpers.value > 0):
        _together(call, step, helpers.value)
    with when(helpers.value <= 0):
        simd.call(step.kernel, job, simd.integer(0), step.count)
    return step.count


def _together(call: Call, step: Job, helpers: Value) -> None:
    """Do the job on this thread and some of XLA's."""
    frame, table, control = call
    begin: dict[int, Value | int] = {NEXT: 0, KERNEL: step.kernel, STOP: step.count, CHUNK: step.chunk}
    for offset, value in begin.items():
        put(value, control, offset)
    simd.atomic_add(control + HOLDERS, helpers)
    simd.atomic_store(simd.integer(1), control + OPEN)
    arguments, api = simd.scratch(40), word(frame, API)
    with loop(0, helpers):
        given: tuple[Value | int, ...] = (40, 0, word(frame, CONTEXT), table.serve, control)
        for place, value in enumerate(given):
            put(value, arguments, place * WORD)
        error = simd.call(word(api, SCHEDULE), arguments)
        with when(error != 0):
            simd.atomic_add(control + HOLDERS, simd.integer(-1))
            _forget(api, error)
    lead(control, control, control)


def _threads(frame: Value) -> Value:
    """Return how many threads the pool of XLA has, this one among them; 1 if there is none."""
    arguments, found = simd.scratch(32), simd.scratch(8)
    put(32, arguments, 0)
    put(0, arguments, 8)
    put(word(frame, CONTEXT), arguments, 16)
    put(found, arguments, 24)
    put(0, found)
    api = word(frame, API)
    error = simd.call(word(api, COUNT_THREADS), arguments)
    with when(error != 0):
        _forget(api, error)
    return simd.select(error == 0, word(found), 1)


def _forget(api: Value, error: Value) -> None:
    arguments = simd.scratch(24)
    put(24, arguments, 0)
    put(0, arguments, 8)
    put(error, arguments, 16)
    simd.call(word(api, DESTROY_ERROR), arguments)
