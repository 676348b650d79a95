"""Edits of pixel values: color, sharpness, noise and compression. Nothing moves."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np
from PIL import Image

from training.footage.clips import reencode
from training.footage.edits.base import Clip, Edit, FrameEdit, integer, uniform
from training.footage.resizing import Frame, resize, size_of


@dataclass(frozen=True)
class ColorJitter(FrameEdit):
    """Scale brightness, contrast about middle grey, and saturation."""

    name = "color_jitter"
    brightness: Annotated[float, uniform(0.6, 1.4)]
    contrast: Annotated[float, uniform(0.6, 1.5)]
    saturation: Annotated[float, uniform(0.3, 1.8)]

    def _edit(self, frame: Frame) -> Frame:
        levels = (np.arange(256) * self.brightness - 128) * self.contrast + 128
        toned = levels.round().clip(0, 255).astype(np.uint8)[frame]
        return np.asarray(cv2.addWeighted(toned, self.saturation, _gray(toned), 1 - self.saturation, 0), np.uint8)


@dataclass(frozen=True)
class Grayscale(FrameEdit):
    """Remove all color."""

    name = "grayscale"

    def _edit(self, frame: Frame) -> Frame:
        return _gray(frame)


@dataclass(frozen=True)
class Blur(FrameEdit):
    """Gaussian blur; ``sigma`` is a fraction of the short side."""

    name = "blur"
    sigma: Annotated[float, uniform(0.005, 0.02)]

    def _edit(self, frame: Frame) -> Frame:
        return np.asarray(cv2.GaussianBlur(frame, (0, 0), self.sigma * min(size_of(frame))), np.uint8)


@dataclass(frozen=True)
class AddNoise(Edit):
    """Gaussian noise, new in every frame; ``std`` in grey levels."""

    name = "add_noise"
    std: Annotated[float, uniform(10, 35)]
    seed: Annotated[int, integer(0, 2**31 - 1)]

    def _apply(self, frames: Clip, _: Sequence[Clip]) -> Clip:
        rng = np.random.default_rng(self.seed)
        for frame in frames:
            noise = rng.standard_normal(frame.shape, dtype=np.float32) * np.float32(self.std)
            yield (frame + noise).round().clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Pixelization(FrameEdit):
    """Show blocks of one color; the sides keep ``ratio`` of their resolution."""

    name = "pixelization"
    ratio: Annotated[float, uniform(0.15, 0.4)]

    def _edit(self, frame: Frame) -> Frame:
        width, height = size_of(frame)
        small = resize(frame, (max(1, round(width * self.ratio)), max(1, round(height * self.ratio))))
        return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


@dataclass(frozen=True)
class JpegCompression(FrameEdit):
    """Compress every frame as JPEG of this quality (of 100)."""

    name = "jpeg_compression"
    quality: Annotated[int, integer(5, 25)]

    def _edit(self, frame: Frame) -> Frame:
        with io.BytesIO() as jpeg:
            Image.fromarray(frame).save(jpeg, format="jpeg", quality=self.quality)
            return np.array(Image.open(jpeg))


@dataclass(frozen=True)
class EncodingQuality(Edit):
    """Encode as H.264 with a high constant rate factor (of 51, the worst) and decode again."""

    name = "encoding_quality"
    crf: Annotated[int, integer(34, 44)]

    def _apply(self, frames: Clip, _: Sequence[Clip]) -> Clip:
        return reencode(frames, crf=self.crf)


def _gray(frame: Frame) -> Frame:
    return np.asarray(cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)
