"""Lines of Python that mend labels or logits, by the name that code has for the library of the caller's array."""

from __future__ import annotations

from typing import NamedTuple


class Lines(NamedTuple):
    """The lines of one library. A probability that was rounded to 0 or 1 has no finite logit."""

    as_integers: str
    known_as_integers: str  # -1 for NaN
    moveaxis: str  # the function
    permuted: str  # by {mapping}, the new number of each class
    reordered: str  # dense labels by {order}, the old number of each class
    indices: str  # of one-hot labels, on {axis}
    normalized: str  # to a sum of 1 along {axis}
    not_negative: str
    transposed: str
    as_logits: str  # labels in the shape of the logits, an expression
    logarithm: str  # of probabilities above 0
    from_softmax: str  # the same of those that may be 0
    from_sigmoid: str
    from_logarithm: str  # of a sigmoid


DENSE = (
    "labels = labels[..., {order}]",
    "labels = labels.argmax({axis})",
    "labels = labels / labels.sum({axis}, keepdims=True)",
    "labels = labels.clip(0, None)",
    "labels = labels.T",
)  # the methods of NumPy's arrays, which others have too


def _like_numpy(np: str, integers: str) -> Lines:
    return Lines(
        f"labels = labels.astype({integers})",
        f"labels = {np}.where({np}.isnan(labels), -1, labels).astype({integers})",
        f"{np}.moveaxis",
        f"labels = {np}.array({{mapping}})[labels]",
        *DENSE,
        f"{np}.reshape(labels, {np}.shape(logits))",
        f"logits = {np}.log(logits)",
        f"logits = {np}.log(logits.clip(1e-7, None))",
        f"logits = {np}.asarray(logits, {np}.float32).clip(1e-7, 1 - 1e-7); "
        f"logits = {np}.log(logits) - {np}.log1p(-logits)",
        f"logits = {np}.clip(logits, None, -1e-7); logits = logits - {np}.log(-{np}.expm1(logits))",
    )


LINES = {
    "numpy": _like_numpy("numpy", "numpy.int64"),
    "jax.numpy": _like_numpy("jax.numpy", "int"),  # of 32 bits unless JAX is allowed 64
    "torch": Lines(
        "labels = labels.long()",
        "labels = torch.where(labels.isnan(), -1, labels).long()",
        "torch.moveaxis",
        "labels = torch.tensor({mapping})[labels]",
        *DENSE,
        "labels.reshape(logits.shape)",
        "logits = torch.log(logits)",
        "logits = torch.log(logits.clip(1e-7, None))",
        "logits = torch.logit(logits.float(), eps=1e-7)",
        "logits = torch.clip(logits, None, -1e-7); logits = logits - torch.log(-torch.expm1(logits))",
    ),
    "tf": Lines(
        "labels = tf.cast(labels, tf.int64)",
        "labels = tf.cast(tf.where(tf.math.is_nan(labels), -tf.ones_like(labels), labels), tf.int64)",
        "tf.experimental.numpy.moveaxis",
        "labels = tf.gather({mapping}, labels)",
        "labels = tf.gather(labels, {order}, axis=-1)",
        "labels = tf.argmax(labels, {axis})",
        "labels = labels / tf.reduce_sum(labels, {axis}, keepdims=True)",
        "labels = tf.maximum(labels, 0)",
        "labels = tf.transpose(labels)",
        "tf.reshape(labels, tf.shape(logits))",
        "logits = tf.math.log(logits)",
        "logits = tf.math.log(tf.maximum(logits, 1e-7))",
        "logits = withlogits.logit(tf.clip_by_value(tf.cast(logits, tf.float32), 1e-7, 1 - 1e-7))",
        "logits = tf.minimum(logits, -1e-7); logits = logits - tf.math.log(-tf.math.expm1(logits))",
    ),
}
