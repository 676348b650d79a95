"""Rectangles in a shot that are videos of their own over a picture that moves, too: insets, tiles, split screens.

The border of an inset stays where it is, while the edges of what moves come and go. So a pixel's gradient is lasting if
it is there in most frames of the shot: the 30th percentile of its absolute value over the frames. From the lasting
gradients across columns and rows come straight lines, from pairs of lines and the sides of the frame rectangles, and a
rectangle is as good as its weakest side. A door frame before a camera that stands still has lasting sides, too; but
nothing moves there, neither within it nor around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, cycle, islice
from typing import Any, NamedTuple

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
BONUSES = ((0.15, 0.15), (0.3, 0.0))
"""What a side inside the frame, and the root of the share of its area, add to the score of a rectangle, in two orders
that take turns: four weak sides tell more of an inset than one strong side, but letters have sides, too."""
MIN_AREA_SHARE, MAX_AREA_SHARE = 0.015, 0.9
MAX_IOU = 0.6
AROUND_PX = 6
MIN_MOTION, MIN_MOTION_AROUND = 2.5, 5.0
"""Grey levels, the mean of pixels' standard deviations over the frames. Of 240 insets of `benchmarks.layouts` the
stillest has 3.15 within it."""


class Rectangle(NamedTuple):
    """A region, how much of an edge its weakest side is, 0 to 1, and how many of its sides lie inside the frame."""

    region: Region
    score: float
    num_sides: int


def find_rectangles(thumbnails: NDArray[np.uint8], *, min_scores: Sequence[float], max_count: int) -> list[Rectangle]:
    """The best rectangles in the frames of a shot, uint8 ``(K, h, w)``, best first."""
    columns = lasting_contrast(_gradients(thumbnails[..., 1:], thumbnails[..., :-1]).transpose(0, 2, 1))  # (w - 1, h)
    rows = lasting_contrast(_gradients(thumbnails[:, 1:], thumbnails[:, :-1]))  # (h - 1, w)
    height, width = thumbnails.shape[1:]
    across = [0, *(line + 1 for line in best_lines(columns)), width]
    down = [0, *(line + 1 for line in best_lines(rows)), height]
    sums = [np.pad(np.cumsum(contrast, axis=1), ((0, 0), (1, 0))) for contrast in (columns, rows)]
    xs, ys = (np.array(list(combinations(lines, 2))) for lines in (across, down))
    widths, heights = xs[:, 1] - xs[:, 0], ys[:, 1] - ys[:, 0]
    of_columns, of_rows = _sides(sums[0], xs, ys, end=width), _sides(sums[1], ys, xs, end=height).transpose(0, 2, 1)
    sides = np.concatenate([of_columns, of_rows])  # (4, X, Y), infinite where it is a side of the frame
    score, num_sides = sides.min(axis=0), np.isfinite(sides).sum(axis=0)
    fits = np.minimum(widths[:, None], heights) >= MIN_SIDE_PX
    areas = widths[:, None] * heights / (width * height)
    fits &= (areas >= MIN_AREA_SHARE) & (areas <= MAX_AREA_SHARE)
    fits &= score >= np.append(min_scores, np.inf)[num_sides - 1]
    fits &= _moves(thumbnails, xs, ys)
    places = np.flatnonzero(fits)
    orders = []
    for side_bonus, size_bonus in BONUSES:
        rank = -(score + side_bonus * num_sides + size_bonus * np.sqrt(areas)).ravel()[places]
        best = np.unravel_index(places[np.argsort(rank, kind="stable")], score.shape)
        orders.append(
            Rectangle(Region(*xs[x, :1], *ys[y, :1], *xs[x, 1:], *ys[y, 1:]), score[x, y], num_sides[x, y])
            for x, y in zip(*best, strict=True)
        )
    return _distinct(orders, max_count=max_count)


def _gradients(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Absolute differences, in 8 bits throughout: wider ones of all frames of a shot would take tens of MB."""
    gradients: NDArray[np.uint8] = np.maximum(one, other)
    gradients -= np.minimum(one, other)
    return gradients


def lasting_contrast(gradients: NDArray[Any]) -> FloatArray:
    """How much of a lasting edge each pixel border is, 0 to 1, ``(L, n)``, from absolute gradients ``(K, L, n)``."""
    lasting = _nth_smallest(gradients, int(len(gradients) * PERCENTILE / 100)).astype(np.float32)
    padded = np.pad(lasting, ((3, 3), (0, 0)), mode="edge")
    beside = np.maximum(padded[: len(lasting)], padded[6:])
    contrast: FloatArray = np.clip((lasting - beside) / FULL_CONTRAST, 0, 1)
    return contrast


def _nth_smallest(arrays: NDArray[Any], n: int) -> NDArray[Any]:
    """``np.sort(arrays, axis=0)[n]``, many times faster for a few large arrays: by whole arrays, not pixel by pixel."""
    smallest: list[NDArray[Any]] = []
    for array in arrays:
        larger = array
        for place, one in enumerate(smallest):
            smallest[place], larger = np.minimum(one, larger), np.maximum(one, larger)
        if len(smallest) <= n:
            smallest.append(larger)
    return smallest[n]


def best_lines(contrast: FloatArray) -> list[int]:
    """The lines of ``contrast (L, n)`` with the longest strong run; at most `NUM_LINES`, none beside another."""
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


def _sides(sums: FloatArray, lines: NDArray[np.intp], spans: NDArray[np.intp], *, end: int) -> NDArray[np.float64]:
    """How much of an edge each line of pairs ``(X, 2)`` is over each span ``(Y, 2)``: ``(2, X, Y)``."""
    first, last = spans.T
    strengths = (sums[:, last] - sums[:, first]).astype(np.float64) / (last - first)
    inside = (lines > 0) & (lines < end)
    found: NDArray[np.float64] = np.where(inside[..., None], strengths[np.clip(lines, 1, end - 1) - 1], np.inf)
    return found.transpose(1, 0, 2)


def _moves(thumbnails: NDArray[np.uint8], xs: NDArray[np.intp], ys: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether anything moves in each rectangle of columns ``xs (X, 2)`` and rows ``ys (Y, 2)``, or around it."""
    motion = thumbnails.std(axis=0, dtype=np.float32)
    sums = np.pad(motion.cumsum(axis=0, dtype=np.float64).cumsum(axis=1), ((1, 0), (1, 0)))

    def total(columns: NDArray[np.intp], rows: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
        (left, right), (top, bottom) = columns.T[..., None], rows.T
        of_motion = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return of_motion, (right - left) * (bottom - top)

    height, width = motion.shape
    beyond = np.array([-AROUND_PX, AROUND_PX])
    within, num_within = total(xs, ys)
    both, num_both = total(np.clip(xs + beyond, 0, width), np.clip(ys + beyond, 0, height))
    moves_around = both - within >= MIN_MOTION_AROUND * np.maximum(num_both - num_within, 1)
    return np.asarray((within >= MIN_MOTION * num_within) | moves_around)


def _distinct(orders: Sequence[Iterator[Rectangle]], *, max_count: int) -> list[Rectangle]:
    """The first rectangle of each order in turn that is not much the same as one before."""
    kept: list[Rectangle] = []
    for order in islice(cycle(orders), max_count):
        for rectangle in order:
            if all(overlap(rectangle.region, other.region) <= MAX_IOU for other in kept):
                kept.append(rectangle)
                break
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
