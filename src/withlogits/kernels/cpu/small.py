"""A small call as a whole: the kernel of its family, and all that is done before and after it.

    weights    checked and copied: float64, side by side
    divisor    of a mean, from the weights of the rows or elements that count
    kernel     the losses, and the gradients of the reduced loss
    value      the sum of the losses by the divisor, rounded once

For a small call each of these takes Python longer than the arithmetic. The job begins with the planned slots of the
jobs that are run from here. The answer is the number of labels out of range, or −1 if a weight is not allowed.
"""

from __future__ import annotations

from withlogits.options import FEW, SigmoidOptions, SoftmaxOptions

from . import simd
from .control import Job, Kernel, Variable, loop, when
from .job import FEW_WEIGHTS, ROW_WEIGHTS_JOB, SIGMOID_JOB, SMALL_JOBS, SOFTMAX_JOB, Fields, SmallSpec
from .simd import F32, F64, I64, Value, select
from .target import Target
from .total import summed

INF = float("inf")


def build(spec: SmallSpec, target: Target) -> Kernel:
    """Return the kernel that runs one of this family."""
    if spec.family == "elementwise":
        return _elementwise(spec)
    softmax = spec.family == "softmax"
    names = SoftmaxOptions.WEIGHTS if softmax else SigmoidOptions.WEIGHTS
    fields, sums = (SOFTMAX_JOB, "loss") if softmax else (SIGMOID_JOB, "sums")
    own = 8 * (len(fields.planned) + (len(ROW_WEIGHTS_JOB.planned) if softmax else 0))

    def computed(address: Value, job: Job, weights: dict[str, Value]) -> Value:
        divisor, partial = Variable(job.divisor), _space(job, FEW, job.count)
        sample = weights["sample_weight"]
        zeros = dict.fromkeys((name.rstrip(".") for name in fields.filled), simd.integer(0))
        with when(job.weights_kernel != 0):
            if softmax:
                slots = {"z": job.z, "s": sample, "out": partial, "class_weight": weights["class_weight"]}
                at = _filled(ROW_WEIGHTS_JOB, address + 8 * len(fields.planned), slots)
            else:
                at = _filled(fields, address, {**zeros, "z": job.z, "s": sample, "sums": partial})
            simd.call(job.weights_kernel, at, simd.integer(0), job.count)
            divisor.value = summed(partial, job.count)
        if not softmax:
            with when(job.divisor < 0.0):
                divisor.value = -job.divisor * summed(sample, job.sample_weight_length)
        nothing = divisor.value == 0.0
        losses = select(job.reduced != 0, partial, job.value)
        slots = zeros | {"x": job.x, "z": job.z, "g": job.g, "grad_scale": select(nothing, 0.0, 1.0 / divisor.value)}
        slots |= {sums: losses, "o": losses, "s": sample}
        if softmax:
            slots |= {name: weights[name] for name in SoftmaxOptions.PER_CLASS}
        else:
            slots |= {"q": weights["pos_weight"], "pos_weight": simd.load(weights["pos_weight"], F64)}
        wrong = simd.call(job.kernel, _filled(fields, address, slots), simd.integer(0), job.count)
        with when(job.reduced != 0):
            value = select(nothing, 0.0, summed(partial, job.count) / divisor.value)
            simd.either(
                job.wide != 0,
                lambda: simd.store(value, job.value),
                lambda: simd.store(simd.convert(value, F32), job.value),
            )
        _free(job, FEW, job.count, partial)
        return wrong

    def kernel(address: Value, start: Value, stop: Value) -> Value:
        job, refused = _job(spec, address + own), Variable(simd.integer(0))
        weights = {name: _copied(job, name, refused) for name in names}
        answer = Variable(simd.integer(-1))
        with when(refused.value == 0):
            answer.value = computed(address, job, weights)
        for name, copy in weights.items():
            _free(job, FEW_WEIGHTS, getattr(job, f"{name}_length"), copy)
        return answer.value

    return kernel


def _elementwise(spec: SmallSpec) -> Kernel:
    own = 8 * len(SIGMOID_JOB.planned)

    def kernel(address: Value, start: Value, stop: Value) -> Value:
        job = _job(spec, address + own)
        slots = dict.fromkeys((name.rstrip(".") for name in SIGMOID_JOB.filled), simd.integer(0))
        filled = _filled(SIGMOID_JOB, address, slots | {"x": job.x, "o": job.o})
        return simd.call(job.kernel, filled, simd.integer(0), job.count)

    return kernel


def _job(spec: SmallSpec, address: Value) -> Job:
    """Return the slots of a small call, with the addresses of the arrays."""
    fields = SMALL_JOBS[spec.family]
    job = Job(address, fields.names)
    if spec.behind >= 0:
        for name in fields.filled:
            given: Value = getattr(job, name)
            found = Variable(given)
            with when(given != 0):
                found.value = simd.load(given + spec.behind, I64)
            setattr(job, name, found.value)
    return job


def _filled(fields: Fields, planned: Value, slots: dict[str, Value]) -> Value:
    """Return the address of a job with these slots behind the planned ones."""
    job = simd.scratch(8 * len(fields.names))
    for i in range(len(fields.planned)):
        simd.store(simd.load(planned + 8 * i, I64), job + 8 * i)
    for i, name in enumerate(fields.filled, len(fields.planned)):
        simd.store(slots[name.rstrip(".")], job + 8 * i)
    return job


def _copied(job: Job, name: str, refused: Variable) -> Value:
    """Return where the weights of this name are, or a single 1 if there are none; count those that are not allowed."""
    length, size, step, least = (getattr(job, f"{name}_{what}") for what in ("length", "size", "step", "least"))
    copy = _space(job, FEW_WEIGHTS, length)
    simd.store(simd.constant(1.0, F64), copy)
    with loop(0, length) as i:
        at = i * step + getattr(job, name)
        weight = simd.either(size == 4, lambda: simd.convert(simd.load(at, F32), F64), lambda: simd.load(at, F64))
        allowed = (weight >= least) & (weight < INF)
        refused.value = refused.value + select(allowed, simd.integer(0), simd.integer(1))
        simd.store(weight, copy + i * 8)
    return copy


def _space(job: Job, most: int, count: Value) -> Value:
    """Return memory for so many float64 numbers: of the stack up to `most` of them, of the heap for more."""
    space = Variable(simd.scratch(8 * most))
    with when(count > most):
        space.value = simd.call(job.allocate, count * 8)
    return space.value


def _free(job: Job, most: int, count: Value, space: Value) -> None:
    with when(count > most):
        simd.call(job.release, space)
