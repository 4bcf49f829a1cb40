"""Groups of rows of the softmax family: their arrays, their numbers, and the steps of a pass.

A group is as many rows as a vector has lanes; numbers of rows (the maximum, the loss) are vectors. Where lanes lie
across rows, a step of a pass is one class of all rows of the group. Where they lie along contiguous classes, a step is
one vector of one row, and the rows of a group go through each pass one after the other. Short contiguous rows are
turned into a tile first ("tiled"), and go on as rows that lie side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from . import simd
from .control import Job, Variable, if_else, loop, repeat, when
from .job import TILE, SoftmaxSpec
from .memory import KIND_BYTES, KINDS, Access, Kind, Lanes, Tile
from .simd import F64, I1, I64, Value, fma, select

INF = float("inf")


def plus(a: Value, b: Value) -> Value:
    return a + b


class Cursor:
    """One array's elements of the rows in hand, step by step."""

    def __init__(self, access: Access, at: Value, step: Value | int) -> None:
        self.access, self.at, self._step = access, at, step

    def address(self, j: Value) -> Value:
        """Return where step j begins."""
        return j * self._step + self.at

    def read(self, j: Value, lanes: Lanes, otherwise: float = 0.0, element: ir.Type = F64, steps: int = 1) -> Value:
        """Return the elements of step j, or of so many steps that lie side by side."""
        access = self.access if steps == 1 else Access(self.access.kind, steps * self.access.lanes, False)
        return access.read(self.address(j), lanes, otherwise, element)

    def write(self, x: Value, j: Value, lanes: Lanes) -> None:
        access = self.access if x.type.count == self.access.lanes else Access(self.access.kind, x.type.count, False)
        access.write(x, self.address(j), lanes)

    def write_past_caches(self, x: Value, j: Value) -> None:
        self.access.write_past_caches(x, self.address(j))

    def prefetch(self, j: Value, ahead: Value | int, steps: int = 1, to_write: bool = False) -> None:
        """Ask for the elements that lie `ahead` bytes behind those of step j."""
        at = self.address(j) + ahead
        for i in range(0, steps * self.access.lanes * self.access.kind.size, 64):
            simd.prefetch(at + i, to_write)


class Array:
    """One array of a job by its letter: x logits, z labels, g and h their gradients."""

    def __init__(self, job: Job, letter: str, access: Access, layout: str, tile: Value | None = None) -> None:
        self.access = access
        self._base, self._outer, self.row_step, self.class_step = (
            getattr(job, name) for name in (letter, f"{letter}_outer", f"{letter}_row", f"{letter}_class")
        )
        self._layout, self._turned = layout, Tile(access.kind, access.lanes)
        self.tile = (tile or self._turned.scratch(TILE)) if layout == "tiled" else None
        self.step: Value | int = self.class_step
        if layout == "along":
            self.step = access.lanes * access.kind.size
        elif self.tile is not None:
            self.step = self._turned.step
        self.first = self.at = self._base  # where the group's first row begins; what its rows are addressed by

    def place(self, outer: Value, row: Value, n: Value) -> None:
        """Go to the group of n rows that begins here."""
        self.first = outer * self._outer + row * self.row_step + self._base
        self.at = self.first
        if self._layout == "strided":
            self.at = own_offsets(self.row_step, n, self.access.lanes) + self.first
        if self.tile is not None:
            self.at = self.tile

    def cursor(self, turn: Value | None) -> Cursor:
        return Cursor(self.access, self.at if turn is None else turn * self.row_step + self.at, self.step)

    def fill(self, classes: Value, n: Value) -> None:
        """Turn n rows into the tile."""
        self._squares(self._turned.fill, classes, n)

    def empty(self, classes: Value, n: Value) -> None:
        """Turn the tile back into n rows."""
        self._squares(self._turned.empty, classes, n)

    def _squares(self, turn: Callable[..., None], classes: Value, n: Value) -> None:
        """Turn square by square: whole ones, of which the last goes back over the one before; or a part of one."""
        lanes, size = self.access.lanes, self.access.kind.size
        assert self.tile is not None

        def square(j: Value, lanes: Lanes) -> None:
            turn(j * self._turned.step + self.tile, j * size + self.first, self.row_step, n, lanes)

        with if_else(classes >= lanes) as (whole, part):
            with whole, loop(0, classes, lanes) as j:
                square(simd.smaller(j, classes - lanes), None)
            with part, when(classes > 0):
                square(simd.integer(0), classes)


