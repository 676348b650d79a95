"""Damaged videos: each is described or recorded with a reason, no worker dies unnoticed, and no other video is hurt."""

from __future__ import annotations

import csv
import json
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from engine.store.store import read_descriptors, read_manifest
from tests.conftest import MakeOnce
from tests.end_to_end.conftest import FPS, footage
from tests.faults.conftest import FACTOR
from tests.faults.extraction import arguments
from tests.faults.mutations import mutated
from tests.videos import write_video

SUFFIXES = (".mp4", ".mkv", ".ts", ".avi", ".webm")
NUM_DAMAGED = 6


@pytest.fixture(scope="module")
def whole(make_once: MakeOnce) -> Path:
    def write(folder: Path) -> None:
        folder.mkdir()
        for index, suffix in enumerate(SUFFIXES):
            codec = {".webm": "libvpx-vp9", ".avi": "mpeg4"}.get(suffix, "libx264")
            pictures = footage(800 + index, num_seconds=3, height=96, width=128)
            write_video(folder / f"whole{index}{suffix}", pictures, fps=FPS, codec=codec)

    return make_once("whole", write)


@pytest.mark.long
def test_each_is_described_or_recorded(whole: Path, tiny_engines: Path, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    folder.mkdir()
    for path in whole.iterdir():
        for number in range(NUM_DAMAGED * FACTOR):
            damaged = mutated(path.read_bytes(), number)
            for seed in range(number % 4):
                damaged = mutated(damaged or b"\x00", 1000 * number + seed)
            (folder / f"{path.stem}_{number}{path.suffix}").write_bytes(damaged)
    (folder / "good.mp4").write_bytes((whole / "whole0.mp4").read_bytes())
    num_videos = len(list(folder.iterdir()))
    command = arguments(folder, tiny_engines, tmp_path / "store")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode in (0, 3), result.stderr
    assert "Traceback" not in result.stderr
    with (tmp_path / "store" / "failures.csv").open(encoding="utf-8", newline="") as file:
        failures = {row["video_id"]: row for row in csv.DictReader(file)}
    found = {item.video_id: item for item in read_descriptors(tmp_path / "store")}
    assert not found.keys() & failures
    assert len(found) + len(failures) == num_videos
    assert all(row["stage"] and row["reason"] for row in failures.values())
    deaths = [line for line in result.stderr.splitlines() if "is replaced" in line]
    print(  # noqa: T201
        f"faults: {num_videos} damaged videos: {len(found)} described, "
        f"{dict(Counter(row['stage'] for row in failures.values()))} failed, {len(deaths)} workers died"
    )
    assert json.loads(result.stdout.splitlines()[-1])["num_failures"] == len(failures)
    subprocess.run(arguments(whole / "whole0.mp4", tiny_engines, tmp_path / "alone"), check=True, capture_output=True)
    (alone,) = read_descriptors(tmp_path / "alone")
    np.testing.assert_array_equal(found["good"].descriptors, alone.descriptors)
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    remembered = {entry.failure.video_id for entry in read_manifest(tmp_path / "store").known_bad}
    assert (again.returncode == 0) == (remembered == failures.keys()), again.stderr
