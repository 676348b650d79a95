"""A small edit-score model over many features of each frame.

It is linear in the features of a frame and in how they vary over the video: real queries with known copies are few, and
a network with hidden layers learned the synthesized ones by heart.

Shape legend: B videos, n frames, C features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

HIDDEN_SCORE = -1e4
"""Added before a softmax where something is hidden: its exponential is 0 in float32, and float16 can hold it."""

MAX_DEVIATION = 5.0
"""Features count up to so many standard deviations from their mean: what lies farther is an outlier of any kind."""

VARIATION_STDS, MAX_VARIATION = 2.0, 2.0
"""Variation is measured in two standard deviations: it says less than the frames, and its weights grow as fast."""


class PooledEditScore(nn.Module):
    """Probability that a video was edited, from its frame features.

    ``mean`` and ``std``, ``(C,)``, are those of the features over the frames of the training videos, ``variation_mean``
    and ``variation_std``, ``(2C,)``, those of their variation over the videos. In a batch of videos a mask, bool
    ``(B, n)``, says which frames count; the others fill up shorter videos at their end.
    """

    mean: Tensor
    std: Tensor
    variation_mean: Tensor
    variation_std: Tensor

    def __init__(self, *, feature_dim: int) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("std", torch.ones(feature_dim))
        self.register_buffer("variation_mean", torch.zeros(2 * feature_dim))
        self.register_buffer("variation_std", torch.ones(2 * feature_dim))
        self.frame = nn.Linear(feature_dim, 1)
        self.video = nn.Linear(2 * feature_dim, 1, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """Frame features of one video ``(n, C)`` -> probability ``(1,)``."""
        mask = torch.ones_like(features[None, :, 0], dtype=torch.bool)
        return self.logits(features[None], mask).sigmoid()

    def logits(self, features: Tensor, mask: Tensor) -> Tensor:
        """``(B, n, C)`` and the mask ``(B, n)`` -> logits ``(B,)``."""
        return self.weigh_frames(self.frame_logits(features), mask) + self.variation_logits(features, mask)

    def frame_logits(self, features: Tensor) -> Tensor:
        """How edited each frame looks: ``(B, n, C)`` -> logits ``(B, n)``."""
        logits: Tensor = self.frame(self._standardized(features))
        return logits[..., 0]

    def weigh_frames(self, frame_logits: Tensor, mask: Tensor) -> Tensor:
        """The mean of the logits of the frames, each weighed as its odds: ``(B, n)`` and the mask -> ``(B,)``.

        A copy may be a small part of a video, and one frame that looks edited is little evidence.
        """
        hidden = 1 - mask.to(frame_logits.dtype)
        weights = (frame_logits + hidden * HIDDEN_SCORE).softmax(dim=1)
        return (frame_logits * weights).sum(dim=1)

    def variation_logits(self, features: Tensor, mask: Tensor) -> Tensor:
        """What the variation over the video adds to its logit: ``(B, n, C)`` and the mask -> ``(B,)``."""
        deviations = (self.variation(features, mask) - self.variation_mean) / (VARIATION_STDS * self.variation_std)
        logits: Tensor = self.video(deviations.clamp(-MAX_VARIATION, MAX_VARIATION))
        return logits[:, 0]

    def variation(self, features: Tensor, mask: Tensor) -> Tensor:
        """How the standardized features vary over the frames, ``(B, n, C)`` and the mask -> ``(B, 2C)``.

        Mean absolute deviation from their mean, and mean absolute difference from the frame before, which is 0 for a
        single frame.
        """
        values, counts = self._standardized(features), mask[..., None].to(features.dtype)
        num_frames = counts.sum(dim=1).clamp_min(1)
        mean = (values * counts).sum(dim=1) / num_frames
        deviation = ((values - mean[:, None]).abs() * counts).sum(dim=1) / num_frames
        # The first frame is compared with itself, so that one frame needs no other graph.
        before = torch.cat((values[:, :1], values[:, :-1]), dim=1)
        change = ((values - before).abs() * counts).sum(dim=1) / (num_frames - 1).clamp_min(1)
        return torch.cat((deviation, change), dim=1)

    def _standardized(self, features: Tensor) -> Tensor:
        return ((features - self.mean) / self.std).clamp(-MAX_DEVIATION, MAX_DEVIATION)
