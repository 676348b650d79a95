"""Two views of one picture as the winner of VSC2022 draws them (arXiv 2305.12361): one hard and one easy, or both easy.

The list of augmentations and their ranges is the paper's; each is applied with the same probability, in random order.
Of the two hard pipelines the second also turns and distorts the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from training.descriptor.views import DrawPicture, edit_picture, fit, random_crop
from training.footage.edits.appearance import AddNoise, Blur, ColorJitter, Grayscale, JpegCompression
from training.footage.edits.base import Edit
from training.footage.edits.geometry import HFlip, Pad, PerspectiveTransform, Rotate, Rotate90, VFlip
from training.footage.edits.overlay import OverlayEmoji, OverlayText
from training.footage.resizing import Frame, corner_of, cover, paste, resize, scaled, size_of

Augment = Callable[[np.random.Generator, Frame, DrawPicture], Frame]


@dataclass(frozen=True)
class ReferenceViews:
    """See `training.descriptor.config.ReferenceAugmentation` for the fields."""

    hard_mix: tuple[float, float]
    overlay_probability: float
    min_crop_area: float
    both_easy_probability: float = 0.5
    hard_probability: float = 0.3
    easy_probability: float = 0.15

    def draw(self, rng: np.random.Generator, picture: Frame, other: DrawPicture, *, input_px: int) -> list[Frame]:
        """Two views, ``(input_px, input_px, 3)`` each; the first one is the hard one, if there is one."""
        first = self._easy if rng.random() < self.both_easy_probability else self._hard
        return [fit(draw(rng, picture, other), input_px) for draw in (first, self._easy)]

    def _hard(self, rng: np.random.Generator, picture: Frame, other: DrawPicture) -> Frame:
        with_geometry = rng.random() * sum(self.hard_mix) >= self.hard_mix[0]
        augments = [*_APPEARANCE, *_LAYERS, *(_GEOMETRY if with_geometry else ())]
        view = self._augmented(rng, picture, other, augments, probability=self.hard_probability)
        return overlay_picture(rng, view, other) if rng.random() < self.overlay_probability else view

    def _easy(self, rng: np.random.Generator, picture: Frame, other: DrawPicture) -> Frame:
        return self._augmented(rng, picture, other, _APPEARANCE, probability=self.easy_probability)

    def _augmented(
        self,
        rng: np.random.Generator,
        picture: Frame,
        other: DrawPicture,
        augments: Sequence[Augment],
        *,
        probability: float,
    ) -> Frame:
        view = random_crop(rng, picture, area=(self.min_crop_area, 1.0))
        if rng.random() < 0.5:
            view = edit_picture(HFlip(), view, other)
        for index in rng.permutation(len(augments)):
            if rng.random() < probability:
                view = augments[index](rng, view, other)
        return view


def hue_saturation(rng: np.random.Generator, picture: Frame, _: DrawPicture) -> Frame:
    """Turn the hue by up to 30 degrees, scale saturation and value by up to a third."""
    hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV).astype(np.int16)
    hsv[..., 0] = (hsv[..., 0] + rng.integers(-15, 16)) % 180
    hsv[..., 1:] = (hsv[..., 1:] * rng.uniform(2 / 3, 4 / 3, size=2)).clip(0, 255)
    return np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB), np.uint8)


def snow(rng: np.random.Generator, picture: Frame, _: DrawPicture) -> Frame:
    """White flakes on up to a twentieth of the pixels, a little blurred."""
    width, height = size_of(picture)
    flakes = (rng.random((height, width), dtype=np.float32) < rng.uniform(0.005, 0.05)).astype(np.float32)
    blurred = np.asarray(cv2.GaussianBlur(flakes, (0, 0), rng.uniform(0.6, 1.4)), np.float32)
    cover_ratio = (blurred / max(float(blurred.max()), 1e-6))[..., None]
    return np.asarray(picture * (1 - cover_ratio) + 255 * cover_ratio, np.float32).astype(np.uint8)


def shrink_and_enlarge(rng: np.random.Generator, picture: Frame, _: DrawPicture) -> Frame:
    """Lose resolution: a third to all of it is kept."""
    factor = float(rng.uniform(1 / 3, 1))
    return resize(resize(picture, scaled(size_of(picture), factor, factor)), size_of(picture))


def logos(rng: np.random.Generator, picture: Frame, other: DrawPicture) -> Frame:
    """Small pictures in one to four corners."""
    for corner in rng.permutation(4)[: rng.integers(1, 5)]:
        side = float(rng.uniform(0.08, 0.2))
        logo = cover(other(), scaled(size_of(picture), side, side))
        place = corner_of(size_of(logo), size_of(picture), x=0.03 + 0.94 * (corner % 2), y=0.03 + 0.94 * (corner // 2))
        picture = paste(picture, logo, place)
    return picture


def overlay_picture(rng: np.random.Generator, picture: Frame, other: DrawPicture) -> Frame:
    """Another picture of opacity 0.3-0.7 over all of the picture, or over 0.5-1.0 of its sides."""
    factor = 1.0 if rng.random() < 0.5 else float(rng.uniform(0.5, 1.0))
    layer = cover(other(), scaled(size_of(picture), factor, factor))
    (width, height), (full_width, full_height) = size_of(layer), size_of(picture)
    left, top = corner_of((width, height), (full_width, full_height), x=float(rng.random()), y=float(rng.random()))
    opacity = float(rng.uniform(0.3, 0.7))
    below = picture[top : top + height, left : left + width]
    return paste(picture, np.asarray(cv2.addWeighted(below, 1 - opacity, layer, opacity, 0), np.uint8), (left, top))


def _wide_rotation(rng: np.random.Generator, picture: Frame, other: DrawPicture) -> Frame:
    return edit_picture(Rotate(round(float(rng.uniform(-45, 45)), 4)), picture, other)


def _jpeg(rng: np.random.Generator, picture: Frame, other: DrawPicture) -> Frame:
    return edit_picture(JpegCompression(int(rng.integers(20, 101))), picture, other)


def _crop_or_pad(rng: np.random.Generator, picture: Frame, other: DrawPicture) -> Frame:
    if rng.random() < 0.5:
        return random_crop(rng, picture, area=(0.6, 1.0))
    return edit_picture(Pad.draw(rng), picture, other)


def _of(*kinds: type[Edit]) -> list[Augment]:
    def apply(kind: type[Edit]) -> Augment:
        return lambda rng, picture, other: edit_picture(kind.draw(rng), picture, other)

    return [apply(kind) for kind in kinds]


_APPEARANCE: list[Augment] = [*_of(AddNoise, Blur, ColorJitter, Grayscale), hue_saturation, shrink_and_enlarge, _jpeg]
_LAYERS: list[Augment] = [*_of(OverlayText, OverlayEmoji), snow, logos, _crop_or_pad]
_GEOMETRY: list[Augment] = [*_of(VFlip, Rotate90, PerspectiveTransform), _wide_rotation]
