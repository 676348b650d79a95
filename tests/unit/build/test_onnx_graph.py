"""A PCA folded into a graph: right, replaceable, and without touching the weights beside it. Weights as float16."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from engine.build.onnx_graph import fold_pca, store_float16
from engine.errors import ConfigError
from tests import graphs


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    graphs.write_ensemble(tmp_path / "ensemble.onnx")
    return tmp_path / "ensemble.onnx"


def evaluate(path: Path, frames: dict[str, NDArray[np.uint8]]) -> dict[str, NDArray[np.float32]]:
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    session = ReferenceEvaluator(model)
    return dict(zip(session.output_names, session.run(None, dict(frames)), strict=True))


def test_descriptor_is_the_projected_embedding(graph: Path) -> None:
    pca, frames = graphs.random_pca(), graphs.frames(3)
    folded = graph.with_name("folded.onnx")
    fold_pca(graph, pca, folded)
    results = evaluate(folded, frames)
    assert list(results) == ["embedding", "descriptor"]
    np.testing.assert_array_equal(results["embedding"], evaluate(graph, frames)["embedding"])
    expected = graphs.project(pca, results["embedding"])
    np.testing.assert_allclose(results["descriptor"], expected, atol=1e-5, rtol=0)
    assert [(dim.dim_param, dim.dim_value) for dim in _shape(folded, "descriptor")] == [("rows", 0), ("", 5)]
    fold_pca(graph, pca, graph)
    np.testing.assert_array_equal(evaluate(graph, frames)["descriptor"], results["descriptor"])


def test_external_weights_are_neither_copied_nor_changed(graph: Path) -> None:
    data = graph.with_name("ensemble.onnx.data")
    before = hashlib.sha256(data.read_bytes()).hexdigest(), data.stat().st_mtime_ns
    fold_pca(graph, graphs.random_pca(), graph.with_name("folded.onnx"))
    assert (hashlib.sha256(data.read_bytes()).hexdigest(), data.stat().st_mtime_ns) == before
    assert sorted(path.name for path in graph.parent.iterdir()) == ["ensemble.onnx", data.name, "folded.onnx"]
    assert graph.with_name("folded.onnx").stat().st_size < data.stat().st_size / 2


def test_a_pca_of_another_size_fails(graph: Path) -> None:
    with pytest.raises(ConfigError, match=r"takes 23 dimensions, the embedding of .* has 24"):
        fold_pca(graph, graphs.random_pca(num_dims=23), graph)


def test_a_graph_without_embedding_fails(tmp_path: Path) -> None:
    graphs.write_score(tmp_path / "score.onnx")
    with pytest.raises(ConfigError, match=r"no output 'embedding' to project, only \['score'\]"):
        fold_pca(tmp_path / "score.onnx", graphs.random_pca(), tmp_path / "score.onnx")


def test_another_folder_fails(graph: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="must lie beside"):
        fold_pca(graph, graphs.random_pca(), tmp_path / "other" / "folded.onnx")


def _shape(path: Path, name: str) -> list[onnx.TensorShapeProto.Dimension]:
    outputs = onnx.load(path, load_external_data=False).graph.output
    return list(next(output for output in outputs if output.name == name).type.tensor_type.shape.dim)


def test_weights_that_lose_nothing_are_stored_as_float16(graph: Path, tmp_path: Path) -> None:
    model = onnx.load(graph)
    exact, inexact = model.graph.initializer
    values = onnx.numpy_helper.to_array(exact).astype(np.float16).astype(np.float32)
    exact.CopyFrom(onnx.numpy_helper.from_array(values, exact.name))
    onnx.save(model, graph, save_as_external_data=True, location="rounded.data", size_threshold=64)
    (tmp_path / "apart").mkdir()
    stored = tmp_path / "apart" / "stored.onnx"
    store_float16(graph, stored)
    kinds = {weight.name: weight.data_type for weight in onnx.load(stored).graph.initializer}
    assert kinds == {f"{exact.name}.float16": onnx.TensorProto.FLOAT16, inexact.name: onnx.TensorProto.FLOAT}
    frames = graphs.frames(3)
    np.testing.assert_array_equal(evaluate(stored, frames)["embedding"], evaluate(graph, frames)["embedding"])


def test_values_beyond_float16_and_small_weights_stay_as_they_are(tmp_path: Path) -> None:
    large, small = np.full(64, 70000, np.float32), np.ones(63, np.float32)
    nodes = [onnx.helper.make_node("Concat", ["large", "small"], ["values"], axis=0)]
    output = onnx.helper.make_tensor_value_info("values", onnx.TensorProto.FLOAT, [127])
    weights = [onnx.numpy_helper.from_array(large, "large"), onnx.numpy_helper.from_array(small, "small")]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [output], weights)), tmp_path / "a.onnx")
    store_float16(tmp_path / "a.onnx", tmp_path / "b.onnx")
    assert {weight.name for weight in onnx.load(tmp_path / "b.onnx").graph.initializer} == {"large", "small"}


def test_storing_gives_the_same_bytes_each_time(graph: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        store_float16(graph, tmp_path / f"{name}.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
