"""The statistics of elements of independent classes, and their scores in bins; see `statistics.arrays`.

Elements lie side by side, and WIDE of them are looked at together; so do the counters of their classes. Places and
numbers go to counters through memory, where each lane is read by itself: that takes fewer instructions than to take
them out of vectors.
"""

from __future__ import annotations

from . import functions, simd
from .control import Job, Kernel, Variable, loop, when
from .job import (
    ANSWER_BITS,
    ELEMENTS_JOB,
    LANES,
    SCORE_CLASSES,
    SCORES_JOB,
    WIDE,
    ElementsSpec,
    ScoresSpec,
    SigmoidSpec,
)
from .memory import KIND_BYTES, KINDS, Access, Lanes, some_lanes
from .rows import INF
from .sigmoid import formulas
from .simd import F64, I1, I32, I64, Value, convert, select
from .target import Target


def build(spec: ElementsSpec | ScoresSpec, target: Target) -> Kernel:
    """Return the kernel of these statistics; as many elements at a time on every target."""
    return _counting(spec) if isinstance(spec, ElementsSpec) else _scoring(spec)


def _counting(spec: ElementsSpec) -> Kernel:
    """Return the kernel that counts pieces of elements, by the losses of `sigmoid.py` before they are rounded."""

    def kernel(address: Value, start: Value, stop: Value) -> Value:
        job = Job(address, ELEMENTS_JOB.names)
        with loop(start, stop) as i:
            piece = _Piece(spec, job, i)
            begin = i * job.grain
            count = simd.smaller(job.elements - begin, job.grain)
            whole = count / WIDE * WIDE
            at = Variable(remainder(begin, job.period))
            with loop(begin, begin + whole, WIDE) as j:
                piece.count(j, at.value, None)
                at.value = wrapped(at.value + WIDE, job.period)
            with when(whole < count):
                piece.count(begin + whole, at.value, count - whole)
        return simd.integer(0)

    return kernel


class _Piece:
    """A piece of the elements, with counters of its own."""

    def __init__(self, spec: ElementsSpec, job: Job, piece: Value) -> None:
        self._spec, self._job = spec, job
        self._formulas = formulas(SigmoidSpec(spec.x, spec.z))
        self._arrays = [(Access(KINDS[spec.x], WIDE, False), job.x), (Access(KINDS[spec.z], WIDE, False), job.z)]
        if spec.rows:
            self._arrays.append((Access(KINDS["float64"], WIDE, False), job.loss))
        counters = spec.counters()
        assert counters.fields is not None
        self._at = {name: job.out + piece * counters.itemsize + field[1] for name, field in counters.fields.items()}
        self._listed = job.listed + piece * ((job.grain + WIDE) * 8)
        table = piece * ((job.period + WIDE) * 8)
        self._answers, self._losses = job.answers + table, job.losses + table

    def count(self, i: Value, at: Value, lanes: Lanes) -> None:
        """Count the elements from i on, of which the first has the place `at` in the tables of classes."""
        full = simd.vector(F64, WIDE)
        x, z, *given = (access.read(base + i * access.kind.size, lanes) for access, base in self._arrays)
        there = simd.constant(1, simd.vector(I1, WIDE)) if lanes is None else some_lanes(lanes, WIDE)
        if given:
            self._count_confidence(functions.exp(simd.smaller(simd.constant(0.0, full), -x)), there, z > 0.5, z)
            self._count_loss(given[0], there & (simd.absolute(given[0]) < INF))
            return
        parts, _, cross_entropy = self._formulas
        e, u = parts(x)
        loss, _, _ = cross_entropy(x, e, u, z, None, simd.constant(0.0, full))
        finite = there & (simd.absolute(loss) < INF)
        add(self._at["loss"], select(finite, loss, 0.0))
        with when(simd.any_lane(there & ~finite)):
            add(self._at["nan"], simd.set_lanes(there & (loss != loss)))
            add(self._at["infinite"], simd.set_lanes(there & (simd.absolute(loss) == INF)))
        self._list(i, there & (loss >= self._job.floor))
        r = functions.reciprocal(e + 1.0, 2)
        yes, said = there & (z > 0.5), there & (x > 0.0)
        self._count_confidence(select(x < 0.0, e * r, r), there, yes, z)
        self._count_loss(loss, finite)
        more = simd.constant(0, simd.vector(I64, WIDE))
        for answer, mask in enumerate((yes, said, yes & said)):
            more = more | select(mask, simd.constant(1 << ANSWER_BITS * answer, more.type), 0)
        add(self._answers + at * 8, more)
        add(self._losses + at * 8, select(there, loss, 0.0))

    def _list(self, i: Value, mask: Value) -> None:
        append(i, mask, WIDE, self._listed, self._at["listed"])

    def _count_loss(self, loss: Value, finite: Value) -> None:
        octave = convert(simd.bits(loss) >> 51, I32) - (((1023 + self._spec.lowest) << 1) - 1)
        octave = select(finite, between(octave, self._spec.losses - 1), self._spec.losses)
        scatter_add(self._at["histogram"], octave, simd.constant(1, simd.vector(I64, WIDE)))

    def _count_confidence(self, probability: Value, there: Value, yes: Value, z: Value) -> None:
        """Count probabilities in bins by what came true of them; the last bin is for NaN and lanes without element."""
        known = there & (probability == probability)
        probability = select(known, probability, 0.0)
        place = between(convert(probability * float(self._spec.confidence), I32), self._spec.confidence - 1)
        place = select(known, place, self._spec.confidence)
        entry = (place << 1) + convert(yes, I32)
        scatter_add(self._at["count"], entry, simd.constant(1, simd.vector(I64, WIDE)))
        scatter_add(self._at["sum"], entry, probability)
        if not self._spec.binary:
            scatter_add(self._at["true"], place, z)


