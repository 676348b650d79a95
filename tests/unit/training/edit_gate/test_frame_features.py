"""Features of real small videos: what the engine computes for a query, computed once."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from engine.build.export import Weights  # noqa: E402
from engine.config import NoGate  # noqa: E402
from engine.errors import ConfigError  # noqa: E402
from engine.models.checkpoints import random_weights  # noqa: E402
from engine.models.efficientnet_lite import EfficientNetLiteDescriptor  # noqa: E402
from engine.video.discovery import find_videos  # noqa: E402
from tests.gate_presets import gate_preset  # noqa: E402
from tests.videos import moving_frames, write_video  # noqa: E402
from training.edit_gate.frame_features import FeatureExtractor  # noqa: E402

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    model = EfficientNetLiteDescriptor()
    random_weights(model, seed=1)
    save_file(model.state_dict(), folder / "small.safetensors")
    return folder


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(2):
        write_video(folder / f"V{number}.mp4", moving_frames(30, height=64, width=96, seed=number), fps=10)
    (folder / "V9.mp4").write_text("no video", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all tests keep features, so that the graph is exported once."""
    return tmp_path_factory.mktemp("features")


def extract(videos: Path, checkpoints: Path, folder: Path, *, max_frames: int = 256) -> dict[str, np.ndarray]:
    weights = Weights(folder=checkpoints, random=False)
    with FeatureExtractor(gate_preset(max_frames=max_frames), weights, folder=folder) as extractor:
        found = extractor.extract(find_videos([videos]), num_workers=2)
    return {item.video_id: item.rows for item in found}


@pytest.mark.long
def test_features_are_computed_once_and_a_bad_video_is_left_out(
    videos: Path, checkpoints: Path, features: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        first = extract(videos, checkpoints, features)
    assert sorted(first) == ["V0", "V1"]
    assert "V9.mp4" in caplog.text
    assert first["V0"].shape[0] == 3
    files = {path: path.stat().st_mtime_ns for path in features.rglob("*") if path.is_file()}
    again = extract(videos, checkpoints, features)
    assert {path: path.stat().st_mtime_ns for path in features.rglob("*") if path.is_file()} == files
    for name, rows in first.items():
        np.testing.assert_array_equal(again[name], rows)


def test_changed_videos_and_other_settings_are_computed_anew(videos: Path, checkpoints: Path, features: Path) -> None:
    before = extract(videos, checkpoints, features)
    write_video(videos / "V0.mp4", moving_frames(50, height=64, width=96, seed=7), fps=10)
    after = extract(videos, checkpoints, features)
    assert (len(before["V0"]), len(after["V0"])) == (3, 5)
    short = extract(videos, checkpoints, features, max_frames=2)
    np.testing.assert_array_equal(short["V0"], after["V0"][:2])


def test_without_a_gate_or_weights_there_are_no_features(tmp_path: Path) -> None:
    no_gate = gate_preset().model_copy(update={"gate": NoGate()})
    with pytest.raises(ConfigError, match="has no edit gate"):
        FeatureExtractor(no_gate, Weights(folder=tmp_path, random=False), folder=tmp_path)
    with pytest.raises(ConfigError, match=r"no checkpoint small\.safetensors"):
        FeatureExtractor(gate_preset(), Weights(folder=tmp_path, random=False), folder=tmp_path)
