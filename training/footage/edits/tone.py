"""Edits of colour and contrast stronger than `appearance` has, and of detail. Nothing moves.

They are not in `EDIT_GROUPS`: sets that are drawn from there with a seed stay what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from numpy.typing import NDArray

from training.footage.edits.base import Clip, Edit, FrameEdit, any_color, choice, factor_or_inverse, integer, uniform
from training.footage.resizing import Frame, resize, scaled, size_of

_ORDERS = ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


@dataclass(frozen=True)
class Gamma(FrameEdit):
    """Raise levels, as parts of 255, to ``exponent``: below 1 is brighter."""

    name = "gamma"
    exponent: Annotated[float, factor_or_inverse(1.3, 3.0)]

    def _edit(self, frame: Frame) -> Frame:
        return _levels(255 * (np.arange(256) / 255) ** self.exponent)[frame]


@dataclass(frozen=True)
class SqueezeContrast(FrameEdit):
    """Map black to the level ``low`` and white to ``high``, both parts of 255: a faded picture."""

    name = "squeeze_contrast"
    low: Annotated[float, uniform(0.0, 0.45)]
    high: Annotated[float, uniform(0.55, 1.0)]

    def _edit(self, frame: Frame) -> Frame:
        return _levels(255 * (self.low + (self.high - self.low) * np.arange(256) / 255))[frame]


@dataclass(frozen=True)
class Posterize(FrameEdit):
    """Keep ``bits`` of the 8 of each channel."""

    name = "posterize"
    bits: Annotated[int, integer(1, 3)]

    def _edit(self, frame: Frame) -> Frame:
        top = 2**self.bits - 1
        return _levels(np.floor(np.arange(256) / 256 * (top + 1)) * 255 / top)[frame]


@dataclass(frozen=True)
class Tint(FrameEdit):
    """Lay one colour of opacity ``amount`` over the frame after removing ``1 - saturation`` of its own colour."""

    name = "tint"
    color: Annotated[tuple[int, int, int], any_color]
    amount: Annotated[float, uniform(0.15, 0.5)]
    saturation: Annotated[float, uniform(0.0, 1.0)]

    def _edit(self, frame: Frame) -> Frame:
        gray = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        own = np.asarray(cv2.addWeighted(frame, self.saturation, gray, 1 - self.saturation, 0), np.uint8)
        layer = np.broadcast_to(np.array(self.color, np.uint8), own.shape)
        return np.asarray(cv2.addWeighted(own, 1 - self.amount, layer.copy(), self.amount, 0), np.uint8)


@dataclass(frozen=True)
class SwapChannels(FrameEdit):
    """Show the red, green and blue values as other channels."""

    name = "swap_channels"
    order: Annotated[tuple[int, int, int], choice(_ORDERS)]

    def _edit(self, frame: Frame) -> Frame:
        return np.ascontiguousarray(frame[..., list(self.order)])


@dataclass(frozen=True)
class TurnHue(FrameEdit):
    """Turn the hue by ``degrees`` of 360."""

    name = "turn_hue"
    degrees: Annotated[float, uniform(20, 340)]

    def _edit(self, frame: Frame) -> Frame:
        hsv = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int64) + round(self.degrees / 2)) % 180
        return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


@dataclass(frozen=True)
class SaltAndPepper(Edit):
    """Make this share of the pixels black or white, others in every frame."""

    name = "salt_and_pepper"
    share: Annotated[float, uniform(0.02, 0.2)]
    seed: Annotated[int, integer(0, 2**31 - 1)]

    def _apply(self, frames: Clip, _: Sequence[Clip]) -> Clip:
        rng = np.random.default_rng(self.seed)
        for frame in frames:
            drawn = rng.random(frame.shape[:2], dtype=np.float32)
            noisy = frame.copy()
            noisy[drawn < self.share / 2] = 0
            noisy[drawn > 1 - self.share / 2] = 255
            yield noisy


@dataclass(frozen=True)
class LowResolution(FrameEdit):
    """Shrink the sides to ``ratio`` and enlarge them again, smoothly."""

    name = "low_resolution"
    ratio: Annotated[float, uniform(0.12, 0.5)]

    def _edit(self, frame: Frame) -> Frame:
        small = resize(frame, scaled(size_of(frame), self.ratio, self.ratio))
        return np.asarray(cv2.resize(small, size_of(frame), interpolation=cv2.INTER_LINEAR), np.uint8)


def _levels(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.round(values).clip(0, 255).astype(np.uint8)
