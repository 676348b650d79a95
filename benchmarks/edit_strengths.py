"""Every kind of edit that one picture can show, at three fixed strengths: slight, clear, and harsh.

A kind without a strength, such as a mirrored picture, has one entry. Kinds of time (speed, frame rate) are not here: of
a single picture they change nothing. What else a kind draws, such as places and colours, is drawn for each picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from training.footage.edits import EDITS, Edit
from training.footage.edits.base import Draw
from training.footage.edits.overlay import OverlayShapes
from training.footage.edits.wide import MORE_EDITS

LEVELS = ("slight", "clear", "harsh")
"""Names of the strengths, in their order."""

Values = Mapping[str, Any]

STRENGTHS: dict[str, tuple[Values, ...]] = {
    "add_noise": ({"std": 20.0}, {"std": 45.0}, {"std": 80.0}),
    "blend_videos": ({"opacity": 0.3}, {"opacity": 0.5}, {"opacity": 0.65}),
    "blur": ({"sigma": 0.008}, {"sigma": 0.018}, {"sigma": 0.035}),
    "caption_bar": ({"height": 0.12, "opacity": 200}, {"height": 0.2, "opacity": 255}, {"height": 0.3, "opacity": 255}),
    "change_aspect_ratio": ({"factor": 1.3}, {"factor": 1.7}, {"factor": 2.2}),
    "color_jitter": (
        {"brightness": 1.25, "contrast": 1.2, "saturation": 0.6},
        {"brightness": 0.6, "contrast": 1.6, "saturation": 0.3},
        {"brightness": 0.4, "contrast": 2.0, "saturation": 2.5},
    ),
    "crop": ({"width": 0.85, "height": 0.85}, {"width": 0.65, "height": 0.65}, {"width": 0.5, "height": 0.5}),
    "encoding_quality": ({"crf": 38}, {"crf": 44}, {"crf": 50}),
    "gamma": ({"exponent": 1.5}, {"exponent": 2.2}, {"exponent": 3.5}),
    "grayscale": ({},),
    "grid": ({},),
    "hflip": ({},),
    "hstack": ({},),
    "jpeg_compression": ({"quality": 20}, {"quality": 8}, {"quality": 3}),
    "low_resolution": ({"ratio": 0.35}, {"ratio": 0.2}, {"ratio": 0.1}),
    "overlay": ({"scale": 0.3}, {"scale": 0.45}, {"scale": 0.6}),
    "overlay_emoji": ({"scale": 0.25}, {"scale": 0.45}, {"scale": 0.65}),
    "overlay_onto_background_video": ({"scale": 0.75}, {"scale": 0.55}, {"scale": 0.4}),
    "overlay_shapes": ({"num_shapes": 2}, {"num_shapes": 5}, {"num_shapes": 12}),
    "overlay_text": ({"height": 0.08}, {"height": 0.14}, {"height": 0.22}),
    "pad": ({"amount": 0.1}, {"amount": 0.22}, {"amount": 0.4}),
    "pad_blurred": ({"factor": 1.4}, {"factor": 1.9}, {"factor": 2.6}),
    "pad_uneven": ({"border": 0.2}, {"border": 0.4}, {"border": 0.7}),
    "perspective_transform": ({"inset": 0.08}, {"inset": 0.16}, {"inset": 0.25}),
    "pixelization": ({"ratio": 0.3}, {"ratio": 0.17}, {"ratio": 0.1}),
    "posterize": ({"bits": 3}, {"bits": 2}, {"bits": 1}),
    "rotate": ({"degrees": 6.0}, {"degrees": 15.0}, {"degrees": 30.0}),
    "rotate_90": ({},),
    "salt_and_pepper": ({"share": 0.03}, {"share": 0.1}, {"share": 0.25}),
    "squeeze_contrast": ({"low": 0.15, "high": 0.85}, {"low": 0.3, "high": 0.7}, {"low": 0.42, "high": 0.58}),
    "swap_channels": ({},),
    "tint": ({"amount": 0.2}, {"amount": 0.4}, {"amount": 0.6}),
    "turn_hue": ({"degrees": 30.0}, {"degrees": 90.0}, {"degrees": 180.0}),
    "vflip": ({},),
    "vstack": ({},),
}
"""What is fixed, by kind, from slight to harsh: fields, or ``inset``, ``border`` (the largest) and ``num_shapes``."""


def levels_of(kind: str) -> tuple[str, ...]:
    """The names of the strengths that a kind has: all three, or only ``clear``."""
    return LEVELS if len(STRENGTHS[kind]) > 1 else LEVELS[1:2]


def edit_of(kind: str, level: str, rng: np.random.Generator) -> Edit:
    """An edit of a kind at a strength; everything but the strength is drawn."""
    values = STRENGTHS[kind][levels_of(kind).index(level)]
    return (EDITS | MORE_EDITS)[kind].draw(rng, dict(_field(key, value) for key, value in values.items()))


def _field(key: str, value: Any) -> tuple[str, Draw[Any]]:
    match key:
        case "inset":
            return "insets", lambda rng: tuple(rng.uniform(0.5 * value, value, size=8).round(4).tolist())
        case "border":
            return "amounts", lambda rng: tuple(rng.uniform(0, value, size=4).round(4).tolist())
        case "num_shapes":
            return "shapes", lambda rng: tuple(OverlayShapes.draw(rng).shapes[0] for _ in range(value))
        case _:
            return key, lambda _: value
