"""Extraction with DALI on its CPU device against extraction with PyAV, over a folder with good and bad files."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from engine.store.store import read_descriptors
from tests.end_to_end.conftest import FPS, RunCli, footage
from tests.videos import damage_tail, write_video

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos for DALI, one for PyAV, one damaged in its second half, and three of which nothing can be read."""
    folder = tmp_path_factory.mktemp("decoders")
    for number, (name, codec) in enumerate(
        {"vp9.webm": "libvpx-vp9", "mjpeg.avi": "mjpeg", "h264.mp4": "libx264", "damaged.mp4": "libvpx-vp9"}.items()
    ):
        write_video(folder / name, footage(800 + number, num_seconds=6), fps=FPS, codec=codec)
    for name in ("cut.webm", "cut_early.mp4"):
        write_video(folder / name, footage(900, num_seconds=6), fps=FPS, codec="libvpx-vp9")
    damage_tail(folder / "damaged.mp4", keep=0.6)
    content = (folder / "cut.webm").read_bytes()
    (folder / "cut.webm").write_bytes(content[: len(content) // 2])
    (folder / "cut_early.mp4").write_bytes((folder / "cut_early.mp4").read_bytes()[:2000])
    (folder / "empty.webm").touch()
    (folder / "text.webm").write_text("this is not a video\n" * 50, encoding="utf-8")
    return folder


@pytest.mark.long
def test_dali_gives_what_pyav_gives_and_bad_files_fail_alone(
    folder: Path, lite_engines: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    common = ["--engines", lite_engines, "--role", "query"]
    said, failed, found = {}, {}, {}
    for decoder in ("pyav", "dali"):
        output = tmp_path / decoder
        result = run_cli("extract", folder, *common, "--output", output, "--decoder", decoder, expect=3)
        said[decoder] = result.stderr
        with (output / "failures.csv").open(encoding="utf-8") as file:
            failed[decoder] = {row["video_id"]: row["reason"] for row in csv.DictReader(file)}
        found[decoder] = {item.video_id: item for item in read_descriptors(output)}
    assert failed["dali"] == failed["pyav"]
    assert set(failed["dali"]) == {"cut_early", "empty", "text"}
    assert found["dali"].keys() == found["pyav"].keys() == {"cut", "damaged", "h264", "mjpeg", "vp9"}
    for video_id, expected in found["pyav"].items():
        item = found["dali"][video_id]
        np.testing.assert_array_equal(item.timestamps, expected.timestamps)
        unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (item.descriptors, expected.descriptors)]
        # Measured 0.995: hard colored edges are where the two place chroma differently (`engine.video.dali`).
        assert (unit[0] * unit[1]).sum(axis=1).min() > 0.99
        assert item.warnings == expected.warnings
    assert "decoder: DALI on the CPU for mjpeg, vp9; other videos by PyAV" in said["dali"]
    assert "h264: decoded by PyAV, not by DALI: codec h264" in said["dali"]
    assert "damaged: decoded by PyAV, not by DALI: damaged" in said["dali"]
    assert "3 videos decoded by DALI, 2 by PyAV (" in said["dali"]
    assert "DALI" not in said["pyav"]
