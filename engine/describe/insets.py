"""Rectangles in a shot that are videos of their own over a picture that moves, too: insets, tiles, split screens.

The border of an inset stays where it is, while the edges of what moves come and go. So a pixel's gradient is lasting if
it is there in most frames of the shot: the 30th percentile of its absolute value over the frames. From the lasting
gradients across columns and rows come straight lines, from pairs of lines and the sides of the frame rectangles, and a
rectangle is as good as its weakest side.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.config import Scenes
from engine.records import FloatArray, Region
from engine.video.statistics import SpanStatistics

PERCENTILE = 30
FULL_CONTRAST = 8.0
"""Grey levels from which on a lasting gradient counts as a whole edge."""

NUM_LINES = 14
MIN_LINE_SHARE = 0.12
MIN_SIDE_PX = 20
SIDE_BONUS = 0.3
MAX_AREA_SHARE = 0.9
MAX_IOU = 0.6


class Rectangle(NamedTuple):
    """A region, how much of an edge its weakest side is, 0 to 1, and how many of its sides lie inside the frame."""

    region: Region
    score: float
    num_sides: int


def find_rectangles(thumbnails: NDArray[np.uint8], *, min_scores: Sequence[float], max_count: int) -> list[Rectangle]:
    """The best rectangles in the frames of a shot, uint8 ``(K, h, w)``, best first."""
    frames = thumbnails.astype(np.float32)
    columns = lasting_contrast(np.abs(np.diff(frames, axis=2)).transpose(0, 2, 1))  # (w - 1, h)
    rows = lasting_contrast(np.abs(np.diff(frames, axis=1)))  # (h - 1, w)
    height, width = thumbnails.shape[1:]
    across = [0, *(line + 1 for line in best_lines(columns)), width]
    down = [0, *(line + 1 for line in best_lines(rows)), height]
    sums = [np.pad(np.cumsum(contrast, axis=1), ((0, 0), (1, 0))) for contrast in (columns, rows)]
    found = []
    for x0, x1 in combinations(across, 2):
        for y0, y1 in combinations(down, 2):
            if min(x1 - x0, y1 - y0) < MIN_SIDE_PX or (x1 - x0) * (y1 - y0) > MAX_AREA_SHARE * width * height:
                continue
            sides = [_side(sums[0], x, y0, y1) for x in (x0, x1) if 0 < x < width]
            sides += [_side(sums[1], y, x0, x1) for y in (y0, y1) if 0 < y < height]
            if min(sides) >= min_scores[len(sides) - 1]:
                found.append(Rectangle(Region(x0, y0, x1, y1), min(sides), len(sides)))
    found.sort(key=lambda item: -(item.score + SIDE_BONUS * item.num_sides))
    return _distinct(found, max_count=max_count)


def lasting_contrast(gradients: FloatArray) -> FloatArray:
    """How much of a lasting edge each pixel border is, 0 to 1, ``(L, n)``, from absolute gradients ``(K, L, n)``."""
    k = int(len(gradients) * PERCENTILE / 100)
    lasting = np.partition(gradients, k, axis=0)[k]
    padded = np.pad(lasting, ((3, 3), (0, 0)), mode="edge")
    beside = np.maximum(padded[: len(lasting)], padded[6:])
    contrast: FloatArray = np.clip((lasting - beside) / FULL_CONTRAST, 0, 1)
    return contrast


def best_lines(contrast: FloatArray) -> list[int]:
    """The lines with the longest strong run, at most `NUM_LINES`, no two beside each other."""
    strength = _best_runs(contrast - 0.35)
    strength[strength < MIN_LINE_SHARE * contrast.shape[1] * 0.3] = 0
    chosen: list[int] = []
    for line in np.argsort(-strength, kind="stable").tolist():
        if strength[line] <= 0 or len(chosen) == NUM_LINES:
            break
        if all(abs(line - other) > 2 for other in chosen):
            chosen.append(line)
    return sorted(chosen)


def _best_runs(values: FloatArray) -> FloatArray:
    """The largest sum of consecutive values in each row."""
    best = np.zeros(len(values), np.float32)
    current = np.zeros(len(values), np.float32)
    for column in values.T:
        current = np.maximum(current + column, 0)
        best = np.maximum(best, current)
    return best


def _side(sums: FloatArray, line: int, start: int, stop: int) -> float:
    return float(sums[line - 1, stop] - sums[line - 1, start]) / (stop - start)


def _distinct(rectangles: list[Rectangle], *, max_count: int) -> list[Rectangle]:
    kept: list[Rectangle] = []
    for rectangle in rectangles:
        if len(kept) == max_count:
            break
        if all(overlap(rectangle.region, other.region) <= MAX_IOU for other in kept):
            kept.append(rectangle)
    return kept


def find_insets(statistics: SpanStatistics, *, config: Scenes) -> list[Region]:
    """The rectangles of a shot in pixels of its frames, best first."""
    height, width = statistics.maps.variance.shape
    scale_y, scale_x = height / statistics.thumbnails.shape[1], width / statistics.thumbnails.shape[2]
    if not config.max_insets or len(statistics.thumbnails) < config.min_shot_frames:
        return []
    found = find_rectangles(statistics.thumbnails, min_scores=config.min_side_contrasts, max_count=config.max_insets)
    return [
        Region(round(x0 * scale_x), round(y0 * scale_y), round(x1 * scale_x), round(y1 * scale_y))
        for x0, y0, x1, y1 in (rectangle.region.box for rectangle in found)
    ]


def overlap(one: Region, other: Region) -> float:
    """Intersection over union."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    intersection = max(width, 0) * max(height, 0)
    areas = sum((item.x1 - item.x0) * (item.y1 - item.y0) for item in (one, other))
    return intersection / (areas - intersection)
