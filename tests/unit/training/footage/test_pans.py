"""Pans over pictures: as many frames as said, of one even size, the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import ConfigError
from engine.records import Media
from engine.video.media import index_timeline
from training.footage.pans import NUM_FRAMES, make_pans, pan


def picture(*, height: int = 120, width: int = 200) -> np.ndarray:
    """Every pixel tells where it is."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=2).astype(np.uint8)


def test_a_window_moves_over_the_picture() -> None:
    frames = list(pan(picture(), rng=np.random.default_rng(0)))
    assert len(frames) == NUM_FRAMES
    assert len({frame.shape for frame in frames}) == 1
    height, width = frames[0].shape[:2]
    assert height % 2 == width % 2 == 0
    assert 0.7 * 288 - 2 <= min(height, width) <= 0.95 * 288
    corners = np.array([frame[0, 0, :2] for frame in frames], dtype=float)
    steps = np.diff(corners, axis=0)
    assert np.abs(steps - steps.mean(axis=0)).max() <= 2  # a straight line, rounded to pixels


def test_pictures_become_videos_and_the_others_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(picture()).save(folder / "good.png")
    Image.fromarray(picture(width=400)).save(folder / "long.png")
    (folder / "bad.jpg").write_text("no picture", encoding="utf-8")
    assert make_pans([folder], tmp_path / "first", num_videos=3, seed=1) == 1
    assert make_pans([folder], tmp_path / "second", num_videos=3, seed=1) == 1
    [first], [second] = ((list((tmp_path / name).iterdir())) for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert len(index_timeline(Media("P", first))) == NUM_FRAMES


def test_a_folder_without_pictures_fails(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no picture in"):
        make_pans([tmp_path], tmp_path / "output", num_videos=1, seed=1)
