"""What the functions, layers and losses of each library take and give: one row for each, and no code for one alone.

A class whose objects are called is a row that names the function that they compute.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from withlogits import errors


class Kind(Enum):
    """What an array holds, in the words of a finding."""

    LOGITS = "logits"
    SOFTMAX = "probabilities of a softmax"
    SIGMOID = "probabilities of a sigmoid"
    LOG_SOFTMAX = "log-probabilities of a softmax"
    LOG_SIGMOID = "log-probabilities of a sigmoid"
    DECISIONS = "decisions without a gradient"
    ONE_HOT = "one-hot labels"
    ONE_HOT_INTEGERS = "one-hot labels stored as integers"
    SAME = "what goes in"
    LOG = "the logarithm of what goes in"


PROBABILITIES = {Kind.SOFTMAX, Kind.SIGMOID}
LOG_PROBABILITIES = {Kind.LOG_SOFTMAX, Kind.LOG_SIGMOID}
ONE_HOT = {Kind.ONE_HOT, Kind.ONE_HOT_INTEGERS}
LOGARITHMS = {Kind.SOFTMAX: Kind.LOG_SOFTMAX, Kind.SIGMOID: Kind.LOG_SIGMOID}


class Takes(Enum):
    """What a loss takes for the predictions, in the words of a finding."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    LOG_PROBABILITIES = "log-probabilities"


class Labels(Enum):
    """Which labels a loss takes."""

    INDICES = "class indices"
    DISTRIBUTIONS = "distributions"
    EITHER = "class indices or distributions"
    ELEMENTS = "a number for each logit"


class Loss(NamedTuple):
    """One loss: how it is called, and what it takes."""

    order: tuple[str, ...]  # the first arguments, in the order of a positional call
    takes: Takes
    labels: Labels
    from_logits: bool | None = None  # the default of the argument `from_logits`, which decides what it takes
    keyword_only: bool = False
    better: str = ""  # the loss from logits that replaces this one after a sigmoid

    @property
    def prediction(self) -> str:
        """The name of the argument for predictions."""
        return next(name for name in self.order if name in PREDICTION_ARGUMENTS)

    @property
    def target(self) -> str:
        """The name of the argument for labels."""
        return next(name for name in self.order if name in LABEL_ARGUMENTS)


PREDICTION_ARGUMENTS = {"input", "inputs", "logits", "y_pred", "output", "log_probs"}
LABEL_ARGUMENTS = {"target", "targets", "labels", "y_true", "onehot_labels", "multi_class_labels"}

LOGITS, PROBABLE, LOG_PROBABLE = Takes.LOGITS, Takes.PROBABILITIES, Takes.LOG_PROBABILITIES
INDICES, DISTRIBUTIONS, EITHER, ELEMENTS = Labels.INDICES, Labels.DISTRIBUTIONS, Labels.EITHER, Labels.ELEMENTS
TORCH, OPTAX, TENSORFLOW, KERAS = ("input", "target"), ("logits", "labels"), ("labels", "logits"), ("y_true", "y_pred")

