"""Float32 products become convolutions that give the same numbers and build for Turing; others are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engine.build.onnx_graph import fold_pca
from engine.build.onnx_runtime import run_graph
from engine.build.parity import Case, check_parity
from engine.build.tensorrt_builder import build_engine
from engine.build.turing import rewrite_for_turing
from engine.errors import EngineError
from engine.runtime.manifest import RowProfile
from engine.runtime.tensorrt_library import import_tensorrt
from tests import graphs

RNG = np.random.default_rng(0)
PROFILE = RowProfile(min_rows=1, opt_rows=4, max_rows=8)


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], name=f"node_{output}", **attributes)


def save(path: Path, nodes: list[onnx.NodeProto], *, shape: tuple[str | int, ...] = ("rows", 3, 8)) -> Path:
    """A graph from float32 ``x`` to ``y``."""
    weights = {"w": (8, 6), "turned": (5, 6), "bias": (5,), "scalar": (), "left": (3, 3), "table": (4, 6)}
    used = {name for each in nodes for name in each.input}
    initializers = [
        numpy_helper.from_array(np.asarray(RNG.standard_normal(size), np.float32), name)
        for name, size in weights.items()
        if name in used
    ]
    initializers.append(numpy_helper.from_array(np.array([-1, 6]), "flat"))
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in (("x", shape), ("y", ["n", "m"]))
    ]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def check_same(path: Path, inputs: list[dict[str, Any]]) -> set[str]:
    """Rewrite a graph; it must give what it gave before. Returns its operators."""
    cases = [Case(given, outputs) for given, outputs in zip(inputs, run_graph(path, inputs), strict=True)]
    rewrite_for_turing(path)
    onnx.checker.check_model(path, full_check=True)
    check_parity(run_graph(path, inputs), cases, name="the graph for Turing")
    return {each.op_type for each in onnx.load(path, load_external_data=False).graph.node}


def build(path: Path, *targets: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    rtx = import_tensorrt("tensorrt_rtx")
    build_engine(rtx, path, path.with_suffix(".engine"), profile=PROFILE, compute_capabilities=targets)


@pytest.mark.parametrize("bias", ["bias", "scalar", ""])
def test_every_form_of_a_product_with_a_weight(tmp_path: Path, bias: str) -> None:
    nodes = [
        node("MatMul", "x w", "a"),
        node("Reshape", "a flat", "rows_of_a"),
        node("Gemm", f"rows_of_a turned {bias}", "y", transB=1, alpha=0.5, beta=2.0),
    ]
    path = save(tmp_path / "g.onnx", nodes)
    inputs = [{"x": RNG.standard_normal((num, 3, 8)).astype(np.float32)} for num in (1, 2, 5)]
    assert check_same(path, inputs) == {"Reshape", "Conv"}
    build(path, "7.5")


def test_the_folded_pca_builds_for_turing_only_when_rewritten(tmp_path: Path) -> None:
    path = tmp_path / "g.onnx"
    graphs.write_ensemble(path)
    fold_pca(path, graphs.random_pca(), path)
    with pytest.raises(EngineError, match="FP32 GEMM is not supported"):
        build(path, "7.5")
    assert not check_same(path, [dict(graphs.frames(num)) for num in (1, 3)]) & {"MatMul", "Gemm"}
    build(path, "7.5", "8.6")


def test_products_in_float16_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "g.onnx"
    weight = numpy_helper.from_array(np.ones((4, 2), np.float16), "w")
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["rows", size]) for name, size in (("x", 4), ("y", 2))
    ]
    graph = helper.make_graph([node("MatMul", "x w", "y")], "g", values[:1], values[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    assert check_same(path, [{"x": np.ones((3, 4), np.float16)}]) == {"MatMul"}


@pytest.mark.parametrize(
    ("nodes", "shape", "message"),
    [
        ([node("Transpose", "x", "t", perm=[0, 2, 1]), node("MatMul", "x t", "y")], ("rows", 3, 8), "two activations"),
        ([node("MatMul", "left x", "y")], (3, 8), "two activations"),
        ([node("Gemm", "x w", "y", transA=1)], (8, 4), "only its weight may be transposed"),
        ([node("Relu", "x", "c"), node("Gemm", "x w c", "y")], (4, 8), "its bias must be a constant"),
        ([node("Gemm", "x w table", "y")], (4, 8), "its bias must be a constant for all rows"),
        ([node("MatMul", "x w", "y")], ("rows", "columns", 8), "more than one dimension of its input"),
    ],
)
def test_a_product_that_cannot_be_rewritten_is_named(
    tmp_path: Path, nodes: list[onnx.NodeProto], shape: tuple[str | int, ...], message: str
) -> None:
    path = save(tmp_path / "g.onnx", nodes, shape=shape)
    content = path.read_bytes()
    with pytest.raises(EngineError, match=rf"^the float32 (MatMul|Gemm) 'node_y' cannot be built .* 7\.5: .*{message}"):
        rewrite_for_turing(path)
    assert path.read_bytes() == content
