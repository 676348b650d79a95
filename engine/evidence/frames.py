"""Which times of a query and of a reference show the same, and the pictures at them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.errors import MediaError
from engine.records import Frames, Match
from engine.video.stills import stills


def matching_times(match: Match, num_pairs: int) -> list[tuple[float, float]]:
    """Times of the query and of the reference that show the same, in seconds: ``num_pairs``, spread over the match.

    The reference runs forward over its segment, and backward where the speed is below zero.
    """
    shares = (np.arange(num_pairs) + 0.5) / num_pairs
    is_backward = match.speed is not None and match.speed < 0
    query_s = match.query_start_s + shares * (match.query_end_s - match.query_start_s)
    ref_s = match.ref_start_s + (1 - shares if is_backward else shares) * (match.ref_end_s - match.ref_start_s)
    return list(zip(query_s.tolist(), ref_s.tolist(), strict=True))


def look_at(path: Path | None, times_s: Sequence[float], *, short_side_px: int) -> dict[float, Frames] | str:
    """The picture at each time, or in one line why there is none.

    ``path`` None stands for a video that was not found. For ``short_side_px`` see `engine.video.stills.stills`.
    """
    if path is None:
        return "not readable: the file was not found"
    try:
        return {still.time_s: still.picture for still in stills(path, times_s, short_side_px=short_side_px)}
    except MediaError as error:
        return f"not readable: {error}"
