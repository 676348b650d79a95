"""Edits that draw something over the frames: text, an emoji, shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.footage.edits.base import LayerEdit, any_color, choice, uniform
from training.footage.resizing import Size, corner_of

Rgb = tuple[int, int, int]
Emoji = Literal["smile", "wow", "heart"]
ShapeKind = Literal["ellipse", "rectangle", "triangle"]

PHRASES = ("wait for it...", "when you see it", "follow for more", "PART 2", "so true", "#foryou", "me on monday")
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)
_TEXT_COLORS: tuple[Rgb, ...] = (_WHITE, (255, 221, 51), (255, 84, 84), (90, 200, 250), _BLACK)
_EMOJI_SIDE_PX = 400


@dataclass(frozen=True)
class OverlayText(LayerEdit):
    """A line of outlined text centred at ``y``, ``height`` of the frame high or as wide as the frame."""

    name = "overlay_text"
    text: Annotated[str, choice(PHRASES)]
    y: Annotated[float, uniform(0.1, 0.9)]
    height: Annotated[float, uniform(0.08, 0.16)]
    color: Annotated[Rgb, choice(_TEXT_COLORS)]

    def _layer(self, size: Size) -> Image.Image:
        width, height = size
        font_px = max(1.0, self.height * height)
        font_px *= min(1.0, 0.9 * width / ImageFont.load_default(font_px).getlength(self.text))
        layer = Image.new("RGBA", size)
        ImageDraw.Draw(layer).text(
            (width / 2, self.y * height),
            self.text,
            font=ImageFont.load_default(max(1.0, font_px)),
            fill=self.color,
            anchor="mm",
            stroke_width=max(1, round(0.08 * font_px)),
            stroke_fill=_WHITE if self.color == _BLACK else _BLACK,
        )
        return layer


@dataclass(frozen=True)
class OverlayEmoji(LayerEdit):
    """An emoji, ``scale`` of the short side large; x, y are fractions of the free way."""

    name = "overlay_emoji"
    emoji: Annotated[Emoji, choice(get_args(Emoji))]
    scale: Annotated[float, uniform(0.2, 0.45)]
    x: Annotated[float, uniform(0, 1)]
    y: Annotated[float, uniform(0, 1)]

    def _layer(self, size: Size) -> Image.Image:
        side_px = max(2, round(self.scale * min(size)))
        layer = Image.new("RGBA", size)
        emoji = _paint(self.emoji).resize((side_px, side_px), Image.Resampling.BOX)
        layer.paste(emoji, corner_of((side_px, side_px), size, x=self.x, y=self.y))
        return layer


@dataclass(frozen=True)
class Shape:
    """One filled shape: its box ``(x0, y0, x1, y1)`` in fractions of the frame, color, and opacity 0-255."""

    kind: ShapeKind
    box: tuple[float, float, float, float]
    color: Rgb
    opacity: int


def _draw_shapes(rng: np.random.Generator) -> tuple[Shape, ...]:
    return tuple(_draw_shape(rng) for _ in range(rng.integers(2, 6)))


def _draw_shape(rng: np.random.Generator) -> Shape:
    width, height = rng.uniform(0.08, 0.25, size=2)
    left, top = rng.uniform(0, 1 - width), rng.uniform(0, 1 - height)
    x0, y0, x1, y1 = np.round([left, top, left + width, top + height], 4).tolist()
    return Shape(choice(get_args(ShapeKind))(rng), (x0, y0, x1, y1), any_color(rng), int(rng.integers(128, 256)))


@dataclass(frozen=True)
class OverlayShapes(LayerEdit):
    """Two to five shapes, half to fully opaque."""

    name = "overlay_shapes"
    shapes: Annotated[tuple[Shape, ...], _draw_shapes]

    def _layer(self, size: Size) -> Image.Image:
        layer = Image.new("RGBA", size)
        for shape in self.shapes:
            # Alone on its layer first: where shapes overlap they must blend, and drawing on RGBA replaces.
            single = Image.new("RGBA", size)
            _paint_shape(ImageDraw.Draw(single), shape, size)
            layer.alpha_composite(single)
        return layer


def _paint_shape(draw: ImageDraw.ImageDraw, shape: Shape, size: Size) -> None:
    x0, y0, x1, y1 = (part * size[axis % 2] for axis, part in enumerate(shape.box))
    fill = (*shape.color, shape.opacity)
    match shape.kind:
        case "ellipse":
            draw.ellipse([x0, y0, x1, y1], fill=fill)
        case "rectangle":
            draw.rectangle([x0, y0, x1, y1], fill=fill)
        case "triangle":
            draw.polygon([(x0, y1), (x1, y1), ((x0 + x1) / 2, y0)], fill=fill)


def _paint(emoji: Emoji) -> Image.Image:
    """The emoji as an RGBA square of ``_EMOJI_SIDE_PX``: several times larger than shown, for smooth edges."""
    picture = Image.new("RGBA", (_EMOJI_SIDE_PX, _EMOJI_SIDE_PX))
    draw = ImageDraw.Draw(picture)
    if emoji == "heart":
        angle = np.linspace(0, 2 * np.pi, 200)
        x = 16 * np.sin(angle) ** 3
        y = -13 * np.cos(angle) + 5 * np.cos(2 * angle) + 2 * np.cos(3 * angle) + np.cos(4 * angle)
        outline = np.stack([x + 17, y + 15], axis=1) * (_EMOJI_SIDE_PX / 34)
        draw.polygon([tuple(point) for point in outline.tolist()], fill=(230, 40, 60))
        return picture
    draw.ellipse([4, 4, 396, 396], fill=(255, 204, 51), outline=(170, 120, 0), width=8)
    draw.ellipse([104, 112, 152, 184], fill=(90, 60, 0))
    draw.ellipse([248, 112, 296, 184], fill=(90, 60, 0))
    if emoji == "smile":
        draw.chord([88, 152, 312, 336], 10, 170, fill=(120, 50, 20))
    else:
        draw.ellipse([152, 224, 248, 344], fill=(120, 50, 20))
    return picture
