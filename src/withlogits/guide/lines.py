"""Lines of Python that mend labels or logits, by the name that code has for the library of the caller's array."""

from __future__ import annotations

from typing import NamedTuple


class Lines(NamedTuple):
    """The lines of one library. A probability that was rounded to 0 or 1 has no finite logit."""

    as_integers: str
    known_as_integers: str  # -1 for NaN
    moveaxis: str  # the function
    permuted: str  # by {mapping}, the new number of each class
    as_logits: str  # labels in the shape of the logits, an expression
    logarithm: str  # of probabilities above 0
    from_softmax: str  # the same of those that may be 0
    from_sigmoid: str
    from_logarithm: str  # of a sigmoid
    # by methods of NumPy's arrays, which others have too
    reordered: str = "labels = labels[..., {order}]"  # dense labels by {order}, the old number of each class
    indices: str = "labels = labels.argmax({axis})"  # of one-hot labels
    normalized: str = "labels = labels / labels.sum({axis}, keepdims=True)"
    not_negative: str = "labels = labels.clip(0, None)"
    transposed: str = "labels = labels.T"


def _like_numpy(np: str, integers: str) -> Lines:
    return Lines(
        as_integers=f"labels = labels.astype({integers})",
        known_as_integers=f"labels = {np}.where({np}.isnan(labels), -1, labels).astype({integers})",
        moveaxis=f"{np}.moveaxis",
        permuted=f"labels = {np}.array({{mapping}})[labels]",
        as_logits=f"{np}.reshape(labels, {np}.shape(logits))",
        logarithm=f"logits = {np}.log(logits)",
        from_softmax=f"logits = {np}.log(logits.clip(1e-7, None))",
        from_sigmoid=f"logits = {np}.asarray(logits, {np}.float32).clip(1e-7, 1 - 1e-7); "
        f"logits = {np}.log(logits) - {np}.log1p(-logits)",
        from_logarithm=f"logits = {np}.clip(logits, None, -1e-7); logits = logits - {np}.log(-{np}.expm1(logits))",
    )


LINES = {
    "numpy": _like_numpy("numpy", "numpy.int64"),
    "jax.numpy": _like_numpy("jax.numpy", "int"),  # of 32 bits unless JAX is allowed 64
    "torch": Lines(
        as_integers="labels = labels.long()",
        known_as_integers="labels = torch.where(labels.isnan(), -1, labels).long()",
        moveaxis="torch.moveaxis",
        permuted="labels = torch.tensor({mapping})[labels]",
        as_logits="labels.reshape(logits.shape)",
        logarithm="logits = torch.log(logits)",
        from_softmax="logits = torch.log(logits.clip(1e-7, None))",
        from_sigmoid="logits = torch.logit(logits.float(), eps=1e-7)",
        from_logarithm="logits = torch.clip(logits, None, -1e-7); logits = logits - torch.log(-torch.expm1(logits))",
    ),
    "tf": Lines(
        as_integers="labels = tf.cast(labels, tf.int64)",
        known_as_integers="labels = tf.cast(tf.where(tf.math.is_nan(labels), -tf.ones_like(labels), labels), tf.int64)",
        moveaxis="tf.experimental.numpy.moveaxis",
        permuted="labels = tf.gather({mapping}, labels)",
        as_logits="tf.reshape(labels, tf.shape(logits))",
        logarithm="logits = tf.math.log(logits)",
        from_softmax="logits = tf.math.log(tf.maximum(logits, 1e-7))",
        from_sigmoid="logits = withlogits.logit(tf.clip_by_value(tf.cast(logits, tf.float32), 1e-7, 1 - 1e-7))",
        from_logarithm="logits = tf.minimum(logits, -1e-7); logits = logits - tf.math.log(-tf.math.expm1(logits))",
        reordered="labels = tf.gather(labels, {order}, axis=-1)",
        indices="labels = tf.argmax(labels, {axis})",
        normalized="labels = labels / tf.reduce_sum(labels, {axis}, keepdims=True)",
        not_negative="labels = tf.maximum(labels, 0)",
        transposed="labels = tf.transpose(labels)",
    ),
}
