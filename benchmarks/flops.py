"""Floating-point operations of an ONNX graph: those of its convolutions and matrix products, two per multiply-add."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnx import shape_inference

from engine.errors import ConfigError


def count_flop(onnx_path: Path) -> int:
    """FLOP of one row. Raises ``ConfigError`` for a graph in which the shape of a product depends on its inputs."""
    model = onnx.load(onnx_path, load_external_data=False)
    for tensor in model.graph.input:
        tensor.type.tensor_type.shape.dim[0].dim_value = 1
    inferred = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes: dict[str, Sequence[int]] = {weight.name: weight.dims for weight in inferred.initializer}
    for tensor in (*inferred.input, *inferred.value_info, *inferred.output):
        shapes[tensor.name] = [size.dim_value for size in tensor.type.tensor_type.shape.dim]
    return sum(_node_flop(node, shapes) for node in inferred.node if node.op_type in {"Conv", "Gemm", "MatMul"})


def _node_flop(node: onnx.NodeProto, shapes: dict[str, Sequence[int]]) -> int:
    left, right, result = (shapes.get(name, ()) for name in (*node.input[:2], node.output[0]))
    # Of a convolution's weight (out, in / groups, height, width) each value of the result sums over all but the first.
    summed = math.prod(right[1:]) if node.op_type == "Conv" else left[-1] if left else 0
    if node.op_type == "Gemm" and any(flag.name == "transA" and flag.i for flag in node.attribute):
        summed = left[0]
    flop = 2 * summed * math.prod(result)
    if flop == 0 or not result:
        raise ConfigError(
            f"the shapes of node {node.name!r} ({node.op_type}) are not known; its FLOP cannot be counted"
        )
    return flop
