"""Edits that show the copied clip together with unrelated ones, in one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np

from training.footage.edits.base import MixEdit, integer, uniform
from training.footage.resizing import Frame, corner_of, cover, paste, resize, scaled, size_of


@dataclass(frozen=True)
class Overlay(MixEdit):
    """A small unrelated clip on the copy, picture in picture; x, y are fractions of the free way."""

    name = "overlay"
    scale: Annotated[float, uniform(0.25, 0.45)]
    x: Annotated[float, uniform(0, 1)]
    y: Annotated[float, uniform(0, 1)]

    def _mix(self, frame: Frame, *others: Frame) -> Frame:
        inner = cover(others[0], scaled(size_of(frame), self.scale, self.scale))
        return paste(frame, inner, corner_of(size_of(inner), size_of(frame), x=self.x, y=self.y))


@dataclass(frozen=True)
class OverlayOntoBackgroundVideo(MixEdit):
    """The copy made small on an unrelated clip; x, y are fractions of the free way."""

    name = "overlay_onto_background_video"
    scale: Annotated[float, uniform(0.45, 0.8)]
    x: Annotated[float, uniform(0, 1)]
    y: Annotated[float, uniform(0, 1)]

    def _mix(self, frame: Frame, *others: Frame) -> Frame:
        inner = resize(frame, scaled(size_of(frame), self.scale, self.scale))
        background = cover(others[0], size_of(frame))
        return paste(background, inner, corner_of(size_of(inner), size_of(frame), x=self.x, y=self.y))


@dataclass(frozen=True)
class HStack(MixEdit):
    """Side by side with an unrelated clip cut to the same size; ``position`` 0: the copy is on the left, 1: right."""

    name = "hstack"
    position: Annotated[int, integer(0, 1)]

    def _mix(self, frame: Frame, *others: Frame) -> Frame:
        return np.hstack(_line_up(frame, others, self.position))


@dataclass(frozen=True)
class VStack(MixEdit):
    """Above or below an unrelated clip cut to the same size; ``position`` 0: the copy is on top, 1: at the bottom."""

    name = "vstack"
    position: Annotated[int, integer(0, 1)]

    def _mix(self, frame: Frame, *others: Frame) -> Frame:
        return np.vstack(_line_up(frame, others, self.position))


@dataclass(frozen=True)
class Grid(MixEdit):
    """Two by two clips of the same size, the copy at ``position`` in reading order from 0."""

    name = "grid"
    num_distractors = 3
    position: Annotated[int, integer(0, 3)]

    def _mix(self, frame: Frame, *others: Frame) -> Frame:
        cells = _line_up(frame, others, self.position)
        return np.vstack([np.hstack(cells[:2]), np.hstack(cells[2:])])


@dataclass(frozen=True)
class BlendVideos(MixEdit):
    """An unrelated clip of this opacity over the whole copy."""

    name = "blend_videos"
    opacity: Annotated[float, uniform(0.2, 0.45)]

    def _mix(self, frame: Frame, *others: Frame) -> Frame:
        other = cover(others[0], size_of(frame))
        return np.asarray(cv2.addWeighted(frame, 1 - self.opacity, other, self.opacity, 0), np.uint8)


def _line_up(frame: Frame, others: Sequence[Frame], position: int) -> list[Frame]:
    cells = [cover(other, size_of(frame)) for other in others]
    cells.insert(position, frame)
    return cells
