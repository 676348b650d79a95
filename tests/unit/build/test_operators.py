"""The table of operators against the parser itself, and graphs that do not keep to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.build.operators import OPERATORS, check_operators
from engine.errors import EngineError
from tests import graphs

# In this parser, but not in the published table for TensorRT 10.15.
NEWER = {"CausalConvWithState", "LinearAttention", "Swish"}


def test_the_table_is_what_the_parser_says() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    names = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    assert {name for name in names if parser.supports_operator(name)} - NEWER == OPERATORS


def save(path: Path, node: onnx.NodeProto, *, elem_type: int = TensorProto.FLOAT, opset: int = 20) -> Path:
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", elem_type, ["rows", 4])],
        [helper.make_tensor_value_info("y", elem_type, None)],
        [numpy_helper.from_array(np.ones(4), "double")] if "double" in node.input else [],
    )
    domains = {"", node.domain}
    opsets = [helper.make_opsetid(domain, opset if not domain else 1) for domain in sorted(domains)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_graphs_of_known_operators_pass(tmp_path: Path) -> None:
    graphs.write_ensemble(tmp_path / "ensemble.onnx")
    graphs.write_score(tmp_path / "score.onnx")
    check_operators(tmp_path / "ensemble.onnx")
    check_operators(tmp_path / "score.onnx")


@pytest.mark.parametrize(
    ("node", "options", "message"),
    [
        (helper.make_node("Det", ["x"], ["y"]), {}, r"operator Det \(gives 'y'\)"),
        (helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft"), {}, "operator com.microsoft.Gelu"),
        (
            helper.make_node("Transpose", ["x"], ["y"]),
            {"elem_type": TensorProto.UINT8},
            r"Transpose reads uint8 \(gives 'y'\), cast it first",
        ),
        (helper.make_node("Add", ["x", "double"], ["y"]), {"elem_type": TensorProto.DOUBLE}, "3 values are float64"),
        (helper.make_node("Relu", ["x"], ["y"]), {"opset": 7}, "opset 7, expected 9 to 24"),
    ],
)
def test_what_tensorrt_does_not_take_is_named(
    tmp_path: Path, node: onnx.NodeProto, options: dict[str, int], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        check_operators(save(tmp_path / "g.onnx", node, **options))
