"""Pictures woven of two fields, half a picture apart in time: finds them, and shows their first field alone.

The lines between are interpolated. A field has at least 240 lines, about as many as models take, so that this comes as
near to a progressive recording as filters that look at neighbouring pictures (yadif), which would have to be decoded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MIN_COMBING = 0.01
"""Share of pixels that tell of two fields; beside moving objects it is several times as much."""

_MIN_CONTRAST = 15
_MAX_FIELD_CONTRAST = 10
_MAX_COLUMNS = 96


def is_combed(luma: NDArray[np.uint8]) -> bool:
    """Whether a picture, luma uint8 ``(H, W)``, has the comb-like edges of fields from two moments.

    A line differs from both of its neighbours, and they do not differ; more often than among the lines of one field,
    where stripes and noise look the same.
    """
    columns = luma[:, :: -(-luma.shape[1] // _MAX_COLUMNS)].astype(np.int16)
    return _alternation(columns) > MIN_COMBING + 2 * _alternation(columns[::2])


def _alternation(lines: NDArray[np.int16]) -> float:
    if len(lines) < 3:
        return 0.0
    above, below = lines[:-2] - lines[1:-1], lines[2:] - lines[1:-1]
    differs = np.minimum(np.abs(above), np.abs(below)) > _MIN_CONTRAST
    return float((differs & (np.abs(above - below) < _MAX_FIELD_CONTRAST)).mean())


def show_field(picture: NDArray[np.uint8], *, bottom: bool) -> NDArray[np.uint8]:
    """One field of an RGB picture, uint8 ``(H, W, 3)``, H >= 2, in the size of the whole."""
    height, width = picture.shape[:2]
    field = Image.fromarray(np.ascontiguousarray(picture[int(bottom) :: 2]))
    return np.asarray(field.resize((width, height), Image.Resampling.BICUBIC))
