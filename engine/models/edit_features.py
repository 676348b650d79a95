"""The features of the edit gate that the descriptor model gives on the way. Knows nothing of how they are scored.

A descriptor is trained to be blind to edits, but what it is computed from is not: borders, captions, seams between
videos, blur, noise and blocks change how strongly the filters of each stage answer, and how unevenly over the frame.
The head, which the embedding is pooled from, is left out: it tells contents apart, which an edit score must not learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from engine.models.efficientnet_lite import LITE0_STAGES, STEM_CHANNELS, EfficientNetLiteDescriptor

LITE0_STATISTICS = 2 * (STEM_CHANNELS + sum(stage.channels for stage in LITE0_STAGES))
"""Number of features of a frame."""


class WithStatistics(nn.Module):
    """A descriptor model that also says what its stages look like.

    Normalized frames, float ``(B, 3, px, px)`` -> embeddings ``(B, 512)`` and features ``(B, LITE0_STATISTICS)``.
    """

    def __init__(self, model: EfficientNetLiteDescriptor) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102 - see the class
        *stages, head = self.model.backbone.maps(frames)
        return self.model.embed(head), statistics(stages)


def statistics(maps: Sequence[Tensor]) -> Tensor:
    """Mean, and mean absolute deviation from it, of each channel over each map ``(B, C, H, W)``: ``(B, 2 * sum C)``.

    The deviation is not squared: a square root would blow up the rounding errors of even maps.
    """
    parts = []
    for values in maps:
        mean = values.mean(dim=(2, 3), keepdim=True)
        parts += [mean.flatten(1), (values - mean).abs().mean(dim=(2, 3))]
    return torch.cat(parts, dim=1)
