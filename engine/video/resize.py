"""Fits a picture to the square input of a model, as torchvision does with Pillow images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.records import Region
from engine.video.source import InputSpec

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
"""Pillow's filters (bicubic: a = -0.5) widen their support where they shrink: they antialias."""


@dataclass(frozen=True)
class Fit:
    """Resize to ``size_wh`` pixels, then cut out the square of the model whose corner is at ``left``, ``top``."""

    size_wh: tuple[int, int]
    left: int
    top: int

    @classmethod
    def of(cls, size_wh: tuple[int, int], spec: InputSpec) -> Fit:
        """How a picture of ``size_wh`` becomes the input ``spec``."""
        if spec.fit == "stretch":
            return cls((spec.size_px, spec.size_px), 0, 0)
        # torchvision cuts the fraction off the long side and rounds the margin to even.
        short = min(size_wh)
        width, height = (int(spec.size_px * side / short) for side in size_wh)
        return cls((width, height), round((width - spec.size_px) / 2), round((height - spec.size_px) / 2))


def fit_picture(picture: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Turn an RGB picture, uint8 ``(H, W, 3)``, into uint8 ``(size_px, size_px, 3)`` by ``spec.fit``."""
    image = Image.fromarray(picture)
    fit = Fit.of(image.size, spec)
    resized = image.resize(fit.size_wh, FILTERS[spec.interpolation])
    return np.asarray(resized.crop((fit.left, fit.top, fit.left + spec.size_px, fit.top + spec.size_px)))


def reduced(picture: NDArray[np.uint8], *, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture, uint8 ``(H, W, 3)``, in a smaller size; pixels are means."""
    return np.asarray(Image.fromarray(picture).resize(size_wh, Image.Resampling.BOX))


def check_inside(region: Region, *, size_wh: tuple[int, int]) -> None:
    """Raise ``ValueError`` unless the region lies inside a frame of ``size_wh``."""
    if region.x1 > size_wh[0] or region.y1 > size_wh[1]:
        raise ValueError(f"region {region.box} is not inside the frame of {size_wh[0]}x{size_wh[1]} pixels")
