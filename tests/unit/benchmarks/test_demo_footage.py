"""The pictures have one role each; the camera moves over them smoothly."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks import demo_footage
from benchmarks.demo_footage import PHOTOS, VIDEOS, Photo, camera_move, copy_videos, make_move, plan_moves
from engine.errors import ConfigError
from tests.videos import moving_frames

PICTURE = moving_frames(1, height=300, width=400, seed=3)[0]
needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in ("skvideo", "skimage", "sklearn", "matplotlib")),
    reason="the packages of the extra `demo` are not installed",
)


def test_no_picture_has_two_roles_and_no_part_is_used_twice() -> None:
    roles: dict[str, set[str]] = {}
    for item in (*VIDEOS, *PHOTOS):
        roles.setdefault(f"{item.package}/{item.file}", set()).add(item.role)
    assert {len(found) for found in roles.values()} == {1}
    for name in roles:
        parts = [photo.part for photo in PHOTOS if f"{photo.package}/{photo.file}" == name]
        assert parts in ([], ["all"]) or sorted(parts) == ["left", "right"]


def test_there_is_enough_of_everything() -> None:
    videos = [move.path for move in plan_moves(Path("footage"), seed=1)]
    assert len(set(videos)) == len(videos)
    num_references = sum(path.parent.name == "references" for path in videos)
    assert num_references + sum(video.role == "references" for video in VIDEOS) >= 14


def test_a_camera_move_is_smooth_and_goes_somewhere() -> None:
    frames = np.stack(list(camera_move(PICTURE, (160, 120), num_frames=90, rng=np.random.default_rng(1)))).astype(float)
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert frames.shape == (90, 120, 160, 3)
    assert steps.max() < 0.4 * np.abs(frames - frames.mean(axis=0)).mean() * 2
    assert np.abs(frames[0] - frames[-1]).mean() > 3 * steps.mean()


def test_camera_moves_follow_from_the_generator() -> None:
    one, two, other = (
        np.stack(list(camera_move(PICTURE, (80, 60), num_frames=10, rng=np.random.default_rng(seed))))
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_a_camera_stays_inside_the_picture() -> None:
    inside = np.full((200, 300, 3), 255, np.uint8)
    for seed in range(10):
        for frame in camera_move(inside, (64, 64), num_frames=12, rng=np.random.default_rng(seed)):
            assert (frame == 255).all()


@needs_packages
def test_packaged_videos_and_moves_are_written(tmp_path: Path) -> None:
    for role in ("references", "distractors"):
        (tmp_path / role).mkdir()
    copy_videos(tmp_path)
    assert len(list(tmp_path.rglob("*.mp4"))) == len(VIDEOS)
    move = next(move for move in plan_moves(tmp_path, seed=1) if move.photo.part == "left")
    make_move(move)
    with av.open(str(move.path)) as container:
        frames = sum(1 for _ in container.decode(video=0))
        assert 8 * 15 <= frames <= 15 * 15
        assert min(container.streams.video[0].width, container.streams.video[0].height) == 240


def test_a_missing_package_is_named_with_the_way_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_footage, "PHOTOS", (Photo("a", "skimage", "data/not_there.png", "references"),))
    (move,) = plan_moves(tmp_path, seed=1)
    with pytest.raises(ConfigError, match=r"(is not installed|without data/not_there\.png): pip install scikit-image"):
        make_move(move)
