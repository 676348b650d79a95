"""Fits a picture to the square input of a model, as torchvision does with Pillow images. Knows nothing of video."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.frames import InputSpec

_BICUBIC = Image.Resampling.BICUBIC
"""Pillow's bicubic (a = -0.5) widens its support where it shrinks: it antialiases."""


def fit_picture(picture: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Turn an RGB picture, uint8 ``(H, W, 3)``, into uint8 ``(size_px, size_px, 3)`` by ``spec.fit``."""
    image = Image.fromarray(picture)
    if spec.fit == "stretch":
        return np.asarray(image.resize((spec.size_px, spec.size_px), _BICUBIC))
    # torchvision cuts the fraction off the long side and rounds the margin to even.
    width, height = image.size
    short = min(width, height)
    new_width, new_height = (int(spec.size_px * side / short) for side in (width, height))
    left, top = round((new_width - spec.size_px) / 2), round((new_height - spec.size_px) / 2)
    resized = image.resize((new_width, new_height), _BICUBIC)
    return np.asarray(resized.crop((left, top, left + spec.size_px, top + spec.size_px)))
