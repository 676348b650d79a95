"""Which times of a query and of a reference show the same, and the pictures at them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self, TypeVar

import numpy as np

from engine.errors import MediaError, RemoteError
from engine.isolation import CallEndedError, IsolatedProcess, ThisProcess
from engine.records import Frames, Match, Media
from engine.storage.location import Location
from engine.video.media import claimed_duration_s
from engine.video.stills import stills

LIMIT_S = 60.0
LIMIT_PER_PICTURE_S = 30.0
"""Of a file without an index all is read up to the last picture, and some keyframes are minutes apart."""

Seen = TypeVar("Seen")


def matching_times(match: Match, num_pairs: int) -> list[tuple[float, float]]:
    """Times of the query and of the reference that show the same, in seconds: ``num_pairs``, spread over the match."""
    shares = (np.arange(num_pairs) + 0.5) / num_pairs
    query_s = match.query_start_s + shares * (match.query_end_s - match.query_start_s)
    return [(time_s, matching_ref_time(match, time_s)) for time_s in query_s.tolist()]


def matching_ref_time(match: Match, query_s: float) -> float:
    """When the reference shows what the query shows at ``query_s``, in seconds.

    The reference runs forward over its segment, and backward where the speed is below zero.
    """
    length_s = match.query_end_s - match.query_start_s
    share = (query_s - match.query_start_s) / length_s if length_s else 0.5
    is_backward = match.speed is not None and match.speed < 0
    return match.ref_start_s + (1 - share if is_backward else share) * (match.ref_end_s - match.ref_start_s)


class Viewer:
    """Looks at video files in a process of its own: one that hangs or crashes it costs only the pictures of that file.

    A context manager; leaving it ends the process, which the first look starts. Of a file that took too long, or ended
    the process, nothing is tried again. ``limit_s``: seconds that a file may take, by default `LIMIT_S` and
    `LIMIT_PER_PICTURE_S` for each picture. ``process``: which one looks, by default one of its own.
    """

    def __init__(self, *, limit_s: float | None = None, process: IsolatedProcess | ThisProcess | None = None) -> None:
        self._limit_s = limit_s
        self._process = process or IsolatedProcess()
        self._given_up: dict[Location, str] = {}

    def look_at(
        self, path: Location | None, times_s: Sequence[float], *, short_side_px: int
    ) -> dict[float, Frames] | str:
        """The picture at each time in seconds, RGB uint8 ``(H, W, 3)``, or in one line why there is none.

        ``path`` None stands for a video that was not found. For ``short_side_px`` see `engine.video.stills.stills`.
        """
        if path is None:
            return "not readable: the file was not found"
        limit_s = LIMIT_S + LIMIT_PER_PICTURE_S * len(times_s)
        try:
            return self._call(_pictures, path, list(times_s), short_side_px, limit_s=limit_s)
        except (MediaError, RemoteError) as error:
            return f"not readable: {error}"

    def claimed_duration_s(self, path: Location) -> float:
        """Seconds that the header of a file claims; 0 where it cannot be read."""
        try:
            return self._call(_claimed_duration_s, path, limit_s=LIMIT_S)
        except (MediaError, RemoteError):
            return 0.0

    def close(self) -> None:
        """End the process; the next look starts another."""
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, function: Callable[..., Seen], path: Location, *arguments: object, limit_s: float) -> Seen:
        if path not in self._given_up:
            try:
                return self._process.call(function, path, *arguments, limit_s=self._limit_s or limit_s)
            except CallEndedError as error:
                self._given_up[path] = f"{path}: looking at it failed: {error}"
        raise MediaError(self._given_up[path])


def _pictures(path: Location, times_s: Sequence[float], short_side_px: int) -> dict[float, Frames]:
    return {still.time_s: still.picture for still in stills(path, times_s, short_side_px=short_side_px)}


def _claimed_duration_s(path: Location) -> float:
    return claimed_duration_s(Media(path.stem, path))
