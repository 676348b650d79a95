"""Edits of where pixels are: crops, borders, turns and distortions. Lengths are fractions of the frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import cv2
import numpy as np

from training.footage.edits.base import FrameEdit, any_color, choice, either_sign, factor_or_inverse, integer, uniform
from training.footage.resizing import Frame, corner_of, cover, paste, resize, scaled, size_of

Sides = Literal["left_right", "top_bottom", "all"]


@dataclass(frozen=True)
class Crop(FrameEdit):
    """Keep a rectangle; x, y are fractions of the way that its size leaves free."""

    name = "crop"
    width: Annotated[float, uniform(0.55, 0.9)]
    height: Annotated[float, uniform(0.55, 0.9)]
    x: Annotated[float, uniform(0, 1)]
    y: Annotated[float, uniform(0, 1)]

    def _edit(self, frame: Frame) -> Frame:
        width, height = scaled(size_of(frame), self.width, self.height)
        left, top = corner_of((width, height), size_of(frame), x=self.x, y=self.y)
        return frame[top : top + height, left : left + width]


@dataclass(frozen=True)
class Pad(FrameEdit):
    """Add a border of one color, ``amount`` of the frame's side at each end."""

    name = "pad"
    sides: Annotated[Sides, choice(get_args(Sides))]
    amount: Annotated[float, uniform(0.08, 0.25)]
    color: Annotated[tuple[int, int, int], any_color]

    def _edit(self, frame: Frame) -> Frame:
        width, height = size_of(frame)
        x = 0 if self.sides == "top_bottom" else round(self.amount * width)
        y = 0 if self.sides == "left_right" else round(self.amount * height)
        return np.asarray(cv2.copyMakeBorder(frame, y, y, x, x, cv2.BORDER_CONSTANT, value=self.color), np.uint8)


@dataclass(frozen=True)
class PadBlurred(FrameEdit):
    """Make the short side longer by ``factor``, filled with the enlarged, blurred clip itself."""

    name = "pad_blurred"
    factor: Annotated[float, uniform(1.3, 2.0)]

    def _edit(self, frame: Frame) -> Frame:
        width, height = size_of(frame)
        size = scaled((width, height), self.factor, 1) if width < height else scaled((width, height), 1, self.factor)
        # Blurred small and enlarged: as smooth as a wide Gaussian at a small part of its cost.
        small = resize(cover(frame, size), scaled(size, 1 / 8, 1 / 8))
        background = resize(np.asarray(cv2.GaussianBlur(small, (0, 0), 0.04 * min(size_of(small))), np.uint8), size)
        return paste(background, frame, corner_of((width, height), size, x=0.5, y=0.5))


@dataclass(frozen=True)
class HFlip(FrameEdit):
    """Mirror left and right."""

    name = "hflip"

    def _edit(self, frame: Frame) -> Frame:
        return np.ascontiguousarray(frame[:, ::-1])


@dataclass(frozen=True)
class VFlip(FrameEdit):
    """Mirror top and bottom."""

    name = "vflip"

    def _edit(self, frame: Frame) -> Frame:
        return np.ascontiguousarray(frame[::-1])


@dataclass(frozen=True)
class Rotate(FrameEdit):
    """Turn counter-clockwise; the size stays, what comes in at the corners is black."""

    name = "rotate"
    degrees: Annotated[float, either_sign(4, 20)]

    def _edit(self, frame: Frame) -> Frame:
        width, height = size_of(frame)
        turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), self.degrees, 1)
        return np.asarray(cv2.warpAffine(frame, turn, (width, height)), np.uint8)


@dataclass(frozen=True)
class Rotate90(FrameEdit):
    """Turn counter-clockwise by right angles."""

    name = "rotate_90"
    num_turns: Annotated[int, integer(1, 3)]

    def _edit(self, frame: Frame) -> Frame:
        return np.ascontiguousarray(np.rot90(frame, self.num_turns))


@dataclass(frozen=True)
class ChangeAspectRatio(FrameEdit):
    """Multiply width / height by ``factor``, by squeezing one side."""

    name = "change_aspect_ratio"
    factor: Annotated[float, factor_or_inverse(1.25, 1.8)]

    def _edit(self, frame: Frame) -> Frame:
        return resize(frame, scaled(size_of(frame), min(1.0, self.factor), min(1.0, 1 / self.factor)))


@dataclass(frozen=True)
class PerspectiveTransform(FrameEdit):
    """See the frame from aside: the corners move inwards, the outside is black.

    ``insets``: x and y of the top left, top right, bottom right and bottom left corner.
    """

    name = "perspective_transform"
    insets: Annotated[tuple[float, ...], lambda rng: tuple(rng.uniform(0.02, 0.2, size=8).round(4).tolist())]

    def _edit(self, frame: Frame) -> Frame:
        width, height = size_of(frame)
        corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32)
        moved = np.abs(corners - np.array(self.insets, np.float32).reshape(4, 2))
        extent = np.array([width - 1, height - 1], np.float32)
        transform = cv2.getPerspectiveTransform(corners * extent, moved * extent)
        return np.asarray(cv2.warpPerspective(frame, transform, (width, height)), np.uint8)