def own_offsets(step: Value, n: Value, lanes: int) -> Value:
    """Return each row's offset; lanes without a row repeat the last."""
    return simd.smaller(simd.lane_numbers(simd.vector(I64, lanes)), n - 1) * step


class Numbers:
    """Numbers of the rows of a group by name: vectors, or in memory where rows are taken one by one."""

    def __init__(self, rows: int, one_by_one: bool) -> None:
        self._rows, self._one_by_one = rows, one_by_one
        self._slots: dict[str, tuple[Value, ir.Type]] = {}
        self._variables: dict[str, Variable] = {}

    def _slot(self, name: str, element: ir.Type) -> Value:
        if name not in self._slots:
            with simd.at_entry():
                at = simd.scratch(8 * self._rows)
                simd.store(simd.constant(0, simd.vector(element, self._rows)), at)
            self._slots[name] = at, element
        at, known = self._slots[name]
        assert known == element, name
        return at

    def _keep(self, name: str, value: Value) -> None:
        if name not in self._variables:
            with simd.at_entry():
                self._variables[name] = Variable(simd.constant(0, value.type))
        self._variables[name].value = value

    def put(self, name: str, values: Value) -> None:
        """Keep a number of every row."""
        if not self._one_by_one:
            self._keep(name, values)
            return
        if values.type.element == I1:
            values = simd.convert(values, I64)
        simd.store(values, self._slot(name, values.type.element))

    def put_one(self, name: str, turn: Value | None, value: Value) -> None:
        """Keep a number of the row in hand."""
        if turn is None:
            self._keep(name, value)
        else:
            simd.store(value, turn * KIND_BYTES[value.type] + self._slot(name, value.type))

    def all(self, name: str) -> Value:
        if not self._one_by_one:
            return self._variables[name].value
        at, element = self._slots[name]
        return simd.load(at, simd.vector(element, self._rows))

    def one(self, name: str, turn: Value | None) -> Value:
        """Return the number of the row in hand: a scalar, or a vector where that is all rows."""
        if turn is None:
            return self.all(name)
        at, element = self._slots[name]
        return simd.load(turn * KIND_BYTES[element] + at, element)


@dataclass
class Row:
    """The row in hand; or all rows of the group, where they go through a pass together (`turn` is None)."""

    rows: Rows
    turn: Value | None

    def __post_init__(self) -> None:
        self.x = self.rows.x.cursor(self.turn)
        self.z, self.g, self.h = (
            array.cursor(self.turn) if array else self.x for array in (self.rows.z, self.rows.g, self.rows.h)
        )

    def number(self, name: str) -> Value:
        return self.rows.numbers.one(name, self.turn)

    def flag(self, name: str) -> Value:
        value = self.number(name)
        return value if self.turn is None else value != 0

    def put(self, name: str, value: Value) -> None:
        self.rows.numbers.put_one(name, self.turn, value)

    def of_classes(self, name: str, j: Value, lanes: Lanes) -> Value:
        """Return the numbers of step j of an array of classes, float64."""
        at, count = getattr(self.rows.job, name), self.rows.lanes
        if self.rows.along:
            return Access(KINDS["float64"], count, False).read(j * (8 * count) + at, lanes)
        return simd.splat(simd.load(j * 8 + at, F64), simd.vector(F64, count))

    def class_weights(self, j: Value, lanes: Lanes) -> Value | None:
        """Return the class weights of step j, if there are any."""
        return self.of_classes("class_weight", j, lanes) if self.rows.spec.weighted else None

    def targets(self, z: Value, w: Value | None) -> Value:
        """Return t_j = w_j ((1 − ε) z_j + ε/C)."""
        t = fma(z, 1.0 - self.rows.job.smoothing, self.rows.share)
        return t if w is None else t * w


