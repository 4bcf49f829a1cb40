"""Train one small network on handwritten digits with Keras's losses and with ours, and see that they agree.

Run it with `KERAS_BACKEND=torch python examples/train_keras.py`, or with jax or tensorflow; it needs Keras and that
backend, and takes some seconds.
"""

import keras
import numpy as np

import withlogits.compat.keras as ours
from withlogits.data import load_digits

EPOCHS, BATCH = 10, 100

# 1,797 images of 8 × 8 pixels and the digit that each shows. The last 297 are kept for a test.
images, digits = load_digits()
images = images.reshape(-1, 64)  # (1797, 64)
train, test = (images[:1500], digits[:1500]), (images[1500:], digits[1500:])
one_hot = keras.utils.to_categorical(digits)  # (1797, 10)


def fit(loss, labels):
    """Train from the same start on the same batches; return the model, and its loss in the last epoch."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10),  # logits: no softmax
        ]
    )
    model.compile(keras.optimizers.SGD(0.2, momentum=0.9), loss)
    history = model.fit(train[0], labels, batch_size=BATCH, epochs=EPOCHS, verbose=0).history
    return model, history["loss"][-1]


# Each loss beside Keras's of the same name. Only `from_logits` differs: it is our default.
runs = {
    "SparseCategoricalCrossentropy": ({}, train[1]),
    "CategoricalCrossentropy": ({"label_smoothing": 0.1}, one_hot[:1500]),
    "CategoricalFocalCrossentropy": ({"alpha": 1.0}, one_hot[:1500]),
    "BinaryCrossentropy": ({}, one_hot[:1500]),
}
print(f"Keras {keras.__version__} on {keras.backend.backend()}")
for name, (options, labels) in runs.items():
    losses = []
    for loss in (getattr(keras.losses, name)(from_logits=True, **options), getattr(ours, name)(**options)):
        model, value = fit(loss, labels)
        losses.append(value)
    right = keras.ops.equal(keras.ops.argmax(model(test[0]), axis=1), test[1])
    accuracy = float(keras.ops.mean(keras.ops.cast(right, "float32")))
    same = abs(losses[1] - losses[0]) <= 1e-3 * losses[0]
    print(f"{name:30} Keras {losses[0]:.6f}   ours {losses[1]:.6f}   accuracy {accuracy:.1%}   ", end="")
    print("agree" if same else "DIFFER")

# A saved model holds the config of its loss; to load it, a process has to import withlogits.compat.keras.
config = keras.saving.serialize_keras_object(model.loss)
print("A saved and loaded loss:", keras.saving.deserialize_keras_object(config))

# What rounding hides. For a confident and right answer Keras's float32 loss is exactly 0; a little is left to learn.
confident, label = np.array([[20.0, 0.0, 0.0]], np.float32), np.array([0])
theirs = float(keras.losses.SparseCategoricalCrossentropy(from_logits=True)(label, confident))
mine = float(ours.SparseCategoricalCrossentropy()(label, confident))
print(f"A confident answer costs {mine:.3e}; Keras says {abs(theirs)}.")
