"""Trades time for memory: the blocks of a model are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from engine.errors import ConfigError


def checkpoint_blocks(model: nn.Module) -> int:
    """Change ``model`` in place: every module in a list or sequence called ``blocks`` or ``stages``. Returns how many.

    Outputs and gradients stay the same. Raises ``ConfigError`` for a model without such blocks.
    """
    blocks = [
        child
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in ("blocks", "stages")
        for child in module.children()
    ]
    if not blocks:
        raise ConfigError(f"{type(model).__name__} has no blocks to recompute; set gradient_checkpointing = false")
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    return len(blocks)
