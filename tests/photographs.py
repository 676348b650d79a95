"""Footage whose descriptors say something: photographs that scikit-image carries, one after the other."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

FPS = 10
Picture = NDArray[np.uint8]


def slideshow(*names: str, num_seconds: int = 2, height: int = 144, width: int = 192) -> list[Picture]:
    """So many seconds of each photograph of `skimage.data`, while the camera comes nearer."""
    data = pytest.importorskip("skimage.data", reason="the photographs come with the extra `demo`")
    frames = []
    for name in names:
        photograph = np.asarray(getattr(data, name)())
        if photograph.ndim == 2:
            photograph = np.stack([photograph] * 3, axis=-1)
        for step in range(num_seconds * FPS):
            margin = [int(side * (0.02 + 0.15 * step / (num_seconds * FPS))) for side in photograph.shape[:2]]
            part = photograph[margin[0] : -margin[0], margin[1] : -margin[1]]
            frames.append(np.asarray(cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA), np.uint8))
    return frames
