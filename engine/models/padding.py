"""Shorter videos of a batch are padded with frames whose features are all zero: which frames count. Knows no model.

Shape legend: B videos, n frames, C features.
"""

from __future__ import annotations

from torch import Tensor

HIDDEN_SCORE = -1e4
"""Added before a softmax where something is hidden: its exponential is 0 in float32, and float16 can hold it."""


def visible_frames(features: Tensor) -> Tensor:
    """1 where a frame counts, 0 where all its features are zero: ``(B, n, C)`` -> ``(B, n, 1)``."""
    return (features.abs().sum(dim=2, keepdim=True) > 0).to(features.dtype)
