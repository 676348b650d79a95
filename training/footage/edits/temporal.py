"""Edits of the time axis: they choose which frames are shown, never what is in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from training.footage.edits.base import Clip, Edit, factor_or_inverse, integer


@dataclass(frozen=True)
class ChangeVideoSpeed(Edit):
    """Play faster or slower by dropping or repeating frames."""

    name = "change_video_speed"
    factor: Annotated[float, factor_or_inverse(1.2, 1.8)]

    @property
    def speed(self) -> float:
        """Seconds of the source that one second of the edited clip shows."""
        return self.factor

    def _apply(self, frames: Clip, _: Sequence[Clip]) -> Clip:
        num_shown = 0
        for index, frame in enumerate(frames):
            while int(num_shown * self.factor) <= index:
                yield frame
                num_shown += 1


@dataclass(frozen=True)
class Fps(Edit):
    """Lower the frame rate: of every ``step`` frames the first is held."""

    name = "fps"
    step: Annotated[int, integer(2, 4)]

    def _apply(self, frames: Clip, _: Sequence[Clip]) -> Clip:
        for index, frame in enumerate(frames):
            if index % self.step == 0:
                held = frame
            yield held
