"""The operations of graphs that can be counted by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.flops import count_flop
from engine.errors import ConfigError
from tests import graphs


def write(path: Path, node: onnx.NodeProto, shape: list[int | str], weight: tuple[int, ...]) -> Path:
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    weights = [numpy_helper.from_array(np.zeros(weight, np.float32), "w")]
    graph = helper.make_graph([node], "one", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize(
    ("node", "shape", "weight", "expected"),
    [
        # 5x5 results of 3x3 windows over 4 channels, for 8 channels.
        (helper.make_node("Conv", ["x", "w"], ["y"]), ["n", 4, 7, 7], (8, 4, 3, 3), 2 * 25 * 8 * 4 * 9),
        # Depth-wise: each channel sums over its own window.
        (helper.make_node("Conv", ["x", "w"], ["y"], group=4), ["n", 4, 7, 7], (4, 1, 3, 3), 2 * 25 * 4 * 9),
        (helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2]), ["n", 4, 7, 7], (8, 4, 3, 3), 2 * 9 * 8 * 4 * 9),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), ["n", 5, 6], (6, 7), 2 * 5 * 6 * 7),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), ["n", 6], (7, 6), 2 * 6 * 7),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transA=1), ["n", 6], (1, 7), 2 * 6 * 7),
        (helper.make_node("Identity", ["x"], ["y"]), ["n", 6], (1,), 0),
    ],
)
def test_one_node(
    tmp_path: Path, node: onnx.NodeProto, shape: list[int | str], weight: tuple[int, ...], expected: int
) -> None:
    assert count_flop(write(tmp_path / "one.onnx", node, shape, weight)) == expected


def test_a_whole_graph(tmp_path: Path) -> None:
    graphs.write_ensemble(tmp_path / "ensemble.onnx")
    assert count_flop(tmp_path / "ensemble.onnx") == 2 * (4 * 4 * 3 + 8 * 8 * 3) * graphs.NUM_DIMS // 2


def test_shapes_that_depend_on_the_input_are_refused(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    path = write(tmp_path / "one.onnx", node, ["n", "m", 6], (6, 7))
    with pytest.raises(ConfigError, match=r"'product' \(MatMul\) are not known"):
        count_flop(path)
