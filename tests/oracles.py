"""Plain float64 NumPy versions of image operations that the package leaves to libraries."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float64]


def bicubic_resize(picture: NDArray[np.uint8], *, height: int, width: int) -> NDArray[np.int16]:
    """Bicubic (a = -0.5) with antialiasing, columns first and rounded to 0-255 after each direction."""
    columns = _to_grey_levels(np.einsum("hwc,vw->hvc", picture, _bicubic_weights(picture.shape[1], width)))
    rows = np.einsum("hwc,vh->vwc", columns, _bicubic_weights(picture.shape[0], height))
    return _to_grey_levels(rows).astype(np.int16)


def center_crop(picture: NDArray[np.uint8], *, size_px: int) -> NDArray[np.int16]:
    """Short side to ``size_px`` by `bicubic_resize`, then the middle square."""
    short = min(picture.shape[:2])
    height, width = (size_px * side // short for side in picture.shape[:2])
    top, left = round((height - size_px) / 2), round((width - size_px) / 2)
    resized = bicubic_resize(picture, height=height, width=width)
    return resized[top : top + size_px, left : left + size_px]


def rgb_of_planes(luma: FloatImage, blue: FloatImage, red: FloatImage) -> FloatImage:
    """Full-range BT.601 (the matrix of JFIF), chroma at half resolution interpolated halfway between its neighbours."""
    height, width = luma.shape
    cb, cr = (_interpolate(plane, height=height, width=width) - 128 for plane in (blue, red))
    channels = [luma + 1.402 * cr, luma - 0.344136 * cb - 0.714136 * cr, luma + 1.772 * cb]
    return np.clip(np.stack(channels, axis=-1), 0, 255)


def _interpolate(plane: FloatImage, *, height: int, width: int) -> FloatImage:
    for axis, size in enumerate((height, width)):
        step = -(-size // plane.shape[axis])
        position = (np.arange(size) + 0.5) / step - 0.5
        before = np.floor(position).astype(int)
        last = plane.shape[axis] - 1
        share = np.expand_dims(position - before, 1 - axis)
        near, far = (plane.take(np.clip(index, 0, last), axis=axis) for index in (before, before + 1))
        plane = near * (1 - share) + far * share
    return plane


def _to_grey_levels(values: FloatImage) -> FloatImage:
    return np.clip(np.floor(values + 0.5), 0, 255)


def _bicubic_weights(num_in: int, num_out: int) -> FloatImage:
    """``(num_out, num_in)``, rows sum to 1; the kernel is widened by the factor of shrinking."""
    scale = num_in / num_out
    reach = max(scale, 1.0)
    centres = (np.arange(num_out)[:, None] + 0.5) * scale
    samples = np.arange(num_in)[None, :]
    first = np.maximum((centres - 2 * reach + 0.5).astype(int), 0)
    behind = np.minimum((centres + 2 * reach + 0.5).astype(int), num_in)
    x = np.abs((samples + 0.5 - centres) / reach)
    near = ((1.5 * x - 2.5) * x) * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0.0))
    weights = np.where((samples >= first) & (samples < behind), weights, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)
