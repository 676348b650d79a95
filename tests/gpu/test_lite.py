"""Preset lite on the GPU against OpenVINO: graphs, whole videos, and any number of GPUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.build.engines import build_engines
from engine.config import load_preset
from engine.records import Descriptors, FloatArray
from engine.runtime.engines_directory import EnginesDirectory
from engine.runtime.runner import Tensors
from engine.store.store import read_descriptors
from tests import graphs
from tests.end_to_end.conftest import Catalogue, RunCli
from tests.gpu.device import num_gpus

pytestmark = pytest.mark.gpu

MIN_COSINE = 0.999
MAX_SCORE_DIFFERENCE = 1e-3


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Engines of the weights in the package, for both backends."""
    folder = tmp_path_factory.mktemp("lite")
    for backend in ("openvino", "tensorrt"):
        build_engines(load_preset("lite"), folder / backend, backend=backend)
    return {backend: folder / backend for backend in ("openvino", "tensorrt")}


def run(engines: Path, name: str, tensors: Tensors) -> dict[str, FloatArray]:
    with EnginesDirectory.open(engines).open_runner(name) as runner:
        return runner.run(tensors)


def cosines(one: FloatArray, other: FloatArray) -> FloatArray:
    return np.sum(one * other, axis=1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))


def test_descriptors_are_those_of_the_cpu(engines: dict[str, Path]) -> None:
    frames = {"frames_224": graphs.natural_pictures(40, size_px=224)}
    expected, found = (run(engines[backend], "ensemble", frames) for backend in ("openvino", "tensorrt"))
    for name in ("embedding", "descriptor"):
        assert cosines(found[name], expected[name]).min() >= MIN_COSINE, name


@pytest.mark.parametrize("num_frames", [1, 9, 256])
def test_edit_scores_are_those_of_the_cpu(engines: dict[str, Path], num_frames: int) -> None:
    frames = {"frames_224": graphs.natural_pictures(num_frames, size_px=224)}
    features = {"features": run(engines["openvino"], "ensemble", frames)["edit_features"]}
    expected, found = (run(engines[backend], "edit_score", features)["score"] for backend in ("openvino", "tensorrt"))
    assert abs(found[0] - expected[0]) <= MAX_SCORE_DIFFERENCE


def extract(run_cli: RunCli, catalogue: Catalogue, engines: Path, output: Path, *options: str) -> list[Descriptors]:
    run_cli("extract", catalogue.references, "--engines", engines, "--role", "reference", "--output", output, *options)
    return sorted(read_descriptors(output), key=lambda item: item.video_id)


def test_videos_are_described_as_on_the_cpu(
    engines: dict[str, Path], catalogue: Catalogue, run_cli: RunCli, tmp_path: Path
) -> None:
    expected = extract(run_cli, catalogue, engines["openvino"], tmp_path / "cpu")
    found = extract(run_cli, catalogue, engines["tensorrt"], tmp_path / "gpu", "--gpus", "1")
    assert [item.video_id for item in found] == [item.video_id for item in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.timestamps, other.timestamps)
        assert cosines(one.descriptors, other.descriptors).min() >= MIN_COSINE


def test_results_do_not_depend_on_the_number_of_gpus(
    engines: dict[str, Path], catalogue: Catalogue, run_cli: RunCli, tmp_path: Path
) -> None:
    one, all_gpus = (
        extract(run_cli, catalogue, engines["tensorrt"], tmp_path / str(count), "--gpus", str(count))
        for count in (1, num_gpus())
    )
    for first, second in zip(one, all_gpus, strict=True):
        np.testing.assert_array_equal(first.descriptors, second.descriptors)


def test_more_gpus_than_there_are_is_one_clear_line(
    engines: dict[str, Path], catalogue: Catalogue, run_cli: RunCli, tmp_path: Path
) -> None:
    result = run_cli(
        "extract", catalogue.references, "--engines", engines["tensorrt"], "--role", "reference",
        "--output", tmp_path / "out", "--gpus", "99", expect=1,
    )  # fmt: skip
    assert "--gpus 99" in result.stderr
    assert "Traceback" not in result.stderr
