"""Which frames to take: the rule of FFmpeg's ``fps`` filter over a list of times. Knows nothing of files or pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.records import FloatArray

_CLOCK_DIGITS = 9
"""Times are whole ticks of a clock; digits beyond these (nanoseconds) are floating-point noise."""


def sample_frames(times_s: NDArray[np.float64], *, end_s: float, fps: float = 1.0) -> NDArray[np.int64]:
    """For each output slot, the index of the frame that it shows; empty where the video is too short for one.

    ``times_s``: ``(K,)``, K >= 1, when each frame is shown, in presentation order, counted from the start of the
    container. ``end_s``: when the last one ends. Slot n stands for the seconds ``[n / fps, (n + 1) / fps)``.

    With R(x) rounding half away from zero, ``p_k = R(fps * times_s[k])`` and ``E = R(fps * end_s)`` there are E slots
    if E > p_0, else none; slot n shows the last frame k with ``p_k <= max(n, p_0)``. So at 1 fps a slot shows the last
    frame before the middle of its second, and frames are repeated to fill holes and a late start.
    This is what ``ffmpeg -vf fps=N`` writes as images (FFmpeg 5.1, ``round=near``, ``eof_action=round``).
    """
    slots = np.maximum.accumulate(_round_half_away(np.asarray(times_s, dtype=np.float64) * fps))
    end = int(_round_half_away(np.float64(end_s * fps)))
    if end <= slots[0]:
        return np.empty(0, dtype=np.int64)
    shown_from = np.maximum(np.arange(end), slots[0])
    frames: NDArray[np.int64] = np.searchsorted(slots, shown_from, side="right") - 1
    return frames


def slot_timestamps(num_slots: int, *, fps: float = 1.0, first: int = 0) -> FloatArray:
    """Start and end of the slots from ``first`` on, seconds, float32 ``(num_slots, 2)``: start inclusive, end not."""
    edges = np.arange(first, first + num_slots + 1) / fps
    return np.stack([edges[:-1], edges[1:]], axis=1).astype(np.float32)


def _round_half_away(values: NDArray[np.float64] | np.float64) -> NDArray[np.int64]:
    exact = np.round(values, _CLOCK_DIGITS)
    return (np.sign(exact) * np.floor(np.abs(exact) + 0.5)).astype(np.int64)