def _scoring(spec: ScoresSpec) -> Kernel:
    """Return the kernel that counts scores of each class in bins, and lists those outside of its range.

    The bins of many classes are larger than the near caches: a unit of the work is SCORE_CLASSES, over all rows. Fewer
    classes are one line of elements, cut into parts with bins of their own.
    """
    full = simd.vector(F64, LANES)
    x_access, z_access = (Access(KINDS[kind], LANES, False) for kind in (spec.x, spec.z))
    size = spec.bins

    def count(job: Job, i: Value, at: Value, table: Value, lists: tuple[Value, Value], lanes: Lanes) -> None:
        """Count the elements from i on, of which the first has the place `at` in the tables of classes."""
        x = x_access.read(job.x + i * x_access.kind.size, lanes)
        z = z_access.read(job.z + i * z_access.kind.size, lanes)
        scale, first, low, high = (simd.load(a + at * 8, full) for a in (job.scale, job.first, job.low, job.high))
        there = simd.constant(1, simd.vector(I1, LANES)) if lanes is None else some_lanes(lanes, LANES)
        inside = there & (x > low) & (x < high)
        place = convert(select(inside, simd.truncated(x * scale) + first, 0.0), I32)
        scatter_add(table, select(z > 0.5, place + size, place), convert(inside, KINDS[spec.counts].llvm))
        append(i, there & ~inside, LANES, *lists)

    def kernel(address: Value, start: Value, stop: Value) -> Value:
        job = Job(address, SCORES_JOB.names)
        by_class = job.classes > SCORE_CLASSES
        with loop(start, stop) as unit:
            begin = unit * select(by_class, simd.integer(SCORE_CLASSES), job.grain)
            rest = select(by_class, job.classes, job.elements) - begin
            length = simd.smaller(rest, select(by_class, simd.integer(SCORE_CLASSES), job.grain))
            lines = select(by_class, job.elements / job.classes, 1)
            table = job.scores + select(by_class, 0, unit * job.table_step)
            lists = (job.lists + unit * job.list_step, job.listed + unit * 64)
            phase, whole = remainder(begin, job.period), length / LANES * LANES
            with loop(0, lines) as line:
                first, at = begin + line * job.classes, Variable(phase)
                with loop(first, first + whole, LANES) as i:
                    x, z = job.x + i * x_access.kind.size, job.z + i * z_access.kind.size
                    simd.prefetch(x + job.classes * (8 * x_access.kind.size))
                    simd.prefetch(z + job.classes * (8 * z_access.kind.size))
                    count(job, i, at.value, table, lists, None)
                    at.value = wrapped(at.value + LANES, job.period)
                with when(whole < length):
                    count(job, first + whole, at.value, table, lists, length - whole)
        return simd.integer(0)

    return kernel


def remainder(n: Value, divisor: Value) -> Value:
    return n - n / divisor * divisor


def wrapped(at: Value, period: Value) -> Value:
    return select(at >= period, at - period, at)


def between(x: Value, high: int) -> Value:
    return simd.smaller(simd.larger(x, simd.constant(0, x.type)), simd.constant(high, x.type))


def add(address: Value, x: Value) -> None:
    simd.store(simd.load(address, x.type) + x, address)


def append(i: Value, mask: Value, lanes: int, entries: Value, count: Value) -> None:
    """Append the numbers of the lanes that hold, from i on, to a list; some entries behind it are overwritten."""
    with when(simd.any_lane(mask)):
        n = simd.load(count, I64)
        for lane in range(lanes):
            simd.store(i + lane, n * 8 + entries)
            n = n + convert(simd.lane(mask, lane), I64)
        simd.store(n, count)


def scatter_add(table: Value, places: Value, x: Value) -> None:
    """Add lane i of x to the entry at its place, one lane after another, since places may be equal."""
    size = KIND_BYTES[x.type.element]
    for i in range(places.type.count):
        add(convert(simd.lane(places, i), I64) * size + table, simd.lane(x, i))
