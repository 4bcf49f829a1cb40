"""The options of a call as text, which is what a graph holds of them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from withlogits.options import (
    Options,
    SigmoidOptions,
    SoftmaxOptions,
    field_names,
    field_values,
    sigmoid_options,
    softmax_options,
)


@cache
def text_of(options: Options, weights: tuple[str, ...], **more: bool) -> str:
    """Return the options by name, the names of the arrays that come with the call, and what more there is to say."""
    named = dict(zip(field_names(options, ""), field_values(options), strict=True))
    return json.dumps({**named, "weights": weights, **more})


def changed(text: str, **more: bool) -> str:
    """Return a text that says something else besides the options."""
    return json.dumps({**json.loads(text), **more})


@cache
def options_of(text: str) -> tuple[Options, dict[str, Any]]:
    """Return the options of a text, and what it says besides."""
    call = json.loads(text)
    kind = SoftmaxOptions if "sparse" in call else SigmoidOptions
    values = tuple([call.pop(name) for name in field_names(kind, "")])
    return (softmax_options if kind is SoftmaxOptions else sigmoid_options)(values), call
