"""Where a run starts: the model of a recipe with random, ImageNet's or given weights, its projection whitened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.build.export import Normalize
from engine.errors import ConfigError
from engine.models.checkpoints import load_imagenet_lite, load_weights, random_weights
from engine.models.descriptor import build_descriptor_model
from engine.models.efficientnet_lite import EfficientNetLiteDescriptor
from engine.models.pooling import gem
from training.descriptor.config import Model
from training.descriptor.views import fit
from training.store.frame_store import FrameStore

_BATCH = 64
_MIN_STD = 1e-3


def start_model(config: Model, *, seed: int, store: FrameStore, pictures: NDArray[np.int64]) -> nn.Module:
    """The model as ``config`` lets it start; ``pictures``: positions in ``store`` of those to train on, int64 ``(N,)``.

    Raises ``ConfigError`` where the weights do not fit or are missing, and for too few pictures to whiten with.
    """
    model = build_descriptor_model(config.architecture)
    random_weights(model, seed=seed)
    if config.start == "imagenet":
        if not isinstance(model, EfficientNetLiteDescriptor):
            raise ConfigError(f"there are no ImageNet weights for {config.architecture}; start it from a file")
        load_imagenet_lite(model.backbone)
    elif config.start != "random":
        path = Path(config.start)
        load_weights(model, checkpoint=path.name, folder=path.parent)
    if config.whiten_projection:
        if not isinstance(model, EfficientNetLiteDescriptor):
            raise ConfigError(f"whiten_projection is not made for {config.architecture}")
        chosen = np.random.default_rng([seed, 2]).permutation(pictures)[: config.whitening_pictures]
        frames = np.stack([fit(store.picture(int(index)), config.whitening_px) for index in chosen])
        _whiten(model, config, frames)
    return model


def _whiten(model: EfficientNetLiteDescriptor, config: Model, frames: NDArray[np.uint8]) -> None:
    """Let the projection be the whitening PCA of the pooled features of ``frames``: equal variance everywhere."""
    num = model.projection.out_features
    if len(frames) <= num:
        raise ConfigError(f"whiten_projection needs more than {num} pictures to train on, got {len(frames)}")
    normalize = Normalize(config.mean, config.std)
    pooled: list[Tensor] = []
    with torch.inference_mode():
        for part in torch.split(torch.from_numpy(frames), _BATCH):
            pooled.append(gem(model.eval().backbone(normalize(part)), dim=(2, 3)))
    features = torch.cat(pooled).double()
    mean = features.mean(dim=0)
    _, singular, components = torch.linalg.svd(features - mean, full_matrices=False)
    scales = 1 / (singular[:num] / len(features) ** 0.5).clamp_min(_MIN_STD)
    weight = components[:num] * scales[:, None]
    with torch.no_grad():
        model.projection.weight.copy_(weight.float())
        model.projection.bias.copy_((-weight @ mean).float())
