"""Which edits there are, in which order they follow each other, and drawing of plausible combinations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from training.footage.edits.appearance import (
    AddNoise,
    Blur,
    ColorJitter,
    EncodingQuality,
    Grayscale,
    JpegCompression,
    Pixelization,
)
from training.footage.edits.base import Clip, Draw, Edit
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
from training.footage.edits.temporal import ChangeVideoSpeed, Fps

EDIT_GROUPS: tuple[tuple[type[Edit], ...], ...] = (
    (ChangeVideoSpeed, Fps),
    (ColorJitter, Grayscale, Blur, AddNoise, Pixelization),
    (Crop, Pad, PadBlurred, HFlip, VFlip, Rotate, Rotate90, ChangeAspectRatio, PerspectiveTransform),
    (OverlayText, OverlayEmoji, OverlayShapes),
    (Overlay, OverlayOntoBackgroundVideo, HStack, VStack, Grid, BlendVideos),
    (JpegCompression, EncodingQuality),
)
"""Kinds of one group exclude each other in one copy; groups are applied from first to last, as an editor would."""

EDITS: dict[str, type[Edit]] = {kind.name: kind for group in EDIT_GROUPS for kind in group}
"""All kinds by name."""


Strengths = Mapping[str, Mapping[str, Draw[Any]]]
"""How to draw fields of edits otherwise than their annotations say: ``{name of the edit: {field: draw}}``."""


def draw_edits(
    rng: np.random.Generator, *, num_edits: int, kind: type[Edit], strengths: Strengths = MappingProxyType({})
) -> tuple[Edit, ...]:
    """Draw ``kind`` and ``num_edits - 1`` kinds of other groups (1 to 6 in all), in the order of application."""
    others = [group for group in EDIT_GROUPS if kind not in group]
    chosen = [others[index] for index in rng.permutation(len(others))[: num_edits - 1]]
    kinds = {kind, *(group[rng.integers(len(group))] for group in chosen)}
    return tuple(
        member.draw(rng, strengths.get(member.name, {})) for group in EDIT_GROUPS for member in group if member in kinds
    )


def apply_edits(frames: Clip, edits: Sequence[Edit], distractors: Sequence[Clip]) -> Clip:
    """Chain edits; each takes the next ``num_distractors`` of the distractor clips."""
    remaining = iter(distractors)
    for edit in edits:
        frames = edit.apply(frames, *(next(remaining) for _ in range(edit.num_distractors)))
    return frames


__all__ = [
    "EDITS",
    "EDIT_GROUPS",
    "Clip",
    "Edit",
    "Strengths",
    "apply_edits",
    "draw_edits",
]
