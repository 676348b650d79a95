"""What scene detection needs to know of a frame stack, gathered frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_EDGE_FRAMES = 20
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
            self._square_sums = np.zeros(frame.shape, dtype=np.uint64)
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
    square_sums: NDArray[np.uint64],
    edge_mean: NDArray[np.float64],
) -> SceneStatistics:
    """Statistics from the sums of all pixel values and of their squares over the frames, both ``(H, W, 3)``."""
    scaled_variance = np.uint64(num_frames) * square_sums - np.square(sums, dtype=np.uint64)
    return SceneStatistics(
        num_frames=num_frames, variance=scaled_variance.sum(axis=-1) / float(num_frames) ** 2, edge_mean=edge_mean
    )


def edge_frame_indices(num_frames: int) -> list[int]:
    """Which frames of a stack the edge average looks at: all, or 20 spread evenly where there are more.

    Of n > 20 frames they are ``round(i * (n / 20))``, i = 0..19, halves to even, in float64 as in the reference.
    """
    if num_frames <= MAX_EDGE_FRAMES:
        return list(range(num_frames))
    positions = np.arange(MAX_EDGE_FRAMES) * (num_frames / MAX_EDGE_FRAMES)
    return [int(index) for index in np.round(positions)]


def edge_map(frame: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Canny edges, bool ``(H, W)``, of an RGB frame, uint8 ``(H, W, 3)``; each pixel's strongest channel counts."""
    return np.asarray(cv2.Canny(np.ascontiguousarray(frame), CANNY_LOW, CANNY_HIGH) > 0)
