from __future__ import annotations

import pytest
import torch
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor

from engine.models.checkpoints import random_weights
from engine.models.pooling import gem
from engine.models.swinv2 import SwinV2Descriptor
from tests.golden_models import RELATIVE_ERROR, golden_names, load_golden_model, relative_error

pytestmark = pytest.mark.torch


def tiny_model() -> SwinV2Descriptor:
    model = SwinV2Descriptor(
        img_size=64,
        patch_size=4,
        window_size=8,
        embed_dim=8,
        depths=(2, 1),
        num_heads=(2, 4),
        pretrained_window_sizes=(6, 3),
        output_dim=6,
    )
    random_weights(model, seed=0)
    return model.eval()


def frames(num: int) -> Tensor:
    return torch.rand(num, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("name", golden_names("swinv2"))
@torch.no_grad()
def test_outputs_are_those_of_the_reference(name: str) -> None:
    golden = load_golden_model(name)
    assert relative_error(golden.model(golden.arrays["input"]), golden.arrays["output"]) < RELATIVE_ERROR


@torch.no_grad()
def test_outputs_are_those_of_timm() -> None:
    model = tiny_model()
    other = SwinTransformerV2(
        img_size=64,
        window_size=8,
        embed_dim=8,
        depths=(2, 1),
        num_heads=(2, 4),
        pretrained_window_sizes=(6, 3),
        num_classes=0,
        global_pool="",
    ).eval()
    # timm merges patches at the beginning of a stage, the reference at the end of the one before.
    renamed = {name.replace("layers.0.downsample", "layers.1.downsample"): t for name, t in model.state_dict().items()}
    shared = {name: tensor for name, tensor in renamed.items() if name in other.state_dict()}
    assert len(shared) == len(other.state_dict())
    other.load_state_dict(shared)
    expected = model.output_proj(gem(other(frames(3)), dim=(1, 2)))
    assert relative_error(model(frames(3)), expected) < RELATIVE_ERROR


@torch.no_grad()
def test_a_frame_does_not_depend_on_its_batch() -> None:
    model = tiny_model()
    torch.testing.assert_close(model(frames(3))[2:], model(frames(3)[2:]))


def test_unfrozen_model_trains_its_position_bias() -> None:
    model = tiny_model().train()
    model(frames(2)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert model.get_parameter("layers.0.blocks.1.attn.cpb_mlp.0.weight").grad.abs().max() > 0
