from __future__ import annotations

import json

import pytest
import torch

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
