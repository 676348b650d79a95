"""Which edits training draws for hard views, how often, and how strong: from slight to beyond what copies show."""

from __future__ import annotations

import numpy as np

from training.footage.edits import Strengths
from training.footage.edits.appearance import AddNoise, Blur, ColorJitter, Grayscale, JpegCompression, Pixelization
from training.footage.edits.bars import CaptionBar, PadUneven
from training.footage.edits.base import Edit, choice, either_sign, factor_or_inverse, integer, uniform
from training.footage.edits.composition import BlendVideos, Grid, HStack, Overlay, OverlayOntoBackgroundVideo, VStack
from training.footage.edits.geometry import (
    ChangeAspectRatio,
    Crop,
    HFlip,
    Pad,
    PadBlurred,
    PerspectiveTransform,
    Rotate,
    Rotate90,
    VFlip,
)
from training.footage.edits.overlay import OverlayEmoji, OverlayShapes, OverlayText
from training.footage.edits.tone import (
    Gamma,
    LowResolution,
    Posterize,
    SaltAndPepper,
    SqueezeContrast,
    SwapChannels,
    Tint,
    TurnHue,
)

MORE_EDITS: dict[str, type[Edit]] = {
    kind.name: kind
    for kind in (
        Gamma,
        SqueezeContrast,
        Posterize,
        Tint,
        SwapChannels,
        TurnHue,
        SaltAndPepper,
        LowResolution,
        CaptionBar,
        PadUneven,
    )
}
"""Kinds that only training and `benchmarks.per_edit` draw, by name."""

WIDE_GROUPS: tuple[dict[type[Edit], float], ...] = (
    {Crop: 3, HFlip: 1, VFlip: 0.3, Rotate: 1.5, Rotate90: 0.3, ChangeAspectRatio: 1, PerspectiveTransform: 2},
    {
        ColorJitter: 3,
        Grayscale: 1,
        Gamma: 1,
        SqueezeContrast: 0.7,
        Posterize: 0.7,
        Tint: 1,
        SwapChannels: 0.5,
        TurnHue: 1,
    },
    {BlendVideos: 4, Overlay: 1, OverlayOntoBackgroundVideo: 2, HStack: 0.7, VStack: 0.7, Grid: 1.2},
    {Pad: 1, PadUneven: 1, PadBlurred: 1, CaptionBar: 1},
    {OverlayText: 1, OverlayEmoji: 1, OverlayShapes: 1, CaptionBar: 2},
    {AddNoise: 2, SaltAndPepper: 0.7, Pixelization: 1.5, LowResolution: 0.8, Blur: 1},
    {JpegCompression: 1},
)
"""Kinds of one group exclude each other in one view, but for bars; weights are how often a kind is drawn."""

WIDE: Strengths = {
    "crop": {"width": uniform(0.58, 0.95), "height": uniform(0.58, 0.95)},
    "rotate": {"degrees": either_sign(2, 30)},
    "change_aspect_ratio": {"factor": factor_or_inverse(1.2, 2.0)},
    "perspective_transform": {"insets": lambda rng: tuple(rng.uniform(0.0, 0.25, size=8).round(4).tolist())},
    "color_jitter": {
        "brightness": uniform(0.4, 1.7),
        "contrast": uniform(0.4, 2.0),
        "saturation": uniform(0.0, 2.5),
    },
    "blend_videos": {"opacity": uniform(0.2, 0.67)},
    "overlay": {"scale": uniform(0.25, 0.55)},
    "overlay_onto_background_video": {"scale": uniform(0.4, 0.85)},
    "pad": {"amount": uniform(0.05, 0.45)},
    "pad_blurred": {"factor": uniform(1.3, 2.4)},
    "overlay_text": {"height": uniform(0.06, 0.2)},
    "overlay_emoji": {"scale": uniform(0.2, 0.55)},
    "add_noise": {"std": uniform(8, 80)},
    "pixelization": {"ratio": uniform(0.08, 0.4)},
    "blur": {"sigma": uniform(0.005, 0.03)},
    "jpeg_compression": {"quality": integer(3, 40)},
    "posterize": {"bits": choice((1, 2, 2, 3))},
}
"""Strengths of the kinds whose own range is narrower than training needs."""


def draw_wide(rng: np.random.Generator, *, num_edits: int) -> list[Edit]:
    """Edits of ``num_edits`` different groups (1 to 7) with wide strengths, in the order of application."""
    chosen = sorted(rng.permutation(len(WIDE_GROUPS))[:num_edits].tolist())
    edits = []
    for group in (WIDE_GROUPS[index] for index in chosen):
        weights = np.array(list(group.values()))
        kind = list(group)[int(rng.choice(len(group), p=weights / weights.sum()))]
        edits.append(kind.draw(rng, WIDE.get(kind.name, {})))
    return edits