class Rows:
    """The rows of a job: their arrays, the group in hand, and the steps of a pass."""

    def __init__(self, spec: SoftmaxSpec, job: Job, lanes: int, count: int) -> None:
        self.spec, self.job, self.lanes, self.count = spec, job, lanes, count
        self.along, self.tiled, self.strided = (spec.layout == name for name in ("along", "tiled", "strided"))
        self.numbers = Numbers(count, one_by_one=self.along)
        self.writes = spec.gradient or spec.result in ("softmax", "log_softmax")

        def array(letter: str, kind: str, tile: Value | None = None) -> Array | None:
            access = Access(KINDS[kind], lanes, self.strided) if kind else None
            return Array(job, letter, access, spec.layout, tile) if access else None

        logits = array("x", spec.x)
        assert logits is not None
        self.x, self.z = logits, array("z", spec.z if spec.labels == "dense" else "")
        # the gradient takes the logits' place in the tile
        self.g = array("g", spec.x if self.writes else "", self.x.tile)
        self.h = array("h", spec.label_gradient)
        self.arrays = (self.x, self.z, self.g, self.h)
        self.classes = job.classes
        self.whole = self.classes / lanes if self.along else self.classes
        self.rest = self.classes - self.whole * lanes if self.along else None
        if spec.labels in ("smooth", "dense"):
            self.share = job.smoothing / simd.convert(self.classes, F64)
        self.each: Lanes = None  # the lanes of a step

    def most_together(self, group_bytes: int) -> Value:
        """Return how many rows make a group: rows taken one by one, no more than fit into so many bytes."""
        if not self.along:
            return simd.integer(self.count)
        fitting = simd.integer(group_bytes) / simd.larger(self.classes * self.x.access.kind.size, simd.integer(1))
        return simd.smaller(simd.integer(self.count), simd.larger(fitting, simd.integer(1)))

    def groups(self, start: Value, stop: Value, together: Value, group: Callable[[], None]) -> None:
        """Run `group` for the rows start to stop of the job, so many together."""
        i = Variable(start)
        with repeat(lambda: i.value < stop):
            self.begin(i.value, stop, together)
            if self.each is None or simd.target().masks:
                group()
            else:  # whole vectors without masks, where these take time
                with if_else(self.n == self.count) as branches:
                    for branch, lanes in zip(branches, (None, self.n), strict=True):
                        with branch:
                            self.each = lanes
                            group()
            self.end()
            i.value = i.value + self.n

    def begin(self, i: Value, stop: Value, together: Value) -> None:
        """Go to the group that begins with row i of the job."""
        job = self.job
        self.i, self.outer = i, i / job.inner
        self.row = i - self.outer * job.inner
        self.n = simd.smaller(together, simd.smaller(job.inner - self.row, stop - i))
        self.each = self.n if self.spec.layout == "across" else None
        for array in self.arrays:
            if array:
                array.place(self.outer, self.row, self.n)
        if self.tiled:
            for array in (self.x, self.z):
                if array:
                    array.fill(self.classes, self.n)

    def end(self) -> None:
        if self.tiled:
            for array in (self.g, self.h):
                if array:
                    array.empty(self.classes, self.n)

    def steps(
        self,
        one: Callable[[Value, Lanes], None],
        several: Callable[[Value], None] | None = None,
        at_once: int = 1,
        start: Value | int = 0,
        allowed: Value | None = None,
    ) -> None:
        """Run `one(j, lanes)` for every step of the rows in hand, or, if allowed, `several(j)` for `at_once` steps."""
        if several is not None:
            until = self.whole / at_once * at_once
            if allowed is not None:
                until = select(allowed, until, 0)
            with loop(start, until, at_once) as j:
                several(j)
            start = until
        with loop(start, self.whole) as j:
            one(j, self.each)
        if self.rest is not None:
            with when(self.rest > 0):
                one(self.whole, self.rest)

    def visit(
        self, flag: str | None, visit: Callable[[Row], None], otherwise: Callable[[Row], None] | None = None
    ) -> None:
        """Run a pass over the rows whose flag, if any, is set (all of the group, if they go together and one's is)."""

        def one(row: Row) -> None:
            if flag is None:
                visit(row)
                return
            flags = row.flag(flag)
            chosen = flags if self.along else simd.any_lane(flags)
            if otherwise is None:
                with when(chosen):
                    visit(row)
            else:
                with if_else(chosen) as (then, instead):
                    with then:
                        visit(row)
                    with instead:
                        otherwise(row)

        if self.along:
            with loop(0, self.n) as turn:
                one(Row(self, turn))
        else:
            one(Row(self, None))

    # Numbers of all rows of the group, as vectors

    def first(self) -> Value:
        """Return the mask of the lanes that have a row."""
        return simd.lane_numbers(simd.vector(I64, self.count)) < self.n

    def own(self, step: Value) -> Value:
        return own_offsets(step, self.n, self.count)

    def splat(self, value: Value) -> Value:
        return simd.splat(value, simd.vector(value.type, self.count))

    def gathered(self, kind: Kind, addresses: Value, element: ir.Type) -> Value:
        return Access(kind, self.count, True).read(addresses, None, 0.0, element)

    def number_a_row(self, kind: Kind, address: Value, step: Value, element: ir.Type) -> Value:
        """Return a number of each row, gathered (which is slow) only if they do not lie side by side."""
        return simd.either(
            (step == kind.size) & (self.n == self.count),
            lambda: Access(kind, self.count, False).read(address, None, 0.0, element),
            lambda: self.gathered(kind, self.own(step) + address, element),
        )

    def sample_weights(self) -> Value:
        job, double = self.job, KINDS["float64"]
        at = self.outer * job.s_outer + self.row * job.s_row + job.s
        return simd.either(
            job.s_row == 0,
            lambda: self.splat(simd.load(at, F64)),
            lambda: self.number_a_row(double, at, job.s_row, F64),
        )

    def indices(self) -> Value:
        """Return the index labels."""
        if self.spec.labels not in ("index", "smooth"):
            return simd.constant(0, simd.vector(I64, self.count))
        job = self.job
        at = self.outer * job.z_outer + self.row * job.z_row + job.z
        return self.number_a_row(KINDS[self.spec.z], at, job.z_row, I64)

    def label_logits(self, y: Value) -> Value:
        """Return each row's logit of its label (which is a class)."""
        step = self.x.step if self.tiled else self.x.class_step
        at = y * step + self.x.at
        if self.spec.layout in ("across", "tiled"):
            at = at + self.own(simd.integer(self.x.access.kind.size))
        elif self.along:
            at = at + self.own(self.x.row_step)
        return self.gathered(self.x.access.kind, at, F64)

    def label_weights(self, y: Value) -> Value:
        job = self.job
        return simd.either(
            job.w_class == 0,
            lambda: self.splat(simd.load(job.class_weight, F64)),
            lambda: self.of_labels("class_weight", y),
        )

    def of_labels(self, name: str, y: Value) -> Value:
        """Return each row's number of its label from an array of classes, float64."""
        return self.gathered(KINDS["float64"], y * 8 + getattr(self.job, name), F64)

    def put_losses(self, loss: Value) -> None:
        """Write a loss a row, side by side: float64, or rounded once to float32."""
        with if_else(self.job.wide != 0) as branches:
            for branch, name in zip(branches, ("float64", "float32"), strict=True):
                with branch:
                    kind = KINDS[name]
                    Access(kind, self.count, False).write(loss, self.i * kind.size + self.job.loss, self.n)
