"""FrameSource over frames that the caller has decoded: what is given is what is described, nothing is sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.records import FloatArray, Frames, Span, View
from engine.video.blank import find_blank
from engine.video.resize import check_inside, fit_picture
from engine.video.source import FrameChunk, InputSpec
from engine.video.statistics import (
    SceneStatistics,
    SceneStatisticsAccumulator,
    SpanAccumulator,
    SpanStatistics,
    square_sum_dtype,
)

_CHUNK_FRAMES = 8


class ArrayFrameSource:
    """Frames in memory, RGB uint8 ``(N, H, W, 3)``, which are not copied, and when each begins, ``(N,)`` seconds.

    A frame lasts until the next one, the last one as long as the one before it; a single one ``1 / fps``. Raises
    ``ConfigError`` for other shapes and types, and times that are not finite, below 0 or not strictly rising.
    """

    warnings: tuple[str, ...] = ()
    shot_ends_s = None

    def __init__(self, frames: Frames, timestamps_s: NDArray[Any] | Sequence[float], *, fps: float) -> None:
        self._frames = _checked_frames(frames)
        self._times = _intervals(_checked_times(timestamps_s, num_frames=self.num_frames), fps=fps)

    @property
    def num_frames(self) -> int:
        """F, the number of frames."""
        return len(self._frames)

    def scene_statistics(self) -> SceneStatistics:
        """See `engine.video.source.FrameSource`."""
        accumulator = SceneStatisticsAccumulator(num_frames=self.num_frames)
        for picture in self._frames:
            accumulator.add(picture)
        return accumulator.finish()

    def span_statistics(self, spans: Sequence[Span]) -> Iterator[tuple[int, SpanStatistics]]:
        """See `engine.video.source.FrameSource`."""
        accumulator = SpanAccumulator([span.limited(self.num_frames) for span in spans])
        for start, stop in pairwise(accumulator.borders):
            sums = np.zeros(self._frames.shape[1:], np.uint32)
            square_sums = np.zeros(self._frames.shape[1:], square_sum_dtype(stop - start))
            for number in range(start, stop):
                picture = self._frames[number]
                sums += picture
                square_sums += np.square(picture, dtype=np.uint16)
                if number in accumulator.edge_frames:
                    accumulator.add_picture(number, picture)
            yield from accumulator.add_sums(start, stop, sums, square_sums)

    def model_inputs(self, specs: Sequence[InputSpec], *, views: Sequence[View] = (View(),)) -> Iterator[FrameChunk]:
        """See `engine.video.source.FrameSource`. Raises ``ValueError`` for a region that is not inside the frame."""
        height, width = self._frames.shape[1:3]
        for place, view in enumerate(views):
            frames = self._frames
            if view.region is not None:
                check_inside(view.region, size_wh=(width, height))
                frames = frames[:, view.region.y0 : view.region.y1, view.region.x0 : view.region.x1]
            first, end = view.span.limited(self.num_frames)
            for start in range(first, end, _CHUNK_FRAMES * view.step):
                rows = slice(start, min(start + _CHUNK_FRAMES * view.step, end), view.step)
                inputs = {
                    spec.name: np.stack([fit_picture(picture, spec) for picture in frames[rows]]) for spec in specs
                }
                yield FrameChunk(self._times[rows], inputs, find_blank(inputs[specs[0].name]), place)

    def close(self) -> None:
        """Nothing is held that is not the caller's."""


def _array(values: Any) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError:  # lists of several lengths
        return np.empty(0, object)


def _checked_frames(frames: Any) -> Frames:
    found = _array(frames)
    if found.dtype != np.uint8 or found.ndim != 4 or found.shape[3] != 3 or found.size == 0:
        raise ConfigError(
            f"got frames of shape {found.shape} and dtype {found.dtype}; expected RGB uint8 (N, H, W, 3), 0-255, N >= 1"
        )
    return found


def _checked_times(timestamps_s: Any, *, num_frames: int) -> NDArray[np.float64]:
    found = _array(timestamps_s)
    if found.shape != (num_frames,) or found.dtype.kind not in "fiu":
        raise ConfigError(
            f"got timestamps_s of shape {found.shape} and dtype {found.dtype} for {num_frames} frames; expected the "
            f"start of each in seconds, numbers of shape ({num_frames},)"
        )
    # Compared as they are kept: two times that float32 cannot tell apart would make an empty interval.
    kept = found.astype(np.float32)
    if not np.isfinite(kept).all() or kept[0] < 0:
        raise ConfigError("got timestamps_s that are negative, NaN or infinite; expected seconds from 0 up")
    falls = np.flatnonzero(np.diff(kept) <= 0)
    if len(falls):
        place = int(falls[0])
        raise ConfigError(
            f"timestamps_s must rise from frame to frame; frame {place + 1} begins at {found[place + 1]} s, the one "
            f"before it at {found[place]} s"
        )
    return found.astype(np.float64)


def _intervals(starts_s: NDArray[np.float64], *, fps: float) -> FloatArray:
    last_s = starts_s[-1] - starts_s[-2] if len(starts_s) > 1 else 1 / fps
    ends_s = np.append(starts_s[1:], starts_s[-1] + last_s)
    return np.stack([starts_s, ends_s], axis=1).astype(np.float32)
