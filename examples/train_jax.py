"""Train one small network on handwritten digits with three spellings of one loss, and see that they agree.

Run it with `python examples/train_jax.py`; it needs JAX and optax and takes a few seconds.
"""

import time

import jax
import jax.numpy as jnp
import optax

import withlogits as wl
from withlogits.compat.optax import softmax_cross_entropy_with_integer_labels
from withlogits.data import load_digits

STEPS, BATCH = 300, 100

# 1,797 images of 8 × 8 pixels and the digit that each shows. The last 297 are kept for a test.
images, digits = load_digits()
images = jnp.asarray(images.reshape(-1, 64))  # (1797, 64)
digits = jnp.asarray(digits)  # (1797,): class numbers from 0 to 9
train_images, train_digits = images[:1500], digits[:1500]
test_images, test_digits = images[1500:], digits[1500:]


def network(weights, x):
    """Return the logits of a network with one hidden layer, (N, 10): no softmax at its end."""
    hidden = jax.nn.relu(x @ weights["hidden"] + weights["hidden_bias"])
    return hidden @ weights["output"] + weights["output_bias"]


def beginning():
    """Return the weights that every run starts from."""
    hidden, output = jax.random.split(jax.random.key(0))
    return {
        "hidden": jax.random.normal(hidden, (64, 32)) / 8.0,
        "hidden_bias": jnp.zeros(32),
        "output": jax.random.normal(output, (32, 10)) / 6.0,
        "output_bias": jnp.zeros(10),
    }


def train(loss_of):
    """Train on the same batches; return the weights and the loss of the training images."""
    optimizer = optax.adam(1e-2)

    def mean(weights, x, y):
        return loss_of(network(weights, x), y)

    def step(weights_and_state, key):
        weights, state = weights_and_state
        batch = jax.random.randint(key, (BATCH,), 0, len(train_images))
        gradients = jax.grad(mean)(weights, train_images[batch], train_digits[batch])
        updates, state = optimizer.update(gradients, state, weights)
        return (optax.apply_updates(weights, updates), state), None

    @jax.jit
    def every_step(weights, keys):
        (weights, _), _ = jax.lax.scan(step, (weights, optimizer.init(weights)), keys)
        return weights, mean(weights, train_images, train_digits)

    weights, loss = every_step(beginning(), jax.random.split(jax.random.key(1), STEPS))
    return weights, loss.item()


# 1. The function. Arguments go by name, so that labels and logits cannot be swapped by mistake.
def with_the_function(logits, labels):
    return wl.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits, reduction="mean")


# 2. optax's signature: one changed import.
def with_the_signature(logits, labels):
    return softmax_cross_entropy_with_integer_labels(logits, labels).mean()


# 3. optax itself.
def with_optax(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


losses = {}
for name, loss_of in [
    ("plain function", with_the_function),
    ("optax's signature", with_the_signature),
    ("optax", with_optax),
]:
    start = time.perf_counter()
    weights, losses[name] = train(loss_of)
    seconds = time.perf_counter() - start
    accuracy = (network(weights, test_images).argmax(1) == test_digits).mean().item()
    print(f"{name:20} loss {losses[name]:.6f}   accuracy {accuracy:.1%}   {seconds:.1f} s")

# How far apart are the trained networks? Each way rounds its losses and gradients in the last digits of a float32; all
# else is the same.
difference = max(losses.values()) - min(losses.values())
print(f"The largest difference is {difference:.1e}: {'rounding' if difference < 1e-4 else 'too much'}.")

# What rounding may hide. For a confident and right answer optax's float32 loss is exactly 0, and so is the gradient of
# the right class; there is always a little left to learn.
confident, right = jnp.array([[20.0, 0.0, 0.0]]), jnp.array([0])
ours, theirs = with_the_function(confident, right).item(), with_optax(confident, right).item()
print(f"A confident answer costs {ours:.3e}; optax says {theirs}.")
