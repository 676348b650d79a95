"""Which frames to take: the rule of FFmpeg's ``fps`` filter over a list of times. Knows nothing of files or pixels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.records import FloatArray

MAX_HOLD_S = 60.0
"""A picture is repeated for this long at most. A clock that says more has most likely jumped, and must not decide how
much work a video is; a slide that is shown for longer keeps one row."""

_CLOCK_DIGITS = 9
"""Times are whole ticks of a clock; digits beyond these (nanoseconds) are floating-point noise."""


class Samples(NamedTuple):
    """The slots of a video that show a frame, int64 ``(F,)``, ascending, and the frame that each shows, int64 ``(F,)``.

    ``timestamps``: float32 ``(F, 2)``, start and end in seconds of the time that each frame stands for.
    ``holes_s``: for each picture that the times hold for more than `MAX_HOLD_S`, from when and until when, in seconds.
    """

    slots: NDArray[np.int64]
    frames: NDArray[np.int64]
    timestamps: FloatArray
    holes_s: list[tuple[float, float]]

    def without(self, place: int) -> Samples:
        """These samples without the frame at ``place``."""
        kept = np.arange(len(self.slots)) != place
        return Samples(self.slots[kept], self.frames[kept], self.timestamps[kept], self.holes_s)


def sample_frames(times_s: NDArray[np.float64], *, end_s: float, fps: float = 1.0) -> Samples:
    """Which frame each output slot shows; F >= 1.

    ``times_s``: ``(K,)``, K >= 1, when each frame is shown, in presentation order, counted from the start of the
    container. ``end_s``: when the last one ends. Slot n stands for the seconds ``[n / fps, (n + 1) / fps)``.

    With R(x) rounding half away from zero, ``p_k = R(fps * times_s[k])`` and ``E = R(fps * end_s)`` there are E slots,
    and slot n shows the last frame k with ``p_k <= max(n, p_0)``. So at 1 fps a slot shows the last frame before the
    middle of its second, and frames are repeated to fill holes and a late start.
    This is what ``ffmpeg -vf fps=N`` writes as images (FFmpeg 5.1, ``round=near``, ``eof_action=round``), but for two
    things. A video too short for a slot (E <= max(p_0, 0)), of which FFmpeg writes nothing, has one: p_0. And a picture
    that would be repeated for more than `MAX_HOLD_S` has one slot, so that the work is bounded by pictures.
    """
    due = np.maximum.accumulate(_round_half_away(np.asarray(times_s, dtype=np.float64) * fps))
    frames = np.flatnonzero(np.append(due[1:] != due[:-1], True))
    starts = np.maximum(due[frames], 0)
    ends = np.append(starts[1:], _round_half_away(np.float64(end_s * fps)))
    is_too_short = not (ends > starts).any()
    if is_too_short:
        ends[-1] = starts[-1] + 1
    counts = np.maximum(ends - starts, 0)
    longest = max(1, int(MAX_HOLD_S * fps))
    held = counts > longest
    holes_s = [(float(start / fps), float(end / fps)) for start, end in zip(starts[held], ends[held], strict=True)]
    counts[held] = 1
    if starts[0] <= longest and not is_too_short:
        counts[0] += starts[0]
        starts[0] = 0
    slots = np.repeat(starts - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    return Samples(slots, np.repeat(frames, counts), slot_timestamps(slots, fps=fps), holes_s)


def sample_keyframes(
    times_s: NDArray[np.float64], keyframes: NDArray[np.int64], *, end_s: float, fps: float = 1.0
) -> Samples:
    """Which of the key frames to take: of those in one slot, the nearest to its middle; F >= 1.

    ``times_s``, ``end_s``: as of `sample_frames`. ``keyframes``: int64 ``(N,)``, N >= 1, their numbers, ascending. A
    frame stands for the time from when it is shown until the next one that is taken.
    """
    shown_s = np.maximum(times_s[keyframes], 0.0)
    slots = np.floor(np.round(shown_s * fps, _CLOCK_DIGITS)).astype(np.int64)
    order = np.lexsort((np.abs(shown_s * fps - slots - 0.5), slots))
    slots, first = np.unique(slots[order], return_index=True)
    taken = order[first]
    edges_s = np.append(shown_s[taken], max(end_s, shown_s[taken[-1]]))
    return Samples(slots, keyframes[taken], np.stack([edges_s[:-1], edges_s[1:]], axis=1).astype(np.float32), [])


def widest_gap_s(times_s: NDArray[np.float64], keyframes: NDArray[np.int64], *, end_s: float) -> float:
    """The longest time in seconds without a key frame, from the start of the container to ``end_s``; or infinity.

    ``times_s (F,)``: of all frames; ``keyframes (K,)``: places of key frames in it.
    """
    gaps_s = np.diff([0.0, *times_s[keyframes], end_s])
    return float(np.round(gaps_s, _CLOCK_DIGITS).max()) if len(keyframes) else np.inf


def slot_timestamps(slots: int | NDArray[np.int64], *, fps: float = 1.0) -> FloatArray:
    """Start and end of these slots, or of the first ``slots``, in seconds, float32 ``(F, 2)``; the end is exclusive."""
    numbers = np.arange(slots) if isinstance(slots, int) else slots
    return np.stack([numbers / fps, (numbers + 1) / fps], axis=1).astype(np.float32)


def _round_half_away(values: NDArray[np.float64] | np.float64) -> NDArray[np.int64]:
    exact = np.round(values, _CLOCK_DIGITS)
    return (np.sign(exact) * np.floor(np.abs(exact) + 0.5)).astype(np.int64)
