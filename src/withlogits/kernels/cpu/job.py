"""What a kernel is compiled for (its spec) and what a call hands it (its job). Without Numba: cached kernels need none.

Every kernel is `kernel(job, start, stop)`: it does the rows (or blocks) start to stop of the job whose slots lie at the
address `job`, and returns how many of their labels were out of range. A job is nothing but numbers and addresses; the
caller keeps the arrays alive.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

LANES = 8  # float64 lanes of a vector
WIDE = 16  # elements that are counted together: the arithmetic of one vector waits, and that of another goes on
STREAM = 1 << 25  # bytes of a result that no cache would hold until it is read
BLOCK = 1024  # elements of an elementwise job's block: sums are taken block by block, whatever the threads
TILE = 128  # classes that a tile has room for


@dataclass(frozen=True)
class SoftmaxSpec:
    """The softmax family: the element kinds and the parts that cost something when they are unused."""

    x: str  # kinds of elements: "float32", …
    labels: str  # "none", "index", "smooth" (index labels, smoothed) or "dense"
    z: str
    layout: str  # lanes "along" contiguous classes, "across" contiguous or any ("strided") rows, or short ones "tiled"
    result: str = "loss"  # or "softmax", "log_softmax", "logsumexp" (labels "none")
    gradient: bool = False
    label_gradient: str = ""  # the kind of its elements, if wanted
    weighted: bool = False  # class weights in a sum over classes
    transformed: bool = False  # temperature or softcap

    @property
    def float32(self) -> bool:
        """Is it a case for float32 arithmetic (`softmax_float32.py`)."""
        loss_alone = self.labels == "dense" and not self.gradient and not self.label_gradient
        return (self.labels == "index" or loss_alone) and self.x != "float64" and not self.transformed

    @property
    def short(self) -> int:
        """Contiguous rows of so few classes are faster turned ("tiled") than one after the other ("along")."""
        if self.float32:
            return 32
        return TILE // 2 if self.x == "float64" else TILE


@dataclass(frozen=True)
class SigmoidSpec:
    """The elementwise family."""

    x: str
    z: str = ""  # kind of the labels
    result: str = "loss"  # or "gradient" (no loss), "sigmoid", "log_sigmoid", "softplus", "logit"
    strided: bool = False  # some array's elements do not lie side by side
    q: str = ""  # pos_weight: "", "one" (a number) or "many" (float64, any strides)
    s: str = ""  # kind of the sample weights, any strides
    s_along: bool = False  # they lie side by side
    kept: bool = True  # each element's result is wanted, not the sums alone
    gradient: bool = False
    label_gradient: str = ""
    streaming: bool = False  # the results are too large for any cache


@dataclass(frozen=True)
class FactsSpec:
    """What rows are like."""

    x: str  # the kind of elements
    layout: str  # lanes "along" contiguous classes, "across" contiguous rows, or short ones "tiled"
    picked: bool = False  # each row is compared with one element of its own

    @property
    def single(self) -> bool:
        """Are the elements numbers of float32."""
        return self.x in ("float16", "bfloat16", "float32", "bool", "int8", "uint8", "int16", "uint16")

    @property
    def lanes(self) -> int:
        """Rows or classes handled at once."""
        return 2 * LANES if self.single or self.layout == "along" else LANES


@dataclass(frozen=True)
class Figures:
    """Bins of claimed probabilities and of losses, and the slots of 8 bytes in which both are counted.

    Claims lie in a table by what came true (no, yes), bin and bin of the loss: RUN of them at most, how many and their
    sum in one word, of which PLACES bits are for the former. Then all is added to the claims, for each answer and bin
    how many (a whole number) and their sum, and to the histogram of losses. The last bin of each kind is for what does
    not count.
    """

    confidence: int  # bins of equal width
    lowest: int  # two bins an octave, from 2^lowest on
    octaves: int

    RUN: ClassVar[int] = 4096
    PLACES: ClassVar[int] = 13
    UNIT: ClassVar[float] = 2.0**38  # of the sum: RUN times as much, and PLACES bits, fill a word

    @property
    def losses(self) -> int:
        return 2 * self.octaves + 1

    @property
    def columns(self) -> int:
        """Entries of the table and of the histogram for the losses, whole vectors."""
        return -(-(self.losses + 1) // LANES) * LANES

    @property
    def lines(self) -> int:
        return 2 * (self.confidence + 1)

    @property
    def claims_at(self) -> int:
        return self.lines * self.columns

    @property
    def histogram_at(self) -> int:
        return self.claims_at + 2 * self.lines

    @property
    def end(self) -> int:
        return self.histogram_at + self.columns


# Of tallies: sums and extremes, each a vector of LANES float64; then whole numbers.
TALLY_VECTORS = ("low", "top", "loss", "spread")
TALLY_COUNTS = (
    "right", "counted", "nan", "infinite", "saturated", "odd_rows",
    "neighbours", "in_place", "ahead", "behind", "changes", "keyed", "costly",
)  # fmt: skip


@dataclass(frozen=True)
class TalliesSpec:
    """What is counted of rows whose facts and losses are known, and in which slots of 8 bytes.

    The vectors come first, then the whole numbers, then the tables, whose last entry is for rows that do not count.
    """

    loss: str  # the kind of the losses
    sized: bool = False  # the rows' logsumexp is given; without it, it follows from the loss of one class
    some: bool = False  # not all rows count
    matrix: bool = False  # every (class, predicted) is counted, not the classes alone
    figures: Figures | None = None  # of an evaluation, if they are wanted too
    within: tuple[int, ...] = ()  # is the class among the k largest

    @property
    def counts_at(self) -> int:
        return len(TALLY_VECTORS) * LANES

    @property
    def within_at(self) -> int:
        return self.counts_at + len(TALLY_COUNTS)

    @property
    def figures_at(self) -> int:
        return self.within_at + len(self.within)

    @property
    def classes_at(self) -> int:
        """How many rows: (class, predicted), or (class,)."""
        return self.figures_at + (self.figures.end if self.figures else 0)

    def class_loss_at(self, classes: int) -> int:
        return self.classes_at + (classes * classes if self.matrix else classes) + 1

    def end(self, classes: int) -> int:
        return self.class_loss_at(classes) + (classes + 1 if self.figures else 0)


# The tables of the classes: three whole numbers of so many bits each in one, yes, said and both; and the losses.
CLASS_TABLES, ANSWER_BITS = 2, 21
MOST_ELEMENTS = 1 << 26  # of a piece, so that no such number overflows


def period(classes: int) -> int:
    """Entries of a table that has all classes, several times if they are few."""
    return -(-8 * LANES // classes) * classes


@dataclass(frozen=True)
class ElementsSpec:
    """What is counted of elements of independent classes, and in which slots of 8 bytes.

    Sums of `lanes` float64 come first, of the finite losses and of label times logit, then the numbers of elements
    whose loss is NaN, or infinite, and of those that are listed. The figures follow, then the tables of the classes:
    several times all classes, so that vectors of them seldom meet, and WIDE more for those that begin at the last.
    """

    x: str  # kinds of elements
    z: str
    binary: bool = False  # all labels are 0 or 1
    figures: Figures | None = None  # of an evaluation; without them the sums alone are wanted

    @property
    def lanes(self) -> int:
        """Elements that are looked at together; more where little is to be done, and there are registers for it."""
        return WIDE if self.figures else 2 * WIDE

    @property
    def counts_at(self) -> int:
        return 2 * self.lanes

    @property
    def figures_at(self) -> int:
        return self.counts_at + LANES  # on a cache line, as the sums

    @property
    def true_at(self) -> int:
        """Float64 sums of the labels in each bin of claims, if they are not binary."""
        return self.figures_at + (self.figures.end if self.figures else 0)

    @property
    def classes_at(self) -> int:
        return self.true_at + (self.figures.confidence + 1 if self.figures and not self.binary else 0)

    def end(self, classes: int) -> int:
        return self.classes_at + (CLASS_TABLES * (period(classes) + WIDE) if self.figures else 0)


# Of dense labels, and of the logits beside them: vectors of LANES float64, then whole numbers; see `labels.py`.
LABEL_VECTORS = ("low", "top", "lowest_sum", "highest_sum", "total", "positive")
LOGIT_VECTORS = ("low", "top", "spread", "total")
LABEL_COUNTS = ("binary", "none", "one", "two", "distributions", "negative", "odd")
LOGIT_COUNTS = ("odd_rows", "saturated", "keyed")


@dataclass(frozen=True)
class LabelsSpec:
    """What is counted of the rows of dense labels, and of logits beside them, whose facts are known."""

    paired: bool  # are there logits

    @property
    def vectors(self) -> int:
        return len(LABEL_VECTORS) + len(LOGIT_VECTORS) * self.paired

    @property
    def counts_at(self) -> int:
        return self.vectors * LANES

    @property
    def end(self) -> int:
        return self.counts_at + len(LABEL_COUNTS) + len(LOGIT_COUNTS) * self.paired


@dataclass(frozen=True)
class PairsSpec:
    """The same of labels and logits in short rows, whose facts are found out on the way."""

    x: FactsSpec
    z: FactsSpec


SCORE_CLASSES = 16  # classes that a unit of the work on scores has, if there are more


@dataclass(frozen=True)
class ScoresSpec:
    """Into which bins scores are counted."""

    x: str  # kinds of elements
    z: str
    counts: str  # the kind of the counters
    fraction: int  # bits of a bin
    lowest: int
    octaves: int

    @property
    def bins(self) -> int:
        return 2 * ((self.octaves << self.fraction) + 1)


@dataclass(frozen=True)
class PoolSpec:
    """The two halves of the thread pool that run without the interpreter."""

    half: str  # "lead" or "serve"


# The slots of the pool's control block, one cache line each where two threads write:
# OPEN    1 while a job may be entered          INSIDE  how many workers are in it
# NEXT    the first row nobody has taken        WRONG   labels out of range so far
# STOP, CHUNK, KERNEL, JOB, YIELD               written by the leader while nobody is inside
OPEN, INSIDE, NEXT, WRONG, STOP = 0, 64, 128, 192, 256
CHUNK, KERNEL, JOB, YIELD = STOP + 8, STOP + 16, STOP + 24, STOP + 32
CONTROL_BYTES = 320


class Fields:
    """The slots of a job: those that a plan knows, then those that each call fills. A name with a dot is a float."""

    def __init__(self, planned: str, filled: str) -> None:
        self.names = (*planned.split(), *filled.split())
        self.plan: Callable[..., bytes] = self._packer(planned)
        self.fill: Callable[..., bytes] = self._packer(filled)

    @staticmethod
    def _packer(names: str) -> Callable[..., bytes]:
        return struct.Struct("=" + "".join("d" if name.endswith(".") else "q" for name in names.split())).pack


# x logits, z labels (dense, or indices), g gradient of the logits, h of the labels, s sample weights, w class weights
SOFTMAX_JOB = Fields(
    "classes inner x_outer x_row x_class z_outer z_row z_class g_outer g_row g_class h_outer h_row h_class "
    "s_outer s_row w_class ignore has_ignore wide stream allocate release "
    "smoothing. inverse_temperature. softcap. z_loss.",
    "x z g h s w loss grad_scale. kappa.",
)
FACTS = ("top", "low", "total", "first", "above")  # and "own", if one element of each row is picked
# y which is picked; out the facts of all rows, one after another, `out_step` bytes apart
FACTS_JOB = Fields("classes inner x_outer x_row x_class out_step", "x y out")
# `line` rows are neighbours; each piece of `grain` rows has `out_step` bytes of `out`, and room for that many and
# LANES entries, a row and its key, in the lists `keyed` (keys up to `limit`) and `costly` (losses from `floor` on)
TALLIES_JOB = Fields(
    "rows grain line classes facts_step out_step", "facts loss y size counts out keyed costly limit floor."
)
# each piece of `grain` rows has `out_step` bytes of `out`, and room for that many and LANES entries in `keyed`
LABELS_JOB = Fields("rows grain facts_step out_step", "labels logits out keyed limit close.")
PAIRS_JOB = Fields(
    "rows grain out_step classes inner x_outer x_row x_class z_outer z_row z_class",
    "x z out keyed limit close.",
)
# each piece of `grain` elements has `out_step` bytes of `out`, and room for that many and WIDE entries in `costly`
ELEMENTS_JOB = Fields("elements grain period out_step", "x z out costly floor.")
# `numbers` says which class each element of a period has; each part of `grain` elements counts into `table_step` bytes
SCORES_JOB = Fields("elements grain period classes table_step", "x z scores numbers")
# o the elements' results, sums those of the blocks; q pos_weight, s sample weights
SIGMOID_JOB = Fields(
    "columns x_row x_column z_row z_column o_row o_column g_row g_column h_row h_column q_row q_column s_row s_column "
    "smoothing.",
    "x z o g h q s sums pos_weight. grad_scale.",
)