LOSSES: dict[str, Loss] = {
    # PyTorch: predictions first
    "torch.nn.functional.cross_entropy": Loss(TORCH, LOGITS, EITHER),
    "torch.nn.functional.binary_cross_entropy_with_logits": Loss(TORCH, LOGITS, ELEMENTS),
    "torch.nn.functional.multilabel_soft_margin_loss": Loss(TORCH, LOGITS, ELEMENTS),
    "torchvision.ops.sigmoid_focal_loss": Loss(("inputs", "targets"), LOGITS, ELEMENTS),
    "torch.nn.functional.nll_loss": Loss(TORCH, LOG_PROBABLE, INDICES),
    "torch.nn.functional.kl_div": Loss(TORCH, LOG_PROBABLE, DISTRIBUTIONS),
    "torch.nn.functional.ctc_loss": Loss(("log_probs", "targets"), LOG_PROBABLE, INDICES),
    "torch.nn.functional.binary_cross_entropy": Loss(
        TORCH, PROBABLE, ELEMENTS, better="torch.nn.functional.binary_cross_entropy_with_logits"
    ),
    # JAX: logits first
    "optax.softmax_cross_entropy": Loss(OPTAX, LOGITS, DISTRIBUTIONS),
    "optax.safe_softmax_cross_entropy": Loss(OPTAX, LOGITS, DISTRIBUTIONS),
    "optax.poly_loss_cross_entropy": Loss(OPTAX, LOGITS, DISTRIBUTIONS),
    "optax.softmax_cross_entropy_with_integer_labels": Loss(OPTAX, LOGITS, INDICES),
    "optax.sigmoid_binary_cross_entropy": Loss(OPTAX, LOGITS, ELEMENTS),
    "optax.sigmoid_focal_loss": Loss(OPTAX, LOGITS, ELEMENTS),
    "optax.ctc_loss": Loss(("logits", "logit_paddings", "labels"), LOGITS, INDICES),
    # TensorFlow: labels first
    "tensorflow.nn.softmax_cross_entropy_with_logits": Loss(TENSORFLOW, LOGITS, DISTRIBUTIONS),
    "tensorflow.nn.softmax_cross_entropy_with_logits_v2": Loss(TENSORFLOW, LOGITS, DISTRIBUTIONS),
    "tensorflow.nn.sparse_softmax_cross_entropy_with_logits": Loss(TENSORFLOW, LOGITS, INDICES),
    "tensorflow.nn.sigmoid_cross_entropy_with_logits": Loss(TENSORFLOW, LOGITS, ELEMENTS),
    "tensorflow.nn.weighted_cross_entropy_with_logits": Loss(TENSORFLOW, LOGITS, ELEMENTS),
    "tensorflow.losses.sparse_softmax_cross_entropy": Loss(TENSORFLOW, LOGITS, INDICES),
    "tensorflow.losses.softmax_cross_entropy": Loss(("onehot_labels", "logits"), LOGITS, DISTRIBUTIONS),
    "tensorflow.losses.sigmoid_cross_entropy": Loss(("multi_class_labels", "logits"), LOGITS, ELEMENTS),
    # Keras: labels first, and `from_logits` says what the predictions are
    "keras.losses.sparse_categorical_crossentropy": Loss((*KERAS, "from_logits"), PROBABLE, INDICES, False),
    "keras.losses.categorical_crossentropy": Loss((*KERAS, "from_logits"), PROBABLE, DISTRIBUTIONS, False),
    "keras.losses.binary_crossentropy": Loss((*KERAS, "from_logits"), PROBABLE, ELEMENTS, False),
    "keras.losses.categorical_focal_crossentropy": Loss(
        (*KERAS, "alpha", "gamma", "from_logits"), PROBABLE, DISTRIBUTIONS, False
    ),
    "keras.losses.binary_focal_crossentropy": Loss(
        (*KERAS, "apply_class_balancing", "alpha", "gamma", "from_logits"), PROBABLE, ELEMENTS, False
    ),
    # this library: arguments by name
    f"withlogits.{errors.DENSE}": Loss(TENSORFLOW, LOGITS, DISTRIBUTIONS, keyword_only=True),
    f"withlogits.{errors.SPARSE}": Loss(TENSORFLOW, LOGITS, INDICES, keyword_only=True),
    f"withlogits.{errors.SIGMOID}": Loss(TENSORFLOW, LOGITS, ELEMENTS, keyword_only=True),
    "withlogits.weighted_cross_entropy_with_logits": Loss(TENSORFLOW, LOGITS, ELEMENTS, keyword_only=True),
}
# What else computes one of these losses: with other names of the arguments, or another default.
LOSSES |= {
    f"tensorflow.compat.v1.nn.{name}": LOSSES[f"tensorflow.nn.{name}"]._replace(keyword_only=True)
    for name in (errors.DENSE, errors.SPARSE, errors.SIGMOID)
}
LOSSES |= {
    f"keras.{module}.{name}_crossentropy": LOSSES[f"keras.losses.{name}_crossentropy"]._replace(
        order=("target", "output", "from_logits")
    )
    for module in ("ops", "backend")
    for name in ("sparse_categorical", "categorical", "binary")
}
LOSSES |= {
    name.replace("keras.losses", "withlogits.compat.keras"): loss._replace(from_logits=True)
    for name, loss in LOSSES.items()
    if name.startswith("keras.losses.")
}

