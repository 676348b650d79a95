"""Color as the reference sees it: pictures that went through a JPEG file.

FFmpeg writes the planes of a frame into the JPEG with their range widened to 0-255 and their matrix untouched; the JPEG
is then read as BT.601 with interpolated chroma. So the matrix that a video is tagged with does not count. The losses
of the JPEG's quantiser, about one grey level, are left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.video.tone_map import Transfer, tone_map

Plane = NDArray[np.uint8]


def rgb_from_planes(luma: Plane, blue: Plane, red: Plane, *, hdr: Transfer | None = None) -> NDArray[np.uint8]:
    """RGB, uint8 ``(H, W, 3)``, of full-range Y ``(H, W)``, Cb and Cr: uint8, both of one size, as large or smaller.

    ``hdr``: how the planes stand for light, where they are to be mapped to a standard display.
    """
    image = Image.fromarray(luma)
    planes = (image, *(_upsample(Image.fromarray(plane), size_wh=image.size) for plane in (blue, red)))
    if hdr is not None:
        return np.asarray(tone_map(Image.merge("RGB", planes), hdr))
    return np.asarray(Image.merge("YCbCr", planes).convert("RGB"))


def _upsample(chroma: Image.Image, *, size_wh: tuple[int, int]) -> Image.Image:
    """Interpolate as JPEG decoders do: samples lie amid the pixels they stand for, weights are 3/4 and 1/4."""
    if chroma.size == size_wh:
        return chroma
    return chroma.resize(size_wh, Image.Resampling.BILINEAR, box=chroma_box(chroma.size, size_wh=size_wh))


def chroma_box(chroma_wh: tuple[int, int], *, size_wh: tuple[int, int]) -> tuple[float, float, float, float]:
    """The part of a plane of chroma, in its samples, that a picture of ``size_wh`` pixels covers."""
    # In a picture of odd size the last sample stands for one pixel only: the samples reach over the edge.
    steps = [-(-size // samples) for size, samples in zip(size_wh, chroma_wh, strict=True)]
    return 0, 0, size_wh[0] / steps[0], size_wh[1] / steps[1]
