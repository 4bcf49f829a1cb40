"""Planned kernels as a custom call of XLA, without the interpreter: a handler of its typed foreign function interface.

The program that XLA compiles names a call by a key and a recipe, never by an address. The handler finds the call's
record under the key in the table of this process, or asks the interpreter to make it from the recipe (of a program
that was compiled elsewhere). It fills the job of the record with the addresses of XLA's buffers, and runs the kernel,
on the threads of XLA if there is enough to do. A thread that comes late may look at the call's memory after the call,
so it belongs to all of them together, and whoever is last frees it.
"""

from __future__ import annotations

from . import simd
from .control import Kernel, Variable, loop, repeat, when
from .job import (
    CHUNK,
    CONTROL_BYTES,
    INSIDE,
    JOB,
    KERNEL,
    NEXT,
    OPEN,
    PATCH,
    RECORD,
    STOP,
    WRONG,
    XLA_TABLE,
    YIELD,
    XlaSpec,
)
from .simd import F32, F64, I32, I64, Value
from .spinning import lead, work
from .target import Target

# Offsets in the structures of xla/ffi/api/c_api.h, version 0.1, in bytes
EXTENSION, API, CONTEXT, ARGUMENTS, RESULTS, ATTRIBUTES = 8, 16, 24, 72, 112, 160  # of a call frame
EXTENSION_KIND, METADATA, MAJOR, MINOR, TRAITS = 8, 24, 24, 28, 32
DATA, VALUE = 24, 8  # of a buffer, of a scalar attribute
CREATE_ERROR, DESTROY_ERROR, SCHEDULE, COUNT_THREADS = 48, 64, 136, 144  # of the functions that XLA offers
INTERNAL = 13  # the code of an error
# Behind the control block of the pool: how many threads hold the memory, what frees it, and where it begins
HOLDERS, FREE, BEGIN = CONTROL_BYTES, CONTROL_BYTES + 8, CONTROL_BYTES + 16
HEAD = CONTROL_BYTES + 64


def build(spec: XlaSpec, target: Target) -> Kernel:
    """Return the handler, or what a thread of XLA runs."""
    return handle if spec.part == "handle" else serve


def word(address: Value, offset: int | Value = 0) -> Value:
    return simd.load(address + offset, I64)


def half(address: Value, offset: int) -> Value:
    return simd.convert(simd.load(address + offset, I32), I64)


def put(x: Value | int, address: Value, offset: int = 0) -> None:
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
        record = _record(word(frame, ATTRIBUTES), table)
        with when(record == 0):
            answer.value = _error(word(frame, API), word(table, XLA_TABLE["text"]))
        with when(record != 0):
            _run(frame, record, table)
    return answer.value


def _record(attributes: Value, table: Value) -> Value:
    """Return the address of the record that the attributes, key and recipe, name; 0 if there is none."""
    key = word(word(word(attributes, 0), VALUE))
    recipe = word(attributes, 8)
    mask, first = word(table, XLA_TABLE["mask"]), table + XLA_TABLE["records"]
    place = Variable(key & mask)
    with repeat(lambda: (word(first, place.value * 16) != key) & (word(first, place.value * 16) != 0)):
        place.value = (place.value + 1) & mask
    found = Variable(word(first, place.value * 16 + 8))
    with when(word(first, place.value * 16) == 0):
        found.value = simd.call(word(table, XLA_TABLE["resolve"]), word(recipe), word(recipe, 8))
    return found.value


def _error(api: Value, text: Value) -> Value:
    arguments = simd.scratch(32)
    put(28, arguments, 0)
    put(0, arguments, 8)
    put(text, arguments, 16)
    put_half(INTERNAL, arguments, 24)
    return simd.call(word(api, CREATE_ERROR), arguments)


def _run(frame: Value, record: Value, table: Value) -> None:
    """Make the job of a record for the buffers of this call, and do it."""
    words, copied = word(record, RECORD["words"]), word(record, RECORD["copied"])
    begin = simd.call(word(table, XLA_TABLE["allocate"]), (words + copied) * 8 + (HEAD + 128))
    control = (begin + 63) & -64
    job = control + HEAD
    copies = (job + words * 8 + 63) & -64
    for offset in (OPEN, INSIDE, NEXT, WRONG):
        put(0, control, offset)
    template = record + RECORD["job"]
    with loop(0, words) as i:
        simd.store(word(template, i * 8), job + i * 8)
    arguments, results = word(frame, ARGUMENTS), word(frame, RESULTS)
    patch = template + words * 8
    with loop(0, word(record, RECORD["patches"])) as i:
        at = patch + i * (8 * PATCH)
        slot, kind, index = word(at), word(at, 8), word(at, 16)
        buffers = simd.select(kind == 1, results, arguments)
        data = Variable(word(word(buffers, index * 8), DATA))
        with when(kind == 2):  # float32 numbers that the kernel takes as float64
            wide = copies + word(at, 32) * 8
            with loop(0, word(at, 24)) as j:
                simd.store(simd.convert(simd.load(data.value + j * 4, F32), F64), wide + j * 8)
            data.value = wide
        simd.store(data.value, job + slot * 8)
    put(word(record, RECORD["kernel"]), control, KERNEL)
    put(job, control, JOB)
    put(word(record, RECORD["count"]), control, STOP)
    put(word(table, XLA_TABLE["yield"]), control, YIELD)
    put(word(table, XLA_TABLE["release"]), control, FREE)
    put(begin, control, BEGIN)
    helpers = Variable(simd.integer(0))
    with when(word(record, RECORD["chunk"]) < word(record, RECORD["count"])):
        helpers.value = _threads(frame) - 1
    with when(helpers.value > 0):
        _together(frame, record, table, control, helpers.value)
    with when(helpers.value <= 0):
        simd.call(word(control, KERNEL), job, simd.integer(0), word(control, STOP))
        simd.call(word(control, FREE), begin)


def _together(frame: Value, record: Value, table: Value, control: Value, helpers: Value) -> None:
    """Do the job on this thread and some of XLA's."""
    put(word(record, RECORD["chunk"]), control, CHUNK)
    simd.atomic_store(helpers + 1, control + HOLDERS)
    simd.atomic_store(simd.integer(1), control + OPEN)
    arguments, absent = simd.scratch(40), Variable(simd.integer(0))
    api = word(frame, API)
    with loop(0, helpers):
        put(40, arguments, 0)
        put(0, arguments, 8)
        put(word(frame, CONTEXT), arguments, 16)
        put(word(table, XLA_TABLE["serve"]), arguments, 24)
        put(control, arguments, 32)
        error = simd.call(word(api, SCHEDULE), arguments)
        with when(error != 0):
            absent.value = absent.value + 1
            _forget(api, error)
    lead(control, control, control)
    _let_go(control, absent.value + 1)


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
