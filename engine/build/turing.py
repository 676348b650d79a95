"""Rewrites ONNX graphs for GPUs of compute capability 7.5 (Turing), for which TensorRT-RTX builds no float32 product.

A float32 MatMul or Gemm is refused there ("FP32 GEMM is not supported", 1.7.1). The same numbers come of a convolution
with a 1x1 kernel over one pixel, which builds (lite: 30.6 MB instead of 27.2). A product of two activations has no such
form. bfloat16 is refused for 7.5, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from engine.build.onnx_graph import float_values, replace_nodes, save_external, value_shapes
from engine.errors import EngineError

TURING = "7.5"
_PRODUCTS = frozenset({"MatMul", "Gemm"})


@dataclass(frozen=True)
class _Linear:
    """``values @ weight + bias``: the name of the values, ``(K, N)`` and, if there is one, ``(N,)``."""

    values: str
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None


def rewrite_for_turing(path: Path) -> None:
    """Replace each float32 MatMul and Gemm of a graph by Reshape, 1x1 Conv and Reshape, in place.

    Weights go to ``<path>.data``. Raises ``EngineError`` that names the node where that cannot be done.
    """
    model = onnx.load(path)
    floats, shapes = float_values(model), value_shapes(model)
    weights = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type in _PRODUCTS and node.output[0] in floats:
            linear = _linear_of(node, weights)
            nodes += _convolution(model.graph, node, linear, shapes.get(linear.values))
        else:
            nodes.append(node)
    replace_nodes(model.graph, nodes)
    save_external(model, path)


def _linear_of(node: NodeProto, weights: dict[str, NDArray[Any]]) -> _Linear:
    values, weight_name, *rest = node.input
    weight = weights.get(weight_name)
    if values in weights or weight is None or weight.ndim != 2:
        raise _refusal(node, "it multiplies two activations")
    settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    has_bias = bool(rest and rest[0])
    bias = weights.get(rest[0]) if has_bias else None
    is_same_for_all_rows = bias is not None and max(bias.shape[:-1], default=1) == 1
    if settings.get("transA") or has_bias != is_same_for_all_rows:
        raise _refusal(node, "only its weight may be transposed, and its bias must be a constant for all rows")
    weight = settings.get("alpha", 1.0) * (weight.T if settings.get("transB") else weight)
    if bias is not None:
        bias = np.broadcast_to(settings.get("beta", 1.0) * bias, (1, weight.shape[1]))[0].astype(np.float32)
    return _Linear(values, weight.astype(np.float32), bias)


def _convolution(
    graph: onnx.GraphProto, node: NodeProto, linear: _Linear, shape: tuple[int | None, ...] | None
) -> Iterator[NodeProto]:
    """The nodes that take the place of ``node``; each row of its values is a picture of one pixel."""
    if shape is None or shape[:-1].count(None) > 1:
        raise _refusal(node, "more than one dimension of its input is chosen by the caller")
    name = node.output[0]
    num_inputs, num_outputs = linear.weight.shape
    outer = [-1 if size is None else size for size in shape[:-1]]
    constants = {
        "pixels_shape": np.array([-1, num_inputs, 1, 1]),
        "kernel": np.ascontiguousarray(linear.weight.T)[:, :, None, None],
        "result_shape": np.array([*outer, num_outputs]),
    }
    if linear.bias is not None:
        constants["bias"] = linear.bias
    graph.initializer.extend(numpy_helper.from_array(array, f"{name}.{part}") for part, array in constants.items())
    kernel = [f"{name}.{part}" for part in ("kernel", "bias") if part in constants]
    yield helper.make_node("Reshape", [linear.values, f"{name}.pixels_shape"], [f"{name}.pixels"])
    yield helper.make_node("Conv", [f"{name}.pixels", *kernel], [f"{name}.convolved"], name=node.name)
    yield helper.make_node("Reshape", [f"{name}.convolved", f"{name}.result_shape"], [name])


def _refusal(node: NodeProto, why: str) -> EngineError:
    return EngineError(
        f"the float32 {node.op_type} {node.name or node.output[0]!r} cannot be built for compute capability {TURING}: "
        f"{why}; leave {TURING} out of --compute-capability"
    )
