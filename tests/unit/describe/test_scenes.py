"""Frame scenes: generated stacks and maps with boxes derived by hand, and the recorded stacks."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from engine.describe.scenes import find_scenes
from engine.video.statistics import SceneStatistics, SceneStatisticsAccumulator
from tests.conftest import golden_root, recorded

SCENES = golden_root() / "scenes"
STACKS = json.loads((SCENES / "golden.json").read_text())["stacks"] if SCENES.is_dir() else {}

Box = tuple[int, int, int, int]
Maps = NDArray[np.float64]


def boxes_of_frames(frames: NDArray[np.uint8]) -> list[Box]:
    accumulator = SceneStatisticsAccumulator(num_frames=len(frames))
    for frame in frames:
        accumulator.add(frame)
    return [region.box for region in find_scenes(accumulator.finish())]


def boxes_of_maps(variance: Maps, edge_mean: Maps, *, num_frames: int = 9) -> list[Box]:
    statistics = SceneStatistics(num_frames=num_frames, variance=variance, edge_mean=edge_mean)
    return [region.box for region in find_scenes(statistics)]


def stack_of(*videos: Box, size: tuple[int, int], num_frames: int = 12, grey: int = 160) -> NDArray[np.uint8]:
    """Black frames of ``size`` (width, height) with pulsing grey boxes.

    A box has edges only at its outline: of the two rows (columns) on either side of it, which have equal gradients,
    Canny keeps the upper (left) one.
    """
    frames = np.zeros((num_frames, size[1], size[0], 3), np.uint8)
    pulse = grey + 30 * np.sin(np.arange(num_frames))
    for x0, y0, x1, y1 in videos:
        frames[:, y0:y1, x0:x1] = pulse[:, None, None, None]
    return frames


def test_one_video_that_fills_the_frame_is_left_alone() -> None:
    assert boxes_of_frames(stack_of((0, 0, 320, 240), size=(320, 240))) == []


def test_letterbox_is_cut_off() -> None:
    # Edge lines are rows 39 and 219: the first is cut off with its border, the second too (ends are exclusive).
    assert boxes_of_frames(stack_of((0, 40, 320, 220), size=(320, 260))) == [(0, 40, 320, 219)]


def test_video_on_black_is_cut_out() -> None:
    assert boxes_of_frames(stack_of((60, 50, 260, 190), size=(320, 240))) == [(60, 50, 259, 189)]


@pytest.mark.parametrize(("num_frames", "expected"), [(4, []), (5, [(0, 40, 320, 219)])])
def test_fewer_than_five_frames_are_never_cut(num_frames: int, expected: list[Box]) -> None:
    assert boxes_of_frames(stack_of((0, 40, 320, 220), size=(320, 260), num_frames=num_frames)) == expected


def test_a_short_bar_is_cut_at_its_line() -> None:
    # A line less than five pixels from the side does not trim a border. It still splits, and stays with its piece.
    assert boxes_of_frames(stack_of((0, 5, 200, 200), size=(200, 200))) == [(0, 4, 200, 200)]
    assert boxes_of_frames(stack_of((0, 6, 200, 200), size=(200, 200))) == [(0, 6, 200, 200)]


def test_side_by_side_with_a_still_gap() -> None:
    # The cut is two columns into the gap; the rest of the gap is trimmed from the right piece, but two columns are too
    # few to be trimmed from the left one.
    frames = stack_of((0, 0, 150, 120), (170, 0, 320, 120), size=(320, 120))
    assert boxes_of_frames(frames) == [(0, 0, 152, 120), (170, 0, 320, 120)]


def test_grid_comes_in_reading_order() -> None:
    frames = stack_of((0, 0, 120, 100), (140, 0, 260, 100), (0, 120, 120, 220), (140, 120, 260, 220), size=(260, 220))
    assert boxes_of_frames(frames) == [
        (0, 0, 122, 102),
        (140, 0, 260, 102),
        (0, 120, 122, 220),
        (140, 120, 260, 220),
    ]


def test_pieces_of_eighty_pixels_are_dropped() -> None:
    # Cut at column 80: the left piece is 80 wide. One column more and it stays.
    assert boxes_of_frames(stack_of((0, 0, 78, 150), (98, 0, 320, 150), size=(320, 150))) == [(98, 0, 320, 150)]
    assert boxes_of_frames(stack_of((0, 0, 79, 150), (99, 0, 320, 150), size=(320, 150))) == [
        (0, 0, 81, 150),
        (99, 0, 320, 150),
    ]


@pytest.mark.parametrize(
    ("size", "second", "expected"),
    [
        ((300, 150), (150, 0, 300, 150), [(149, 0, 300, 150), (0, 0, 149, 150)]),
        ((150, 300), (0, 150, 150, 300), [(0, 149, 150, 300), (0, 0, 150, 149)]),
    ],
)
def test_videos_that_touch_are_cut_along_their_line_last_first(
    size: tuple[int, int], second: Box, expected: list[Box]
) -> None:
    width, height = size
    frames = stack_of((0, 0, width, height), size=size, grey=40)
    bright = stack_of(second, size=size, grey=220)
    assert boxes_of_frames(np.maximum(frames, bright)) == expected


def test_flat_still_frames_pass_unchanged() -> None:
    # Cuts every 54 rows or columns leave no piece that is wide enough.
    assert boxes_of_frames(stack_of(size=(300, 200))) == []


def test_still_rows_shift_the_search_over_columns() -> None:
    # Rows are still on average (0.08), and cut at rows 54 and 108 into pieces that are too small. The search over
    # columns then starts at column 108, and ends in the first window that has no more than three moving columns.
    variance = np.zeros((150, 300))
    variance[:, 70:230] = 0.15
    assert boxes_of_maps(variance, np.zeros_like(variance)) == [(108, 0, 229, 150)]


@pytest.mark.parametrize(
    ("still", "level", "expected"),
    [
        (slice(100, 104), 0.0, []),
        (slice(100, 105), 0.0, [(0, 0, 102, 100), (102, 0, 200, 100)]),
        (slice(100, 110), 0.09, [(0, 0, 102, 100), (102, 0, 200, 100)]),
        (slice(100, 110), 0.11, []),
        # The last window is never looked at.
        (slice(195, 200), 0.0, []),
        (slice(194, 200), 0.0, [(0, 0, 196, 100)]),
    ],
)
def test_five_still_columns_are_a_gap(still: slice, level: float, expected: list[Box]) -> None:
    variance = np.full((100, 200), 1000.0)
    variance[:, still] = level
    assert boxes_of_maps(variance, np.zeros_like(variance)) == expected


def bordered(*, border: float = 1.0, share: float = 0.4, edge: float = 1.0) -> tuple[Maps, Maps]:
    """Maps of 200 x 200 pixels: 50 rows of border, then a row with a line over a share of the columns."""
    variance = np.full((200, 200), 1000.0)
    variance[:50] = border
    edge_mean = np.zeros_like(variance)
    edge_mean[50, : round(share * 200)] = edge
    return variance, edge_mean


TRIMMED = [(0, 51, 200, 200)]
SPLIT = [(0, 50, 200, 200)]  # and the upper piece is too small


@pytest.mark.parametrize(
    ("share", "border", "expected"),
    [
        (0.125, 1, []),
        (0.13, 1, TRIMMED),
        (0.4, 37, TRIMMED),
        (0.4, 38, []),
        (0.6, 38, SPLIT),
        (0.66, 124, TRIMMED),
        (0.65, 124, SPLIT),
        (0.66, 126, SPLIT),
    ],
)
def test_the_border_may_be_livelier_where_its_line_is_unbroken(
    share: float, border: float, expected: list[Box]
) -> None:
    assert boxes_of_maps(*bordered(share=share, border=border)) == expected


@pytest.mark.parametrize(("first_lively_row", "expected"), [(35, TRIMMED), (34, [])])
def test_the_inner_part_of_a_border_may_be_lively(first_lively_row: int, expected: list[Box]) -> None:
    variance, edge_mean = bordered()
    variance[first_lively_row:50] = 1e5
    assert boxes_of_maps(variance, edge_mean) == expected


@pytest.mark.parametrize(("num_columns", "expected"), [(4, TRIMMED), (5, [])])
def test_borders_with_edges_are_kept(num_columns: int, expected: list[Box]) -> None:
    variance, edge_mean = bordered()
    edge_mean[:35, : 40 * num_columns : 40] = 1.0
    assert boxes_of_maps(variance, edge_mean) == expected


@pytest.mark.parametrize(
    ("edge", "num_noisy_columns", "noise", "expected"),
    [
        # At least 0.2,
        (0.20, 0, 0.0, []),
        (0.21, 0, 0.0, TRIMMED),
        # and the 0.95 quantile, which four per cent of the pixels do not reach and six do,
        (0.25, 11, 0.3, TRIMMED),
        (0.25, 17, 0.3, []),
        # but no more than the mean (0.054) and 0.35.
        (0.38, 17, 0.9, []),
        (0.43, 17, 0.9, TRIMMED),
    ],
)
def test_only_lasting_edges_make_a_border_line(
    edge: float, num_noisy_columns: int, noise: float, expected: list[Box]
) -> None:
    variance, edge_mean = bordered(edge=edge)
    edge_mean[60:, 200 - num_noisy_columns :] = noise
    assert boxes_of_maps(variance, edge_mean) == expected


@pytest.mark.parametrize(("line", "expected"), [(179, [(0, 180, 200, 200)]), (180, [])])
def test_trimming_that_leaves_fewer_than_twenty_rows_is_undone(line: int, expected: list[Box]) -> None:
    variance = np.full((200, 200), 1000.0)
    variance[:line] = 1.0
    edge_mean = np.zeros_like(variance)
    edge_mean[line, :80] = 1.0
    assert boxes_of_maps(variance, edge_mean) == expected


def test_trimming_with_crossed_ends_is_undone() -> None:
    # Both halves count as border of the other.
    variance = np.full((200, 200), 10.0)
    edge_mean = np.zeros_like(variance)
    edge_mean[100] = 1.0
    assert boxes_of_maps(variance, edge_mean) == []


def test_the_outermost_rows_are_no_border_lines() -> None:
    # Rows are calm enough to be border of a line at row 0; it is the line at column 100 that counts.
    variance = np.full((200, 200), 40.0)
    variance[:, :100] = 10.0
    edge_mean = np.zeros_like(variance)
    edge_mean[0] = edge_mean[:80, 100] = 1.0
    assert boxes_of_maps(variance, edge_mean) == [(101, 0, 200, 200)]


def crossed(*, row: int | None, column: int | None, size: tuple[int, int], edge: float = 1.0) -> tuple[Maps, Maps]:
    """Maps of a lively frame of ``size`` (width, height) with lines over all of it."""
    edge_mean = np.zeros(size[::-1])
    if row is not None:
        edge_mean[row] = edge
    if column is not None:
        edge_mean[:, column] = edge
    return np.full(size[::-1], 1000.0), edge_mean


def test_the_longer_side_is_cut_first() -> None:
    assert boxes_of_maps(*crossed(row=100, column=150, size=(300, 200))) == [
        (150, 100, 300, 200),
        (150, 0, 300, 100),
        (0, 100, 150, 200),
        (0, 0, 150, 100),
    ]
    assert boxes_of_maps(*crossed(row=150, column=100, size=(200, 300))) == [
        (100, 150, 200, 300),
        (0, 150, 100, 300),
        (100, 0, 200, 150),
        (0, 0, 100, 150),
    ]
    assert boxes_of_maps(*crossed(row=100, column=None, size=(300, 200))) == [(0, 100, 300, 200), (0, 0, 300, 100)]


def test_lines_near_the_previous_cut_are_passed_over() -> None:
    variance, edge_mean = crossed(row=100, column=None, size=(200, 300))
    edge_mean[[219, 220]] = 1.0
    assert boxes_of_maps(variance, edge_mean) == [(0, 219, 200, 300), (0, 100, 200, 219), (0, 0, 200, 100)]


@pytest.mark.parametrize(("share", "expected"), [(0.45, []), (0.46, [(0, 100, 200, 200), (0, 0, 200, 100)])])
def test_a_line_to_split_at_is_nearly_half_unbroken(share: float, expected: list[Box]) -> None:
    variance, edge_mean = crossed(row=100, column=None, size=(200, 200))
    edge_mean[100, round(share * 200) :] = 0.0
    assert boxes_of_maps(variance, edge_mean) == expected


@pytest.mark.parametrize(("edge", "expected"), [(0.34, []), (0.37, [(0, 100, 200, 200), (0, 0, 200, 100)])])
def test_only_lasting_edges_make_a_line_to_split_at(edge: float, expected: list[Box]) -> None:
    # Noise on six per cent of the pixels: an edge must exceed the mean (0.055) by 0.3.
    variance, edge_mean = crossed(row=100, column=None, size=(200, 200), edge=edge)
    edge_mean[60:100, 183:] = edge_mean[101:, 183:] = 0.9
    assert boxes_of_maps(variance, edge_mean) == expected


@pytest.mark.parametrize("seed", range(30))
def test_regions_lie_apart_inside_the_frame(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(10, 400, 2)
    variance = rng.exponential(10.0 ** rng.uniform(-2, 3), (height, width))
    variance[rng.random(height) < rng.choice([0, 0.02, 0.2])] = 0
    variance[:, rng.random(width) < rng.choice([0, 0.02, 0.2])] = 0
    edge_mean = (rng.random((height, width)) < 0.01) * 0.5
    edge_mean[rng.integers(0, height, 4)] = rng.random((4, 1))
    edge_mean[:, rng.integers(0, width, 4)] = rng.random(4)
    boxes = boxes_of_maps(variance, edge_mean)
    assert all(x1 <= width and y1 <= height for _, _, x1, y1 in boxes)
    for a, b in combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


@pytest.mark.parametrize("name", recorded(STACKS))
def test_recorded_stacks(name: str) -> None:
    case = STACKS[name]
    frames = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in sorted((SCENES / name).glob("*.webp"))])
    expected = [tuple(box) for box in case["boxes_xyxy"]] if case["status"] else []
    assert boxes_of_frames(frames) == expected
