"""A small edit-score model over many features of each frame. Knows nothing of where they come from.

It is linear in what is pooled over the frames: real queries with known copies are few, and a network with hidden layers
learned the synthesized ones by heart.

Shape legend: B videos, n frames, C features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MAX_DEVIATION = 5.0
"""Features count up to so many standard deviations from their mean: what lies farther is an outlier of any kind."""

MAX_POOLED_DEVIATION = 4.0
NUM_POOLS = 3


class PooledEditScore(nn.Module):
    """Probability that a video was edited, from its frame features.

    ``mean`` and ``std``, ``(C,)``, are those of the features over the frames of the training videos, ``pooled_mean``
    and ``pooled_std``, ``(3C,)``, those of what is pooled over the videos. Frames whose features are all zero do not
    count; they pad videos in a batch.
    """

    mean: Tensor
    std: Tensor
    pooled_mean: Tensor
    pooled_std: Tensor

    def __init__(self, *, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("std", torch.ones(feature_dim))
        self.register_buffer("pooled_mean", torch.zeros(NUM_POOLS * feature_dim))
        self.register_buffer("pooled_std", torch.ones(NUM_POOLS * feature_dim))
        self.output = nn.Linear(NUM_POOLS * feature_dim, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Frame features of one video ``(n, C)`` -> probability ``(1,)``."""
        return self.logits(features[None]).sigmoid()

    def logits(self, features: Tensor) -> Tensor:
        """``(B, n, C)``, shorter videos padded with zeros at their end -> logits ``(B,)``."""
        deviations = (self.pooled(features) - self.pooled_mean) / self.pooled_std
        logits: Tensor = self.output(deviations.clamp(-MAX_POOLED_DEVIATION, MAX_POOLED_DEVIATION))
        return logits[:, 0]

    def pooled(self, features: Tensor) -> Tensor:
        """What counts of each feature, ``(B, n, C)`` -> ``(B, 3C)``.

        Of the standardized features: mean over the frames, mean absolute deviation from it, and mean absolute
        difference from the frame before, which is 0 for a single frame.
        """
        visible = (features.abs().sum(dim=2, keepdim=True) > 0).to(features.dtype)
        values = ((features - self.mean) / self.std).clamp(-MAX_DEVIATION, MAX_DEVIATION)
        num_frames = visible.sum(dim=1).clamp_min(1)
        mean = (values * visible).sum(dim=1) / num_frames
        deviation = ((values - mean[:, None]).abs() * visible).sum(dim=1) / num_frames
        # The first frame is compared with itself, so that one frame needs no other graph.
        before = torch.cat((values[:, :1], values[:, :-1]), dim=1)
        change = ((values - before).abs() * visible).sum(dim=1) / (num_frames - 1).clamp_min(1)
        return torch.cat((mean, deviation, change), dim=1)
