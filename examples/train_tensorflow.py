"""Train one small network on handwritten digits with four spellings of one loss, and see that they agree.

Run it with `python examples/train_tensorflow.py`; it needs TensorFlow and takes some seconds.
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's remarks about this machine

import tensorflow as tf

import withlogits as wl
from withlogits.compat import tf as wtf
from withlogits.data import load_digits

STEPS, BATCH = 300, 100

# 1,797 images of 8 × 8 pixels and the digit that each shows. The last 297 are kept for a test.
images, digits = load_digits()
images = tf.reshape(tf.constant(images, tf.float32), (-1, 64))  # (1797, 64)
digits = tf.constant(digits)  # (1797,): class numbers from 0 to 9
train_images, train_digits = images[:1500], digits[:1500]
test_images, test_digits = images[1500:], digits[1500:]


def train(loss_of):
    """Train from the same start on the same batches; return the loss on the training images, and the accuracy."""
    hidden = tf.Variable(tf.random.stateless_normal((64, 32), (1, 2), stddev=0.15))
    output = tf.Variable(tf.random.stateless_normal((32, 10), (3, 4), stddev=0.2))

    def logits_of(x):
        return tf.nn.relu(x @ hidden) @ output  # no softmax

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(logits_of(x), y)
        for variable, gradient in zip((hidden, output), tape.gradient(loss, (hidden, output)), strict=True):
            variable.assign_sub(0.2 * gradient)

    for i in range(STEPS):
        batch = tf.random.stateless_uniform((BATCH,), (5, i), 0, len(train_images), tf.int32)
        step(tf.gather(train_images, batch), tf.gather(train_digits, batch))
    right = tf.argmax(logits_of(test_images), 1) == tf.cast(test_digits, tf.int64)
    return float(loss_of(logits_of(train_images), train_digits)), float(tf.reduce_mean(tf.cast(right, tf.float32)))


# 1. A plain function. Arguments go by name, so that labels and logits cannot be swapped by mistake.
def with_the_function(logits, labels):
    return wl.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits, reduction="mean")


# 2. tf.nn's signature, from a changed import.
def with_the_drop_in(logits, labels):
    return tf.reduce_mean(wtf.sparse_softmax_cross_entropy_with_logits(labels, logits))


# 3. Ordinary TensorFlow code, for the last two runs: one under the patch, and one as it is.
def ordinary(logits, labels):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


runs = {}
for name, loss_of in [
    ("plain function", with_the_function),
    ("drop-in", with_the_drop_in),
    ("tf.nn under patch()", ordinary),
    ("tf.nn", ordinary),
]:
    start = time.perf_counter()
    if name == "tf.nn under patch()":
        with wtf.patch():  # until its end, tf.nn holds our functions
            runs[name] = train(loss_of)
    else:
        runs[name] = train(loss_of)
    loss, accuracy = runs[name]
    print(f"{name:20} loss {loss:.6f}   accuracy {accuracy:.1%}   {time.perf_counter() - start:.1f} s")

# How far apart are the trained networks? Both libraries round their losses in the last digits of a float32, each in its
# own way; all else is the same.
theirs, _ = runs.pop("tf.nn")
difference = max(abs(loss - theirs) for loss, _ in runs.values())
print(f"The largest difference to tf.nn's loss is {difference:.1e}: {'rounding' if difference < 1e-4 else 'too much'}.")

# What rounding may hide. For a confident and right answer tf.nn's float32 loss is exactly 0, and so is the gradient of
# the right class; there is always a little left to learn.
confident, right = tf.constant([[20.0, 0.0, 0.0]]), tf.constant([0])
ours, theirs = float(with_the_function(confident, right)), float(ordinary(confident, right))
print(f"A confident answer costs {ours:.3e}; tf.nn says {theirs}.")
