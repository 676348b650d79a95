"""Shots, and the views that are described beside the whole frames, on small videos whose layouts are known."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.config import Scenes
from engine.describe.insets import overlap
from engine.describe.shots import MAX_IOU, find_shots, scene_views
from engine.records import Media, Region, Span, View
from engine.video.pyav import PyAvFrameSource
from engine.video.statistics import SpanStatistics
from tests.videos import moving_frames, write_video

FPS, HEIGHT, WIDTH = 5, 144, 256
CONFIG = Scenes(scope="shots", max_insets=4)
Pictures = list[NDArray[np.uint8]]


def rows(*runs: tuple[int, int]) -> NDArray[np.float32]:
    """``(direction, number of frames)`` of each run; other directions are orthogonal."""
    found = np.concatenate([np.tile(np.eye(8)[direction], (count, 1)) for direction, count in runs])
    return found.astype(np.float32)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([(0, 9)], [(0, 9)]),
        ([(0, 4), (1, 5)], [(0, 4), (4, 9)]),
        ([(0, 2), (1, 3), (0, 1), (2, 7)], [(2, 5), (6, 13)]),
        ([(0, 1), (1, 1), (2, 2)], []),
    ],
)
def test_shots_end_where_neighbours_differ(runs: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    found = find_shots(5 * rows(*runs), max_cut_cosine=0.35, min_frames=3)
    assert [(shot.start, shot.stop) for shot in found] == expected


def seconds(num_frames: int, *, apart_s: float = 1) -> NDArray[np.float32]:
    starts = apart_s * np.arange(num_frames)
    return np.stack([starts, starts + apart_s], axis=1).astype(np.float32)


def plain(seed: int, num_seconds: int) -> Pictures:
    return moving_frames(num_seconds * FPS, height=HEIGHT, width=WIDTH, seed=seed)


def framed(seed: int, num_seconds: int, box: tuple[int, int, int, int]) -> Pictures:
    """Footage inside a black border."""
    x0, y0, x1, y1 = box
    inner = moving_frames(num_seconds * FPS, height=y1 - y0, width=x1 - x0, seed=seed)
    return [np.pad(frame, ((y0, HEIGHT - y1), (x0, WIDTH - x1), (0, 0))) for frame in inner]


def views_of(
    pictures: Pictures, embeddings: NDArray[np.float32], tmp_path: Path, config: Scenes = CONFIG
) -> list[View]:
    write_video(tmp_path / "v.mp4", pictures, fps=FPS)
    with closing(PyAvFrameSource(Media("v", tmp_path / "v.mp4"))) as source:
        assert source.num_frames == len(embeddings)
        return scene_views(source, embeddings, seconds(len(embeddings)), config=config)


def test_a_border_that_only_one_shot_has_is_found_in_that_shot(tmp_path: Path) -> None:
    box = (60, 20, 200, 120)
    pictures = plain(0, 8) + framed(1, 8, box) + plain(2, 8)
    found = views_of(pictures, rows((0, 8), (1, 8), (2, 8)), tmp_path)
    fitting = [view.span for view in found if view.region is not None and overlap(view.region, Region(*box)) > 0.9]
    assert fitting == [Span(8, 16)], "the maps of the whole video wash the border out"


def test_a_scene_of_the_whole_video_is_not_described_twice(tmp_path: Path) -> None:
    box = (60, 20, 200, 120)
    found = views_of(framed(1, 8, box) + framed(2, 8, box), rows((0, 8), (1, 8)), tmp_path)
    of_video = [view for view in found if view.span == Span()]
    assert len(of_video) == 1
    assert of_video[0].region is not None
    assert overlap(of_video[0].region, Region(*box)) > 0.9
    of_shots = [view for view in found if view.span != Span()]
    assert of_shots, "each shot has rectangles of its own between the border and the sides of the frame"
    for view in of_shots:
        assert view.region is not None
        assert overlap(view.region, of_video[0].region) <= MAX_IOU
    assert len(found) == len(set(found))


def test_shots_come_last_first_so_that_time_goes_back_at_each_view(tmp_path: Path) -> None:
    pictures = framed(1, 6, (60, 20, 200, 120)) + framed(2, 6, (20, 10, 130, 134))
    found = [view.span for view in views_of(pictures, rows((0, 6), (1, 6)), tmp_path) if view.span != Span()]
    assert len(found) >= 2
    assert found == sorted(found, key=lambda span: -span.start)


def test_an_inset_over_a_moving_picture_is_a_view_if_asked_for(tmp_path: Path) -> None:
    pictures = plain(5, 8)
    for frame, inner in zip(pictures, moving_frames(8 * FPS, height=60, width=100, seed=9), strict=True):
        frame[40:100, 70:170] = inner
    found = views_of(pictures, rows((0, 8)), tmp_path)
    assert any(overlap(view.region, Region(70, 40, 170, 100)) > 0.8 for view in found if view.region is not None)
    without = views_of(pictures, rows((0, 8)), tmp_path, Scenes(scope="shots"))
    assert len(without) < len(found)


@pytest.mark.parametrize(
    ("interval_s", "apart_s", "expected"), [(0, 1, 1), (2, 1, 2), (2, 1.001, 2), (2, 0.5, 4), (2, 2, 1), (2, 9, 1)]
)
def test_of_views_one_picture_an_interval_is_described(
    tmp_path: Path, interval_s: float, apart_s: float, expected: int
) -> None:
    config = Scenes(scope="shots", view_interval_s=interval_s)
    write_video(tmp_path / "v.mp4", framed(1, 8, (60, 20, 200, 120)), fps=FPS)
    with closing(PyAvFrameSource(Media("v", tmp_path / "v.mp4"))) as source:
        found = scene_views(source, rows((0, 8)), seconds(8, apart_s=apart_s), config=config)
    assert [view.step for view in found] == [expected]


def test_plain_footage_of_one_shot_has_no_views(tmp_path: Path) -> None:
    assert views_of(plain(3, 8), rows((0, 8)), tmp_path) == []


def test_maps_of_a_shot_are_let_go_when_its_regions_are_known(tmp_path: Path) -> None:
    """They are as large as a picture and more, and a film has a thousand shots."""
    alive: weakref.WeakSet[SpanStatistics] = weakref.WeakSet()
    most = 0

    class Watched(PyAvFrameSource):
        def span_statistics(self, spans: Sequence[Span]) -> Iterator[tuple[int, SpanStatistics]]:
            nonlocal most
            for place, statistics in super().span_statistics(spans):
                alive.add(statistics)
                most = max(most, len(alive))
                yield place, statistics
                del statistics

    runs = [(number % 8, 4) for number in range(8)]
    write_video(tmp_path / "v.mp4", plain(1, 32), fps=FPS)
    with closing(Watched(Media("v", tmp_path / "v.mp4"))) as source:
        scene_views(source, rows(*runs), seconds(32), config=CONFIG)
    assert 1 <= most <= 2
