from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.models.checkpoints import random_weights
from engine.models.vit import VitDescriptor
from tests.golden_models import RELATIVE_ERROR, golden_names, load_golden_model, relative_error

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("name", golden_names("vit"))
@torch.no_grad()
def test_outputs_are_those_of_the_reference(name: str) -> None:
    golden = load_golden_model(name)
    assert relative_error(golden.model(golden.arrays["input"]), golden.arrays["output"]) < RELATIVE_ERROR


@torch.no_grad()
def test_head_widens_and_pools_all_tokens() -> None:
    model = VitDescriptor(img_size=32, patch_size=8, embed_dim=12, depth=2, num_heads=3, output_dim=5)
    random_weights(model, seed=0)
    frames = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    weights = {name: tensor.double().numpy() for name, tensor in model.model["embeddings"].named_parameters()}

    tokens = model.eval().model["backbone"](frames).double().numpy()
    wide = tokens @ weights["0.conv.weight"][:, :, 0].T + weights["0.conv.bias"]
    pooled = np.cbrt((np.maximum(wide, 1e-6) ** 3).mean(axis=1))
    expected = pooled @ weights["1.weight"].T + weights["1.bias"]

    assert tokens.shape == (2, 17, 12)
    np.testing.assert_allclose(model(frames).numpy(), expected, rtol=1e-5, atol=1e-6)
