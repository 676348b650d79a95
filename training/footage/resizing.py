"""Sizes, and resizing of single RGB frames."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
"""One RGB frame, uint8 ``(H, W, 3)``, 0-255."""

Size = tuple[int, int]
"""``(width, height)`` in pixels."""


def size_of(frame: Frame) -> Size:
    """``(width, height)`` of a frame."""
    height, width = frame.shape[:2]
    return width, height


def scaled(size: Size, x_factor: float, y_factor: float) -> Size:
    """The size multiplied and rounded, at least 2 px a side."""
    return max(2, round(size[0] * x_factor)), max(2, round(size[1] * y_factor))


def limit_short_side(size: Size, short_side_px: int) -> Size:
    """The size, shrunk with its aspect ratio kept so that the short side is at most ``short_side_px``."""
    factor = min(1.0, short_side_px / min(size))
    return scaled(size, factor, factor)


def even(size: Size) -> Size:
    """The size rounded down to even numbers, as 4:2:0 video needs."""
    return size[0] - size[0] % 2, size[1] - size[1] % 2


def corner_of(inner: Size, outer: Size, *, x: float, y: float) -> Size:
    """Top left pixel of a rectangle inside another; x, y from 0 (left, top) to 1 (right, bottom)."""
    return round(x * (outer[0] - inner[0])), round(y * (outer[1] - inner[1]))


def resize(frame: Frame, size: Size) -> Frame:
    """Resize to exactly ``size``: pixel averages when shrinking, bicubic when enlarging."""
    width, height = size_of(frame)
    shrinks = size[0] * size[1] < width * height
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC), np.uint8)


def cover(frame: Frame, size: Size) -> Frame:
    """Fill ``size`` with the frame, aspect ratio kept: what sticks out of the centre is cut off."""
    outer = size_of(frame)
    factor = max(size[0] / outer[0], size[1] / outer[1])
    width, height = min(outer[0], round(size[0] / factor)), min(outer[1], round(size[1] / factor))
    left, top = corner_of((width, height), outer, x=0.5, y=0.5)
    return resize(frame[top : top + height, left : left + width], size)


def contain(frame: Frame, size: Size) -> Frame:
    """Fit the whole frame into ``size``, aspect ratio kept, centred on black."""
    width, height = size_of(frame)
    factor = min(size[0] / width, size[1] / height)
    inner = (min(size[0], max(1, round(width * factor))), min(size[1], max(1, round(height * factor))))
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    return paste(canvas, resize(frame, inner), corner_of(inner, size, x=0.5, y=0.5))


def paste(canvas: Frame, frame: Frame, corner: Size) -> Frame:
    """A copy of ``canvas`` with ``frame`` on it, its top left pixel at ``corner``; it must lie inside."""
    (left, top), (width, height) = corner, size_of(frame)
    pasted = canvas.copy()
    pasted[top : top + height, left : left + width] = frame
    return pasted
