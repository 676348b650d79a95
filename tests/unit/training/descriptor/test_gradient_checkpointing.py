from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from engine.errors import ConfigError  # noqa: E402
from engine.models.checkpoints import random_weights  # noqa: E402
from engine.models.efficientnet_lite import EfficientNetLiteDescriptor  # noqa: E402
from engine.models.swinv2 import SwinV2Descriptor  # noqa: E402
from training.descriptor.gradient_checkpointing import checkpoint_blocks  # noqa: E402

pytestmark = pytest.mark.torch


def tiny_swin() -> torch.nn.Module:
    return SwinV2Descriptor(
        img_size=64,
        patch_size=4,
        window_size=8,
        embed_dim=16,
        depths=(1, 2),
        num_heads=(2, 4),
        pretrained_window_sizes=(0, 0),
        output_dim=8,
    )


@pytest.mark.parametrize("build", [EfficientNetLiteDescriptor, tiny_swin])
def test_outputs_and_gradients_stay_the_same(build) -> None:
    results = []
    for recomputes in (False, True):
        model = build().eval()
        random_weights(model, seed=1)
        if recomputes:
            assert checkpoint_blocks(model) >= 3
        outputs = model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2)))
        outputs.square().sum().backward()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        results.append([outputs, *gradients])
    assert len(results[0]) == len(results[1]) > 10
    for kept, recomputed in zip(*results, strict=True):
        torch.testing.assert_close(kept, recomputed, rtol=0, atol=0)


def test_a_model_without_blocks_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no blocks"):
        checkpoint_blocks(torch.nn.Linear(2, 2))
