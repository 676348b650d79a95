"""Precisions are chosen by what float16 does to results; a model that suffers stays float32."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine.build.comparison import Sample, accepted_models, table
from engine.build.onnx_runtime import run_graph
from engine.build.parity import Case
from engine.build.precision import compare_precisions
from engine.config import Preset, load_preset

VSC22 = load_preset("vsc22")
RNG = np.random.default_rng(0)


def write(path: Path, nodes: list[onnx.NodeProto], weights: dict[str, Any], shapes: dict[str, list[Any]]) -> None:
    """``shapes``: the input first, then the outputs."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def sample(path: Path, inputs: list[dict[str, Any]]) -> Sample:
    outputs = run_graph(path, inputs)
    return Sample(path, [Case(one, other) for one, other in zip(inputs, outputs, strict=True)])


def model(name: str, *, spread: float) -> tuple[list[onnx.NodeProto], dict[str, Any]]:
    """``x`` -> 6 columns ``name``: what is left when a common part is taken from columns.

    The common part is about ``spread`` times as large as the rest: where that is much, float16 loses the rest.
    """
    weights = {
        f"{name}.w": (RNG.standard_normal((8, 6)) + RNG.standard_normal((8, 1)) * spread).astype(np.float32),
        f"{name}.m": (np.eye(6) - 1 / 6).astype(np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", f"{name}.w"], [f"{name}.a"]),
        helper.make_node("MatMul", [f"{name}.a", f"{name}.m"], [name]),
    ]
    return nodes, weights


def make_samples(
    folder: Path, *, v107: float = 0.1, features: float = 0.1, score: float = 0.1
) -> tuple[Preset, dict[str, Sample]]:
    """Two members, and the gate on features of its own graph; the numbers are the ``spread`` of each `model`."""
    preset = VSC22.model_copy(update={"models": VSC22.models[:2]})
    (first, first_weights), (second, second_weights) = model("v115", spread=0.1), model("v107", spread=v107)
    nodes = [*first, *second, helper.make_node("Concat", ["v115", "v107"], ["embedding"], axis=1)]
    shapes = {"x": ["rows", 8], "embedding": ["rows", 12]}
    write(folder / "ensemble.onnx", nodes, first_weights | second_weights, shapes)
    write(
        folder / "edit_features.onnx", *model("features", spread=features), {"x": ["rows", 8], "features": ["rows", 6]}
    )
    values: dict[str, Any] = {
        "w": np.linspace(-0.1, 0.1, 6, dtype=np.float32)[:, None],
        "same": np.eye(6, dtype=np.float32),
        "s": np.float32(score),
        "one": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("MatMul", ["features", "same"], ["first"]),
        helper.make_node("Add", ["first", "s"], ["moved"]),
        helper.make_node("MatMul", ["moved", "w"], ["votes"]),
        helper.make_node("ReduceMean", ["votes"], ["mean"], keepdims=0),
        helper.make_node("Reshape", ["mean", "one"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["score"]),
    ]
    write(folder / "edit_score.onnx", nodes, values, {"features": ["rows", 6], "score": [1]})
    frames = [{"x": RNG.standard_normal((num, 8)).astype(np.float32)} for num in (1, 2, 3)]
    rows = [{"features": RNG.standard_normal((num, 6)).astype(np.float32)} for num in (2, 5)]
    given = {"ensemble": frames, "edit_features": frames, "edit_score": rows}
    return preset, {name: sample(folder / f"{name}.onnx", inputs) for name, inputs in given.items()}


def test_models_that_float16_leaves_alone_are_float16(tmp_path: Path) -> None:
    preset, samples = make_samples(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    found = compare_precisions(samples, preset, folder=tmp_path)
    assert [(row.model, row.measure, row.precision) for rows in found.values() for row in rows] == [
        ("v115", "cosine", "fp16"),
        ("v107", "cosine", "fp16"),
        ("edit_features", "edit_score", "fp16"),
        ("edit_score", "edit_score", "fp16"),
    ]
    assert all(0.999 < row.worst < 1 for row in found["ensemble"])
    assert [row.num_inputs for rows in found.values() for row in rows] == [6, 6, 3, 5]
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_the_member_that_loses_its_digits_stays_float32_and_no_other(tmp_path: Path) -> None:
    preset, samples = make_samples(tmp_path, v107=1e3)
    found = compare_precisions(samples, preset, folder=tmp_path)["ensemble"]
    assert [row.precision for row in found] == ["fp16", "fp32"]
    assert found[1].worst < 0.999
    assert accepted_models(found) == {"v115"}


def test_features_that_move_the_score_stay_float32_and_the_score_is_compared_without_them(tmp_path: Path) -> None:
    preset, samples = make_samples(tmp_path, features=1e3)
    found = compare_precisions(samples, preset, folder=tmp_path)
    [features], [score] = found["edit_features"], found["edit_score"]
    assert features.worst > 1e-3
    assert (features.precision, features.limit) == ("fp32", 1e-3)
    assert score.precision == "fp16"


def test_a_score_model_that_loses_its_digits_stays_float32(tmp_path: Path) -> None:
    preset, samples = make_samples(tmp_path, score=1e3)
    found = compare_precisions(samples, preset, folder=tmp_path)
    assert [found[name][0].precision for name in ("edit_features", "edit_score")] == ["fp16", "fp32"]


def test_a_result_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    preset, samples = make_samples(tmp_path)
    # Too large for float16: infinite, and after the next product not a number.
    big = {
        name: [Case({"x": case.inputs["x"] * 1e5}, case.outputs) for case in samples[name].cases]
        for name in samples
        if name != "edit_score"
    }
    broken = samples | {name: Sample(samples[name].path, cases) for name, cases in big.items()}
    with np.errstate(invalid="ignore"):
        found = compare_precisions(broken, preset, folder=tmp_path)
    assert {row.precision for name in ("ensemble", "edit_features") for row in found[name]} == {"fp32"}


def test_the_table_has_a_line_for_each_model(tmp_path: Path) -> None:
    preset, samples = make_samples(tmp_path, v107=1e3)
    lines = table(compare_precisions(samples, preset, folder=tmp_path))
    assert len(lines) == 5
    assert lines[2].split()[:2] == ["ensemble", "v107"]
    assert lines[2].endswith("fp32")
