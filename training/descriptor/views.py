"""Two views of one picture for contrastive training: one edited as copies are, one nearly as it was.

Views are RGB uint8 squares, the aspect ratio not kept, as the models take them. Knows nothing of models and stores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np

from training.footage.edits import EDIT_GROUPS, Edit
from training.footage.edits.appearance import ColorJitter, JpegCompression
from training.footage.edits.bars import CaptionBar
from training.footage.edits.overlay import OverlayText
from training.footage.edits.wide import draw_wide
from training.footage.resizing import Frame, resize, size_of

DrawPicture = Callable[[], Frame]
"""Another picture, for edits that mix one in."""

NEVER_TRAINED = frozenset(("pixelization", "pad_blurred", "overlay_shapes", "perspective_transform"))
"""Kinds of edit that `EditedViews` never draw, so that validation can tell learning from memory."""

_NOT_FOR_PICTURES = frozenset(("change_video_speed", "fps", "encoding_quality"))
"""Edits of time, and a video encoder that costs more than the rest and looks like JPEG on a single picture."""

_EASY_AREA = (0.6, 1.0)
_HARD_AREA = (0.5, 1.0)
_ASPECT = 4 / 3


class Views(Protocol):
    """Draws the two views of a picture."""

    def draw(self, rng: np.random.Generator, picture: Frame, other: DrawPicture, *, input_px: int) -> list[Frame]:
        """Two views, uint8 ``(input_px, input_px, 3)``."""


@dataclass(frozen=True)
class EditedViews:
    """One hard and one easy view. Hard: ``min_edits`` to ``max_edits`` edits of the synthesizer, of a group each.

    ``crop_probability``: of a random crop before the edits.
    """

    min_edits: int = 1
    max_edits: int = 4
    crop_probability: float = 0.5

    def draw(self, rng: np.random.Generator, picture: Frame, other: DrawPicture, *, input_px: int) -> list[Frame]:
        """The hard and the easy view, ``(input_px, input_px, 3)`` each."""
        hard = random_crop(rng, picture, area=_HARD_AREA) if rng.random() < self.crop_probability else picture
        for kind in draw_kinds(rng, num_edits=int(rng.integers(self.min_edits, self.max_edits, endpoint=True))):
            hard = edit_picture(_with_any_text(rng, kind.draw(rng)), hard, other)
        return [fit(view, input_px) for view in (hard, easy_view(rng, picture))]


@dataclass(frozen=True)
class WideViews:
    """A hard and an easier view, with ``min_edits`` to ``max_edits`` edits of `training.footage.edits.wide`.

    ``both_probability``: how often the second view has one or two such edits as well; else it is `easy_view`'s.
    """

    min_edits: int = 1
    max_edits: int = 4
    both_probability: float = 0.3

    def draw(self, rng: np.random.Generator, picture: Frame, other: DrawPicture, *, input_px: int) -> list[Frame]:
        """The hard and the easier view, ``(input_px, input_px, 3)`` each."""
        hard = self._edited(rng, picture, other, self.min_edits, self.max_edits)
        if rng.random() < self.both_probability:
            easier = self._edited(rng, picture, other, 1, 2)
        else:
            easier = easy_view(rng, picture)
        return [fit(view, input_px) for view in (hard, easier)]

    @staticmethod
    def _edited(rng: np.random.Generator, picture: Frame, other: DrawPicture, least: int, most: int) -> Frame:
        for edit in draw_wide(rng, num_edits=int(rng.integers(least, most, endpoint=True))):
            picture = edit_picture(_with_any_text(rng, edit), picture, other)
        return picture


def _with_any_text(rng: np.random.Generator, edit: Edit) -> Edit:
    """Any text, or the model would learn to look past the few phrases of the synthesizer."""
    return replace(edit, text=_any_text(rng)) if isinstance(edit, OverlayText | CaptionBar) else edit


def _any_text(rng: np.random.Generator) -> str:
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789     .,!?"
    return "".join(letters[int(index)] for index in rng.integers(len(letters), size=rng.integers(3, 24))).strip() or "?"


def easy_view(rng: np.random.Generator, picture: Frame) -> Frame:
    """A large random crop, half the time mirrored, in other colors, or compressed."""
    view = random_crop(rng, picture, area=_EASY_AREA)
    if rng.random() < 0.5:
        view = np.ascontiguousarray(view[:, ::-1])
    if rng.random() < 0.5:
        jitter = ColorJitter(*(round(float(rng.uniform(0.8, 1.25)), 4) for _ in range(3)))
        view = edit_picture(jitter, view, lambda: picture)
    if rng.random() < 0.5:
        view = edit_picture(JpegCompression(int(rng.integers(30, 90))), view, lambda: picture)
    return view


_TRAINED_GROUPS: Sequence[Sequence[type[Edit]]] = [
    kinds
    for group in EDIT_GROUPS
    if (kinds := [kind for kind in group if kind.name not in NEVER_TRAINED | _NOT_FOR_PICTURES])
]


def draw_kinds(rng: np.random.Generator, *, num_edits: int) -> list[type[Edit]]:
    """Kinds of ``num_edits`` different groups, in the order in which an editor applies them."""
    chosen = sorted(rng.permutation(len(_TRAINED_GROUPS))[:num_edits].tolist())
    return [_TRAINED_GROUPS[index][int(rng.integers(len(_TRAINED_GROUPS[index])))] for index in chosen]


def edit_picture(edit: Edit, picture: Frame, other: DrawPicture) -> Frame:
    """Apply an edit of videos to one picture; ``other`` gives what it mixes in."""
    return next(edit.apply(iter([picture]), *(iter([other()]) for _ in range(edit.num_distractors))))


def random_crop(rng: np.random.Generator, picture: Frame, *, area: tuple[float, float]) -> Frame:
    """A rectangle with a part of the picture's area within ``area``, its aspect ratio changed by up to 4/3."""
    width, height = size_of(picture)
    side = np.sqrt(rng.uniform(*area))
    stretch = np.exp(rng.uniform(-np.log(_ASPECT), np.log(_ASPECT)) / 2)
    new_width = min(width, max(2, round(width * side * stretch)))
    new_height = min(height, max(2, round(height * side / stretch)))
    left, top = (int(rng.integers(0, free, endpoint=True)) for free in (width - new_width, height - new_height))
    return picture[top : top + new_height, left : left + new_width]


def fit(picture: Frame, input_px: int) -> Frame:
    """Stretch to the square that a model takes."""
    if min(size_of(picture)) < 2:
        picture = np.asarray(cv2.copyMakeBorder(picture, 0, 1, 0, 1, cv2.BORDER_REPLICATE), np.uint8)
    return resize(picture, (input_px, input_px))
