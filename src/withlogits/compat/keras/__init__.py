"""Keras 3's cross-entropies, with its names, signatures and reductions, computed by withlogits from logits.

The losses and functions stand in for those of `keras.losses`, and `withlogits.compat.keras.metrics` for those of
`keras.metrics`, on every backend of Keras. `from_logits` is True by default, and False is an error.

What differs, since Keras has no answer there or a wrong one:

- Confident losses and their gradients keep their digits, focal ones too: 4e-9 where Keras says 0.
- Labels are not cast to the loss's dtype, which in bfloat16 has no class 257; half-precision logits are computed in
  float32, and the result is rounded once.
- A label out of range is an error where the backend computes at once, and NaN in a compiled program; never a loss of 0.
- What is masked, ignored or has weight 0 costs 0 and has gradient 0, even if it holds NaN.
- `axis` may be any axis on every backend, label smoothing counts the classes there, and it is part of the config.
- Sample weights with fewer axes than the losses belong to the first axes: to samples, not to time steps.
- Binary losses take weights of their elements too, in the shape of the logits.
- `mean_with_sample_weight` divides by the weights of all losses, of broadcast weights too.
- The loss of no rows is 0.
"""

from withlogits import errors

try:
    import keras as _keras  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "keras":
        raise
    raise errors.not_installed(__name__, "Keras", "keras") from None

from withlogits.compat.keras import metrics
from withlogits.compat.keras.losses import (
    BinaryCrossentropy,
    BinaryFocalCrossentropy,
    CategoricalCrossentropy,
    CategoricalFocalCrossentropy,
    SparseCategoricalCrossentropy,
    binary_crossentropy,
    binary_focal_crossentropy,
    categorical_crossentropy,
    categorical_focal_crossentropy,
    sparse_categorical_crossentropy,
)

__all__ = [
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "CategoricalCrossentropy",
    "CategoricalFocalCrossentropy",
    "SparseCategoricalCrossentropy",
    "binary_crossentropy",
    "binary_focal_crossentropy",
    "categorical_crossentropy",
    "categorical_focal_crossentropy",
    "metrics",
    "sparse_categorical_crossentropy",
]
