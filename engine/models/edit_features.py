"""The features of the edit gate that the descriptor model gives on the way.

A descriptor is trained to be blind to edits, but what it is computed from is not: borders, captions, seams between
videos, blur, noise and blocks change how strongly the filters of each stage answer, and where in the frame.
The head, which the embedding is pooled from, is left out: it tells contents apart, which an edit score must not learn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.models.efficientnet_lite import LITE0_STAGES, STEM_CHANNELS, EfficientNetLiteDescriptor

LITE0_STATISTICS = 6 * (STEM_CHANNELS + sum(stage.channels for stage in LITE0_STAGES))
"""Number of features of a frame: six of each channel."""

_NUM_CELLS = 7


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
    """What each channel of each map ``(B, C, H, W)`` is like over the frame: ``(B, 6 * sum C)``, map by map.

    Mean; mean absolute deviation of pixels, of rows and of columns from it (textures, bars, and seams between videos);
    highest and lowest mean of a cell of a 7x7 grid (what covers a part of the frame). Rows and columns that are left
    over by the grid count in no cell; a map of fewer than 7 has cells of one pixel.

    Deviations are not squared: a square root would blow up the rounding errors of even maps.
    """
    parts = []
    for values in maps:
        mean = values.mean(dim=(2, 3), keepdim=True)
        parts += [mean.flatten(1), (values - mean).abs().mean(dim=(2, 3))]
        parts += [(values.mean(dim=dim, keepdim=True) - mean).abs().mean(dim=(2, 3)) for dim in (3, 2)]
        cells = functional.avg_pool2d(values, [max(1, side // _NUM_CELLS) for side in values.shape[2:]])
        parts += [cells.amax(dim=(2, 3)), cells.amin(dim=(2, 3))]
    return torch.cat(parts, dim=1)
