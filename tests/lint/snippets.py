"""Pieces of code, right and wrong. A line that is wrong ends in the codes that are expected for it: `#! WL501`."""

from __future__ import annotations

import re

IMPORTS = {
    "torch": "import torch; from torch import nn; import torch.nn.functional as F\n",
    "keras": "import tensorflow as tf; import keras; from keras import layers\n",
    "tensorflow": "import tensorflow as tf; import tensorflow.compat.v1 as tf1\n",
    "jax": "import jax, optax; import jax.numpy as jnp; from flax import linen, nnx\n",
    "withlogits": "import withlogits as wl; import torch, numpy as np, scipy\n",
}

SNIPPETS: dict[str, dict[str, str]] = {
    "torch": {
        "softmax in the call": "F.cross_entropy(F.softmax(x, dim=1), y)  #! WL501",
        "softmax of a variable": "p = torch.softmax(x, -1)\nF.cross_entropy(p.view(-1, 3), y)  #! WL501",
        "a method": "F.cross_entropy(x.softmax(dim=-1), y)  #! WL501",
        "by keyword": "F.cross_entropy(target=y, input=x.softmax(1))  #! WL501",
        "logits": "F.cross_entropy(x, y)\nF.cross_entropy(nn.Linear(3, 4)(x), y)",
        "probabilities as labels": "F.cross_entropy(x, torch.softmax(teacher, 1))",
        "softmax for a metric": "loss = F.cross_entropy(x, y)\np = F.softmax(x, 1)\nprint(p)",
        "sigmoid twice": "F.binary_cross_entropy_with_logits(torch.sigmoid(x), y)  #! WL501",
        "sigmoid twice, by objects": "act = nn.Sigmoid()\nloss = nn.BCEWithLogitsLoss()\nloss(act(x), y)  #! WL501",
        "log_softmax before sigmoid": "nn.BCEWithLogitsLoss()(F.log_softmax(x, 1), y)  #! WL501",
        "torchvision": "import torchvision\ntorchvision.ops.sigmoid_focal_loss(x.sigmoid(), y)  #! WL501",
        "a model": (
            "net = nn.Sequential(nn.Linear(3, 4), nn.Softmax(dim=1)).to('cuda')\n"
            "criterion = nn.CrossEntropyLoss()\n"
            "for x, y in loader:\n"
            "    out = net(x)\n"
            "    loss = criterion(out, y)  #! WL501"
        ),
        "a model that was changed": (
            "net = nn.Sequential(nn.Linear(3, 4), nn.Softmax(dim=1))\n"
            "net[-1] = nn.Identity()\n"
            "F.cross_entropy(net(x), y)"
        ),
        "a model without its end": "net = nn.Sequential(a, nn.Softmax(dim=1))\nF.cross_entropy(net[:-1](x), y)",
        "a model of unknown parts": "net = nn.Sequential(*parts)\nF.cross_entropy(net(x), y)",
        "a model with dropout at its end": (
            "net = nn.Sequential(nn.Softmax(1), nn.Dropout())\nF.cross_entropy(net(x), y)  #! WL501"
        ),
        "a model of named parts": (
            "from collections import OrderedDict\n"
            "net = nn.Sequential(OrderedDict([('fc', nn.Linear(3, 4)), ('end', nn.Softmax(1))]))\n"
            "F.cross_entropy(net(x), y)  #! WL501"
        ),
        "a class": (
            "class Net(nn.Module):\n"
            "    def __init__(self):\n"
            "        self.fc = nn.Linear(3, 4)\n"
            "        self.loss = nn.CrossEntropyLoss()\n"
            "    def forward(self, x):\n"
            "        return F.softmax(self.fc(x), dim=1)\n"
            "    def training_step(self, batch):\n"
            "        x, y = batch\n"
            "        return self.loss(self(x), y)  #! WL501\n"
            "net = Net()\n"
            "F.cross_entropy(net(x), y)  #! WL501\n"
            "F.nll_loss(net(x), y)  #! WL503"
        ),
        "a class that has a parameter": (
            "class Net(nn.Module):\n"
            "    def __init__(self, loss):\n"
            "        self.loss = loss\n"
            "    def forward(self, x, y):\n"
            "        return self.loss(x.softmax(1), y)"
        ),
        "a class with two ends": (
            "class Net(nn.Module):\n"
            "    def forward(self, x):\n"
            "        if self.training:\n"
            "            return x\n"
            "        return x.softmax(1)\n"
            "F.cross_entropy(Net()(x), y)"
        ),
        "an inherited loss": (
            "class Base(nn.Module):\n"
            "    def __init__(self):\n"
            "        self.loss = nn.CrossEntropyLoss()\n"
            "class Net(Base):\n"
            "    def step(self, x, y):\n"
            "        return self.loss(x.softmax(1), y)  #! WL501"
        ),
        "a loss that is bound twice": (
            "class Net(nn.Module):\n"
            "    def __init__(self, binary):\n"
            "        self.loss = nn.CrossEntropyLoss()\n"
            "        if binary:\n"
            "            self.loss = nn.BCELoss()\n"
            "    def step(self, x, y):\n"
            "        return self.loss(x.softmax(1), y)"
        ),
        "branches that agree": (
            "if a:\n    p = x.softmax(1)\nelse:\n    p = y.softmax(1)\nF.cross_entropy(p, y)  #! WL501"
        ),
        "branches that differ": "p = x\nif a:\n    p = x.softmax(1)\nF.cross_entropy(p, y)",
        "an expression that differs": "F.cross_entropy(x.softmax(1) if a else x, y)",
        "a branch that returns": (
            "def f(x, y, a):\n    p = x.softmax(1)\n    if a:\n        return p\n"
            "    p = x\n    return F.cross_entropy(p, y)"
        ),
        "a loop": "p = x.softmax(1)\nfor _ in range(3):\n    F.cross_entropy(p, y)\n    p = x",
        "a name that is bound again": "p = x.softmax(1)\np = net(x)\nF.cross_entropy(p, y)",
        "a try": "try:\n    p = x.softmax(1)\nexcept E:\n    p = x\nF.cross_entropy(p, y)",
        "a helper": "def f(x):\n    return x.softmax(1)\nF.cross_entropy(f(x), y)  #! WL501",
        "arguments of a function": (
            "def step(model, x, y, criterion=None):\n    return criterion(model(x), y)  #! WL501\n"
            "def train(net, *, loss):\n    for x, y in loader:\n        step(net, x, y, criterion=loss)\n"
            "def main():\n    net = nn.Sequential(nn.Linear(3, 4), nn.Softmax(1))\n"
            "    train(net, loss=nn.CrossEntropyLoss())"
        ),
        "other arguments of another call": (
            "def step(p, y):\n    return F.cross_entropy(p, y)\nstep(x.softmax(1), y)\nstep(x, y)"
        ),
        "starred arguments of a function": (
            "def step(p, y):\n    return F.cross_entropy(p, y)\nstep(x.softmax(1), y)\nstep(*x)"
        ),
        "a global name in a function": (
            "def f(x, y):\n    return loss(x.softmax(1), y)  #! WL501\nloss = nn.CrossEntropyLoss()"
        ),
        "a global name with two meanings": (
            "loss = nn.CrossEntropyLoss()\ndef f(x, y):\n    return loss(x.softmax(1), y)\nloss = nn.BCELoss()"
        ),
        "a parameter": "p = torch.softmax(x, 1)\ndef f(p, y):\n    return F.cross_entropy(p, y)",
        "nll of probabilities": "F.nll_loss(F.softmax(x, 1), y)  #! WL503",
        "nll of logits": "fc = nn.Linear(3, 4)\nnn.NLLLoss()(fc(x), y)  #! WL503",
        "nll of log-probabilities": "F.nll_loss(F.log_softmax(x, 1), y)\nF.nll_loss(logits, y)",
        "kl of probabilities": "F.kl_div(F.softmax(x, 1), F.softmax(y, 1))  #! WL503",
        "kl": "nn.KLDivLoss()(F.log_softmax(x, 1), F.softmax(y, 1))",
        "log of softmax": "torch.log(F.softmax(x, dim=1))  #! WL504",
        "log of a method": "x.softmax(-1).log()  #! WL504",
        "log of sigmoid": "torch.log(torch.sigmoid(x))  #! WL504",
        "log with a guard": "p = torch.sigmoid(x)\n(p + 1e-8).log()  #! WL504\n(1 - p + eps).log()  #! WL504",
        "log, then the loss": "F.nll_loss(torch.log(F.softmax(x, 1)), y)  #! WL504",
        "log of something": "torch.log(x)\nmath.log(3)\ntorch.log(torch.softmax(x, 1).sum())",
        "bce after sigmoid": "F.binary_cross_entropy(torch.sigmoid(x), y)  #! WL505",
        "bce of a model": (
            "net = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())\ncriterion = nn.BCELoss()\n"
            "criterion(net(x).squeeze(), y)  #! WL505"
        ),
        "bce of logits": "nn.BCELoss()(nn.Linear(3, 1)(x), y)  #! WL502",
        "bce of given probabilities": "F.binary_cross_entropy(p, y)",
        "argmax": "F.cross_entropy(x.argmax(1).float(), y)  #! WL506",
        "rounding": "F.binary_cross_entropy(torch.round(p), y)  #! WL506",
        "a threshold": "F.binary_cross_entropy((p > 0.5).float(), y)  #! WL506",
        "argmax of the labels": "F.cross_entropy(x, y.argmax(1))",
        "swapped": "F.cross_entropy(labels, logits)  #! WL507",
        "swapped objects": "criterion = nn.BCELoss()\ncriterion(batch.target, self.pred.view(-1))  #! WL507",
        "swapped with a model": "net = nn.Sequential(nn.Linear(3, 4))\nF.cross_entropy(labels, net(x))  #! WL507",
        "a part of log-probabilities": "F.cross_entropy(F.log_softmax(x, 1)[:, :5], y)",
        "a global name that a function binds": (
            "loss = nn.CrossEntropyLoss()\ndef f():\n    global loss\n    loss = g()\n"
            "def h(x, y):\n    return loss(x.softmax(1), y)"
        ),
        "a straight-through estimator": "hard = (p > 0.5).float()\nF.binary_cross_entropy(p + (hard - p).detach(), y)",
        "a sum that is no guard": "p = torch.sigmoid(x)\ntorch.log(p + steps)\ntorch.log(p + 1)\ntorch.log(1 - y)",
        "a class of a function": (
            "def f(x, y):\n    class Net(nn.Module):\n        def forward(self, x):\n            return x.softmax(1)\n"
            "    return F.cross_entropy(Net()(x), y)  #! WL501"
        ),
        "a decorated helper": "@wrap\ndef f(x):\n    return x.softmax(1)\nF.cross_entropy(f(x), y)",
        "a nested helper": (
            "def g(x, y):\n    def f(x):\n        return x.softmax(1)\n    return F.cross_entropy(f(x), y)"
        ),
        "a field": (
            "class Net(nn.Module):\n    loss: nn.Module = nn.CrossEntropyLoss()\n"
            "    def step(self, x, y):\n        return self.loss(x.softmax(1), y)"
        ),
        "an attribute of the class": (
            "class Net(nn.Module):\n    loss = nn.CrossEntropyLoss()\n"
            "    def step(self, x, y):\n        return self.loss(x.softmax(1), y)  #! WL501"
        ),
        "an object that was changed": (
            "class Net(nn.Module):\n    def __init__(self):\n        self.end = nn.Softmax(1)\n"
            "    def forward(self, x):\n        return self.end(x)\n"
            "net = Net()\nF.cross_entropy(net.forward(x), y)  #! WL501\n"
            "net.end = nn.Identity()\nF.cross_entropy(net(x), y)"
        ),
        "arguments of a method": (
            "class Net(nn.Module):\n    def loss(self, p, y):\n        return F.cross_entropy(p, y)\n"
            "    def step(self, x, y):\n        return self.loss(x.softmax(1), y)"
        ),
        "a static method": (
            "class Net(nn.Module):\n    @staticmethod\n    def f(x, y):\n        return x.loss(y.softmax(1), y)\n"
            "    loss = nn.CrossEntropyLoss()"
        ),
        "names that are bound otherwise": (
            "p = x.softmax(1)\nwith f() as p:\n    F.cross_entropy(p, y)\np = x.softmax(1)\n"
            "for p in z:\n    F.cross_entropy(p, y)\np, q = x.softmax(1), x\nF.cross_entropy(q, y)\n"
            "F.cross_entropy(p, y)  #! WL501\np, q = f(x.softmax(1))\nF.cross_entropy(p, y)\n"
            "p = x.softmax(1)\np += 1\nF.cross_entropy(p, y)"
        ),
        "a model that grows": (
            "net = nn.Sequential(nn.Linear(3, 4), nn.Softmax(1))\nnet.append(nn.Linear(4, 5))\n"
            "F.cross_entropy(net(x), y)"
        ),
        "another object's method": "F.cross_entropy(ops.softmax(x), y)\nF.nll_loss(self.ops.softmax(x), y)",
        "a guard of something": "torch.log(x + 1e-8)\nF.nll_loss(F.log_softmax(x, 1) + eps, y)",
        "a divergence in both directions": "F.kl_div(target, logits)",
        "one-hot integers of another loss": "F.kl_div(F.log_softmax(x, 1), F.one_hot(y, 3))",
        "decisions as labels": "F.nll_loss(F.log_softmax(x, 1), y.argmax(1))\nF.cross_entropy(labels, x.argmax(1))",
        "one argument": "F.cross_entropy(input=labels)\nF.cross_entropy(target=logits)",
        "one clear name": "F.cross_entropy(labels, a)\nF.cross_entropy(a, logits)",
        "names that say nothing": "F.cross_entropy(target_logits, pred_labels)\nF.cross_entropy(a, outputs)",
        "in order": "F.cross_entropy(logits, labels)\nF.cross_entropy(input=logits, target=labels)",
        "one-hot integers": "F.cross_entropy(x, F.one_hot(y, 3))  #! WL509",
        "one-hot floats": "F.cross_entropy(x, F.one_hot(y, 3).float())",
        "one-hot for nll": "F.nll_loss(F.log_softmax(x, 1), F.one_hot(y, 3).float())  #! WL509",
        "log_softmax twice": "F.cross_entropy(F.log_softmax(x, dim=1), y)  #! WL510",
        "other names": "from torch.nn.functional import cross_entropy as ce\nce(x.softmax(1), y)  #! WL501",
        "another library's name": "from mine import cross_entropy, softmax\ncross_entropy(softmax(x), y)",
        "a relative import": "from .functional import cross_entropy\ncross_entropy(x.softmax(1), y)",
        "a starred call": "F.cross_entropy(*pair)\nF.cross_entropy(**{'input': x.softmax(1)})",
    },
    "keras": {
        "compile without from_logits": (
            "model = keras.Sequential([layers.Dense(10)])\n"
            "model.compile('adam', 'sparse_categorical_crossentropy')  #! WL502"
        ),
        "compile with an object": (
            "model = keras.Sequential()\nmodel.add(layers.Dense(8, activation='relu'))\nmodel.add(layers.Dense(1))\n"
            "model.compile(loss=keras.losses.BinaryCrossentropy(), optimizer='adam')  #! WL502"
        ),
        "compile with from_logits": (
            "model = keras.Sequential([layers.Dense(10)])\n"
            "model.compile('adam', loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))"
        ),
        "compile with a softmax": (
            "model = keras.Sequential([layers.Dense(10, activation='softmax')])\n"
            "model.compile('adam', loss='sparse_categorical_crossentropy')"
        ),
        "from_logits after softmax": (
            "model = tf.keras.Sequential([tf.keras.layers.Dense(10, activation=tf.nn.softmax)])\n"
            "model.compile(loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))  #! WL501"
        ),
        "functional": (
            "inputs = keras.Input((3,))\noutputs = layers.Dense(4, 'softmax')(inputs)\n"
            "model = keras.Model(inputs, outputs)\n"
            "model.compile(loss=keras.losses.CategoricalCrossentropy(True))  #! WL501"
        ),
        "functional logits": (
            "inputs = keras.Input((3,))\nmodel = keras.Model(inputs=inputs, outputs=layers.Dense(4)(inputs))\n"
            "model.compile(loss=keras.losses.categorical_crossentropy)  #! WL502"
        ),
        "an activation layer": (
            "model = keras.Sequential([layers.Dense(4), layers.Activation('sigmoid')])\n"
            "model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))  #! WL501"
        ),
        "from_logits of a variable": (
            "model = keras.Sequential([layers.Dense(4)])\n"
            "model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=flag))"
        ),
        "several outputs": (
            "model = keras.Model(i, [layers.Dense(3)(i), layers.Dense(4)(i)])\n"
            "model.compile(loss='binary_crossentropy')"
        ),
        "an activation of a variable": (
            "model = keras.Sequential([layers.Dense(3, activation=act)])\n"
            "model.compile(loss='categorical_crossentropy')"
        ),
        "options of a layer": (
            "model = keras.Sequential([layers.Dense(3, **options)])\nmodel.compile(loss='categorical_crossentropy')"
        ),
        "layers after the softmax": (
            "model = keras.Sequential()\nmodel.add(layers.Dense(3, activation='softmax'))\n"
            "model.add(layers.Dropout(0.1))\n"
            "model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True))  #! WL501\n"
            "model.add(layers.LeakyReLU())\n"
            "model.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True))"
        ),
        "decisions with from_logits of a variable": (
            "keras.losses.categorical_crossentropy(y, tf.argmax(x), from_logits=flag)"
        ),
        "another loss": "model = keras.Sequential([layers.Dense(1)])\nmodel.compile(loss='mse')",
        "a model of a function": (
            "def build():\n    return keras.Sequential([layers.Dense(10)])\n"
            "model = build()\nmodel.compile(loss='categorical_crossentropy')  #! WL502"
        ),
        "a class": (
            "class M(keras.Model):\n"
            "    def __init__(self):\n        self.end = layers.Dense(3)\n"
            "    def call(self, x):\n        return self.end(x)\n"
            "m = M()\nm.compile(loss='categorical_crossentropy')  #! WL502"
        ),
        "one-hot labels in fit": (
            "y = keras.utils.to_categorical(y)\nmodel = keras.Sequential([layers.Dense(10, activation='softmax')])\n"
            "model.compile(loss='sparse_categorical_crossentropy')\nmodel.fit(x, y)  #! WL509"
        ),
        "one-hot labels for the dense loss": (
            "y = keras.utils.to_categorical(y)\nmodel = keras.Sequential([layers.Dense(10, activation='softmax')])\n"
            "model.compile(loss='categorical_crossentropy')\nmodel.fit(x, y)"
        ),
        "swapped": "keras.losses.binary_crossentropy(y_pred, y_true)  #! WL507",
        "swapped objects": "loss = keras.losses.CategoricalCrossentropy()\nloss(logits, labels)  #! WL507",
        "in order": "keras.losses.binary_crossentropy(y_true, y_pred)",
        "softmax with from_logits": (
            "keras.losses.categorical_crossentropy(y, keras.ops.softmax(x), from_logits=True)  #! WL501"
        ),
        "softmax without from_logits": "keras.losses.categorical_crossentropy(y, tf.nn.softmax(x))",
        "sigmoid without from_logits": "keras.losses.BinaryCrossentropy()(y, tf.sigmoid(x))",
        "our losses": (
            "from withlogits.compat.keras import BinaryCrossentropy\nBinaryCrossentropy()(y, tf.sigmoid(x))  #! WL501"
        ),
    },
    "tensorflow": {
        "softmax": "tf.nn.softmax_cross_entropy_with_logits(labels=y, logits=tf.nn.softmax(x))  #! WL501",
        "sigmoid": "tf.nn.sigmoid_cross_entropy_with_logits(y, tf.sigmoid(x))  #! WL501",
        "logits": "tf.nn.sigmoid_cross_entropy_with_logits(labels=y, logits=x)",
        "swapped": "tf.nn.sigmoid_cross_entropy_with_logits(logits, labels)  #! WL507",
        "swapped by name": "tf.nn.softmax_cross_entropy_with_logits(labels=logits, logits=labels)  #! WL507",
        "positional in version 1": "tf1.nn.softmax_cross_entropy_with_logits(labels, logits)  #! WL508",
        "one-hot": ("tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tf.one_hot(y, 3), logits=x)  #! WL509"),
        "one-hot for the dense loss": "tf.nn.softmax_cross_entropy_with_logits(labels=tf.one_hot(y, 3), logits=x)",
        "log of softmax": "tf.math.log(tf.nn.softmax(x))  #! WL504",
        "version 1": ("p = tf1.nn.softmax(x)\ntf1.losses.sparse_softmax_cross_entropy(labels=y, logits=p)  #! WL501"),
        "argmax": "tf.nn.softmax_cross_entropy_with_logits(labels=y, logits=tf.cast(tf.argmax(x, 1), t))  #! WL506",
    },
    "jax": {
        "softmax": "optax.softmax_cross_entropy(jax.nn.softmax(x), y)  #! WL501",
        "sigmoid": "optax.losses.sigmoid_binary_cross_entropy(logits=jax.nn.sigmoid(x), labels=y)  #! WL501",
        "logits": "optax.softmax_cross_entropy(logits, labels)",
        "one-hot": "optax.softmax_cross_entropy_with_integer_labels(x, jax.nn.one_hot(y, 3))  #! WL509",
        "rows of eye": "optax.softmax_cross_entropy_with_integer_labels(x, jnp.eye(3)[y])  #! WL509",
        "swapped": "optax.softmax_cross_entropy(labels, logits)  #! WL507",
        "log_softmax twice": "optax.softmax_cross_entropy(jax.nn.log_softmax(x), y)  #! WL510",
        "log_softmax over another axis": (
            "optax.softmax_cross_entropy(jax.nn.log_softmax(x, axis=-1), y, axis=0)\n"
            "optax.softmax_cross_entropy(jax.nn.log_softmax(x), y, 0)"
        ),
        "log of softmax": "jnp.log(jax.nn.softmax(x))  #! WL504",
        "linen": (
            "class Net(linen.Module):\n"
            "    @linen.compact\n"
            "    def __call__(self, x):\n"
            "        x = linen.Dense(10)(x)\n"
            "        return linen.softmax(x)\n"
            "net = Net()\n"
            "def loss_fn(params, x, y):\n"
            "    p = net.apply(params, x)\n"
            "    return optax.softmax_cross_entropy(p, y)  #! WL501"
        ),
        "nnx": (
            "class Net(nnx.Module):\n"
            "    def __init__(self, rngs):\n"
            "        self.end = nnx.Linear(3, 4, rngs=rngs)\n"
            "    def __call__(self, x):\n"
            "        return nnx.softmax(self.end(x))\n"
            "model = Net(rngs)\n"
            "optax.softmax_cross_entropy_with_integer_labels(model(x), y)  #! WL501"
        ),
        "argmax": "optax.softmax_cross_entropy(jnp.argmax(x, -1), y)  #! WL506",
    },
    "withlogits": {
        "softmax": "wl.softmax_cross_entropy_with_logits(labels=y, logits=wl.softmax(x))  #! WL501",
        "positional": "wl.sparse_softmax_cross_entropy_with_logits(labels, logits)  #! WL508",
        "one-hot": "wl.sparse_softmax_cross_entropy_with_logits(labels=np.eye(3)[y], logits=x)  #! WL509",
        "logits": "wl.sigmoid_cross_entropy_with_logits(labels=y, logits=x, reduction='mean')",
        "log_softmax twice": "wl.softmax_cross_entropy_with_logits(labels=y, logits=wl.log_softmax(x))  #! WL510",
        "options that see the logits": (
            "wl.softmax_cross_entropy_with_logits(labels=y, logits=wl.log_softmax(x), z_loss=0.1)\n"
            "wl.softmax_cross_entropy_with_logits(labels=y, logits=wl.log_softmax(x), softcap=9.0)\n"
            "wl.softmax_cross_entropy_with_logits(labels=y, logits=wl.log_softmax(x), axis=0)\n"
            "wl.softmax_cross_entropy_with_logits(labels=y, logits=wl.log_softmax(x), **options)"
        ),
        "the drop-in": (
            "from withlogits.compat.torch import cross_entropy\ncross_entropy(torch.softmax(x, 1), y)  #! WL501"
        ),
        "a module": (
            "from withlogits.torch import SoftmaxCrossEntropy\n"
            "loss = SoftmaxCrossEntropy()\nloss(labels=y, logits=torch.softmax(x, 1))  #! WL501"
        ),
        "log of softmax": "np.log(scipy.special.softmax(x))  #! WL504",
    },
}


def expected(source: str) -> list[tuple[int, str]]:
    """The line and the code of each finding."""
    return [
        (number, code)
        for number, line in enumerate(source.splitlines(), start=1)
        for code in re.findall(r"WL\d+", line.partition("#!")[2])
    ]


CASES = {
    f"{library}: {name}": IMPORTS[library] + source
    for library, snippets in SNIPPETS.items()
    for name, source in snippets.items()
}
