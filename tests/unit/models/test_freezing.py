from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.models.checkpoints import random_weights
from engine.models.edit_score import EditScore
from engine.models.freezing import freeze_for_export
from engine.models.swinv2 import SwinV2Descriptor

pytestmark = pytest.mark.torch

MAX_FRAMES = 4


def build(kind: str) -> nn.Module:
    if kind == "swinv2":
        model: nn.Module = SwinV2Descriptor(
            img_size=32,
            patch_size=4,
            window_size=4,
            embed_dim=8,
            depths=(2, 1),
            num_heads=(1, 2),
            pretrained_window_sizes=(3, 3),
            output_dim=6,
        )
    else:
        model = EditScore(
            feature_dim=10,
            hidden_dim=12,
            intermediate_dim=20,
            num_layers=1,
            num_heads=3,
            max_frames=MAX_FRAMES,
            vocabulary_size=110,
            num_positions=8,
        )
    random_weights(model, seed=0)
    return model.eval()


def rows(kind: str, num: int) -> Tensor:
    shape = (num, 10) if kind == "edit_score" else (num, 3, 32, 32)
    return torch.randn(shape, generator=torch.Generator().manual_seed(num))


@pytest.mark.parametrize("kind", ["swinv2", "edit_score"])
@torch.no_grad()
def test_frozen_outputs_are_equal_and_no_longer_follow_the_weights_of_the_constants(kind: str) -> None:
    model = build(kind)
    expected = model(rows(kind, 2))
    frozen = freeze_for_export(model)
    torch.testing.assert_close(frozen(rows(kind, 2)), expected, rtol=0, atol=0)
    constant = (
        "layers.0.blocks.0.attn.cpb_mlp.2.weight" if kind == "swinv2" else "bert.embeddings.word_embeddings.weight"
    )
    frozen.get_parameter(constant).zero_()
    torch.testing.assert_close(frozen(rows(kind, 2)), expected, rtol=0, atol=0)


def test_frozen_constants_stay_out_of_the_state() -> None:
    model = build("edit_score")
    names = list(model.state_dict())
    assert list(freeze_for_export(model).state_dict()) == names
    assert not any(parameter.requires_grad for parameter in model.parameters())
