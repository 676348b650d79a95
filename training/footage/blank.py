"""Pictures that say nothing: plain colors, bars, ramps, noise, words on a plain ground, as they stand before films.

They match one another in unrelated videos. So a norm set holds their descriptors, and score normalization lowers the
score of every frame of a query that looks like one of them, whatever it is compared with.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GRAYS = (0, 16, 32, 64, 96, 128, 160, 192, 224, 235, 255)
PRIMARIES = ((0, 0, 255), (0, 0, 128), (255, 0, 0), (128, 0, 0), (0, 255, 0), (0, 128, 0))
MIXTURES = ((255, 255, 0), (0, 255, 255), (255, 0, 255), (64, 64, 128))
BARS = (
    (192, 192, 192), (192, 192, 0), (0, 192, 192), (0, 192, 0), (192, 0, 192), (192, 0, 0), (0, 0, 192), (0, 0, 0),
)  # fmt: skip
"""The upper part of the SMPTE color bars."""

NOISE_LEVELS = (16, 128, 235)
NOISE_STDS = (2, 6, 15, 40)

TITLE_COLORS = (((0, 0, 0), (255, 255, 255)), ((255, 255, 255), (0, 0, 0)), ((0, 0, 96), (255, 255, 255)))
"""Ground and letters."""

TITLE_SHAPES = ((1, 0.08), (1, 0.14), (2, 0.1), (3, 0.08), (6, 0.06))
"""Lines of a title, and the height of its letters as a share of the picture's."""

_TITLES_EACH = 2
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def blank_pictures(size_px: int) -> NDArray[np.uint8]:
    """RGB uint8 ``(N, size_px, size_px, 3)``; the same ones each time."""
    plain = [
        np.full((size_px, size_px, 3), color, np.uint8) for color in (*((gray,) * 3 for gray in GRAYS), *PRIMARIES)
    ]
    plain += [np.full((size_px, size_px, 3), color, np.uint8) for color in MIXTURES]
    bars = np.array(BARS, np.uint8)[np.arange(size_px) * len(BARS) // size_px]
    ramp = np.linspace(0, 255, size_px).astype(np.uint8)[:, None]
    rows = [ramp, ramp[::-1]]
    structured = [np.broadcast_to(bars, (size_px, size_px, 3))]
    structured += [np.broadcast_to(row[..., None], (size_px, size_px, 3)) for row in rows]
    structured += [np.broadcast_to(row[None], (size_px, size_px, 3)) for row in rows]
    generator = np.random.default_rng(0)
    noise = [
        np.clip(generator.normal(level, std, (size_px, size_px, 3)), 0, 255).astype(np.uint8)
        for std in NOISE_STDS
        for level in NOISE_LEVELS
    ]
    noise += [
        np.ascontiguousarray(np.broadcast_to(generator.integers(0, 256, (size_px, size_px, depth), np.uint8), shape))
        for depth, shape in ((1, (size_px, size_px, 3)), (3, (size_px, size_px, 3)))
    ]
    titles = [
        _title(size_px, ground, letters, lines=lines, share=share, generator=generator)
        for ground, letters in TITLE_COLORS
        for lines, share in TITLE_SHAPES
        for _ in range(_TITLES_EACH)
    ]
    return np.stack([*plain, *structured, *noise, *titles])


def _title(
    size_px: int,
    ground: tuple[int, int, int],
    letters: tuple[int, int, int],
    *,
    lines: int,
    share: float,
    generator: np.random.Generator,
) -> NDArray[np.uint8]:
    """Lines of words that mean nothing in the middle of a plain picture."""
    words = [
        ["".join(generator.choice(list(_LETTERS), generator.integers(3, 9))) for _ in range(generator.integers(1, 4))]
        for _ in range(lines)
    ]
    text = "\n".join(" ".join(line).capitalize() for line in words)
    picture = Image.new("RGB", (size_px, size_px), ground)
    font = ImageFont.load_default(max(1.0, share * size_px))
    middle = (size_px / 2, size_px / 2)
    ImageDraw.Draw(picture).multiline_text(middle, text, letters, font=font, anchor="mm", align="center")
    return np.asarray(picture)
