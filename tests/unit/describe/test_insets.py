"""Rectangles over moving pictures: found where one was put, and seldom where none is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.config import Scenes
from engine.describe.insets import _nth_smallest, best_lines, find_insets, find_rectangles, lasting_contrast, overlap
from engine.records import Region
from engine.video.statistics import SceneStatistics, SpanStatistics
from tests.videos import moving_frames

SCORES = Scenes().min_side_contrasts
HEIGHT, WIDTH = 144, 256
Stack = NDArray[np.uint8]


def footage(seed: int, *, height: int = HEIGHT, width: int = WIDTH, num_frames: int = 8) -> Stack:
    return np.stack([frame[..., 1] for frame in moving_frames(num_frames, height=height, width=width, seed=seed)])


def with_inset(box: tuple[int, int, int, int], *, seed: int = 0) -> Stack:
    x0, y0, x1, y1 = box
    frames = footage(seed)
    frames[:, y0:y1, x0:x1] = footage(seed + 100, height=y1 - y0, width=x1 - x0)
    return frames


@pytest.mark.parametrize(
    "box", [(40, 30, 120, 90), (0, 0, 100, 60), (150, 80, 256, 144), (90, 40, 154, 76), (60, 20, 230, 130)]
)
@pytest.mark.parametrize("seed", range(3))
def test_an_inset_is_the_first_rectangle(box: tuple[int, int, int, int], seed: int) -> None:
    found = find_rectangles(with_inset(box, seed=seed), min_scores=SCORES, max_count=4)
    assert found
    assert overlap(found[0].region, Region(*box)) >= 0.9
    num_inside = sum((box[0] > 0, box[1] > 0, box[2] < WIDTH, box[3] < HEIGHT))
    assert found[0].num_sides == num_inside


def test_pictures_without_an_inset_seldom_have_one() -> None:
    found = [find_rectangles(footage(seed), min_scores=SCORES, max_count=4) for seed in range(20)]
    assert sum(map(len, found)) <= 2


def test_a_rectangle_in_which_and_around_which_nothing_moves_is_none() -> None:
    box = (60, 30, 140, 90)
    x0, y0, x1, y1 = box
    moving, still = footage(0), np.repeat(footage(0)[:1], 8, axis=0)
    moving_inset = footage(100, height=60, width=80)
    still_inset = np.repeat(moving_inset[:1], 8, axis=0)
    door = still.copy()
    door[:, :, 200:] = moving[:, :, 200:]
    for around, within, is_found in (
        (still, moving_inset, True),
        (moving, still_inset, True),
        (door, still_inset, False),
    ):
        frames = around.copy()
        frames[:, y0:y1, x0:x1] = within
        found = find_rectangles(frames, min_scores=SCORES, max_count=4)
        assert any(overlap(item.region, Region(*box)) >= 0.9 for item in found) is is_found


def test_there_are_no_more_than_asked_for_and_they_differ() -> None:
    frames = footage(0)
    for number, (x, y) in enumerate(((10, 10), (140, 10), (10, 80), (140, 80))):
        frames[:, y : y + 50, x : x + 90] = footage(200 + number, height=50, width=90)
    for max_count in (0, 1, 3):
        assert len(find_rectangles(frames, min_scores=SCORES, max_count=max_count)) == max_count
    four = find_rectangles(frames, min_scores=SCORES, max_count=4)
    assert all(overlap(one.region, other.region) <= 0.6 for one in four for other in four if one is not other)


def test_the_contrast_is_the_percentile_written_out() -> None:
    gradients = np.random.default_rng(0).integers(0, 30, (7, 11, 13)).astype(np.float32)
    lasting = np.sort(gradients, axis=0)[2]
    found = lasting_contrast(gradients)
    for line in range(11):
        beside = np.maximum(lasting[max(line - 3, 0)], lasting[min(line + 3, 10)])
        np.testing.assert_allclose(found[line], np.clip((lasting[line] - beside) / 8, 0, 1), rtol=1e-6)


def test_lines_are_apart_and_strong() -> None:
    contrast = np.zeros((40, 100), np.float32)
    contrast[[7, 8, 30], 20:80] = [[0.9], [1.0], [0.8]]
    contrast[20, ::2] = 1.0  # broken everywhere
    assert best_lines(contrast)[:1] == [8]
    assert 30 in best_lines(contrast)
    assert 7 not in best_lines(contrast)


def test_insets_are_in_pixels_of_the_frames() -> None:
    thumbnails = with_inset((40, 30, 120, 90))
    maps = SceneStatistics(
        num_frames=8, variance=np.zeros((2 * HEIGHT, 2 * WIDTH)), edge_mean=np.zeros((2 * HEIGHT, 2 * WIDTH))
    )
    (inset, *_) = find_insets(SpanStatistics(maps, thumbnails), config=Scenes(max_insets=4))
    assert overlap(inset, Region(80, 60, 240, 180)) > 0.9
    assert find_insets(SpanStatistics(maps, thumbnails), config=Scenes()) == []
    assert find_insets(SpanStatistics(maps, thumbnails[:2]), config=Scenes(max_insets=4)) == []


@pytest.mark.parametrize(("num_arrays", "n"), [(1, 0), (3, 0), (7, 2), (20, 6), (20, 19)])
def test_the_nth_smallest_is_that_of_a_sort(num_arrays: int, n: int) -> None:
    arrays = np.random.default_rng(num_arrays).integers(0, 20, size=(num_arrays, 13, 17), dtype=np.uint8)
    np.testing.assert_array_equal(_nth_smallest(arrays, n), np.sort(arrays, axis=0)[n])
