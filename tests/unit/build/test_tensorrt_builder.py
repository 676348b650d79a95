"""Engines are built without a GPU by TensorRT-RTX; what it cannot build or load gives one clear line."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from engine.build.tensorrt_builder import build_engine, check_targets
from engine.errors import ConfigError, EngineError
from engine.runtime.manifest import RowProfile
from engine.runtime.tensorrt_library import TensorRt, import_tensorrt
from tests import graphs

PROFILE = RowProfile(min_rows=1, opt_rows=4, max_rows=8)


@pytest.fixture(scope="module")
def rtx() -> TensorRt:
    pytest.importorskip("tensorrt_rtx")
    return import_tensorrt("tensorrt_rtx")


def build(rtx: TensorRt, path: Path, *capabilities: str) -> bytes:
    engine = path.with_suffix(".engine")
    seconds = build_engine(rtx, path, engine, profile=PROFILE, compute_capabilities=capabilities)
    assert seconds > 0
    return engine.read_bytes()


def test_one_engine_serves_several_gpus(rtx: TensorRt, tmp_path: Path) -> None:
    graphs.write_ensemble(tmp_path / "g.onnx")
    both, one = build(rtx, tmp_path / "g.onnx", "8.6", "8.9"), build(rtx, tmp_path / "g.onnx", "8.9")
    assert both != one
    # The weights are in it once, whatever the number of GPUs.
    assert len(both) < 1.5 * len(one)


def test_it_builds_for_gpus_that_are_not_here(rtx: TensorRt) -> None:
    assert {"8.6", "8.9"} <= set(rtx.compute_capabilities)


def test_a_gpu_that_it_does_not_build_for_is_refused_with_those_that_it_does(rtx: TensorRt) -> None:
    check_targets(rtx, ["8.6", "8.9"])
    with pytest.raises(ConfigError, match=r"does not build for compute capability 9.0, 86; expected 7.5, .*8.6, 8.9"):
        check_targets(rtx, ["8.9", "9.0", "86"])


def test_tensorrt_for_data_centres_builds_for_no_gpu_that_is_not_there(rtx: TensorRt) -> None:
    other = TensorRt("tensorrt", rtx.module)
    check_targets(other, [])
    with pytest.raises(ConfigError, match="for the GPU of this machine only"):
        check_targets(other, ["8.6"])


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    *,
    elem_type: int = TensorProto.FLOAT,
    result: int = TensorProto.FLOAT,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", elem_type, ["rows", 4])],
        [helper.make_tensor_value_info("y", result, None)],
        [
            helper.make_tensor("weight", TensorProto.FLOAT, [4], [1, 2, 3, 4]),
            helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 7]),
        ],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("example.invalid", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_a_graph_whose_types_do_not_fit_is_refused_in_one_line(rtx: TensorRt, tmp_path: Path) -> None:
    path = save(tmp_path / "g.onnx", [helper.make_node("Add", ["x", "weight"], ["y"])], elem_type=TensorProto.FLOAT16)
    with pytest.raises(EngineError, match=r"tensorrt_rtx .* cannot parse g.onnx: operator Add: .*") as refusal:
        build(rtx, path, "8.6")
    assert "\n" not in str(refusal.value)
    assert not path.with_suffix(".engine").exists()


def test_a_graph_whose_shapes_have_no_solution_is_refused_in_one_line(rtx: TensorRt, tmp_path: Path) -> None:
    path = save(tmp_path / "g.onnx", [helper.make_node("Reshape", ["x", "shape"], ["y"])])
    with pytest.raises(EngineError, match=r"cannot build g.onnx: .*no solution") as refusal:
        build(rtx, path, "8.6")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("node", "elem_type", "message"),
    [
        (helper.make_node("Det", ["x"], ["y"], name="node_det"), TensorProto.FLOAT, "operator Det node_det: "),
        (helper.make_node("Transpose", ["x"], ["y"]), TensorProto.UINT8, "operator Transpose: .*UInt8"),
        (helper.make_node("Mul", ["x", "x"], ["y"]), TensorProto.UINT8, "operator Mul: .*UInt8"),
    ],
    ids=["unknown", "uint8 moved", "uint8 multiplied"],
)
def test_the_parser_names_the_operator_that_it_does_not_take(
    rtx: TensorRt, tmp_path: Path, node: onnx.NodeProto, elem_type: int, message: str
) -> None:
    path = save(tmp_path / "g.onnx", [node], elem_type=elem_type, result=elem_type)
    with pytest.raises(EngineError, match=rf"cannot parse g\.onnx: {message}.*--frontend torch-tensorrt$") as refusal:
        build(rtx, path, "8.6")
    assert "\n" not in str(refusal.value)


def test_an_operator_of_another_domain_which_tensorrt_would_take_for_a_standard_one_is_refused(
    rtx: TensorRt, tmp_path: Path
) -> None:
    path = save(tmp_path / "g.onnx", [helper.make_node("Relu", ["x"], ["y"], domain="example.invalid")])
    with pytest.raises(EngineError, match=r"g\.onnx: operator Relu is of the domain 'example\.invalid', not ONNX's"):
        build(rtx, path, "8.6")


def test_float64_which_tensorrt_would_narrow_without_a_word_is_refused(rtx: TensorRt, tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE), helper.make_node("Abs", ["wide"], ["y"])]
    path = save(tmp_path / "g.onnx", nodes, result=TensorProto.DOUBLE)
    with pytest.raises(
        EngineError, match=r"g\.onnx: 2 values are float64, such as 'wide'; .*--frontend torch-tensorrt"
    ):
        build(rtx, path, "8.6")
