"""Pictures that say nothing: black, white, plain colors, bars, ramps, noise, as they stand between and before films.

They match one another in unrelated videos. So a norm set holds their descriptors, and score normalization lowers the
score of every frame of a query that looks like one of them, whatever it is compared with.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GRAYS = (0, 16, 32, 64, 96, 128, 160, 192, 224, 235, 255)
PRIMARIES = ((0, 0, 255), (0, 0, 128), (255, 0, 0), (128, 0, 0), (0, 255, 0), (0, 128, 0))
MIXTURES = ((255, 255, 0), (0, 255, 255), (255, 0, 255), (64, 64, 128))
BARS = (
    (192, 192, 192), (192, 192, 0), (0, 192, 192), (0, 192, 0), (192, 0, 192), (192, 0, 0), (0, 0, 192), (0, 0, 0),
)  # fmt: skip
"""The upper part of the SMPTE color bars."""

NOISE_LEVELS = (16, 128, 235)
NOISE_STDS = (2, 6, 15)


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
    return np.stack([*plain, *structured, *noise])
