"""Difference hashes: 128 bits that say whether two pictures are nearly the same. Knows nothing of stores and training.

A hash compares neighbours in a small grey copy, along rows and along columns (dHash, both ways), so that it survives
resizing, compression and slight changes of brightness, and little else.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from training.footage.resizing import Frame

Hash = NDArray[np.uint64]
"""Uint64 ``(2,)``: one bit each for 64 neighbours in rows and in columns."""

NUM_BITS = 128
_SIDE = 8
_ROWS_AT_ONCE = 256


def picture_hash(picture: Frame) -> Hash:
    """The hash of a picture, RGB uint8 ``(H, W, 3)``."""
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    wide = cv2.resize(gray, (_SIDE + 1, _SIDE), interpolation=cv2.INTER_AREA)
    tall = cv2.resize(gray, (_SIDE, _SIDE + 1), interpolation=cv2.INTER_AREA)
    bits = np.concatenate([(wide[:, 1:] > wide[:, :-1]).ravel(), (tall[1:] > tall[:-1]).ravel()])
    return np.packbits(bits).view(np.uint64)


def distances(one: Hash, others: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Bits, 0-128, in which a hash differs from others ``(N, 2)``: int64 ``(N,)``."""
    return np.asarray(np.bitwise_count(others ^ one).sum(axis=-1), np.int64)


def near_pairs(hashes: Sequence[Hash], *, max_bits: int) -> list[tuple[int, int]]:
    """Positions ``(i, j)``, i < j, of all hashes that differ in at most ``max_bits`` bits."""
    if not hashes:
        return []
    rows = np.stack(hashes)
    found: list[tuple[int, int]] = []
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE, None]
        differing = np.bitwise_count(part ^ rows[None, start:]).sum(axis=-1, dtype=np.int64)
        first, second = np.nonzero(differing <= max_bits)
        found += [(start + int(i), start + int(j)) for i, j in zip(first, second, strict=True) if i < j]
    return found