# Classes whose objects are called as a function of another row.
CLASSES = {
    "torch.nn.CrossEntropyLoss": "torch.nn.functional.cross_entropy",
    "torch.nn.BCEWithLogitsLoss": "torch.nn.functional.binary_cross_entropy_with_logits",
    "torch.nn.MultiLabelSoftMarginLoss": "torch.nn.functional.multilabel_soft_margin_loss",
    "torch.nn.BCELoss": "torch.nn.functional.binary_cross_entropy",
    "torch.nn.NLLLoss": "torch.nn.functional.nll_loss",
    "torch.nn.KLDivLoss": "torch.nn.functional.kl_div",
    "torch.nn.CTCLoss": "torch.nn.functional.ctc_loss",
    "withlogits.torch.SoftmaxCrossEntropy": f"withlogits.{errors.DENSE}",
    "withlogits.torch.SparseSoftmaxCrossEntropy": f"withlogits.{errors.SPARSE}",
    "withlogits.torch.SigmoidCrossEntropy": f"withlogits.{errors.SIGMOID}",
    "torch.nn.Softmax": "torch.softmax",
    "torch.nn.Softmax2d": "torch.softmax",
    "torch.nn.Sigmoid": "torch.sigmoid",
    "torch.nn.LogSoftmax": "torch.log_softmax",
    "torch.nn.LogSigmoid": "torch.nn.functional.logsigmoid",
    "keras.layers.Softmax": "keras.activations.softmax",
}
CLASSES |= {
    f"{module}.{name}Crossentropy": f"{module}.{function}_crossentropy"
    for module in ("keras.losses", "withlogits.compat.keras")
    for name, function in (
        ("SparseCategorical", "sparse_categorical"),
        ("Categorical", "categorical"),
        ("Binary", "binary"),
        ("CategoricalFocal", "categorical_focal"),
        ("BinaryFocal", "binary_focal"),
    )
}

_JAX = ("jax.nn", "flax.linen", "flax.nnx")
_KERAS = ("keras.activations", "keras.ops", "keras.backend")
# What each function makes of its first argument.
FUNCTIONS: dict[str, Kind] = {
    f"{module}.{name}": kind
    for kind, names in {
        Kind.SOFTMAX: ("softmax",),
        Kind.SIGMOID: ("sigmoid",),
        Kind.LOG_SOFTMAX: ("log_softmax",),
        Kind.LOG_SIGMOID: ("log_sigmoid", "logsigmoid"),
        Kind.DECISIONS: ("argmax", "round", "heaviside"),
        Kind.ONE_HOT: ("one_hot", "eye"),
        Kind.LOG: ("log",),
        Kind.SAME: ("clamp", "clip", "clip_by_value", "squeeze", "reshape", "cast", "flatten", "stop_gradient"),
    }.items()
    for module in (
        *("torch", "torch.special", "torch.nn.functional", "tensorflow", "tensorflow.nn", "tensorflow.math"),
        *("numpy", "jax.numpy", "jax.lax", "scipy.special", "withlogits", *_JAX, *_KERAS),
    )
    for name in names
} | {
    "scipy.special.expit": Kind.SIGMOID,
    "torch.special.expit": Kind.SIGMOID,
    "scipy.special.log_expit": Kind.LOG_SIGMOID,
    "torch.nn.functional.one_hot": Kind.ONE_HOT_INTEGERS,
    "keras.utils.to_categorical": Kind.ONE_HOT,
}
# The methods of tensors; `astype` and the like make floats of integers.
METHODS: dict[str, Kind] = {
    "softmax": Kind.SOFTMAX,
    "sigmoid": Kind.SIGMOID,
    "log_softmax": Kind.LOG_SOFTMAX,
    "argmax": Kind.DECISIONS,
    "round": Kind.DECISIONS,
    "log": Kind.LOG,
}
METHODS |= dict.fromkeys(
    [
        *("view", "reshape", "squeeze", "unsqueeze", "flatten", "permute", "transpose", "t", "contiguous", "clone"),
        *("cuda", "cpu", "detach", "clamp", "clip", "long"),
    ],
    Kind.SAME,
)
TO_FLOATS = dict.fromkeys(["float", "double", "half", "bfloat16", "to", "type", "type_as", "astype"], Kind.SAME)
METHODS |= TO_FLOATS
# The logarithm of a sigmoid, where it is not beside the sigmoid under the name `log_sigmoid`.
LOG_SIGMOIDS = {
    "torch": "torch.nn.functional.logsigmoid",
    "tensorflow": "tensorflow.math.log_sigmoid",
    "scipy": "scipy.special.log_expit",
}

