"""Cuts, found in pictures that are made so that it is known where they are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.records import Media
from engine.video.cuts import CutFinder
from engine.video.pyav import PyAvFrameSource
from tests.videos import damage_tail, moving_frames, write_video

FPS = 25
SHOTS = [23, 40, 61]
"""Frames of three shots."""


def pan(seed: int, num_frames: int) -> list[NDArray[np.uint8]]:
    (wide,) = moving_frames(1, width=128 + 2 * num_frames, seed=seed)
    return [np.ascontiguousarray(wide[:, 2 * number : 2 * number + 128]) for number in range(num_frames)]


PICTURES = [picture for seed, count in enumerate(SHOTS) for picture in pan(seed, count)]


def found(pictures: Iterable[NDArray[np.uint8]]) -> list[int]:
    finder = CutFinder()
    for picture in pictures:
        finder.add(picture[..., 1])
    return finder.cuts().tolist()


def test_cuts_between_shots_that_move() -> None:
    assert found(PICTURES) == [23, 63]


def test_pictures_that_are_shown_twice_or_three_times() -> None:
    """Between them nothing changes, so that what moves changes all the more when it does."""
    for times in (2, 3):
        assert found(picture for picture in PICTURES for _ in range(times)) == [23 * times, 63 * times]


def test_what_is_no_cut() -> None:
    first, last = PICTURES[0].astype(np.float64), PICTURES[-1].astype(np.float64)
    fade = [((1 - share) * first + share * last).astype(np.uint8) for share in np.linspace(0, 1, 25)]
    noise = np.random.default_rng(0).integers(0, 256, (40, 96, 128, 3), dtype=np.uint8)
    assert found(PICTURES[:23]) == found(fade) == found(noise) == []
    assert found([PICTURES[0]] * 30) == found(PICTURES[:1]) == found([]) == []
    assert found([PICTURES[0], PICTURES[0] + 1]) == []


def test_two_pictures_may_be_two_shots() -> None:
    assert found([PICTURES[0], PICTURES[-1]]) == [1]


def test_pictures_of_another_size_and_very_small_ones() -> None:
    resized = [picture[:64, :80] for picture in PICTURES[23:]]
    assert found([*PICTURES[:23], *resized]) == [23, 63]
    small = [np.ascontiguousarray(picture[::24, ::24]) for picture in PICTURES]
    assert small[0].shape[:2] == (4, 6)
    assert found(small) == [23, 63]
    assert found([*small[:23], *PICTURES[23:]]) == [63], "nothing can be compared"


@pytest.mark.parametrize(
    ("codec", "options"),
    [("libx264", {"bf": "3"}), ("libx264", {"bf": "3", "sc_threshold": "0"}), ("mpeg4", {}), ("libvpx-vp9", {})],
)
def test_the_ends_of_shots_of_a_file(codec: str, options: dict[str, str], tmp_path: Path) -> None:
    """Without scene detection of x264 a cut may lie among frames that are not decoded."""
    path = tmp_path / ("a.webm" if codec == "libvpx-vp9" else "a.mp4")
    write_video(path, PICTURES, fps=FPS, codec=codec, options=options)
    source = PyAvFrameSource(Media("a", path))
    assert source.shot_ends_s is None, "nothing was decoded yet"
    assert sum(1 for _ in source.pictures()) == source.num_frames
    tolerance_s = 0.13 if options.get("sc_threshold") == "0" else 0.002
    assert source.shot_ends_s == pytest.approx([23 / FPS, 63 / FPS, 124 / FPS], abs=tolerance_s)
    known = source.shot_ends_s
    assert sum(1 for _ in source.pictures()) == source.num_frames
    assert source.shot_ends_s == known


@pytest.mark.parametrize(("codec", "order"), [("ffv1", "le"), ("rawvideo", "be")])
def test_pictures_of_ten_bits(codec: str, order: str, tmp_path: Path) -> None:
    path = tmp_path / "a.nut"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.height, stream.width = PICTURES[0].shape[:2]
        stream.pix_fmt = f"yuv420p10{order}"
        for picture in PICTURES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    source = PyAvFrameSource(Media("a", path))
    for _ in source.pictures():
        pass
    assert source.shot_ends_s == pytest.approx([23 / FPS, 63 / FPS, 124 / FPS], abs=0.002)


def test_nobody_looks_among_key_frames_and_in_damaged_files(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", PICTURES, fps=FPS, options={"g": "25"})
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    damage_tail(tmp_path / "b.mp4", keep=0.3)
    keyframes = PyAvFrameSource(Media("a", tmp_path / "a.mp4"), max_keyframe_gap_s=2.0)
    damaged = PyAvFrameSource(Media("b", tmp_path / "b.mp4"))
    for source in (keyframes, damaged):
        assert list(source.pictures())
        assert source.shot_ends_s is None
    assert damaged.is_damaged
