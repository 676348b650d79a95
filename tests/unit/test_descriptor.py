from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from engine.models.checkpoints import random_weights
from engine.models.descriptor import build_descriptor_model
from tests.conftest import golden_root

pytestmark = pytest.mark.torch

RECORDED = {"swinv2": "swinv2_base_w16_256", "vit": "vit_base_patch32_384"}


@pytest.mark.parametrize(
    "path",
    [path for kind in RECORDED for path in sorted((golden_root() / "checkpoints").glob(f"{kind}_*.json"))],
    ids=lambda path: path.stem,
)
def test_tensors_are_those_of_the_reference_checkpoints(path) -> None:
    recorded = json.loads(path.read_text())
    with torch.device("meta"):
        model = build_descriptor_model(RECORDED[path.stem.split("_")[0]])
    state = model.state_dict()
    assert {name: list(tensor.shape) for name, tensor in state.items()} == recorded["state_dict"]
    integers = {name: str(tensor.dtype) for name, tensor in state.items() if tensor.dtype != torch.float32}
    assert integers == {name: f"torch.{dtype}" for name, dtype in recorded["dtypes_not_float32"].items()}
    assert sum(parameter.numel() for parameter in model.parameters()) == recorded["parameter_elements"]


@torch.no_grad()
def test_efficientnet_pools_its_features_to_1280_dimensions() -> None:
    model = build_descriptor_model("efficientnet_lite0").eval()
    random_weights(model, seed=0)
    frames = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    embeddings = model(frames)
    features = model.get_submodule("backbone")(frames).double()
    expected = features.clamp(min=1e-6).pow(3).mean(dim=(2, 3)).pow(1 / 3)
    assert embeddings.shape == (2, 1280)
    torch.testing.assert_close(embeddings, expected.float())


def test_efficientnet_has_no_classifier() -> None:
    model = build_descriptor_model("efficientnet_lite0")
    assert not any(isinstance(module, nn.Linear) for module in model.modules())