# Layers by what they give; those with an activation by the place of that argument.
LAYERS: dict[str, Kind] = {
    "torch.nn.Linear": Kind.LOGITS,
    "torch.nn.LazyLinear": Kind.LOGITS,
    "flax.linen.Dense": Kind.LOGITS,
    "flax.nnx.Linear": Kind.LOGITS,
}
LAYERS |= dict.fromkeys(
    [
        *("torch.nn.Dropout", "torch.nn.Flatten", "torch.nn.Unflatten", "torch.nn.Identity"),
        *("keras.layers.Dropout", "keras.layers.Flatten", "keras.layers.Reshape"),
    ],
    Kind.SAME,
)
ACTIVATED_LAYERS = {"keras.layers.Activation": 0, "keras.layers.Dense": 1, "keras.layers.Conv1D": 6}
ACTIVATED_LAYERS |= {"keras.layers.Conv2D": 7, "keras.layers.Conv3D": 7}
SEQUENTIAL = {"torch.nn.Sequential", "keras.Sequential", "keras.models.Sequential", "flax.linen.Sequential"}
SEQUENTIAL |= {"flax.nnx.Sequential"}
FUNCTIONAL = {"keras.Model", "keras.models.Model"}
# What takes a model and gives one that computes the same.
WRAPPERS = {
    *("torch.compile", "torch.jit.script", "torch.nn.DataParallel", "torch.nn.parallel.DistributedDataParallel"),
    *("keras.layers.TimeDistributed", "jax.jit", "flax.nnx.jit"),
}
MODEL_METHODS = {"to", "cuda", "cpu", "train", "eval", "float", "double", "half", "bfloat16", "requires_grad_"}

# Other names of modules, in the order in which they are replaced.
ALIASES = (
    ("tensorflow.compat.v1.", "tensorflow."),
    ("tensorflow.compat.v2.", "tensorflow."),
    ("tensorflow.keras.", "keras."),
    ("tensorflow.python.keras.", "keras."),
    ("tf_keras.", "keras."),
    ("torch.nn.modules.loss.", "torch.nn."),
    ("torch.nn.modules.activation.", "torch.nn."),
    ("optax.losses.", "optax."),
    ("withlogits.losses.", "withlogits."),
    ("withlogits.activations.", "withlogits."),
    ("withlogits.compat.optax.", "optax."),
    ("withlogits.compat.tf.", "tensorflow.nn."),
)
_DROP_IN = {
    f"withlogits.compat.torch.{name}": f"{module}.{name}"
    for module, names in {
        "torch.nn.functional": ("cross_entropy", "binary_cross_entropy_with_logits"),
        "torch.nn": ("CrossEntropyLoss", "BCEWithLogitsLoss"),
    }.items()
    for name in names
}


def canonical(path: str) -> str:
    """Return the name under which the tables have what is imported as `path`."""
    if path in LOSSES:
        return path
    for other, usual in ALIASES:
        if path.startswith(other):
            path = usual + path[len(other) :]
    return _DROP_IN.get(path, path)


def log_function(path: str) -> str:
    """Return the function that computes the logarithm of what a softmax or a sigmoid gives; "" if there is none."""
    module, _, name = path.rpartition(".")
    if module == "keras.backend":
        return ""
    found = "log_softmax" if name == "softmax" else LOG_SIGMOIDS.get(path.partition(".")[0], "log_sigmoid")
    return found if "." in found else f"{module}.{found}"
