"""Edits that add surfaces of one colour: caption bars with text, and borders that differ from side to side.

They are not in `EDIT_GROUPS`: sets that are drawn from there with a seed stay what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.footage.edits.base import Clip, Edit, FrameEdit, any_color, choice, integer, uniform
from training.footage.edits.overlay import PHRASES, Rgb
from training.footage.resizing import Frame, Size, size_of

Place = Literal["top", "bottom", "lower_third", "above", "below"]
"""Where a bar is: on the frame at its end or in its lower third, or beside the frame, which becomes higher."""

_BAR_COLORS: tuple[Rgb, ...] = ((0, 0, 0), (255, 255, 255), (20, 20, 60), (190, 20, 30), (250, 210, 40), (30, 110, 220))
_LINE_SHARE = 0.7
_BRIGHT = 128
_MIN_BAR_PX = 4


@dataclass(frozen=True)
class CaptionBar(Edit):
    """A bar across the frame, ``height`` of it high, with one or two lines of text; opacity 0-255."""

    name = "caption_bar"
    place: Annotated[Place, choice(get_args(Place))]
    height: Annotated[float, uniform(0.1, 0.27)]
    text: Annotated[str, choice(PHRASES)]
    num_lines: Annotated[int, integer(1, 2)]
    color: Annotated[Rgb, choice(_BAR_COLORS)]
    opacity: Annotated[int, integer(150, 255)]

    def _apply(self, frames: Clip, _: Sequence[Clip]) -> Clip:
        bar: Frame | None = None
        for frame in frames:
            width, height = size_of(frame)
            if bar is None:
                bar = self._bar((width, max(_MIN_BAR_PX, round(self.height * height))))
            yield self._with_bar(frame, bar)

    def _with_bar(self, frame: Frame, bar: Frame) -> Frame:
        if self.place in ("above", "below"):
            return np.vstack([bar, frame] if self.place == "above" else [frame, bar])
        free_px = max(0, len(frame) - len(bar))
        top = {"top": 0.0, "bottom": 1.0, "lower_third": 0.9}[self.place]
        rows = slice(round(top * free_px), round(top * free_px) + len(bar))
        edited = frame.copy()
        share = self.opacity / 255
        edited[rows] = cv2.addWeighted(frame[rows], 1 - share, bar[: len(edited[rows])], share, 0)
        return edited

    def _bar(self, size: Size) -> Frame:
        width, height = size
        picture = Image.new("RGB", size, self.color)
        draw = ImageDraw.Draw(picture)
        is_bright = sum(self.color) / 3 > _BRIGHT
        for line in range(self.num_lines):
            font_px = _LINE_SHARE * height / self.num_lines
            font_px *= min(1.0, 0.95 * width / max(1.0, _font(font_px).getlength(self.text)))
            middle = (width / 2, (line + 0.5) * height / self.num_lines)
            draw.text(middle, self.text, font=_font(font_px), fill="black" if is_bright else "white", anchor="mm")
        return np.array(picture)


def _draw_amounts(rng: np.random.Generator) -> tuple[float, float, float, float]:
    left, top, right, bottom = rng.uniform(0, 0.45, size=4).round(4).tolist()
    return left, top, right, bottom


@dataclass(frozen=True)
class PadUneven(FrameEdit):
    """Add borders of one colour: left, top, right and bottom, each a part of the frame's side."""

    name = "pad_uneven"
    amounts: Annotated[tuple[float, float, float, float], _draw_amounts]
    color: Annotated[tuple[int, int, int], any_color]

    def _edit(self, frame: Frame) -> Frame:
        width, height = size_of(frame)
        left, top, right, bottom = (
            round(part * side) for part, side in zip(self.amounts, (width, height) * 2, strict=True)
        )
        return np.asarray(
            cv2.copyMakeBorder(frame, top, bottom, left, right, cv2.BORDER_CONSTANT, value=self.color), np.uint8
        )


def _font(size_px: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(max(1.0, size_px))
