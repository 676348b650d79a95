"""The moving average of a model's weights, which validates better than the weights of any one step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

_SPARED = 9


def moving_average(model: nn.Module, *, decay: float) -> AveragedModel:
    """The average that starts at the weights of ``model``; after each step ``update_parameters`` moves it.

    It keeps ``decay`` of itself in a step, in the first ones less (1/10, 2/11, ...), so that the untrained start is
    forgotten. ``module`` is the model with averaged weights; buffers are those of ``model``.
    """

    def move(averages: Sequence[Tensor], weights: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        num = int(num_averaged)
        kept = min(decay, num / (num + _SPARED))
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight, 1 - kept)

    averaged = AveragedModel(model, multi_avg_fn=move)
    averaged.update_parameters(model)  # the first update copies
    return averaged
