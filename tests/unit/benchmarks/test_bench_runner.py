"""The benchmark of runners proves equality first, and measures what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from typer.testing import CliRunner

from benchmarks import bench_runner
from benchmarks.bench_runner import GEMM_LAYERS, calls_per_s, compare, pictures, worst_cosine, write_gemms
from engine.build.onnx_runtime import run_graph
from engine.runtime.openvino import OpenVinoRunner, compile_to_ir
from engine.runtime.runner import TensorSpec
from tests import graphs


def test_the_worst_row_counts() -> None:
    rows = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0]], np.float32)
    other = np.array([[2.0, 0.0], [4.0, 3.0], [0.0, 1.0]], np.float32)
    assert worst_cosine(rows, other) == pytest.approx(24 / 25)


def test_pictures_are_frames_and_depend_on_the_seed_alone() -> None:
    spec = TensorSpec("frames_32", "uint8", (None, 32, 32, 3))
    frames = pictures(3, spec)
    assert (frames.shape, frames.dtype) == ((3, 32, 32, 3), np.uint8)
    np.testing.assert_array_equal(frames, pictures(3, spec))
    assert (frames != pictures(3, spec, seed=1)).any()


def test_another_graph_gives_no_figures(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        graphs.write_ensemble(tmp_path / folder / "ensemble.onnx")
    compile_to_ir(tmp_path / "one/ensemble.onnx", tmp_path / "one/ensemble.xml")
    weights = tmp_path / "other/ensemble.onnx.data"
    weights.write_bytes(np.frombuffer(weights.read_bytes(), np.float32)[::-1].tobytes())
    with OpenVinoRunner(tmp_path / "one/ensemble.xml") as runner:
        assert compare(runner, tmp_path / "one/ensemble.onnx")["embedding"] == pytest.approx(1, abs=1e-6)
        with pytest.raises(AssertionError, match=r"cosines .* below 0\.999; no time is reported"):
            compare(runner, tmp_path / "other/ensemble.onnx")


def test_counts_the_calls_of_all_threads_but_the_first() -> None:
    calls: list[None] = []
    rate = calls_per_s(lambda: calls.append(None), seconds=0.05)
    assert 0 < rate * 0.05 <= len(calls) - 1


@pytest.mark.parametrize("use_float16", [False, True])
def test_the_products_keep_what_they_are_given(tmp_path: Path, use_float16: bool) -> None:
    write_gemms(tmp_path / "gemms.onnx", size=16, use_float16=use_float16)
    values = np.random.default_rng(0).integers(0, 2, (3, 16), dtype=np.uint8)
    [result] = run_graph(tmp_path / "gemms.onnx", [{"bytes": values}])
    weight = numpy_helper.to_array(onnx.load(tmp_path / "gemms.onnx").graph.initializer[0]).astype(np.float64)
    np.testing.assert_array_equal(weight @ weight.T, np.eye(16))
    expected = (values @ np.linalg.matrix_power(weight, GEMM_LAYERS)).mean(axis=1)
    np.testing.assert_allclose(result["mean"][:, 0], expected, atol=1e-3)


def test_reports_each_batch_size(tiny_engines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--engines", tiny_engines, "--batch-sizes", 1, "--batch-sizes", 3, "--seconds", 0.01]
    monkeypatch.setitem(bench_runner.GEMM_SIZES, "openvino", 64)
    result = CliRunner().invoke(bench_runner.app, [*map(str, options), "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout.splitlines()[-1])
    assert [rate["batch_size"] for rate in figures["rates"]] == [1, 3]
    assert min(figures["worst_cosines"].values()) > 0.9999
    for rate in figures["rates"]:
        ceiling = figures["gemm_gflops"] / figures["gflop_per_image"]
        assert rate["ceiling_share"] == pytest.approx(rate["images_per_s"] / ceiling)
    assert (tmp_path / "bench_runner.md").is_file()
