"""Weights that are not shipped and know nothing of copies, for tests of all that builds engines from checkpoints."""

from __future__ import annotations

from pathlib import Path


def write_imagenet_weights(path: Path) -> None:
    """A safetensors file of ``efficientnet_lite0_gem512``: the backbone of ImageNet, and a random projection."""
    from safetensors.torch import save_file

    from engine.models.checkpoints import load_imagenet_lite, random_weights
    from engine.models.efficientnet_lite import EfficientNetLiteDescriptor

    model = EfficientNetLiteDescriptor()
    random_weights(model, seed=0)
    load_imagenet_lite(model.backbone)
    save_file(model.state_dict(), path)
