"""What of TensorFlow is not public, each behind one name; and the oldest release that will do."""

from __future__ import annotations

import re
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2
from tensorflow.python.eager import forwardprop_util
from tensorflow.python.eager import record as record_module

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


def named_node(name: str, text: str, tensors: list[Any]) -> list[Any]:
    """Return the tensors behind a node of the graph that holds a text; its gradient is registered under the name."""
    with tf.compat.v1.get_default_graph().gradient_override_map({"IdentityN": name}):
        found: list[Any] = tf.identity_n(tensors)
    found[0].op._set_attr("_call", attr_value_pb2.AttrValue(s=text.encode()))
    return found


def text_of(op: Any) -> str:
    """Return the text of a node."""
    text: bytes = op.get_attr("_call")
    return text.decode()
