"""What scene detection needs to know of a frame stack, gathered frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_EDGE_FRAMES = 20
THUMBNAIL_PX = 288
CANNY_LOW, CANNY_HIGH = 50, 400


@dataclass(frozen=True, eq=False)
class SceneStatistics:
    """Two maps over the pixels of a frame stack; they cost no more for a long video than for a short one.

    ``num_frames``: F, the length of the stack.
    ``variance``: float64 ``(H, W)``, population variance over all F frames, summed over R, G, B (squared grey levels).
    ``edge_mean``: float64 ``(H, W)``, 0-1, share of the frames of `edge_frame_indices` that have an edge at the pixel.
    """

    num_frames: int
    variance: NDArray[np.float64]
    edge_mean: NDArray[np.float64]

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"scene statistics: expected at least one frame, got {self.num_frames}")
        if self.variance.ndim != 2 or self.variance.shape != self.edge_mean.shape or self.variance.size == 0:
            raise ValueError(
                "scene statistics: expected two non-empty maps of one shape (H, W), "
                f"got {self.variance.shape} and {self.edge_mean.shape}"
            )


@dataclass(frozen=True, eq=False)
class SpanStatistics:
    """What scene detection needs of some consecutive frames.

    ``maps``: as for a video that consists of these frames. ``thumbnails``: uint8 ``(K, h, w)``, luma of the frames of
    `edge_frame_indices`, at most `THUMBNAIL_PX` on the short side.
    """

    maps: SceneStatistics
    thumbnails: NDArray[np.uint8]


class SpanAccumulator:
    """Builds `SpanStatistics` for many spans in one pass: sums are made once, between the borders of spans.

    Frames come in order. A frame whose number is in `edge_frames` must be shown to `add_picture`, and the sums of all
    frames go to `add_sums`, in runs that no border in `borders` divides. What is kept is two maps for each span that
    is under way.
    """

    def __init__(self, spans: Sequence[tuple[int, int]]) -> None:
        self._spans = list(spans)
        self._indices = [{start + index for index in edge_frame_indices(stop - start)} for start, stop in spans]
        self._totals: dict[int, tuple[NDArray[np.unsignedinteger], NDArray[np.unsignedinteger]]] = {}
        self._edges: dict[int, NDArray[np.uint8]] = {}
        self._thumbnails: dict[int, list[NDArray[np.uint8]]] = {}
        self.borders = sorted({border for span in spans for border in span})
        self.edge_frames = frozenset().union(*self._indices)

    def add_picture(self, number: int, picture: NDArray[np.uint8]) -> None:
        """Look at frame ``number``, RGB uint8 ``(H, W, 3)``."""
        edges, small = edge_map(picture), thumbnail(picture)
        for place in [place for place, indices in enumerate(self._indices) if number in indices]:
            self._edges[place] = self._edges.get(place, np.uint8(0)) + edges
            self._thumbnails.setdefault(place, []).append(small)

    def add_sums(
        self, start: int, stop: int, sums: NDArray[np.unsignedinteger], square_sums: NDArray[np.unsignedinteger]
    ) -> Iterator[tuple[int, SpanStatistics]]:
        """Take the sums over frames ``start`` to ``stop``, both ``(H, W, 3)``; yields the spans that end there.

        The arrays must not change afterwards.
        """
        for place, (first, end) in enumerate(self._spans):
            if first <= start < end:
                if place in self._totals:
                    before, squares_before = self._totals[place]
                    dtype = square_sum_dtype(end - first)
                    self._totals[place] = before + sums, np.add(squares_before, square_sums, dtype=dtype)
                else:
                    self._totals[place] = sums, square_sums
                if stop == end:
                    yield place, self._finish(place)

    def _finish(self, place: int) -> SpanStatistics:
        start, stop = self._spans[place]
        sums, square_sums = self._totals.pop(place)
        edge_mean = self._edges.pop(place) / len(self._indices[place])
        maps = statistics_from_sums(num_frames=stop - start, sums=sums, square_sums=square_sums, edge_mean=edge_mean)
        return SpanStatistics(maps, np.stack(self._thumbnails.pop(place)))


class SceneStatisticsAccumulator:
    """Builds `SceneStatistics` from frames that come one at a time, in order; no frame is kept.

    All sums are integers, so the variance is rounded once, at the end, and a pixel that never changes has exactly 0.
    They fit their types up to 16 million frames (half a year at one frame per second).
    """

    def __init__(self, *, num_frames: int) -> None:
        self._num_frames = num_frames
        self._num_added = 0
        self._edge_indices = frozenset(edge_frame_indices(num_frames))

    def add(self, frame: NDArray[np.uint8]) -> None:
        """Take the next frame, RGB uint8 ``(H, W, 3)``, all of one size."""
        if self._num_added == 0:
            self._sums = np.zeros(frame.shape, dtype=np.uint32)
            self._square_sums = np.zeros(frame.shape, dtype=square_sum_dtype(self._num_frames))
            self._edge_counts = np.zeros(frame.shape[:2], dtype=np.uint8)
        self._sums += frame
        self._square_sums += np.square(frame, dtype=np.uint16)
        if self._num_added in self._edge_indices:
            self._edge_counts += edge_map(frame)
        self._num_added += 1

    def finish(self) -> SceneStatistics:
        """The statistics of all frames. Raises ``ValueError`` unless as many were added as were announced."""
        if not 0 < self._num_added == self._num_frames:
            raise ValueError(f"scene statistics: expected {self._num_frames} frames, got {self._num_added}")
        return statistics_from_sums(
            num_frames=self._num_frames,
            sums=self._sums,
            square_sums=self._square_sums,
            edge_mean=self._edge_counts / len(self._edge_indices),
        )


def statistics_from_sums(
    *,
    num_frames: int,
    sums: NDArray[np.unsignedinteger],
    square_sums: NDArray[np.unsignedinteger],
    edge_mean: NDArray[np.float64],
) -> SceneStatistics:
    """Statistics from the sums of all pixel values and of their squares over the frames, both ``(H, W, 3)``."""
    scaled_variance = np.zeros(sums.shape[:2], dtype=np.uint64)
    for channel in range(sums.shape[2]):  # one after the other, because pictures may be large
        squares = square_sums[..., channel] * np.uint64(num_frames)
        scaled_variance += squares - np.square(sums[..., channel], dtype=np.uint64)
    return SceneStatistics(
        num_frames=num_frames, variance=scaled_variance / float(num_frames) ** 2, edge_mean=edge_mean
    )


def square_sum_dtype(num_frames: int) -> type[np.unsignedinteger]:
    """The smallest integer that holds the sum of the squares of so many values of 8 bits."""
    return np.uint32 if num_frames * 255**2 < 2**32 else np.uint64


def edge_frame_indices(num_frames: int) -> list[int]:
    """Which frames of a stack the edge average looks at: all, or 20 spread evenly where there are more.

    Of n > 20 frames they are ``round(i * (n / 20))``, i = 0..19, halves to even, in float64 as in the reference.
    """
    if num_frames <= MAX_EDGE_FRAMES:
        return list(range(num_frames))
    positions = np.arange(MAX_EDGE_FRAMES) * (num_frames / MAX_EDGE_FRAMES)
    return [int(index) for index in np.round(positions)]


def thumbnail(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma, uint8 ``(h, w)``, of an RGB frame, uint8 ``(H, W, 3)``, at most `THUMBNAIL_PX` on the short side."""
    gray = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    scale = min(1.0, THUMBNAIL_PX / min(gray.shape))
    size_wh = tuple(round(side * scale) for side in gray.shape[::-1])
    return np.asarray(cv2.resize(gray, size_wh, interpolation=cv2.INTER_AREA) if scale < 1 else gray)


def edge_map(frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Canny edges, bool ``(H, W)``, of an RGB frame, uint8 ``(H, W, 3)``; each pixel's strongest channel counts."""
    return np.asarray(cv2.Canny(np.ascontiguousarray(frame), CANNY_LOW, CANNY_HIGH) > 0)
