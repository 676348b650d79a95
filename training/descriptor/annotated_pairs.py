"""Positives from annotated copies: a picture of the query and the picture of the reference that it shows.

As the winner of VSC2022 draws them: a segment of the ground truth, a moment in it, the same moment on both sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from engine.errors import ConfigError
from engine.records import Match
from training.store.frame_store import video_and_slot


@dataclass(frozen=True)
class AnnotatedPairSource:
    """Segments, as the positions in the store of the pictures of both sides, in the order of time."""

    segments: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]

    @classmethod
    def of(cls, matches: Sequence[Match], names: Sequence[str], *, fps: float) -> Self:
        """Find the pictures of annotated segments among the ``names`` of a store with ``fps`` pictures a second.

        Raises ``ConfigError`` for a video that is not in the store.
        """
        slots: dict[str, dict[int, int]] = defaultdict(dict)
        for index, name in enumerate(names):
            shown = video_and_slot(name)
            if shown is not None:
                slots[shown[0]][shown[1]] = index
        missing = sorted({video for match in matches for video in (match.query_id, match.ref_id)} - set(slots))
        if missing:
            raise ConfigError(
                f"the ground truth names {len(missing)} videos that the store does not hold, for example {missing[0]}; "
                "build the store from all of them"
            )
        segments = []
        for match in matches:
            query = _pictures(slots[match.query_id], match.query_start_s, match.query_end_s, fps=fps)
            ref = _pictures(slots[match.ref_id], match.ref_start_s, match.ref_end_s, fps=fps)
            if query and ref:
                segments.append((query, ref))
        if not segments:
            raise ConfigError("no annotated segment is long enough to show a picture on both sides")
        return cls(tuple(segments))

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Positions of a query picture and of the reference picture at the same part of the segment."""
        query, ref = self.segments[int(rng.integers(len(self.segments)))]
        moment = float(rng.random())
        return query[int(moment * len(query))], ref[int(moment * len(ref))]


def _pictures(slots: dict[int, int], start_s: float, end_s: float, *, fps: float) -> tuple[int, ...]:
    """Pictures whose slot lies within the segment."""
    return tuple(
        index
        for slot, index in sorted(slots.items())
        if slot / fps >= start_s - 1e-6 and (slot + 1) / fps <= end_s + 1e-6
    )
