"""A small edit-score model over many features of each frame. Knows nothing of where they come from.

Each frame is looked at alone, then what was seen is pooled over the frames: an edit shows in most frames of the copied
part, and that part may be short. The order of the frames does not matter.

Shape legend: B videos, n frames, C features, H hidden values.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

HIDDEN_DIM = 96
MAX_DEVIATION = 5.0
"""Features count up to so many standard deviations from their mean: what lies farther is an outlier of any kind."""


class PooledEditScore(nn.Module):
    """Probability that a video was edited, from its frame features.

    ``mean`` and ``std``, ``(C,)``, are those of the features over the frames of the training videos. Frames whose
    features are all zero do not count; they pad videos in a batch.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, feature_dim: int, hidden_dim: int = HIDDEN_DIM, dropout: float = 0.5) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("std", torch.ones(feature_dim))
        self.frame = nn.Linear(feature_dim, hidden_dim)
        self.video = nn.Linear(2 * hidden_dim, hidden_dim)
        self.output = nn.Linear(hidden_dim, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor) -> Tensor:
        """Frame features of one video ``(n, C)`` -> probability ``(1,)``."""
        return self.logits(features[None]).sigmoid()

    def logits(self, features: Tensor) -> Tensor:
        """``(B, n, C)``, shorter videos padded with zeros -> logits ``(B,)``."""
        visible = ((features.abs().sum(dim=2, keepdim=True)) > 0).to(features.dtype)
        deviations = ((features - self.mean) / self.std).clamp(-MAX_DEVIATION, MAX_DEVIATION)
        hidden = self.dropout(functional.gelu(self.frame(self.dropout(deviations))))
        pooled = self.dropout(functional.gelu(self.video(_pool(hidden, visible))))
        logits: Tensor = self.output(pooled)
        return logits[:, 0]


def _pool(hidden: Tensor, visible: Tensor) -> Tensor:
    """Mean, and mean absolute deviation from it, over frames: ``(B, n, H)`` and ``(B, n, 1)`` -> ``(B, 2H)``."""
    count = visible.sum(dim=1).clamp_min(1)
    mean = (hidden * visible).sum(dim=1) / count
    deviation = ((hidden - mean[:, None]).abs() * visible).sum(dim=1) / count
    return torch.cat((mean, deviation), dim=1)
