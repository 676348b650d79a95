"""Frame scenes of shots: cuts a video where its frames change, and finds what to describe within each shot.

Statistics of a whole video wash out what only a part of it shows: a copy that is spliced between other footage, or two
layouts after one another. So frame scenes are looked for in every shot, too, beside those of the whole video and the
whole frames. This is ours; the published method looks at the whole video alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from engine.config import Scenes
from engine.describe.insets import find_insets, overlap
from engine.describe.scenes import find_scenes
from engine.records import FloatArray, Region, Span, View
from engine.video.source import FrameSource

MAX_IOU = 0.8
"""Intersection over union with the frame or another region of the same frames: above, a region shows nothing new."""


def find_shots(embeddings: FloatArray, *, max_cut_cosine: float, min_frames: int) -> list[Span]:
    """The shots of at least ``min_frames`` frames, from the embeddings of the whole frames, float32 ``(F, E)``.

    A shot ends where the cosine of two neighbouring frames is below ``max_cut_cosine``.
    """
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    cuts = np.flatnonzero(np.vecdot(unit[1:], unit[:-1]) < max_cut_cosine) + 1
    borders = pairwise([0, *cuts.tolist(), len(embeddings)])
    return [Span(start, stop) for start, stop in borders if stop - start >= min_frames]


def scene_views(source: FrameSource, embeddings: FloatArray, timestamps: FloatArray, *, config: Scenes) -> list[View]:
    """What to describe beside the whole frames: scenes of the video, then those of shots that it does not have.

    Shots come last first, so that the time of the rows goes back wherever a view begins (`engine.search` tells views
    apart by that). ``embeddings``: of the whole frames, ``(F, E)``; ``timestamps``: their times, ``(F, 2)``.
    """
    step = _step(timestamps, interval_s=config.view_interval_s)
    shots = find_shots(embeddings, max_cut_cosine=config.max_cut_cosine, min_frames=config.min_shot_frames)
    whole = Span(0, len(embeddings))
    spans = [whole, *(shot for shot in reversed(shots) if shot != whole)]
    found: dict[int, list[Region]] = {}
    height = width = 0
    for place, statistics in source.span_statistics(spans):  # maps of all pixels: none is kept
        least = config.min_frames if place == 0 else config.min_shot_frames
        regions = find_scenes(statistics.maps, config=config.model_copy(update={"min_frames": least}))
        insets = find_insets(statistics, config=config) if spans[place] in shots else []
        found[place] = [*regions, *insets]
        height, width = statistics.maps.variance.shape
    frame = Region(0, 0, width, height)
    views: list[View] = []
    known = [frame]
    for place, span in enumerate(spans):
        new = distinct(found[place], known=known)
        views += [View(region, Span() if place == 0 else span, step) for region in new]
        if place == 0:
            known = [frame, *new]
    return views


def _step(timestamps: FloatArray, *, interval_s: float) -> int:
    """How many sampled frames an interval is: of key frames, which lie further apart, fewer."""
    between_s = np.diff(timestamps[:, 0])
    return max(1, round(interval_s / float(np.median(between_s)))) if len(between_s) else 1


def distinct(regions: Sequence[Region], *, known: Sequence[Region]) -> list[Region]:
    """The regions that show something new: those that overlap no known one, and none before, by more than `MAX_IOU`."""
    kept: list[Region] = []
    for region in regions:
        if all(overlap(region, other) <= MAX_IOU for other in (*known, *kept)):
            kept.append(region)
    return kept
