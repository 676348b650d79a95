from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from engine.models.checkpoints import random_weights
from engine.models.clip import ClipVisual
from tests.golden_models import RELATIVE_ERROR, golden_names, load_golden_model, relative_error

pytestmark = pytest.mark.torch

# Names of `torch.nn.TransformerEncoderLayer` for those of CLIP's blocks.
ENCODER_NAMES = {
    "self_attn.in_proj_weight": "attn.in_proj_weight",
    "self_attn.in_proj_bias": "attn.in_proj_bias",
    "self_attn.out_proj.weight": "attn.out_proj.weight",
    "self_attn.out_proj.bias": "attn.out_proj.bias",
    "linear1.weight": "mlp.c_fc.weight",
    "linear1.bias": "mlp.c_fc.bias",
    "linear2.weight": "mlp.c_proj.weight",
    "linear2.bias": "mlp.c_proj.bias",
    "norm1.weight": "ln_1.weight",
    "norm1.bias": "ln_1.bias",
    "norm2.weight": "ln_2.weight",
    "norm2.bias": "ln_2.bias",
}


def class_tokens(model: ClipVisual, frames: Tensor, *, heads: int) -> Tensor:
    """The tower in float64 from PyTorch's own encoder layer, all tokens computed in all blocks."""
    state = {name: tensor.double() for name, tensor in model.state_dict().items()}
    patches = nn.functional.conv2d(frames.double(), state["conv1.weight"], stride=model.conv1.stride)
    opening = state["class_embedding"].expand(len(frames), 1, -1)
    tokens = torch.cat((opening, patches.flatten(2).transpose(1, 2)), dim=1) + state["positional_embedding"]
    width = tokens.shape[2]
    tokens = nn.functional.layer_norm(tokens, (width,), state["ln_pre.weight"], state["ln_pre.bias"])
    for index in range(len(model.transformer["resblocks"])):
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, activation=quick_gelu, norm_first=True, batch_first=True, dtype=torch.float64
        ).eval()
        prefix = f"transformer.resblocks.{index}."
        layer.load_state_dict({name: state[prefix + ours] for name, ours in ENCODER_NAMES.items()})
        tokens = layer(tokens)
    return nn.functional.layer_norm(tokens[:, 0], (width,), state["ln_post.weight"], state["ln_post.bias"])


def quick_gelu(values: Tensor) -> Tensor:
    return values * torch.sigmoid(1.702 * values)


@pytest.mark.parametrize("name", golden_names("clip"))
@torch.no_grad()
def test_outputs_are_the_class_tokens_of_the_reference(name: str) -> None:
    golden = load_golden_model(name)
    assert relative_error(golden.model(golden.arrays["input"]), golden.arrays["output"][:, 0]) < RELATIVE_ERROR


@torch.no_grad()
def test_outputs_are_those_of_full_attention_in_float64() -> None:
    model = ClipVisual(input_resolution=28, patch_size=7, width=24, layers=3, heads=4)
    random_weights(model, seed=0)
    frames = torch.rand(3, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    assert relative_error(model(frames).double(), class_tokens(model, frames, heads=4)) < RELATIVE_ERROR
