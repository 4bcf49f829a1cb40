"""Train one small network on handwritten digits with five spellings of one loss, and see that they agree.

Run it with `python examples/train_torch.py`; it needs PyTorch and takes a few seconds.
"""

import time

import torch
from torch import nn

import withlogits as wl
from withlogits.compat.torch import CrossEntropyLoss, patch
from withlogits.data import load_digits
from withlogits.torch import SparseSoftmaxCrossEntropy

STEPS, BATCH = 300, 100

# 1,797 images of 8 × 8 pixels and the digit that each shows. The last 297 are kept for a test.
images, digits = load_digits()
images = torch.tensor(images).reshape(-1, 64)  # (1797, 64)
digits = torch.tensor(digits)  # (1797,): class numbers from 0 to 9
train_images, train_digits = images[:1500], digits[:1500]
test_images, test_digits = images[1500:], digits[1500:]


def train(loss_of):
    """Train from the same start on the same batches; return the network and its loss on the training images."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))  # its outputs are logits: no softmax
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    for _ in range(STEPS):
        batch = torch.randint(len(train_images), (BATCH,))
        loss = loss_of(model(train_images[batch]), train_digits[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return model, loss_of(model(train_images), train_digits).item()


# 1. A plain function. Arguments go by name, so that labels and logits cannot be swapped by mistake.
def with_the_function(logits, labels):
    return wl.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits, reduction="mean")


# 2. A module: its options are given once.
criterion = SparseSoftmaxCrossEntropy(reduction="mean")


def with_the_module(logits, labels):
    return criterion(labels=labels, logits=logits)


# 3. The drop-in: one changed import, and torch's own order of arguments.
with_the_drop_in = CrossEntropyLoss()

# 4. Ordinary torch code, for the last two runs: one under the patch, and one as it is.
ordinary = nn.CrossEntropyLoss()

runs = {}
for name, loss_of in [
    ("plain function", with_the_function),
    ("module", with_the_module),
    ("drop-in", with_the_drop_in),
    ("torch under patch()", ordinary),
    ("torch", ordinary),
]:
    start = time.perf_counter()
    if name == "torch under patch()":
        with patch():  # until its end, torch.nn.functional holds our functions
            runs[name] = train(loss_of)
    else:
        runs[name] = train(loss_of)
    seconds = time.perf_counter() - start

    model, loss = runs[name]
    accuracy = (model(test_images).argmax(1) == test_digits).float().mean().item()
    print(f"{name:20} loss {loss:.6f}   accuracy {accuracy:.1%}   {seconds:.1f} s")

# How far apart are the trained networks? Both libraries round their losses in the last digits of a float32, each in its
# own way; all else is the same. Ours agree with each other to the last bit.
_, torchs_loss = runs.pop("torch")
losses = {loss for _, loss in runs.values()}
difference = max(abs(loss - torchs_loss) for loss in losses)
print(f"The four runs with withlogits {'agree to the last bit' if len(losses) == 1 else 'differ'}.")
print(f"The largest difference to torch's loss is {difference:.1e}: {'rounding' if difference < 1e-4 else 'too much'}.")

# What rounding may hide. For a confident and right answer torch's float32 loss is exactly 0, and so is the gradient of
# the right class; there is always a little left to learn.
confident, right = torch.tensor([[20.0, 0.0, 0.0]]), torch.tensor([0])
ours, theirs = with_the_function(confident, right).item(), ordinary(confident, right).item()
print(f"A confident answer costs {ours:.3e}; torch says {theirs}.")
