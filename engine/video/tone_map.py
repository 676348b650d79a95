"""HDR pictures (PQ and HLG, ITU-R BT.2100) as a standard display would show them. Knows nothing of files.

Display light relative to reference white, 203 cd/m2 (ITU-R BT.2408), stays as it is up to `KNEE`; from there to `PEAK`
it is compressed, by the brightest channel, so that hues stay. Then come the primaries of BT.709 and the gamma of 2.4 of
standard displays (ITU-R BT.1886).
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Transfer = Literal["pq", "hlg"]
"""How code values stand for light: SMPTE ST 2084, or ARIB STD-B67."""

REFERENCE_WHITE = 203.0
KNEE = 0.75
PEAK = 1000 / REFERENCE_WHITE
_GAMMA = 2.4
_NODES = 65

_BT2020_KR, _BT2020_KB = 0.2627, 0.0593
_BT709_KR, _BT709_KB = 0.2126, 0.0722
_BT601_KR, _BT601_KB = 0.299, 0.114
_BT709_OF_BT2020 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
"""Linear RGB, ITU-R BT.2087."""

FloatPixels = NDArray[np.float64]


def tone_map(ycbcr: Image.Image, transfer: Transfer) -> Image.Image:
    """RGB of full-range Y, Cb and Cr of BT.2020, the three bands of an image of 8 bits in mode RGB.

    What comes out is what `engine.video.color` makes of a standard recording of the same scene in BT.709.
    """
    return ycbcr.filter(_table(transfer))


@cache
def _table(transfer: Transfer) -> ImageFilter.Color3DLUT:
    steps = np.linspace(0, 1, _NODES)
    red, blue, luma = np.meshgrid(steps, steps, steps, indexing="ij")
    pixels = _standard_pixels(np.stack([luma, blue - 128 / 255, red - 128 / 255], axis=-1), transfer)
    return ImageFilter.Color3DLUT(_NODES, pixels.reshape(-1, 3).astype(np.float32))


def _standard_pixels(ycbcr: FloatPixels, transfer: Transfer) -> FloatPixels:
    """``(..., 3)``: Y 0-1, Cb and Cr -0.5 to 0.5, to RGB, 0-1."""
    coded = np.clip(ycbcr @ _rgb_matrix(_BT2020_KR, _BT2020_KB).T, 0, 1)
    light = display_light(coded, transfer) / REFERENCE_WHITE
    brightest = np.maximum(light.max(axis=-1, keepdims=True), 1e-9)
    light = np.clip(light * (compress(brightest) / brightest) @ _BT709_OF_BT2020.T, 0, 1)
    standard = light ** (1 / _GAMMA)
    # Standard recordings in BT.709 are read with the matrix of BT.601, see `engine.video.color`.
    misread = _rgb_matrix(_BT601_KR, _BT601_KB) @ np.linalg.inv(_rgb_matrix(_BT709_KR, _BT709_KB))
    return np.asarray(np.clip(standard @ misread.T, 0, 1))


def compress(light: FloatPixels) -> FloatPixels:
    """Light relative to reference white, 0 to `PEAK` and more, to 0-1: rising, smooth, the same up to `KNEE`."""
    # A hyperbola that leaves the knee with slope 1 and arrives at (PEAK, 1).
    excess, room = light - KNEE, 1 - KNEE
    bend = 1 / room - 1 / (PEAK - KNEE)
    return np.where(light <= KNEE, light, np.minimum(KNEE + excess / (1 + bend * np.maximum(excess, 0)), 1))


def display_light(coded: FloatPixels, transfer: Transfer) -> FloatPixels:
    """Light of a display of 1,000 cd/m2 (HLG) or of any (PQ), in cd/m2, of R'G'B', 0-1, ``(..., 3)``."""
    if transfer == "pq":
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        root = coded ** (1 / m2)
        return np.asarray(10_000 * (np.maximum(root - c1, 0) / (c2 - c3 * root)) ** (1 / m1))
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - c) / a) + b) / 12)
    luminance = scene @ np.array([_BT2020_KR, 1 - _BT2020_KR - _BT2020_KB, _BT2020_KB])
    return np.asarray(1000 * scene * luminance[..., np.newaxis] ** 0.2)


def _rgb_matrix(red: float, blue: float) -> FloatPixels:
    """Y, Cb, Cr to R, G, B, for the luma coefficients of red and blue."""
    green = 1 - red - blue
    return np.array(
        [
            [1, 0, 2 * (1 - red)],
            [1, -2 * blue * (1 - blue) / green, -2 * red * (1 - red) / green],
            [1, 2 * (1 - blue), 0],
        ]
    )
