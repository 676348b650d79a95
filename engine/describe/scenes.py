"""Frame scenes: finds the parts of a frame stack that are videos of their own. Sees statistics only, never pixels.

An edited video often shows another video inside a border, or several side by side. Both leave traces in two maps
over the pixels: the *variance* over time is low where nothing moves, and the *edges* averaged over frames keep only
lines that stay in place, such as the outline of an inset. A region (at first the whole frame) is treated so:

1. **Trim** the border. A candidate line is a row or column with clearly more lasting edges than the average one. Going
   inwards from each side, what lies outside the line is cut away if it is free of edges and hardly moves; a line
   that is nearly unbroken may have livelier outskirts (a blurred copy of the video as padding).
2. **Split** what is left: at bands of rows that do not move, else at such columns, else along nearly unbroken lines,
   first across the longer side. Pieces too narrow to be a video are dropped.
3. Repeat both for every piece until a piece stays whole. The maps are cropped, not computed anew.

Thresholds (`engine.config.Scenes`), order of the output and corner cases are those of the VSC2022 winner
(``image_preprocess.py`` of FeipengMa6/VSC22-Submission).
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from engine.config import Scenes
from engine.records import Region
from engine.video.statistics import SceneStatistics

Span = tuple[int, int]
Profile = NDArray[np.floating]
"""One value per row or per column of a region."""

_WINNER = Scenes()


def find_scenes(statistics: SceneStatistics, *, config: Scenes = _WINNER) -> tuple[Region, ...]:
    """The regions to describe as videos of their own; empty if the frames are to be used as they are.

    Pieces cut at still bands come in reading order, pieces cut along lines from the bottom or right end first. Fewer
    than five frames are never cut. A single region is smaller than the frame. Static videos are cut too: without
    motion, bands are still everywhere.
    """
    height, width = statistics.variance.shape
    frame = Region(0, 0, width, height)
    if statistics.num_frames < config.min_frames:
        return ()
    scenes = tuple(_scenes_within(frame, statistics, config))
    return () if scenes == (frame,) else scenes


def _scenes_within(region: Region, statistics: SceneStatistics, config: Scenes) -> list[Region]:
    trimmed = _trim(region, statistics, config)
    if trimmed is None:
        return [region]
    pieces = _split(trimmed, statistics, config)
    if pieces == [trimmed]:
        return [trimmed]
    return [scene for piece in pieces for scene in _scenes_within(piece, statistics, config)]


def _trim(region: Region, statistics: SceneStatistics, config: Scenes) -> Region | None:
    """The region without its still border; None if too little would remain."""
    variance = _crop(statistics.variance, region)
    edges = _lasting_edges(_crop(statistics.edge_mean, region), margin=config.trim_margin, config=config)
    y0, y1 = _trim_profile(variance.mean(axis=1), edges.mean(axis=1), config)
    x0, x1 = _trim_profile(variance.mean(axis=0), edges.mean(axis=0), config)
    # The two ends are found independently and may even have crossed.
    if min(y1 - y0, x1 - x0) < config.min_trimmed_px:
        return None
    return Region(region.x0 + x0, region.y0 + y0, region.x0 + x1, region.y0 + y1)


def _trim_profile(variance: Profile, edges: Profile, config: Scenes) -> Span:
    start, end = 0, len(edges)
    candidates = np.flatnonzero(edges > config.trim_line_excess + edges.mean()).tolist()
    lines = [line for line in candidates if 0 < line < len(edges) - 1]
    for line in lines:
        # The part next to the line is left out: compression and resizing smear the picture over it.
        outside = slice(start, line - round((line - start) * config.border_inner_share))
        if line - start >= config.min_border_px and _is_border(
            variance[outside], edges[outside], line_strength=edges[line], config=config
        ):
            start = line + 1
    for line in reversed(lines):
        outside = slice(line + round((end - line) * config.border_inner_share), end)
        if end - line >= config.min_border_px and _is_border(
            variance[outside], edges[outside], line_strength=edges[line], config=config
        ):
            end = line
    return start, end


def _is_border(variance: Profile, edges: Profile, *, line_strength: np.floating, config: Scenes) -> bool:
    if edges.mean() >= config.max_border_edges:
        return False
    max_activity = (
        config.max_activity_at_unbroken_line if line_strength > config.unbroken_line else config.max_border_activity
    )
    return bool(np.median(variance) + variance.mean() < max_activity)


def _split(region: Region, statistics: SceneStatistics, config: Scenes) -> list[Region]:
    """The pieces of a region, ``[region]`` if it is one picture."""
    variance = _crop(statistics.variance, region)
    rows, last_cut = _split_at_still_bands(variance.mean(axis=1), start=0, config=config)
    if rows:
        return _row_pieces(region, rows)
    # If still bands left no piece of rows, the search over columns starts at the last row cut. Meaningless, but so
    # does the reference, and static videos depend on it.
    columns, _ = _split_at_still_bands(variance.mean(axis=0), start=last_cut, config=config)
    if columns:
        return _column_pieces(region, columns)
    edges = _lasting_edges(_crop(statistics.edge_mean, region), margin=config.split_margin, config=config)
    threshold = config.split_line_excess + edges.mean()
    row_pieces = _row_pieces(region, _split_at_lines(edges.mean(axis=1) > threshold, config))
    column_pieces = _column_pieces(region, _split_at_lines(edges.mean(axis=0) > threshold, config))
    width, height = region.size
    return (column_pieces or row_pieces if width > height else row_pieces or column_pieces) or [region]


def _split_at_still_bands(variance: Profile, *, start: int, config: Scenes) -> tuple[list[Span], int]:
    """Spans between still bands, and where the last cut was made (``start`` if there was none).

    A cut is made in the first still window after a moving one, or after ``max_still_px`` without any movement.
    """
    spans = []
    inside = False
    window_means = sliding_window_view(variance, config.gap_px).mean(axis=-1)[:-1]
    for i, window_mean in enumerate(window_means.tolist()):
        if not inside:
            inside = window_mean > config.still_variance or i - start > config.max_still_px
        elif window_mean < config.still_variance:
            cut = i + config.gap_px // 2
            spans.append((start, cut))
            inside, start = False, cut
    if start != 0:
        spans.append((start, len(variance)))
    return [(begin, end) for begin, end in spans if end - begin > config.min_piece_px], start


def _split_at_lines(is_line: NDArray[np.bool_], config: Scenes) -> list[Span]:
    """Spans between lines, last first; lines closer than a piece's width to the previous cut are passed over."""
    spans = []
    end = len(is_line)
    for line in reversed(np.flatnonzero(is_line).tolist()):
        if end - line > config.min_piece_px:
            spans.append((line, end))
            end = line
    if spans and end > config.min_piece_px:
        spans.append((0, end))
    return spans


def _lasting_edges(edge_mean: NDArray[np.float64], *, margin: float, config: Scenes) -> NDArray[np.float32]:
    """1 where an edge stays in place, 0 elsewhere; float32 because the reference's thresholds are met in it."""
    floor = max(np.quantile(edge_mean, config.lasting_quantile), config.lasting_floor)
    lasting: NDArray[np.float32] = (edge_mean > min(floor, edge_mean.mean() + margin)).astype(np.float32)
    return lasting


def _crop(pixels: NDArray[np.float64], region: Region) -> NDArray[np.float64]:
    return pixels[region.y0 : region.y1, region.x0 : region.x1]


def _row_pieces(region: Region, spans: list[Span]) -> list[Region]:
    return [Region(region.x0, region.y0 + start, region.x1, region.y0 + end) for start, end in spans]


def _column_pieces(region: Region, spans: list[Span]) -> list[Region]:
    return [Region(region.x0 + start, region.y0, region.x0 + end, region.y1) for start, end in spans]
