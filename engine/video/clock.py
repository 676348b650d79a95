"""When pictures are shown, by the time stamps of a stream, which are claims. Knows nothing of files or pixels.

Clocks start again where recordings were joined, leap, and run backward. What is shown is then taken in the order in
which it is shown, and follows at once on what came before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_TIME_S = 1_000_000
"""Eleven days: no video is that long, but broken time stamps may say so."""

_JITTER_S = 0.1
_MAX_LEAP_S = 10
"""FFmpeg's own limits. A clock that goes back by more than `_JITTER_S` was set anew, and so was one that leaps by more
than `_MAX_LEAP_S` in a container that announces such clocks (MPEG-TS and MPEG-PS)."""


class Stamp(NamedTuple):
    """What a packet or a decoded frame says of its time, in ticks of its stream; 0 is an unknown duration."""

    pts: int | None
    dts: int | None
    duration: int


class Clock:
    """Joins the clocks of a stream into one, packet by packet in decoding order.

    ``tick_s``: seconds of a tick. ``may_leap``: the container announces that its clock may leap.
    ``breaks_s``: when the clock of the stream was set anew, in seconds of the joined clock, since the first picture.
    """

    def __init__(self, tick_s: Fraction, *, may_leap: bool) -> None:
        self.tick_s = tick_s
        self.may_leap = may_leap
        self._jitter, self._max_time = round(_JITTER_S / tick_s), round(MAX_TIME_S / tick_s)
        self._max_leap = round(_MAX_LEAP_S / tick_s) if may_leap else self._max_time
        self._offset = 0
        self._start: int | None = None
        self._last_dts: int | None = None
        self._last_pts = self._end = 0
        self.breaks_s: list[float] = []

    def shift(self, stamp: Stamp) -> int:
        """Ticks to be added to the times of this packet."""
        shown = stamp.dts if stamp.pts is None else stamp.pts
        if shown is None:
            return self._offset
        if self._start is None:
            self._start = self._last_pts = self._end = shown
        elif self._is_new_clock(stamp.dts, shown, since=self._start):
            self._offset = self._end - shown
            self.breaks_s.append(float((self._end - self._start) * self.tick_s))
        if stamp.dts is not None:
            self._last_dts = stamp.dts + self._offset
        self._last_pts = max(self._last_pts, shown + self._offset)
        self._end = max(self._end, shown + self._offset + stamp.duration)
        return self._offset

    def _is_new_clock(self, dts: int | None, shown: int, *, since: int) -> bool:
        shown += self._offset
        if abs(shown - since) > self._max_time:
            return True
        if dts is None or self._last_dts is None:
            return False
        dts += self._offset
        went_back = dts < self._last_dts - self._jitter and shown < self._last_pts - self._jitter
        return went_back or dts > self._last_dts + self._max_leap


def decoded_times(stamps: Sequence[Stamp]) -> list[int | None]:
    """The time of each decoded frame, in the order in which a decoder gives them: its pts, or its dts where pts err.

    As FFmpeg does (``best_effort_timestamp``): whichever of both has run backward less often so far.
    """
    times: list[int | None] = []
    faults = {"pts": 0, "dts": 0}
    last: dict[str, int] = {}
    for stamp in stamps:
        for name, time in (("pts", stamp.pts), ("dts", stamp.dts)):
            if time is not None:
                faults[name] += time <= last.get(name, time - 1)
                last[name] = time
        prefers_pts = stamp.dts is None or faults["pts"] <= faults["dts"]
        times.append(stamp.pts if stamp.pts is not None and prefers_pts else stamp.dts)
    return times


def forward_times(times: NDArray[np.int64]) -> NDArray[np.int64]:
    """Times ``(K,)`` that never run backward: of as many as possible the same, of the others that of the one before.

    What is kept is a longest ascending subsequence, so that one wrong time, too high or too low, moves no other.
    """
    if (times[1:] >= times[:-1]).all():
        return times
    tails: list[int] = []  # of the best subsequence of each length so far, the last time
    lengths = np.empty(len(times), dtype=np.int64)
    for place, time in enumerate(times.tolist()):
        lengths[place] = length = bisect_right(tails, time)
        tails[length : length + 1] = [time]
    kept, length = [], len(tails) - 1
    for place in range(len(times) - 1, -1, -1):
        if lengths[place] == length:
            kept.append(place)
            length -= 1
    is_kept = np.zeros(len(times), dtype=bool)
    is_kept[kept] = True
    source = np.maximum.accumulate(np.where(is_kept, np.arange(len(times)), kept[-1]))
    return times[source]
