"""The values that cross from stage to stage: frozen, checked on creation, without behaviour. Words: docs/glossary.md.

Shape legend used all over the package: N descriptors (rows), D dimensions, F sampled frames of one video, B rows of
a batch, H and W pixels, Q query rows, R reference rows. Times are seconds, boxes are pixels with an exclusive end.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from engine.errors import ConfigError
from engine.storage.location import Location

Role = Literal["query", "reference"]
GateState = Literal["passed", "stopped", "stopped_rows_kept"]
"""What the edit gate did: nothing, or it was off; it stopped the video, whose one row is a placeholder; it stopped the
video, whose whole frames still have their rows, for `engine.search.exact_copies`."""

FloatArray = NDArray[np.float32]
Frames = NDArray[np.uint8]
"""RGB frames, uint8 ``(F, H, W, 3)``, 0-255."""

GATED_BIAS = -100.0
"""Score-normalization bias of a video that the edit gate stopped: it can match nothing (reference behaviour)."""


@dataclass(frozen=True)
class Media:
    """A video file, on this machine or not, and the id under which its results are kept.

    See `engine.video.discovery.discover`.
    """

    video_id: str
    path: Location

    @property
    def local_path(self) -> Path:
        """The path of a file of this machine. Raises ``ConfigError`` for a remote one."""
        if not isinstance(self.path, Path):
            raise ConfigError(f"{self.path}: only files of this machine are taken here; copy it into a folder")
        return self.path


@dataclass(frozen=True)
class Region:
    """A spatial part of a frame: pixels ``x0 <= x < x1``, ``y0 <= y < y1``."""

    x0: int
    y0: int
    x1: int
    y1: int

    def __post_init__(self) -> None:
        if not (0 <= self.x0 < self.x1 and 0 <= self.y0 < self.y1):
            raise ValueError(f"region {self.box} is empty or negative; expected 0 <= x0 < x1 and 0 <= y0 < y1")

    @property
    def box(self) -> tuple[int, int, int, int]:
        """``(x0, y0, x1, y1)``."""
        return self.x0, self.y0, self.x1, self.y1

    @property
    def size(self) -> tuple[int, int]:
        """``(width, height)`` in pixels."""
        return self.x1 - self.x0, self.y1 - self.y0


@dataclass(frozen=True)
class Span:
    """Consecutive sampled frames of a video: ``start <= n < stop``; ``stop`` None is the end of the video."""

    start: int = 0
    stop: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < (self.start + 1 if self.stop is None else self.stop):
            raise ValueError(f"span {self.start} to {self.stop} is empty or negative; expected 0 <= start < stop")

    def limited(self, num_frames: int) -> tuple[int, int]:
        """First frame and end in a video of ``num_frames`` frames; empty where the video ends before."""
        stop = num_frames if self.stop is None else min(self.stop, num_frames)
        return min(self.start, stop), stop


@dataclass(frozen=True)
class View:
    """What is described as a video of its own: a region of some frames, by default the whole frames of all of them.

    Of the span's frames every ``step``-th is taken, the first of them included.
    """

    region: Region | None = None
    span: Span = Span()
    step: int = 1


@dataclass(frozen=True, eq=False)
class Descriptors:
    """What is kept of one video: a row per sampled frame and scene.

    ``timestamps``: float32 ``(N, 2)``, start and end of each row in seconds, start inclusive, end exclusive.
    ``descriptors``: float32 ``(N, D)``, finite; N >= 1.
    ``edit_score``: probability that the video was edited, 0-1; None where no gate ran.
    ``gate``: what the edit gate did to the video.
    ``blank``: bool ``(N,)``, the rows whose pictures say nothing (`engine.video.blank`); None where nobody looked.
    ``warnings``: one line for each thing that was lost or assumed while reading the file.
    ``shot_ends_s``: when each shot ends, in rising seconds, exact to a frame: at a cut, the last with the video; None
    where nobody looked for cuts.
    """

    video_id: str
    timestamps: FloatArray
    descriptors: FloatArray
    edit_score: float | None = None
    gate: GateState = "passed"
    blank: NDArray[np.bool_] | None = None
    warnings: tuple[str, ...] = ()
    shot_ends_s: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        times, rows = self.timestamps, self.descriptors
        if rows.ndim != 2 or times.shape != (len(rows), 2) or len(rows) == 0:
            raise ValueError(
                f"descriptors of '{self.video_id}': expected timestamps (N, 2) and descriptors (N, D) with N >= 1, "
                f"got {times.shape} and {rows.shape}"
            )
        if times.dtype != np.float32 or rows.dtype != np.float32:
            raise ValueError(f"descriptors of '{self.video_id}': expected float32, got {times.dtype} and {rows.dtype}")
        if not (np.isfinite(rows).all() and np.isfinite(times).all()):
            raise ValueError(f"descriptors of '{self.video_id}': expected finite values, got NaN or infinity")
        if self.blank is not None and (self.blank.shape != (len(rows),) or self.blank.dtype != np.bool_):
            raise ValueError(
                f"descriptors of '{self.video_id}': expected blank as bool ({len(rows)},), "
                f"got {self.blank.dtype} {self.blank.shape}"
            )
        if self.shot_ends_s is not None and not _rises(self.shot_ends_s):
            raise ValueError(
                f"descriptors of '{self.video_id}': expected shot_ends_s to rise from above 0, got {self.shot_ends_s}"
            )
        if self.gate not in get_args(GateState):
            raise ValueError(f"descriptors of '{self.video_id}': unknown state of the gate {self.gate!r}")

    @property
    def is_stopped(self) -> bool:
        """Whether the edit gate stopped the video."""
        return self.gate != "passed"

    @property
    def duration_s(self) -> float:
        """When the video ends; where that is not known, its last row."""
        return self.shot_ends_s[-1] if self.shot_ends_s else float(self.timestamps.max())

    def __len__(self) -> int:
        return len(self.descriptors)

    def __repr__(self) -> str:
        num_rows, num_dims = self.descriptors.shape
        return f"Descriptors({self.video_id!r}, {num_rows} x {num_dims}, edit_score={self.edit_score})"


def _rises(times_s: tuple[float, ...]) -> bool:
    steps_s = np.diff(np.array([0.0, *times_s]))
    return len(times_s) > 0 and bool((steps_s > 0).all())  # NaN does not


@dataclass(frozen=True)
class CandidatePair:
    """A query video and a reference video that may share footage. ``score`` may be negative; higher is likelier."""

    query_id: str
    ref_id: str
    score: float


@dataclass(frozen=True)
class Match:
    """A localized copy: the segment of the query, the segment of the reference (seconds), and a score.

    ``speed``: reference seconds shown in one second of the query, below zero where the copy runs backwards; None where
    the method does not tell. ``mirrored``: whether the copy is mirrored left to right; None where it is not clear.
    ``num_inliers``: how many local features of the pictures agree (`engine.evidence.geometry`); None where nobody
    looked.
    """

    query_id: str
    ref_id: str
    query_start_s: float
    query_end_s: float
    ref_start_s: float
    ref_end_s: float
    score: float
    speed: float | None = None
    mirrored: bool | None = None
    num_inliers: int | None = None


@dataclass(frozen=True)
class Failure:
    """A video that gave no result, the stage that gave up, and why (one line).

    ``is_of_content``: the reason lies in the file, so that another try would end as this one.
    """

    video_id: str
    path: Location
    stage: str
    reason: str
    is_of_content: bool = False
