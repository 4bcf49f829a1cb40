"""What of TensorFlow is not public, each behind one name; and the oldest release that will do."""

from __future__ import annotations

import re
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.python.eager import forwardprop_util
from tensorflow.python.eager import record as record_module
from tensorflow.python.framework import func_graph

from withlogits import errors

OLDEST = (2, 18)  # the first for NumPy 2


def check_version() -> None:
    """Raise for a release that is too old."""
    if tuple(map(int, tf.__version__.split(".")[:2])) < OLDEST:
        raise errors.too_old("TensorFlow", tf.__version__, ".".join(map(str, OLDEST)))


def wrappers(names: tuple[str, ...]) -> dict[str, Any]:
    """The Python functions of registered operations, as `tf.load_op_library` makes them, by the operations' names."""
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python.framework import _pywrap_python_op_gen, op_def_registry

    found = op_def_pb2.OpList(op=[op_def_registry.get(name) for name in names])
    source = _pywrap_python_op_gen.GetPythonWrappers(found.SerializeToString())
    space: dict[str, Any] = {}
    exec(source, space)
    return {name: space[re.sub("(?<!^)(?=[A-Z])", "_", name).lower()] for name in names}


def in_xla() -> bool:
    """Whether the graph that is being made is for XLA to compile."""
    from tensorflow.python.ops import control_flow_util

    return bool(control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


def is_watched(x: Any) -> bool:
    """Whether some tape will want a gradient of this tensor."""
    return bool(record_module.should_record_backprop((x,)))


def has_tangent(x: Any) -> bool:
    """Whether some accumulator pushes a tangent of this tensor forward."""
    return bool(forwardprop_util.pack_tangents([x]).tangents)


def is_recording() -> bool:
    """Whether some tape or accumulator sees the operations that are run now."""
    return bool(record_module.could_possibly_record())


def unrecorded() -> Any:
    """Let no tape see the operations that are run in this context."""
    return record_module.stop_recording()


def record(name: str, results: list[Any], inputs: list[Any], pull: Any) -> None:
    """Let the tapes know how results depend on these inputs."""
    record_module.record_operation(name, results, inputs, pull)


def can_change(op: Any, kind: str) -> bool:
    """Whether this is a tape asking for the gradient of an operation in the graph that is being traced."""
    if isinstance(op, tf.Operation):  # someone else asks, who may have run the operation or know the upstream gradient
        return False
    graph, made = tf.compat.v1.get_default_graph(), op.outputs[0]
    return isinstance(graph, func_graph.FuncGraph) and made.graph is graph and made.op.type == kind


def is_one(x: Any) -> bool:
    """Whether a tensor of a graph is nothing but 1, and no tape looks at it."""
    value = tf.get_static_value(x.op.inputs[1] if x.op.type == "Fill" else x)
    return value is not None and bool((value == 1).all()) and not is_watched(x)


def named_node(name: str, text: str, tensors: list[Any]) -> list[Any]:
    """Return the tensors behind a node of the graph that holds a text; its gradient is registered under the name."""
    with tf.compat.v1.get_default_graph().gradient_override_map({"IdentityN": name}):
        found: list[Any] = tf.identity_n(tensors)
    set_text(found[0].op, "_call", text)
    return found


def set_text(op: Any, attribute: str, text: str) -> None:
    """Give an attribute of a node another text."""
    op._set_attr(attribute, attr_value_pb2.AttrValue(s=text.encode()))


def text_of(op: Any) -> str:
    """Return the text of a node."""
    text: bytes = op.get_attr("_call")
    return text.decode()
