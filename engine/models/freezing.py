"""Computes, before export, what depends on a model's weights alone."""

from __future__ import annotations

from abc import abstractmethod

from torch import nn


class Freezable(nn.Module):
    """A module that holds values which its weights determine, and can keep them as constants."""

    @abstractmethod
    def freeze(self) -> None:
        """Keep the values that the present weights give; later changes of the weights do not reach them."""


def freeze_for_export(model: nn.Module) -> nn.Module:
    """Make ``model`` ready to be exported, in place, and return it: evaluation mode, no gradients, constants kept.

    Call it after the weights are loaded. A frozen model cannot be trained.
    """
    model.requires_grad_(False).eval()
    for module in model.modules():
        if isinstance(module, Freezable):
            module.freeze()
    return model
