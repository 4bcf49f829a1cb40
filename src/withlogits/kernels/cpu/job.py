"""What a kernel is compiled for (its spec) and what a call hands it (its job). Cached kernels need no compiler.

Every kernel is `kernel(job, start, stop)`: it does the rows (or blocks) start to stop of the job whose slots lie at the
address `job`, and returns how many of their labels were out of range. A job is nothing but numbers and addresses; the
caller keeps the arrays alive.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from withlogits.options import Options, SigmoidOptions, SoftmaxOptions

LANES = 8  # float64 lanes of a vector
SCORE_CLASSES = 16  # classes that a unit of the work on scores has, if there are more
WIDE = 16  # elements that are counted together: the arithmetic of one vector waits, and that of another goes on
# For each class three whole numbers of so many bits in a word: label yes, logit yes, both. The tables have few classes
# several times, so that vectors of them seldom meet, and WIDE more entries for those that begin at the last.
ANSWER_BITS = 21
STREAM = 1 << 25  # bytes of a result that no cache would hold until it is read
BLOCK = 1024  # elements of an elementwise job's block: sums are taken block by block, whatever the threads
TILE = 128  # classes that a tile has room for
FEW_WEIGHTS = 512  # of one name, which a small call copies to the stack


@dataclass(frozen=True)
class SoftmaxSpec:
    """The softmax family: the element kinds and the parts that cost something when they are unused."""

    x: str  # kinds of elements: "float32", …
    labels: str  # "none", "index", "smooth" (index labels, smoothed) or "dense"
    z: str
    layout: str  # lanes "along" contiguous classes, "across" contiguous or any ("strided") rows, or short ones "tiled"
    result: str = "loss"  # or "softmax", "log_softmax", "logsumexp" (labels "none"), "scan" (or "index")
    gradient: bool = False
    label_gradient: str = ""  # the kind of its elements, if wanted
    weighted: bool = False  # class weights in a sum over classes
    transformed: bool = False  # temperature, softcap, or an array of classes that changes logits
    per_class: tuple[str, ...] = ()  # the names of these arrays

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
class RowWeightsSpec:
    """What a row adds to the divisor of a mean."""

    z: str  # the kind of the labels
    sparse: bool
    weighted: bool  # by class


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
class SmallSpec:
    """What runs another kernel on a small call, and does what is to be done before and after it."""

    family: str  # "softmax", "sigmoid", or "elementwise" (of one array, and no labels)
    behind: int  # −1 if slots are addresses; if they are those of objects: where in these the address stands


@dataclass(frozen=True)
class ElementsSpec:
    """Of elements of independent classes; or of `rows` with given losses: x is −log p of a class, z its truth."""

    x: str  # kinds of elements
    z: str
    binary: bool  # all labels are 0 or 1
    confidence: int  # bins of probabilities
    lowest: int
    losses: int  # bins
    rows: bool = False

    def counters(self) -> np.dtype[Any]:
        """Return what a piece counts, in whole cache lines. The last of the bins are for what is in none of them."""
        bins = self.confidence + 1
        fields = {
            "loss": ("f8", WIDE), "nan": ("i8", 1), "infinite": ("i8", 1), "listed": ("i8", 1),
            "count": ("i8", 2 * bins), "sum": ("f8", 2 * bins), "true": ("f8", bins),
            "histogram": ("i8", self.losses + 1),
        }  # fmt: skip
        words = sum(count for _, count in fields.values())
        fields["padding"] = ("i8", -words % 8)
        return np.dtype([(name, kind, (count,)) for name, (kind, count) in fields.items()])


@dataclass(frozen=True)
class ScoresSpec:
    """Into which bins scores are counted."""

    x: str  # kinds of elements
    z: str
    counts: str  # the kind of the counters
    bins: int


@dataclass(frozen=True)
class TotalSpec:
    """The sum of float64 numbers."""


@dataclass(frozen=True)
class PoolSpec:
    """The two halves of the thread pool that run without the interpreter."""

    half: str  # "lead" or "serve"


@dataclass(frozen=True)
class XlaSpec:
    """What XLA calls, and what its threads run."""

    part: str  # "handle" or "serve"


# The table of a process, in which XLA's calls find their records. A record is that of a call, RECORD, and then its one
# or two steps, STEP: each a kernel, its job, and a PATCH for each slot of the job that differs between calls.
XLA_TABLE = ("allocate", "release", "serve", "yield", "resolve", "mask", "unknown", "no_memory")  # + keys, records
XLA_RECORDS = 1 << 14  # that a process has room for

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
        self.planned, self.filled = tuple(planned.split()), tuple(filled.split())
        self.names = (*self.planned, *self.filled)
        self.plan: Callable[..., bytes] = self._packer(self.planned)
        self.fill: Callable[..., bytes] = self._packer(self.filled)

    def head(self, slots: Mapping[str, float]) -> bytes:
        """Return the planned part, from its slots by name."""
        return self.plan(*[slots[name.rstrip(".")] for name in self.planned])

    @staticmethod
    def _packer(names: tuple[str, ...]) -> Callable[..., bytes]:
        return struct.Struct("=" + "".join("d" if name.endswith(".") else "q" for name in names)).pack


# x logits, z labels (dense, or indices), g gradient of the logits, h of the labels, s sample weights; then
# the arrays of classes by their names
SOFTMAX_JOB = Fields(
    "classes inner x_outer x_row x_class z_outer z_row z_class g_outer g_row g_class h_outer h_row h_class "
    "s_outer s_row w_class ignore has_ignore wide stream allocate release "
    "smoothing. temperature. inverse_temperature. softcap. z_loss.",
    f"x z g h s loss {' '.join(SoftmaxOptions.PER_CLASS)} grad_scale. kappa.",
)
# What a scan tells of each row; `own` is the logit of its label, or 0, and how many are `above` that, or `equal` to it
SCANNED = ("top", "low", "total", "first", "above", "equal", "own")
# x logits, z index labels; out a plane of 8-byte words for each of SCANNED
SCAN_JOB = Fields("classes inner x_outer x_row x_class z_outer z_row plane", "x z out")
# z labels, s sample weights; out a float64 for each row
ROW_WEIGHTS_JOB = Fields("classes inner z_outer z_row z_class s_outer s_row ignore has_ignore", "z s out class_weight")
# o the elements' results, sums those of the blocks; q pos_weight, s sample weights
SIGMOID_JOB = Fields(
    "columns x_row x_column z_row z_column o_row o_column g_row g_column h_row h_column q_row q_column s_row s_column "
    "smoothing.",
    "x z o g h q s sums pos_weight. grad_scale.",
)


def _small_job(options: type[Options]) -> Fields:
    weights = " ".join(f"{name}_length {name}_size {name}_step {name}_least." for name in options.WEIGHTS)
    planned = f"kernel weights_kernel count reduced wide allocate release divisor. {weights}"
    return Fields(planned, f"x z g value {' '.join(options.WEIGHTS)}")


# Of each family, behind the planned slots of the jobs that it runs. A mean's divisor comes from `weights_kernel`, or is
# `divisor`, or, where that is below 0, −`divisor` times the sum of the sample weights. Of each array of weights: how
# many, bytes of one (4 or 8) and from one to the next, the least that is allowed
SMALL_JOBS = {
    "softmax": _small_job(SoftmaxOptions),
    "sigmoid": _small_job(SigmoidOptions),
    "elementwise": Fields("kernel count", "x o"),
}
ELEMENTS_JOB = Fields("elements grain period", "x z loss listed out answers losses floor.")
# scale, first, low, high: those of the class of each element of a period; `first` is the entry of a table where bin 0
# lies. Each part of `grain` elements counts into `table_step` bytes; each unit of the work lists into `list_step`
# bytes, and says in `listed` how many
SCORES_JOB = Fields(
    "elements grain period classes table_step list_step", "x z scores scale first low high lists listed"
)
# nbytes: the memory of a call; own: where its own numbers begin in it; runs: how often the steps are done, each time on
# the next part of the arrays; weights, loss: where the steps begin, 0 if the divisor needs none; terms: how many losses
# are added up to one value, 0 if losses are the result; values: how many are made in a run
RECORD = Fields("nbytes own runs weights loss terms values wide divisor.", "")
STEP = Fields("kernel count chunk words patches", "")
# slot of the job, kind, and for an argument or result: which, bytes from one run to the next, how many numbers are to
# be copied (COPY), and where (COPY, OWN), in bytes behind the beginning of the call's own numbers
PATCH = Fields("slot kind index step length place", "")
ARGUMENT, RESULT, COPY, OWN, SCALE = range(5)  # COPY: of float32 numbers as float64; SCALE: 1 by the divisor
